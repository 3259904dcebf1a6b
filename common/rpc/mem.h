/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allocator of this room, so that tests can make the n-th allocation fail and walk every
 * out-of-memory path of the decoders and of nghttp2. Otherwise malloc and friends; memory is
 * released with free(3). Thread-safe.
 */
#pragma once

#include <stddef.h>
#include <nghttp2/nghttp2.h>

/* n bytes, not zeroed; NULL when out of memory. */
void *rpc_malloc(size_t n);
/* n * size bytes, zeroed; NULL when out of memory. */
void *rpc_calloc(size_t n, size_t size);
/* As realloc(3); on failure p is unharmed. */
void *rpc_realloc(void *p, size_t n);
/* A copy of n bytes of text with a NUL behind, or NULL. */
char *rpc_strndup(const char *text, size_t n);

/* The same for nghttp2. */
nghttp2_mem *rpc_mem_nghttp2(void);

/* For tests: the n-th allocation from now on (1: the next) and all later ones fail; 0: none does.
 */
void rpc_mem_fail_from(long n);
