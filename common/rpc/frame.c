/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder believes a length only as far as bytes follow: a message's memory starts at 64 KiB at
 * most and doubles as it fills, so that a peer pays for what it makes us allocate. What all
 * decoders of a connection hold together is bounded by the budget.
 */
#include "common/rpc/frame.h"

#include <stdlib.h>
#include <string.h>

#include "common/rpc/mem.h"

#define FIRST_CAPACITY (64u << 10)

void rpc_frame_init(struct rpc_frame *frame, size_t max, struct rpc_budget *budget)
{
    memset(frame, 0, sizeof(*frame));
    frame->max = max;
    frame->budget = budget;
}

/* Forgets the message in work; its memory was freed or given away. */
static void restart(struct rpc_frame *frame)
{
    frame->budget->used -= frame->capacity;
    frame->head_len = 0;
    frame->data = NULL;
    frame->have = 0;
    frame->capacity = 0;
    frame->len = 0;
}

void rpc_frame_fini(struct rpc_frame *frame)
{
    free(frame->data);
    restart(frame);
}

static int parse_head(struct rpc_frame *frame, struct err *err)
{
    const uint8_t *h = frame->head;
    if (h[0] == 1)
        return err_set(err, ERR_UNSUPPORTED, "compressed messages are not supported");
    if (h[0] != 0)
        return err_set(err, ERR_PROTOCOL, "message flag 0x%02x is unknown", h[0]);
    frame->len = (size_t)h[1] << 24 | (size_t)h[2] << 16 | (size_t)h[3] << 8 | h[4];
    if (frame->len > frame->max)
        return err_set(err, ERR_EXHAUSTED, "message of %zu bytes is larger than the limit of %zu",
                       frame->len, frame->max);
    return 0;
}

static int grow(struct rpc_frame *frame, struct err *err)
{
    size_t want = frame->capacity == 0 ? FIRST_CAPACITY : frame->capacity * 2;
    if (want > frame->len)
        want = frame->len;
    size_t more = want - frame->capacity;
    if (frame->budget->used + more > frame->budget->max)
        return err_set(err, ERR_EXHAUSTED, "too many large messages at a time on one connection");
    uint8_t *p = rpc_realloc(frame->data, want);
    if (p == NULL)
        return err_no_memory(err);
    frame->data = p;
    frame->capacity = want;
    frame->budget->used += more;
    return 0;
}

int rpc_frame_feed(struct rpc_frame *frame, const uint8_t *bytes, size_t n, size_t *ret_used,
                   struct rpc_bytes *ret_message, struct err *err)
{
    size_t used = 0;
    while (frame->head_len < RPC_FRAME_HEAD && used < n) {
        frame->head[frame->head_len++] = bytes[used++];
        if (frame->head_len == RPC_FRAME_HEAD && parse_head(frame, err) < 0)
            return -1;
    }
    while (used < n && frame->have < frame->len) {
        if (frame->have == frame->capacity && grow(frame, err) < 0)
            return -1;
        size_t step = frame->capacity - frame->have;
        if (step > n - used)
            step = n - used;
        memcpy(frame->data + frame->have, bytes + used, step);
        frame->have += step;
        used += step;
    }
    *ret_used = used;
    if (frame->head_len < RPC_FRAME_HEAD || frame->have < frame->len)
        return 0;
    *ret_message = (struct rpc_bytes){.data = frame->data, .len = frame->len};
    restart(frame);
    return 1;
}

bool rpc_frame_partial(const struct rpc_frame *frame)
{
    return frame->head_len > 0;
}

struct rpc_chunk *rpc_chunk_new(size_t n)
{
    struct rpc_chunk *c = rpc_malloc(sizeof(*c) + RPC_FRAME_HEAD + n);
    if (c == NULL)
        return NULL;
    c->next = NULL;
    c->len = RPC_FRAME_HEAD + n;
    c->sent = 0;
    c->bytes[0] = 0;
    c->bytes[1] = (uint8_t)(n >> 24);
    c->bytes[2] = (uint8_t)(n >> 16);
    c->bytes[3] = (uint8_t)(n >> 8);
    c->bytes[4] = (uint8_t)n;
    return c;
}

void rpc_chunk_free(struct rpc_chunk *list)
{
    while (list != NULL) {
        struct rpc_chunk *next = list->next;
        free(list);
        list = next;
    }
}
