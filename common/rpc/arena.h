/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is released all at once, with a ceiling: the home of decoded messages. Ownership:
 * everything allocated from an arena goes with it. One thread at a time. Sizes in bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <protobuf-c/protobuf-c.h>

#include "common/base/err.h"

struct rpc_arena;

/* An arena that hands out at most limit_bytes. */
int rpc_arena_new(size_t limit_bytes, struct rpc_arena **ret_arena, struct err *err);
/* Releases all of it; NULL is fine. */
void rpc_arena_free(struct rpc_arena *arena);

/* Memory aligned for any type, not zeroed, or NULL. */
void *rpc_arena_alloc(struct rpc_arena *arena, size_t size);

/* Bytes handed out so far, rounding included. */
size_t rpc_arena_used(const struct rpc_arena *arena);

/* Whether an allocation was refused, for the limit or for want of memory. */
bool rpc_arena_refused(const struct rpc_arena *arena);
/* Whether one was refused for the limit. */
bool rpc_arena_over_limit(const struct rpc_arena *arena);

/* The arena as protobuf-c wants it; lives as long as the arena. Its free does nothing. */
ProtobufCAllocator *rpc_arena_allocator(struct rpc_arena *arena);
