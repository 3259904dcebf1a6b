/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check runs over the encoded bytes, before protobuf-c sees them: a decoded C string no longer
 * shows that there was a NUL in it, and a message that is nested too deep must not be decoded in
 * the first place, since protobuf-c recurses. The walk follows the descriptor: what a field number
 * means decides whether its bytes are a string, a message or anything else; unknown fields are
 * skipped, as proto3 demands. Groups are refused (protobuf-c refuses them too).
 *
 * Memory is bounded by the arena, see arena.c. protobuf-c returns NULL both for bad input and for a
 * failed allocation; the arena remembers which it was.
 */
#include "common/rpc/check.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/text.h"

struct reader {
    const uint8_t *p;
    const uint8_t *end;
};

static bool read_varint(struct reader *r, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (r->p == r->end)
            return false;
        uint8_t b = *r->p++;
        if (shift < 64)
            value |= (uint64_t)(b & 0x7f) << shift;
        if ((b & 0x80) == 0) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool skip(struct reader *r, uint64_t n)
{
    if ((uint64_t)(r->end - r->p) < n)
        return false;
    r->p += n;
    return true;
}

static int check_fields(const ProtobufCMessageDescriptor *d, struct reader r, int depth,
                        struct err *err);

/* What is inside a length-prefixed field that the descriptor knows. */
static int check_contents(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f,
                          struct reader r, int depth, struct err *err)
{
    if (f->type == PROTOBUF_C_TYPE_STRING && !text_is_utf8(r.p, (size_t)(r.end - r.p)))
        return err_set(err, ERR_INVALID, "%s.%s: not UTF-8 text without NULs", d->name, f->name);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        if (depth >= RPC_MAX_DEPTH)
            return err_set(err, ERR_INVALID, "%s.%s: nested deeper than %d", d->name, f->name,
                           RPC_MAX_DEPTH);
        return check_fields(f->descriptor, r, depth + 1, err);
    }
    return 0;
}

static int check_fields(const ProtobufCMessageDescriptor *d, struct reader r, int depth,
                        struct err *err)
{
    while (r.p < r.end) {
        uint64_t tag, value;
        bool ok;
        if (!read_varint(&r, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
            return err_set(err, ERR_INVALID, "%s: malformed field tag", d->name);
        switch (tag & 7) {
        case PROTOBUF_C_WIRE_TYPE_VARINT:
            ok = read_varint(&r, &value);
            break;
        case PROTOBUF_C_WIRE_TYPE_64BIT:
            ok = skip(&r, 8);
            break;
        case PROTOBUF_C_WIRE_TYPE_32BIT:
            ok = skip(&r, 4);
            break;
        case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED: {
            ok = read_varint(&r, &value) && value <= (uint64_t)(r.end - r.p);
            if (!ok)
                break;
            struct reader inner = {r.p, r.p + value};
            r.p += value;
            const ProtobufCFieldDescriptor *f =
                protobuf_c_message_descriptor_get_field(d, (unsigned)(tag >> 3));
            if (f != NULL && check_contents(d, f, inner, depth, err) < 0)
                return -1;
            break;
        }
        default:
            ok = false;
        }
        if (!ok)
            return err_set(err, ERR_INVALID, "%s: field %u is malformed or truncated", d->name,
                           (unsigned)(tag >> 3));
    }
    return 0;
}

int rpc_check_wire(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t n,
                   struct err *err)
{
    static const uint8_t nothing[1];
    if (n == 0)
        bytes = nothing;
    return check_fields(descriptor, (struct reader){bytes, bytes + n}, 1, err);
}

int rpc_decode(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t n,
               struct rpc_arena *arena, ProtobufCMessage **ret_message, struct err *err)
{
    static const uint8_t nothing[1];
    if (n == 0)
        bytes = nothing;
    if (rpc_check_wire(descriptor, bytes, n, err) < 0)
        return -1;
    ProtobufCMessage *m =
        protobuf_c_message_unpack(descriptor, rpc_arena_allocator(arena), n, bytes);
    if (m == NULL && rpc_arena_over_limit(arena))
        return err_set(err, ERR_EXHAUSTED, "%s: takes more memory than a message may",
                       descriptor->name);
    if (m == NULL && rpc_arena_refused(arena))
        return err_no_memory(err);
    if (m == NULL)
        return err_set(err, ERR_INVALID, "%s: malformed message", descriptor->name);
    *ret_message = m;
    return 0;
}

static int check_struct(const ProtobufCMessage *m, int depth, struct err *err);

/* One element of a field, at `at`: of type char * or ProtobufCMessage *. */
static int check_element(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f,
                         const void *at, int depth, struct err *err)
{
    const void *value;
    memcpy(&value, at, sizeof(value));
    if (value == NULL)
        return 0;
    if (f->type == PROTOBUF_C_TYPE_STRING && !text_is_utf8(value, strlen(value)))
        return err_set(err, ERR_PROTOCOL, "%s.%s: not UTF-8 text", d->name, f->name);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return check_struct(value, depth + 1, err);
    return 0;
}

static int check_struct(const ProtobufCMessage *m, int depth, struct err *err)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    const uint8_t *base = (const uint8_t *)m;
    if (depth > RPC_MAX_DEPTH)
        return err_set(err, ERR_PROTOCOL, "%s: nested deeper than %d", d->name, RPC_MAX_DEPTH);

    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        const uint8_t *at = base + f->offset;
        size_t n = 1;
        if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            memcpy(&n, base + f->quantifier_offset, sizeof(n));
            memcpy(&at, base + f->offset, sizeof(at));
        } else if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            uint32_t which;
            memcpy(&which, base + f->quantifier_offset, sizeof(which));
            n = which == f->id ? 1 : 0;
        }
        for (size_t k = 0; k < n; k++) {
            if (check_element(d, f, at + k * sizeof(void *), depth, err) < 0)
                return -1;
        }
    }
    return 0;
}

int rpc_check_message(const ProtobufCMessage *message, struct err *err)
{
    return check_struct(message, 1, err);
}

int rpc_encode(const ProtobufCMessage *message, size_t max, struct rpc_chunk **ret_chunk,
               struct err *err)
{
    if (rpc_check_message(message, err) < 0)
        return -1;
    size_t n = protobuf_c_message_get_packed_size(message);
    if (n > max || n > UINT32_MAX)
        return err_set(err, ERR_EXHAUSTED, "%s of %zu bytes is larger than the limit of %zu",
                       message->descriptor->name, n, max);
    struct rpc_chunk *c = rpc_chunk_new(n);
    if (c == NULL)
        return err_no_memory(err);
    (void)protobuf_c_message_pack(message, c->bytes + RPC_FRAME_HEAD);
    *ret_chunk = c;
    return 0;
}
