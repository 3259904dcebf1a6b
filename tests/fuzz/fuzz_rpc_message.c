/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every request and reply of CRI and of the agent: the first two bytes choose one, the third
 * the size of the arena, the rest is its encoding. What is decoded has only good strings, can
 * be encoded again, and says then what it said before.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/rpc/check.h"
#include "proto/agent/agent.pb-c.h"
#include "proto/cri/cri.pb-c.h"
#include "proto/test/rpc_test.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static const ProtobufCMessageDescriptor *choose(uint8_t service, uint8_t method)
{
    static const ProtobufCServiceDescriptor *const services[] = {
        &runtime__v1__runtime_service__descriptor,
        &runtime__v1__image_service__descriptor,
        &casemate__agent__v1__agent__descriptor,
        &casemate__test__v1__rpc_test__descriptor,
    };
    const ProtobufCServiceDescriptor *s = services[(service >> 1) % 4];
    const ProtobufCMethodDescriptor *m = &s->methods[method % s->n_methods];
    return (service & 1) != 0 ? m->output : m->input;
}

/* Whether the decoded message is what went in shows when it is encoded again. */
static struct rpc_chunk *round_trip(const ProtobufCMessageDescriptor *d, const uint8_t *bytes,
                                    size_t n, size_t limit, struct err *err)
{
    struct rpc_arena *arena;
    ProtobufCMessage *m;
    struct rpc_chunk *chunk = NULL;
    require(rpc_arena_new(limit, &arena, err) == 0);
    if (rpc_decode(d, bytes, n, arena, &m, err) == 0) {
        struct err ignored;
        require(rpc_arena_used(arena) <= limit + 16);
        require(rpc_check_message(m, &ignored) == 0);
        require(rpc_encode(m, UINT32_MAX, &chunk, &ignored) == 0);
    }
    rpc_arena_free(arena);
    return chunk;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    if (size < 3)
        return 0;
    const ProtobufCMessageDescriptor *d = choose(data[0], data[1]);
    size_t limit = ((size_t)data[2] + 1) << 12;
    struct rpc_chunk *a = round_trip(d, data + 3, size - 3, limit, &err);
    if (a == NULL) {
        require(err.code == ERR_INVALID || err.code == ERR_EXHAUSTED);
        return 0;
    }
    struct rpc_chunk *b =
        round_trip(d, a->bytes + RPC_FRAME_HEAD, a->len - RPC_FRAME_HEAD, 64 << 20, &err);
    require(b != NULL);
    require(a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0);
    rpc_chunk_free(a);
    rpc_chunk_free(b);
    return 0;
}
