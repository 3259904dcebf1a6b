/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of any type with random fields, for peers that misbehave: the encoding is right, the
 * content is not. The same numbers in every run. One thread.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdint.h>

/* The next number of the sequence, 0 to below - 1. */
uint32_t random_below(uint32_t below);

/* Freed with protobuf_c_message_free_unpacked. */
ProtobufCMessage *random_message(const ProtobufCMessageDescriptor *descriptor);

/* A copy of a message, freed likewise, with up to three of its fields, at any depth, made random.
 */
ProtobufCMessage *random_variation(const ProtobufCMessage *message);
