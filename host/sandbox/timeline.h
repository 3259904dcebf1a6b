/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pod's start consisted of: named steps with their beginning and end, which may overlap, and
 * what the machine's process had used of the CPU in each. Filled in by the threads that work on the
 * pod, read by those who ask. Thread-safe. Times are microseconds since the timeline began.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#define TIMELINE_STEPS     48 /* later ones are not kept */
#define TIMELINE_NAME_SIZE 32

struct timeline_step {
    char name[TIMELINE_NAME_SIZE]; /* "network", "clone", "agent", "container create", ... */
    int64_t from_us;
    int64_t to_us;  /* -1: has not ended */
    int64_t cpu_us; /* of the machine's process during the step; -1: unknown */
};

struct timeline {
    pthread_mutex_t lock; /* for what follows */
    int64_t began_ns;     /* realtime; 0: nothing was recorded */
    int64_t origin_us;    /* monotonic */
    pid_t pid;            /* whose CPU time is read; 0: nobody's */
    unsigned n;
    struct timeline_step steps[TIMELINE_STEPS];
};

/* No step, and no process. */
void timeline_init(struct timeline *t);
/* Nobody may use it any more. */
void timeline_fini(struct timeline *t);

/* The machine's process, from now on. */
void timeline_set_pid(struct timeline *t, pid_t pid);

/* A step begins now, the first one being the origin of time; the number for timeline_end. */
unsigned timeline_begin(struct timeline *t, const char *name);
/* It ends now. */
void timeline_end(struct timeline *t, unsigned step);

/* A copy of all steps, *ret_n of them, in order of their beginning; -> when the timeline began. */
int64_t timeline_copy(struct timeline *t, struct timeline_step ret_steps[TIMELINE_STEPS],
                      unsigned *ret_n);
/* Replaces everything, for a pod whose record was loaded. */
void timeline_restore(struct timeline *t, int64_t began_ns, const struct timeline_step *steps,
                      unsigned n);
