/* Numbers go through printf: callers who must not depend on the locale's decimal point print integers. */
#include "base/buffer.h"

#include "base/alloc.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

void zq_put(struct zq_buffer *b, const char *format, ...)
{
    va_list ap, again;
    va_start(ap, format);
    va_copy(again, ap);
    const int n = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    if (n >= 0 && b->n + (size_t)n + 1 > b->capacity && !b->failed) {
        const size_t capacity = 2 * (b->n + (size_t)n + 1);
        char *larger = zq_realloc(b->text, b->n, capacity);
        b->failed = !larger;
        if (larger) {
            b->text = larger;
            b->capacity = capacity;
        }
    }
    if (n >= 0 && !b->failed) b->n += (size_t)vsnprintf(b->text + b->n, b->capacity - b->n, format, again);
    va_end(again);
}

void zq_put_escaped(struct zq_buffer *b, const char *text)
{
    for (; *text; text++) {
        if (*text == '<') zq_put(b, "&lt;");
        else if (*text == '&') zq_put(b, "&amp;");
        else if ((unsigned char)*text >= ' ') zq_put(b, "%c", *text);
    }
}
