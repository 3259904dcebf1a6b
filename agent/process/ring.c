/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two circular arrays: bytes, addressed by offset modulo a power of two, and records that say when
 * a run of bytes came. Both start small and double, because most containers print little and a
 * guest may have fifty of them; an emptied ring gives large memory back. The records are bounded
 * too: beyond one per RECORD_BYTES of the limit, or within MERGE_NS, bytes join the last record, so
 * that a process writing single bytes costs no more than one writing pages.
 */
#include "agent/process/ring.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096u
#define FIRST_RECORDS  16u
#define RECORD_BYTES   128u    /* of limit, for each record that may exist */
#define MERGE_NS       1000000 /* 1 ms: log lines are not told apart more finely */
#define KEEP_CAPACITY  16384u  /* an emptied ring keeps so much */

void ring_init(struct ring *r, size_t limit)
{
    *r = (struct ring){.limit = limit < FIRST_CAPACITY ? FIRST_CAPACITY : limit};
}

void ring_fini(struct ring *r)
{
    free(r->data);
    free(r->records);
    *r = (struct ring){.limit = r->limit, .start = r->start, .end = r->end};
}

void ring_raise_limit(struct ring *r, size_t more)
{
    r->limit += more;
}

static size_t held(const struct ring *r)
{
    return (size_t)(r->end - r->start);
}

size_t ring_room(const struct ring *r)
{
    return held(r) >= r->limit ? 0 : r->limit - held(r);
}

/* Moves the bytes held into an array of new_capacity (a power of two that fits them). */
static int resize_data(struct ring *r, size_t new_capacity, struct err *err)
{
    uint8_t *data = malloc(new_capacity);
    if (data == NULL)
        return err_no_memory(err);
    uint64_t at = r->start;
    while (at < r->end) {
        size_t from = (size_t)at & (r->capacity - 1);
        size_t to = (size_t)at & (new_capacity - 1);
        size_t n = (size_t)(r->end - at);
        if (n > r->capacity - from)
            n = r->capacity - from;
        if (n > new_capacity - to)
            n = new_capacity - to;
        memcpy(data + to, r->data + from, n);
        at += n;
    }
    free(r->data);
    r->data = data;
    r->capacity = new_capacity;
    return 0;
}

static int grow_records(struct ring *r, struct err *err)
{
    size_t new_capacity = r->records_capacity == 0 ? FIRST_RECORDS : r->records_capacity * 2;
    struct ring_record *records = calloc(new_capacity, sizeof(*records));
    if (records == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < r->n_records; i++)
        records[i] = r->records[(r->first_record + i) % r->records_capacity];
    free(r->records);
    r->records = records;
    r->records_capacity = new_capacity;
    r->first_record = 0;
    return 0;
}

int ring_reserve(struct ring *r, size_t want, uint8_t **ret_space, size_t *ret_n, struct err *err)
{
    size_t room = ring_room(r);
    if (want > room)
        want = room;
    if (want == 0) {
        *ret_space = NULL;
        *ret_n = 0;
        return 0;
    }
    if (r->n_records == r->records_capacity &&
        (r->records_capacity == 0 || r->records_capacity < r->limit / RECORD_BYTES)) {
        if (grow_records(r, err) < 0)
            return -1;
    }
    /* Grow when less than half of the wish fits: doubling for each small write would defeat the
     * small start. */
    if (r->capacity - held(r) < (want + 1) / 2) {
        size_t new_capacity = r->capacity == 0 ? FIRST_CAPACITY : r->capacity;
        while (new_capacity - held(r) < (want + 1) / 2)
            new_capacity *= 2;
        if (resize_data(r, new_capacity, err) < 0)
            return -1;
    }
    size_t at = (size_t)r->end & (r->capacity - 1);
    size_t n = r->capacity - held(r);
    if (n > r->capacity - at)
        n = r->capacity - at;
    *ret_space = r->data + at;
    *ret_n = n < want ? n : want;
    return 0;
}

static struct ring_record *record_at(const struct ring *r, size_t i)
{
    return &r->records[(r->first_record + i) % r->records_capacity];
}

void ring_commit(struct ring *r, size_t n, int64_t time_ns)
{
    if (n == 0)
        return;
    r->end += n;
    if (r->n_records > 0) {
        struct ring_record *last = record_at(r, r->n_records - 1);
        int64_t age = time_ns - last->time_ns;
        if (r->n_records == r->records_capacity || (age >= 0 && age < MERGE_NS)) {
            last->end = r->end;
            return;
        }
    }
    r->n_records++;
    *record_at(r, r->n_records - 1) = (struct ring_record){.end = r->end, .time_ns = time_ns};
}

/* The index of the record that holds `offset` (start <= offset < end). Ends ascend, so halve. */
static size_t find_record(const struct ring *r, uint64_t offset)
{
    size_t low = 0, high = r->n_records - 1;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (record_at(r, middle)->end > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool ring_read(const struct ring *r, uint64_t offset, size_t max, struct ring_span *ret_span)
{
    if (offset < r->start || offset >= r->end || max == 0)
        return false;
    const struct ring_record *record = record_at(r, find_record(r, offset));
    size_t at = (size_t)offset & (r->capacity - 1);
    size_t n = (size_t)(record->end - offset);
    if (n > r->capacity - at)
        n = r->capacity - at;
    *ret_span = (struct ring_span){
        .data = r->data + at,
        .len = n < max ? n : max,
        .offset = offset,
        .time_ns = record->time_ns,
    };
    return true;
}

void ring_ack(struct ring *r, uint64_t offset)
{
    if (offset > r->end)
        offset = r->end;
    if (offset <= r->start)
        return;
    r->start = offset;
    while (r->n_records > 0 && record_at(r, 0)->end <= offset) {
        r->first_record = (r->first_record + 1) % r->records_capacity;
        r->n_records--;
    }
    if (r->start == r->end && r->capacity > KEEP_CAPACITY) {
        free(r->data);
        r->data = NULL;
        r->capacity = 0;
    }
}
