/* Runs a fuzz target over files instead of inventions: replay PATH...; a directory stands for the files in it. Built with each
 * tests/fuzz/fuzz_*.c where libFuzzer is not, so that the corpora (every crash found is added to them) are ordinary tests. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_files;

static void stop(const char *path)
{
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    exit(1);
}

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) stop(path);
    const long end = ftell(f);
    if (end < 0) stop(path);
    rewind(f);
    const size_t size = (size_t)end;
    uint8_t *data = malloc(size ? size : 1); /* of its own size, so that the sanitizer sees a read past the end */
    if (!data || fread(data, 1, size, f) != size) stop(path);
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    n_files++;
}

static void run(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        run_file(path);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        char inner[4096];
        if (e->d_name[0] == '.') continue;
        if (snprintf(inner, sizeof inner, "%s/%s", path, e->d_name) >= (int)sizeof inner) continue;
        run_file(inner);
    }
    closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) run(argv[i]);
    printf("%zu inputs\n", n_files);
    return n_files ? 0 : 1;
}
