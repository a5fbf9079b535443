/* Packed weights as blobs: an imported object gives the bits of the one that was exported, wherever its weights lie. */
#include "weights.h"

#include <stdlib.h>
#include <string.h>

#include "pages.h"

enum { ROWS = 7 };

/* A blob in memory that nobody may write to, as a file that is mapped, up to a page that nobody may read. */
struct blob {
    char *pages, *data;
    size_t bytes;
};

static size_t mapped(const struct blob *blob) {
    return whole_pages(blob->bytes);
}

static struct blob read_only(const void *data, size_t bytes) {
    struct blob blob = {.bytes = bytes};
    blob.pages = pages_new(mapped(&blob) + page_size());
    pages_open(blob.pages, mapped(&blob));
    blob.data = blob.pages + mapped(&blob) - bytes; /* bytes are a multiple of ATTN_ALIGNMENT */
    memcpy(blob.data, data, bytes);
    pages_protect(blob.pages, mapped(&blob), ACCESS_READ);
    return blob;
}

static void unmap(struct blob *blob) {
    pages_free(blob->pages, mapped(blob) + page_size());
}

static struct blob export_gemm(const attn_gemm *gemm, attn_isa isa) {
    attn_error error = {0};
    size_t bytes = 0;
    assert_ok(attn_gemm_export_size(gemm, isa, &bytes, &error));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_gemm_export(gemm, isa, memory, bytes, &error));
    struct blob blob = read_only(memory, bytes);
    guarded_free(memory);
    return blob;
}

static attn_import_config import_config(const struct blob *blob, attn_import_mode mode) {
    return (attn_import_config){
        .isa = test_isa(), .blob = blob->data, .blob_bytes = blob->bytes, .mode = mode, .verify = 1};
}

/* The object, and how many bytes it takes; NULL where the mode is not possible. */
static attn_gemm *import_gemm(const struct blob *blob, attn_import_mode mode, size_t *bytes) {
    attn_import_config config = import_config(blob, mode);
    attn_error error = {0};
    attn_gemm *gemm = NULL;
    attn_status status = attn_gemm_import_size(&config, bytes, &error);
    if (status == ATTN_MISMATCH && mode == ATTN_IMPORT_IN_PLACE) {
        assert_string_equal("blob.format", error.field);
        return NULL;
    }
    assert_ok(status);
    void *memory = poisoned_alloc(*bytes, FLUSH_END);
    assert_ok(attn_gemm_import(&config, memory, *bytes, &gemm, &error));
    return gemm;
}

/* Bytes of an object without its weights. */
enum { SMALL = 512 };

struct case_of_gemm {
    const struct weight *weight;
    const float *x, *expected;
};

/* Imports the blob in every mode and multiplies; returns whether it could be used in place. */
static bool check_modes(const struct case_of_gemm *c, struct blob *blob) {
    size_t in = c->weight->in, out = c->weight->out, results = ROWS * out;
    float *y = guarded_floats(results, FLUSH_END);
    bool in_place = false;
    for (int mode = ATTN_IMPORT_FITTING; mode <= ATTN_IMPORT_COPY; mode++) {
        size_t bytes = 0;
        attn_gemm *gemm = import_gemm(blob, (attn_import_mode)mode, &bytes);
        if (mode == ATTN_IMPORT_IN_PLACE)
            in_place = gemm != NULL;
        if (!gemm)
            continue;
        bool copies = mode == ATTN_IMPORT_COPY || (mode == ATTN_IMPORT_FITTING && bytes > SMALL);
        assert_true(copies ? bytes > in * out / 2 : bytes <= SMALL);
        struct blob kept = *blob;
        if (copies) { /* the blob is not needed any more */
            kept = read_only(blob->data, blob->bytes);
            pages_protect(blob->pages, mapped(blob), ACCESS_NONE);
        }
        multiply_rows(gemm, in, out, ROWS, c->x, y);
        assert_same_bits(c->expected, y, results);
        if (copies) {
            pages_protect(blob->pages, mapped(blob), ACCESS_READ);
            unmap(&kept);
        }
        guarded_free(gemm);
    }
    guarded_free(y);
    return in_place;
}

/* The blob's own bytes come back from what was imported from it. */
static void check_bytes(struct blob *blob) {
    for (int mode = ATTN_IMPORT_FITTING; mode <= ATTN_IMPORT_COPY; mode += ATTN_IMPORT_COPY) {
        size_t bytes;
        attn_gemm *gemm = import_gemm(blob, (attn_import_mode)mode, &bytes);
        struct blob again = export_gemm(gemm, ATTN_ISA_BEST);
        if (again.bytes != blob->bytes || memcmp(again.data, blob->data, blob->bytes) != 0)
            test_fail("another blob");
        unmap(&again);
        guarded_free(gemm);
    }
}

/* A blob in the format of a named ISA has the bytes that an object of that ISA writes. */
static void check_format(const struct weight *weight, attn_arithmetic arithmetic, attn_isa isa,
                         const struct blob *blob) {
    attn_gemm_config config = {
        .isa = isa, .k = weight->in, .n = weight->out, .w = weight->linear, .arithmetic = arithmetic};
    attn_gemm *gemm = NULL;
    size_t bytes = 0;
    if (!attn_isa_supported(isa))
        return;
    assert_ok(attn_gemm_size(&config, &bytes, NULL));
    assert_ok(attn_gemm_create(&config, poisoned_alloc(bytes, FLUSH_END), bytes, &gemm, NULL));
    struct blob own = export_gemm(gemm, ATTN_ISA_BEST);
    if (own.bytes != blob->bytes || memcmp(own.data, blob->data, own.bytes) != 0)
        test_fail("not the blob of %s", attn_isa_name(isa));
    unmap(&own);
    guarded_free(gemm);
}

static void gemms_come_back(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const size_t sizes[][2] = {{128, 32}, {256, 50}, {129, 33}, {128, 1}, {384, 100}};
    for (size_t kind = 0; kind < weight_kind_count; kind++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t in = weight_kinds[kind].block ? sizes[i][0] / 128 * 128 : sizes[i][0], out = sizes[i][1];
            attn_arithmetic arithmetic = i % 2 ? ATTN_ARITHMETIC_PORTABLE : ATTN_ARITHMETIC_FASTEST;
            struct weight weight = new_weight(&random, weight_kinds[kind], in, out, i % 2);
            attn_gemm *gemm = new_gemm(&weight, arithmetic);
            float *x = guarded_floats(ROWS * in, FLUSH_END), *expected = guarded_floats(ROWS * out, FLUSH_END);
            random_fill(&random, TEST_NORMAL, x, ROWS * in);
            multiply_rows(gemm, in, out, ROWS, x, expected);
            struct case_of_gemm c = {&weight, x, expected};
            for (int isa = ATTN_ISA_BEST; isa < ATTN_ISA_COUNT; isa++) {
                if (!attn_isa_built((attn_isa)isa))
                    continue;
                test_case("kind %zu, %zu x %zu, blob of %s", kind, in, out, attn_isa_name((attn_isa)isa));
                struct blob blob = export_gemm(gemm, (attn_isa)isa);
                bool in_place = check_modes(&c, &blob);
                if (isa != ATTN_ISA_BEST)
                    check_format(&weight, arithmetic, (attn_isa)isa, &blob);
                if (isa == ATTN_ISA_BEST || isa == (int)test_isa()) {
                    assert_true(in_place);
                    check_bytes(&blob);
                }
                unmap(&blob);
            }
            guarded_free(gemm);
            guarded_free(x);
            guarded_free(expected);
            free_weight(&weight);
        }
}

/* ---- Layers ---- */

enum { LAYER_WIDTH = 128, HEADS = 4, KV_HEADS = 2, HEAD = 16, VALUE = 32, LAYER_OUT = 40, LEN = 6 };

struct layer_weights {
    struct weight q, k, v, o;
};

static struct layer_weights new_weights(struct test_random *random, size_t kind) {
    const struct weight_kind *kinds = weight_kinds;
    size_t n = weight_kind_count;
    return (struct layer_weights){
        new_weight(random, kinds[kind], LAYER_WIDTH, HEADS * HEAD, true),
        new_weight(random, kinds[(kind + 1) % n], LAYER_WIDTH, KV_HEADS * HEAD, false),
        new_weight(random, kinds[(kind + 2) % n], LAYER_WIDTH, KV_HEADS * VALUE, true),
        new_weight(random, kinds[(kind + 3) % n], HEADS * VALUE, LAYER_OUT, kind % 2),
    };
}

static attn_layer *new_layer(const struct layer_weights *w, attn_type kv_type, attn_isa isa) {
    attn_layer_config config = {.isa = isa,
                                .query_width = LAYER_WIDTH,
                                .key_width = LAYER_WIDTH,
                                .value_width = LAYER_WIDTH,
                                .heads = HEADS,
                                .kv_heads = KV_HEADS,
                                .head_size = HEAD,
                                .value_size = VALUE,
                                .out_size = LAYER_OUT,
                                .scale = 0.3f,
                                .kv_type = kv_type,
                                .w_q = w->q.linear,
                                .w_k = w->k.linear,
                                .w_v = w->v.linear,
                                .w_o = w->o.linear};
    attn_error error = {0};
    attn_layer *layer = NULL;
    size_t bytes = 0;
    assert_ok(attn_layer_size(&config, &bytes, &error));
    assert_ok(attn_layer_create(&config, poisoned_alloc(bytes, FLUSH_END), bytes, &layer, &error));
    return layer;
}

static struct blob export_layer(const attn_layer *layer, attn_isa isa) {
    attn_error error = {0};
    size_t bytes = 0;
    assert_ok(attn_layer_export_size(layer, isa, &bytes, &error));
    void *memory = poisoned_alloc(bytes, FLUSH_END);
    assert_ok(attn_layer_export(layer, isa, memory, bytes, &error));
    struct blob blob = read_only(memory, bytes);
    guarded_free(memory);
    return blob;
}

static attn_layer *import_layer(const struct blob *blob, attn_import_mode mode, size_t *bytes) {
    attn_import_config config = import_config(blob, mode);
    attn_error error = {0};
    attn_layer *layer = NULL;
    assert_ok(attn_layer_import_size(&config, bytes, &error));
    assert_ok(attn_layer_import(&config, poisoned_alloc(*bytes, FLUSH_END), *bytes, &layer, &error));
    return layer;
}

static void layers_come_back(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    float x[LEN * LAYER_WIDTH], expected[LEN * LAYER_OUT], y[LEN * LAYER_OUT];
    for (size_t kind = 0; kind < weight_kind_count; kind++)
        for (int mode = ATTN_IMPORT_FITTING; mode <= ATTN_IMPORT_COPY; mode++) {
            struct layer_weights w = new_weights(&random, kind);
            attn_type kv_type = kind % 2 ? ATTN_BF16 : ATTN_F32;
            attn_layer *layer = new_layer(&w, kv_type, test_isa());
            attn_layer *scalar = new_layer(&w, kv_type, ATTN_ISA_SCALAR);
            size_t bytes = 0;
            test_case("kind %zu, mode %d", kind, mode);
            random_fill(&random, TEST_NORMAL, x, LEN * LAYER_WIDTH);
            forward_rows(layer, LAYER_WIDTH, LAYER_OUT, LEN, x, expected);
            struct blob blob = export_layer(layer, mode == ATTN_IMPORT_COPY ? ATTN_ISA_SCALAR : ATTN_ISA_BEST);
            if (mode == ATTN_IMPORT_COPY) {
                struct blob own = export_layer(scalar, ATTN_ISA_BEST);
                assert_int_equal(own.bytes, blob.bytes);
                assert_memory_equal(own.data, blob.data, own.bytes);
                unmap(&own);
            }
            attn_layer *made = import_layer(&blob, (attn_import_mode)mode, &bytes);
            assert_true(mode == ATTN_IMPORT_COPY ? bytes > LAYER_WIDTH * HEADS * HEAD : bytes <= 2 * SMALL);
            forward_rows(made, LAYER_WIDTH, LAYER_OUT, LEN, x, y);
            assert_same_bits(expected, y, LEN * LAYER_OUT);
            struct blob again = export_layer(made, ATTN_ISA_BEST), first = export_layer(layer, ATTN_ISA_BEST);
            assert_int_equal(first.bytes, again.bytes);
            assert_memory_equal(first.data, again.data, first.bytes);
            unmap(&blob);
            unmap(&again);
            unmap(&first);
            guarded_free(layer);
            guarded_free(scalar);
            guarded_free(made);
            free_weight(&w.q);
            free_weight(&w.k);
            free_weight(&w.v);
            free_weight(&w.o);
        }
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemms_come_back),
        cmocka_unit_test(layers_come_back),
    };
    return test_run(tests);
}
