/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Splits one stream of a container's output into the lines of a CRI log: "TIME stdout F text\n",
 * with tag P for a piece of a line that has not ended. Only this file knows that format (Kubernetes
 * design "CRI logging": RFC3339Nano, stream, tag, text). Pure: bytes in, bytes out. One thread at a
 * time. A line is stamped with the time of the chunk that its first byte came in.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

/* Longest text of one log line; more is split into P pieces of this size. */
#define CRILOG_MAX_LINE 16384

struct crilog {
    const char *stream; /* "stdout" or "stderr" */
    uint64_t offset;    /* of the stream: first byte that was in no line yet */
    int64_t time_ns;    /* of the first byte of the tail */
    size_t tail_len;
    uint8_t tail[CRILOG_MAX_LINE];
};

/* A stream whose next byte is number `offset`. `stream` must outlive it. */
void crilog_init(struct crilog *log, const char *stream, uint64_t offset);

/*
 * Takes n bytes written at time_ns and appends the lines that are now complete to out; log->offset
 * moves on with them. On failure (out is full, memory) log and out are no longer in step: start
 * again at an offset that is known to be in the log.
 */
int crilog_feed(struct crilog *log, int64_t time_ns, const uint8_t *bytes, size_t n,
                struct buf *out, struct err *err);

/* The end of the stream: what is left without a newline becomes a P line. */
int crilog_flush(struct crilog *log, struct buf *out, struct err *err);
