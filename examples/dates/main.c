/* Rewrites written dates as ISO 8601 with a small Transformer on libattn. Start reading at model.h. */
#include "evaluate.h"
#include "heatmap.h"
#include "model.h"
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#ifndef DATES_MODEL_DEFAULT
#define DATES_MODEL_DEFAULT "dates.safetensors"
#endif

enum { STATUS_USAGE = 2, STATUS_SKIP = 77 };

static const char help[] =
    "usage: dates [options] [date ...]\n"
    "Rewrites each date, or each line of standard input where none is given, as YYYY-MM-DD, one per line.\n"
    "What is no date, or no day of the calendar, leaves an empty line, an error message and exit status 1.\n"
    "\n"
    "A date is written in one of these ways, in capital or small letters, perhaps after the day of the week:\n"
    "  2034-07-29   2034-7-29   2034/07/29      year, month, day\n"
    "  12.3.1987   12.03.87   12. 3. 1987       day, month, year\n"
    "  7/29/2034   07/04/1999   7/4/99          month, day, year\n"
    "  30/11/2026   30/11/26                    day, month, year, as the first number is above 12\n"
    "  4 July 1999   4. Jul 1999   July 4, 1999   Jul 4 99   Sept. 4 '99\n"
    "  4th of July 1999   the 4th July, 1999   July 4th 1999\n"
    "  the twenty-first of May 2010   twenty first May 2010   July the fourth, 1999\n"
    "  4-JUL-99   04-Jul-1999   4/Jul/1999   04jul1999   1999-Jul-04\n"
    "  2021\xe5\xb9\xb4"
    "3\xe6\x9c\x88"
    "5\xe6\x97\xa5\n"
    "Two digits of a year stand for 1969 to 2068.\n"
    "\n"
    "  --isa NAME           compute with best (default), scalar, avx2, avx512, neon, ...; status 77 where "
    "this machine cannot\n"
    "  --weights TYPE       f32 (default), bf16, f16, int8 or int4: what the weights become when they are loaded\n"
    "  --cache TYPE         f32 (default), bf16, f16, int8, f8_e4m3 or f8_e5m2: of the decoder's keys and values\n"
    "  --model FILE         weights (default: " DATES_MODEL_DEFAULT ")\n"
    "  --heatmap FILE.svg   draw the cross-attention of the one date given\n"
    "  --check FILE         rewrite the first column of a tab-separated file, compare with the second\n"
    "  --refuse FILE        rewrite each line of a file without dates; status 1 where more than 1 in 100 is answered\n"
    "  --expected FILE      compare the model's insides with those in a safetensors file\n"
    "  --bench              time the dates given, or some of its own, on --isa or every ISA of this machine\n"
    "  --help               this text\n";

struct options {
    struct model_config config;
    const char *model, *heatmap, *check, *refuse, *expected;
    bool bench;
    size_t count;
    char **dates;
};

/* ---- Dates in, dates out ---- */

static bool print_date(struct model *model, const char *source, const char *text, size_t length) {
    char answer[MODEL_MAX_TEXT] = "";
    struct error error;
    const bool ok = model_rewrite_text(model, text, length, answer, &error);
    puts(ok ? answer : "");
    if (!ok)
        fprintf(stderr, "%s: %s\n", source, error.text);
    return ok;
}

static bool rewrite_arguments(struct model *model, const struct options *options) {
    bool ok = true;
    for (size_t i = 0; i < options->count; i++) {
        char source[32];
        snprintf(source, sizeof source, "date %zu", i + 1);
        ok &= print_date(model, source, options->dates[i], strlen(options->dates[i]));
    }
    return ok;
}

/* Reads a line without its end; what does not fit is dropped, and enough remains to be too long for the model. */
static bool read_line(FILE *file, char *line, size_t size, size_t *length) {
    int c = getc(file);
    if (c == EOF)
        return false;
    for (*length = 0; c != EOF && c != '\n'; c = getc(file))
        if (*length < size)
            line[(*length)++] = (char)c;
    if (*length > 0 && line[*length - 1] == '\r')
        (*length)--;
    return true;
}

static bool rewrite_lines(struct model *model) {
    char line[MODEL_MAX_TEXT + 4];
    size_t length;
    bool ok = true;
    for (size_t number = 1; read_line(stdin, line, sizeof line, &length); number++) {
        char source[32];
        snprintf(source, sizeof source, "line %zu", number);
        ok &= print_date(model, source, line, length);
        fflush(stdout);
    }
    return ok;
}

/* ---- Heatmap ---- */

/* The decoder is run over its own answer: the weights are the bits of the step-by-step run. */
static bool draw(struct model *model, const char *date, const char *path, struct error *error) {
    int32_t source[MODEL_MAX_POSITIONS], target[MODEL_MAX_POSITIONS + 1] = {TOKEN_BOS};
    struct forced_batch batch = {.batch = 1, .source = source, .target = target};
    float *weights[DECODER_LAYERS] = {NULL};
    int64_t source_length;
    bool ok = vocabulary_encode(&model->vocabulary, date, strlen(date), source, model->positions, &batch.source_length,
                                error) &&
              model_rewrite(model, source, batch.source_length, target + 1, &batch.target_length, error);
    if (ok && batch.target_length == 0)
        ok = refuse(error, "the answer is empty");
    source_length = (int64_t)batch.source_length;
    batch.source_lengths = &source_length;
    for (size_t i = 0; i < DECODER_LAYERS && ok; i++) {
        weights[i] = malloc(model->heads * batch.target_length * batch.source_length * sizeof(float));
        batch.cross_weights[i] = weights[i];
        ok = weights[i] || refuse(error, "no memory for the attention weights");
    }
    if (ok && model_force(model, &batch, error)) {
        const struct heatmap map = {.vocabulary = &model->vocabulary,
                                    .source = source,
                                    .answer = target + 1,
                                    .source_length = batch.source_length,
                                    .answer_length = batch.target_length,
                                    .layers = DECODER_LAYERS,
                                    .heads = model->heads,
                                    .weights = (const float *const *)weights};
        ok = heatmap_save(path, &map, error);
    } else {
        ok = false;
    }
    for (size_t i = 0; i < DECODER_LAYERS; i++)
        free(weights[i]);
    return ok;
}

static bool rewrite_and_draw(struct model *model, const struct options *options) {
    struct error error;
    if (!rewrite_arguments(model, options))
        return false;
    if (draw(model, options->dates[0], options->heatmap, &error))
        return true;
    fprintf(stderr, "%s\n", error.text);
    return false;
}

/* ---- Options ---- */

static int usage(const char *message, const char *name) {
    fprintf(stderr, "dates: %s%s\nTry dates --help.\n", message, name);
    return STATUS_USAGE;
}

static int choose_isa(const char *name, attn_isa *isa) {
    if (attn_isa_from_name(name, isa) != ATTN_OK)
        return usage("no ISA has the name ", name);
    if (*isa == ATTN_ISA_BEST || attn_isa_supported(*isa))
        return 0;
    fprintf(stderr, "dates: %s: %s\n", name,
            attn_isa_built(*isa) ? "this processor or its operating system lacks it" : "not built for this machine");
    return STATUS_SKIP;
}

#define TYPE(type) (1u << (type))
#define WEIGHTS    (TYPE(ATTN_F32) | TYPE(ATTN_BF16) | TYPE(ATTN_F16) | TYPE(ATTN_INT8) | TYPE(ATTN_INT4))
#define CACHES                                                                                                         \
    (TYPE(ATTN_F32) | TYPE(ATTN_BF16) | TYPE(ATTN_F16) | TYPE(ATTN_INT8) | TYPE(ATTN_F8_E4M3) | TYPE(ATTN_F8_E5M2))

static int choose_type(const char *name, unsigned among, attn_type *type) {
    for (attn_type each = ATTN_F32; each <= ATTN_F8_E5M2; each++)
        if ((among & TYPE(each)) && strcmp(name, model_type_name(each)) == 0) {
            *type = each;
            return 0;
        }
    return usage("not one of the option's types: ", name);
}

/* 0 to go on; else the exit status, where -1 stands for success. */
static int parse_options(int argc, char **argv, struct options *options) {
    static const struct option names[] = {{"isa", required_argument, NULL, 'i'},
                                          {"weights", required_argument, NULL, 'w'},
                                          {"cache", required_argument, NULL, 'k'},
                                          {"model", required_argument, NULL, 'm'},
                                          {"heatmap", required_argument, NULL, 'p'},
                                          {"check", required_argument, NULL, 'c'},
                                          {"refuse", required_argument, NULL, 'r'},
                                          {"expected", required_argument, NULL, 'e'},
                                          {"bench", no_argument, NULL, 'b'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int status = 0;
    for (int c; status == 0 && (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'i':
            status = choose_isa(optarg, &options->config.isa);
            break;
        case 'w':
            status = choose_type(optarg, WEIGHTS, &options->config.weights);
            break;
        case 'k':
            status = choose_type(optarg, CACHES, &options->config.cache);
            break;
        case 'm':
            options->model = optarg;
            break;
        case 'p':
            options->heatmap = optarg;
            break;
        case 'c':
            options->check = optarg;
            break;
        case 'r':
            options->refuse = optarg;
            break;
        case 'e':
            options->expected = optarg;
            break;
        case 'b':
            options->bench = true;
            break;
        case 'h':
            fputs(help, stdout);
            return -1;
        default:
            status = STATUS_USAGE;
        }
    }
    options->count = (size_t)(argc - optind);
    options->dates = argv + optind;
    if (status != 0)
        return status;
    if (!!options->heatmap + !!options->check + !!options->refuse + !!options->expected + options->bench > 1)
        return usage("--heatmap, --check, --refuse, --expected and --bench exclude each other", "");
    if (options->heatmap && options->count != 1)
        return usage("--heatmap takes one date", "");
    if ((options->check || options->refuse || options->expected) && options->count > 0)
        return usage("not an option: ", options->dates[0]);
    return 0;
}

static int run(struct model *model, const struct options *options) {
    if (options->check)
        return evaluate_check(model, options->check);
    if (options->refuse)
        return evaluate_refuse(model, options->refuse);
    if (options->expected)
        return evaluate_expected(model, options->expected);
    if (options->heatmap)
        return !rewrite_and_draw(model, options);
    return options->count > 0 ? !rewrite_arguments(model, options) : !rewrite_lines(model);
}

int main(int argc, char **argv) {
    struct options options = {.model = DATES_MODEL_DEFAULT};
    struct model model;
    struct error error;
    int status = parse_options(argc, argv, &options);
    if (status != 0)
        return status < 0 ? 0 : status;
    if (options.bench)
        return evaluate_bench(options.model, &options.config, options.count, options.dates);
    if (!model_load(&model, options.model, &options.config, &error)) {
        fprintf(stderr, "dates: %s\n", error.text);
        return 1;
    }
    status = run(&model, &options);
    model_free(&model);
    return status;
}
