#include "evaluate.h"
#include "model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- --check and --refuse ---- */

/* One line of the file: the date as written, a tab, the date in ISO 8601, perhaps more columns. */
static bool check_line(struct model *model, char *line, char *answer, struct error *error) {
    char *columns = strchr(line, '\t');
    if (!columns)
        return refuse(error, "no second column");
    *columns++ = 0;
    columns[strcspn(columns, "\t\r\n")] = 0;
    if (!model_rewrite_text(model, line, strlen(line), answer, error))
        return false;
    return strcmp(answer, columns) == 0 || refuse(error, "%s is rewritten as %s, not %s", line, answer, columns);
}

/* One line that is no date. */
static bool refuse_line(struct model *model, char *line, char *answer, struct error *error) {
    struct error reason;
    line[strcspn(line, "\r\n")] = 0;
    return !model_rewrite_text(model, line, strlen(line), answer, &reason) ||
           refuse(error, "%s is rewritten as %s", line, answer);
}

/* How many lines of the file are as they should be; the others are printed. */
static bool count_good(struct model *model, const char *path,
                       bool (*is_good)(struct model *model, char *line, char *answer, struct error *error),
                       size_t *good, size_t *lines) {
    char line[2 * MODEL_MAX_TEXT], answer[MODEL_MAX_TEXT];
    FILE *file = fopen(path, "r");
    *good = *lines = 0;
    if (!file) {
        perror(path);
        return false;
    }
    while (fgets(line, sizeof line, file)) {
        struct error error;
        ++*lines;
        if (is_good(model, line, answer, &error))
            ++*good;
        else
            fprintf(stderr, "%s:%zu: %s\n", path, *lines, error.text);
    }
    const bool failed = ferror(file) != 0;
    fclose(file);
    if (failed)
        fprintf(stderr, "%s: cannot be read\n", path);
    return !failed && *lines > 0;
}

/* The ISA, and the types where not all is F32. */
static void print_config(const struct model_config *config) {
    printf(" on %s", attn_isa_name(config->isa));
    if (config->weights != ATTN_F32 || config->cache != ATTN_F32)
        printf(", weights %s, caches %s", model_type_name(config->weights), model_type_name(config->cache));
    printf("\n");
}

int evaluate_check(struct model *model, const char *path) {
    size_t exact, lines;
    const bool ok = count_good(model, path, check_line, &exact, &lines);
    printf("%zu of %zu exact", exact, lines);
    print_config(&model->config);
    return !ok || exact != lines;
}

int evaluate_refuse(struct model *model, const char *path) {
    size_t refused, lines;
    const bool ok = count_good(model, path, refuse_line, &refused, &lines);
    printf("%zu of %zu refused", refused, lines);
    print_config(&model->config);
    return !ok || (lines - refused) * 100 > lines;
}

/* ---- --expected ---- */

#define TOLERANCE 1e-3
#define MAX_BATCH 1024

struct expectation {
    struct safetensors file;
    struct forced_batch batch;
    int64_t lengths[MAX_BATCH];
    float *weights[DECODER_LAYERS];
    float *step_logits; /* as batch.logits */
};

static bool tokens_are_known(const int32_t *tokens, size_t count, size_t vocabulary, const char *name,
                             struct error *error) {
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || (size_t)tokens[i] >= vocabulary)
            return refuse(error, "%s: token %d is not in the vocabulary", name, (int)tokens[i]);
    return true;
}

/* The last size of a matrix, the first of which is the batch. */
static bool read_length(const struct safetensors *file, const char *name, size_t limit, size_t *batch, size_t *length,
                        struct error *error) {
    const struct tensor *tensor = safetensors_find(file, name);
    if (!tensor || tensor->rank != 2)
        return refuse(error, "tensor \"%s\" is missing or no matrix", name);
    *batch = tensor->shape[0];
    *length = tensor->shape[1];
    if (*batch == 0 || *batch > MAX_BATCH || *length == 0 || *length > limit)
        return refuse(error, "tensor \"%s\" has shape [%zu, %zu], not at most [%d, %zu]", name, *batch, *length,
                      MAX_BATCH, limit);
    return true;
}

static bool read_batch(const struct model *model, struct expectation *expected, struct error *error) {
    struct forced_batch *batch = &expected->batch;
    const struct safetensors *file = &expected->file;
    if (!read_length(file, "target", model->positions, &batch->batch, &batch->target_length, error) ||
        !read_length(file, "source", model->positions, &batch->batch, &batch->source_length, error))
        return false;
    const size_t n = batch->batch, source = batch->source_length, target = batch->target_length;
    batch->source = safetensors_get(file, "source", DTYPE_I32, 2, (const size_t[]){n, source}, error);
    batch->target = safetensors_get(file, "target", DTYPE_I32, 2, (const size_t[]){n, target}, error);
    const int32_t *lengths = safetensors_get(file, "source_lengths", DTYPE_I32, 1, (const size_t[]){n}, error);
    if (!batch->source || !batch->target || !lengths ||
        !tokens_are_known(batch->source, n * source, model->vocabulary.size, "source", error) ||
        !tokens_are_known(batch->target, n * target, model->vocabulary.size, "target", error))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (lengths[i] < 1 || (size_t)lengths[i] > source)
            return refuse(error, "source_lengths: %d is not 1 to %zu", (int)lengths[i], source);
        expected->lengths[i] = lengths[i];
    }
    batch->source_lengths = expected->lengths;
    for (size_t i = 0; i < DECODER_LAYERS; i++) {
        batch->cross_weights[i] = expected->weights[i] = malloc(n * model->heads * target * source * sizeof(float));
        if (!expected->weights[i])
            return refuse(error, "no memory for the attention weights");
    }
    expected->step_logits = malloc(n * target * model->vocabulary.size * sizeof(float));
    return expected->step_logits || refuse(error, "no memory for the logits");
}

/* The largest difference in `rows` rows of `cols`; row i belongs to a sequence with lengths[i / rows_each]. What is
 * padding is not compared: rows from that length on where pad_rows, else columns. */
struct comparison {
    const char *name;
    const float *have, *want;
    size_t rows_each, cols, have_stride; /* rows_each: of each sequence of the batch */
    enum { PAD_NONE, PAD_ROWS, PAD_COLUMNS } padding;
};

static double largest_difference(const struct comparison *compare, size_t batch, const int64_t *lengths) {
    double largest = 0;
    for (size_t row = 0; row < batch * compare->rows_each; row++) {
        const size_t length = (size_t)lengths[row / compare->rows_each];
        if (compare->padding == PAD_ROWS && row % compare->rows_each >= length)
            continue;
        const size_t cols = compare->padding == PAD_COLUMNS ? length : compare->cols;
        const float *have = compare->have + row * compare->have_stride, *want = compare->want + row * compare->cols;
        for (size_t i = 0; i < cols; i++) {
            const double difference = fabs((double)have[i] - (double)want[i]);
            if (!(difference <= largest)) /* also where it is NaN, which then stays */
                largest = isnan(largest) ? largest : difference;
        }
    }
    return largest;
}

static bool compare_all(struct model *model, struct expectation *expected, struct difference *differences,
                        struct error *error) {
    struct forced_batch *batch = &expected->batch;
    const size_t n = batch->batch, source = batch->source_length, target = batch->target_length;
    const size_t hidden = model->hidden, heads = model->heads, vocabulary = model->vocabulary.size;
    if (!model_force_steps(model, batch, expected->step_logits, error) || !model_force(model, batch, error))
        return false;
    struct comparison compare[DIFFERENCES] = {
        {"encoder_output", batch->encoder_output, NULL, source, hidden, model->width, PAD_ROWS},
        {"logits", batch->logits, NULL, target, vocabulary, vocabulary, PAD_NONE},
        {"cross_attention_0", expected->weights[0], NULL, heads * target, source, source, PAD_COLUMNS},
        {"cross_attention_1", expected->weights[1], NULL, heads * target, source, source, PAD_COLUMNS},
        {"logits", expected->step_logits, NULL, target, vocabulary, vocabulary, PAD_NONE},
    };
    const size_t sizes[DIFFERENCES][4] = {{n, source, hidden},
                                          {n, target, vocabulary},
                                          {n, heads, target, source},
                                          {n, heads, target, source},
                                          {n, target, vocabulary}};
    for (size_t i = 0; i < DIFFERENCES; i++) {
        const size_t rank = sizes[i][3] ? 4 : 3;
        compare[i].want = safetensors_get(&expected->file, compare[i].name, DTYPE_F32, rank, sizes[i], error);
        if (!compare[i].want)
            return false;
        differences[i].name = i == DIFFERENCE_STEPS ? "logits, by steps" : compare[i].name;
        differences[i].largest = largest_difference(&compare[i], n, expected->lengths);
    }
    return true;
}

bool evaluate_differences(struct model *model, const char *path, struct difference *differences, struct error *error) {
    struct expectation expected = {.step_logits = NULL};
    struct error cause;
    bool ok = safetensors_read(&expected.file, path, error);
    if (ok && (!read_batch(model, &expected, &cause) || !compare_all(model, &expected, differences, &cause)))
        ok = refuse(error, "%s: %s", path, cause.text);
    for (size_t i = 0; i < DECODER_LAYERS; i++)
        free(expected.weights[i]);
    free(expected.step_logits);
    safetensors_free(&expected.file);
    return ok;
}

int evaluate_expected(struct model *model, const char *path) {
    struct difference differences[DIFFERENCES];
    const bool is_f32 = model->config.weights == ATTN_F32 && model->config.cache == ATTN_F32;
    struct error error;
    bool close = true;
    if (!evaluate_differences(model, path, differences, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    for (size_t i = 0; i < DIFFERENCES; i++) {
        printf("%-18s largest difference %.3g", differences[i].name, differences[i].largest);
        print_config(&model->config);
        close = close && differences[i].largest <= (is_f32 ? TOLERANCE : INFINITY);
    }
    if (!close)
        fprintf(stderr, "%s: a difference above %g\n", path, TOLERANCE);
    return !close;
}

/* ---- --bench ---- */

enum { WARM_UP = 50, LEAST_RUNS = 200, MOST_RUNS = 2000 };
#define BENCH_SECONDS 1.0

static char *const bench_dates[] = {
    "Wednesday, 3rd of March 2021",
    "2021年3月5日",
    "Monday 5 July 2049",
    "OCTOBER 3 1961",
    "13.05.2055",
    "04mar2007",
    "5 Dec 1999",
    "1/9/1958",
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare_doubles(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

struct bench_work {
    size_t runs, characters, steps;
};

/* Seconds per date, ascending. */
static bool bench_model(struct model *model, size_t count, char *const *dates, double *seconds, struct bench_work *work,
                        struct error *error) {
    double end = 0;
    *work = (struct bench_work){0};
    for (size_t run = 0; run < WARM_UP + MOST_RUNS; run++) {
        const char *date = dates[run % count];
        int32_t source[MODEL_MAX_POSITIONS], answer[MODEL_MAX_POSITIONS];
        size_t length, answer_length;
        const double start = now();
        if (run == WARM_UP)
            end = start + BENCH_SECONDS;
        if (!vocabulary_encode(&model->vocabulary, date, strlen(date), source, model->positions, &length, error) ||
            !model_rewrite(model, source, length, answer, &answer_length, error))
            return false;
        if (run < WARM_UP)
            continue;
        seconds[work->runs++] = now() - start;
        work->characters += length;
        work->steps += answer_length + 1; /* the last one yields <eos> */
        if (work->runs >= LEAST_RUNS && start > end)
            break;
    }
    qsort(seconds, work->runs, sizeof *seconds, compare_doubles);
    return true;
}

static bool bench_isa(const char *model_path, const struct model_config *config, size_t count, char *const *dates,
                      struct error *error) {
    static double seconds[MOST_RUNS];
    struct model model;
    struct bench_work work;
    if (!model_load(&model, model_path, config, error))
        return false;
    const bool ok = bench_model(&model, count, dates, seconds, &work, error);
    model_free(&model);
    if (ok)
        printf("%-12s %6zu %9.1f %9.1f %12.1f %8.1f\n", attn_isa_name(config->isa), work.runs,
               1e6 * seconds[work.runs / 2], 1e6 * seconds[work.runs * 99 / 100],
               (double)work.characters / (double)work.runs, (double)work.steps / (double)work.runs);
    return ok;
}

int evaluate_bench(const char *model_path, const struct model_config *config, size_t count, char *const *dates) {
    struct error error;
    if (count == 0) {
        count = sizeof bench_dates / sizeof *bench_dates;
        dates = bench_dates;
    }
    printf("%-12s %6s %9s %9s %12s %8s\n", "isa", "dates", "p50 us", "p99 us", "characters", "steps");
    for (int i = ATTN_ISA_BEST + 1; i < ATTN_ISA_COUNT; i++) {
        struct model_config one = *config;
        one.isa = (attn_isa)i;
        if (!attn_isa_supported(one.isa) || (config->isa != ATTN_ISA_BEST && config->isa != one.isa))
            continue;
        if (!bench_isa(model_path, &one, count, dates, &error)) {
            fprintf(stderr, "%s: %s\n", attn_isa_name((attn_isa)i), error.text);
            return 1;
        }
        fflush(stdout);
    }
    puts("One thread; per date, characters go through the encoder, steps through the decoder.");
    return 0;
}
