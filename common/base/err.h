/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one error object. Lives on the caller's stack, allocates nothing, is the last parameter of
 * every function that can fail. Success returns 0 and writes only the ret_ outputs; failure returns
 * -1, fills *err and leaves every ret_ alone. A function either reports an error or logs it, never
 * both. Not shared between threads.
 */
#pragma once

#include <stdarg.h>

/* What a caller can do about a failure; nothing else deserves a code of its own. */
enum err_code {
    ERR_NONE = 0,
    ERR_INVALID,     /* the request itself is wrong: do not repeat it */
    ERR_NOT_FOUND,   /* the named thing does not exist */
    ERR_EXISTS,      /* the thing to be made exists */
    ERR_BAD_STATE,   /* the thing exists and is not in a state that allows this */
    ERR_UNAVAILABLE, /* the peer is not there (now): may be tried again */
    ERR_DEADLINE,    /* out of time */
    ERR_EXHAUSTED,   /* a limit was met: memory, disk, message size, processes */
    ERR_DENIED,      /* credentials or permissions do not allow it */
    ERR_PROTOCOL,    /* the peer broke its protocol; what it said cannot be used */
    ERR_UNSUPPORTED, /* valid, and not provided here */
    ERR_CANCELLED,   /* the caller gave up */
    ERR_SYSTEM,      /* the operating system refused; sys_errno says how */
};

struct err {
    enum err_code code;
    int sys_errno;  /* errno value behind the failure, 0 if there is none */
    char msg[1024]; /* NUL-terminated, one line, UTF-8 whatever a peer's bytes were */
};

/*
 * Fills *err (which may be NULL) and returns -1. Bytes below 0x20, 0x7f and those that are not
 * UTF-8 become '?'; what does not fit is left out, by whole characters.
 */
int err_set(struct err *err, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Like err_set, for a system call: appends ": " and the errno's text. The code follows from
 * sys_errno (ENOMEM, ENOSPC, EMFILE… → EXHAUSTED, ENOENT → NOT_FOUND, EEXIST → EXISTS, ETIMEDOUT →
 * DEADLINE, EACCES and EPERM → DENIED, else SYSTEM).
 */
int err_set_errno(struct err *err, int sys_errno, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* err_set for a failed allocation. Returns -1. */
int err_no_memory(struct err *err);

/* Adds context on the way up: the message becomes "<prefix>: <message>", the code stays. Returns
 * -1. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The code's name for logs, such as "NOT_FOUND". Never NULL. */
const char *err_code_name(enum err_code code);
