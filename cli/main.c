/* zq: the program. Finds the command, lets its table read the arguments, runs it, and turns its status into the exit code. */
#include "commands.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static const struct command *const commands[] = {
    &cmd_quantize, &cmd_generate, &cmd_eval, &cmd_compare, &cmd_forward, &cmd_embed, &cmd_classify, &cmd_tokenize, &cmd_inspect,
    &cmd_bench,
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(void)
{
    printf("zq quantizes transformer checkpoints and runs them with integer kernels\n\nUsage: zq COMMAND ARGUMENTS\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++) printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n'zq COMMAND --help' or 'zq help COMMAND' describes one of them. 'zq --version' prints the version.\n\nExit codes:\n");
#define PRINT_CODE(code, value, text) printf("  %2d  %s\n", value, text);
    ZQ_STATUS_TABLE(PRINT_CODE)
#undef PRINT_CODE
    printf("\nExample:\n  zq quantize models/novels -o novels-w8a8\n");
}

static const struct command *find_command(const char *name, zq_error *err)
{
    static const char *const options[] = {"--help", "--version"};
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) {
        names[i] = commands[i]->name;
        if (!strcmp(names[i], name)) return commands[i];
    }
    const bool option = *name == '-';
    const char *what = option ? "option" : "command", *nearest = option ? nearest_name(name, options, 2) : nearest_name(name, names, N_COMMANDS);
    if (nearest) fail(err, ZQ_EINVAL, "unknown %s '%s'; did you mean '%s'?", what, name, nearest);
    else if (option) fail(err, ZQ_EINVAL, "unknown option '%s'; options of a command follow its name", name);
    else fail(err, ZQ_EINVAL, "unknown command '%s'; 'zq --help' lists the commands", name);
    return NULL;
}

/* A missing standard descriptor would be given to the next file that is opened, and messages would be written into a model.
 * Opened the wrong way round, its use fails as it would have. */
static bool fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return false;
    }
    return true;
}

static zq_status run(int n_args, char **args, zq_error *err)
{
    if (!n_args) return fail(err, ZQ_EINVAL, "a command is missing; 'zq --help' lists them");
    const bool help_wanted = !strcmp(args[0], "help");
    if ((help_wanted && n_args == 1) || !strcmp(args[0], "--help") || !strcmp(args[0], "-h")) {
        print_help();
        return flush_output(err);
    }
    if (!strcmp(args[0], "--version")) {
        printf("zq %s\n", zq_version());
        return flush_output(err);
    }
    const struct command *command = find_command(args[help_wanted], err);
    if (!command) return ZQ_EINVAL;
    bool help = help_wanted;
    if (!help) {
        const zq_status st = options_parse(command, n_args - 1, args + 1, &help, err);
        if (st) return st;
    }
    if (help) options_help(command);
    else {
        const zq_status st = command->run(err);
        if (st) return st;
    }
    return flush_output(err);
}

/* Large blocks go back to the system when they are freed: bounds on memory count on it. Left alone, glibc takes blocks as large as one freed before
 * from its heap, where a small one above keeps them, and whether there is one depends on the timing of threads. */
static void give_large_blocks_back(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

int main(int argc, char **argv)
{
    if (!fill_standard_descriptors()) return ZQ_EIO;
    signal(SIGXFSZ, SIG_IGN); /* a file above the limit of the shell is a write that fails, with a message, and is cleaned up */
    give_large_blocks_back();
    signal(SIGPIPE, SIG_DFL); /* a reader that has seen enough ends us quietly, even if our parent ignores the signal */
    zq_error err = {0};
    const zq_status st = run(argc - 1, argv + 1, &err);
    if (st) print_error(err.message);
    return (int)st;
}
