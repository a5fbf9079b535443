/* The example's files: every way in which one can lie is refused with a sentence that names the culprit. */
#define _GNU_SOURCE 1 /* mkdtemp, P_tmpdir */
#include "dates_file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct model_config best = {.isa = ATTN_ISA_BEST};

/* ---- Files in memory ---- */

static void put_length(unsigned char *data, uint64_t length) {
    for (size_t i = 0; i < 8; i++)
        data[i] = (unsigned char)(length >> (8 * i));
}

static size_t header_length(const struct bytes *file) {
    size_t length = 0;
    for (size_t i = 8; i-- > 0;)
        length = length << 8 | file->data[i];
    return length;
}

/* A file of this header, padded with spaces to a multiple of 4, and data. It ends at a guard page: reading beyond
 * faults. */
static struct bytes build(const char *header, size_t length, const void *data, size_t size) {
    const size_t padded = (length + 3) / 4 * 4;
    struct bytes file = {guarded_alloc(8 + padded + size, 4, FLUSH_END), 8 + padded + size};
    put_length(file.data, padded);
    memcpy(file.data + 8, header, length);
    memset(file.data + 8 + length, ' ', padded - length);
    if (size > 0)
        memcpy(file.data + 8 + padded, data, size);
    return file;
}

/* The same file with the first `from` behind `anchor` in its header replaced. */
static struct bytes edit(const struct bytes *file, const char *anchor, const char *from, const char *to) {
    const size_t length = header_length(file);
    char *header = malloc(length + strlen(to) + 1);
    assert_non_null(header);
    memcpy(header, file->data + 8, length);
    header[length] = 0;
    char *at = strstr(header, anchor);
    at = at ? strstr(at, from) : NULL;
    if (!at)
        test_fail("the header has no %s behind %s", from, anchor);
    char *rest = at + strlen(from);
    memmove(at + strlen(to), rest, strlen(rest) + 1);
    memcpy(at, to, strlen(to));
    const struct bytes edited = build(header, strlen(header), file->data + 8 + length, file->size - 8 - length);
    free(header);
    return edited;
}

static void assert_parse_refuses(const struct bytes *bytes, const char *culprit) {
    struct safetensors file;
    struct error error = {""};
    if (safetensors_parse(&file, bytes->data, bytes->size, &error))
        test_fail("accepted, though \"%s\" is wrong", culprit);
    assert_names(&error, culprit);
}

static void assert_model_refuses(const struct bytes *bytes, const char *culprit) {
    struct model model;
    struct error error = {""};
    if (create(&model, bytes, &best, &error))
        test_fail("accepted, though \"%s\" is wrong", culprit);
    assert_names(&error, culprit);
}

/* ---- Hostile headers ---- */

#define ENTRY(dtype, shape, offsets) "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define FIRST                        "\"first\":" ENTRY("\"F32\"", "[2]", "[0,8]")
#define SECOND                       "\"second\":" ENTRY("\"I32\"", "[1,2]", "[8,16]")
#define ONE(dtype, shape, offsets)   "{\"culprit\":" ENTRY(dtype, shape, offsets) "}"
#define META(value)                  "{\"__metadata__\":" value "," FIRST "," SECOND "}"

/* Each header stands before 16 bytes of data; the error must hold both words. */
static const struct {
    const char *header, *culprit, *reason;
} hostile_headers[] = {
    {ONE("\"F32\"", "[6]", "[0,24]"), "\"culprit\"", "byte 24, the file holds 16"},
    {ONE("\"F32\"", "[0]", "[20,20]"), "\"culprit\"", "byte 20"},
    {ONE("\"F32\"", "[2]", "[9007199254740984,9007199254740992]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[0,18446744073709551616]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[0,1e999]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[-8,0]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[0,8.5]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[\"0\",8]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[8,0]"), "\"culprit\"", "end before they begin"},
    {ONE("\"F32\"", "[2]", "[0]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[0,8,8]"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "8"), "\"culprit\"", "data_offsets"},
    {ONE("\"F32\"", "[2]", "[2,10]"), "\"culprit\"", "aligned"},
    {ONE("\"F32\"", "[3]", "[0,8]"), "\"culprit\"", "span 8 bytes, dtype and shape need 12"},
    {ONE("\"F32\"", "[]", "[0,16]"), "\"culprit\"", "span 16 bytes, dtype and shape need 4"},
    {ONE("\"F32\"", "[4294967296,4294967296,4]", "[0,0]"), "\"culprit\"", "overflows"},
    {ONE("\"F32\"", "[4611686018427387904]", "[0,0]"), "\"culprit\"", "shape"},
    {ONE("\"F32\"", "[-2]", "[0,8]"), "\"culprit\"", "shape"},
    {ONE("\"F32\"", "[2.5]", "[0,8]"), "\"culprit\"", "shape"},
    {ONE("\"F32\"", "[null]", "[0,8]"), "\"culprit\"", "shape"},
    {ONE("\"F32\"", "[1,1,1,1,2]", "[0,8]"), "\"culprit\"", "more than 4 dimensions"},
    {ONE("\"F32\"", "2", "[0,8]"), "\"culprit\"", "shape"},
    {ONE("\"F64\"", "[1]", "[0,8]"), "\"culprit\"", "dtype \"F64\""},
    {ONE("32", "[2]", "[0,8]"), "\"culprit\"", "dtype"},
    {"{\"culprit\":{\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", "\"culprit\"", "dtype"},
    {"{\"culprit\":{\"dtype\":\"F32\",\"data_offsets\":[0,8],\"x\":1}}", "\"culprit\"", "shape"},
    {"{\"culprit\":{\"dtype\":\"F32\",\"shape\":[2],\"x\":1}}", "\"culprit\"", "data_offsets"},
    {"{\"culprit\":{\"dtype\":\"F32\",\"shape\":[2]}}", "\"culprit\"", "not an object of"},
    {"{\"culprit\":7}", "\"culprit\"", "not an object of"},
    {"{\"bad\\u001bname\":7}", "\"bad?name\"", "not an object of"},
    {"{" FIRST "," SECOND ",\"third\":" ENTRY("\"F32\"", "[1]", "[4,8]") "}", "\"first\" and \"third\"", "overlap"},
    {"{" FIRST "," SECOND ",\"third\":" ENTRY("\"F32\"", "[1]", "[12,16]") "}", "\"second\" and \"third\"", "overlap"},
    {"{" FIRST "," SECOND ",\"third\":" ENTRY("\"F32\"", "[4]", "[0,16]") "}", "\"third\"", "overlap"},
    {"{" FIRST "}", "last 8 bytes", "no tensor"},
    {"{" SECOND "}", "8 bytes before tensor \"second\"", "no tensor"},
    {"{}", "16 bytes", "no tensor"},
    {"{" FIRST "," SECOND "," FIRST "}", "\"first\"", "twice"},
    {META("{\"key\":\"1\",\"key\":\"2\"}"), "\"key\"", "twice"},
    {META("{\"key\":1}"), "\"key\"", "not a string"},
    {META("[]"), "__metadata__", "not an object"},
    {"[" ENTRY("\"F32\"", "[4]", "[0,16]") "]", "header", "not a JSON object"},
    {"null", "header", "not a JSON object"},
    {"", "header", "not JSON"},
    {"{", "header", "not JSON"},
    {"{" FIRST "," SECOND, "header", "not JSON"},
    {"{" FIRST "," SECOND "}x", "header", "not JSON"},
    {"{" FIRST "," SECOND ",\"a", "header", "not JSON"},
    {"{" FIRST "," SECOND ",\"a\\", "header", "not JSON"},
    {"{" FIRST "," SECOND ",\"\\ud800\":7}", "header", "not JSON"},
    {"\xff\xfe", "header", "not JSON"},
};

static const float sixteen_bytes[4] = {1, 2, 3, 4};

static void hostile_headers_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(hostile_headers); i++) {
        const char *header = hostile_headers[i].header;
        test_case("header %s", header);
        const struct bytes file = build(header, strlen(header), sixteen_bytes, sizeof sixteen_bytes);
        assert_parse_refuses(&file, hostile_headers[i].culprit);
        assert_parse_refuses(&file, hostile_headers[i].reason);
        guarded_free(file.data);
    }
}

/* What the hostile ones are variations of. */
static void honest_file_is_read(void **state) {
    (void)state;
    const char *header = META("{\"key\":\"value\"}");
    const struct bytes bytes = build(header, strlen(header), sixteen_bytes, sizeof sixteen_bytes);
    struct safetensors file;
    struct error error = {""};
    assert_true(safetensors_parse(&file, bytes.data, bytes.size, &error));
    assert_int_equal(file.count, 2);
    assert_string_equal(safetensors_metadata(&file, "key", &error), "value");
    const float *first = safetensors_get(&file, "first", DTYPE_F32, 1, (const size_t[]){2}, &error);
    assert_non_null(first);
    assert_memory_equal(first, sixteen_bytes, 8);
    const void *second = safetensors_get(&file, "second", DTYPE_I32, 2, (const size_t[]){1, 2}, &error);
    assert_non_null(second);
    assert_memory_equal(second, sixteen_bytes + 2, 8);

    assert_null(safetensors_get(&file, "third", DTYPE_F32, 1, (const size_t[]){2}, &error));
    assert_names(&error, "\"third\" is missing");
    assert_null(safetensors_get(&file, "first", DTYPE_I32, 1, (const size_t[]){2}, &error));
    assert_names(&error, "\"first\" is F32, not I32");
    assert_null(safetensors_get(&file, "second", DTYPE_I32, 2, (const size_t[]){2, 1}, &error));
    assert_names(&error, "\"second\" has shape [1, 2], not [2, 1]");
    assert_null(safetensors_get(&file, "second", DTYPE_I32, 1, (const size_t[]){2}, &error));
    assert_names(&error, "\"second\" has shape [1, 2], not [2]");
    assert_null(safetensors_metadata(&file, "keys", &error));
    assert_names(&error, "\"keys\" is missing");
    safetensors_free(&file);
    guarded_free(bytes.data);
}

static void header_length_is_checked(void **state) {
    (void)state;
    const char *header = "{" FIRST "," SECOND "}";
    const struct bytes file = build(header, strlen(header), sixteen_bytes, sizeof sixteen_bytes);
    const uint64_t beyond[] = {file.size - 7, file.size, UINT32_MAX, (uint64_t)1 << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < COUNT(beyond); i++) {
        test_case("header length %llu", (unsigned long long)beyond[i]);
        put_length(file.data, beyond[i]);
        assert_parse_refuses(&file, "header length");
        assert_parse_refuses(&file, "beyond the file");
    }
    put_length(file.data, 5);
    assert_parse_refuses(&file, "unaligned");
    put_length(file.data, 0);
    assert_parse_refuses(&file, "header: not JSON");
    guarded_free(file.data);
}

static void short_files_are_refused(void **state) {
    (void)state;
    const char *header = "{" FIRST "," SECOND "}";
    const struct bytes whole = build(header, strlen(header), sixteen_bytes, sizeof sixteen_bytes);
    for (size_t size = 0; size < whole.size; size++) {
        test_case("the first %zu of %zu bytes", size, whole.size);
        const struct bytes part = {guarded_alloc(size, 4, FLUSH_END), size};
        memcpy(part.data, whole.data, size);
        assert_parse_refuses(&part, size < whole.size - sizeof sixteen_bytes ? "header length" : "data_offsets reach");
        guarded_free(part.data);
    }
    guarded_free(whole.data);
}

static void zero_bytes_are_no_white_space(void **state) {
    (void)state;
    static const char header[] = "{" FIRST "," SECOND "}\0\0\0";
    const struct bytes file = build(header, sizeof header, sixteen_bytes, sizeof sixteen_bytes);
    assert_parse_refuses(&file, "zero byte");
    guarded_free(file.data);
}

static void absurd_headers_are_refused(void **state) {
    (void)state;
    const size_t size = SAFETENSORS_MAX_HEADER + 4;
    char *header = malloc(size);
    assert_non_null(header);
    memset(header, ' ', size);
    struct bytes file = build(header, size, sixteen_bytes, sizeof sixteen_bytes);
    assert_parse_refuses(&file, "header length");
    assert_parse_refuses(&file, "more than 1048576");
    guarded_free(file.data);

    memset(header, '[', size);
    file = build(header, SAFETENSORS_MAX_HEADER, sixteen_bytes, sizeof sixteen_bytes);
    assert_parse_refuses(&file, "header: not JSON");
    guarded_free(file.data);

    size_t length = (size_t)snprintf(header, size, "{");
    for (int i = 0; i <= SAFETENSORS_MAX_TENSORS; i++)
        length += (size_t)snprintf(header + length, size - length, "%s\"%d\":0", i ? "," : "", i);
    length += (size_t)snprintf(header + length, size - length, "}");
    file = build(header, length, sixteen_bytes, sizeof sixteen_bytes);
    assert_parse_refuses(&file, "4097 tensors, more than 4096");
    guarded_free(file.data);
    free(header);
}

/* ---- Hostile models: the real file with one thing changed ---- */

static void missing_names_are_named(void **state) {
    (void)state;
    const struct bytes real = read_whole("dates.safetensors");
    struct safetensors file;
    struct error error;
    assert_true(safetensors_parse(&file, real.data, real.size, &error));
    for (size_t i = 0; i < file.count; i++) {
        char quoted[96], missing[128];
        snprintf(quoted, sizeof quoted, "\"%s\"", file.tensors[i].name);
        snprintf(missing, sizeof missing, "tensor %s is missing", quoted);
        test_case("without %s", quoted);
        const struct bytes hostile = edit(&real, quoted, quoted, "\"another\"");
        assert_model_refuses(&hostile, missing);
        guarded_free(hostile.data);
    }
    safetensors_free(&file);
    guarded_free(real.data);
}

static void wrong_shapes_and_types_are_named(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"\"shape\": [", "\"shape\": [1, "},
        {"\"dtype\": \"F32\"", "\"dtype\": \"I32\""},
    };
    const struct bytes real = read_whole("dates.safetensors");
    struct safetensors file;
    struct error error;
    assert_true(safetensors_parse(&file, real.data, real.size, &error));
    for (size_t i = 0; i < file.count * COUNT(changes); i++) {
        const char *const *change = changes[i % COUNT(changes)];
        char quoted[96];
        snprintf(quoted, sizeof quoted, "\"%s\"", file.tensors[i / COUNT(changes)].name);
        test_case("%s with %s", quoted, change[1]);
        const struct bytes hostile = edit(&real, quoted, change[0], change[1]);
        assert_model_refuses(&hostile, quoted);
        guarded_free(hostile.data);
    }
    safetensors_free(&file);
    guarded_free(real.data);
}

static const struct {
    const char *from, *to, *culprit;
} hostile_metadata[] = {
    {"\"__metadata__\"", "\"__metadata__\": {}, \"culprit\"", "\"culprit\""},
    {"\"vocab\"", "\"words\"", "\"vocab\" is missing"},
    {"\"heads\"", "\"necks\"", "\"heads\" is missing"},
    {"\"hidden\"", "\"shown\"", "\"hidden\" is missing"},
    {"\"heads\": \"3\"", "\"heads\": \"7\"", "heads: 7 do not divide hidden 60"},
    {"\"heads\": \"3\"", "\"heads\": \"0\"", "\"heads\" is \"0\""},
    {"\"heads\": \"3\"", "\"heads\": \"-5\"", "\"heads\" is \"-5\""},
    {"\"heads\": \"3\"", "\"heads\": \"5x\"", "\"heads\" is \"5x\""},
    {"\"heads\": \"3\"", "\"heads\": \" 5\"", "\"heads\" is \" 5\""},
    {"\"heads\": \"3\"", "\"heads\": \"\"", "\"heads\" is \"\""},
    {"\"heads\": \"3\"", "\"heads\": 5", "\"heads\" is not a string"},
    {"\"hidden\": \"60\"", "\"hidden\": \"18446744073709551716\"", "\"hidden\" is \"18446744073709551716\""},
    {"\"hidden\": \"60\"", "\"hidden\": \"4097\"", "\"hidden\" is \"4097\""},
    {"\"hidden\": \"60\"", "\"hidden\": \"30\"", "embedding.weight"},
    {"\"vocab\": \"[", "\"vocab\": \"", "vocab: not a JSON array"},
    {"\"vocab\": \"[", "\"vocab\": \"{}[", "vocab: not a JSON array"},
    {"\"vocab\": \"[", "\"vocab\": \"[]\", \"x\": \"[", "vocab: 0 entries"},
    {"\\\"<pad>\\\", ", "", "vocab: entry 0 is \"<bos>\", not <pad>"},
    {"\\\"<none>\\\", ", "", "vocab: entry 3 is \" \", not <none>"},
    {"\\\"A\\\", ", "", "vocab: 103 entries, but embedding.weight has 104 rows"},
    {"\\\"A\\\"", "\\\"A\\\", \\\"\xc3\xa9\\\"", "vocab: 105 entries, but embedding.weight has 104 rows"},
    {"\\\"A\\\"", "\\\"B\\\"", "vocab: entries 37 and 38 are the same"},
    {"\\\"A\\\"", "\\\"AA\\\"", "vocab: entry 37 is not a single character"},
    {"\\\"A\\\"", "\\\"\\\"", "vocab: entry 37 is not a single character"},
    {"\\\"A\\\"", "\\\"\xc3\\\"", "vocab: entry 37 is not a single character"},
    {"\\\"A\\\"", "65", "vocab: entry 37 is not a string"},
};

static void hostile_metadata_is_refused(void **state) {
    (void)state;
    const struct bytes real = read_whole("dates.safetensors");
    for (size_t i = 0; i < COUNT(hostile_metadata); i++) {
        test_case("%s instead of %s", hostile_metadata[i].to, hostile_metadata[i].from);
        const struct bytes hostile = edit(&real, "{", hostile_metadata[i].from, hostile_metadata[i].to);
        assert_model_refuses(&hostile, hostile_metadata[i].culprit);
        guarded_free(hostile.data);
    }
    guarded_free(real.data);
}

/* ---- Files on disk ---- */

static void assert_load_refuses(const char *path, const char *culprit) {
    struct model model;
    struct error error = {""};
    if (model_load(&model, path, &best, &error))
        test_fail("%s is accepted", path);
    assert_names(&error, path);
    assert_names(&error, culprit);
}

static void write_file(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void files_that_cannot_be_read_are_named(void **state) {
    (void)state;
    const char *temporary = getenv("TMPDIR");
    char folder[PATH_MAX], path[PATH_MAX + 32];
    const struct bytes real = read_whole("dates.safetensors");
    snprintf(folder, sizeof folder, "%s/attn_dates_XXXXXX", temporary && *temporary ? temporary : P_tmpdir);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_load_refuses(folder, "directory");
    assert_load_refuses(path, "No such file");
    write_file(path, "", 0);
    assert_load_refuses(path, "empty");
    write_file(path, real.data, 7);
    assert_load_refuses(path, "header length");
    write_file(path, real.data, 4096);
    assert_load_refuses(path, "header length");
    write_file(path, real.data, real.size - 1);
    assert_load_refuses(path, "\"positional_encoding\": data_offsets reach");
    const struct bytes hostile = edit(&real, "{", "\"output.bias\"", "\"output.base\"");
    write_file(path, hostile.data, hostile.size);
    assert_load_refuses(path, "\"output.bias\" is missing");
    assert_int_equal(truncate(path, (off_t)SAFETENSORS_MAX_FILE + 1), 0);
    assert_load_refuses(path, "more than");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    guarded_free(hostile.data);
    guarded_free(real.data);
}

/* ---- Fuzzing ---- */

/* Changes one byte: a bit of it, all of it, or one digit to another, which leaves JSON that can be read. */
static void mutate_byte(unsigned char *data, size_t size, struct test_random *random) {
    static const char json[] = "{}[]\",:0123456789.-eE \\ntfu";
    size_t at = random_below(random, size);
    switch (random_below(random, 3)) {
    case 0:
        data[at] ^= (unsigned char)(1u << random_below(random, 8));
        break;
    case 1:
        data[at] = (unsigned char)json[random_below(random, sizeof json - 1)];
        break;
    default:
        while (at + 1 < size && !(data[at] >= '0' && data[at] <= '9'))
            at++;
        data[at] = (unsigned char)random_between(random, '0', '9');
    }
}

/* Changes one to three bytes of length or header, and sometimes cuts the file. */
static struct bytes mutate(const struct bytes *real, struct test_random *random) {
    const size_t size = random_below(random, 8) == 0 ? random_below(random, real->size) : real->size;
    const size_t header = 8 + header_length(real) < size ? 8 + header_length(real) : size;
    struct bytes mutant = {guarded_alloc(size, 4, FLUSH_END), size};
    memcpy(mutant.data, real->data, size);
    for (size_t changes = random_between(random, 1, 3); changes > 0 && header > 8; changes--) {
        if (random_below(random, 16) == 0)
            mutate_byte(mutant.data, 8, random);
        else
            mutate_byte(mutant.data + 8, header - 8, random);
    }
    return mutant;
}

static void mutants_load_or_are_refused(void **state) {
    (void)state;
    const size_t runs = test_quick() ? 200 : 2000;
    const struct bytes real = read_whole("dates.safetensors");
    struct test_random random = test_random(__func__);
    size_t loaded = 0;
    for (size_t run = 0; run < runs; run++) {
        struct model model;
        struct error error = {""};
        char answer[MODEL_MAX_TEXT];
        const struct bytes mutant = mutate(&real, &random);
        test_case("mutant %zu", run);
        if (create(&model, &mutant, &best, &error)) {
            loaded++;
            if (!model_rewrite_text(&model, "1 Jan 2000", 10, answer, &error))
                assert_string_not_equal(error.text, "");
            model_free(&model);
        } else {
            assert_string_not_equal(error.text, "");
        }
        guarded_free(mutant.data);
    }
    print_message("%zu of %zu mutants load\n", loaded, runs);
    assert_true(loaded < runs);
    assert_true(loaded > 0 || test_quick()); /* about one in seventy files can be loaded */
    guarded_free(real.data);
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_file_is_read),           cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(header_length_is_checked),      cmocka_unit_test(short_files_are_refused),
        cmocka_unit_test(zero_bytes_are_no_white_space), cmocka_unit_test(absurd_headers_are_refused),
        cmocka_unit_test(missing_names_are_named),       cmocka_unit_test(wrong_shapes_and_types_are_named),
        cmocka_unit_test(hostile_metadata_is_refused),   cmocka_unit_test(files_that_cannot_be_read_are_named),
        cmocka_unit_test(mutants_load_or_are_refused),
    };
    return test_run(tests);
}
