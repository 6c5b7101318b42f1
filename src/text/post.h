/* Post-processors: where the special tokens go around one or two sequences. */
#ifndef ZQ_TEXT_POST_H
#define ZQ_TEXT_POST_H

#include "base/json.h"
#include "text/word.h"

struct zq_post_piece {
    enum { ZQ_POST_A, ZQ_POST_B, ZQ_POST_TOKEN } what;
    int32_t id; /* of a ZQ_POST_TOKEN */
    uint8_t type;
};

struct zq_post_template {
    struct zq_post_piece *pieces; /* [n] */
    size_t n, capacity;
};

struct zq_post {
    struct zq_post_template single, pair;
    bool set; /* by a component that does more than nothing */
};

/* Reads the "post_processor" value of a tokenizer.json; NULL and null put one sequence after the other. */
zq_status zq_post_read(struct zq_post *p, const json_t *json, const char *name, zq_error *err);
void zq_post_free(struct zq_post *p);

/* Appends the ids of a sequence or a pair (b not NULL) to out. false: out of memory, out is unchanged. */
bool zq_post_apply(const struct zq_post *p, const struct zq_id_list *a, const struct zq_id_list *b, bool add_special, zq_ids *out);

#endif
