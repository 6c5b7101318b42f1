/* Reading of files, of standard input record by record, and of lists of ids. */
#include "input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static zq_status read_stream(FILE *file, const char *name, char **text, size_t *n_bytes, zq_error *err)
{
    size_t capacity = 1 << 16, n = 0;
    char *buffer = malloc(capacity);
    if (!buffer) return fail(err, ZQ_ENOMEM, "%s: out of memory", name);
    for (;;) {
        n += fread(buffer + n, 1, capacity - 1 - n, file);
        if (n < capacity - 1) break;
        char *larger = realloc(buffer, 2 * capacity);
        if (!larger) {
            free(buffer);
            return fail(err, ZQ_ENOMEM, "%s: out of memory after %zu bytes", name, n);
        }
        buffer = larger;
        capacity *= 2;
    }
    if (ferror(file)) {
        free(buffer);
        return fail_errno(err, "%s", name);
    }
    buffer[n] = 0;
    *text = buffer;
    *n_bytes = n;
    return ZQ_OK;
}

zq_status input_read(const char *path, char **text, size_t *n_bytes, zq_error *err)
{
    *text = NULL;
    *n_bytes = 0;
    if (!strcmp(path, "-")) return read_stream(stdin, "standard input", text, n_bytes, err);
    FILE *file = fopen(path, "rb");
    if (!file) return fail_errno(err, "%s", path);
    const zq_status st = read_stream(file, path, text, n_bytes, err);
    fclose(file);
    return st;
}

zq_status records_next(struct records *r, int delimiter, bool *more, zq_error *err)
{
    *more = false;
    errno = 0;
    const ssize_t n = getdelim(&r->text, &r->capacity, delimiter, stdin);
    if (n < 0) return ferror(stdin) || errno == ENOMEM ? fail_errno(err, "standard input") : ZQ_OK;
    r->n_bytes = (size_t)n;
    if (n && r->text[n - 1] == (char)delimiter) r->text[--r->n_bytes] = 0;
    r->number++;
    *more = true;
    return ZQ_OK;
}

void records_free(struct records *r)
{
    free(r->text);
    *r = (struct records){0};
}

zq_status ids_parse(const char *text, const char *what, int32_t max, int32_t **ids, size_t *n, zq_error *err)
{
    static const char blank[] = " \t\r\n", after[] = ", \t\r\n";
    *n = 0;
    /* every id but the last takes two characters */
    *ids = malloc((strlen(text) / 2 + 1) * sizeof **ids);
    if (!*ids) return fail(err, ZQ_ENOMEM, "%s: out of memory", what);
    bool comma = false; /* behind a comma an id must follow */
    for (const char *at = text + strspn(text, blank); *at || comma;) {
        const size_t length = strcspn(at, after);
        char *end;
        errno = 0;
        const long value = strtol(at, &end, 10);
        if (*at < '0' || *at > '9' || end != at + length || errno || value > max) {
            free(*ids);
            *ids = NULL;
            *n = 0;
            return fail(err, ZQ_EINVAL, "%s: '%.*s' is no whole number from 0 to %d", what, (int)(length < 40 ? length : 40), at, (int)max);
        }
        (*ids)[(*n)++] = (int32_t)value;
        at = end + strspn(end, blank);
        comma = *at == ',';
        if (comma) at += 1 + strspn(at + 1, blank);
    }
    return ZQ_OK;
}
