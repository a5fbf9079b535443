/* The example's model: the real file rewrites dates, with the same bits on every ISA that this machine has, in every
 * type; what cannot be rewritten is explained. test_dates_files.c has files that lie. */
#include "dates_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calendar.h"
#include "evaluate.h"
#include "heatmap.h"

static const struct model_config best = {.isa = ATTN_ISA_BEST};

/* ---- Characters ---- */

static void invalid_utf8_is_seen(void **state) {
    (void)state;
    static const char *const invalid[] = {
        "\x80",         "\xc3",         "\xc3(",        "\xc0\x80",         "\xc1\xbf",
        "\xe5\xb9",     "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
        "\xf8\x88\x80", "\xff",         "\xf0\x9f\x98"};
    uint32_t character = 0;
    for (size_t i = 0; i < COUNT(invalid); i++) {
        test_case("invalid %zu", i);
        assert_int_equal(utf8_decode(invalid[i], strlen(invalid[i]), &character), 0);
    }
    assert_int_equal(utf8_decode("", 0, &character), 0);
    assert_int_equal(utf8_decode("\xc3\xa9", 1, &character), 0);
}

static void every_character_survives_utf8(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char text[4];
        uint32_t back = 0;
        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        const size_t bytes = utf8_encode(c, text);
        if (utf8_decode(text, bytes, &back) != bytes || back != c)
            test_fail("U+%04X becomes U+%04X", (unsigned)c, (unsigned)back);
    }
}

static void bad_dates_are_explained(void **state) {
    (void)state;
    static const struct {
        const char *text, *culprit;
    } dates[] = {
        {"", "no characters"},
        {"1/9/19\xc3\xa9"
         "8",
         "character 7, \"\xc3\xa9\" (U+00E9)"},
        {"\xe6\x97\xa5\xc3\xa9", "character 2, \"\xc3\xa9\" (U+00E9)"},
        {"12\x1b", "character 3, \"?\" (U+001B)"},
        {"12\xff", "character 3 is not valid UTF-8"},
        {"00000000001111111111222222222233333333334444444444555555555566666", "more than 64 characters"},
        {"yesterday", "sees no date"},
        {"12:30", "sees no date"},
        {"July the fourth", "sees no date"},
        {"2023-02-30", "reads \"2023-02-30\", which is no day"},
        {"13/13/2013", "reads \"2013-13-13\", which is no day"},
        {"31/04/2020", "reads \"2020-04-31\", which is no day"},
        {"February 29, 2021", "reads \"2021-02-29\", which is no day"},
    };
    const struct bytes real = read_whole("dates.safetensors");
    struct model model;
    struct error error = {""};
    char answer[MODEL_MAX_TEXT];
    assert_true(create(&model, &real, &best, &error));
    for (size_t i = 0; i < COUNT(dates); i++) {
        assert_false(model_rewrite_text(&model, dates[i].text, strlen(dates[i].text), answer, &error));
        assert_names(&error, dates[i].culprit);
    }
    assert_false(model_rewrite_text(&model, "1\0002", 3, answer, &error));
    assert_names(&error, "character 2");
    assert_true(model_rewrite_text(&model, "1 Jan 2000", 10, answer, &error));
    assert_string_equal(answer, "2000-01-01");
    model_free(&model);
    guarded_free(real.data);
}

/* ---- Calendar ---- */

static void days_of_the_calendar_are_known(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is_day;
    } days[] = {
        {"2024-02-29", true},   {"2023-02-29", false}, {"2000-02-29", true},   {"1900-02-29", false},
        {"2020-04-30", true},   {"2020-04-31", false}, {"1999-12-31", true},   {"1999-12-32", false},
        {"1999-12-00", false},  {"1999-00-01", false}, {"1999-13-01", false},  {"9999-01-01", true},
        {"1999-1-01", false},   {"1999-01-1", false},  {"199-01-01", false},   {"1999/01/01", false},
        {"1999-01-01 ", false}, {"1999-01-0x", false}, {" 1999-01-01", false}, {"", false},
    };
    for (size_t i = 0; i < COUNT(days); i++) {
        test_case("%s", days[i].text);
        assert_int_equal(calendar_has(days[i].text), days[i].is_day);
    }
    size_t count = 0;
    for (int n = 0; n <= 9999; n++) {
        char text[24];
        snprintf(text, sizeof text, "2023-%02d-%02d", n / 100, n % 100);
        count += calendar_has(text);
    }
    assert_int_equal(count, 365);
}

/* ---- The real model ---- */

/* Calls `check` with the real model in these types on each ISA of this machine. */
static void on_each_isa_in(attn_type weights, attn_type cache, void (*check)(struct model *model)) {
    const struct bytes real = read_whole("dates.safetensors");
    for (int isa = ATTN_ISA_BEST + 1; isa < ATTN_ISA_COUNT; isa++) {
        const struct model_config config = {(attn_isa)isa, weights, cache};
        struct model model;
        struct error error = {""};
        if (!attn_isa_supported(config.isa))
            continue;
        test_case("on %s, weights %s, caches %s", attn_isa_name(config.isa), model_type_name(weights),
                  model_type_name(cache));
        if (!create(&model, &real, &config, &error))
            test_fail("%s", error.text);
        check(&model);
        model_free(&model);
    }
    guarded_free(real.data);
}

static void on_each_isa(void (*check)(struct model *model)) {
    on_each_isa_in(ATTN_F32, ATTN_F32, check);
}

static void check_dates(struct model *model) {
    static const char *const dates[][2] = {
        {"Wednesday, 3rd of March 2021", "2021-03-03"},
        {"2021\xe5\xb9\xb4"
         "3\xe6\x9c\x88"
         "5\xe6\x97\xa5",
         "2021-03-05"},
        {"04mar2007", "2007-03-04"},
        {"1/9/1958", "1958-01-09"},
        {"13.05.2055", "2055-05-13"},
        {"2034-07-29", "2034-07-29"},
        {"30/11/2026", "2026-11-30"},
        {"11/12/2026", "2026-11-12"},
        {"12.3.1987", "1987-03-12"},
        {"July the fourth, 1999", "1999-07-04"},
        {"4th of July 1999", "1999-07-04"},
        {"the twenty-first of May 2010", "2010-05-21"},
        {"Jul 4 99", "1999-07-04"},
        {"1/2/69", "1969-01-02"},
        {"1.2.68", "2068-02-01"},
        {"February 29, 2024", "2024-02-29"},
    };
    for (size_t i = 0; i < COUNT(dates); i++) {
        char answer[MODEL_MAX_TEXT];
        struct error error = {""};
        if (!model_rewrite_text(model, dates[i][0], strlen(dates[i][0]), answer, &error))
            test_fail("%s", error.text);
        assert_string_equal(answer, dates[i][1]);
    }
}

static void dates_are_rewritten(void **state) {
    (void)state;
    on_each_isa(check_dates);
}

/* Inputs of every length run in the memory that was allocated when the model was loaded. */
static void check_lengths(struct model *model) {
    const struct buffer *const buffers[] = {&model->x, &model->y, &model->middle, &model->logits, &model->workspace};
    struct buffer before[COUNT(buffers)];
    struct test_random random = test_random(__func__);
    int32_t source[MODEL_MAX_POSITIONS], answer[MODEL_MAX_POSITIONS];
    for (size_t i = 0; i < COUNT(buffers); i++)
        before[i] = *buffers[i];
    for (size_t length = 1; length <= model->positions; length++) {
        struct error error = {""};
        size_t answer_length = SIZE_MAX;
        for (size_t i = 0; i < length; i++)
            source[i] = (int32_t)random_below(&random, model->vocabulary.size);
        if (!model_rewrite(model, source, length, answer, &answer_length, &error))
            test_fail("length %zu: %s", length, error.text);
        assert_true(answer_length <= model->positions);
    }
    for (size_t i = 0; i < COUNT(buffers); i++)
        assert_memory_equal(buffers[i], &before[i], sizeof before[i]);
}

static void every_length_fits(void **state) {
    (void)state;
    on_each_isa(check_lengths);
}

enum { BATCH = 3, SOURCE = 20, TARGET = 11, LOGITS = 104 };

static const int64_t batch_lengths[BATCH] = {20, 9, 1};

static void fill_batch(int32_t *source, int32_t *target) {
    struct test_random random = test_random(__func__);
    for (size_t i = 0; i < BATCH * SOURCE; i++)
        source[i] = (int32_t)random_between(&random, FIRST_CHARACTER, LOGITS - 1);
    for (size_t i = 0; i < BATCH * TARGET; i++)
        target[i] = i % TARGET == 0 ? TOKEN_BOS : (int32_t)random_between(&random, FIRST_CHARACTER, LOGITS - 1);
}

/* Logits of the last ISA that was checked, to be compared with the next one's. */
static float earlier_logits[BATCH * TARGET * LOGITS];
static bool earlier;

static void check_batch(struct model *model) {
    int32_t source[BATCH * SOURCE], target[BATCH * TARGET];
    float logits[BATCH * TARGET * LOGITS];
    struct forced_batch batch = {.batch = BATCH,
                                 .source_length = SOURCE,
                                 .target_length = TARGET,
                                 .source = source,
                                 .source_lengths = batch_lengths,
                                 .target = target};
    struct error error = {""};
    assert_int_equal(model->vocabulary.size, LOGITS);
    fill_batch(source, target);
    if (!model_force(model, &batch, &error))
        test_fail("%s", error.text);
    memcpy(logits, batch.logits, sizeof logits);
    if (earlier)
        assert_same_bits(earlier_logits, logits, COUNT(logits));
    memcpy(earlier_logits, logits, sizeof logits);
    earlier = true;

    for (size_t b = 0; b < BATCH; b++) {
        struct forced_batch alone = batch;
        alone.batch = 1;
        alone.source_length = (size_t)batch_lengths[b];
        alone.source = source + b * SOURCE;
        alone.source_lengths = batch_lengths + b;
        alone.target = target + b * TARGET;
        if (!model_force(model, &alone, &error))
            test_fail("%s", error.text);
        assert_same_bits(logits + b * TARGET * LOGITS, alone.logits, TARGET * LOGITS);
    }
}

/* What comes out in each type: how many of the 1,000 dates are right, and the largest differences of the encoder's
 * output and of the logits that come through the caches, over the 16 sequences that PyTorch computed in F32. They are
 * the same on every machine, as the bits are; docs/accuracy.md has them too. */
static const struct {
    attn_type weights, cache;
    size_t right;
    double encoder, logits;
} in_types[] = {
    {ATTN_F32, ATTN_F32, 1000, 2.03e-6, 2.67e-5},  {ATTN_BF16, ATTN_BF16, 1000, 0.0199, 0.0844},
    {ATTN_F16, ATTN_F16, 1000, 0.00102, 0.00816},  {ATTN_INT8, ATTN_F32, 1000, 0.0532, 0.363},
    {ATTN_INT8, ATTN_BF16, 1000, 0.0556, 0.353},   {ATTN_INT4, ATTN_F32, 999, 0.464, 2.64},
    {ATTN_F32, ATTN_BF16, 1000, 0.0138, 0.0537},   {ATTN_F32, ATTN_F16, 1000, 2.03e-6, 0.00347},
    {ATTN_F32, ATTN_INT8, 1000, 2.03e-6, 0.0806},  {ATTN_F32, ATTN_F8_E4M3, 1000, 2.03e-6, 0.642},
    {ATTN_F32, ATTN_F8_E5M2, 1000, 2.03e-6, 1.07},
};

/* On each ISA, and for a sequence alone as in a padded batch. */
static void logits_have_the_same_bits(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(in_types); i++) {
        earlier = false;
        on_each_isa_in(in_types[i].weights, in_types[i].cache, check_batch);
        assert_true(earlier);
    }
}

/* The last step's logits, from the caches, are those of the decoder that sees the whole answer at once. */
static void check_steps(struct model *model) {
    int32_t source[MODEL_MAX_POSITIONS], target[MODEL_MAX_POSITIONS + 1] = {TOKEN_BOS};
    struct forced_batch batch = {.batch = 1, .source = source, .target = target};
    struct error error = {""};
    float logits[LOGITS];
    const char *date = "Monday 5 July 2049";
    assert_true(vocabulary_encode(&model->vocabulary, date, strlen(date), source, model->positions,
                                  &batch.source_length, &error));
    assert_true(model_rewrite(model, source, batch.source_length, target + 1, &batch.target_length, &error));
    assert_int_equal(batch.target_length, 10);
    memcpy(logits, model->logits.data, sizeof logits);
    const int64_t length = (int64_t)batch.source_length;
    batch.source_lengths = &length;
    batch.target_length++;
    if (!model_force(model, &batch, &error))
        test_fail("%s", error.text);
    assert_same_bits(batch.logits + 10 * LOGITS, logits, LOGITS);
}

static bool is_kv_type(attn_type type) {
    return type == ATTN_F32 || type == ATTN_BF16;
}

/* In types that keys and values may have without a cache too. */
static void steps_and_whole_answers_agree(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(in_types); i++)
        if (is_kv_type(in_types[i].cache))
            on_each_isa_in(in_types[i].weights, in_types[i].cache, check_steps);
}

/* ---- Types ---- */

/* Every `step`th line of the 1,000 dates. */
static size_t count_right(struct model *model, size_t step, size_t *asked) {
    char path[600], line[2 * MODEL_MAX_TEXT], answer[MODEL_MAX_TEXT];
    size_t right = 0;
    snprintf(path, sizeof path, "%s/dates_test.tsv", dates_directory());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    *asked = 0;
    for (size_t number = 0; fgets(line, sizeof line, file); number++) {
        struct error error;
        char *date = strchr(line, '\t');
        assert_non_null(date);
        *date++ = 0;
        date[strcspn(date, "\t\r\n")] = 0;
        if (number % step)
            continue;
        ++*asked;
        right += model_rewrite_text(model, line, strlen(line), answer, &error) && strcmp(answer, date) == 0;
    }
    fclose(file);
    return right;
}

static size_t wanted; /* of all dates */

/* All on the best ISA, some on the others: logits are the same there. The reference is slow. */
static void check_right(struct model *model) {
    const attn_isa isa = model->config.isa;
    const bool all = test_exhaustive() || (isa == attn_isa_chosen() && !test_quick());
    size_t asked, right = count_right(model, all ? 1 : isa == ATTN_ISA_SCALAR ? 200 : 20, &asked);
    if (right + (1000 - wanted) < asked || (all && right != wanted))
        test_fail("%zu of %zu dates are right, %zu of 1000 expected", right, asked, wanted);
    if (all)
        print_message("  weights %s, caches %s: %zu of %zu\n", model_type_name(model->config.weights),
                      model_type_name(model->config.cache), right, asked);
}

static void dates_are_right_in_every_type(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(in_types); i++) {
        wanted = in_types[i].right;
        on_each_isa_in(in_types[i].weights, in_types[i].cache, check_right);
    }
}

/* Within what three digits say. */
static void assert_recorded(double recorded, double seen) {
    assert_near(recorded, seen, 0.006 * recorded);
}

static void differences_are_known_in_every_type(void **state) {
    (void)state;
    const struct bytes real = read_whole("dates.safetensors");
    char path[600];
    snprintf(path, sizeof path, "%s/dates_expected.safetensors", dates_directory());
    for (size_t i = 0; i < COUNT(in_types); i++) {
        const struct model_config config = {ATTN_ISA_BEST, in_types[i].weights, in_types[i].cache};
        struct difference differences[DIFFERENCES];
        struct model model;
        struct error error = {""};
        test_case("weights %s, caches %s", model_type_name(config.weights), model_type_name(config.cache));
        if (!create(&model, &real, &config, &error) || !evaluate_differences(&model, path, differences, &error))
            test_fail("%s", error.text);
        assert_recorded(in_types[i].encoder, differences[DIFFERENCE_ENCODER].largest);
        assert_recorded(in_types[i].logits, differences[DIFFERENCE_STEPS].largest);
        if (is_kv_type(config.cache))
            assert_near(differences[DIFFERENCE_LOGITS].largest, differences[DIFFERENCE_STEPS].largest, 0);
        model_free(&model);
    }
    guarded_free(real.data);
}

/* ---- Heatmap ---- */

static size_t occurrences(const char *text, const char *word) {
    size_t count = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        count++;
    return count;
}

static void heatmap_is_well_formed(void **state) {
    (void)state;
    static struct vocabulary vocabulary = {9, {0, 0, 0, '<', '&', '"', 0x01, ' ', 0x5e74}};
    const int32_t source[] = {3, 4, 5, 6, 7}, answer[] = {8, 3};
    const float one_head[] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 1}, *weights[] = {one_head, one_head};
    const struct heatmap map = {.vocabulary = &vocabulary,
                                .source = source,
                                .answer = answer,
                                .source_length = COUNT(source),
                                .answer_length = COUNT(answer),
                                .layers = COUNT(weights),
                                .heads = 1,
                                .weights = weights};
    char svg[65536];
    FILE *file = tmpfile();
    assert_non_null(file);
    heatmap_write(file, &map);
    rewind(file);
    const size_t size = fread(svg, 1, sizeof svg - 1, file);
    svg[size] = 0;
    fclose(file);
    assert_in_range(size, 1, sizeof svg - 2);
    assert_memory_equal(svg, "<svg ", 5);
    assert_string_equal(svg + size - 7, "</svg>\n");
    assert_int_equal(occurrences(svg, "<text"), occurrences(svg, "</text>"));
    /* Four panels of ten cells; 1.000 stands in two cells of each. */
    assert_int_equal(occurrences(svg, "</title></rect>"), 40);
    assert_int_equal(occurrences(svg, "fill=\"#092250\"><title>1.000"), 8);
    assert_int_equal(occurrences(svg, "fill=\"#f6f9fc\"><title>0.000"), 32);
    /* Title and four panels, `<` in source and answer. */
    assert_int_equal(occurrences(svg, "&lt;"), 10);
    assert_int_equal(occurrences(svg, "&amp;"), 5);
    assert_int_equal(occurrences(svg, "&quot;"), 5);
    assert_int_equal(occurrences(svg, "\xef\xbf\xbd"), 5);
    assert_int_equal(occurrences(svg, "\xe5\xb9\xb4"), 5);
    assert_int_equal(occurrences(svg, "\xe2\x90\xa3"), 4);
    assert_null(strchr(svg, 0x01));
}

static void unwritable_heatmap_is_named(void **state) {
    (void)state;
    struct error error = {""};
    const struct heatmap map = {0};
    assert_false(heatmap_save("/nonexistent/folder/map.svg", &map, &error));
    assert_names(&error, "/nonexistent/folder/map.svg");
}

int main(int argc, char **argv) {
    test_init(argc, argv, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(invalid_utf8_is_seen),
        cmocka_unit_test(every_character_survives_utf8),
        cmocka_unit_test(bad_dates_are_explained),
        cmocka_unit_test(dates_are_rewritten),
        cmocka_unit_test(every_length_fits),
        cmocka_unit_test(logits_have_the_same_bits),
        cmocka_unit_test(steps_and_whole_answers_agree),
        cmocka_unit_test(dates_are_right_in_every_type),
        cmocka_unit_test(differences_are_known_in_every_type),
        cmocka_unit_test(heatmap_is_well_formed),
        cmocka_unit_test(unwritable_heatmap_is_named),
        cmocka_unit_test(days_of_the_calendar_are_known),
    };
    return test_run(tests);
}
