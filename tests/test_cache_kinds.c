/* Caches whose sequences have lengths of their own, rings, pages and forks: attention over each is attention over the
 * keys that it should hold, given as tensors, bit by bit. */
#include "cache_model.h"
#include "typed.h"

static size_t sweep(size_t full, size_t quick) {
    return test_quick() ? quick : full;
}

static enum flush random_flush(struct test_random *random) {
    return random_below(random, 2) ? FLUSH_END : FLUSH_START;
}

/* Totals around the borders of panels and blocks. */
static size_t random_total(struct test_random *random, size_t index) {
    return index % 5 == 4 ? random_between(random, 240, 530) : random_between(random, 1, 90);
}

/* Few rows multiply several blocks of values in one product, which rescales its sums at every border of a block.
 * Logits grow from key to key, so that every factor counts; segments end at the borders of blocks, or between them. */
static void check_growing_logits(struct test_random *random, attn_type type, size_t page_size, int ring, size_t rows) {
    enum { KEYS = 720, SIZE = 8 };
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 1, .head_size = SIZE, .capacity = KEYS};
    config.type = type;
    struct tensor q = tensor_random(random, TEST_UNIFORM, LAYOUT_BHSD, 1, 1, rows, SIZE, FLUSH_END);
    struct tensor k = tensor_random(random, TEST_UNIFORM, LAYOUT_BHSD, 1, 1, KEYS, SIZE, FLUSH_END);
    struct tensor v = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, 1, 1, KEYS, SIZE, FLUSH_END);
    void *memory, *given[2];
    for (size_t i = 0; i < rows; i++)
        tensor_row(&q, 0, 0, i)[0] = 1.0f;
    for (size_t j = 0; j < KEYS; j++)
        tensor_row(&k, 0, 0, j)[0] = (float)j / 16;
    config.kind = page_size ? ATTN_CACHE_PAGED : ring ? ATTN_CACHE_RING : ATTN_CACHE_PLAIN;
    if (page_size) {
        config.page_size = page_size;
        config.pages = (KEYS + page_size - 1) / page_size;
        config.capacity = config.pages * page_size;
    }
    tensor_round(&k, type);
    tensor_round(&v, type);
    test_case("type=%d page_size=%zu ring=%d rows=%zu", (int)type, page_size, ring, rows);
    attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
    for (size_t page = 0; page < config.pages; page++) /* none follows another */
        assert_ok(attn_cache_set_pages(cache, 0, page, 1, &(int32_t){(int32_t)(config.pages - 1 - page)}, NULL));
    cache_append(cache, KEYS, tensor_in(&k), tensor_in(&v), NULL);
    attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = 1, .q_len = rows, .kv_len = KEYS};
    args.head_size = SIZE;
    args.q = tensor_in(&q);
    args.k = typed_input(&k, type, FLUSH_END, &given[0]);
    args.v = typed_input(&v, type, FLUSH_END, &given[1]);
    struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    guarded_free(given[0]);
    guarded_free(given[1]);
    args.cache = cache;
    struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    assert_same_result(&expected, &actual);
    attention_free(&expected);
    attention_free(&actual);
    guarded_free(memory);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
}

static void test_growing_logits(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t sizes[] = {0, 16, 32, 48, 64, 80, 160, 256, 272};
    static const attn_type types[] = {ATTN_F32, ATTN_BF16};
    for (size_t i = 0; i < 6; i++) {
        attn_type type = types[i % 2];
        size_t rows = 1 + i / 2;
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
            check_growing_logits(&random, type, sizes[j], 0, rows);
        check_growing_logits(&random, type, 0, 1, rows);
    }
}

/* ---- Sequences of different lengths ---- */

static void test_ragged(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 12); i++) {
        size_t total = random_total(&random, i);
        struct model m = model_new(&random, random_cache_type(&random), random_between(&random, 1, MODEL_BATCH), total);
        attn_cache_config config = model_config(&m, total);
        void *memory;
        attn_cache *cache = cache_create(&config, &memory, random_flush(&random));
        for (size_t step = 0; step < 6; step++) {
            model_append_some(&random, &m, cache, 1 + total / (1 + random_below(&random, 6)));
            model_compare(&random, &m, cache);
        }
        guarded_free(memory);
        model_free(&m);
    }
}

/* Rejected speculation: one sequence forgets keys, NaN among them, and is given others. */
static void test_truncate_one_sequence(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 12); i++) {
        size_t total = random_total(&random, i);
        struct model m = model_new(&random, random_cache_type(&random), random_between(&random, 1, MODEL_BATCH), total);
        attn_cache_config config = model_config(&m, total);
        void *memory;
        attn_cache *cache = cache_create(&config, &memory, random_flush(&random));
        for (size_t step = 0; step < 6; step++) {
            size_t b = random_below(&random, m.batch), rejected[MODEL_BATCH] = {0};
            model_append_some(&random, &m, cache, total / 2);
            size_t kept = random_below(&random, m.lens[b] + 1);
            rejected[b] = random_below(&random, total - m.lens[b] + 1);
            model_append(&random, &m, cache, TEST_WILD, rejected);
            model_truncate(&m, cache, b, kept);
            model_compare(&random, &m, cache);
        }
        model_truncate(&m, cache, ATTN_ALL_SEQUENCES, random_below(&random, model_longest(&m) + 1));
        model_compare(&random, &m, cache);
        guarded_free(memory);
        model_free(&m);
    }
}

/* ---- Rings ---- */

static void test_ring(void **state) {
    (void)state;
    static const size_t capacities[] = {16, 1, 17, 31, 32, 33, 100, 255, 256, 260};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(70, 14); i++) {
        size_t capacity = capacities[i % (sizeof capacities / sizeof *capacities)];
        size_t total = capacity * random_between(&random, 1, 5) + random_below(&random, 40);
        struct model m = model_new(&random, random_cache_type(&random), random_between(&random, 1, MODEL_BATCH), total);
        attn_cache_config config = model_config(&m, capacity);
        void *memory;
        config.kind = ATTN_CACHE_RING;
        attn_cache *cache = cache_create(&config, &memory, random_flush(&random));
        for (size_t step = 0; step < 8; step++) {
            model_append_some(&random, &m, cache, capacity);
            model_forget(&m, capacity);
            model_compare(&random, &m, cache);
        }
        guarded_free(memory);
        model_free(&m);
    }
}

/* Keys that were overwritten stay hidden when the keys that overwrote them are forgotten. */
static void test_ring_truncated(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(40, 8); i++) {
        size_t capacity = random_between(&random, 1, 70), total = 4 * capacity;
        struct model m = model_new(&random, random_cache_type(&random), 2, total);
        attn_cache_config config = model_config(&m, capacity);
        void *memory;
        config.kind = ATTN_CACHE_RING;
        attn_cache *cache = cache_create(&config, &memory, FLUSH_END);
        for (size_t step = 0; step < 8; step++) {
            size_t b = random_below(&random, 2);
            model_append_some(&random, &m, cache, capacity);
            model_forget(&m, capacity);
            if (m.gone[b])
                assert_status(ATTN_BAD_SIZE, attn_cache_truncate(cache, b, m.gone[b] - 1, NULL));
            model_truncate(&m, cache, b, random_between(&random, m.gone[b], m.lens[b]));
            model_compare(&random, &m, cache);
        }
        guarded_free(memory);
        model_free(&m);
    }
}

/* ---- Pages ---- */

/* A cache of pages, and which of them nobody has. */
struct paged {
    attn_cache_config config;
    attn_cache *cache;
    void *memory;
    int32_t *spare;
    size_t spares;
};

static struct paged paged_new(struct test_random *random, const struct model *m, size_t page_size, size_t extra) {
    size_t per_sequence = (m->most + page_size - 1) / page_size;
    struct paged p = {.config = model_config(m, per_sequence * page_size)};
    p.config.kind = ATTN_CACHE_PAGED;
    p.config.page_size = page_size;
    p.config.pages = p.spares = m->batch * per_sequence + extra;
    p.cache = cache_create(&p.config, &p.memory, random_flush(random));
    p.spare = guarded_alloc(p.spares * sizeof *p.spare, sizeof *p.spare, FLUSH_END);
    for (size_t i = 0; i < p.spares; i++) {
        size_t j = random_below(random, i + 1);
        p.spare[i] = p.spare[j];
        p.spare[j] = (int32_t)i;
    }
    return p;
}

static void paged_free(struct paged *p) {
    guarded_free(p->spare);
    guarded_free(p->memory);
}

/* Pages first .. first + count - 1 of a sequence become spare ones. */
static void give_pages(struct test_random *random, struct paged *p, size_t sequence, size_t first, size_t count) {
    while (count > 0) {
        size_t piece = random_between(random, 1, count);
        assert_in_range(p->spares, piece, p->config.pages);
        p->spares -= piece;
        assert_ok(attn_cache_set_pages(p->cache, sequence, first, piece, p->spare + p->spares, NULL));
        first += piece;
        count -= piece;
    }
}

static void give_all_pages(struct test_random *random, struct paged *p) {
    for (size_t b = 0; b < p->config.batch; b++)
        give_pages(random, p, b, 0, p->config.capacity / p->config.page_size);
}

static const size_t page_sizes[] = {16, 32, 64, 256, 48};
#define PAGE_SIZES (sizeof page_sizes / sizeof *page_sizes)

static void test_pages(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 15); i++) {
        size_t total = i % 3 ? random_total(&random, i) : random_between(&random, 300, 700);
        struct model m = model_new(&random, random_cache_type(&random), random_between(&random, 1, MODEL_BATCH), total);
        struct paged p = paged_new(&random, &m, page_sizes[i % PAGE_SIZES], random_below(&random, 5));
        give_all_pages(&random, &p);
        for (size_t step = 0; step < 5; step++) {
            size_t b = random_below(&random, m.batch);
            model_append_some(&random, &m, p.cache, 1 + total / 2);
            model_compare(&random, &m, p.cache);
            model_truncate(&m, p.cache, b, random_below(&random, m.lens[b] + 1));
        }
        paged_free(&p);
        model_free(&m);
    }
}

/* Pages are given no sooner than they are needed, and a sequence that ends leaves its pages to the next. */
static void test_pages_on_demand(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(30, 6); i++) {
        size_t page_size = page_sizes[i % 3], total = 6 * page_size;
        struct model m = model_new(&random, random_cache_type(&random), 2, total);
        struct paged p = paged_new(&random, &m, page_size, 0);
        for (size_t page = 0; page < 3; page++) {
            size_t lens[MODEL_BATCH] = {random_between(&random, 1, page_size), page_size};
            lens[0] = m.lens[0] + lens[0] > (page + 1) * page_size ? 0 : lens[0];
            give_pages(&random, &p, 0, page, 1);
            give_pages(&random, &p, 1, page, 1);
            model_append(&random, &m, p.cache, TEST_NORMAL, lens);
            model_compare(&random, &m, p.cache);
        }
        model_truncate(&m, p.cache, 0, 0);
        give_pages(&random, &p, 0, 0, 6);
        model_append_some(&random, &m, p.cache, 0);
        model_append(&random, &m, p.cache, TEST_NORMAL, (size_t[MODEL_BATCH]){6 * page_size, 0});
        model_compare(&random, &m, p.cache);
        paged_free(&p);
        model_free(&m);
    }
}

/* Sequence 0 writes a prefix, and the others take over its pages. */
static void share_prefix(struct test_random *random, struct model *m, struct paged *p, size_t pages, size_t len) {
    size_t lens[MODEL_BATCH] = {len};
    const int32_t *prefix = p->spare + (p->spares -= pages);
    assert_ok(attn_cache_set_pages(p->cache, 0, 0, pages, prefix, NULL));
    model_append(random, m, p->cache, TEST_NORMAL, lens);
    for (size_t b = 1; b < m->batch; b++) {
        assert_ok(attn_cache_set_pages(p->cache, b, 0, pages, prefix, NULL));
        assert_ok(attn_cache_adopt(p->cache, b, len, NULL));
        m->lens[b] = len;
        for (size_t h = 0; h < m->kv_heads; h++) {
            memcpy(tensor_row(&m->k, b, h, 0), tensor_row(&m->k, 0, h, 0), len * m->head_size * sizeof(float));
            memcpy(tensor_row(&m->v, b, h, 0), tensor_row(&m->v, 0, h, 0), len * m->value_size * sizeof(float));
        }
    }
}

/* After full pages each sequence goes on by itself. */
static void test_shared_pages(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(40, 10); i++) {
        size_t page_size = page_sizes[i % PAGE_SIZES], shared = random_between(&random, 1, 3);
        size_t cut = i % 4 ? 0 : random_below(&random, page_size);
        struct model m =
            model_new(&random, random_cache_type(&random), random_between(&random, 2, MODEL_BATCH), 6 * page_size);
        struct paged p = paged_new(&random, &m, page_size, 0);
        for (size_t b = 1; b < m.batch; b++) /* sequences that share a prompt share its offset */
            m.offsets[b] = m.offsets[0];
        share_prefix(&random, &m, &p, shared, shared * page_size - cut);
        model_compare(&random, &m, p.cache);
        for (size_t b = 0; b < m.batch && cut == 0; b++)
            give_pages(&random, &p, b, shared, 6 - shared);
        for (size_t step = 0; step < 3 && cut == 0; step++) {
            model_append_some(&random, &m, p.cache, 2 * page_size);
            model_compare(&random, &m, p.cache);
        }
        paged_free(&p);
        model_free(&m);
    }
}

/* ---- Forks ---- */

struct fork {
    struct model m;
    attn_cache *cache;
    void *memory;
};

static attn_cache *fork_create(struct test_random *random, const attn_cache_fork_config *config, void **memory) {
    attn_cache *cache = NULL;
    attn_error error = {.field = "none"};
    size_t bytes = 0;
    assert_ok(attn_cache_fork_size(config, &bytes, &error));
    *memory = poisoned_alloc(bytes, random_flush(random));
    assert_ok(attn_cache_fork(config, *memory, bytes, &cache, &error));
    assert_string_equal("none", error.field);
    return cache;
}

static void fork_free(struct fork *fork) {
    guarded_free(fork->memory);
    model_free(&fork->m);
}

/* Rejected speculation: keys, NaN among them, that are forgotten at once. */
static void speculate(struct test_random *random, struct family *family, size_t member) {
    const struct model *m = &family->member[member].model;
    size_t lens[MODEL_BATCH] = {0}, b = random_below(random, m->batch), before = m->lens[b];
    lens[b] = random_below(random, m->room[b] - before + 1);
    family_append(random, family, member, TEST_WILD, lens);
    family_truncate(random, family, member, b, before);
}

static void change_at_random(struct test_random *random, struct family *family, size_t member) {
    switch (random_below(random, 5)) {
    case 0:
    case 1:
        family_truncate_some(random, family, member);
        break;
    case 2:
        speculate(random, family, member);
        break;
    default:
        family_append_some(random, family, member, 50);
    }
}

/* Forks of forks; every member of the family goes on appending and forgetting, also what it shares. */
static void test_forks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(60, 8); i++) {
        struct family family = family_new(&random, i % 8 == 7 ? 600 : 150);
        family_append_some(&random, &family, 0, i % 8 == 7 ? 500 : 120);
        while (family.count < FAMILY) {
            size_t member = family_fork(&random, &family, random_below(&random, family.count));
            change_at_random(&random, &family, member);
            change_at_random(&random, &family, random_below(&random, family.count));
        }
        for (size_t step = 0; step < 4; step++)
            change_at_random(&random, &family, random_below(&random, FAMILY));
        family_free(&family);
    }
}

/* Attention without masks over all keys of a fork, for few rows and for many. */
static void check_all_keys(struct test_random *random, const struct fork *fork) {
    static const size_t q_lens[] = {1, 2, MODEL_ROWS};
    const struct model *m = &fork->m;
    for (size_t i = 0; i < sizeof q_lens / sizeof *q_lens; i++) {
        attn_attention_args args = {.isa = test_isa(), .batch = 1, .heads = m->heads, .kv_heads = m->kv_heads};
        struct tensor q =
            tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, 1, m->heads, q_lens[i], m->head_size, FLUSH_END);
        args.q_len = q_lens[i];
        args.kv_len = m->lens[0];
        args.head_size = m->head_size;
        args.value_size = m->value_size;
        args.q = tensor_in(&q);
        void *memory[2];
        attn_type type = is_widened_type(m->type) ? ATTN_F32 : m->type;
        args.k = typed_input(&m->k, type, FLUSH_END, &memory[0]);
        args.v = typed_input(&m->v, type, FLUSH_END, &memory[1]);
        struct attention_result expected = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        guarded_free(memory[0]);
        guarded_free(memory[1]);
        args.cache = fork->cache;
        struct attention_result actual = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
        assert_same_result(&expected, &actual);
        attention_free(&expected);
        attention_free(&actual);
        tensor_free(&q);
    }
}

/* A chain of forks in one piece of memory, each above its parent or each below. Some share fewer keys than their
 * parent does, some more, and each has keys of its own behind them. A fork's shared keys end where the first of its
 * ancestors has keys of its own, wherever the ancestors lie. */
static void check_chain(struct test_random *random, attn_type type, int downwards) {
    enum { CHAIN = 5, KEYS = 160 };
    static const size_t shared[CHAIN] = {0, 40, 100, 70, 33};
    struct fork chain[CHAIN];
    attn_cache_config config;
    size_t slot = 0, all[MODEL_BATCH];
    char *memory = NULL;
    for (size_t i = 0; i < CHAIN; i++) {
        attn_error error = {.field = "none"};
        attn_cache_fork_config fork = {.batch = 1, .len = shared[i], .capacity = KEYS};
        size_t place = downwards ? CHAIN - 1 - i : i, bytes;
        test_case("fork %zu of a chain, %s", i, downwards ? "each below its parent" : "each above its parent");
        if (i == 0) {
            chain[i].m = model_new(random, type, 1, KEYS);
            chain[i].m.rotary = NULL;
            config = model_config(&chain[i].m, 2 * KEYS); /* what is larger than any fork */
            assert_ok(attn_cache_size(&config, &slot, &error));
            memory = poisoned_alloc(CHAIN * slot, FLUSH_END);
            config.capacity = KEYS;
            assert_ok(attn_cache_create(&config, memory + place * slot, slot, &chain[i].cache, &error));
        } else {
            fork.parent = chain[i - 1].cache;
            chain[i].m = model_continue(&chain[i - 1].m, 1, NULL, shared[i], KEYS);
            assert_ok(attn_cache_fork_size(&fork, &bytes, &error));
            assert_in_range(bytes, 1, slot);
            assert_ok(attn_cache_fork(&fork, memory + place * slot, slot, &chain[i].cache, &error));
        }
        all[0] = KEYS - shared[i];
        model_append(random, &chain[i].m, chain[i].cache, TEST_NORMAL, all);
        check_all_keys(random, &chain[i]);
    }
    for (size_t i = CHAIN; i-- > 0;) {
        check_all_keys(random, &chain[i]);
        model_free(&chain[i].m);
    }
    guarded_free(memory);
}

static void test_chain_of_forks(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(8, 2); i++)
        for (size_t type = 0; type < CACHE_TYPES; type++)
            check_chain(&random, cache_types[type], (int)(i % 2));
}

/* Two forks of one parent. The first is truncated to any length that it shares, takes as many new keys as it was
 * made for, which go past the border of what it shared, and does both once more. */
static void test_fork_truncated_to_every_length(void **state) {
    (void)state;
    enum { LEN = 70, CAPACITY = LEN + 45 };
    struct test_random random = test_random(__func__);
    for (size_t i = 0, len = 0; len <= LEN;
         i++, len += test_quick() ? random_between(&random, 1, 5) : i % CACHE_TYPES == 0) {
        struct fork parent = {.m = model_new(&random, cache_types[i % CACHE_TYPES], 1, LEN)}, forks[2];
        attn_cache_config config = model_config(&parent.m, LEN);
        size_t all[MODEL_BATCH] = {LEN}, more[MODEL_BATCH] = {CAPACITY - LEN};
        attn_cache_fork_config fork = {.batch = 1, .len = LEN, .capacity = CAPACITY};
        fork.parent = parent.cache = cache_create(&config, &parent.memory, FLUSH_END);
        model_append(&random, &parent.m, parent.cache, TEST_NORMAL, all);
        for (size_t f = 0; f < 2; f++) {
            forks[f].m = model_continue(&parent.m, 1, NULL, LEN, CAPACITY);
            forks[f].cache = fork_create(&random, &fork, &forks[f].memory);
        }
        for (size_t turn = 0; turn < 2; turn++) {
            test_case("to %zu, turn %zu", len, turn);
            model_truncate(&forks[0].m, forks[0].cache, 0, len);
            model_compare(&random, &forks[0].m, forks[0].cache);
            model_append(&random, &forks[0].m, forks[0].cache, TEST_NORMAL, more);
            model_compare(&random, &forks[0].m, forks[0].cache);
            model_compare(&random, &parent.m, parent.cache);
            model_compare(&random, &forks[1].m, forks[1].cache);
        }
        fork_free(&forks[0]);
        fork_free(&forks[1]);
        fork_free(&parent);
    }
}

/* A fork refuses keys beyond its capacity, or beyond the room that is left, and stays as it is. */
static void test_full_forks(void **state) {
    (void)state;
    enum { LEN = 100, CAPACITY = 150 };
    struct test_random random = test_random(__func__);
    struct fork parent = {.m = model_new(&random, random_cache_type(&random), 1, LEN)},
                child = {.m = model_continue(&parent.m, 1, NULL, 0, CAPACITY)};
    attn_cache_config config = model_config(&parent.m, LEN);
    size_t all[MODEL_BATCH] = {LEN};
    attn_cache_fork_config fork = {.batch = 1, .len = LEN, .capacity = CAPACITY};
    fork.parent = parent.cache = cache_create(&config, &parent.memory, FLUSH_END);
    model_append(&random, &parent.m, parent.cache, TEST_NORMAL, all);
    model_free(&child.m);
    for (size_t len = 0; len <= LEN; len += 20) {
        child.m = model_continue(&parent.m, 1, NULL, LEN, CAPACITY);
        child.cache = fork_create(&random, &fork, &child.memory);
        model_truncate(&child.m, child.cache, 0, len);
        attn_cache_append_args args = {.len = CAPACITY - len + 1};
        struct tensor x = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, child.m.kv_heads, args.len,
                                        child.m.head_size + child.m.value_size, FLUSH_END);
        args.k = args.v = tensor_in(&x);
        attn_error error = {.field = "none"};
        assert_status(ATTN_TOO_SMALL, attn_cache_append(child.cache, &args, &error));
        assert_string_equal("len", error.field);
        model_compare(&random, &child.m, child.cache);
        args.len = CAPACITY - len; /* there may be memory for it */
        if (attn_cache_append(child.cache, &args, &error) == ATTN_OK)
            assert_ok(attn_cache_truncate(child.cache, 0, len, NULL));
        else
            assert_in_range(len, 0, LEN - 1);
        tensor_free(&x);
        model_append(&random, &child.m, child.cache, TEST_NORMAL, (size_t[MODEL_BATCH]){CAPACITY - LEN});
        model_compare(&random, &child.m, child.cache);
        fork_free(&child);
    }
    fork_free(&parent);
}

static size_t fork_bytes(const attn_cache *parent, size_t len, size_t capacity) {
    attn_cache_fork_config config = {.parent = parent, .batch = 1, .len = len, .capacity = capacity};
    size_t bytes = 0;
    assert_ok(attn_cache_fork_size(&config, &bytes, NULL));
    return bytes;
}

/* The shared prefix is not copied: a fork takes memory for the keys that it adds and for 62 more, not for those that
 * it shares. */
static void test_fork_size(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    attn_cache_config config = {.isa = test_isa(), .batch = 1, .kv_heads = 2, .head_size = 32, .capacity = 4000};
    struct tensor k = tensor_random(&random, TEST_NORMAL, LAYOUT_BHSD, 1, 2, 4000, 32, FLUSH_END);
    void *memory;
    size_t least = 0, most = 0;
    attn_cache *parent = cache_create(&config, &memory, FLUSH_END);
    cache_append(parent, 4000, tensor_in(&k), tensor_in(&k), NULL);
    for (size_t len = 16; len <= 4000; len += 16) {
        size_t first = len % 32 ? 16 : 32; /* lies as far from a border */
        assert_int_equal(fork_bytes(parent, first, first + 64), fork_bytes(parent, len, len + 64));
        assert_in_range(fork_bytes(parent, len - 9, len - 9 + 64), 1, fork_bytes(parent, len, len + 64 + 32));
    }
    config.capacity = 64;
    assert_ok(attn_cache_size(&config, &least, NULL));
    config.capacity = 64 + 62;
    assert_ok(attn_cache_size(&config, &most, NULL));
    for (size_t len = 0; len <= 4000; len += 31)
        assert_in_range(fork_bytes(parent, len, len + 64), least, most + 64);
    guarded_free(memory);
    tensor_free(&k);
}

/* ---- Every kind ---- */

enum kind { PLAIN, RING, PAGES, FORK, KINDS };

static const char *const kind_names[] = {"plain", "ring", "pages", "fork"};

enum { WINDOW = 70, CHUNK = 30, RING_CAPACITY = WINDOW + CHUNK - 1, PAGE_OF_LONG = 64, LINKS = 4 };

/* An empty cache of some kind and what it stands on; a fork is a chain of at most LINKS caches. */
struct holder {
    attn_cache *cache;
    struct paged paged;
    void *memory[LINKS];
    size_t links;
};

static struct holder holder_new(struct test_random *random, enum kind kind, const struct model *m, size_t page_size) {
    struct holder holder = {0};
    attn_cache_config config = model_config(m, kind == RING ? RING_CAPACITY : m->most);
    config.kind = kind == RING ? ATTN_CACHE_RING : ATTN_CACHE_PLAIN;
    if (kind == PAGES) {
        holder.paged = paged_new(random, m, page_size, 3);
        give_all_pages(random, &holder.paged);
        holder.cache = holder.paged.cache;
    } else {
        holder.cache = cache_create(&config, &holder.memory[holder.links++], random_flush(random));
    }
    return holder;
}

/* From now on a fork holds the keys and is given the next ones. */
static void holder_fork(struct test_random *random, struct holder *holder, size_t batch, size_t capacity) {
    attn_cache_fork_config config = {.parent = holder->cache, .batch = batch, .capacity = capacity};
    config.len = attn_cache_length(holder->cache, 0);
    if (holder->links < LINKS)
        holder->cache = fork_create(random, &config, &holder->memory[holder->links++]);
}

static void holder_free(struct holder *holder) {
    if (holder->paged.cache)
        paged_free(&holder->paged);
    while (holder->links > 0)
        guarded_free(holder->memory[--holder->links]);
}

/* A pool of this thread alone. */
static void run_here(void *context, void (*task)(void *arg, size_t index), void *arg, size_t count) {
    (void)context;
    for (size_t i = 0; i < count; i++)
        task(arg, i);
}

/* One decoder in one pass: every row at its position, within the window. */
static attn_attention_args decoder_args(const struct model *m, const struct tensor *q, size_t begin, size_t end) {
    attn_attention_args args = {.isa = test_isa(), .batch = m->batch, .heads = m->heads, .kv_heads = m->kv_heads};
    args.q_len = end - begin;
    args.kv_len = end;
    args.head_size = m->head_size;
    args.value_size = m->value_size;
    args.q = tensor_from(q, begin);
    args.options.causal = 1;
    args.options.window_left = WINDOW;
    args.options.rotary = m->rotary;
    args.options.rotary_offsets.i64 = m->rotary ? m->offsets : NULL;
    return args;
}

/* Rows [begin, end) over the cache, which holds the keys up to `end`, are those of the whole pass. */
static void compare_chunk(const struct model *m, const struct tensor *q, const attn_cache *cache,
                          const struct attention_result *whole, size_t begin, size_t end) {
    attn_attention_args args = decoder_args(m, q, begin, end);
    args.cache = cache;
    struct attention_result chunk = attention_run(&args, LAYOUT_BSHD, FLUSH_END);
    for (size_t b = 0; b < m->batch; b++)
        for (size_t h = 0; h < m->heads; h++)
            for (size_t i = begin; i < end; i++)
                assert_same_bits(tensor_row(&whole->o, b, h, i), tensor_row(&chunk.o, b, h, i - begin), m->value_size);
    attention_free(&chunk);
}

static void append_steps(const struct model *m, attn_cache *cache, const struct tensor *k, const struct tensor *v,
                         size_t begin, size_t end) {
    attn_cache_append_args append = {.len = end - begin, .rotary = m->rotary};
    append.k = tensor_from(k, begin);
    append.v = tensor_from(v, begin);
    append.rotary_offsets.i64 = m->rotary && m->offsets[0] ? m->offsets : NULL; /* none are zeros */
    assert_ok(attn_cache_append(cache, &append, NULL));
}

/* The pass over everything at once: from tensors of the cache's type, or where there are none from a cache that was
 * given all keys in one call. */
static struct attention_result whole_pass(const struct model *m, const struct tensor *q, const struct tensor *k,
                                          const struct tensor *v) {
    attn_attention_args args = decoder_args(m, q, 0, q->len);
    void *memory[2] = {NULL, NULL};
    if (is_widened_type(m->type)) {
        attn_cache_config config = model_config(m, q->len);
        attn_cache *cache = cache_create(&config, &memory[0], FLUSH_END);
        append_steps(m, cache, k, v, 0, q->len);
        args.cache = cache;
    } else {
        args.k = typed_input(k, m->type, FLUSH_END, &memory[0]);
        args.v = typed_input(v, m->type, FLUSH_END, &memory[1]);
    }
    struct attention_result whole = attention_run(&args, LAYOUT_BHSD, FLUSH_END);
    guarded_free(memory[0]);
    guarded_free(memory[1]);
    return whole;
}

/* Prefill in chunks and decode give the bits of the pass over everything at once, from every kind of cache. */
static void compare_steps(struct test_random *random, enum kind kind, attn_type type, size_t total, size_t page_size) {
    struct model m = model_new(random, type, 2, total);
    if (random_below(random, 2))
        m.offsets[0] = m.offsets[1] = 0;
    struct tensor q =
        tensor_random(random, TEST_NORMAL, LAYOUT_BSHD, 2, m.heads, total, m.head_size, random_flush(random));
    struct tensor k = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, 2, m.kv_heads, total, m.head_size, FLUSH_END);
    struct tensor v = tensor_random(random, TEST_NORMAL, LAYOUT_GAPS, 2, m.kv_heads, total, m.value_size, FLUSH_END);
    struct holder holder = holder_new(random, kind, &m, page_size);
    if (!is_widened_type(m.type)) {
        tensor_round(&k, m.type);
        tensor_round(&v, m.type);
    }
    test_case("%s: type=%d total=%zu heads=%zu kv_heads=%zu sizes=%zu,%zu page_size=%zu rotary=%d", kind_names[kind],
              (int)m.type, total, m.heads, m.kv_heads, m.head_size, m.value_size, page_size, m.rotary != NULL);
    struct attention_result whole = whole_pass(&m, &q, &k, &v);
    size_t most = random_below(random, 2) ? CHUNK : 1 + random_below(random, 3);
    for (size_t begin = 0, end; begin < total; begin = end) {
        end = begin + random_between(random, 1, most);
        end = end < total ? end : total;
        append_steps(&m, holder.cache, &k, &v, begin, end);
        if (kind == FORK && random_below(random, 5) == 0)
            holder_fork(random, &holder, 2, total);
        compare_chunk(&m, &q, holder.cache, &whole, begin, end);
    }
    attention_free(&whole);
    holder_free(&holder);
    tensor_free(&q);
    tensor_free(&k);
    tensor_free(&v);
    model_free(&m);
}

static void test_steps_as_one_shot(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sweep(6, 1) * CACHE_TYPES; i++)
        for (size_t kind = 0; kind < KINDS; kind++)
            compare_steps(&random, (enum kind)kind, cache_types[i % CACHE_TYPES],
                          random_between(&random, 1, test_quick() ? 150 : 400),
                          page_sizes[random_below(&random, PAGE_SIZES)]);
}

/* The workspace that an empty cache asks for is enough whatever is appended, also to a ring that has been given many
 * times the keys that it holds. */
static void compare_workspaces(struct test_random *random, enum kind kind, size_t threads) {
    attn_type type = random_cache_type(random);
    size_t total = 2 * 4096 + 500, most = kind == RING ? RING_CAPACITY : total, needed = 0, bytes = 0;
    struct model m = model_new(random, type, 1, total);
    struct holder holder = holder_new(random, kind, &m, PAGE_OF_LONG);
    struct tensor q = tensor_random(random, TEST_NORMAL, LAYOUT_BHSD, 1, m.heads, 2, m.head_size, FLUSH_END);
    struct tensor o = tensor_new(LAYOUT_BHSD, 1, m.heads, 2, m.value_size, FLUSH_END);
    attn_parallel parallel = {.run = run_here, .threads = threads};
    attn_attention_args args = decoder_args(&m, &q, 0, 2);
    args.kv_len = 0;
    args.o = tensor_out(&o);
    args.cache = holder.cache;
    args.parallel = &parallel;
    test_case("%s: heads=%zu kv_heads=%zu sizes=%zu,%zu threads=%zu", kind_names[kind], m.heads, m.kv_heads,
              m.head_size, m.value_size, threads);
    assert_ok(attn_attention_workspace(&args, &needed, NULL));
    void *workspace = poisoned_alloc(needed, FLUSH_END);
    while (m.lens[0] < total) {
        size_t left = total - m.lens[0], lens[MODEL_BATCH] = {random_between(random, most / 2, most)};
        lens[0] = lens[0] < left ? lens[0] : left;
        model_append(random, &m, holder.cache, TEST_NORMAL, lens);
        for (args.q_len = 1; args.q_len <= 2; args.q_len++) {
            assert_ok(attn_attention_workspace(&args, &bytes, NULL));
            assert_in_range(bytes, 0, needed);
        }
    }
    args.q_len = 2;
    assert_ok(attn_attention(&args, workspace, needed, NULL));
    guarded_free(workspace);
    tensor_free(&q);
    tensor_free(&o);
    holder_free(&holder);
    model_free(&m);
}

static void test_workspace_asked_for_once(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t kind = PLAIN; kind < FORK; kind++)
        for (size_t threads = 1; threads <= 8; threads += test_quick() ? 4 : 1)
            compare_workspaces(&random, (enum kind)kind, threads);
}

/* Several spans of keys. */
static void compare_long(struct test_random *random, enum kind kind, attn_type type, size_t page_size) {
    size_t total = 4096 + random_between(random, 20, 300), most = kind == RING ? RING_CAPACITY : total;
    struct model m = model_new(random, type, 2, total);
    struct holder holder = holder_new(random, kind, &m, page_size);
    while (m.lens[0] < 4090) {
        size_t left = 4090 - m.lens[0], lens[MODEL_BATCH] = {left < most ? left : most, 11};
        model_append(random, &m, holder.cache, TEST_NORMAL, lens);
    }
    for (size_t step = 0; step < 3; step++) {
        size_t lens[MODEL_BATCH] = {6, 1};
        if (kind == RING)
            model_forget(&m, RING_CAPACITY);
        model_compare(random, &m, holder.cache);
        model_append(random, &m, holder.cache, TEST_NORMAL, lens);
    }
    holder_free(&holder);
    model_free(&m);
}

/* Children that share a prefix of about a span, with a border of 16 in it or not. */
static void compare_long_forks(struct test_random *random, attn_type type) {
    struct fork parent = {.m = model_new(random, type, 1, 4200)};
    attn_cache_config config = model_config(&parent.m, 4200);
    size_t sources[] = {0, 0, 0}, lens[MODEL_BATCH] = {4150};
    parent.cache = cache_create(&config, &parent.memory, FLUSH_END);
    model_append(random, &parent.m, parent.cache, TEST_NORMAL, lens);
    for (size_t len = 4090; len <= 4102; len += 6) {
        attn_cache_fork_config fork = {.parent = parent.cache, .batch = 3, .sources = sources, .len = len};
        fork.capacity = len + 30;
        struct fork child = {.m = model_continue(&parent.m, 3, sources, len, len + 30)};
        child.cache = fork_create(random, &fork, &child.memory);
        model_compare(random, &child.m, child.cache);
        model_append_some(random, &child.m, child.cache, 30);
        model_compare(random, &child.m, child.cache);
        fork_free(&child);
    }
    fork_free(&parent);
}

static void test_long(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < CACHE_TYPES; i++) {
        if (!test_quick() || random_below(&random, CACHE_TYPES) == 0)
            compare_long_forks(&random, cache_types[i]);
        for (size_t kind = PLAIN; kind < FORK; kind++)
            if (!test_quick() || random_below(&random, 2))
                compare_long(&random, (enum kind)kind, cache_types[i], page_sizes[i % PAGE_SIZES]);
    }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_growing_logits),
        cmocka_unit_test(test_ragged),
        cmocka_unit_test(test_truncate_one_sequence),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_ring_truncated),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_pages_on_demand),
        cmocka_unit_test(test_shared_pages),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_chain_of_forks),
        cmocka_unit_test(test_fork_truncated_to_every_length),
        cmocka_unit_test(test_full_forks),
        cmocka_unit_test(test_fork_size),
        cmocka_unit_test(test_steps_as_one_shot),
        cmocka_unit_test(test_workspace_asked_for_once),
        cmocka_unit_test(test_long),
    };
    return test_run(tests);
}
