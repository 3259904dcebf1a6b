/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has happened to pods and containers and has not been told yet: a bounded queue between
 * whoever changes a state and the one who takes events out (sandbox_events_next). Only this file
 * knows the bound and what happens beyond it. An event holds a reference of its pod until it is
 * taken. Threads: all functions may be called from any; the lock is the innermost of all.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/sandbox/sandbox.h"

#define EVENTS_MAX 1024u

struct pod;

struct event {
    Runtime__V1__ContainerEventType type;
    char id[SANDBOX_ID_SIZE]; /* of the container, or of the pod */
    int64_t time_ns;
    struct pod *pod; /* a reference */
};

struct events {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct event *ring; /* EVENTS_MAX of them; NULL until somebody watches */
    size_t first, n;
    bool watched;
    bool stopped;
    bool lost; /* the queue was full: there is a gap somewhere after the last one that was taken */
};

/* Nobody watches: the queue takes no memory yet. */
void events_init(struct events *events);
/* Drops what is queued. */
void events_fini(struct events *events);

/* Queues an event, if somebody watches. Never waits; with the pod's mutex held or without. */
void events_add(struct events *events, struct pod *pod, const char *id,
                Runtime__V1__ContainerEventType type);

/* Whether events are kept from now on. EXHAUSTED without memory. */
int events_watch(struct events *events, bool watched, struct err *err);

/* The oldest one (the reference is the caller's), waiting for it; false: stopped. *ret_lost: events
 * around it are missing. */
bool events_take(struct events *events, struct event *ret_event, bool *ret_lost);

/* Lets nobody wait any more, for good. */
void events_stop(struct events *events);
