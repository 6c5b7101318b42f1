/* The commands of the program, one per file. To add one: a file cmd_NAME.c, a line here, a line in main.c. */
#ifndef ZQ_CLI_COMMANDS_H
#define ZQ_CLI_COMMANDS_H

#include "options.h"

extern const struct command cmd_quantize, cmd_generate, cmd_eval, cmd_compare, cmd_forward, cmd_embed, cmd_classify, cmd_tokenize, cmd_inspect,
    cmd_bench;

#endif
