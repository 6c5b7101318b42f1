/* JSON in C strings is readable with ' for ", and so are the sentences that quote: tests swap the two. */
#ifndef ZQ_TESTS_QUOTES_H
#define ZQ_TESTS_QUOTES_H

/* Both change text in place and return it. */
static inline char *swap_byte(char *text, char from, char to)
{
    for (char *s = text; *s; s++)
        if (*s == from) *s = to;
    return text;
}

static inline char *double_quotes(char *text) { return swap_byte(text, '\'', '"'); }
static inline char *single_quotes(char *text) { return swap_byte(text, '"', '\''); }

#endif
