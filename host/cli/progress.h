/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pull or an import shows while it runs: a bar that is redrawn in place on a terminal, one
 * line at the end elsewhere. Sizes in bytes, times in milliseconds.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* How far it is. */
struct cli_progress_state {
    const char *name; /* escaped already */
    uint64_t bytes_done;
    uint64_t bytes_total; /* 0: not known yet */
    unsigned layers_done;
    unsigned layers_total;
    uint64_t bytes_per_s; /* 0: not known yet */
};

/*
 * One line of at most `width` cells, without a newline: name, bar, bytes, rate, layers; what does
 * not fit is left out, the bar first, then the name shortened. Truncated to size bytes.
 */
void cli_progress_format(const struct cli_progress_state *state, unsigned width, char *ret_line,
                         size_t size);

struct cli_progress {
    FILE *out;
    bool terminal;
    bool drawn;
    int64_t begin_ms;
    int64_t sample_ms; /* when the rate was last measured */
    uint64_t sample_bytes;
    uint64_t bytes_per_s;
    uint64_t bytes_done;
    unsigned layers_done;
};

/* Progress on `out`: a bar if that is a terminal, and a plain "<verb> <name>" line if not. */
void cli_progress_begin(struct cli_progress *p, FILE *out, const char *verb, const char *name);
/* State as of now; state->bytes_per_s is filled in here. */
void cli_progress_update(struct cli_progress *p, struct cli_progress_state state);
/* Takes the bar away; when it went well, leaves a line that says how much in how long. */
void cli_progress_end(struct cli_progress *p, bool ok, const char *done_text);
