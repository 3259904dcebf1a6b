/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound ownership: a variable declared with a cleanup_ macro is released when it goes out of
 * scope, unless it was handed over with steal_ptr or steal_fd. Initialise at declaration. Types
 * bring their own cleanup_<type> through DEFINE_CLEANUP next to their free function.
 */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>

#define CLEANUP(f) __attribute__((cleanup(f)))

/* Defines cleanup_<name>: a cleanup handler for `type *` variables that calls free_fn on a non-NULL
 * value. */
#define DEFINE_CLEANUP(name, type, free_fn)                                                        \
    static inline __attribute__((unused)) void name##_cleanup_(type **p)                           \
    {                                                                                              \
        if (*p != NULL)                                                                            \
            free_fn(*p);                                                                           \
    }

static inline void cleanup_free_(void *p)
{
    free(*(void **)p);
}

static inline void cleanup_fd_(const int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd);
        errno = saved;
    }
}

#define cleanup_free CLEANUP(cleanup_free_)
#define cleanup_fd   CLEANUP(cleanup_fd_)

/* Takes the pointer out of *p, leaving NULL: the value is now the receiver's. */
#define steal_ptr(p)                                                                               \
    __extension__({                                                                                \
        __typeof__(*(p)) stolen_ = *(p);                                                           \
        *(p) = NULL;                                                                               \
        stolen_;                                                                                   \
    })

/* Takes the descriptor out of *fd, leaving -1. */
static inline int steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

/* Closes *fd if it is open and leaves -1; keeps errno. */
static inline void close_fd(int *fd)
{
    cleanup_fd_(fd);
    *fd = -1;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* The object that holds `member` at address `ptr`. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
