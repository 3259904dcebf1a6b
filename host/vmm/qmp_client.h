/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One QMP connection: the engine of qmp.h on a socket of the loop. The loop's thread owns socket
 * and engine; other threads call and wait with a deadline. Shared by reference. After
 * qmp_client_close no handler is called any more once the loop has seen it (at once when called
 * there). Deadlines as in common/base/clock.h.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "host/vmm/qmp.h"

struct loop;
struct qmp_client;

struct qmp_client_handlers {
    void (*event)(void *arg, const char *name, const json_t *data); /* as in qmp.h */
    void (*closed)(void *arg,
                   const struct err *why); /* the peer ended it; not after our own close */
    void *arg;
};

/*
 * Takes over the connected socket fd on success; it is made non-blocking. Any thread. Handlers may
 * be called before this returns, and find *ret_client set; a failure leaves it, or makes it NULL.
 */
int qmp_client_new(struct loop *loop, int fd, const struct qmp_client_handlers *handlers,
                   struct qmp_client **ret_client, struct err *err);

/* Fails what waits, with why, and hangs up. Any thread; again: no effect. */
void qmp_client_close(struct qmp_client *client, const struct err *why);
/* Closes, and drops the owner's reference. NULL is fine. */
void qmp_client_free(struct qmp_client *client);

/*
 * One command and its answer. args is taken over (NULL: none); fd (-1: none) is duplicated.
 * *ret_value (ret_value may be NULL) is the caller's reference. DEADLINE: the command may still run
 * later, in its turn. Not on the loop's thread.
 */
int qmp_client_call(struct qmp_client *client, const char *command, json_t *args, int fd,
                    int64_t deadline_ms, json_t **ret_value, struct err *err);

#define QMP_STEPS_MAX 4

/* One of a row of commands: as in qmp_client_call. */
struct qmp_step {
    const char *command;
    json_t *args; /* taken over; NULL: out of memory */
    int fd;
};

/*
 * A row of commands of which each needs the one before: all are queued, and the caller is woken
 * once, by the last one's answer. n: at most QMP_STEPS_MAX. The error is the first step's that
 * failed; those after it ran too, and failed for its sake. After DEADLINE any may still run.
 */
int qmp_client_call_all(struct qmp_client *client, struct qmp_step *steps, size_t n,
                        int64_t deadline_ms, struct err *err);

/*
 * Queues a command; fn (may be NULL) gets the answer on the loop, exactly once, unless this fails.
 * Calls made from one thread run in their order.
 */
int qmp_client_send(struct qmp_client *client, const char *command, json_t *args, qmp_reply_fn fn,
                    void *arg, struct err *err);
