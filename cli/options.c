/* Reading of option tables. `--name value`, `--name=value`, `-x value` and `-xvalue` mean the same; `--` ends the options; the
 * last of repeated options counts. The argument after an option that wants a value is its value, whatever it looks like. */
#include "options.h"

#include "size.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 32, MAX_WORD = 32 };

static const struct option common_options[] = {
    {"threads", 0, "N", read_int, &settings.n_threads, "threads to use (default: one per available core)"},
    {"quiet", 'q', NULL, read_flag, &settings.quiet, "print errors only, besides the data"},
    {"help", 'h', NULL, read_flag, NULL, "print this text"},
    {0},
};

/* ---- values */

zq_status read_flag(void *target, const char *option, const char *value, zq_error *err)
{
    (void)option, (void)value, (void)err;
    *(bool *)target = true;
    return ZQ_OK;
}

zq_status read_text(void *target, const char *option, const char *value, zq_error *err)
{
    (void)option, (void)err;
    *(const char **)target = value;
    return ZQ_OK;
}

static zq_status read_whole(const char *option, const char *value, unsigned long long max, unsigned long long *out, zq_error *err)
{
    char *end;
    errno = 0;
    const unsigned long long n = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end) return fail(err, ZQ_EINVAL, "%s needs a whole number, not '%s'", option, value);
    if (errno || n > max) return fail(err, ZQ_EINVAL, "%s %s is above the largest possible value %llu", option, value, max);
    *out = n;
    return ZQ_OK;
}

zq_status read_count(void *target, const char *option, const char *value, zq_error *err)
{
    unsigned long long n = 0;
    const zq_status st = read_whole(option, value, SIZE_MAX, &n, err);
    if (!st) *(size_t *)target = (size_t)n;
    return st;
}

zq_status read_int(void *target, const char *option, const char *value, zq_error *err)
{
    unsigned long long n = 0;
    const zq_status st = read_whole(option, value, INT32_MAX, &n, err);
    if (!st) *(int *)target = (int)n;
    return st;
}

zq_status read_seed(void *target, const char *option, const char *value, zq_error *err)
{
    unsigned long long n = 0;
    const zq_status st = read_whole(option, value, UINT64_MAX, &n, err);
    if (!st) *(uint64_t *)target = n;
    return st;
}

zq_status read_real(void *target, const char *option, const char *value, zq_error *err)
{
    char *end;
    const float f = strtof(value, &end);
    if (end == value || *end || !isfinite(f) || f < 0) return fail(err, ZQ_EINVAL, "%s needs a number that is not negative, not '%s'", option, value);
    *(float *)target = f;
    return ZQ_OK;
}

zq_status read_bytes(void *target, const char *option, const char *value, zq_error *err)
{
    if (size_parse(value, target)) return ZQ_OK;
    return fail(err, ZQ_EINVAL, "%s needs a size such as 512M, 2G or 1.5GiB, not '%s'", option, value);
}

/* ---- names */

/* Levenshtein distance of two words, the second at most MAX_WORD long. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[MAX_WORD + 1];
    const size_t n = strlen(b);
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            const size_t replace = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            const size_t edit = 1 + (row[j] < row[j + 1] ? row[j] : row[j + 1]);
            row[j + 1] = replace < edit ? replace : edit;
        }
    }
    return row[n];
}

const char *nearest_name(const char *word, const char *const *names, size_t n)
{
    const char *best = NULL;
    /* beyond a third of the letters (two in short words) a suggestion is a guess */
    size_t limit = strlen(word) / 3 > 2 ? strlen(word) / 3 : 2;
    for (size_t i = 0; i < n; i++) {
        if (strlen(names[i]) > MAX_WORD) continue;
        const size_t d = edit_distance(word, names[i]);
        if (d > limit || d >= strlen(names[i]) || (best && d == limit)) continue;
        best = names[i];
        limit = d;
    }
    return best;
}

static const struct option *find_in(const struct option *table, const char *name, size_t n, char letter)
{
    for (; table->name; table++) {
        if (letter ? table->letter == letter : strlen(table->name) == n && !strncmp(table->name, name, n)) return table;
    }
    return NULL;
}

/* By name [n], or by letter if that is not 0. */
static const struct option *find_option(const struct command *command, const char *name, size_t n, char letter)
{
    const struct option *o = find_in(command->options, name, n, letter);
    return o ? o : find_in(common_options, name, n, letter);
}

static zq_status unknown_option(const struct command *command, const char *arg, zq_error *err)
{
    const char *names[MAX_OPTIONS];
    size_t n = 0;
    for (const struct option *o = command->options; o->name && n < MAX_OPTIONS; o++) names[n++] = o->name;
    for (const struct option *o = common_options; o->name && n < MAX_OPTIONS; o++) names[n++] = o->name;
    char word[2 * MAX_WORD];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(arg, "="), arg);
    const char *nearest = word[1] == '-' ? nearest_name(word + 2, names, n) : NULL;
    if (nearest) return fail(err, ZQ_EINVAL, "unknown option %s; did you mean --%s?", word, nearest);
    return fail(err, ZQ_EINVAL, "unknown option %s; 'zq %s --help' lists the options", word, command->name);
}

/* ---- the command line */

/* Handles args[*at], which begins with '-', and its value; moves *at past both. */
static zq_status take_option(const struct command *command, int n_args, char **args, int *at, bool *help, zq_error *err)
{
    const char *arg = args[(*at)++], *value = NULL;
    const struct option *o;
    if (arg[1] == '-') {
        const size_t n = strcspn(arg + 2, "=");
        o = find_option(command, arg + 2, n, 0);
        if (arg[2 + n]) value = arg + 2 + n + 1;
    } else {
        o = find_option(command, NULL, 0, arg[1]);
        if (arg[2]) value = arg + 2;
    }
    if (!o) return unknown_option(command, arg, err);
    char name[2 + MAX_WORD];
    snprintf(name, sizeof name, "--%s", o->name);
    if (!o->value) {
        if (value) return fail(err, ZQ_EINVAL, "%s takes no value, but '%s' has one", name, arg);
        return o->read(o->target ? o->target : help, name, NULL, err); /* --help is the flag without a target */
    }
    if (!value) {
        if (*at >= n_args) return fail(err, ZQ_EINVAL, "%s needs a value: %s", name, o->value);
        value = args[(*at)++];
    }
    return o->read(o->target, name, value, err);
}

static zq_status take_operand(const struct command *command, const char *arg, zq_error *err)
{
    const char **first = command->operand, **second = command->operand2;
    const char **free_one = !*first ? first : second && !*second ? second : NULL;
    if (free_one) {
        *free_one = arg;
        return ZQ_OK;
    }
    return second ? fail(err, ZQ_EINVAL, "unexpected argument '%s' after %s '%s'", arg, command->operand2_name, *second)
                  : fail(err, ZQ_EINVAL, "unexpected argument '%s' after %s '%s'", arg, command->operand_name, *first);
}

zq_status options_parse(const struct command *command, int n_args, char **args, bool *help, zq_error *err)
{
    bool only_operands = false;
    *help = false;
    for (int at = 0; at < n_args;) {
        const char *arg = args[at];
        if (!only_operands && !strcmp(arg, "--")) {
            only_operands = true;
            at++;
        } else if (!only_operands && arg[0] == '-' && arg[1]) {
            const zq_status st = take_option(command, n_args, args, &at, help, err);
            if (st || *help) return st;
        } else {
            const zq_status st = take_operand(command, arg, err);
            if (st) return st;
            at++;
        }
    }
    const bool first = *command->operand != NULL;
    if ((first || command->operand_optional) && (!command->operand2 || *command->operand2)) return ZQ_OK;
    return fail(err, ZQ_EINVAL, "%s is missing: zq %s %s", first ? command->operand2_name : command->operand_name, command->name, command->usage);
}

static void print_options(const struct option *table)
{
    for (; table->name; table++) {
        char left[48], letter[8] = "    ";
        if (table->letter) snprintf(letter, sizeof letter, "-%c, ", table->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, table->name, table->value ? " " : "", table->value ? table->value : "");
        printf("  %-28s %s\n", left, table->help);
    }
}

void options_help(const struct command *command)
{
    printf("zq %s: %s\n\nUsage: zq %s %s\n\n", command->name, command->summary, command->name, command->usage);
    if (command->details) printf("%s\n\n", command->details);
    printf("Options:\n");
    print_options(command->options);
    print_options(common_options);
    printf("\nExample:\n  %s\n\nExit codes: 0 is success; 'zq --help' lists the others.\n", command->example);
}
