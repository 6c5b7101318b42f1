/* Aligned tables on the terminal, with the layers of a model folded: rows whose names differ only in the number of the layer, and
 * that agree in everything else, become one row "h.0-5.attn.c_attn". */
#ifndef ZQ_CLI_TABLE_H
#define ZQ_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { TABLE_TEXTS = 5, TABLE_SIZES = 2, TABLE_CELL = 48 };

struct table_row {
    const char *name; /* borrowed until the table is freed */
    char text[TABLE_TEXTS][TABLE_CELL];
    uint64_t bytes[TABLE_SIZES]; /* added up in a folded row */
};

struct table {
    const char *name_title;
    const char *text_title[TABLE_TEXTS]; /* NULL: the column does not exist */
    const char *bytes_title[TABLE_SIZES];
    struct table_row *rows; /* [n] */
    size_t n, capacity;
};

/* A new row to fill in, all empty; NULL if out of memory. Set the titles first; zero-initialise the rest. */
struct table_row *table_add(struct table *table, const char *name);
/* Prints the folded table, indented by two; false if out of memory. */
bool table_print(const struct table *table, FILE *to);
void table_free(struct table *table);

#endif
