/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between bytes and protobuf-c messages, with the checks that protobuf-c does not make: well-formed
 * UTF-8 and no NUL in strings, bounded depth, bounded memory. Ownership: a decoded message lives in
 * the given arena. Thread-safe.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base/err.h"
#include "common/rpc/arena.h"
#include "common/rpc/frame.h"

#define RPC_MAX_DEPTH 64 /* of messages in messages */

/*
 * Decodes n bytes. INVALID for what is no such message (the error names the field), EXHAUSTED when
 * the arena's limit or memory does not suffice.
 */
int rpc_decode(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t n,
               struct rpc_arena *arena, ProtobufCMessage **ret_message, struct err *err);

/* The check of the encoded form alone; INVALID. */
int rpc_check_wire(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t n,
                   struct err *err);

/*
 * Encodes and frames a message. EXHAUSTED when it is larger than max or for want of memory;
 * PROTOCOL when one of its strings is not UTF-8 (which a peer would refuse).
 */
int rpc_encode(const ProtobufCMessage *message, size_t max, struct rpc_chunk **ret_chunk,
               struct err *err);

/* Whether the strings of a message in memory are UTF-8; PROTOCOL, naming the field. */
int rpc_check_message(const ProtobufCMessage *message, struct err *err);
