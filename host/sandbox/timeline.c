/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed array under a mutex that is held for a few stores: cheap enough to be always on. The CPU
 * time is that of the whole QEMU process, so in overlapping steps it is counted in each.
 */
#include "host/sandbox/timeline.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"

static int64_t now_us(void)
{
    return clock_monotonic_ns() / 1000;
}

/* -1: there is none (any more). */
static int64_t cpu_us(pid_t pid)
{
    struct timespec used;
    clockid_t clock;

    if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0)
        return -1;
    return (int64_t)used.tv_sec * 1000000 + used.tv_nsec / 1000;
}

void timeline_init(struct timeline *t)
{
    memset(t, 0, sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
}

void timeline_fini(struct timeline *t)
{
    pthread_mutex_destroy(&t->lock);
}

void timeline_set_pid(struct timeline *t, pid_t pid)
{
    pthread_mutex_lock(&t->lock);
    t->pid = pid;
    pthread_mutex_unlock(&t->lock);
}

unsigned timeline_begin(struct timeline *t, const char *name)
{
    unsigned step = TIMELINE_STEPS;

    pthread_mutex_lock(&t->lock);
    if (t->began_ns == 0) {
        t->began_ns = clock_realtime_ns();
        t->origin_us = now_us();
    }
    if (t->n < TIMELINE_STEPS) {
        struct timeline_step *s = &t->steps[step = t->n++];
        (void)snprintf(s->name, sizeof(s->name), "%s", name);
        s->from_us = now_us() - t->origin_us;
        s->to_us = -1;
        /* Until the end it is what had been used before. */
        s->cpu_us = cpu_us(t->pid);
    }
    pthread_mutex_unlock(&t->lock);
    return step;
}

void timeline_end(struct timeline *t, unsigned step)
{
    pthread_mutex_lock(&t->lock);
    if (step < t->n && t->steps[step].to_us < 0) {
        struct timeline_step *s = &t->steps[step];
        int64_t used = cpu_us(t->pid);
        s->to_us = now_us() - t->origin_us;
        if (used >= 0)
            s->cpu_us = used - (s->cpu_us < 0 ? 0 : s->cpu_us);
        else
            s->cpu_us = -1;
    }
    pthread_mutex_unlock(&t->lock);
}

int64_t timeline_copy(struct timeline *t, struct timeline_step ret_steps[TIMELINE_STEPS],
                      unsigned *ret_n)
{
    pthread_mutex_lock(&t->lock);
    *ret_n = t->n;
    memcpy(ret_steps, t->steps, t->n * sizeof(t->steps[0]));
    for (unsigned i = 0; i < t->n; i++)
        if (ret_steps[i].to_us < 0)
            ret_steps[i].cpu_us = -1;
    int64_t began_ns = t->began_ns;
    pthread_mutex_unlock(&t->lock);
    return began_ns;
}

void timeline_restore(struct timeline *t, int64_t began_ns, const struct timeline_step *steps,
                      unsigned n)
{
    if (n > TIMELINE_STEPS)
        n = TIMELINE_STEPS;
    pthread_mutex_lock(&t->lock);
    t->began_ns = began_ns;
    t->origin_us = now_us() - (clock_realtime_ns() - began_ns) / 1000;
    t->n = n;
    memcpy(t->steps, steps, n * sizeof(t->steps[0]));
    pthread_mutex_unlock(&t->lock);
}
