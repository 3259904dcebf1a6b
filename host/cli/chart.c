/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both pictures have one bar a step from its beginning to its end, under each other in the order of
 * their beginning, so that what overlaps is seen. Container starts long after the pod's would
 * squeeze everything else, so a wait between two steps that is longer than all steps together is
 * cut out of the axis, and the cut is marked.
 */
#include "host/cli/chart.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/cli/text.h"

#define NAME_MAX_CELLS 26
#define SVG_NAMES      210 /* pixels */
#define SVG_BARS       560
#define SVG_TIMES      150
#define SVG_LINE       22

/* ---- reading ----------------------------------------------------------------------------------
 */

static int read_step(const json_t *from, struct cli_chart_step *ret_step, struct err *err)
{
    const json_t *start = json_object_get(from, "from"), *end = json_object_get(from, "to");
    const json_t *cpu = json_object_get(from, "machineCpu");
    const char *name = json_string_value(json_object_get(from, "step"));

    if (name == NULL || !json_is_integer(start) || !json_is_integer(end) ||
        json_integer_value(start) < 0 ||
        (json_integer_value(end) >= 0 && json_integer_value(end) < json_integer_value(start)))
        return err_set(err, ERR_PROTOCOL, "the daemon's timeline is not understood");
    *ret_step = (struct cli_chart_step){
        .name = cli_escape(name),
        .from_us = json_integer_value(start),
        .to_us = json_integer_value(end) < 0 ? -1 : json_integer_value(end),
        .cpu_us = json_is_integer(cpu) ? json_integer_value(cpu) : -1,
    };
    return ret_step->name == NULL ? err_no_memory(err) : 0;
}

int cli_chart_read(const json_t *timeline, struct cli_chart *ret_chart, struct err *err)
{
    struct cli_chart chart = {.n = 0};
    const json_t *item;
    size_t i;

    if (!json_is_array(timeline) || json_array_size(timeline) > CLI_CHART_STEPS)
        return err_set(err, ERR_PROTOCOL, "the daemon's answer has no timeline");
    json_array_foreach(timeline, i, item)
    {
        if (read_step(item, &chart.steps[chart.n], err) < 0) {
            cli_chart_fini(&chart);
            return -1;
        }
        if (chart.steps[chart.n].to_us > chart.end_us)
            chart.end_us = chart.steps[chart.n].to_us;
        chart.n++;
    }
    *ret_chart = chart;
    return 0;
}

void cli_chart_fini(struct cli_chart *chart)
{
    for (size_t i = 0; i < chart->n; i++)
        free(chart->steps[i].name);
    chart->n = 0;
}

/* ---- the axis ---------------------------------------------------------------------------------
 */

/* Waits that are cut out: before each of these steps (by index), so much. */
struct axis {
    int64_t cut_before_us[CLI_CHART_STEPS];
    int64_t length_us;
};

static int64_t end_of(const struct cli_chart_step *s)
{
    return s->to_us < 0 ? s->from_us : s->to_us;
}

static void make_axis(const struct cli_chart *chart, struct axis *ret_axis)
{
    int64_t busy_until = 0, busy = 0, cut = 0;

    for (size_t i = 0; i < chart->n; i++) {
        const struct cli_chart_step *s = &chart->steps[i];
        int64_t start = s->from_us > busy_until ? s->from_us : busy_until;
        if (end_of(s) > start) {
            busy += end_of(s) - start;
            busy_until = end_of(s);
        }
    }
    busy_until = 0;
    for (size_t i = 0; i < chart->n; i++) {
        const struct cli_chart_step *s = &chart->steps[i];
        if (s->from_us - busy_until > busy)
            cut += s->from_us - busy_until;
        ret_axis->cut_before_us[i] = cut;
        if (end_of(s) > busy_until)
            busy_until = end_of(s);
    }
    ret_axis->length_us = busy_until - cut > 0 ? busy_until - cut : 1;
}

static bool is_cut(const struct axis *axis, size_t i)
{
    return axis->cut_before_us[i] > (i == 0 ? 0 : axis->cut_before_us[i - 1]);
}

/* Where on an axis of so many units a time is. */
static size_t place(const struct axis *axis, size_t i, int64_t us, size_t units)
{
    int64_t at = us - axis->cut_before_us[i];

    if (at < 0)
        at = 0;
    if (at > axis->length_us)
        at = axis->length_us;
    return (size_t)(at * (int64_t)units / axis->length_us);
}

/* ---- a terminal -------------------------------------------------------------------------------
 */

static void repeat(const char *text, size_t n, FILE *out)
{
    while (n-- > 0)
        fputs(text, out);
}

static void print_step(const struct cli_chart *chart, const struct axis *axis, size_t i,
                       size_t cells, FILE *out)
{
    const struct cli_chart_step *s = &chart->steps[i];
    size_t from = place(axis, i, s->from_us, cells), to = place(axis, i, end_of(s), cells);
    size_t width = cli_text_width(s->name);

    if (from == cells)
        from--;
    if (to <= from)
        to = from + 1;
    fputs(s->name, out);
    repeat(" ", width < NAME_MAX_CELLS ? NAME_MAX_CELLS - width : 1, out);
    repeat(" ", from, out);
    repeat(s->to_us < 0 ? "░" : "█", to - from, out);
    repeat(" ", cells - to, out);
    if (s->to_us < 0)
        fputs("          not ended", out);
    else
        fprintf(out, " %9.1f ms", (double)(s->to_us - s->from_us) / 1000);
    if (s->cpu_us >= 0)
        fprintf(out, " %8.1f ms", (double)s->cpu_us / 1000);
    fputc('\n', out);
}

void cli_chart_print(const struct cli_chart *chart, size_t cells, FILE *out)
{
    struct axis axis = {.length_us = 1};

    make_axis(chart, &axis);
    fprintf(out, "%-*s%*s", NAME_MAX_CELLS, "STEP", (int)cells, "");
    fprintf(out, " %12s %11s\n", "TOOK", "MACHINE CPU");
    for (size_t i = 0; i < chart->n; i++) {
        if (is_cut(&axis, i))
            fprintf(out, "%-*s… %.1f s later\n", NAME_MAX_CELLS, "",
                    (double)(axis.cut_before_us[i] - (i == 0 ? 0 : axis.cut_before_us[i - 1])) /
                        1e6);
        print_step(chart, &axis, i, cells, out);
    }
}

/* ---- SVG --------------------------------------------------------------------------------------
 */

static void print_xml(const char *text, FILE *out)
{
    for (const char *c = text; *c != '\0'; c++) {
        switch (*c) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        default:
            fputc(*c, out);
            break;
        }
    }
}

static void print_label(size_t x, size_t y, const char *text, FILE *out)
{
    fprintf(out, "<text x=\"%zu\" y=\"%zu\">", x, y);
    print_xml(text, out);
    fputs("</text>\n", out);
}

static void draw_step(const struct cli_chart *chart, const struct axis *axis, size_t i, FILE *out)
{
    const struct cli_chart_step *s = &chart->steps[i];
    size_t y = (i + 2) * SVG_LINE, from = place(axis, i, s->from_us, SVG_BARS);
    size_t to = place(axis, i, end_of(s), SVG_BARS);
    char text[64];

    print_label(8, y + 15, s->name, out);
    fprintf(out, "<rect x=\"%zu\" y=\"%zu\" width=\"%zu\" height=\"%d\" fill=\"%s\"/>\n",
            SVG_NAMES + from, y + 3, to > from + 2 ? to - from : 2, SVG_LINE - 6,
            s->to_us < 0 ? "#bbb" : "#36648b");
    if (s->to_us < 0)
        (void)snprintf(text, sizeof(text), "not ended");
    else
        (void)snprintf(text, sizeof(text), "%.1f ms", (double)(s->to_us - s->from_us) / 1000);
    print_label(SVG_NAMES + SVG_BARS + 12, y + 15, text, out);
    if (is_cut(axis, i))
        fprintf(out,
                "<line x1=\"%d\" y1=\"%zu\" x2=\"%d\" y2=\"%zu\" stroke=\"#888\" "
                "stroke-dasharray=\"4 3\"/>\n",
                SVG_NAMES, y, SVG_NAMES + SVG_BARS, y);
}

void cli_chart_svg(const struct cli_chart *chart, const char *title, FILE *out)
{
    struct axis axis = {.length_us = 1};
    size_t height = (chart->n + 3) * SVG_LINE;
    char text[64];

    make_axis(chart, &axis);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%zu\" "
            "font-family=\"sans-serif\" font-size=\"13\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            SVG_NAMES + SVG_BARS + SVG_TIMES, height);
    print_label(8, 20, title, out);
    for (int i = 0; i <= 4; i++) {
        size_t x = (size_t)(SVG_NAMES + SVG_BARS * i / 4);
        fprintf(out, "<line x1=\"%zu\" y1=\"%d\" x2=\"%zu\" y2=\"%zu\" stroke=\"#ddd\"/>\n", x,
                SVG_LINE * 2, x, height - SVG_LINE);
        (void)snprintf(text, sizeof(text), "%.0f ms", (double)axis.length_us * i / 4000);
        print_label(x, SVG_LINE * 2 - 4, text, out);
    }
    for (size_t i = 0; i < chart->n; i++)
        draw_step(chart, &axis, i, out);
    fputs("</svg>\n", out);
}
