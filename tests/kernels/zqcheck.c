/* zqcheck: checks every kernel of every level against plain C, and times those of the levels that this machine has. Those of other
 * x86 levels are checked in a form that AVX2 runs ("borrowed").
 *
 *     zqcheck [--list] [--bench] [--seed N] [filter]
 *     zqcheck --cuda-host [--list] [--bench] [--plugin FILE] [--seed N] [filter]    the GPU's kernels in the simulator
 *     zqcheck --cuda[:N] [--list] [--bench] [--plugin FILE] [--seed N] [filter]     on a GPU, number N (default 0)
 *
 * filter: part of a slot's or level's name. A crash inside a check counts as a failure of that kernel, and the run goes on. A slot
 * of the table that no check covers fails the run, so nobody can forget one. */
#include "check.h"

#include "base/threads.h"
#include "device.h"

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef ZQ_BUILD_DIR /* where device plug-ins are; a build for another processor has none */
static const char host_plugin[] = ZQ_BUILD_DIR "/libzq_cuda_host.so", gpu_plugin[] = ZQ_BUILD_DIR "/libzq_cuda.so";
#else
static const char host_plugin[] = "", gpu_plugin[] = "";
int check_device(const char *path, int index, uint64_t seed, const char *filter, enum errand errand)
{
    (void)path, (void)index, (void)seed, (void)filter, (void)errand;
    fprintf(stderr, "zqcheck: built without device plug-ins\n");
    return 2;
}
#endif

/* Every slot of the table in its order: name, first member, last member. */
#define SLOTS(X) \
    X(norm, norm, norm) \
    X(activate, activate, activate) \
    X(embed, embed, embed) \
    X(gemm_w8_a8, w8_a8, w8_a8) \
    X(gemm_w4_a8, w4_a8, w4_a8) \
    X(gemm_w8_a16, w8_a16, w8_a16) \
    X(gemm_w4_a16, w4_a16, w4_a16) \
    X(gemm_f32_a16, f32_a16, f32_a16) \
    X(keep, keep, keep) \
    X(attend, attend_scratch, attend) \
    X(to_float, to_float, to_float)

#define SLOT_END(last) (offsetof(struct zq_kernels, last) + sizeof(((struct zq_kernels *)0)->last))
#define ROW(name, first, last) {#name, offsetof(struct zq_kernels, first), SLOT_END(last), check_##name, bench_##name},
#define BYTES(name, first, last) +(SLOT_END(last) - offsetof(struct zq_kernels, first))

/* What --math fast puts into the table, some of it instead. */
#define FAST_SLOTS(X) \
    X(gemm_w8_bf16, w8_a16, w8_a16) \
    X(gemm_w4_bf16, w4_a16, w4_a16) \
    X(gemm_f32_bf16, f32_a16, f32_a16) \
    X(attend_bf16, attend_scratch, attend) \
    X(matmul_bf16, matmul, matmul)
/* Those that are empty without it. */
#define FAST_ONLY(X) X(matmul_bf16, matmul, matmul)

_Static_assert(sizeof(void *) SLOTS(BYTES) FAST_ONLY(BYTES) == sizeof(struct zq_kernels), "a slot of the kernel table has no check");

static const struct slot {
    const char *name;
    size_t begin, end; /* its bytes in the table */
    void (*check)(struct check *c);
    void (*bench)(struct bench *b);
} slots[] = {SLOTS(ROW)};

static const struct slot fast_slots[] = {FAST_SLOTS(ROW)}, fast_only[] = {FAST_ONLY(ROW)};

static const unsigned level_bits[] = {
    ZQ_LEVEL_C,   ZQ_LEVEL_AVX2,    ZQ_LEVEL_AVXVNNI, ZQ_LEVEL_AVX512VNNI, ZQ_LEVEL_AVX512BF16,
    ZQ_LEVEL_AMX, ZQ_LEVEL_DOTPROD, ZQ_LEVEL_I8MM,
};

/* Walks the table word by word: all but `levels` must belong to a slot with a check, and none may be NULL. Those of --math fast alone must be. */
static bool all_slots_have_checks(const struct zq_kernels *k)
{
    bool ok = true;
    for (size_t at = sizeof(void *); at < sizeof *k; at += sizeof(void *)) {
        bool covered = false, empty = false;
        for (size_t i = 0; i < ZQ_LEN(slots); i++) covered |= at >= slots[i].begin && at < slots[i].end;
        for (size_t i = 0; i < ZQ_LEN(fast_only); i++) empty |= at >= fast_only[i].begin && at < fast_only[i].end;
        const void *word;
        memcpy(&word, (const char *)k + at, sizeof word);
        if (empty ? !word : covered && word) continue;
        printf("FAIL: byte %zu of struct zq_kernels %s\n", at, empty ? "is filled" : covered ? "is empty" : "has no check");
        ok = false;
    }
    return ok;
}

/* Nothing that --math fast changes is left unchecked. */
static bool fast_slots_have_checks(const struct zq_kernels *fast, const struct zq_kernels *exact)
{
    for (size_t at = sizeof(void *); at < sizeof *fast; at += sizeof(void *)) {
        bool covered = !memcmp((const char *)fast + at, (const char *)exact + at, sizeof(void *));
        for (size_t i = 0; i < ZQ_LEN(fast_slots); i++) covered |= at >= fast_slots[i].begin && at < fast_slots[i].end;
        if (covered) continue;
        printf("FAIL: byte %zu of struct zq_kernels has no check with --math fast\n", at);
        return false;
    }
    return true;
}

/* ---- levels that this machine lacks ---- */

#ifdef ZQ_BORROWED_LEVELS
/* Kernels of other levels that tests/CMakeLists.txt has compiled for AVX2: wider registers are pairs, VNNI is three instructions, AMX's
 * tiles are plain C (emulated_*.h). */
void zq_gemm_avxvnni_borrowed(struct zq_kernels *k);
void zq_gemm_avx512vnni_borrowed(struct zq_kernels *k);
void zq_floatmul_avx512vnni_borrowed(struct zq_kernels *k);
void zq_rows_avx512vnni_borrowed(struct zq_kernels *k);
void zq_attend_avx512vnni_borrowed(struct zq_kernels *k);
void zq_gemm_amx_borrowed(struct zq_kernels *k);
void zq_bf16mul_avx512bf16_borrowed(struct zq_kernels *k);
void zq_attend_avx512bf16_borrowed(struct zq_kernels *k);
void zq_bf16mul_amx_borrowed(struct zq_kernels *k);

static bool borrow(struct zq_kernels *k, unsigned level, unsigned here)
{
    if (!(level & (ZQ_LEVEL_AVXVNNI | ZQ_LEVEL_AVX512VNNI | ZQ_LEVEL_AVX512BF16 | ZQ_LEVEL_AMX))) return false;
    if (!(here & ZQ_LEVEL_AVX2)) {
        fprintf(stderr, "skipped: level %s, which needs AVX2 where it is absent\n", zq_levels_name(level));
        return false;
    }
    if (level == ZQ_LEVEL_AVXVNNI) zq_gemm_avxvnni_borrowed(k);
    if (level == ZQ_LEVEL_AMX) zq_gemm_amx_borrowed(k);
    if (level == ZQ_LEVEL_AVX512VNNI) {
        zq_gemm_avx512vnni_borrowed(k);
        zq_floatmul_avx512vnni_borrowed(k);
        zq_rows_avx512vnni_borrowed(k);
        zq_attend_avx512vnni_borrowed(k);
    }
    return true;
}

static void borrow_fast(struct zq_kernels *k, unsigned level)
{
    if (level & (ZQ_LEVEL_AVX512BF16 | ZQ_LEVEL_AMX)) zq_attend_avx512bf16_borrowed(k);
    if (level == ZQ_LEVEL_AVX512BF16) zq_bf16mul_avx512bf16_borrowed(k);
    if (level == ZQ_LEVEL_AMX) zq_bf16mul_amx_borrowed(k);
}
#else
static bool borrow(struct zq_kernels *k, unsigned level, unsigned here)
{
    (void)k, (void)level, (void)here;
    return false;
}

static void borrow_fast(struct zq_kernels *k, unsigned level) { (void)k, (void)level; }
#endif

/* ---- crashes ---- */

static sigjmp_buf after_crash;
static volatile sig_atomic_t crash_signal;

static void on_crash(int number)
{
    crash_signal = number;
    siglongjmp(after_crash, 1);
}

static void catch_crashes(void)
{
    static char stack[64 * 1024];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaltstack(&alternate, NULL);
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < ZQ_LEN(numbers); i++) sigaction(numbers[i], &action, NULL);
}

static void run_guarded(const struct slot *slot, struct check *c)
{
    if (sigsetjmp(after_crash, 1)) {
        check_fail(c, "crashed with signal %d (buffers %s an unreadable page)", (int)crash_signal, c->at_end ? "end at" : "begin at");
        return;
    }
    slot->check(c);
    check_begin(c); /* the last case's surroundings */
}

/* ---- the run ---- */

struct options {
    bool list, bench;
    uint64_t seed;
    const char *filter;
    const char *plugin; /* of a device: that is checked instead */
    int index;          /* of several of its kind */
};

static bool is_wanted(const struct options *o, const struct slot *slot, const char *level)
{
    return !o->filter || strstr(slot->name, o->filter) || strstr(level, o->filter);
}

static bool is_new(const struct slot *slot, const struct zq_kernels *k, const struct zq_kernels *lower)
{
    return memcmp((const char *)k + slot->begin, (const char *)lower + slot->begin, slot->end - slot->begin) != 0;
}

static bool check_slot(const struct slot *slot, const struct zq_kernels *k, const struct zq_kernels *plain, const char *level, uint64_t seed)
{
    bool ok = true;
    for (int at_end = 1; at_end >= 0 && ok; at_end--) {
        struct check c = {.k = k, .c = plain, .is_c = k == plain, .level = level, .slot = slot->name, .rng = seed, .at_end = at_end};
        run_guarded(slot, &c);
        ok = !c.failed;
    }
    return ok;
}

/* "--cuda" or "--cuda:N" */
static bool is_gpu(const char *word, int *index)
{
    int n = 0;
    if (strncmp(word, "--cuda", 6)) return false;
    return !word[6] || (word[7] >= '0' && word[7] <= '9' && sscanf(word + 6, ":%9d%n", index, &n) == 1 && !word[6 + n]);
}

static int parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--list")) o->list = true;
        else if (!strcmp(argv[i], "--bench")) o->bench = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc) o->seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--cuda-host") && !o->plugin) o->plugin = host_plugin;
        else if (is_gpu(argv[i], &o->index) && !o->plugin) o->plugin = gpu_plugin;
        else if (!strcmp(argv[i], "--plugin") && i + 1 < argc) o->plugin = argv[++i];
        else if (argv[i][0] != '-' && !o->filter) o->filter = argv[i];
        else return -1;
    }
    return 0;
}

/* A level's kernels. */
struct table {
    const struct zq_kernels *k, *lower; /* those that both have are no news */
    const struct zq_kernels *plain;
    unsigned level;
    bool is_here;
    struct limits limits;
};

struct counts {
    size_t n_checked, n_failed;
};

/* Lists, or checks and times, n slots of a table. */
static void run_slots(const struct options *o, const struct table *t, const struct slot *list, size_t n, struct counts *counts)
{
    const char *level = zq_levels_name(t->level);
    struct bench bench = {.k = t->k, .level = level, .limits = t->limits, .n_threads = zq_available_cores(), .is_c = t->k == t->plain};
    for (size_t i = 0; i < n; i++) {
        if (!bench.is_c && !is_new(&list[i], t->k, t->lower)) continue;
        const bool wanted = is_wanted(o, &list[i], level);
        if (o->list) {
            if (wanted) printf("%s %s%s\n", list[i].name, t->is_here ? "" : "borrowed-", level);
            continue;
        }
        if (wanted) {
            counts->n_checked++;
            counts->n_failed += !check_slot(&list[i], t->k, t->plain, level, o->seed);
        }
        /* C is timed in any case: ratios refer to it */
        if (o->bench && t->is_here && (wanted || bench.is_c)) list[i].bench(&bench);
    }
}

/* The same of what --math fast makes of the table; lower: of the level below. */
static void run_fast(const struct options *o, const struct table *exact, struct zq_kernels *lower, struct counts *counts)
{
    struct zq_kernels fast = *exact->k;
    struct table t = *exact;
    t.k = &fast;
    t.lower = exact->is_here ? lower : exact->k;
    if (exact->is_here) {
        zq_kernels_fast(&fast);
        zq_kernels_fast_attention(&fast);
    } else {
        borrow_fast(&fast, exact->level);
    }
    counts->n_failed += !fast_slots_have_checks(&fast, exact->k);
    if (memcmp(&fast, exact->k, sizeof fast)) run_slots(o, &t, fast_slots, ZQ_LEN(fast_slots), counts);
    if (exact->is_here) *lower = fast;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = (uint64_t)time(NULL)};
    if (parse(&o, argc, argv)) {
        fprintf(stderr, "usage: zqcheck [--list] [--bench] [--seed N] [--cuda-host | --cuda[:N]] [--plugin FILE] [filter]\n");
        return 2;
    }
    if (o.plugin) return check_device(o.plugin, o.index, o.seed, o.filter, o.list ? ERRAND_DESCRIBE : o.bench ? ERRAND_BENCH : ERRAND_CHECK);
    unsigned here;
    zq_error err;
    if (zq_levels_detect(&here, &err)) {
        fprintf(stderr, "zqcheck: %s\n", err.message);
        return 2;
    }
    catch_crashes();

    static struct zq_kernels tables[ZQ_LEN(level_bits)], borrowed, lower_fast;
    struct counts counts = {0};
    size_t n_tables = 0;
    unsigned levels = 0;
    for (size_t l = 0; l < ZQ_LEN(level_bits); l++) {
        const bool is_here = !(level_bits[l] & ~here);
        struct zq_kernels *k = is_here ? &tables[n_tables] : &borrowed;
        struct table t = {.k = k, .lower = is_here && n_tables ? k - 1 : tables, .plain = tables, .level = level_bits[l], .is_here = is_here};
        if (is_here) {
            levels |= level_bits[l];
            zq_kernels_init(k, levels);
            n_tables++;
        } else {
            borrowed = tables[0];
            if (!borrow(k, level_bits[l], here)) continue;
        }
        if (k == tables && !all_slots_have_checks(k)) counts.n_failed++;
        if (o.bench && is_here) t.limits = bench_limits(level_bits[l], zq_available_cores());
        run_slots(&o, &t, slots, ZQ_LEN(slots), &counts);
        run_fast(&o, &t, &lower_fast, &counts);
    }
    if (!o.list) printf("%zu kernels checked, %zu failed, seed %llu\n", counts.n_checked, counts.n_failed, (unsigned long long)o.seed);
    return counts.n_failed ? 1 : 0;
}
