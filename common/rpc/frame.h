/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC's framing of messages in a byte stream (gRPC "PROTOCOL-HTTP2", Length-Prefixed-Message): one
 * flag byte, four bytes of length, the message. Also the unit in which encoded messages are queued
 * for sending. Embedded by value. One thread at a time. Sizes in bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define RPC_FRAME_HEAD 5u

/* What several decoders may hold together. */
struct rpc_budget {
    size_t used;
    size_t max;
};

struct rpc_frame {
    uint8_t head[RPC_FRAME_HEAD];
    size_t head_len;
    uint8_t *data;
    size_t have;
    size_t capacity;
    size_t len;
    size_t max; /* largest message taken */
    struct rpc_budget
        *budget; /* of the connection; the memory of incomplete messages is charged to it */
};

/* One whole message. */
struct rpc_bytes {
    uint8_t *data; /* heap; the receiver's (free) */
    size_t len;
};

/* A decoder between messages. */
void rpc_frame_init(struct rpc_frame *frame, size_t max, struct rpc_budget *budget);
/* Drops an incomplete message. */
void rpc_frame_fini(struct rpc_frame *frame);

/*
 * Takes bytes up to the end of one message; *ret_used says how many. Returns 1 with a message in
 * *ret_message (the caller's), 0 when more bytes are needed, -1 on what cannot be decoded:
 * EXHAUSTED (message too large, or no memory), UNSUPPORTED (compressed), PROTOCOL. After a failure
 * the decoder is not fed again.
 */
int rpc_frame_feed(struct rpc_frame *frame, const uint8_t *bytes, size_t n, size_t *ret_used,
                   struct rpc_bytes *ret_message, struct err *err);

/* Whether a message has begun and is not complete. */
bool rpc_frame_partial(const struct rpc_frame *frame);

/* An encoded message, frame head included, waiting to be sent. */
struct rpc_chunk {
    struct rpc_chunk *next;
    size_t len;
    size_t sent;
    uint8_t bytes[];
};

/* Room for a message of n bytes, with its frame head filled in; the message goes to bytes +
 * RPC_FRAME_HEAD. */
struct rpc_chunk *rpc_chunk_new(size_t n);
/* Frees a list of chunks; NULL is fine. */
void rpc_chunk_free(struct rpc_chunk *list);
