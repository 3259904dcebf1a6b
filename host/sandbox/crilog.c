/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Bytes collect in the tail until a newline ends the line (F) or another byte
 * would make it longer than CRILOG_MAX_LINE (P): a line of exactly that size that ends there is F,
 * as with containerd. The tail is not part of the log: `offset` stays at its first byte, so that a
 * successor reads it again.
 */
#include <string.h>

#include "common/base/clock.h"
#include "host/sandbox/crilog.h"

void crilog_init(struct crilog *log, const char *stream, uint64_t offset)
{
    log->stream = stream;
    log->offset = offset;
    log->time_ns = 0;
    log->tail_len = 0;
}

/* Writes the tail as one line; `ended` by a newline of the stream, which counts as consumed. */
static int emit(struct crilog *log, bool ended, struct buf *out, struct err *err)
{
    char when[CLOCK_RFC3339_SIZE];

    clock_format_rfc3339(log->time_ns, when);
    if (buf_printf(out, err, "%s %s %c ", when, log->stream, ended ? 'F' : 'P') != 0 ||
        buf_append(out, log->tail, log->tail_len, err) != 0 || buf_append(out, "\n", 1, err) != 0)
        return -1;
    log->offset += log->tail_len + (ended ? 1 : 0);
    log->tail_len = 0;
    return 0;
}

int crilog_feed(struct crilog *log, int64_t time_ns, const uint8_t *bytes, size_t n,
                struct buf *out, struct err *err)
{
    while (n > 0) {
        size_t room = CRILOG_MAX_LINE - log->tail_len;
        size_t look = n < room ? n : room;
        const uint8_t *newline = memchr(bytes, '\n', look);
        size_t take = newline == NULL ? look : (size_t)(newline - bytes);

        if (log->tail_len == 0)
            log->time_ns = time_ns;
        memcpy(log->tail + log->tail_len, bytes, take);
        log->tail_len += take;
        bytes += take;
        n -= take;
        if (n == 0)
            return 0;
        /* What comes next is a newline, or a byte too many. */
        bool ended = *bytes == '\n';
        if (emit(log, ended, out, err) != 0)
            return -1;
        if (ended) {
            bytes++;
            n--;
        }
    }
    return 0;
}

int crilog_flush(struct crilog *log, struct buf *out, struct err *err)
{
    return log->tail_len == 0 ? 0 : emit(log, false, out, err);
}
