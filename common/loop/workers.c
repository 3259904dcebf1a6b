/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads are detached and counted; a thread takes items until it has been idle for IDLE_MS, then
 * ends, so that a quiet daemon keeps none of their stacks. workers_free waits for the count to fall
 * to zero.
 */
#include "common/loop/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

enum { IDLE_MS = 2000, STACK_BYTES = 512 * 1024 };

struct item {
    void (*fn)(void *arg);
    void *arg;
    STAILQ_ENTRY(item) link;
};

struct workers {
    pthread_mutex_t lock; /* guards everything below; never held while an item runs */
    pthread_cond_t work;  /* an item was queued, or closing */
    pthread_cond_t ended; /* a thread ended */
    STAILQ_HEAD(, item) queue;
    size_t n_queued, n_threads, n_idle;
    size_t max_threads, max_queued;
    bool closing;
};

int workers_new(size_t max_threads, size_t max_queued, struct workers **ret_workers,
                struct err *err)
{
    struct workers *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return err_no_memory(err);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->work, &attr);
    (void)pthread_cond_init(&w->ended, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&w->lock, NULL);
    STAILQ_INIT(&w->queue);
    w->max_threads = max_threads == 0 ? 1 : max_threads;
    w->max_queued = max_queued;
    *ret_workers = w;
    return 0;
}

/* Waits for work; false when the thread is to end. Called and returns with the lock held. */
static bool wait_for_work(struct workers *w)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_MS / 1000;
    while (STAILQ_EMPTY(&w->queue)) {
        if (w->closing)
            return false;
        w->n_idle++;
        int r = pthread_cond_timedwait(&w->work, &w->lock, &until);
        w->n_idle--;
        if (r == ETIMEDOUT && STAILQ_EMPTY(&w->queue))
            return false;
    }
    return true;
}

static void *worker_main(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->lock);
    while (wait_for_work(w)) {
        struct item *it = STAILQ_FIRST(&w->queue);
        STAILQ_REMOVE_HEAD(&w->queue, link);
        w->n_queued--;
        pthread_mutex_unlock(&w->lock);
        it->fn(it->arg);
        free(it);
        pthread_mutex_lock(&w->lock);
    }
    w->n_threads--;
    pthread_cond_broadcast(&w->ended);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* One more thread, with the lock held. */
static int start_thread(struct workers *w)
{
    pthread_attr_t attr;
    pthread_t t;
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    int e = pthread_create(&t, &attr, worker_main, w);
    (void)pthread_attr_destroy(&attr);
    if (e == 0)
        w->n_threads++;
    return e;
}

int workers_run(struct workers *w, void (*fn)(void *arg), void *arg, struct err *err)
{
    struct item *it = malloc(sizeof(*it));
    if (it == NULL)
        return err_no_memory(err);
    it->fn = fn;
    it->arg = arg;

    int r = 0;
    pthread_mutex_lock(&w->lock);
    bool need_thread = w->n_queued >= w->n_idle && w->n_threads < w->max_threads;
    if (w->closing)
        r = err_set(err, ERR_BAD_STATE, "shutting down");
    else if (!need_thread && w->n_queued >= w->n_idle + w->max_queued)
        r = err_set(err, ERR_EXHAUSTED, "%zu requests are waiting already", w->n_queued);
    else if (need_thread) {
        int e = start_thread(w);
        if (e != 0 && w->n_threads == 0)
            r = err_set_errno(err, e, "start a worker thread");
    }
    if (r == 0) {
        STAILQ_INSERT_TAIL(&w->queue, it, link);
        w->n_queued++;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    if (r < 0)
        free(it);
    return r;
}

void workers_free(struct workers *w)
{
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->work);
    while (w->n_threads > 0)
        pthread_cond_wait(&w->ended, &w->lock);
    pthread_mutex_unlock(&w->lock);
    (void)pthread_cond_destroy(&w->work);
    (void)pthread_cond_destroy(&w->ended);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}
