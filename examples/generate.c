/* Continues a text with an installed ZeroQuant library:
 *     cc generate.c $(pkg-config --cflags --libs zeroquant) -o generate && ./generate MODEL "It was a dark night, and the" */
#include <stdio.h>
#include <string.h>
#include <zeroquant.h>

/* The most likely tokens after ids: *n of them, fewer if the text ends before. */
static zq_status continue_ids(const zq_model *model, const zq_ids *ids, int32_t *next, size_t *n, zq_error *err)
{
    zq_session *session;
    zq_sampler greedy = {0};
    zq_status st = zq_session_create(&session, model, NULL, err);
    if (!st) st = zq_session_step(session, &(zq_input){.ids = ids->ids, .n = ids->n}, 1, err);
    for (size_t i = 0; !st && i < *n; i++) {
        st = zq_session_sample(session, &greedy, 1, &next[i], err);
        if (!st && zq_model_is_end(model, next[i])) *n = i;
        else if (!st) st = zq_session_step(session, &(zq_input){.ids = &next[i], .n = 1}, 1, err);
    }
    zq_session_close(session);
    return st;
}

int main(int argc, char **argv)
{
    zq_model *model = NULL;
    zq_tokenizer *tokenizer = NULL;
    zq_ids ids = {0};
    zq_error err = {.message = "usage: generate MODEL PROMPT"};
    int32_t next[64];
    size_t n = 64;
    char *text = NULL;
    zq_status st = argc == 3 ? zq_model_open(&model, argv[1], NULL, &err) : ZQ_EINVAL;
    if (!st) st = zq_tokenizer_open(&tokenizer, argv[1], &err);
    if (!st) st = zq_tokenizer_encode(tokenizer, argv[2], strlen(argv[2]), NULL, 0, true, &ids, &err);
    if (!st) st = continue_ids(model, &ids, next, &n, &err);
    if (!st) st = zq_tokenizer_decode(tokenizer, next, n, true, &text, NULL, &err);
    puts(st ? err.message : text);
    zq_free(text), zq_ids_free(&ids), zq_tokenizer_close(tokenizer), zq_model_close(model);
    return (int)st;
}
