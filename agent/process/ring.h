/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The output of one stream of one process: the bytes between what the daemon has acknowledged and
 * what the process has written, with the time at which they came. Offsets count from the first byte
 * ever written and never wrap in practice. Memory grows with what is held, up to a limit; bytes
 * leave only by acknowledgement. Embedded by value. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct ring_record {
    uint64_t end;    /* offset behind its last byte */
    int64_t time_ns; /* realtime clock */
};

struct ring {
    uint8_t *data;
    size_t capacity; /* of data; a power of two, or 0 */
    size_t limit;    /* bytes that may be held */
    uint64_t start;  /* offset of the oldest byte held: everything before was acknowledged */
    uint64_t end;    /* offset of the next byte to come */
    struct ring_record *records; /* circular; the first ends after start */
    size_t records_capacity;
    size_t first_record;
    size_t n_records;
};

/* A run of bytes that came together; valid until the ring changes. */
struct ring_span {
    const uint8_t *data;
    size_t len;
    uint64_t offset;
    int64_t time_ns;
};

/* An empty ring that holds at most `limit` bytes (at least 4096). Allocates nothing. */
void ring_init(struct ring *r, size_t limit);
/* Releases the memory. */
void ring_fini(struct ring *r);

/* Raises the limit by `more` bytes: for what is left in a pipe when its writer has ended. */
void ring_raise_limit(struct ring *r, size_t more);

/* How many bytes may still be appended. */
size_t ring_room(const struct ring *r);

/*
 * Room for at most `want` bytes in one piece, growing the memory if need be: write to *ret_space
 * and ring_commit. *ret_n is 0 when the ring is full. EXHAUSTED when out of memory.
 */
int ring_reserve(struct ring *r, size_t want, uint8_t **ret_space, size_t *ret_n, struct err *err);
/* Makes n bytes of the reserved space output that came at time_ns. */
void ring_commit(struct ring *r, size_t n, int64_t time_ns);

/*
 * The bytes at `offset`, at most max of them and all of one time. Returns whether there are any.
 * The offset must lie between start and end.
 */
bool ring_read(const struct ring *r, uint64_t offset, size_t max, struct ring_span *ret_span);

/* Forgets the bytes before `offset`; one before start is ignored, one beyond end is taken as end.
 */
void ring_ack(struct ring *r, uint64_t offset);
