/* What differs: \s (PCRE2 adds U+180E), \w and \b (PCRE2 takes every number, but no marks), \h, scripts (PCRE2 means script
 * extensions), nested classes and && inside [..], which PCRE2 has not; and the version of Unicode: Debian's PCRE2 10.42 has 14, the
 * reference library 16. So a property is followed by the characters that have joined it since; with a newer PCRE2 they are there
 * twice, which is harmless. */
#define _GNU_SOURCE /* memmem */
#include "text/dialect.h"

#include "base/status.h"

/* ---- tables ------------------------------------------------------------------------------------------------------- */

#define SPACES "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                                          \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

/* Unicode 15 and 16 */
#define NEW_LU "\\x{1c89}\\x{a7cb}-\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"
#define NEW_LL "\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"
#define NEW_LM "\\x{10d4e}\\x{10d6f}\\x{16d40}-\\x{16d42}\\x{16d6b}-\\x{16d6c}\\x{1e030}-\\x{1e06d}\\x{1e4eb}"
#define NEW_LO                                                                                                            \
    "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4d}\\x{10d4f}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}" \
    "\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}"              \
    "\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}" \
    "\\x{16d43}-\\x{16d6a}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1e4d0}-\\x{1e4ea}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}"   \
    "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NEW_MN                                                                                                            \
    "\\x{897}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}\\x{113bb}-\\x{113c0}\\x{113ce}\\x{113d0}"       \
    "\\x{113d2}\\x{113e1}-\\x{113e2}\\x{11f00}-\\x{11f01}\\x{11f36}-\\x{11f3a}\\x{11f40}\\x{11f42}\\x{11f5a}\\x{13440}"   \
    "\\x{13447}-\\x{13455}\\x{1611e}-\\x{16129}\\x{1612d}-\\x{1612f}\\x{1e08f}\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}-\\x{1e5ef}"
#define NEW_MC                                                                                                        \
    "\\x{cf3}\\x{113b8}-\\x{113ba}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}-\\x{113cd}\\x{113cf}\\x{11f03}" \
    "\\x{11f34}-\\x{11f35}\\x{11f3e}-\\x{11f3f}\\x{11f41}\\x{1612a}-\\x{1612c}"
#define NEW_ND                                                                                                  \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}" \
    "\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define NEW_NO "\\x{1d2c0}-\\x{1d2d3}"
#define NEW_P                                                                                                         \
    "\\x{1b4e}-\\x{1b4f}\\x{1b7f}\\x{10d6e}\\x{113d4}-\\x{113d5}\\x{113d7}-\\x{113d8}\\x{11b00}-\\x{11b09}\\x{11be1}" \
    "\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"
#define NEW_S                                                                                                             \
    "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}-\\x{31e5}\\x{31ef}\\x{10d8e}-\\x{10d8f}\\x{1cc00}-\\x{1ccef}"        \
    "\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}"            \
    "\\x{1f8c0}-\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}\\x{1fabb}-\\x{1fabf}" \
    "\\x{1fac6}\\x{1face}-\\x{1facf}\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}-\\x{1fae9}\\x{1faf7}-\\x{1faf8}"            \
    "\\x{1fbcb}-\\x{1fbef}"
#define NEW_HAN "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"

#define NEW_L NEW_LU NEW_LL NEW_LM NEW_LO
#define NEW_M NEW_MN NEW_MC
#define ALPHABETIC_SYMBOLS "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD "A-Za-z0-9_\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}" ALPHABETIC_SYMBOLS NEW_L NEW_M NEW_ND
#define LONE_WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" WORD /* outside of [..] Oniguruma takes the numbers of Latin-1, too */

/* \x outside and inside of [..]; NULL inside: cannot be written there. */
static const struct escape {
    char letter;
    const char *outside, *inside;
} escapes[] = {
    {'s', "[" SPACES "]", SPACES},
    {'S', "[^" SPACES "]", NOT_SPACES},
    {'w', "[" LONE_WORD "]", WORD},
    {'W', "[^" LONE_WORD "]", NULL},
    {'d', "[0-9\\p{Nd}" NEW_ND "]", "0-9\\p{Nd}" NEW_ND},
    {'D', "[^0-9\\p{Nd}" NEW_ND "]", NULL},
    {'h', "[0-9a-fA-F]", "0-9a-fA-F"},
    {'H', "[^0-9a-fA-F]", NULL},
};

/* \p{name}: what stands for it inside of [..]. The ASCII part is spelled out because PCRE2 tests a bitmap before properties. */
static const struct property {
    const char *name, *members;
} properties[] = {
    {"L", "A-Za-z\\p{L}" NEW_L},
    {"Lu", "\\p{Lu}" NEW_LU},
    {"Ll", "\\p{Ll}" NEW_LL},
    {"Lm", "\\p{Lm}" NEW_LM},
    {"Lo", "\\p{Lo}" NEW_LO},
    {"M", "\\p{M}" NEW_M},
    {"Mn", "\\p{Mn}" NEW_MN},
    {"Mc", "\\p{Mc}" NEW_MC},
    {"N", "0-9\\p{N}" NEW_ND NEW_NO},
    {"Nd", "0-9\\p{Nd}" NEW_ND},
    {"No", "\\p{No}" NEW_NO},
    {"P", "\\p{P}" NEW_P},
    {"S", "\\p{S}" NEW_S},
    {"Han", "\\p{sc:Han}" NEW_HAN},
    {"Hiragana", "\\p{sc:Hiragana}"},
    {"Katakana", "\\p{sc:Katakana}"},
    {"Hangul", "\\p{sc:Hangul}"},
    {"Latin", "\\p{sc:Latin}"},
    {"Greek", "\\p{sc:Greek}"},
    {"Cyrillic", "\\p{sc:Cyrillic}"},
    {"Arabic", "\\p{sc:Arabic}"},
    {"Hebrew", "\\p{sc:Hebrew}"},
    {"Devanagari", "\\p{sc:Devanagari}"},
    {"Thai", "\\p{sc:Thai}"},
};

/* ---- translating -------------------------------------------------------------------------------------------------- */

struct translation {
    struct zq_bytes *out;
    const char *p; /* the pattern */
    size_t n, at;
    bool in_class, memory; /* memory: false once an allocation has failed */
    const char *problem;
};

static void put(struct translation *t, const char *s, size_t n)
{
    t->memory = t->memory && zq_bytes_put(t->out, s, n);
}

static void put_text(struct translation *t, const char *s)
{
    put(t, s, strlen(s));
}

/* As it stands. */
static void copy(struct translation *t, size_t n)
{
    put(t, t->p + t->at, n);
    t->at += n;
}

/* \p{..}, \P{..} and \p{^..} of a property in the table; false if it is not in the table or negated inside of [..]. */
static bool put_property(struct translation *t)
{
    const char *s = t->p + t->at;
    const size_t n = t->n - t->at;
    const char *end = n > 3 && s[2] == '{' ? memchr(s, '}', n) : NULL;
    if (!end || (s[1] != 'p' && s[1] != 'P')) return false;
    const bool caret = s[3] == '^', negated = caret != (s[1] == 'P');
    const char *name = s + 3 + caret;
    if (negated && t->in_class) return false;
    for (size_t i = 0; i < ZQ_LEN(properties); i++) {
        const struct property *p = &properties[i];
        if (strlen(p->name) != (size_t)(end - name) || memcmp(p->name, name, (size_t)(end - name))) continue;
        if (!t->in_class) put_text(t, negated ? "[^" : "[");
        put_text(t, p->members);
        if (!t->in_class) put_text(t, "]");
        t->at += (size_t)(end + 1 - s);
        return true;
    }
    return false;
}

/* \b: a word character on one side only; \B: on both or none. */
static void put_boundary(struct translation *t, bool negated)
{
    const char *const is = LONE_WORD "])";
    put_text(t, "(?:(?<=[");
    put_text(t, is);
    put_text(t, negated ? "(?=[" : "(?![");
    put_text(t, is);
    put_text(t, "|(?<![");
    put_text(t, is);
    put_text(t, negated ? "(?![" : "(?=[");
    put_text(t, is);
    put_text(t, ")");
    t->at += 2;
}

static void translate_escape(struct translation *t)
{
    if (t->n - t->at < 2) {
        t->problem = "a backslash at the end";
        return;
    }
    if (put_property(t)) return;
    const char letter = t->p[t->at + 1];
    if (!t->in_class && (letter == 'b' || letter == 'B')) { /* in a class \b is a backspace, for both */
        put_boundary(t, letter == 'B');
        return;
    }
    for (size_t i = 0; i < ZQ_LEN(escapes); i++) {
        if (escapes[i].letter != letter) continue;
        const char *as = t->in_class ? escapes[i].inside : escapes[i].outside;
        if (!as) t->problem = "a negated escape inside [..]";
        if (as) put_text(t, as);
        t->at += 2;
        return;
    }
    copy(t, 2);
}

/* What is special inside of [..]; the closing bracket is not. */
static void translate_in_class(struct translation *t)
{
    const char *s = t->p + t->at;
    const char next = t->at + 1 < t->n ? s[1] : 0;
    if (*s == '[' && next == ':') {
        const char *end = memmem(s, t->n - t->at, ":]", 2);
        if (end)
            copy(t, (size_t)(end + 2 - s));
        else
            t->problem = "an unfinished [:class:]";
    } else if (*s == '[') {
        t->problem = "a class inside a class";
    } else if (*s == '&' && next == '&') {
        t->problem = "&& inside [..]";
    } else {
        copy(t, 1);
    }
}

bool zq_dialect_translate(struct zq_bytes *out, const char *p, size_t n, const char **problem)
{
    struct translation t = {.out = out, .p = p, .n = n, .memory = true};
    size_t first = 0; /* of the members of the open class: a ] there is one of them */
    while (t.at < n && t.memory && !t.problem) {
        if (p[t.at] == '\\') {
            translate_escape(&t);
        } else if (!t.in_class) {
            t.in_class = p[t.at] == '[';
            copy(&t, 1);
            if (t.in_class && t.at < n && p[t.at] == '^') copy(&t, 1);
            first = t.at;
        } else if (p[t.at] == ']' && t.at > first) {
            t.in_class = false;
            copy(&t, 1);
        } else {
            translate_in_class(&t);
        }
    }
    *problem = t.problem;
    return t.memory;
}
