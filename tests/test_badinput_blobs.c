/* Blobs that cannot be. A status, the name of the field, and, of tampered blobs, whose checksum may be right again,
 * never a byte read beyond them. */
#include "weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/blob.h"

enum { MEMORY = 1 << 15 };
static _Alignas(ATTN_ALIGNMENT) unsigned char memory[MEMORY], before[MEMORY];

/* Memory stays as it was. */
static void expect(attn_status expected, const char *field, attn_status actual, const attn_error *error) {
    assert_status(expected, actual);
    assert_string_equal(field, error->field);
    assert_int_equal(expected, error->status);
    assert_memory_equal(before, memory, MEMORY);
}

enum { IN = 128, OUT = 40, HEADS = 2, ROWS = 3, STRIDE = 512 };

/* Of a gemm, or of a layer: what is exported, and how it comes back and runs. */
struct blob {
    bool is_layer;
    size_t bytes;
    char *data; /* up to a guard page */
};

static attn_layer *new_layer(const struct weight *w) {
    attn_layer_config config = {
        .isa = test_isa(), .query_width = IN, .key_width = IN, .value_width = IN, .heads = HEADS};
    attn_error error = {0};
    attn_layer *layer = NULL;
    size_t bytes = 0;
    config.hidden = IN;
    config.out_size = OUT;
    config.w_q = config.w_k = config.w_v = w[0].linear;
    config.w_o = w[1].linear;
    assert_ok(attn_layer_size(&config, &bytes, &error));
    assert_ok(attn_layer_create(&config, poisoned_alloc(bytes, FLUSH_END), bytes, &layer, &error));
    return layer;
}

static struct blob new_blob_with(struct test_random *random, struct weight_kind kind, bool is_layer, bool biases) {
    struct weight w[] = {new_weight(random, kind, IN, IN, biases), new_weight(random, kind, IN, OUT, biases)};
    struct blob blob = {.is_layer = is_layer};
    attn_error error = {0};
    attn_gemm *gemm = new_gemm(&w[1], ATTN_ARITHMETIC_FASTEST);
    attn_layer *layer = new_layer(w);
    assert_ok(is_layer ? attn_layer_export_size(layer, ATTN_ISA_BEST, &blob.bytes, &error)
                       : attn_gemm_export_size(gemm, ATTN_ISA_BEST, &blob.bytes, &error));
    blob.data = guarded_alloc(blob.bytes, ATTN_ALIGNMENT, FLUSH_END);
    assert_ok(is_layer ? attn_layer_export(layer, ATTN_ISA_BEST, blob.data, blob.bytes, &error)
                       : attn_gemm_export(gemm, ATTN_ISA_BEST, blob.data, blob.bytes, &error));
    guarded_free(gemm);
    guarded_free(layer);
    free_weight(&w[0]);
    free_weight(&w[1]);
    return blob;
}

static struct blob new_blob(struct test_random *random, struct weight_kind kind, bool is_layer) {
    return new_blob_with(random, kind, is_layer, true);
}

static attn_import_config config_of(const struct blob *blob) {
    return (attn_import_config){.isa = test_isa(), .blob = blob->data, .blob_bytes = blob->bytes};
}

static float x[ROWS * STRIDE], y[ROWS * STRIDE];

/* Imports; what is taken runs. */
static attn_status import(const struct blob *blob, const attn_import_config *config, attn_error *error) {
    attn_gemm *gemm = NULL;
    attn_layer *layer = NULL;
    size_t bytes = 0;
    attn_status status =
        blob->is_layer ? attn_layer_import_size(config, &bytes, error) : attn_gemm_import_size(config, &bytes, error);
    if (status != ATTN_OK)
        return status;
    void *object = poisoned_alloc(bytes, FLUSH_END);
    if (blob->is_layer) {
        assert_ok(attn_layer_import(config, object, bytes, &layer, error));
        forward_rows(layer, STRIDE, STRIDE, ROWS, x, y);
    } else {
        assert_ok(attn_gemm_import(config, object, bytes, &gemm, error));
        multiply_rows(gemm, STRIDE, STRIDE, ROWS, x, y);
    }
    guarded_free(object);
    return ATTN_OK;
}

static void sign(struct blob *blob) {
    struct attn_blob_header *header = (struct attn_blob_header *)(void *)blob->data;
    header->checksum = attn_blob_checksum(header);
}

static void refuses(const struct blob *blob, const attn_import_config *config, attn_status expected,
                    const char *field) {
    attn_error error = {0};
    attn_status status = import(blob, config, &error);
    assert_status(expected, status);
    assert_string_equal(field, error.field);
}

#define REFUSES(expected, field, ...)                                                                                  \
    do {                                                                                                               \
        attn_import_config config = config_of(&blob);                                                                  \
        __VA_ARGS__;                                                                                                   \
        test_case("%s", #__VA_ARGS__);                                                                                 \
        refuses(&blob, &config, expected, field);                                                                      \
    } while (0)

static void refuses_bad_imports(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int is_layer = 0; is_layer < 2; is_layer++) {
        struct blob blob = new_blob(&random, weight_kinds[0], is_layer);
        attn_import_config good = config_of(&blob);
        attn_error error = {0};
        attn_gemm *gemm = NULL;
        attn_layer *layer = NULL;
        size_t bytes = 0, least = sizeof(struct attn_blob_header);
        REFUSES(ATTN_NULL_POINTER, "blob", config.blob = NULL);
        REFUSES(ATTN_MISALIGNED, "blob", config.blob = blob.data + 32);
        REFUSES(ATTN_TOO_SMALL, "blob_bytes", config.blob_bytes = 0);
        REFUSES(ATTN_TOO_SMALL, "blob_bytes", config.blob_bytes--);
        REFUSES(ATTN_BAD_VALUE, "mode", config.mode = (attn_import_mode)-1);
        REFUSES(ATTN_BAD_VALUE, "mode", config.mode = (attn_import_mode)(ATTN_IMPORT_COPY + 1));
        REFUSES(ATTN_UNKNOWN_ISA, "isa", config.isa = ATTN_ISA_COUNT);
        refuses(&blob, NULL, ATTN_NULL_POINTER, "config");
        blob.is_layer = !is_layer; /* the other object's import */
        REFUSES(ATTN_MISMATCH, "blob.kind", (void)config);
        blob.is_layer = is_layer;
        if (is_layer) {
            assert_ok(attn_layer_import_size(&good, &bytes, &error));
            expect(ATTN_NULL_POINTER, "bytes", attn_layer_import_size(&good, NULL, &error), &error);
            expect(ATTN_NULL_POINTER, "layer", attn_layer_import(&good, memory, bytes, NULL, &error), &error);
            expect(ATTN_NULL_POINTER, "memory", attn_layer_import(&good, NULL, bytes, &layer, &error), &error);
            expect(ATTN_MISALIGNED, "memory", attn_layer_import(&good, memory + 8, bytes, &layer, &error), &error);
            expect(ATTN_TOO_SMALL, "bytes", attn_layer_import(&good, memory, bytes - 1, &layer, &error), &error);
            assert_null(layer);
        } else {
            assert_ok(attn_gemm_import_size(&good, &bytes, &error));
            expect(ATTN_NULL_POINTER, "bytes", attn_gemm_import_size(&good, NULL, &error), &error);
            expect(ATTN_NULL_POINTER, "gemm", attn_gemm_import(&good, memory, bytes, NULL, &error), &error);
            expect(ATTN_NULL_POINTER, "memory", attn_gemm_import(&good, NULL, bytes, &gemm, &error), &error);
            expect(ATTN_MISALIGNED, "memory", attn_gemm_import(&good, memory + 8, bytes, &gemm, &error), &error);
            expect(ATTN_TOO_SMALL, "bytes", attn_gemm_import(&good, memory, bytes - 1, &gemm, &error), &error);
            assert_null(gemm);
        }
        good.blob_bytes = least - 1;
        refuses(&blob, &good, ATTN_TOO_SMALL, "blob_bytes");
        guarded_free(blob.data);
    }
}

static void refuses_bad_exports(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct weight w[] = {new_weight(&random, weight_kinds[1], IN, IN, true),
                         new_weight(&random, weight_kinds[1], IN, OUT, true)};
    attn_gemm *gemm = new_gemm(&w[1], ATTN_ARITHMETIC_FASTEST);
    attn_layer *layer = new_layer(w);
    attn_error error = {0};
    size_t bytes = 0;
    const attn_isa best = ATTN_ISA_BEST, none = (attn_isa)ATTN_ISA_COUNT;
    expect(ATTN_NULL_POINTER, "gemm", attn_gemm_export_size(NULL, best, &bytes, &error), &error);
    expect(ATTN_NULL_POINTER, "bytes", attn_gemm_export_size(gemm, best, NULL, &error), &error);
    expect(ATTN_UNKNOWN_ISA, "isa", attn_gemm_export_size(gemm, none, &bytes, &error), &error);
    expect(ATTN_UNKNOWN_ISA, "isa", attn_gemm_export(gemm, (attn_isa)-1, memory, MEMORY, &error), &error);
    expect(ATTN_NULL_POINTER, "gemm", attn_gemm_export(NULL, best, memory, MEMORY, &error), &error);
    assert_ok(attn_gemm_export_size(gemm, best, &bytes, &error));
    expect(ATTN_NULL_POINTER, "blob", attn_gemm_export(gemm, best, NULL, bytes, &error), &error);
    expect(ATTN_MISALIGNED, "blob", attn_gemm_export(gemm, best, memory + 4, bytes, &error), &error);
    expect(ATTN_TOO_SMALL, "bytes", attn_gemm_export(gemm, best, memory, bytes - 1, &error), &error);
    expect(ATTN_NULL_POINTER, "layer", attn_layer_export_size(NULL, best, &bytes, &error), &error);
    expect(ATTN_NULL_POINTER, "bytes", attn_layer_export_size(layer, best, NULL, &error), &error);
    expect(ATTN_UNKNOWN_ISA, "isa", attn_layer_export_size(layer, none, &bytes, &error), &error);
    expect(ATTN_NULL_POINTER, "blob", attn_layer_export(layer, best, NULL, MEMORY, &error), &error);
    expect(ATTN_MISALIGNED, "blob", attn_layer_export(layer, best, memory + 4, MEMORY, &error), &error);
    expect(ATTN_TOO_SMALL, "bytes", attn_layer_export(layer, best, memory, 64, &error), &error);
    guarded_free(gemm);
    guarded_free(layer);
    free_weight(&w[0]);
    free_weight(&w[1]);
}

/* Fields of the header one by one, with a checksum that is right: the field's name. */
#define TAMPERED(expected, field, ...)                                                                                 \
    do {                                                                                                               \
        struct attn_blob_header kept = *header;                                                                        \
        attn_import_config config = config_of(&blob);                                                                  \
        __VA_ARGS__;                                                                                                   \
        sign(&blob);                                                                                                   \
        test_case("%s", #__VA_ARGS__);                                                                                 \
        refuses(&blob, &config, expected, field);                                                                      \
        *header = kept;                                                                                                \
    } while (0)

static void names_what_is_tampered_with(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct blob blob = new_blob(&random, weight_kinds[4], true);
    struct attn_blob_header *header = (struct attn_blob_header *)(void *)blob.data;
    TAMPERED(ATTN_BAD_VALUE, "blob.magic", header->magic[0] ^= 1);
    TAMPERED(ATTN_MISMATCH, "blob.byte_order", header->byte_order = 0x04030201);
    TAMPERED(ATTN_MISMATCH, "blob.version", header->version++);
    TAMPERED(ATTN_MISMATCH, "blob.kind", header->kind = 77);
    TAMPERED(ATTN_MISMATCH, "blob.kind", header->weights = 5);
    TAMPERED(ATTN_TOO_SMALL, "blob_bytes", header->bytes += 64);
    TAMPERED(ATTN_BAD_VALUE, "blob.bytes", header->bytes -= 64);
    TAMPERED(ATTN_BAD_SIZE, "blob.config", header->heads = 0);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->heads = 4);
    TAMPERED(ATTN_BAD_SIZE, "blob.config", header->kv_heads = 3);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->scale = NAN);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->kv_type = 77);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->arithmetic = 77);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->w[1].n += 1);
    TAMPERED(ATTN_BAD_SIZE, "blob.config", header->w[2].block = 0);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->w[2].scale_type = ATTN_BF16);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->w[0].has_zero_point = 2);
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[3].class_of_type = ATTN_CLASS_BF16);
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[3].type = ATTN_F32);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[3].cols = 0);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[3].cols = 64);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[3].k_unit = 3);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[3].flip = 0x80);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[3].flip = 256);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[3].beside = 4);
    TAMPERED(ATTN_BAD_VALUE, "blob.bytes", header->w[3].has_bias = 0);
    TAMPERED(ATTN_MISMATCH, "blob.format", header->w[0].k_unit = 4; config.mode = ATTN_IMPORT_IN_PLACE);
    header->data_checksum++;
    sign(&blob);
    REFUSES(ATTN_BAD_VALUE, "blob.data", config.verify = 1);
    guarded_free(blob.data);
}

/* INT8 with blocks said to have none, and the other way round. */
static void tells_blocks_of_int8(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    struct blob blob = new_blob(&random, (struct weight_kind){ATTN_INT8, 32, ATTN_F16, true, false}, false);
    struct attn_blob_header *header = (struct attn_blob_header *)(void *)blob.data;
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[0].block = ATTN_INT8_PART);
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[0].class_of_type = ATTN_CLASS_INT8);
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[0].class_of_type = ATTN_CLASS_F32);
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[0].type = ATTN_INT4);
    TAMPERED(ATTN_BAD_VALUE, "blob.config", header->w[0].block = 0);
    TAMPERED(ATTN_BAD_SIZE, "blob.config", header->w[0].block = 48);
    TAMPERED(ATTN_BAD_VALUE, "blob.bytes", header->w[0].block = 64);
    TAMPERED(ATTN_BAD_VALUE, "blob.bytes", header->w[0].has_zero_point = 0);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[0].beside = 4);
    guarded_free(blob.data);
    blob = new_blob(&random, (struct weight_kind){.type = ATTN_INT8}, false);
    header = (struct attn_blob_header *)(void *)blob.data;
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[0].block = 32);
    TAMPERED(ATTN_BAD_VALUE, "blob.class", header->w[0].class_of_type = ATTN_CLASS_INT8_BLOCKS);
    TAMPERED(ATTN_BAD_VALUE, "blob.format", header->w[0].beside = 0);
    guarded_free(blob.data);
}

/* Every byte of the header changed, and the checksum left as it was: refused. And the checksum made right: refused, or
 * what is taken stays within the blob. */
static void every_byte_of_a_header_counts(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    static const unsigned char changes[] = {0x01, 0x80, 0xff};
    for (size_t kind = 0; kind < weight_kind_count; kind++)
        for (int is_layer = 0; is_layer < 2; is_layer++) {
            struct blob blob = new_blob(&random, weight_kinds[kind], is_layer);
            struct attn_blob_header kept;
            memcpy(&kept, blob.data, sizeof kept);
            for (size_t i = 0; i < sizeof kept * 3; i += test_quick() ? 7 : 1) {
                attn_import_config config = config_of(&blob);
                attn_error error = {0};
                test_case("kind %zu, layer %d, byte %zu ^ %#x", kind, is_layer, i / 3, changes[i % 3]);
                blob.data[i / 3] = (char)(blob.data[i / 3] ^ changes[i % 3]);
                attn_status status = import(&blob, &config, &error);
                assert_int_not_equal(ATTN_OK, status);
                assert_memory_equal("blob", error.field, 4);
                sign(&blob);
                config.mode = (attn_import_mode)(i % 2 * ATTN_IMPORT_COPY);
                status = import(&blob, &config, &error);
                if (status != ATTN_OK)
                    assert_memory_equal("blob", error.field, 4);
                memcpy(blob.data, &kept, sizeof kept);
            }
            guarded_free(blob.data);
        }
}

/* A blob that is cut short, in memory of just that length. */
static void refuses_what_is_cut_short(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int is_layer = 0; is_layer < 2; is_layer++) {
        struct blob blob = new_blob(&random, weight_kinds[2], is_layer);
        size_t header = sizeof(struct attn_blob_header), step = test_quick() ? 13 : 1;
        for (size_t bytes = 0; bytes < blob.bytes; bytes += bytes <= header ? step : 64 * step) {
            struct blob cut = {is_layer, bytes, poisoned_alloc((bytes + 63) / 64 * 64, FLUSH_END)};
            memcpy(cut.data, blob.data, bytes);
            attn_import_config config = config_of(&cut);
            test_case("layer %d, %zu bytes", is_layer, bytes);
            refuses(&cut, &config, ATTN_TOO_SMALL, "blob_bytes");
            guarded_free(cut.data);
        }
        guarded_free(blob.data);
    }
}

/* Noise, and noise behind what a header begins with and a checksum that is right. */
static void refuses_noise(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int is_layer = 0; is_layer < 2; is_layer++) {
        struct blob blob = new_blob(&random, weight_kinds[3], is_layer);
        struct attn_blob_header kept;
        const size_t begin = offsetof(struct attn_blob_header, bytes);
        memcpy(&kept, blob.data, sizeof kept);
        for (size_t i = 0; i < (test_quick() ? 2000 : 20000); i++) {
            struct attn_blob_header noise = kept;
            attn_import_config config = config_of(&blob);
            attn_error error = {0};
            size_t first = i % 3 == 0 ? 0 : i % 3 == 1 ? begin : random_between(&random, begin, sizeof noise - 4);
            size_t count = i % 3 == 2 ? 4 : sizeof noise - first;
            for (size_t b = first; b < first + count; b++)
                ((char *)&noise)[b] = (char)random_below(&random, i % 2 ? 256 : 3);
            noise.checksum = attn_blob_checksum(&noise);
            memcpy(blob.data, &noise, sizeof noise);
            test_case("layer %d, noise %zu", is_layer, i);
            attn_status status = import(&blob, &config, &error);
            if (i % 3 < 2)
                assert_int_not_equal(ATTN_OK, status);
            if (status != ATTN_OK)
                assert_memory_equal("blob", error.field, 4);
        }
        guarded_free(blob.data);
    }
}

/* A scale that is not finite is found without a checksum of the data, wherever it is. */
static void refuses_scales_that_are_not_finite(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t kind = 0; kind < weight_kind_count; kind++) {
        const struct weight_kind *k = &weight_kinds[kind];
        if (k->type != ATTN_INT8 && k->type != ATTN_INT4)
            continue;
        size_t found = 0, bytes = k->scale_type == ATTN_F16 ? 2 : 4;
        struct weight weight = new_weight(&random, *k, IN, OUT, false);
        /* A scale of its own value, which is then looked for in the blob. */
        static const unsigned char mark[4] = {0x12, 0x34, 0x56, 0x41}, nan[4] = {0xff, 0xff, 0xff, 0xff};
        memcpy((char *)weight.scales + (OUT * weight.blocks - 1) * bytes, mark + 4 - bytes, bytes);
        attn_gemm *gemm = new_gemm(&weight, ATTN_ARITHMETIC_FASTEST);
        struct blob blob = {0};
        attn_error error = {0};
        assert_ok(attn_gemm_export_size(gemm, ATTN_ISA_BEST, &blob.bytes, &error));
        blob.data = guarded_alloc(blob.bytes, ATTN_ALIGNMENT, FLUSH_END);
        assert_ok(attn_gemm_export(gemm, ATTN_ISA_BEST, blob.data, blob.bytes, &error));
        for (size_t i = sizeof(struct attn_blob_header); i + bytes <= blob.bytes; i++)
            if (memcmp(blob.data + i, mark + 4 - bytes, bytes) == 0) {
                attn_import_config config = config_of(&blob);
                char kept[4];
                memcpy(kept, blob.data + i, bytes);
                memcpy(blob.data + i, nan, bytes);
                found += import(&blob, &config, &error) == ATTN_BAD_VALUE && strcmp(error.field, "blob.w.scales") == 0;
                memcpy(blob.data + i, kept, bytes);
            }
        test_case("kind %zu", kind);
        assert_true(found >= 1);
        guarded_free(gemm);
        guarded_free(blob.data);
        free_weight(&weight);
    }
}

/* A zero point of INT4 above 16 is found without a checksum of the data too. Each byte behind the header is set to 200
 * in turn: those of zero points are refused by that name. */
static void refuses_zero_points_above_16(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (size_t kind = 0; kind < weight_kind_count; kind++) {
        const struct weight_kind *k = &weight_kinds[kind];
        if (!k->has_zero_points || k->type != ATTN_INT4)
            continue;
        struct blob blob = new_blob(&random, *k, false);
        size_t found = 0;
        for (size_t i = sizeof(struct attn_blob_header); i < blob.bytes; i++) {
            attn_import_config config = config_of(&blob);
            attn_error error = {0};
            unsigned char kept = (unsigned char)blob.data[i];
            ((unsigned char *)blob.data)[i] = 200;
            size_t bytes = 0;
            attn_status status = attn_gemm_import_size(&config, &bytes, &error);
            found += status == ATTN_BAD_VALUE && strcmp(error.field, "blob.w.zero_points") == 0;
            ((unsigned char *)blob.data)[i] = kept;
        }
        test_case("kind %zu", kind);
        assert_true(found >= OUT * (IN / k->block));
        guarded_free(blob.data);
    }
}

/* An object whose weights lie in a blob is not written over that, be it for the panels or for the biases. */
static void keeps_a_blob_that_is_in_use(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    for (int i = 0; i < 4; i++) {
        bool is_layer = i / 2;
        struct blob blob = new_blob_with(&random, weight_kinds[0], is_layer, i % 2);
        attn_import_config config = config_of(&blob);
        attn_error error = {0};
        attn_gemm *gemm = NULL;
        attn_layer *layer = NULL;
        size_t bytes = 0;
        char *copy = guarded_alloc(blob.bytes, 1, FLUSH_END);
        memcpy(copy, blob.data, blob.bytes);
        assert_ok(is_layer ? attn_layer_import_size(&config, &bytes, &error)
                           : attn_gemm_import_size(&config, &bytes, &error));
        void *object = poisoned_alloc(bytes, FLUSH_END);
        assert_ok(is_layer ? attn_layer_import(&config, object, bytes, &layer, &error)
                           : attn_gemm_import(&config, object, bytes, &gemm, &error));
        attn_status status = is_layer ? attn_layer_export(layer, ATTN_ISA_BEST, blob.data, blob.bytes, &error)
                                      : attn_gemm_export(gemm, ATTN_ISA_BEST, blob.data, blob.bytes, &error);
        assert_status(ATTN_OVERLAP, status);
        assert_string_equal("blob", error.field);
        assert_memory_equal(copy, blob.data, blob.bytes);
        guarded_free(copy);
        guarded_free(object);
        guarded_free(blob.data);
    }
}

static int set_up(void **state) {
    (void)state;
    struct test_random random = test_random(__func__);
    random_fill(&random, TEST_NORMAL, x, ROWS * STRIDE);
    memset(memory, 0xa5, MEMORY);
    memcpy(before, memory, MEMORY);
    return 0;
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(refuses_bad_imports, set_up),
        cmocka_unit_test_setup(refuses_bad_exports, set_up),
        cmocka_unit_test_setup(names_what_is_tampered_with, set_up),
        cmocka_unit_test_setup(tells_blocks_of_int8, set_up),
        cmocka_unit_test_setup(every_byte_of_a_header_counts, set_up),
        cmocka_unit_test_setup(refuses_what_is_cut_short, set_up),
        cmocka_unit_test_setup(refuses_noise, set_up),
        cmocka_unit_test_setup(refuses_zero_points_above_16, set_up),
        cmocka_unit_test_setup(keeps_a_blob_that_is_in_use, set_up),
        cmocka_unit_test_setup(refuses_scales_that_are_not_finite, set_up),
    };
    return test_run(tests);
}
