/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A ring of short records: what the pod and its containers look like is read
 * when an event is taken out, from the pod that it holds, so a queued event costs a hundred bytes
 * whatever the pod consists of, and its status is never older than the event. A full ring drops the
 * newest and remembers that there is a gap; a watcher must then look for itself.
 */
#include "host/sandbox/events.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "host/sandbox/model.h"

void events_init(struct events *events)
{
    *events = (struct events){0};
    pthread_mutex_init(&events->mutex, NULL);
    pthread_cond_init(&events->cond, NULL);
}

void events_fini(struct events *events)
{
    for (size_t i = 0; i < events->n; i++)
        pod_unref(events->ring[(events->first + i) % EVENTS_MAX].pod);
    free(events->ring);
    pthread_cond_destroy(&events->cond);
    pthread_mutex_destroy(&events->mutex);
}

void events_add(struct events *events, struct pod *pod, const char *id,
                Runtime__V1__ContainerEventType type)
{
    struct event *event;

    pthread_mutex_lock(&events->mutex);
    if (events->watched && !events->stopped && events->n < EVENTS_MAX) {
        event = &events->ring[(events->first + events->n) % EVENTS_MAX];
        event->type = type;
        memcpy(event->id, id, SANDBOX_ID_SIZE);
        event->time_ns = clock_realtime_ns();
        event->pod = pod_ref(pod);
        events->n++;
        pthread_cond_signal(&events->cond);
    } else if (events->watched) {
        events->lost = true;
    }
    pthread_mutex_unlock(&events->mutex);
}

int events_watch(struct events *events, bool watched, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&events->mutex);
    if (watched && events->ring == NULL)
        events->ring = calloc(EVENTS_MAX, sizeof(*events->ring));
    if (watched && events->ring == NULL)
        result = err_no_memory(err);
    if (result == 0 && watched && !events->watched)
        events->lost = false; /* nobody was there to miss anything */
    if (result == 0)
        events->watched = watched;
    pthread_mutex_unlock(&events->mutex);
    return result;
}

bool events_take(struct events *events, struct event *ret_event, bool *ret_lost)
{
    bool taken = false;

    pthread_mutex_lock(&events->mutex);
    while (events->n == 0 && !events->stopped)
        pthread_cond_wait(&events->cond, &events->mutex);
    if (!events->stopped) {
        *ret_event = events->ring[events->first];
        events->first = (events->first + 1) % EVENTS_MAX;
        events->n--;
        *ret_lost = events->lost;
        events->lost = false;
        taken = true;
    }
    pthread_mutex_unlock(&events->mutex);
    return taken;
}

void events_stop(struct events *events)
{
    pthread_mutex_lock(&events->mutex);
    events->stopped = true;
    pthread_cond_broadcast(&events->cond);
    pthread_mutex_unlock(&events->mutex);
}

/* ---- for the rooms above ---- */

int sandbox_events_watch(struct sandbox_manager *mgr, bool watched, struct err *err)
{
    return events_watch(&mgr->events, watched, err);
}

bool sandbox_events_next(struct sandbox_manager *mgr, struct sandbox_event *ret_event)
{
    struct event event;
    bool lost;
    struct err err;

    if (!events_take(&mgr->events, &event, &lost))
        return false;
    *ret_event = (struct sandbox_event){.type = event.type, .time_ns = event.time_ns};
    memcpy(ret_event->id, event.id, SANDBOX_ID_SIZE);
    /* Without its statuses an event is no better than none. */
    ret_event->lost =
        pod_snapshot(event.pod, &ret_event->pod, &ret_event->containers, &err) != 0 || lost;
    pod_unref(event.pod);
    return true;
}

void sandbox_event_fini(struct sandbox_event *event)
{
    sandbox_info_fini(&event->pod);
    sandbox_container_list_fini(&event->containers);
}

void sandbox_events_stop(struct sandbox_manager *mgr)
{
    events_stop(&mgr->events);
}
