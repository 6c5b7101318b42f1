/* How a command that runs a model opens it: the options that all of them have. */
#ifndef ZQ_CLI_RUNNING_H
#define ZQ_CLI_RUNNING_H

#include "options.h"

/* --math and --kv, of every command that runs a model. */
extern struct running {
    zq_math math;
    zq_kv_format kv;
} running;

option_reader read_math; /* zq_math: "exact", "fast" */
option_reader read_kv;   /* zq_kv_format: "f32", "f16", "int8" */

const char *math_name(zq_math math);
const char *kv_name(zq_kv_format kv);

/* Rows of an option table. */
#define MATH_OPTIONS                                                                                                                            \
    {"math", 0, "M", read_math, &running.math, "exact (default): the same bits everywhere; fast: whatever is quickest here, within 0.1 %"},     \
    {"kv", 0, "F", read_kv, &running.kv, "what decoders keep keys and values as: f32, f16 or int8 (default: f32; with --math fast f16)"}
#define DEVICE_OPTION                                                                                                                           \
    {"device", 0, "D", read_text, &settings.device, "where it runs: cpu (default), cuda, cuda:N, or cuda-host, a simulated GPU"}

/* What these options say to zq_model_open. */
zq_open_options open_options(void);
/* The same for the model that another is measured by: here, and exact. */
zq_open_options yardstick_options(void);

#endif
