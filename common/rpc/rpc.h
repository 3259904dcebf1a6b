/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC over HTTP/2 on any stream descriptor: what both ends share. Knows nothing of CRI or of the
 * agent. Messages are protobuf-c structs; a decoded message lives in the arena of its call and goes
 * with it. Decoding checks every string for UTF-8 and NULs. Sizes in bytes, times in milliseconds,
 * deadlines absolute (common/base/clock.h). Source of the format: gRPC "PROTOCOL-HTTP2", HTTP/2 RFC
 * 9113.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>

#include "common/base/err.h"

#define RPC_DEFAULT_MAX_MESSAGE (16u << 20)
#define RPC_ARENA_FACTOR        8u

/* gRPC status codes ("Status codes and their use in gRPC"). */
enum rpc_status {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16,
};

/* The status that says the same as an error code; RPC_UNKNOWN for ERR_SYSTEM, RPC_INTERNAL for
 * ERR_PROTOCOL. */
enum rpc_status rpc_status_from_err(enum err_code code);
/* The inverse, for a peer's status; any number that is no status is ERR_PROTOCOL. */
enum err_code rpc_status_to_err(uint32_t status);
/* "NOT_FOUND" and so on; "STATUS_?" for a number that is none. */
const char *rpc_status_name(uint32_t status);
/* The number in decimal, as the header field has it. */
const char *rpc_status_digits(enum rpc_status status);

/* Limits and habits of one connection; zero-initialised means the defaults. */
struct rpc_limits {
    uint32_t max_message_bytes;   /* in either direction; default RPC_DEFAULT_MAX_MESSAGE */
    size_t max_arena_bytes;       /* that a decoded message takes; default RPC_ARENA_FACTOR times
                                     max_message_bytes */
    uint32_t max_streams;         /* concurrent calls per connection; default 256 */
    uint32_t stream_window_bytes; /* receive window per call; default 1 MiB */
    int64_t keepalive_ms;         /* PING after so much silence; default 0: never */
    int64_t keepalive_timeout_ms; /* no answer within: connection closed; default 20 s */
};
