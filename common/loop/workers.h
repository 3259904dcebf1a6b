/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded pool of threads for handlers that block. Threads are started on demand up to a limit
 * and end when idle; work beyond the limit waits in a queue of bounded length. Never used in the
 * agent. Thread-safe.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"

struct workers;

/* A pool of at most max_threads threads and max_queued waiting items. Starts none yet. */
int workers_new(size_t max_threads, size_t max_queued, struct workers **ret_workers,
                struct err *err);

/* Runs fn(arg) on some thread. EXHAUSTED when the queue is full, BAD_STATE when the pool is being
 * freed. */
int workers_run(struct workers *workers, void (*fn)(void *arg), void *arg, struct err *err);

/* Waits until everything queued and running has ended, then ends the threads. NULL is fine. */
void workers_free(struct workers *workers);
