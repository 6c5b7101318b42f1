/* The words in which a user says how matrices are quantized: "w8a8", "w4/8a16", "k:64", "rows:48", "w4a8,k:128"; and what they
 * come to for a matrix of a given shape. */
#ifndef ZQ_QUANT_SCHEME_H
#define ZQ_QUANT_SCHEME_H

#include "quant/types.h"

/* Which weights share a scale. */
enum zq_grouping_kind {
    ZQ_BY_DEFAULT, /* 8 bit: channel; fewer: k:64, else k:32, else channel */
    ZQ_BY_CHANNEL, /* one scale per row (output channel) */
    ZQ_BY_ROWS,    /* n groups of neighbouring rows: row r of R belongs to group floor(r * n / R); stored once per row */
    ZQ_BY_K,       /* n neighbouring input channels of a row */
};
struct zq_grouping {
    enum zq_grouping_kind kind;
    size_t n; /* ZQ_BY_ROWS, ZQ_BY_K: >= 1 */
};

struct zq_bits {
    int w, a; /* as w_bits and a_bits of struct zq_spec */
};

/* A named scheme: bits by part of the block. */
struct zq_scheme {
    const char *name;
    struct zq_bits qkv, attention, ffn; /* maps into attention; its output map; the feed-forward maps */
};

/* How a matrix is asked to be quantized; w 16 is float. */
struct zq_recipe {
    struct zq_bits bits;
    struct zq_grouping group;
};

/* What a recipe comes to for one matrix. */
struct zq_layout {
    struct zq_spec spec;
    size_t row_groups;         /* groups of rows that share a scale; 0: none, each row has its own */
    enum zq_dtype scale_dtype; /* in which scales are rounded before coding, and stored */
    bool fell_back;            /* no K-group that was wanted divides the row */
};

/* NULL text is "w8a8". ZQ_EINVAL lists the names. */
zq_status zq_scheme_parse(const struct zq_scheme **out, const char *text, zq_error *err);
/* "channel", "rows:N", "k:N"; NULL: ZQ_BY_DEFAULT. */
zq_status zq_grouping_parse(struct zq_grouping *out, const char *text, zq_error *err);
/* "w4a8", "float" or "w4a8,k:128", for one module: no mixtures. Without a group it takes `fallback`. */
zq_status zq_recipe_parse(struct zq_recipe *out, const char *text, struct zq_grouping fallback, zq_error *err);

/* For a matrix of weights of a float dtype. Scales of 8-bit rows are F32; all other scales have the weights' dtype, in which
 * readers load them. */
struct zq_layout zq_recipe_layout(struct zq_recipe recipe, size_t n_rows, size_t n_cols, enum zq_dtype weights);
/* "k:64", "channel", "rows:48"; empty for float. `out` has room for 32 characters. */
void zq_layout_group_text(const struct zq_layout *layout, char *out);

/* The group of row r < n_rows among n_groups <= n_rows, and the first row of group g <= n_groups. n_rows < 2^32. */
size_t zq_row_group(size_t r, size_t n_rows, size_t n_groups);
size_t zq_row_group_begin(size_t g, size_t n_rows, size_t n_groups);

#endif
