/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The byte stream of a layer: reads a blob from a descriptor, recognises gzip, zstd or neither by
 * its first bytes, decompresses, hashes what comes out (the diff id) and enforces the bomb limits.
 * Runs in the confined converter. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/digest.h"

struct input;

struct input_limits {
    uint64_t max_bytes; /* decompressed */
    uint64_t max_ratio; /* decompressed : compressed, counted from INPUT_RATIO_FLOOR on */
};

#define INPUT_RATIO_FLOOR (64ull << 20)

/* A stream over fd, which stays the caller's. */
int input_new(int fd, const struct input_limits *limits, struct input **ret_input, struct err *err);
/* NULL is fine. */
void input_free(struct input *in);
DEFINE_CLEANUP(input, struct input, input_free)
#define cleanup_input CLEANUP(input_cleanup_)

/*
 * The next decompressed bytes, valid until the next call; *ret_n is 0 at the end. PROTOCOL for
 * damaged or truncated data, EXHAUSTED for a limit.
 */
int input_next(struct input *in, const void **ret_bytes, size_t *ret_n, struct err *err);

/* Reads what is left to the end; then the digest and the size of all decompressed bytes. */
int input_finish(struct input *in, uint8_t ret_digest[DIGEST_BYTES], uint64_t *ret_bytes,
                 struct err *err);
