/* --device, --math and --kv. */
#include "running.h"

#include <string.h>

struct running running;

static const char *const maths[] = {[ZQ_MATH_EXACT] = "exact", [ZQ_MATH_FAST] = "fast"};
static const char *const kvs[] = {[ZQ_KV_DEFAULT] = "default", [ZQ_KV_F32] = "f32", [ZQ_KV_F16] = "f16", [ZQ_KV_INT8] = "int8"};

const char *math_name(zq_math math) { return maths[math]; }
const char *kv_name(zq_kv_format kv) { return kvs[kv]; }

zq_status read_math(void *target, const char *option, const char *value, zq_error *err)
{
    zq_math *math = target;
    if (!strcmp(value, maths[ZQ_MATH_EXACT])) *math = ZQ_MATH_EXACT;
    else if (!strcmp(value, maths[ZQ_MATH_FAST])) *math = ZQ_MATH_FAST;
    else return fail(err, ZQ_EINVAL, "%s is exact or fast, not '%s'", option, value);
    return ZQ_OK;
}

zq_status read_kv(void *target, const char *option, const char *value, zq_error *err)
{
    zq_kv_format *kv = target;
    for (int f = ZQ_KV_F32; f <= ZQ_KV_INT8; f++) {
        if (strcmp(value, kvs[f])) continue;
        *kv = (zq_kv_format)f;
        return ZQ_OK;
    }
    return fail(err, ZQ_EINVAL, "%s is f32, f16 or int8, not '%s'", option, value);
}

zq_open_options open_options(void)
{
    return (zq_open_options){
        .n_threads = settings.n_threads, .note = print_note, .device = settings.device, .math = running.math, .kv = running.kv,
    };
}

zq_open_options yardstick_options(void)
{
    return (zq_open_options){.n_threads = settings.n_threads, .note = print_note};
}
