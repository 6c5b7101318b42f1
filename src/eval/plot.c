/* Writing of SVG. Numbers are printed with a decimal point whatever the locale of the caller, because printf is only given integers:
 * coordinates are in tenths of a pixel, labels in digits of our own. */
#include "eval/plot.h"

#include "base/alloc.h"
#include "base/buffer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Geometry of a panel, pixels. */
enum { WIDTH = 560, HEIGHT = 380, LEFT = 66, RIGHT = 16, TOP = 46, BOTTOM = 54, LEGEND_ROW = 18, MAX_TICKS = 12 };

/* One for each linear map of a gated block. */
static const char *const colours[] = {"#3b82c4", "#d97706", "#2f9e6e", "#c2528b", "#7c6fd0", "#8a8f98", "#b3a125"};

/* A coordinate "12.3" from pixels. */
struct pixel {
    char text[24];
};
static struct pixel px(double x)
{
    struct pixel p;
    const long tenths = lround(10 * x);
    snprintf(p.text, sizeof p.text, "%s%ld.%ld", tenths < 0 ? "-" : "", labs(tenths) / 10, labs(tenths) % 10);
    return p;
}

static void put_text(struct zq_buffer *s, double x, double y, const char *anchor, const char *attributes, const char *text)
{
    zq_put(s, "<text x=\"%s\" y=\"%s\" text-anchor=\"%s\"%s>", px(x).text, px(y).text, anchor, attributes);
    zq_put_escaped(s, text);
    zq_put(s, "</text>\n");
}

static void put_line(struct zq_buffer *s, double x1, double y1, double x2, double y2, const char *colour, const char *attributes)
{
    zq_put(s, "<line x1=\"%s\" y1=\"%s\" x2=\"%s\" y2=\"%s\" stroke=\"%s\"%s/>\n", px(x1).text, px(y1).text, px(x2).text,
        px(y2).text, colour, attributes);
}

static void put_rect(struct zq_buffer *s, double x, double y, double width, double height, const char *colour, const char *attributes)
{
    zq_put(s, "<rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" fill=\"%s\"%s/>\n", px(x).text, px(y).text, px(width).text, px(height).text, colour,
        attributes);
}

/* ---- scales */

struct axis {
    double step, top; /* ticks at 0, step, ... top */
    int decimals;
};

/* Steps of 1, 2 or 5 times a power of ten: between four and eleven ticks up to the largest value. */
static struct axis axis_for(double largest)
{
    if (!(largest > 0)) largest = 1;
    const int power = (int)floor(log10(largest / 5));
    const double unit = pow(10, power), share = largest / 5 / unit;
    struct axis a = {.step = unit * (share > 5 ? 10 : share > 2 ? 5 : share > 1 ? 2 : 1), .decimals = power < 0 ? -power : 0};
    a.top = a.step * ceil(largest / a.step * (1 - 1e-9));
    return a;
}

static void number_text(double x, int decimals, char *out, size_t n)
{
    if (decimals > 9) decimals = 9;
    const double scale = pow(10, decimals);
    const long long whole = llround(x * scale), unit = (long long)scale;
    if (decimals) snprintf(out, n, "%lld.%0*lld", whole / unit, decimals, whole % unit);
    else snprintf(out, n, "%lld", whole);
}

static double largest_of(const struct zq_panel *p)
{
    double largest = 0;
    for (size_t i = 0; i < p->n_series; i++)
        for (size_t k = 0; k < p->n; k++) {
            const double y = p->series[i].kind == ZQ_PLOT_BOXES ? p->series[i].boxes[k].max : p->series[i].values[k];
            if (y > largest) largest = y;
        }
    return largest;
}

struct zq_box zq_box_of(const float *sorted, size_t n)
{
    double at[5];
    for (int i = 0; i < 5; i++) {
        const double place = (double)(n - 1) * i / 4;
        const size_t k = (size_t)place, next = k + 1 < n ? k + 1 : k;
        at[i] = sorted[k] + (place - (double)k) * ((double)sorted[next] - sorted[k]);
    }
    return (struct zq_box){at[0], at[1], at[2], at[3], at[4]};
}

/* ---- drawing */

struct frame {
    double left, top, width, height; /* of the plotted area */
    struct axis axis;
    size_t n;
};

static double x_of(const struct frame *f, size_t k)
{
    return f->left + f->width * ((double)k + 0.5) / (double)f->n;
}

static double y_of(const struct frame *f, double value)
{
    return f->top + f->height * (1 - value / f->axis.top);
}

static void draw_axes(struct zq_buffer *s, const struct zq_panel *p, const struct frame *f)
{
    static const char grey[] = "#6e7781";
    const double bottom = f->top + f->height, right = f->left + f->width;
    for (int i = 0; i < MAX_TICKS && i * f->axis.step <= f->axis.top * (1 + 1e-9); i++) {
        char label[40];
        const double y = y_of(f, i * f->axis.step);
        number_text(i * f->axis.step, f->axis.decimals, label, sizeof label);
        put_line(s, f->left, y, right, y, grey, i ? " stroke-opacity=\"0.25\"" : "");
        put_text(s, f->left - 8, y + 4, "end", "", label);
    }
    const size_t stride = (f->n + 25) / 26; /* labels that would touch are left out */
    for (size_t k = 0; k < f->n; k += stride) {
        char label[24];
        snprintf(label, sizeof label, "%zu", p->first + k);
        put_text(s, x_of(f, k), bottom + 18, "middle", "", p->labels ? p->labels[k] : label);
    }
    put_text(s, f->left + f->width / 2, bottom + 40, "middle", "", p->x_title);
    char turned[96];
    const double x = f->left - 50, y = f->top + f->height / 2;
    snprintf(turned, sizeof turned, " transform=\"rotate(-90 %s %s)\"", px(x).text, px(y).text);
    put_text(s, x, y, "middle", turned, p->y_title);
    put_text(s, f->left, f->top - 22, "start", " font-size=\"15\" font-weight=\"bold\"", p->title);
}

static void draw_box(struct zq_buffer *s, const struct frame *f, double x, double width, struct zq_box b, const char *colour)
{
    const double low = y_of(f, b.low), high = y_of(f, b.high);
    put_line(s, x, y_of(f, b.min), x, low, colour, "");
    put_line(s, x, high, x, y_of(f, b.max), colour, "");
    put_line(s, x - width / 4, y_of(f, b.min), x + width / 4, y_of(f, b.min), colour, "");
    put_line(s, x - width / 4, y_of(f, b.max), x + width / 4, y_of(f, b.max), colour, "");
    put_rect(s, x - width / 2, high, width, low - high, colour, " fill-opacity=\"0.35\"");
    put_line(s, x - width / 2, y_of(f, b.middle), x + width / 2, y_of(f, b.middle), colour, " stroke-width=\"2.5\"");
}

/* Boxes and bars of a category stand side by side; lines go through its middle. */
static void draw_series(struct zq_buffer *s, const struct zq_panel *p, const struct frame *f, size_t index, size_t place, size_t n_places)
{
    const struct zq_series *series = &p->series[index];
    const char *colour = colours[index % ZQ_LEN(colours)];
    const double room = 0.72 * f->width / (double)f->n / (double)(n_places ? n_places : 1), width = room > 34 ? 34 : 0.9 * room;
    double last_x = 0, last_y = NAN;
    for (size_t k = 0; k < f->n; k++) {
        const double middle = x_of(f, k), x = middle + room * ((double)place - 0.5 * (double)(n_places - 1));
        if (series->kind == ZQ_PLOT_BOXES) {
            draw_box(s, f, x, width, series->boxes[k], colour);
            continue;
        }
        const double value = series->values[k], y = isnan(value) ? NAN : y_of(f, value);
        if (!isnan(y) && series->kind == ZQ_PLOT_BARS) put_rect(s, x - width / 2, y, width, f->top + f->height - y, colour, " fill-opacity=\"0.8\"");
        if (!isnan(y) && series->kind == ZQ_PLOT_LINE) {
            if (!isnan(last_y)) put_line(s, last_x, last_y, middle, y, colour, " stroke-width=\"2\"");
            zq_put(s, "<circle cx=\"%s\" cy=\"%s\" r=\"3\" fill=\"%s\"/>\n", px(middle).text, px(y).text, colour);
        }
        last_x = middle;
        last_y = y;
    }
}

static void draw_legend(struct zq_buffer *s, const struct zq_panel *p, const struct frame *f)
{
    double y = f->top + 6;
    for (size_t i = 0; i < p->n_series; i++) {
        if (!p->series[i].name) continue;
        put_rect(s, f->left + 10, y, 12, 12, colours[i % ZQ_LEN(colours)], " fill-opacity=\"0.8\"");
        put_text(s, f->left + 28, y + 10.5, "start", "", p->series[i].name);
        y += LEGEND_ROW;
    }
}

static void draw_panel(struct zq_buffer *s, const struct zq_panel *p, size_t index)
{
    size_t n_named = 0; /* the legend stands above what is drawn */
    for (size_t i = 0; i < p->n_series; i++) n_named += p->series[i].name != NULL;
    const double room = 1 - (double)(n_named * LEGEND_ROW) / (HEIGHT - TOP - BOTTOM), largest = largest_of(p) / (room > 0.5 ? room : 0.5);
    const struct frame f = {.left = (double)index * WIDTH + LEFT, .top = TOP, .width = WIDTH - LEFT - RIGHT, .height = HEIGHT - TOP - BOTTOM,
                            .axis = axis_for(largest), .n = p->n};
    draw_axes(s, p, &f);
    size_t n_places = 0, place = 0;
    for (size_t i = 0; i < p->n_series; i++) n_places += p->series[i].kind != ZQ_PLOT_LINE;
    for (size_t i = 0; i < p->n_series; i++) {
        const bool line = p->series[i].kind == ZQ_PLOT_LINE;
        draw_series(s, p, &f, i, line ? 0 : place, n_places);
        place += !line;
    }
    draw_legend(s, p, &f);
}

zq_status zq_plot_svg(char **svg, const struct zq_panel *panels, size_t n_panels, zq_error *err)
{
    struct zq_buffer s = {0};
    *svg = NULL;
    zq_put(&s, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %zu %d\" width=\"%zu\" height=\"%d\" "
            "font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\" font-size=\"13\" fill=\"#6e7781\" stroke-width=\"1.2\">\n",
        n_panels * WIDTH, (int)HEIGHT, n_panels * WIDTH, (int)HEIGHT);
    for (size_t i = 0; i < n_panels; i++) draw_panel(&s, &panels[i], i);
    zq_put(&s, "</svg>\n");
    if (s.failed) {
        zq_free(s.text);
        return zq_fail(err, ZQ_ENOMEM, "no memory for a picture");
    }
    *svg = s.text;
    return ZQ_OK;
}
