/* Where keys and values lie in each kind of storage: what was appended is found again, key by key. */
#include "dispatch.h"
#include "ops/panels.h"
#include "support.h"

enum { HEADS = 3, SEQUENCES = 2, KEY_SIZE = 5, VALUE_SIZE = 37, KEYS = 200 };

/* ---- Keys that know what they are ---- */

/* Element `d` of a key of a sequence's head, or of its value with d counted on from there; exact in a float. */
static float element(size_t sequence, size_t head, size_t key, size_t d) {
    return (float)(((sequence * HEADS + head) * 1024 + key) * 64 + d);
}

/* Rows first .. first + count - 1 of a head, as a caller would have them. */
struct given {
    float k[KEYS][KEY_SIZE], v[KEYS][VALUE_SIZE];
};

static void give(struct given *given, size_t sequence, size_t head, size_t first, size_t count) {
    for (size_t i = 0; i < count; i++) {
        for (size_t d = 0; d < KEY_SIZE; d++)
            given->k[i][d] = element(sequence, head, first + i, d);
        for (size_t d = 0; d < VALUE_SIZE; d++)
            given->v[i][d] = element(sequence, head, first + i, KEY_SIZE + d);
    }
}

static void append(const struct attn_store *store, size_t sequence, size_t as, size_t first, size_t count) {
    static struct given given;
    for (size_t head = 0; head < HEADS; head++) {
        give(&given, as, head, first, count);
        attn_store_append(store, sequence, head, first, count,
                          &(struct attn_key_rows){.k = (const char *)given.k,
                                                  .v = (const char *)given.v,
                                                  .k_stride = sizeof given.k[0],
                                                  .v_stride = sizeof given.v[0],
                                                  .attention = attn_table_attention(test_table())});
    }
}

/* In pieces of any size. */
static void append_pieces(struct test_random *random, const struct attn_store *store, size_t sequence, size_t as,
                          size_t first, size_t end) {
    for (size_t n; first < end; first += n) {
        n = random_between(random, 1, 70);
        n = attn_min(n, end - first);
        append(store, sequence, as, first, n);
    }
}

/* ---- What is found ---- */

/* Element [p][j] of packed floats. */
static float packed_element(const struct attn_panels *panels, size_t p, size_t j) {
    const char *panel = (const char *)panels->data + j / panels->cols * panels->stride;
    return ((const float *)panel)[p * panels->cols + j % panels->cols];
}

/* Key number `i` of a segment is the key that sequence `as` was given as number `key`. */
static void check_packed_key(const struct attn_segment *segment, size_t i, size_t as, size_t head, size_t key) {
    for (size_t d = 0; d < KEY_SIZE; d++)
        assert_true(packed_element(&segment->keys, d, segment->first + i) == element(as, head, key, d));
    for (size_t d = 0; d < VALUE_SIZE; d++)
        assert_true(packed_element(&segment->values, segment->first + i, d) == element(as, head, key, KEY_SIZE + d));
}

/* Keys up to `end` were appended to sequence `as`. */
struct origin {
    size_t end, as;
};

static size_t as_of(const struct origin *origins, size_t key) {
    while (key >= origins->end)
        origins++;
    return origins->as;
}

/* Keys begin .. end - 1 of a sequence are those that were appended: located from the beginning of every unit, to the
 * end of the segment that is found. */
static void check_origins(const struct attn_store *store, size_t sequence, const struct origin *origins, size_t begin,
                          size_t end) {
    for (size_t head = 0; head < HEADS; head++)
        for (size_t key = begin - begin % store->unit; key < end; key += store->unit) {
            struct attn_segment segment = attn_store_locate(store, sequence, head, key);
            test_case("sequence %zu, head %zu, from key %zu on: %zu keys", sequence, head, key, segment.count);
            assert_true(segment.count > 0 && segment.count % store->unit == 0);
            assert_int_equal(segment.keys.cols, attn_min(store->kernel->b.cols, store->unit));
            for (size_t i = key < begin ? begin - key : 0; i < segment.count && key + i < end; i++)
                check_packed_key(&segment, i, as_of(origins, key + i), head, key + i);
        }
}

static void check_keys(const struct attn_store *store, size_t sequence, size_t begin, size_t end) {
    check_origins(store, sequence, &(struct origin){end, sequence}, begin, end);
}

/* ---- Kinds ---- */

/* A store whose segments hold `keys` keys, its memory poisoned; guarded_free(*memory). */
static struct attn_store new_store(size_t keys, size_t unit, size_t segments, void **memory) {
    struct attn_store store;
    struct attn_arena measure = {0};
    assert_true(
        attn_store_init(&store, attn_gemm_find(test_table(), ATTN_CLASS_F32), HEADS, KEY_SIZE, VALUE_SIZE, keys, unit));
    attn_store_take(&store, segments * HEADS, &measure);
    assert_false(measure.overflow);
    *memory = poisoned_alloc(measure.used, FLUSH_END);
    attn_store_take(&store, segments * HEADS, &(struct attn_arena){.base = *memory});
    return store;
}

static void test_contiguous(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    void *memory;
    struct attn_store store = new_store(KEYS, ATTN_MAX_COLS, SEQUENCES, &memory);
    assert_int_equal(ATTN_KV_CONTIGUOUS, store.kind);
    for (size_t s = 0; s < SEQUENCES; s++)
        append_pieces(&random, &store, s, s, 0, KEYS);
    for (size_t s = 0; s < SEQUENCES; s++)
        check_keys(&store, s, 0, KEYS);
    guarded_free(memory);
}

/* A ring holds the last keys. It has room for a panel more, because packing fills up the panel that it writes. */
static void test_ring(void **state) {
    (void)state;
    enum { HELD = 96, GIVEN = 500 };
    struct test_random random = test_random(__func__);
    void *memory;
    struct attn_store store = new_store(HELD + ATTN_MAX_COLS, ATTN_MAX_COLS, SEQUENCES, &memory);
    store.kind = ATTN_KV_RING;
    for (size_t s = 0; s < SEQUENCES; s++)
        append_pieces(&random, &store, s, s, 0, GIVEN);
    for (size_t s = 0; s < SEQUENCES; s++)
        check_keys(&store, s, GIVEN - HELD, GIVEN);
    guarded_free(memory);
}

/* Pages in any order, of a unit of 32 keys or of an odd multiple of 16. */
static void test_pages(void **state) {
    (void)state;
    static const size_t sizes[] = {16, 32, 48, 64};
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        enum { MOST = SEQUENCES * (KEYS / 16 + 1) };
        size_t each = KEYS / sizes[i] + 1, count = SEQUENCES * each;
        int32_t pages[MOST];
        void *memory;
        struct attn_store store =
            new_store(sizes[i], sizes[i] % ATTN_MAX_COLS ? ATTN_PAGE_UNIT : ATTN_MAX_COLS, count, &memory);
        store.kind = ATTN_KV_PAGED;
        store.pages = pages;
        store.pages_per_sequence = each;
        store.page_count = count;
        for (size_t p = 0; p < count; p++) {
            size_t other = random_below(&random, p + 1);
            pages[p] = pages[other];
            pages[other] = (int32_t)p;
        }
        for (size_t s = 0; s < SEQUENCES; s++)
            append_pieces(&random, &store, s, s, 0, KEYS);
        for (size_t s = 0; s < SEQUENCES; s++)
            check_keys(&store, s, 0, KEYS);
        guarded_free(memory);
    }
}

/* Sequence s of a fork shares the first keys of sequence 1 - s of the parent, and continues with its own; a fork of
 * that shares keys of both, or fewer than the first fork does. */
static void test_fork(void **state) {
    (void)state;
    enum { LESS = 32, SHARED = 64, FURTHER = 128 };
    struct test_random random = test_random(__func__);
    void *memory[3];
    struct attn_store parent = new_store(KEYS, ATTN_MAX_COLS, SEQUENCES, &memory[0]);
    struct attn_store fork = new_store(KEYS, ATTN_MAX_COLS, SEQUENCES, &memory[1]);
    struct attn_store second = new_store(KEYS, ATTN_MAX_COLS, SEQUENCES, &memory[2]);
    struct attn_shared_keys from[] = {{1, SHARED}, {0, SHARED}}, second_from[] = {{0, FURTHER}, {1, LESS}};
    fork.kind = second.kind = ATTN_KV_FORK;
    fork.parent = &parent;
    fork.from = from;
    second.parent = &fork;
    second.from = second_from;
    for (size_t s = 0; s < SEQUENCES; s++) {
        append_pieces(&random, &parent, s, s, 0, KEYS);
        append_pieces(&random, &fork, s, 2 + s, SHARED, KEYS);
    }
    append_pieces(&random, &second, 0, 4, FURTHER, KEYS);
    append_pieces(&random, &second, 1, 5, LESS, KEYS);
    check_origins(&fork, 0, (const struct origin[]){{SHARED, 1}, {KEYS, 2}}, 0, KEYS);
    check_origins(&fork, 1, (const struct origin[]){{SHARED, 0}, {KEYS, 3}}, 0, KEYS);
    check_origins(&second, 0, (const struct origin[]){{SHARED, 1}, {FURTHER, 2}, {KEYS, 4}}, 0, KEYS);
    check_origins(&second, 1, (const struct origin[]){{LESS, 0}, {KEYS, 5}}, 0, KEYS);
    for (size_t i = 0; i < 3; i++)
        guarded_free(memory[i]);
}

/* A fork that shares fewer keys than its parent has, and holds copies of those in the last unit. */
static void test_copy_from_parent(void **state) {
    (void)state;
    enum { SHARED = 64, COPIED = 21 };
    struct test_random random = test_random(__func__);
    void *memory[2];
    struct attn_store parent = new_store(KEYS, ATTN_MAX_COLS, SEQUENCES, &memory[0]);
    struct attn_store fork = new_store(KEYS, ATTN_MAX_COLS, SEQUENCES, &memory[1]);
    struct attn_shared_keys from[] = {{1, SHARED}, {0, SHARED}};
    fork.kind = ATTN_KV_FORK;
    fork.parent = &parent;
    fork.from = from;
    for (size_t s = 0; s < SEQUENCES; s++)
        append_pieces(&random, &parent, s, s, 0, KEYS);
    for (size_t head = 0; head < HEADS; head++)
        attn_store_copy_from_parent(&fork, 0, head, COPIED);
    append_pieces(&random, &fork, 0, 2, SHARED + COPIED, KEYS);
    check_origins(&fork, 0, (const struct origin[]){{SHARED + COPIED, 1}, {KEYS, 2}}, 0, KEYS);
    for (size_t i = 0; i < 2; i++)
        guarded_free(memory[i]);
}

/* Rows of tensors, of sequences with room for as many each and of packed ones. */
static void test_tensors(void **state) {
    (void)state;
    static const float data[1 << 12];
    static const int64_t cu[] = {3, 10, 20};
    struct attn_kv_tensors tensors = {.k = {data, ATTN_F32, 700, 50, 5, 1}, .v = {data + 1, ATTN_F32, 800, 60, 6, 1}};
    struct attn_store store = attn_store_of_tensors(&tensors);
    struct attn_segment segment = attn_store_locate(&store, 1, 2, 7);
    assert_int_equal(1, store.unit);
    assert_ptr_equal(data + 700 + 2 * 50 + 7 * 5, segment.keys.data);
    assert_ptr_equal(data + 1 + 800 + 2 * 60 + 7 * 6, segment.values.data);
    assert_true(segment.count == SIZE_MAX && segment.keys.stride == 20 && segment.values.stride == 24);
    tensors.cu.i64 = cu;
    segment = attn_store_locate(&store, 1, 2, 7);
    assert_ptr_equal(data + 2 * 50 + 17 * 5, segment.keys.data);
    assert_ptr_equal(data + 1 + 2 * 60 + 17 * 6, segment.values.data);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contiguous),
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_copy_from_parent),
        cmocka_unit_test(test_tensors),
    };
    return test_run(tests);
}
