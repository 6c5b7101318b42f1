/* The shared data (ZQ_SHARED, default ../shared): models and texts that are too large for this repository. Tests that need it
 * skip where it is absent. */
#ifndef ZQ_TESTS_SHARED_H
#define ZQ_TESTS_SHARED_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Calls visit with every path folder/(any folder)/(any file) below the shared data that ends so; returns how many. */
static inline size_t shared_each_file(const char *folder, const char *ending, void (*visit)(const char *path))
{
    const char *root = getenv("ZQ_SHARED");
    char top[400], inner[700], path[1000];
    snprintf(top, sizeof top, "%s/%s", root && *root ? root : "../shared", folder);
    size_t n = 0;
    DIR *outer = opendir(top);
    for (struct dirent *a; outer && (a = readdir(outer));) {
        snprintf(inner, sizeof inner, "%s/%s", top, a->d_name);
        DIR *dir = a->d_name[0] == '.' ? NULL : opendir(inner);
        for (struct dirent *b; dir && (b = readdir(dir));) {
            const size_t length = (size_t)snprintf(path, sizeof path, "%s/%s", inner, b->d_name), tail = strlen(ending);
            if (length < tail || length >= sizeof path || strcmp(path + length - tail, ending)) continue;
            visit(path);
            n++;
        }
        if (dir) closedir(dir);
    }
    if (outer) closedir(outer);
    return n;
}

#endif
