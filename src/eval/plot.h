/* Pictures of measurements as SVG: panels side by side, each with axes, ticks and series over the same categories. Text and lines are of
 * a grey that reads on white as on black; the background is transparent. */
#ifndef ZQ_EVAL_PLOT_H
#define ZQ_EVAL_PLOT_H

#include "base/status.h"

enum zq_plot_kind { ZQ_PLOT_BOXES, ZQ_PLOT_BARS, ZQ_PLOT_LINE };

/* Five numbers of a distribution: whiskers to min and max, a box between the quartiles. */
struct zq_box {
    double min, low, middle, high, max;
};
/* Of values sorted ascending, n >= 1; quartiles interpolated between neighbours. */
struct zq_box zq_box_of(const float *sorted, size_t n);

struct zq_series {
    enum zq_plot_kind kind;
    const char *name;           /* in the legend; NULL: none */
    const double *values;       /* [n] bars, lines; NaN: nothing is drawn */
    const struct zq_box *boxes; /* [n] boxes */
};

struct zq_panel {
    const char *title, *x_title, *y_title;
    const char *const *labels;  /* [n] below the axis; NULL: first, first + 1, ... */
    size_t first, n;            /* categories */
    const struct zq_series *series;
    size_t n_series;
};

/* *svg is NUL-terminated, released with zq_free(). Every value is finite or NaN, and not negative. ZQ_ENOMEM. */
zq_status zq_plot_svg(char **svg, const struct zq_panel *panels, size_t n_panels, zq_error *err);

#endif
