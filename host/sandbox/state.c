/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The two state machines as data: names, the steps that exist, and the one
 * function for each that takes a step. A step that the table does not have is a bug of ours, hence
 * the assert. A STARTING container may exit at once; an exit may be known before a start has
 * returned, so CREATED and STARTING both lead to EXITED.
 *
 * A step that clients can see is an event (GetContainerEvents). That something was forgotten is no
 * step: container_forget and pod_forget say it.
 */
#include <assert.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "host/sandbox/model.h"

static const char *const pod_names[] = {
    [POD_CREATING] = "CREATING", [POD_READY] = "READY",       [POD_STOPPING] = "STOPPING",
    [POD_STOPPED] = "STOPPED",   [POD_REMOVING] = "REMOVING",
};

static const char *const container_names[] = {
    [CTR_CREATING] = "CREATING", [CTR_CREATED] = "CREATED", [CTR_STARTING] = "STARTING",
    [CTR_RUNNING] = "RUNNING",   [CTR_EXITED] = "EXITED",   [CTR_REMOVING] = "REMOVING",
};

#define TO(state) (1u << (state))

static const unsigned pod_steps[] = {
    [POD_CREATING] = TO(POD_READY) | TO(POD_STOPPING) | TO(POD_STOPPED),
    [POD_READY] = TO(POD_STOPPING),
    [POD_STOPPING] = TO(POD_STOPPED),
    [POD_STOPPED] = TO(POD_REMOVING),
    [POD_REMOVING] = TO(POD_STOPPED), /* a removal that failed half way may be repeated */
};

static const unsigned container_steps[] = {
    [CTR_CREATING] = TO(CTR_CREATED) | TO(CTR_EXITED) | TO(CTR_REMOVING),
    [CTR_CREATED] = TO(CTR_STARTING) | TO(CTR_EXITED) | TO(CTR_REMOVING),
    [CTR_STARTING] = TO(CTR_RUNNING) | TO(CTR_EXITED),
    [CTR_RUNNING] = TO(CTR_EXITED),
    [CTR_EXITED] = TO(CTR_REMOVING),
    [CTR_REMOVING] = TO(CTR_EXITED),
};

const char *pod_state_name(enum pod_state state)
{
    return (size_t)state < ARRAY_SIZE(pod_names) ? pod_names[state] : "?";
}

const char *container_state_name(enum container_state state)
{
    return (size_t)state < ARRAY_SIZE(container_names) ? container_names[state] : "?";
}

bool pod_state_may_become(enum pod_state from, enum pod_state to)
{
    return (size_t)from < ARRAY_SIZE(pod_steps) && (pod_steps[from] & TO(to)) != 0;
}

bool container_state_may_become(enum container_state from, enum container_state to)
{
    return (size_t)from < ARRAY_SIZE(container_steps) && (container_steps[from] & TO(to)) != 0;
}

/* The kubelet knows of pods by the events of their containers and of the "container" that a pod is
 * elsewhere: it is created and started at once. */
static void tell_of_pod(struct pod *pod, enum pod_state before)
{
    struct events *events = &pod->mgr->events;

    if (pod->state == POD_READY) {
        pod->announced = true;
        events_add(events, pod, pod->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_CREATED_EVENT);
        events_add(events, pod, pod->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STARTED_EVENT);
    } else if (pod->state == POD_STOPPED && before != POD_REMOVING && pod->announced) {
        events_add(events, pod, pod->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STOPPED_EVENT);
    }
}

static void tell_of_container(struct container *c, enum container_state before)
{
    struct events *events = &c->pod->mgr->events;

    if (c->state == CTR_CREATED)
        events_add(events, c->pod, c->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_CREATED_EVENT);
    else if (c->state == CTR_RUNNING)
        events_add(events, c->pod, c->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STARTED_EVENT);
    else if (c->state == CTR_EXITED && before != CTR_CREATING && before != CTR_REMOVING)
        events_add(events, c->pod, c->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STOPPED_EVENT);
}

void pod_set_state(struct pod *pod, enum pod_state state)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};

    assert(pod_state_may_become(pod->state, state));
    log_event(LOG_DEBUG, &ctx, NULL, "pod %s -> %s", pod_state_name(pod->state),
              pod_state_name(state));
    enum pod_state before = pod->state;
    pod->state = state;
    tell_of_pod(pod, before);
    pthread_cond_broadcast(&pod->cond);
}

void container_set_state(struct container *c, enum container_state state)
{
    struct log_ctx ctx = {.sandbox = c->facts->pod_id, .container = c->facts->id};

    assert(container_state_may_become(c->state, state));
    log_event(LOG_DEBUG, &ctx, NULL, "container %s -> %s", container_state_name(c->state),
              container_state_name(state));
    enum container_state before = c->state;
    c->state = state;
    tell_of_container(c, before);
    pthread_cond_broadcast(&c->pod->cond);
}

void container_found_running(struct container *c)
{
    pthread_mutex_lock(&c->pod->mutex);
    if (c->state == CTR_CREATED)
        container_set_state(c, CTR_STARTING);
    if (c->state == CTR_STARTING)
        container_set_state(c, CTR_RUNNING);
    if (c->started_ns == 0)
        c->started_ns = clock_realtime_ns();
    pthread_mutex_unlock(&c->pod->mutex);
}
