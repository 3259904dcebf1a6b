/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QEMU machine protocol without a socket: bytes in, bytes out, replies and events to callbacks.
 * Commands wait in a queue and are sent strictly one after another. Every command submitted is
 * answered exactly once, by QEMU or by qmp_close. Belongs to one thread; callbacks may submit and
 * close, and must not feed or free.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "common/base/err.h"

#define QMP_LINE_MAX    (1024 * 1024) /* bytes of one message of QEMU; more is a protocol error */
#define QMP_PENDING_MAX 512           /* commands that wait */
#define QMP_DEPTH_MAX   32            /* nesting of JSON */

struct qmp;

/*
 * The answer to a command: ret is its "return" member (borrowed), or NULL, and then err says why.
 * Errors of QEMU: its class DeviceNotFound is NOT_FOUND, CommandNotFound is UNSUPPORTED, others are
 * SYSTEM, all with QEMU's own words.
 */
typedef void (*qmp_reply_fn)(void *arg, json_t *ret, const struct err *err);

struct qmp_handlers {
    void (*ready)(void *arg); /* greeting and capabilities are done; the queue starts to move */
    void (*event)(void *arg, const char *name,
                  const json_t *data); /* data: borrowed, may be NULL */
    void *arg;
};

/* Waits for QEMU's greeting. handlers are copied. */
int qmp_new(const struct qmp_handlers *handlers, struct qmp **ret_qmp, struct err *err);
/* Closes first. NULL is fine. */
void qmp_free(struct qmp *qmp);

/* Bytes that QEMU sent. PROTOCOL: it cannot be talked to any more; close it with this error. */
int qmp_feed(struct qmp *qmp, const void *bytes, size_t n, struct err *err);

/*
 * Queues a command. args (NULL: none) is taken over, also on failure; so is fd (-1: none), which
 * goes with the command's first byte. Failure means that fn is not called: EXHAUSTED, or, after
 * qmp_close, what it was closed with.
 */
int qmp_submit(struct qmp *qmp, const char *command, json_t *args, int fd, qmp_reply_fn fn,
               void *arg, struct err *err);

/* What to send next: *ret_n bytes (0: nothing now), with the descriptor *ret_fd unless it is -1. */
void qmp_output(struct qmp *qmp, const void **ret_bytes, size_t *ret_n, int *ret_fd);
/* So many bytes of that were sent, and with the first of them the descriptor. */
void qmp_sent(struct qmp *qmp, size_t n);

/* Fails everything that waits with `why`, and everything that is submitted later. Again: no effect.
 */
void qmp_close(struct qmp *qmp, const struct err *why);

/* QEMU's version from its greeting. BAD_STATE before it came. */
int qmp_version(const struct qmp *qmp, int *ret_major, int *ret_minor, struct err *err);
