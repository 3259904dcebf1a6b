/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts in gRPC's headers: timeouts, percent-encoded messages, content types, status numbers,
 * paths. Values come as bytes with a length, as HTTP/2 delivers them. Pure functions, thread-safe.
 * Source: gRPC "PROTOCOL-HTTP2".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPC_TIMEOUT_SIZE 16 /* bytes, NUL included */

/*
 * Parses grpc-timeout ("100m": 1 to 8 digits and one of H M S m u n) into milliseconds, rounded up.
 * Returns 0, or -1 for any other text.
 */
int rpc_timeout_parse(const void *text, size_t n, int64_t *ret_timeout_ms);

/* Writes a timeout (a negative one counts as 0) in the finest unit of at least a millisecond that
 * fits, rounded up. */
void rpc_timeout_format(int64_t timeout_ms, char ret_text[RPC_TIMEOUT_SIZE]);

/* Percent-encodes text for grpc-message into ret, NUL-terminated and cut between characters at size
 * bytes. */
void rpc_percent_encode(const char *text, char *ret, size_t size);

/*
 * Decodes n bytes of grpc-message into ret, NUL-terminated and cut at size bytes. What is no valid
 * escape is kept; what is not UTF-8 afterwards, and NULs, become '?'.
 */
void rpc_percent_decode(const void *text, size_t n, char *ret, size_t size);

/* Whether a content-type is gRPC with protobuf: "application/grpc", "+proto", parameters. */
bool rpc_is_grpc_content(const void *text, size_t n);

/* Parses a decimal status of HTTP or gRPC (1 to 9 digits). Returns 0, or -1. */
int rpc_number_parse(const void *text, size_t n, uint32_t *ret_number);
