/* Which plan is made for which problem, on every ISA that is built: nothing is run, so none of them has to be
 * supported. */
#include "dispatch.h"
#include "ops/cache.h"
#include "ops/problem.h"
#include "support.h"
#include "tuning.h"
#include "typed.h"

#include <stddef.h>

/* ---- Problems ---- */

/* Pointers that a plan does not follow. */
static const int64_t lens[1];
static const float floats[1];
static float outputs[1];
static const uint8_t bytes[1];
static const struct attn_rotary rotary;

static void run_never(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context, (void)task, (void)arg, (void)count;
    test_fail("a plan runs nothing");
}

/* A problem and what it points to. */
struct planned {
    struct attn_problem problem;
    attn_options options;
    attn_parallel parallel;
    struct attn_cache cache;
};

/* Makes the problem use what a bit of ATTN_USE_ stands for. */
static void use(struct planned *p, uint32_t bit) {
    attn_options *options = &p->options;
    switch (bit) {
    case ATTN_USE_VALID_PER_SEQUENCE:
        options->valid = (attn_valid_lens){.kind = ATTN_VALID_PER_SEQUENCE, .lens.i64 = lens};
        break;
    case ATTN_USE_VALID_PER_ROW:
        options->valid = (attn_valid_lens){.kind = ATTN_VALID_PER_ROW, .lens.i64 = lens};
        break;
    case ATTN_USE_STARTS:
        options->starts.i64 = lens;
        break;
    case ATTN_USE_CAUSAL:
        options->causal = 1;
        break;
    case ATTN_USE_WINDOW_LEFT:
        options->window_left = 7;
        break;
    case ATTN_USE_WINDOW_RIGHT:
        options->window_right = 7;
        break;
    case ATTN_USE_MASK:
        options->mask = (attn_tensor){bytes, ATTN_BOOL, 0, 0, 0, 1};
        break;
    case ATTN_USE_BIAS:
        options->bias = (attn_tensor){floats, ATTN_F32, 0, 0, 0, 1};
        break;
    case ATTN_USE_BIAS_FACTORS:
        options->bias_factors = floats;
        break;
    case ATTN_USE_SOFT_CAP:
        options->soft_cap = 3;
        break;
    case ATTN_USE_ALIBI:
        options->alibi = floats;
        break;
    case ATTN_USE_SINKS:
        options->sinks = floats;
        break;
    case ATTN_USE_EMPTY_MEAN:
        options->empty = ATTN_EMPTY_MEAN;
        break;
    case ATTN_USE_ROTARY:
        options->rotary = &rotary;
        break;
    case ATTN_USE_DROPOUT:
        options->dropout = 0.5f;
        break;
    case ATTN_USE_WEIGHTS:
        options->weights.data = outputs;
        break;
    case ATTN_USE_SCORES:
        options->scores.data = outputs;
        break;
    case ATTN_USE_SCORES_HIDDEN:
        options->scores_hidden = 1;
        break;
    case ATTN_USE_LOG_SUM_EXP:
        options->log_sum_exp.data = outputs;
        break;
    case ATTN_USE_PACKED_ROWS:
        p->problem.q_cu.i64 = lens;
        break;
    case ATTN_USE_PACKED_KEYS:
        p->problem.kv_cu.i64 = lens;
        break;
    case ATTN_USE_CACHE:
        p->cache = (struct attn_cache){.table = p->problem.table};
        p->cache.config.capacity = p->problem.kv_len;
        p->problem.cache = &p->cache;
        break;
    case ATTN_USE_TYPES:
        p->problem.o.type = ATTN_F16;
        break;
    default:
        test_fail("no option stands for bit %u", bit);
    }
}

/* Query rows are `tiles` times those that a product takes at once, and `more`. */
struct shape {
    size_t batch, kv_heads, group, tiles, more, kv_len, head_size, threads;
};

static size_t rows_at_once(const struct attn_kernels *table) {
    return attn_gemm_find(table, ATTN_CLASS_F32)->rows;
}

/* Values' rows do not follow each other. */
static void begin(struct planned *p, const struct attn_kernels *table, const struct shape *s) {
    size_t rows = s->tiles * rows_at_once(table) + s->more, value_size = s->head_size;
    *p = (struct planned){.parallel = {run_never, NULL, s->threads}};
    p->problem = (struct attn_problem){.table = table,
                                       .batch = s->batch,
                                       .heads = s->kv_heads * s->group,
                                       .kv_heads = s->kv_heads,
                                       .group = s->group,
                                       .q_len = rows,
                                       .kv_len = s->kv_len,
                                       .longest = {rows, s->kv_len},
                                       .head_size = s->head_size,
                                       .value_size = value_size,
                                       .v = {.row_stride = value_size + 1},
                                       .options = &p->options,
                                       .parallel = &p->parallel};
}

/* Begins the problem, then makes it use all of `uses`, then its plan. */
static void make(struct planned *p, const struct attn_kernels *table, const struct shape *s, uint32_t uses) {
    begin(p, table, s);
    for (uint32_t bit = 1; bit < (uint32_t)1 << ATTN_USE_COUNT; bit <<= 1)
        if (uses & bit)
            use(p, bit);
    if (!attn_plan_make(&p->problem))
        test_fail("no plan");
}

static void for_each_table(void (*check)(const struct attn_kernels *table)) {
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        if (attn_table((attn_isa)isa))
            check(attn_table((attn_isa)isa));
}

/* ---- Uses ---- */

static const struct shape any_shape = {1, 1, 1, 0, 4, 1000, 64, 1};

static void check_uses(const struct attn_kernels *table) {
    for (uint32_t i = 0; i < ATTN_USE_COUNT; i++) {
        struct planned p;
        begin(&p, table, &any_shape);
        assert_int_equal(0, attn_uses_of(&p.problem));
        use(&p, (uint32_t)1 << i);
        test_case("bit %u", i);
        assert_int_equal((uint32_t)1 << i, attn_uses_of(&p.problem));
    }
}

static void test_uses(void **state) {
    (void)state;
    for_each_table(check_uses);
}

/* Any tensor of another type than F32, and keys and values that are stored in one. A cache's keys and values are in
 * its own type: tensors beside a cache count for nothing. */
static void check_types(const struct attn_kernels *table) {
    for (int which = 0; which < 5; which++)
        for (int cached = 0; cached < 2; cached++) {
            struct planned p;
            begin(&p, table, &any_shape);
            if (cached)
                use(&p, ATTN_USE_CACHE);
            attn_type *const types[] = {&p.problem.q.type, &p.problem.o.type, &p.problem.stored, &p.problem.k.type,
                                        &p.problem.v.type};
            *types[which] = ATTN_BF16;
            test_case("type %d, cached %d", which, cached);
            assert_int_equal(which < 3 || !cached, (attn_uses_of(&p.problem) & ATTN_USE_TYPES) != 0);
        }
}

static void test_types(void **state) {
    (void)state;
    for_each_table(check_types);
}

/* The class follows from what keys and values are stored as, whatever the other types, from the arithmetic that is
 * asked for, and from the table. */
static void check_class(const struct attn_kernels *table) {
    static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    for (size_t i = 0; i < (size_t)18 * CACHE_TYPES; i++) {
        struct planned p;
        begin(&p, table, &any_shape);
        p.problem.q.type = types[i % 3];
        p.problem.o.type = types[i / 3 % 3];
        p.problem.stored = cache_types[i / 9 % CACHE_TYPES];
        p.problem.arithmetic = i < (size_t)9 * CACHE_TYPES ? ATTN_ARITHMETIC_FASTEST : ATTN_ARITHMETIC_PORTABLE;
        bool tiles = table->isa == ATTN_ISA_AMX && p.problem.arithmetic == ATTN_ARITHMETIC_FASTEST;
        enum attn_class expected = p.problem.stored != ATTN_BF16 ? ATTN_CLASS_F32
                                   : tiles                       ? ATTN_CLASS_BF16_TILE
                                                                 : ATTN_CLASS_BF16;
        assert_true(attn_plan_make(&p.problem));
        test_case("%s: q of type %d, o of type %d, stored as %d, arithmetic %d", attn_isa_name(table->isa),
                  (int)p.problem.q.type, (int)p.problem.o.type, (int)p.problem.stored, (int)p.problem.arithmetic);
        assert_int_equal(expected, p.problem.plan.arithmetic);
        assert_ptr_equal(attn_gemm_find_type(table, expected, p.problem.stored), p.problem.plan.gemm);
        assert_int_equal(expected, p.problem.plan.gemm->arithmetic);
    }
}

static void test_class(void **state) {
    (void)state;
    for_each_table(check_class);
}

/* An option without a bit would be ignored by the paths that were not written for it. So every field of attn_options is
 * either one that `use` sets or one that only says more about another; bytes of no field are padding, less than the
 * largest alignment. */
static void test_every_option_is_known(void **state) {
    (void)state;
#define FIELD(name)                                                                                                    \
    { offsetof(attn_options, name), sizeof(((attn_options *)0)->name) }
    static const struct {
        size_t offset, size;
    } fields[] = {
        FIELD(valid),         FIELD(starts),          FIELD(causal),
        FIELD(position),      FIELD(position_offset), FIELD(position_offsets),
        FIELD(window_left),   FIELD(window_right),    FIELD(mask),
        FIELD(mask_len),      FIELD(mask_hides),      FIELD(bias_len),
        FIELD(scores_hidden), FIELD(soft_cap),        FIELD(alibi),
        FIELD(bias),          FIELD(sinks),           FIELD(empty),
        FIELD(rotary),        FIELD(rotary_offsets),  FIELD(dropout),
        FIELD(dropout_seed),  FIELD(weights),         FIELD(scores),
        FIELD(score_stage),   FIELD(log_sum_exp),     FIELD(bias_factors),
    };
    bool known[sizeof(attn_options)] = {0};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        memset(known + fields[i].offset, true, fields[i].size);
    for (size_t i = 0, unknown = 0; i < sizeof known; i++) {
        unknown = known[i] ? 0 : unknown + 1;
        if (unknown == sizeof(uint64_t))
            test_fail("attn_options has a field near byte %zu that this test does not know: give it a bit of ATTN_USE_",
                      i);
    }
}

/* ---- Paths ---- */

static const struct path_row {
    const char *what;
    struct shape shape; /* batch, kv heads, group, tiles and rows, keys, head size, threads */
    uint32_t uses;
    enum attn_path path;
    size_t spans, tasks;
} path_table[] = {
    /* Few keys. */
    {"16 keys, one row", {2, 4, 1, 0, 1, 16, 64, 1}, 0, ATTN_PATH_SMALL, 1, 1},
    {"17 keys, 3 rows", {2, 4, 1, 0, 3, 17, 64, 1}, 0, ATTN_PATH_IN_PLACE, 1, 1},
    {"32 keys, 4 rows", {2, 4, 1, 0, 4, 32, 64, 1}, 0, ATTN_PATH_SMALL, 1, 1},
    {"33 keys, 4 rows", {2, 4, 1, 0, 4, 33, 64, 1}, 0, ATTN_PATH_IN_PLACE, 1, 1},
    {"32 keys, heads of 128", {2, 4, 1, 0, 4, 32, 128, 1}, 0, ATTN_PATH_SMALL, 1, 1},
    {"32 keys, heads of 129", {2, 4, 1, 0, 3, 32, 129, 1}, 0, ATTN_PATH_IN_PLACE, 1, 1},
    {"32 keys, causal", {2, 4, 1, 0, 4, 32, 64, 1}, ATTN_USE_CAUSAL, ATTN_PATH_SMALL, 1, 1},
    {"32 keys, a mask", {2, 4, 1, 0, 3, 32, 64, 1}, ATTN_USE_MASK, ATTN_PATH_IN_PLACE, 1, 1},
    {"32 keys, a cache", {2, 4, 1, 0, 4, 32, 64, 1}, ATTN_USE_CACHE, ATTN_PATH_CACHED, 1, 1},
    {"32 keys, many rows", {1, 8, 1, 0, 1000, 32, 64, 4}, 0, ATTN_PATH_SMALL, 1, 4},
    {"no key", {2, 4, 1, 0, 4, 0, 64, 4}, 0, ATTN_PATH_SMALL, 1, 1},
    {"16 keys, types", {2, 4, 1, 0, 1, 16, 64, 1}, ATTN_USE_TYPES, ATTN_PATH_SMALL, 1, 1},
    {"16 keys, heads of 129, types", {2, 4, 1, 0, 1, 16, 129, 1}, ATTN_USE_TYPES, ATTN_PATH_IN_PLACE, 1, 1},
    /* Tensors. */
    {"3 tiles", {1, 4, 1, 3, 0, 1000, 64, 1}, 0, ATTN_PATH_IN_PLACE, 1, 1},
    {"3 tiles and a row", {1, 4, 1, 3, 1, 1000, 64, 1}, 0, ATTN_PATH_PACK_HEAD, 1, 1},
    {"one row of 2 query heads", {1, 4, 2, 0, 1, 1000, 64, 1}, 0, ATTN_PATH_IN_PLACE, 1, 1},
    {"4 tiles, of 2 query heads", {1, 4, 2, 2, 0, 1000, 64, 1}, 0, ATTN_PATH_PACK_HEAD, 1, 1},
    {"one tile, rotary", {1, 4, 1, 1, 0, 1000, 64, 1}, ATTN_USE_ROTARY, ATTN_PATH_STREAMED, 1, 1},
    {"one tile and a row, rotary", {1, 4, 1, 1, 1, 1000, 64, 1}, ATTN_USE_ROTARY, ATTN_PATH_PACK_HEAD, 1, 1},
    {"3 tiles, types", {1, 4, 1, 3, 0, 1000, 64, 1}, ATTN_USE_TYPES, ATTN_PATH_IN_PLACE, 1, 1},
    {"3 tiles and a row, types", {1, 4, 1, 3, 1, 1000, 64, 1}, ATTN_USE_TYPES, ATTN_PATH_PACK_HEAD, 1, 1},
    {"fewer heads than threads, types", {1, 2, 1, 0, 200, 400, 64, 3}, ATTN_USE_TYPES, ATTN_PATH_PACK_ALL, 1, 3},
    /* Threads: 4 heads for each; an even share; neither. */
    {"4 heads for each of 3 threads", {1, 13, 1, 0, 200, 400, 64, 3}, 0, ATTN_PATH_PACK_HEAD, 1, 3},
    {"as many heads as threads", {1, 3, 1, 0, 200, 400, 64, 3}, 0, ATTN_PATH_PACK_HEAD, 1, 3},
    {"as many heads as threads, 2 ms and more", {1, 3, 1, 0, 600, 600, 64, 3}, 0, ATTN_PATH_PACK_ALL, 1, 3},
    {"fewer heads than threads", {1, 2, 1, 0, 200, 400, 64, 3}, 0, ATTN_PATH_PACK_ALL, 1, 3},
    {"fewer heads than threads, below 98 us", {1, 2, 1, 0, 100, 120, 64, 3}, 0, ATTN_PATH_PACK_HEAD, 1, 1},
    {"little work", {1, 2, 1, 0, 100, 60, 64, 3}, 0, ATTN_PATH_PACK_HEAD, 1, 1},
    {"in place, as many tiles as threads", {1, 3, 1, 0, 1, 4000, 128, 3}, 0, ATTN_PATH_IN_PLACE, 1, 3},
    {"in place, fewer tiles than threads", {1, 2, 1, 0, 1, 4000, 128, 3}, 0, ATTN_PATH_IN_PLACE, 1, 2},
    /* Spans. */
    {"4097 keys", {1, 3, 1, 0, 1, 4097, 64, 3}, 0, ATTN_PATH_IN_PLACE, 2, 3},
    {"4097 keys, one thread", {1, 3, 1, 0, 1, 4097, 64, 1}, 0, ATTN_PATH_IN_PLACE, 1, 1},
    {"12289 keys, rotary", {1, 1, 1, 0, 1, 12289, 64, 8}, ATTN_USE_ROTARY, ATTN_PATH_STREAMED, 4, 4},
    {"5000 keys, 4 tiles for each thread", {4, 3, 1, 0, 1, 5000, 64, 3}, 0, ATTN_PATH_IN_PLACE, 2, 3},
    {"5000 keys, more tiles", {13, 1, 1, 0, 1, 5000, 64, 3}, 0, ATTN_PATH_IN_PLACE, 1, 3},
    {"packed heads of 8192 keys", {1, 1, 1, 3, 1, 8192, 64, 2}, 0, ATTN_PATH_PACK_ALL, 2, 2},
    /* Caches. */
    {"a cache", {1, 4, 1, 0, 1, 1000, 64, 1}, ATTN_USE_CACHE, ATTN_PATH_CACHED, 1, 1},
    {"a cache, many rows", {1, 4, 1, 9, 0, 1000, 64, 1}, ATTN_USE_CACHE | ATTN_USE_ROTARY, ATTN_PATH_CACHED, 1, 1},
    {"a cache, types", {1, 4, 1, 0, 1, 1000, 64, 1}, ATTN_USE_CACHE | ATTN_USE_TYPES, ATTN_PATH_CACHED, 1, 1},
    {"a long cache", {1, 1, 1, 0, 1, 20000, 64, 3}, ATTN_USE_CACHE, ATTN_PATH_CACHED, 5, 3},
};

static void check_paths(const struct attn_kernels *table) {
    for (size_t i = 0; i < sizeof path_table / sizeof *path_table; i++) {
        const struct path_row *row = &path_table[i];
        /* 4 rows are few for every product but scalar's, whose GEMM tile has one row. */
        if (rows_at_once(table) == 1 && row->shape.more == 4 && row->path == ATTN_PATH_IN_PLACE)
            continue;
        struct planned p;
        make(&p, table, &row->shape, row->uses);
        const struct attn_plan *plan = &p.problem.plan;
        test_case("%s: %s", attn_isa_name(table->isa), row->what);
        assert_string_equal(attn_path_name(row->path), attn_path_name(plan->path));
        assert_int_equal(row->uses, plan->uses);
        assert_int_equal(row->spans, plan->spans);
        assert_int_equal(row->tasks, plan->tasks);
    }
}

static void test_paths(void **state) {
    (void)state;
    for_each_table(check_paths);
}

/* Whether rows of 16 bits are read in place: on x86, of BF16 more than two only where the ISA that packs for them has
 * the kernel. */
static bool types_in_place(const struct attn_kernels *table, attn_type k, size_t rows,
                           const struct attn_decode_kernel *of_one_row) {
    bool x86 = table->isa >= ATTN_ISA_AVX2 && table->isa <= ATTN_ISA_AMX;
    bool lower = k == ATTN_BF16 && (table->isa == ATTN_ISA_AVX512 || table->isa == ATTN_ISA_AVX512_VNNI);
    return x86 && rows <= (lower ? 2 : of_one_row->rows_in_place);
}

/* Keys and values are read in place where a kernel reads their type: of 16 bits by the rows that a decode kernel takes,
 * if that does so in place. */
static void check_types_in_place(const struct attn_kernels *table) {
    static const attn_type types[] = {ATTN_F32, ATTN_F16, ATTN_BF16};
    for (size_t i = 0; i < 9 * 16; i++) {
        attn_type k = types[i % 3];
        enum attn_class arithmetic = k == ATTN_BF16 ? ATTN_CLASS_BF16 : ATTN_CLASS_F32;
        const struct attn_gemm_kernel *gemm = attn_gemm_find(table, arithmetic);
        size_t rows = 1 + i / 9;
        const struct attn_decode_kernel *decode = attn_decode_in_place(table, gemm, k, rows);
        struct planned p;
        begin(&p, table, &(struct shape){1, 4, 1, 0, rows, 1000, 64, 1});
        p.problem.q.type = types[i / 3 % 3];
        p.problem.k.type = p.problem.v.type = k;
        p.problem.stored = k == ATTN_BF16 ? ATTN_BF16 : ATTN_F32;
        p.problem.arithmetic = ATTN_ARITHMETIC_PORTABLE;
        assert_true(attn_plan_make(&p.problem));
        test_case("%s: %zu rows of type %d, keys of type %d", attn_isa_name(table->isa), rows, (int)p.problem.q.type,
                  (int)k);
        bool of_floats = k == ATTN_F32 && rows <= attn_tuning_for(table->isa)->in_place_tiles * gemm->rows;
        assert_int_equal(of_floats || decode, p.problem.plan.path == ATTN_PATH_IN_PLACE);
        assert_true(!decode || p.problem.plan.decode == decode);
        if (k != ATTN_F32)
            assert_int_equal(decode != NULL, types_in_place(table, k, rows, attn_decode_in_place(table, gemm, k, 1)));
    }
}

static void test_types_in_place(void **state) {
    (void)state;
    for_each_table(check_types_in_place);
}

/* A ring is never cut into spans, for where its keys lie depends on how many came before. */
static void check_ring(const struct attn_kernels *table) {
    struct planned p;
    make(&p, table, &(struct shape){1, 1, 1, 0, 1, 20000, 64, 3}, ATTN_USE_CACHE);
    p.cache.store.kind = ATTN_KV_RING;
    assert_true(attn_plan_make(&p.problem));
    assert_int_equal(1, p.problem.plan.spans);
    assert_int_equal(0, p.problem.plan.partials);
}

static void test_ring(void **state) {
    (void)state;
    for_each_table(check_ring);
}

/* Rows of values that follow each other, fill registers, and are short enough; not with types, for they must be
 * converted. */
static void check_values_in_place(const struct attn_kernels *table) {
    struct planned p;
    size_t most = attn_tuning_for(table->isa)->in_place_value_size;
    begin(&p, table, &(struct shape){1, 4, 1, 3, 1, 1000, 128, 1});
    p.problem.v.row_stride = p.problem.value_size;
    assert_true(attn_plan_make(&p.problem));
    assert_int_equal(most >= 128, p.problem.plan.values_in_place);
    p.problem.q.type = ATTN_BF16;
    assert_true(attn_plan_make(&p.problem));
    assert_false(p.problem.plan.values_in_place);
    p.problem.q.type = ATTN_F32;
    p.problem.v.row_stride++;
    assert_true(attn_plan_make(&p.problem));
    assert_false(p.problem.plan.values_in_place);
    const size_t sizes[] = {most + ATTN_LANES, 120};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        p.problem.value_size = p.problem.v.row_stride = sizes[i];
        assert_true(attn_plan_make(&p.problem));
        assert_false(p.problem.plan.values_in_place);
    }
}

static void test_values_in_place(void **state) {
    (void)state;
    for_each_table(check_values_in_place);
}

/* ---- What a path supports ---- */

static const struct {
    struct shape shape;
    uint32_t uses; /* without them the plan has another path */
} of_path[ATTN_PATHS] = {
    [ATTN_PATH_SMALL] = {{1, 1, 1, 0, 4, 32, 64, 1}, 0},
    [ATTN_PATH_CACHED] = {{1, 1, 1, 0, 4, 1000, 64, 1}, ATTN_USE_CACHE},
    [ATTN_PATH_IN_PLACE] = {{1, 1, 1, 1, 0, 1000, 64, 1}, 0},
    [ATTN_PATH_STREAMED] = {{1, 1, 1, 1, 0, 1000, 64, 1}, ATTN_USE_ROTARY},
    [ATTN_PATH_PACK_HEAD] = {{1, 1, 1, 9, 0, 1000, 64, 1}, 0},
    [ATTN_PATH_PACK_ALL] = {{1, 2, 1, 9, 0, 3000, 64, 3}, 0},
};

/* The path for few keys supports only these uses, because its kernel knows no others. */
static void test_few_keys_support_little(void **state) {
    (void)state;
    assert_int_equal(ATTN_USE_VALID_PER_SEQUENCE | ATTN_USE_VALID_PER_ROW | ATTN_USE_CAUSAL | ATTN_USE_WINDOW_RIGHT |
                         ATTN_USE_PACKED_ROWS | ATTN_USE_PACKED_KEYS | ATTN_USE_TYPES,
                     attn_path_supports(ATTN_PATH_SMALL));
}

/* Few keys of any types take that path, but for class BF16 on Arm and class BF16_TILE. */
static void check_small_types(const struct attn_kernels *table) {
    static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    bool arm = table->isa == ATTN_ISA_NEON || table->isa == ATTN_ISA_NEON_DOT || table->isa == ATTN_ISA_NEON_MM ||
               table->isa == ATTN_ISA_SVE256;
    for (size_t i = 0; i < 54; i++) {
        attn_type kv = types[i / 9 % 3];
        struct planned p;
        begin(&p, table, &of_path[ATTN_PATH_SMALL].shape);
        p.problem.q.type = types[i % 3];
        p.problem.o.type = types[i / 3 % 3];
        p.problem.k.type = p.problem.v.type = kv;
        p.problem.stored = kv == ATTN_BF16 ? ATTN_BF16 : ATTN_F32;
        p.problem.arithmetic = i < 27 ? ATTN_ARITHMETIC_FASTEST : ATTN_ARITHMETIC_PORTABLE;
        bool tiles = table->isa == ATTN_ISA_AMX && p.problem.arithmetic == ATTN_ARITHMETIC_FASTEST;
        assert_true(attn_plan_make(&p.problem));
        test_case("%s: q of type %d, k and v %d, o %d", attn_isa_name(table->isa), (int)p.problem.q.type, (int)kv,
                  (int)p.problem.o.type);
        assert_int_equal(kv != ATTN_BF16 || !(arm || tiles), p.problem.plan.path == ATTN_PATH_SMALL);
        assert_int_equal(kv != ATTN_BF16 ? ATTN_CLASS_F32
                         : tiles         ? ATTN_CLASS_BF16_TILE
                                         : ATTN_CLASS_BF16,
                         p.problem.plan.arithmetic);
    }
}

static void test_few_keys_of_any_type(void **state) {
    (void)state;
    for_each_table(check_small_types);
}

static bool is_general(enum attn_path path) {
    return path == ATTN_PATH_CACHED || path == ATTN_PATH_PACK_HEAD || path == ATTN_PATH_PACK_ALL;
}

/* Every bit leads away from a path that does not support it, and leaves one that does. */
static void check_supports(const struct attn_kernels *table) {
    for (int i = 0; i < ATTN_PATHS; i++) {
        enum attn_path path = (enum attn_path)i;
        struct planned p;
        make(&p, table, &of_path[i].shape, of_path[i].uses);
        test_case("%s: %s", attn_isa_name(table->isa), attn_path_name(path));
        assert_string_equal(attn_path_name(path), attn_path_name(p.problem.plan.path));
        for (uint32_t bit = 1; bit < (uint32_t)1 << ATTN_USE_COUNT; bit <<= 1) {
            bool supported = attn_path_supports(path) & bit;
            if (path == ATTN_PATH_IN_PLACE && bit == ATTN_USE_ROTARY)
                assert_false(supported);
            if (is_general(path) && bit != ATTN_USE_CACHE && !supported)
                test_fail("a general path supports every option: bit %x", bit);
            make(&p, table, &of_path[i].shape, of_path[i].uses | bit);
            test_case("%s: %s and bit %x", attn_isa_name(table->isa), attn_path_name(path), bit);
            assert_int_equal(supported, p.problem.plan.path == path);
        }
    }
}

static void test_supports(void **state) {
    (void)state;
    for_each_table(check_supports);
}

/* ---- Room ---- */

static struct shape random_shape(struct test_random *random) {
    return (struct shape){.batch = random_between(random, 1, 8),
                          .kv_heads = random_between(random, 1, 8),
                          .group = random_between(random, 1, 4),
                          .tiles = random_below(random, 5),
                          .more = random_between(random, 1, 5),
                          .kv_len = random_below(random, random_below(random, 2) ? 100 : 20000),
                          .head_size = random_between(random, 1, 200),
                          .threads = random_between(random, 1, 9)};
}

static void check_room(const struct attn_kernels *table) {
    struct test_random random = test_random(__func__);
    for (int i = 0; i < 20000; i++) {
        struct shape s = random_shape(&random);
        struct planned p;
        uint32_t uses =
            random_below(&random, 2) ? 0 : (uint32_t)random_bits(&random) & (((uint32_t)1 << ATTN_USE_COUNT) - 1);
        make(&p, table, &s, uses);
        const struct attn_plan *plan = &p.problem.plan;
        size_t heads = s.batch * s.kv_heads;
        test_case("%s: %zu x %zu heads, group %zu, %zu rows, %zu keys of %zu, %zu threads, uses %x: %s",
                  attn_isa_name(table->isa), s.batch, s.kv_heads, s.group, p.problem.q_len, s.kv_len, s.head_size,
                  s.threads, uses, attn_path_name(plan->path));
        assert_true(plan->tasks >= 1 && plan->tasks <= s.threads);
        assert_true(plan->scratches >= plan->tasks);
        assert_int_equal(plan->path == ATTN_PATH_SMALL      ? 0
                         : plan->path == ATTN_PATH_STREAMED ? 1
                                                            : ATTN_MOST_BLOCKS,
                         plan->blocks);
        assert_true(plan->workspace_bytes >= plan->scratches * plan->scratch_bytes);
        assert_true(plan->spans == 1 || (plan->tasks > 1 && plan->partials >= heads * plan->tiles * plan->spans));
        if (plan->path == ATTN_PATH_PACK_ALL)
            assert_true(plan->tasks > 1 && plan->packed_heads == heads);
        if (plan->path == ATTN_PATH_PACK_HEAD)
            assert_true(plan->spans == 1 && plan->packed_heads >= plan->tasks);
        if (plan->path != ATTN_PATH_SMALL)
            assert_true(plan->tiles * plan->tile_rows >= p.problem.q_len * s.group && plan->tile_rows <= ATTN_MAX_ROWS);
    }
}

static void test_room(void **state) {
    (void)state;
    for_each_table(check_room);
}

/* Fewer sequences, and every other time fewer rows, or keys. */
static struct shape smaller(struct test_random *random, const struct attn_kernels *table, struct shape s) {
    size_t rows = s.tiles * rows_at_once(table) + s.more;
    s.batch = random_between(random, 1, s.batch);
    s.kv_len = random_below(random, 2) ? s.kv_len : random_below(random, s.kv_len + 1);
    if (random_below(random, 2)) {
        s.tiles = 0;
        s.more = random_between(random, 1, rows);
    }
    return s;
}

/* Of tensors, or over a cache of `kv`'s type. */
static size_t workspace_of(const struct attn_kernels *table, const struct shape *s, uint32_t uses, attn_type q,
                           attn_type kv) {
    struct planned p;
    begin(&p, table, s);
    p.problem.q.type = q;
    p.problem.k.type = p.problem.v.type = kv;
    p.problem.stored = kv == ATTN_BF16 ? ATTN_BF16 : ATTN_F32;
    for (uint32_t bit = 1; bit < (uint32_t)1 << ATTN_USE_COUNT; bit <<= 1)
        if (uses & bit)
            use(&p, bit);
    assert_true(attn_plan_make(&p.problem));
    return p.problem.plan.workspace_bytes;
}

/* What attn.h says of a workspace: it also serves smaller batches and lengths. */
static void check_smaller(const struct attn_kernels *table) {
    static const attn_type types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < (test_quick() ? 3000 : 30000); i++) {
        struct shape s = random_shape(&random), fewer;
        attn_type q = types[random_below(&random, 3)], kv = types[random_below(&random, 3)];
        uint32_t uses = random_below(&random, 2) ? 0 : (uint32_t)random_bits(&random);
        uses &= random_below(&random, 2) ? ATTN_USE_CAUSAL | ATTN_USE_CACHE : ((uint32_t)1 << ATTN_USE_COUNT) - 1;
        fewer = smaller(&random, table, s);
        test_case("%s: %zu x %zu heads, group %zu, %zu tiles and %zu rows, %zu keys of %zu, %zu threads, q of type %d, "
                  "kv %d, uses %x; then %zu, %zu and %zu, %zu",
                  attn_isa_name(table->isa), s.batch, s.kv_heads, s.group, s.tiles, s.more, s.kv_len, s.head_size,
                  s.threads, (int)q, (int)kv, uses, fewer.batch, fewer.tiles, fewer.more, fewer.kv_len);
        assert_in_range(workspace_of(table, &fewer, uses, q, kv), 0, workspace_of(table, &s, uses, q, kv));
    }
}

static void test_smaller(void **state) {
    (void)state;
    for_each_table(check_smaller);
    for (int isa = ATTN_ISA_SCALAR; isa < ATTN_ISA_COUNT; isa++)
        if (attn_table_on((attn_isa)isa, true) != attn_table((attn_isa)isa))
            check_smaller(attn_table_on((attn_isa)isa, true));
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uses),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_class),
        cmocka_unit_test(test_every_option_is_known),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_values_in_place),
        cmocka_unit_test(test_types_in_place),
        cmocka_unit_test(test_few_keys_support_little),
        cmocka_unit_test(test_few_keys_of_any_type),
        cmocka_unit_test(test_supports),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_smaller),
    };
    return test_run(tests);
}
