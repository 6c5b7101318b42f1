/* Text that grows as it is written. A failed allocation is kept in mind until the end, so that writers need not look at each step. */
#ifndef ZQ_BASE_BUFFER_H
#define ZQ_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise. text is NUL-terminated once something was put; the owner releases it with zq_free(). */
struct zq_buffer {
    char *text;
    size_t n, capacity;
    bool failed;
};

void zq_put(struct zq_buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Text between tags of XML or HTML; control characters are left out. */
void zq_put_escaped(struct zq_buffer *b, const char *text);

#endif
