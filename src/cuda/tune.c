/* Tuning tables: finding, reading, writing, measuring. What a newcomer would get wrong: no table has to be there. Nothing fails because one is
 * missing, old or damaged; the next place is looked at, and at last a model runs by the rules of device.h. */
#include "cuda/tune.h"

#include "base/alloc.h"
#include "base/file.h"
#include "cuda/layout.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TABLE_NAME = 256 };
static const char first_line[] = "zeroquant tuning 2\n";
static const char *const formats[] = {[ZQ_DEVICE_W8A8] = "w8a8", [ZQ_DEVICE_W4A8] = "w4a8"};
static const char *const kernels[] = {[ZQ_KERNEL_SMALL] = "small", [ZQ_KERNEL_WIDE] = "wide", [ZQ_KERNEL_HOPPER] = "hopper",
                                      [ZQ_KERNEL_CUTLASS] = "cutlass", [ZQ_KERNEL_VENDOR] = "vendor"};
static const char *const answers[] = {"no", "yes"};

void zq_tuning_free(struct zq_tuning *t)
{
    zq_free(t->items);
    *t = (struct zq_tuning){0};
}

static bool same_shape(const struct zq_tuned *a, const struct zq_tuned *b)
{
    return a->format == b->format && a->n_rows == b->n_rows && a->n_cols == b->n_cols && a->k_group == b->k_group && a->n_tokens == b->n_tokens &&
           a->residual == b->residual;
}

zq_status zq_tuning_put(struct zq_tuning *t, struct zq_tuned item, zq_error *err)
{
    for (size_t i = 0; i < t->n; i++) {
        if (!same_shape(&t->items[i], &item)) continue;
        t->items[i] = item;
        return ZQ_OK;
    }
    struct zq_tuned *items = zq_alloc_array(t->n + 1, sizeof *items);
    if (!items) return zq_fail(err, ZQ_ENOMEM, "no memory for a tuning table of %zu shapes", t->n + 1);
    if (t->n) memcpy(items, t->items, t->n * sizeof *items);
    items[t->n] = item;
    zq_free(t->items);
    t->items = items;
    t->n++;
    return ZQ_OK;
}

/* The index of a name, or n. */
static size_t index_of(const char *const *names, size_t n, const char *name)
{
    size_t i = 0;
    while (i < n && (!names[i] || strcmp(names[i], name))) i++;
    return i;
}

zq_status zq_tuning_parse(struct zq_tuning *t, const char *text, const char *path, zq_error *err)
{
    zq_status st = ZQ_OK;
    size_t number = 1;
    *t = (struct zq_tuning){0};
    if (strncmp(text, first_line, sizeof first_line - 1)) return zq_fail(err, ZQ_EFORMAT, "%s: it is no tuning table of this version", path);
    for (const char *at = text + sizeof first_line - 1; *at && !st; number++) {
        char format[16], residual[8], kernel[16];
        struct zq_tuned item = {0};
        int n = 0;
        if (sscanf(at, "%15s rows %9u columns %9u group %9u tokens %9u residual %7s kernel %15s%n", format, &item.n_rows, &item.n_cols,
                   &item.k_group, &item.n_tokens, residual, kernel, &n) != 7 || at[n] != '\n' || !item.n_rows || !item.n_cols || !item.n_tokens) {
            st = zq_fail(err, ZQ_EFORMAT, "%s: line %zu is no shape and its kernel", path, number + 1);
            break;
        }
        at += n + 1;
        const size_t f = index_of(formats, ZQ_LEN(formats), format), k = index_of(kernels, ZQ_LEN(kernels), kernel);
        const size_t r = index_of(answers, ZQ_LEN(answers), residual);
        if (f == ZQ_LEN(formats) || k == ZQ_LEN(kernels) || r == ZQ_LEN(answers)) continue;
        item.residual = r;
        item.format = (enum zq_device_format)f;
        item.kernel = (enum zq_device_kernel)k;
        st = zq_tuning_put(t, item, err);
    }
    if (st) zq_tuning_free(t);
    return st;
}

zq_status zq_tuning_write(const struct zq_tuning *t, const char *path, zq_error *err)
{
    struct zq_output out = {0};
    char line[160];
    zq_status st = zq_output_open(&out, path, err);
    if (!st) st = zq_output_write(&out, first_line, sizeof first_line - 1, err);
    for (size_t i = 0; i < t->n && !st; i++) {
        const struct zq_tuned *x = &t->items[i];
        const int n = snprintf(line, sizeof line, "%s rows %u columns %u group %u tokens %u residual %s kernel %s\n", formats[x->format], x->n_rows,
                               x->n_cols, x->k_group, x->n_tokens, answers[x->residual], kernels[x->kernel]);
        st = zq_output_write(&out, line, (size_t)n, err);
    }
    if (!st) return zq_output_commit(&out, err);
    zq_output_abandon(&out);
    return st;
}

/* tuning-DEVICE.txt, the same name wherever tables lie. */
static void table_name(char name[TABLE_NAME], const char *device)
{
    size_t n = (size_t)snprintf(name, TABLE_NAME, "tuning-");
    for (const unsigned char *c = (const unsigned char *)device; *c && *c != ',' && n + 5 < TABLE_NAME; c++)
        name[n++] = isalnum(*c) ? (char)tolower(*c) : '-';
    memcpy(name + n, ".txt", 5);
}

char *zq_tuning_path(const char *device, bool make)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[2048], name[TABLE_NAME];
    if (cache && cache[0] == '/') snprintf(folder, sizeof folder, "%s", cache); /* relative ones are to be ignored, says the XDG specification */
    else if (home && home[0] == '/') snprintf(folder, sizeof folder, "%s/.cache", home);
    else return NULL;
    if (make) mkdir(folder, 0700);
    const size_t used = strlen(folder);
    if (used + sizeof "/zeroquant" > sizeof folder) return NULL;
    memcpy(folder + used, "/zeroquant", sizeof "/zeroquant");
    if (make) mkdir(folder, 0755);
    table_name(name, device);
    return zq_path_join(folder, name);
}

/* Whether a table was read; path: released here; or NULL. */
static bool take_table(struct zq_tuning *t, char *path)
{
    enum { MAX_BYTES = 1 << 20 };
    char *text = NULL;
    const bool read = path && zq_file_exists(path) && !zq_file_read(&text, NULL, path, MAX_BYTES, NULL) && !zq_tuning_parse(t, text, path, NULL);
    zq_free(text);
    zq_free(path);
    return read;
}

void zq_tuning_load(struct zq_tuning *t, const struct zq_plugin *plugin, struct zq_queue *queue, const char *folder)
{
    char device[256], name[TABLE_NAME];
    *t = (struct zq_tuning){0};
    plugin->describe(queue, device, sizeof device);
    table_name(name, device);
    if (take_table(t, zq_tuning_path(device, false)) || take_table(t, zq_path_join(folder, name))) return;
    take_table(t, zq_format("%s/%s/%s", folder, ZQ_PLUGIN_TO_DATA, name));
}

/* Milliseconds of one product by a kernel, the best of a few runs; 0 where it refuses the shape, and in the simulator. */
static double time_of(const struct zq_plugin *plugin, struct zq_queue *queue, const struct zq_product *p, enum zq_device_format format,
                      enum zq_device_kernel kernel)
{
    enum { RUNS = 5, CALLS = 10 };
    double best = 0;
    plugin->prefer(queue, kernel);
    plugin->product(queue, p, format); /* loads the kernel */
    if (plugin->took(queue) != kernel) return 0;
    for (int r = 0; r < (plugin->simulated ? 0 : RUNS); r++) {
        plugin->start_clock(queue);
        for (int i = 0; i < CALLS; i++) plugin->product(queue, p, format);
        const double ms = plugin->read_clock(queue) / CALLS;
        if (!r || ms < best) best = ms;
    }
    return best;
}

static zq_status tune_tokens(struct zq_tuning *t, const struct zq_plugin *plugin, struct zq_queue *queue, const struct zq_product *p,
                             enum zq_device_format format, zq_error *err)
{
    struct zq_tuned best = {.format = format, .n_rows = (uint32_t)p->w->n_rows, .n_cols = (uint32_t)p->w->n_cols,
                            .k_group = (uint32_t)p->w->k_group, .n_tokens = (uint32_t)p->n_tokens,
                            .residual = p->residual != NULL};
    double ms = 0;
    for (int k = ZQ_KERNEL_SMALL; k < ZQ_N_DEVICE_KERNELS; k++) {
        if (!plugin->serves(queue, (enum zq_device_kernel)k, p->w, format, p->residual != NULL)) continue;
        const double now = time_of(plugin, queue, p, format, (enum zq_device_kernel)k);
        if (now > 0 && (ms == 0 || now < ms)) ms = now, best.kernel = (enum zq_device_kernel)k;
    }
    plugin->prefer(queue, ZQ_KERNEL_BY_TABLE);
    return ms > 0 ? zq_tuning_put(t, best, err) : ZQ_OK;
}

zq_status zq_tune_matrix(struct zq_tuning *t, const struct zq_plugin *plugin, struct zq_queue *queue, const struct zq_matrix *w,
                         enum zq_device_format format, size_t most_tokens, zq_error *err)
{
    const size_t ld_x = zq_layout_up(w->n_cols, ZQ_DEVICE_ALIGN);
    if (format > ZQ_DEVICE_W4A8) return ZQ_OK;
    struct zq_product p = {.w = w, .ld_x = ld_x, .ld_out = w->n_rows};
    float *scale = plugin->alloc(queue, most_tokens * sizeof *scale); /* whatever lies there: time does not depend on it */
    int8_t *q = plugin->alloc(queue, most_tokens * ld_x);
    p.scale = scale, p.q = q, p.out = plugin->alloc(queue, most_tokens * w->n_rows * sizeof *p.out);
    zq_status st = q && scale && p.out ? ZQ_OK : zq_fail(err, ZQ_ENOMEM, "no memory on the device to tune a product of %zu tokens", most_tokens);
    for (p.n_tokens = 8; p.n_tokens <= most_tokens && !st; p.n_tokens *= 2) {
        for (int r = 0; r < 2 && !st; r++) {
            p.residual = r ? p.out : NULL;
            st = tune_tokens(t, plugin, queue, &p, format, err);
        }
    }
    plugin->free(queue, scale);
    plugin->free(queue, q);
    plugin->free(queue, p.out);
    return st;
}
