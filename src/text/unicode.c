/* Character classes on top of utf8proc's categories. The tables of exceptions were made by asking the reference library about
 * every character; they are the same whatever version of Unicode utf8proc has, from 14 to 16. Ranges reach over characters that
 * the class in question cannot contain. */
#include "text/unicode.h"

#include "base/status.h"

#include <utf8proc.h>

struct range {
    uint32_t first, last;
};

static bool in_ranges(const struct range *r, size_t n, uint32_t c)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t mid = (low + high) / 2;
        if (c > r[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && c >= r[low].first;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

/* Marks, punctuation and format characters that came with Unicode 10 and later: the reference library knows none of them. */
static bool is_newer(uint32_t c)
{
    static const struct range ranges[] = {
        {0x61d, 0x61d}, {0x7fd, 0x7fd}, {0x890, 0x8d3}, {0x8e2, 0x8e2}, {0x9fd, 0x9fe}, {0xa76, 0xa76}, {0xafa, 0xaff}, {0xb55, 0xb55},
        {0xc04, 0xc3c}, {0xc77, 0xc77}, {0xc84, 0xc84}, {0xcf3, 0xd00}, {0xd3b, 0xd3c}, {0xd81, 0xd81}, {0xeba, 0xeba}, {0xece, 0xece},
        {0x1715, 0x1715}, {0x180f, 0x180f}, {0x1abf, 0x1ace}, {0x1b7d, 0x1b7e}, {0x1cf7, 0x1cf7}, {0x1df6, 0x1dfa}, {0x2e43, 0x2e5d},
        {0xa82c, 0xa82c}, {0xa8ff, 0xa8ff}, {0x10d24, 0x10f89}, {0x11070, 0x11074}, {0x110c2, 0x110cd}, {0x11145, 0x11146},
        {0x111c9, 0x111c9}, {0x111ce, 0x111cf}, {0x11241, 0x11241}, {0x1133b, 0x1133b}, {0x1144b, 0x1145e}, {0x11660, 0x1166c},
        {0x116b9, 0x116b9}, {0x1182c, 0x11b09}, {0x11c41, 0x11c71}, {0x11d31, 0x11fff}, {0x12ff1, 0x13455}, {0x16e97, 0x16f4f},
        {0x16f7f, 0x16f87}, {0x16fe2, 0x16ff1}, {0x1cf00, 0x1cf46}, {0x1e08f, 0x1e4ef}, {0x1e95e, 0x1e95f},
    };
    return c >= 0x61d && in_ranges(ranges, ZQ_LEN(ranges), c);
}

/* Marks of Unicode 9, which its normalization knows, but its categories (Unicode 8) do not. */
static bool is_mark_of_9(uint32_t c)
{
    static const struct range ranges[] = {
        {0x8d4, 0x8e1}, {0x1885, 0x1886}, {0x1dfb, 0x1dfb}, {0xa8c5, 0xa8c5}, {0xa9bd, 0xa9bd}, {0x1123e, 0x1123e}, {0x11438, 0x1143f},
        {0x11442, 0x11444}, {0x11446, 0x11446}, {0x11c30, 0x11c3d}, {0x11c3f, 0x11ca7}, {0x11caa, 0x11cb0}, {0x11cb2, 0x11cb3},
        {0x11cb5, 0x11cb6}, {0x1e000, 0x1e02a}, {0x1e944, 0x1e94a},
    };
    return c >= 0x8d4 && in_ranges(ranges, ZQ_LEN(ranges), c);
}

bool zq_wide_is_space(uint32_t c)
{
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

bool zq_wide_is_punctuation(uint32_t c)
{
    if (c == 0x166d || c == 0x111c9) return true; /* until Unicode 10 */
    const utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO && !is_newer(c);
}

bool zq_is_numeric(uint32_t c)
{
    static const struct range newest[] = { /* Unicode 16 and 17 */
        {0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x11de0, 0x11de9}, {0x16130, 0x16139}, {0x16d70, 0x16d79},
        {0x16ff4, 0x16ff6}, {0x1ccf0, 0x1ccf9}, {0x1e5f1, 0x1e5fa},
    };
    if (c < 0x80) return c >= '0' && c <= '9';
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO ||
           (c >= 0x10d40 && in_ranges(newest, ZQ_LEN(newest), c));
}

bool zq_is_mark(uint32_t c)
{
    if (c < 0x300) return false;
    if (c == 0x1cf2 || c == 0x1cf3) return true; /* until Unicode 11 */
    const utf8proc_category_t k = category(c);
    return (k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME) && !is_newer(c);
}

bool zq_is_nonspacing_mark(uint32_t c)
{
    if (c < 0x300) return false;
    if (c == 0x1734) return true; /* until Unicode 13 */
    return category(c) == UTF8PROC_CATEGORY_MN && !is_newer(c) && !is_mark_of_9(c);
}

bool zq_is_bert_control(uint32_t c)
{
    if (c < 0x80) return c == 0x7f || (c < 0x20 && c != '\t' && c != '\n' && c != '\r');
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CO || (k == UTF8PROC_CATEGORY_CF && !is_newer(c));
}

int zq_combining_class(uint32_t c)
{
    const int class = c < 0x300 ? 0 : utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
    return class && is_newer(c) ? 0 : class;
}

bool zq_is_newer_than_unicode_9(uint32_t c) { return is_newer(c); }

bool zq_is_cjk(uint32_t c)
{
    /* 2B920 is what the reference library has; BERT's own Python has 2B820 */
    static const struct range ranges[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                                          {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    return c >= 0x3400 && in_ranges(ranges, ZQ_LEN(ranges), c);
}

bool zq_is_word(uint32_t c)
{
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= 'a' && c <= 'z');
    static const struct range newest[] = { /* Unicode 15.1 and 16 */
        {0x897, 0x897}, {0x1c89, 0x1c8a}, {0xa7cb, 0xa7cd}, {0xa7da, 0xa7dc}, {0x105c0, 0x105f3}, {0x10d40, 0x10d65}, {0x10d69, 0x10d6d},
        {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x10efc, 0x10efc}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e},
        {0x11390, 0x113b5}, {0x113b7, 0x113c0}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5}, {0x113c7, 0x113ca}, {0x113cc, 0x113d3},
        {0x113e1, 0x113e2}, {0x116d0, 0x116e3}, {0x11bc0, 0x11be0}, {0x11bf0, 0x11bf9}, {0x11f5a, 0x11f5a}, {0x13460, 0x143fa},
        {0x16100, 0x16139}, {0x16d40, 0x16d6c}, {0x16d70, 0x16d79}, {0x18cff, 0x18cff}, {0x1ccf0, 0x1ccf9}, {0x1e5d0, 0x1e5fa},
        {0x2ebf0, 0x2ee5d},
    };
    /* Alphabetic beyond the letters, letter numbers and marks: circled and squared letters, which are So */
    static const struct range alphabetic_symbols[] = {{0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC:
        return true;
    case UTF8PROC_CATEGORY_SO:
        return in_ranges(alphabetic_symbols, ZQ_LEN(alphabetic_symbols), c);
    default:
        return c == 0x200c || c == 0x200d || in_ranges(newest, ZQ_LEN(newest), c);
    }
}

int zq_lower(uint32_t c, uint32_t out[2])
{
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return 1;
    }
    if (c == 0x130) { /* dotted I: the one character whose lower case is two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    static const struct {
        uint32_t first, last, lower; /* of first */
    } newest[] = { /* Unicode 16 and 17 */
        {0x1c89, 0x1c89, 0x1c8a}, {0xa7cb, 0xa7cb, 0x264}, {0xa7cc, 0xa7cc, 0xa7cd}, {0xa7ce, 0xa7ce, 0xa7cf}, {0xa7d2, 0xa7d2, 0xa7d3},
        {0xa7d4, 0xa7d4, 0xa7d5}, {0xa7da, 0xa7da, 0xa7db}, {0xa7dc, 0xa7dc, 0x19b}, {0x10d50, 0x10d65, 0x10d70}, {0x16ea0, 0x16eb8, 0x16ebb},
    };
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    for (size_t i = 0; i < ZQ_LEN(newest) && c >= newest[0].first; i++)
        if (c >= newest[i].first && c <= newest[i].last) out[0] = newest[i].lower + c - newest[i].first;
    return 1;
}
