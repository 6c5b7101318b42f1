/* Weights are sampled: a model that was trained further differs in nearly every page, and a read of 12 GB before a resume would
 * cost as much as the resume saves. */
#include "compress/fingerprint.h"

#include "base/alloc.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum { PAGE = 4096, SAMPLES = 256 };

/* Length first, so that the parts of two different models never run together to the same stream. */
static bool add(EVP_MD_CTX *hash, const void *bytes, size_t n)
{
    uint8_t length[8];
    for (size_t i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)n >> 8 * i);
    return EVP_DigestUpdate(hash, length, sizeof length) && (!n || EVP_DigestUpdate(hash, bytes, n));
}

static bool add_text(EVP_MD_CTX *hash, const char *text)
{
    return add(hash, text, strlen(text));
}

static zq_status add_file(EVP_MD_CTX *hash, bool *ok, const char *dir, const char *name, zq_error *err)
{
    char *path = zq_path_join(dir, name);
    if (!path) return zq_fail(err, ZQ_ENOMEM, "%s: no memory for a path", dir);
    struct zq_map map;
    zq_status st = zq_map_open(&map, path, err);
    if (!st) *ok = *ok && add_text(hash, name) && add(hash, map.bytes, map.n_bytes);
    zq_map_close(&map);
    zq_free(path);
    return st;
}

/* Name, size, everything up to the first tensor, and SAMPLES pages. */
static bool add_weights(EVP_MD_CTX *hash, const char *name, const struct zq_safetensors *file)
{
    const struct zq_map *map = &file->map;
    size_t n_header = map->n_bytes; /* tensors fill the file to its end */
    for (size_t i = 0; i < file->n_tensors; i++) n_header -= file->tensors[i].n_bytes;
    char size[24];
    snprintf(size, sizeof size, "%zu", map->n_bytes);
    bool ok = add_text(hash, name) && add_text(hash, size) && add(hash, map->bytes, n_header);
    const size_t n_pages = (map->n_bytes - n_header) / PAGE, step = n_pages > SAMPLES ? n_pages / SAMPLES : 1;
    for (size_t p = 0; p < n_pages && ok; p += step) {
        ok = add(hash, map->bytes + n_header + p * PAGE, PAGE);
        zq_map_drop(map, map->bytes, map->n_bytes); /* with the neighbours of the page, which the system has mapped too */
    }
    const size_t rest = (map->n_bytes - n_header) % PAGE;
    return ok && add(hash, map->bytes + map->n_bytes - rest, rest);
}

static zq_status add_all(EVP_MD_CTX *hash, bool *ok, const struct zq_checkpoint *ckpt, const struct zq_sidefiles *files, zq_error *err)
{
    zq_status st = add_file(hash, ok, ckpt->dir, "config.json", err);
    for (size_t i = 0; i < files->n && !st; i++) st = add_file(hash, ok, ckpt->dir, files->paths[i], err);
    for (size_t i = 0; i < ckpt->n_files && !st; i++) *ok = *ok && add_weights(hash, ckpt->file_names[i], &ckpt->files[i]);
    return st;
}

zq_status zq_fingerprint(char text[ZQ_FINGERPRINT_TEXT], const struct zq_checkpoint *ckpt, const struct zq_sidefiles *files, zq_error *err)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    text[0] = '\0';
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool ok = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    zq_status st = ok ? add_all(hash, &ok, ckpt, files, err) : ZQ_OK;
    if (!st) ok = ok && EVP_DigestFinal_ex(hash, digest, &n);
    EVP_MD_CTX_free(hash);
    if (!st && !ok) st = zq_fail(err, ZQ_ENOMEM, "%s: no memory for a SHA-256", ckpt->dir);
    for (unsigned i = 0; i < n && !st; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    return st;
}
