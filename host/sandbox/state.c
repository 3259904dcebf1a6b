/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The two state machines as data: names, the steps that exist, and the one
 * function for each that takes a step. A step that the table does not have is a bug of ours, hence
 * the assert. A STARTING container may exit at once; an exit may be known before a start has
 * returned, so CREATED and STARTING both lead to EXITED.
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

void pod_set_state(struct pod *pod, enum pod_state state)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};

    assert(pod_state_may_become(pod->state, state));
    log_event(LOG_DEBUG, &ctx, NULL, "pod %s -> %s", pod_state_name(pod->state),
              pod_state_name(state));
    pod->state = state;
    pthread_cond_broadcast(&pod->cond);
}

void container_set_state(struct container *c, enum container_state state)
{
    struct log_ctx ctx = {.sandbox = c->facts->pod_id, .container = c->facts->id};

    assert(container_state_may_become(c->state, state));
    log_event(LOG_DEBUG, &ctx, NULL, "container %s -> %s", container_state_name(c->state),
              container_state_name(state));
    c->state = state;
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
