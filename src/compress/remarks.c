/* A growing list of sentences. They become part of the report on disk, so their text may depend on the model and the options
 * only: no path, time or number of threads. */
#include "compress/remarks.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>

zq_status zq_remark(struct zq_remarks *remarks, zq_error *err, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    char *copy = zq_strdup(text);
    if (copy && zq_grow((void **)&remarks->sentences, remarks->n, &remarks->capacity, sizeof *remarks->sentences)) {
        remarks->sentences[remarks->n++] = copy;
        return ZQ_OK;
    }
    zq_free(copy);
    return zq_fail(err, ZQ_ENOMEM, "no memory for a remark");
}

void zq_remarks_free(struct zq_remarks *remarks)
{
    for (size_t i = 0; i < remarks->n; i++) zq_free(remarks->sentences[i]);
    zq_free(remarks->sentences);
    *remarks = (struct zq_remarks){0};
}
