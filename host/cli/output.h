/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's output on our own standard output and error, byte for byte and in the log's order.
 * Sizes in bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/cli/logtail.h"

struct loop;

struct cli_output {
    int out_fd;
    int err_fd;
    struct loop *loop; /* runs while a reader is slow, so that signals are served; may be NULL */
    const bool
        *discard;    /* may be NULL; once true, output that cannot be written at once is dropped */
    bool timestamps; /* each line begins with the log's time */
    bool broken;     /* set: nobody reads standard output any more; everything is dropped */
    /* private */
    bool to_err;
    bool mid_line[2];
    size_t len;
    uint8_t buffer[64u << 10];
};

/* A cli_log_fn; arg is the struct cli_output. Bytes wait in the buffer until it is full or flushed.
 */
int cli_output_piece(void *arg, const struct cli_log_piece *piece, struct err *err);
/* Writes what waits. */
int cli_output_flush(struct cli_output *out, struct err *err);
