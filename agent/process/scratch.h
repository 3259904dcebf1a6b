/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is taken from one block, front to back, and never given back one by one. For a child
 * that may be killed at any moment while it runs in memory that is not only its own: it cannot die
 * with a lock of the heap in its hands when it never touches the heap. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct scratch {
    char *at;
    size_t left;
};

/* n bytes, aligned for anything and not initialised; NULL when there is not so much left. */
static inline void *scratch_take(struct scratch *s, size_t n)
{
    size_t pad = -(uintptr_t)s->at & (_Alignof(max_align_t) - 1);

    if (pad > s->left || n > s->left - pad)
        return NULL;
    void *taken = s->at + pad;
    s->at += pad + n;
    s->left -= pad + n;
    return taken;
}
