/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptors are left blocking, because they are shared with whoever started us; so a write is
 * only made when poll(2) says that it can be, and is never longer than what a pipe that is writable
 * takes at once. While a reader is slow the loop runs, and with it the signals.
 */
#include "host/cli/output.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "common/loop/loop.h"

enum { SLOW_READER_MS = 100 };

/* Waits until fd takes bytes. Returns 1, or 0 when what waits is to be dropped, or -1. */
static int wait_writable(struct cli_output *o, int fd, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int n = poll(&p, 1, SLOW_READER_MS);
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "write output");
        if (n > 0)
            return 1;
        if (o->discard != NULL && *o->discard)
            return 0;
        if (o->loop != NULL && loop_run_once(o->loop, 0, err) < 0)
            return -1;
    }
}

static int write_out(struct cli_output *o, struct err *err)
{
    int fd = o->to_err ? o->err_fd : o->out_fd;
    for (size_t at = 0; at < o->len;) {
        int ready = wait_writable(o, fd, err);
        if (ready <= 0)
            return ready;
        size_t n = o->len - at < PIPE_BUF ? o->len - at : PIPE_BUF;
        ssize_t w = write(fd, o->buffer + at, n);
        if (w >= 0) {
            at += (size_t)w;
        } else if (errno == EPIPE) {
            o->broken = o->broken || !o->to_err;
            return 0;
        } else if (errno != EINTR && errno != EAGAIN) {
            return err_set_errno(err, errno, "write output");
        }
    }
    return 0;
}

int cli_output_flush(struct cli_output *o, struct err *err)
{
    int r = o->broken ? 0 : write_out(o, err);
    o->len = 0;
    return r;
}

static int append(struct cli_output *o, const void *bytes, size_t n, struct err *err)
{
    for (const uint8_t *p = bytes; n > 0;) {
        size_t room = sizeof(o->buffer) - o->len;
        size_t part = n < room ? n : room;
        memcpy(o->buffer + o->len, p, part);
        o->len += part;
        p += part;
        n -= part;
        if (o->len == sizeof(o->buffer) && cli_output_flush(o, err) < 0)
            return -1;
    }
    return 0;
}

int cli_output_piece(void *arg, const struct cli_log_piece *piece, struct err *err)
{
    struct cli_output *o = arg;
    if (piece->is_stderr != o->to_err && cli_output_flush(o, err) < 0)
        return -1;
    o->to_err = piece->is_stderr;
    bool *mid_line = &o->mid_line[piece->is_stderr ? 1 : 0];
    if (o->timestamps && piece->begins && !*mid_line &&
        (append(o, piece->time, piece->time_len, err) < 0 || append(o, " ", 1, err) < 0))
        return -1;
    *mid_line = !piece->ends_line;
    if (append(o, piece->text, piece->n, err) < 0)
        return -1;
    return piece->ends_line ? append(o, "\n", 1, err) : 0;
}
