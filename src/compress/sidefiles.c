/* A list of what is wanted rather than of what is not: model directories collect weights in many formats, logs and training
 * state, and a file too many can be gigabytes. Model directories of the hub's cache consist of symbolic links, so what a name
 * leads to decides, not the name itself. */
#include "compress/sidefiles.h"

#include "base/alloc.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const wanted_files[] = {
    "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "encoder.json", "*.bpe",
    "*.model", "chat_template*", "*.jinja", "preprocessor_config.json", "modules.json", "config_sentence_transformers.json",
    "sentence_*_config.json", "LICENSE*", "NOTICE*",
};
/* modules of sentence-transformers ("1_Pooling"), templates beyond the default one; all files in them */
static const char *const wanted_directories[] = {"[0-9]_*", "additional_chat_templates"};

static bool matches(const char *name, const char *const *patterns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!fnmatch(patterns[i], name, FNM_PERIOD)) return true;
    return false;
}

static zq_status no_memory(const char *dir, zq_error *err)
{
    return zq_fail(err, ZQ_ENOMEM, "%s: no memory for the list of its files", dir);
}

/* Adds the wanted files of dir/below (below "" at the top), and those of wanted directories. */
static zq_status list(struct zq_sidefiles *files, const char *dir, const char *below, zq_error *err)
{
    char *path = *below ? zq_path_join(dir, below) : zq_strdup(dir);
    if (!path) return no_memory(dir, err);
    DIR *d = opendir(path);
    zq_status st = d ? ZQ_OK : zq_fail_errno(err, "cannot read directory %s", path);
    for (struct dirent *e; !st && (e = readdir(d));) {
        char *relative = *below ? zq_path_join(below, e->d_name) : zq_strdup(e->d_name);
        char *full = zq_path_join(path, e->d_name);
        struct stat info;
        if (!relative || !full) {
            st = no_memory(dir, err);
        } else if (!stat(full, &info) && S_ISREG(info.st_mode)) {
            const bool wanted = *below ? e->d_name[0] != '.' : matches(e->d_name, wanted_files, ZQ_LEN(wanted_files));
            if (wanted && !zq_grow((void **)&files->paths, files->n, &files->capacity, sizeof *files->paths)) {
                st = no_memory(dir, err);
            } else if (wanted) {
                files->paths[files->n++] = relative;
                relative = NULL;
            }
        } else if (!*below && zq_is_directory(full) && matches(e->d_name, wanted_directories, ZQ_LEN(wanted_directories))) {
            st = list(files, dir, e->d_name, err);
        }
        zq_free(relative);
        zq_free(full);
    }
    if (d) closedir(d);
    zq_free(path);
    return st;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

zq_status zq_sidefiles_list(struct zq_sidefiles *files, const char *dir, zq_error *err)
{
    *files = (struct zq_sidefiles){0};
    zq_status st = list(files, dir, "", err);
    if (st) zq_sidefiles_free(files);
    else if (files->n) qsort(files->paths, files->n, sizeof *files->paths, by_path);
    return st;
}

void zq_sidefiles_free(struct zq_sidefiles *files)
{
    for (size_t i = 0; i < files->n; i++) zq_free(files->paths[i]);
    zq_free(files->paths);
    *files = (struct zq_sidefiles){0};
}

/* Creates the directory part of a path below to_dir, if it has one. */
static zq_status make_directory(const char *to_dir, const char *path, zq_error *err)
{
    const char *slash = strchr(path, '/');
    if (!slash) return ZQ_OK;
    char *name = zq_strndup(path, (size_t)(slash - path)), *full = name ? zq_path_join(to_dir, name) : NULL;
    zq_status st = full ? ZQ_OK : no_memory(to_dir, err);
    if (!st && mkdir(full, 0777) && errno != EEXIST) st = zq_fail_errno(err, "cannot create %s", full);
    zq_free(name);
    zq_free(full);
    return st;
}

zq_status zq_sidefiles_copy(const struct zq_sidefiles *files, const char *from_dir, const char *to_dir, zq_error *err)
{
    zq_status st = ZQ_OK;
    for (size_t i = 0; i < files->n && !st; i++) {
        char *from = zq_path_join(from_dir, files->paths[i]), *to = zq_path_join(to_dir, files->paths[i]);
        st = from && to ? make_directory(to_dir, files->paths[i], err) : no_memory(from_dir, err);
        if (!st) st = zq_file_copy(from, to, err);
        zq_free(from);
        zq_free(to);
    }
    return st;
}
