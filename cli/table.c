/* Folding works on names: the first part between dots that is a number counts as the layer. Rows of one fold need not follow
 * each other (all maps of layer 0 come before those of layer 1); the folded row stands where its first one stood. */
#include "table.h"

#include "size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_TEXT = 96, NO_LAYER = -1 };

/* A row with its name cut at the number of the layer: "h." 3 ".attn.c_attn" */
struct place {
    size_t head;      /* characters before the number */
    const char *tail; /* behind it */
    long layer;       /* NO_LAYER: head is the whole name */
    bool folded;      /* printed within an earlier row */
};

struct table_row *table_add(struct table *table, const char *name)
{
    if (table->n == table->capacity) {
        const size_t capacity = table->capacity ? 2 * table->capacity : 64;
        struct table_row *rows = realloc(table->rows, capacity * sizeof *rows);
        if (!rows) return NULL;
        table->rows = rows;
        table->capacity = capacity;
    }
    struct table_row *row = &table->rows[table->n++];
    memset(row, 0, sizeof *row);
    row->name = name;
    return row;
}

void table_free(struct table *table)
{
    free(table->rows);
    table->rows = NULL;
    table->n = table->capacity = 0;
}

static struct place place_of(const char *name)
{
    for (const char *part = name; *part;) {
        const size_t n = strcspn(part, "."), digits = strspn(part, "0123456789");
        if (n && n == digits && n < 9) return (struct place){(size_t)(part - name), part + n, strtol(part, NULL, 10), false};
        part += n + (part[n] == '.');
    }
    return (struct place){strlen(name), "", NO_LAYER, false};
}

static bool folds(const struct table_row *a, struct place pa, const struct table_row *b, struct place pb)
{
    return pa.layer != NO_LAYER && pb.layer != NO_LAYER && pa.head == pb.head && !strncmp(a->name, b->name, pa.head) &&
           !strcmp(pa.tail, pb.tail) && !memcmp(a->text, b->text, sizeof a->text);
}

/* Collects layers as "0-3,5"; what does not fit is dropped, behind "..". */
struct ranges {
    char text[NAME_TEXT / 2];
    long first, last; /* of the range in work */
};

static void close_range(struct ranges *r)
{
    char part[32];
    if (r->first == r->last) snprintf(part, sizeof part, "%s%ld", *r->text ? "," : "", r->first);
    else snprintf(part, sizeof part, "%s%ld-%ld", *r->text ? "," : "", r->first, r->last);
    const size_t used = strlen(r->text);
    if (used >= 2 && !strcmp(r->text + used - 2, "..")) return;
    snprintf(r->text + used, sizeof r->text - used, "%s", used + strlen(part) + 3 < sizeof r->text ? part : "..");
}

/* Folds all later rows into row i: fills the name and the sums. */
static void fold(const struct table *table, struct place *places, size_t i, char *name, uint64_t *bytes, size_t *count)
{
    const struct table_row *row = &table->rows[i];
    struct ranges r = {.first = places[i].layer, .last = places[i].layer};
    memcpy(bytes, row->bytes, sizeof row->bytes);
    *count = 1;
    for (size_t j = i + 1; j < table->n; j++) {
        if (places[j].folded || !folds(row, places[i], &table->rows[j], places[j])) continue;
        places[j].folded = true;
        ++*count;
        for (int b = 0; b < TABLE_SIZES; b++) bytes[b] += table->rows[j].bytes[b];
        if (places[j].layer != r.last + 1) {
            close_range(&r);
            r.first = places[j].layer;
        }
        r.last = places[j].layer;
    }
    if (places[i].layer != NO_LAYER) close_range(&r);
    snprintf(name, NAME_TEXT, "%.*s%s%s", (int)places[i].head, row->name, r.text, places[i].tail);
}

/* A printed line: name, count, texts, sizes, all as text by now. */
enum { NAME, COUNT, FIRST_TEXT, FIRST_SIZE = FIRST_TEXT + TABLE_TEXTS, N_CELLS = FIRST_SIZE + TABLE_SIZES };
struct line {
    char cell[N_CELLS][NAME_TEXT];
};

static void set_cell(struct line *line, int cell, const char *text)
{
    snprintf(line->cell[cell], NAME_TEXT, "%s", text ? text : "");
}

static void format_titles(struct line *line, const struct table *table)
{
    set_cell(line, NAME, table->name_title);
    for (int t = 0; t < TABLE_TEXTS; t++) set_cell(line, FIRST_TEXT + t, table->text_title[t]);
    for (int b = 0; b < TABLE_SIZES; b++) set_cell(line, FIRST_SIZE + b, table->bytes_title[b]);
}

static void format_line(struct line *line, const struct table *table, struct place *places, size_t i)
{
    uint64_t bytes[TABLE_SIZES];
    size_t count;
    memset(line, 0, sizeof *line);
    fold(table, places, i, line->cell[NAME], bytes, &count);
    if (count > 1) snprintf(line->cell[COUNT], NAME_TEXT, "x%zu", count);
    for (int t = 0; t < TABLE_TEXTS; t++) set_cell(line, FIRST_TEXT + t, table->rows[i].text[t]);
    for (int b = 0; b < TABLE_SIZES; b++) {
        if (table->bytes_title[b]) size_text(bytes[b], line->cell[FIRST_SIZE + b]);
    }
}

static void print_lines(const struct line *lines, size_t n, FILE *to)
{
    size_t width[N_CELLS] = {0};
    bool numeric[N_CELLS]; /* right-aligned: every cell below the title begins with a digit */
    for (int c = 0; c < N_CELLS; c++) {
        numeric[c] = true;
        for (size_t i = 0; i < n; i++) {
            const char *cell = lines[i].cell[c];
            if (strlen(cell) > width[c]) width[c] = strlen(cell);
            if (i && *cell && (*cell < '0' || *cell > '9')) numeric[c] = false;
        }
    }
    for (size_t i = 0; i < n; i++) {
        char text[N_CELLS * (NAME_TEXT + 2) + 1];
        size_t used = 0;
        for (int c = 0; c < N_CELLS; c++) {
            if (!width[c]) continue;
            used += (size_t)snprintf(text + used, sizeof text - used, "  %*s", (numeric[c] ? 1 : -1) * (int)width[c], lines[i].cell[c]);
        }
        while (used && text[used - 1] == ' ') used--;
        fprintf(to, "%.*s\n", (int)used, text);
    }
}

bool table_print(const struct table *table, FILE *to)
{
    struct line *lines = calloc(table->n + 1, sizeof *lines);
    struct place *places = calloc(table->n + 1, sizeof *places);
    const bool ok = lines && places;
    if (ok) {
        format_titles(&lines[0], table);
        for (size_t i = 0; i < table->n; i++) places[i] = place_of(table->rows[i].name);
        size_t n = 1;
        for (size_t i = 0; i < table->n; i++) {
            if (!places[i].folded) format_line(&lines[n++], table, places, i);
        }
        print_lines(lines, n, to);
    }
    free(lines);
    free(places);
    return ok;
}
