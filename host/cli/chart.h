/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A timeline as a picture: bars over a common axis, for a terminal and as SVG. Only this file knows
 * how it looks. Pure but for the stream. Times are microseconds since the timeline began.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "common/base/err.h"

#define CLI_CHART_STEPS 128 /* in one answer; a real one has fewer than 50 */

struct cli_chart_step {
    char *name; /* escaped; heap */
    int64_t from_us;
    int64_t to_us;  /* -1: has not ended */
    int64_t cpu_us; /* of the machine; -1: unknown */
};

struct cli_chart {
    struct cli_chart_step steps[CLI_CHART_STEPS];
    size_t n;
    int64_t end_us; /* of the last step that ended */
};

/* Takes the "timeline" of the verbose PodSandboxStatus. PROTOCOL unless it is one. */
int cli_chart_read(const json_t *timeline, struct cli_chart *ret_chart, struct err *err);
/* Frees the steps' names. A zeroed one is fine. */
void cli_chart_fini(struct cli_chart *chart);

/* Bars of at most `cells` cells, one line a step. */
void cli_chart_print(const struct cli_chart *chart, size_t cells, FILE *out);
/* A whole SVG document; title is plain text. */
void cli_chart_svg(const struct cli_chart *chart, const char *title, FILE *out);
