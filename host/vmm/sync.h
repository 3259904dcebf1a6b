/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting on conditions with a deadline of common/base/clock.h, and running something on the loop's
 * thread. For this room.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

struct loop;

/* A condition variable for sync_wait_until: on the monotonic clock. */
void sync_cond_init(pthread_cond_t *cond);

/* Waits for a wake-up (which may be spurious); false when the deadline has passed. */
bool sync_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ms);

/* Runs fn(arg) on the loop's thread and returns when it has; at once when called there. */
int sync_run_on_loop(struct loop *loop, void (*fn)(void *arg), void *arg, struct err *err);
