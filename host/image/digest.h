/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content digests: SHA-256, written "sha256:<64 lowercase hexadecimal digits>" (OCI image-spec 1.1,
 * descriptor.md). The other algorithm of the specification, sha512, is refused where it appears. A
 * hasher belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define DIGEST_BYTES     32
#define DIGEST_TEXT_SIZE 72 /* "sha256:" + 64 digits + NUL */

/* Whether text is a well-formed sha256 digest. NULL is not. */
bool digest_is_valid(const char *text);

/* The 64 hexadecimal digits of a valid digest. */
const char *digest_hex(const char *text);

/* Writes the text form of 32 bytes. */
void digest_format(const uint8_t bytes[DIGEST_BYTES], char ret_text[DIGEST_TEXT_SIZE]);

struct hasher;

/* A SHA-256 computation. EXHAUSTED when out of memory. */
int hasher_new(struct hasher **ret_hasher, struct err *err);
/* NULL is fine. */
void hasher_free(struct hasher *h);
DEFINE_CLEANUP(hasher, struct hasher, hasher_free)
#define cleanup_hasher CLEANUP(hasher_cleanup_)

/* Adds n bytes. */
void hasher_update(struct hasher *h, const void *bytes, size_t n);
/* Ends the computation: only hasher_free may follow. */
void hasher_final(struct hasher *h, uint8_t ret_bytes[DIGEST_BYTES]);

/* The digest of n bytes as text. */
int digest_of(const void *bytes, size_t n, char ret_text[DIGEST_TEXT_SIZE], struct err *err);
