/* The character classes that tokenizers ask for, as the reference library (Hugging Face tokenizers) defines them: categories and
 * normalization by the Unicode 8 and 9 tables that it carries, letters, digits and case by Unicode 16 and 17. ASCII is answered
 * inline, the rest by utf8proc's categories with the exceptions between those versions. */
#ifndef ZQ_TEXT_UNICODE_H
#define ZQ_TEXT_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

/* For characters above U+007F. */
bool zq_wide_is_space(uint32_t c);
bool zq_wide_is_punctuation(uint32_t c);

/* White_Space of Unicode, which is what Rust calls whitespace: not U+180E, not U+200B, but U+0085. */
static inline bool zq_is_space(uint32_t c)
{
    return c < 0x80 ? c == ' ' || (c >= 9 && c <= 13) : zq_wide_is_space(c);
}

/* ASCII that is neither letter, digit, space nor control; beyond ASCII the categories P*. */
static inline bool zq_is_punctuation(uint32_t c)
{
    if (c >= 0x80) return zq_wide_is_punctuation(c);
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

bool zq_is_numeric(uint32_t c);         /* Nd, Nl, No */
bool zq_is_mark(uint32_t c);            /* Mn, Mc, Me */
bool zq_is_nonspacing_mark(uint32_t c); /* Mn */
bool zq_is_bert_control(uint32_t c);    /* Cc, Cf, Co without TAB, LF, CR; unassigned characters (Cn) are none */
bool zq_is_cjk(uint32_t c);             /* what BertNormalizer sets apart with spaces */
bool zq_is_word(uint32_t c);            /* \w of Rust's regex crate: Alphabetic, M, Nd, Pc, Join_Control */

/* Canonical_Combining_Class, and whether canonical decomposition knows c, by Unicode 9. */
int zq_combining_class(uint32_t c);
bool zq_is_newer_than_unicode_9(uint32_t c);

/* Lower case without context, up to two characters into out; returns how many. */
int zq_lower(uint32_t c, uint32_t out[2]);

#endif
