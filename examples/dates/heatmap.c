#include "heatmap.h"
#include <errno.h>
#include <math.h>
#include <string.h>

/* Lengths in SVG units. A panel's labels stand left of it and below it, its caption above. */
enum {
    MARGIN = 28,
    TITLE_HEIGHT = 62,
    MEAN_CELL = 26,
    HEAD_CELL = 11,
    PANEL_GAP = 22,
    CAPTION_HEIGHT = 24,
    LEGEND_WIDTH = 16,
    LEGEND_SPACE = 60,
    LEAST_WIDTH = 600,
};

/* From no weight to all of it: one hue, ever darker, so that it also reads in grey. */
static const double colours[][3] = {{246, 249, 252}, {190, 214, 234}, {98, 159, 205}, {28, 96, 161}, {9, 34, 80}};
enum { SCALE_STEPS = sizeof colours / sizeof *colours - 1 };

/* One panel: weights of `heads` heads are averaged. */
struct panel {
    const float *weights;
    size_t heads;
    double x, y, cell;
};

static void write_colour(FILE *file, double weight) {
    const double position = fmin(fmax(weight, 0), 1) * SCALE_STEPS; /* fmax takes a NaN for 0 */
    const size_t step = position < SCALE_STEPS ? (size_t)position : SCALE_STEPS - 1;
    unsigned rgb[3];
    for (size_t i = 0; i < 3; i++)
        rgb[i] =
            (unsigned)lround(colours[step][i] + (colours[step + 1][i] - colours[step][i]) * (position - (double)step));
    fprintf(file, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
}

/* XML has its own signs, and no place for control characters. */
static void write_character(FILE *file, uint32_t character) {
    static const struct {
        uint32_t character;
        const char *name;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&apos;"}};
    for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
        if (entities[i].character == character) {
            fputs(entities[i].name, file);
            return;
        }
    }
    if (character < 0x20 || character == 0x7f || character == 0xfffe || character == 0xffff)
        character = 0xfffd;
    char text[4];
    fwrite(text, 1, utf8_encode(character, text), file);
}

static void write_text(FILE *file, const struct heatmap *map, const int32_t *tokens, size_t count) {
    for (size_t i = 0; i < count; i++)
        write_character(file, map->vocabulary->characters[tokens[i]]);
}

/* A space is shown as an open box, or its column would have no name. */
static void write_label(FILE *file, const struct heatmap *map, int32_t token, double x, double y) {
    const uint32_t character = map->vocabulary->characters[token];
    fprintf(file, "<text x=\"%g\" y=\"%g\"%s>", x, y, character == ' ' ? " class=\"space\"" : "");
    write_character(file, character == ' ' ? 0x2423 : character);
    fputs("</text>\n", file);
}

static void write_labels(FILE *file, const struct heatmap *map, const struct panel *panel) {
    const double cell = panel->cell, size = cell < MEAN_CELL ? cell * 0.95 : cell * 0.65, baseline = size * 0.35;
    fprintf(file, "<g class=\"label\" font-size=\"%g\">\n", size);
    for (size_t i = 0; i < map->answer_length; i++)
        write_label(file, map, map->answer[i], panel->x - size * 0.6, panel->y + ((double)i + 0.5) * cell + baseline);
    for (size_t j = 0; j < map->source_length; j++)
        write_label(file, map, map->source[j], panel->x + ((double)j + 0.5) * cell,
                    panel->y + (double)map->answer_length * cell + size * 1.1);
    fputs("</g>\n", file);
}

static double panel_weight(const struct heatmap *map, const struct panel *panel, size_t row, size_t column) {
    double sum = 0;
    for (size_t head = 0; head < panel->heads; head++)
        sum += (double)panel->weights[(head * map->answer_length + row) * map->source_length + column];
    return sum / (double)panel->heads;
}

static void write_panel(FILE *file, const struct heatmap *map, const struct panel *panel) {
    const double cell = panel->cell;
    fputs("<g class=\"cells\">\n", file);
    for (size_t i = 0; i < map->answer_length; i++) {
        for (size_t j = 0; j < map->source_length; j++) {
            const double weight = panel_weight(map, panel, i, j);
            fprintf(file, "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"", panel->x + (double)j * cell,
                    panel->y + (double)i * cell, cell, cell);
            write_colour(file, weight);
            fprintf(file, "\"><title>%.3f</title></rect>\n", weight);
        }
    }
    fprintf(file, "</g>\n<rect class=\"frame\" x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\"/>\n", panel->x, panel->y,
            (double)map->source_length * cell, (double)map->answer_length * cell);
    write_labels(file, map, panel);
}

static double panel_width(const struct heatmap *map, double cell) {
    return (double)(map->source_length + 1) * cell; /* a cell's width for the labels */
}

static double panel_height(const struct heatmap *map, double cell) {
    return CAPTION_HEIGHT + (double)(map->answer_length + 1) * cell;
}

static void write_means(FILE *file, const struct heatmap *map, double y) {
    for (size_t layer = 0; layer < map->layers; layer++) {
        const double x = MARGIN + (double)layer * (panel_width(map, MEAN_CELL) + PANEL_GAP);
        const struct panel panel = {map->weights[layer], map->heads, x + MEAN_CELL, y + CAPTION_HEIGHT, MEAN_CELL};
        fprintf(file, "<text class=\"caption\" x=\"%g\" y=\"%g\">Layer %zu, mean of %zu heads</text>\n", panel.x,
                panel.y - 8, layer + 1, map->heads);
        write_panel(file, map, &panel);
    }
}

static void write_heads(FILE *file, const struct heatmap *map, double y) {
    const double height = panel_height(map, HEAD_CELL) + PANEL_GAP;
    for (size_t layer = 0; layer < map->layers; layer++) {
        for (size_t head = 0; head < map->heads; head++) {
            const double x = MARGIN + (double)head * (panel_width(map, HEAD_CELL) + PANEL_GAP);
            const struct panel panel = {map->weights[layer] + head * map->answer_length * map->source_length, 1,
                                        x + HEAD_CELL, y + (double)layer * height + CAPTION_HEIGHT, HEAD_CELL};
            fprintf(file, "<text class=\"small\" x=\"%g\" y=\"%g\">Layer %zu, head %zu</text>\n", panel.x, panel.y - 6,
                    layer + 1, head + 1);
            write_panel(file, map, &panel);
        }
    }
}

static void write_legend(FILE *file, const struct heatmap *map, double y) {
    const double x = MARGIN + (double)map->layers * (panel_width(map, MEAN_CELL) + PANEL_GAP);
    const double top = y + CAPTION_HEIGHT, height = (double)map->answer_length * MEAN_CELL;
    fputs("<defs><linearGradient id=\"scale\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">", file);
    for (size_t i = 0; i <= SCALE_STEPS; i++) {
        fprintf(file, "<stop offset=\"%g\" stop-color=\"", (double)i / SCALE_STEPS);
        write_colour(file, (double)i / SCALE_STEPS);
        fputs("\"/>", file);
    }
    fprintf(file, "</linearGradient></defs>\n<text class=\"small\" x=\"%g\" y=\"%g\">weight</text>\n", x, top - 8);
    fprintf(file, "<rect x=\"%g\" y=\"%g\" width=\"%d\" height=\"%g\" fill=\"url(#scale)\"/>\n", x, top, LEGEND_WIDTH,
            height);
    fprintf(file, "<rect class=\"frame\" x=\"%g\" y=\"%g\" width=\"%d\" height=\"%g\"/>\n", x, top, LEGEND_WIDTH,
            height);
    for (size_t i = 0; i <= SCALE_STEPS; i++)
        fprintf(file, "<text class=\"small\" x=\"%g\" y=\"%g\">%.2f</text>\n", x + LEGEND_WIDTH + 6,
                top + height * (1 - (double)i / SCALE_STEPS) + 4, (double)i / SCALE_STEPS);
}

static void write_head(FILE *file, const struct heatmap *map, double width, double height) {
    fprintf(file,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g %g\">\n"
            "<style>text{font-family:'DejaVu Sans',Helvetica,Arial,'Noto Sans CJK SC',sans-serif;fill:#1c2733}"
            ".label text{font-family:'DejaVu Sans Mono',Menlo,Consolas,'Noto Sans CJK SC',monospace;text-anchor:middle}"
            ".label .space{fill:#8a96a3}.title{font-size:19px;font-weight:bold}.caption{font-size:14px}"
            ".small{font-size:11.5px}.note{font-size:12.5px;fill:#55616e}"
            ".cells{shape-rendering:crispEdges}.frame{fill:none;stroke:#8a96a3;stroke-width:1}</style>\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            width, height, width, height);
    fprintf(file, "<text class=\"title\" x=\"%d\" y=\"%d\" xml:space=\"preserve\">", MARGIN, MARGIN + 14);
    write_text(file, map, map->source, map->source_length);
    fputs(" \xe2\x86\x92 ", file);
    write_text(file, map, map->answer, map->answer_length);
    fprintf(file,
            "</text>\n<text class=\"note\" x=\"%d\" y=\"%d\">Cross-attention: which source characters (columns) each "
            "answer character (row) looks at</text>\n",
            MARGIN, MARGIN + 38);
}

void heatmap_write(FILE *file, const struct heatmap *map) {
    const double means = (double)map->layers * (panel_width(map, MEAN_CELL) + PANEL_GAP) + LEGEND_SPACE;
    const double heads = (double)map->heads * (panel_width(map, HEAD_CELL) + PANEL_GAP) - PANEL_GAP;
    const double width = fmax(fmax(means, heads), LEAST_WIDTH) + 2 * MARGIN;
    const double y = MARGIN + TITLE_HEIGHT;
    const double below = y + panel_height(map, MEAN_CELL) + PANEL_GAP;
    const double height = below + (double)map->layers * (panel_height(map, HEAD_CELL) + PANEL_GAP) - PANEL_GAP + MARGIN;
    write_head(file, map, width, height);
    write_means(file, map, y);
    write_legend(file, map, y);
    write_heads(file, map, below);
    fputs("</svg>\n", file);
}

bool heatmap_save(const char *path, const struct heatmap *map, struct error *error) {
    FILE *file = fopen(path, "w");
    if (!file)
        return refuse(error, "%s: %s", path, strerror(errno));
    heatmap_write(file, map);
    const bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return refuse(error, "%s: cannot be written", path);
    return true;
}
