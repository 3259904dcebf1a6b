/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync_run_on_loop has no deadline: the loop's callbacks never block, so what is posted runs within
 * milliseconds, and a caller that left early would leave `arg` dangling. A loop that has been
 * stopped runs what is posted when it is freed.
 */
#include "host/vmm/sync.h"

#include <errno.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/loop/loop.h"

void sync_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

bool sync_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ms)
{
    if (deadline_ms == CLOCK_NO_DEADLINE)
        return pthread_cond_wait(cond, lock) == 0;
    struct timespec until = {
        .tv_sec = deadline_ms / 1000,
        .tv_nsec = (deadline_ms % 1000) * 1000000L,
    };
    return pthread_cond_timedwait(cond, lock, &until) != ETIMEDOUT;
}

struct call {
    void (*fn)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t done_changed;
    bool done;
};

static void run_call(void *arg)
{
    struct call *call = arg;

    call->fn(call->arg);
    pthread_mutex_lock(&call->lock);
    call->done = true;
    pthread_cond_signal(&call->done_changed);
    pthread_mutex_unlock(&call->lock);
}

int sync_run_on_loop(struct loop *loop, void (*fn)(void *arg), void *arg, struct err *err)
{
    struct call call = {.fn = fn, .arg = arg};

    if (loop_is_current(loop)) {
        fn(arg);
        return 0;
    }
    pthread_mutex_init(&call.lock, NULL);
    sync_cond_init(&call.done_changed);
    int result = loop_post(loop, run_call, &call, err);
    if (result == 0) {
        pthread_mutex_lock(&call.lock);
        while (!call.done)
            pthread_cond_wait(&call.done_changed, &call.lock);
        pthread_mutex_unlock(&call.lock);
    }
    pthread_cond_destroy(&call.done_changed);
    pthread_mutex_destroy(&call.lock);
    return result;
}
