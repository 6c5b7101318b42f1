/* Commands and their options are tables: parsing, --help and suggestions for misspelt names all read the same rows. */
#ifndef ZQ_CLI_OPTIONS_H
#define ZQ_CLI_OPTIONS_H

#include "console.h"

/* Stores the value of an option into target, or says in *err what is wrong with it. value is NULL for flags. */
typedef zq_status option_reader(void *target, const char *option, const char *value, zq_error *err);

option_reader read_flag;  /* bool */
option_reader read_text;  /* const char *, borrowed */
option_reader read_count; /* size_t */
option_reader read_int;   /* int, not negative */
option_reader read_seed;  /* uint64_t */
option_reader read_real;  /* float, not negative, finite */
option_reader read_bytes; /* uint64_t: "512M", "1.5GiB" */

struct option {
    const char *name;  /* "scheme" for --scheme; NULL ends a table */
    char letter;       /* 'o' for -o; 0: none */
    const char *value; /* what the help calls it: "FILE"; NULL for flags */
    option_reader *read;
    void *target;
    const char *help;
};

struct command {
    const char *name, *summary;
    const char *usage;      /* after "zq NAME " */
    const char *details;    /* sentences for --help; may be NULL */
    const char *example;
    const struct option *options;
    const char **operand;   /* receives the operand, which must be given unless operand_optional */
    bool operand_optional;
    const char *operand_name;
    const char **operand2;  /* receives a second one, which must be given too; NULL: there is none */
    const char *operand2_name;
    zq_status (*run)(zq_error *err);
};

/* Fills the targets of a command from its arguments (the ones behind its name). *help is set, and the rest ignored, when
 * --help is among them. ZQ_EINVAL names the argument, and the nearest valid one if an option is unknown. */
zq_status options_parse(const struct command *command, int n_args, char **args, bool *help, zq_error *err);

/* The text of `zq NAME --help`, on standard output. */
void options_help(const struct command *command);

/* The name most like `word` among names [n], or NULL if none is close. */
const char *nearest_name(const char *word, const char *const *names, size_t n);

#endif
