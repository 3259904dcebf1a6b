/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One counter. It is 0 in production, where an allocation costs one relaxed load more than malloc's
 * own.
 */
#include "common/rpc/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static atomic_long countdown; /* 0: off; 1: this one fails and the count stays; >1: counts down */

static bool must_fail(void)
{
    long n = atomic_load_explicit(&countdown, memory_order_relaxed);
    if (n == 0)
        return false;
    if (n == 1)
        return true;
    (void)atomic_fetch_sub(&countdown, 1);
    return false;
}

void rpc_mem_fail_from(long n)
{
    atomic_store(&countdown, n);
}

void *rpc_malloc(size_t n)
{
    return must_fail() ? NULL : malloc(n == 0 ? 1 : n);
}

void *rpc_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : calloc(n, size);
}

void *rpc_realloc(void *p, size_t n)
{
    return must_fail() ? NULL : realloc(p, n == 0 ? 1 : n);
}

char *rpc_strndup(const char *text, size_t n)
{
    char *copy = rpc_malloc(n + 1);
    if (copy != NULL) {
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

static void *ng_malloc(size_t n, void *arg)
{
    (void)arg;
    return rpc_malloc(n);
}

static void ng_free(void *p, void *arg)
{
    (void)arg;
    free(p);
}

static void *ng_calloc(size_t n, size_t size, void *arg)
{
    (void)arg;
    return rpc_calloc(n, size);
}

static void *ng_realloc(void *p, size_t n, void *arg)
{
    (void)arg;
    return rpc_realloc(p, n);
}

nghttp2_mem *rpc_mem_nghttp2(void)
{
    static nghttp2_mem mem = {NULL, ng_malloc, ng_free, ng_calloc, ng_realloc};
    return &mem;
}
