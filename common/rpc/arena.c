/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chain of blocks, each a malloc of its own, filled from the front. Blocks double from 2 KiB to
 * 256 KiB, so that a small request costs one malloc and a large one few. An allocation larger than
 * what a block has left starts a new block; one larger than a quarter of the block size gets a
 * block of its own and the current one stays in use.
 *
 * The limit counts what was handed out, because that is what a peer drives: two bytes on the wire
 * (an empty repeated message) become a struct of a hundred. protobuf-c's temporary tables count as
 * well and are not given back.
 */
#include "common/rpc/arena.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/rpc/mem.h"

#define ALIGN       16u
#define FIRST_BLOCK 2048u
#define MAX_BLOCK   (256u << 10)

struct block {
    struct block *next;
    size_t size; /* of what follows the header */
} __attribute__((aligned(ALIGN)));

struct rpc_arena {
    ProtobufCAllocator allocator;
    struct block *blocks; /* the current one first */
    size_t filled;        /* of the current block */
    size_t next_size;
    size_t used;
    size_t limit;
    bool refused;
    bool over_limit;
};

static void *allocator_alloc(void *arg, size_t size)
{
    return rpc_arena_alloc(arg, size);
}

static void allocator_free(void *arg, void *p)
{
    (void)arg;
    (void)p;
}

int rpc_arena_new(size_t limit_bytes, struct rpc_arena **ret_arena, struct err *err)
{
    struct rpc_arena *arena = rpc_calloc(1, sizeof(*arena));
    if (arena == NULL)
        return err_no_memory(err);
    arena->allocator.alloc = allocator_alloc;
    arena->allocator.free = allocator_free;
    arena->allocator.allocator_data = arena;
    arena->next_size = FIRST_BLOCK;
    arena->limit = limit_bytes;
    *ret_arena = arena;
    return 0;
}

void rpc_arena_free(struct rpc_arena *arena)
{
    if (arena == NULL)
        return;
    while (arena->blocks != NULL) {
        struct block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    free(arena);
}

static struct block *block_new(size_t size)
{
    struct block *b = rpc_malloc(sizeof(*b) + size);
    if (b != NULL) {
        b->next = NULL;
        b->size = size;
    }
    return b;
}

/* A block for one large allocation, kept behind the current block. */
static void *alloc_large(struct rpc_arena *arena, size_t size)
{
    struct block *b = block_new(size);
    if (b == NULL)
        return NULL;
    if (arena->blocks == NULL) {
        arena->blocks = b;
        arena->filled = size;
    } else {
        b->next = arena->blocks->next;
        arena->blocks->next = b;
    }
    return b + 1;
}

static void *alloc_small(struct rpc_arena *arena, size_t size)
{
    if (arena->blocks == NULL || arena->blocks->size - arena->filled < size) {
        struct block *b = block_new(arena->next_size);
        if (b == NULL)
            return NULL;
        if (arena->next_size < MAX_BLOCK)
            arena->next_size *= 2;
        b->next = arena->blocks;
        arena->blocks = b;
        arena->filled = 0;
    }
    void *p = (uint8_t *)(arena->blocks + 1) + arena->filled;
    arena->filled += size;
    return p;
}

void *rpc_arena_alloc(struct rpc_arena *arena, size_t size)
{
    if (size > arena->limit || arena->limit - size < arena->used) {
        arena->refused = true;
        arena->over_limit = true;
        return NULL;
    }
    size_t rounded = size == 0 ? ALIGN : (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    void *p =
        rounded > arena->next_size / 4 ? alloc_large(arena, rounded) : alloc_small(arena, rounded);
    if (p == NULL)
        arena->refused = true;
    else
        arena->used += rounded;
    return p;
}

size_t rpc_arena_used(const struct rpc_arena *arena)
{
    return arena->used;
}

bool rpc_arena_refused(const struct rpc_arena *arena)
{
    return arena->refused;
}

bool rpc_arena_over_limit(const struct rpc_arena *arena)
{
    return arena->over_limit;
}

ProtobufCAllocator *rpc_arena_allocator(struct rpc_arena *arena)
{
    return &arena->allocator;
}
