/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One thread takes events out of the model, builds each one's message once, in
 * an arena of its own, and queues it on every open stream; it waits for events and for nothing
 * else. Nothing that changes a pod ever waits for it: the model's queue is bounded (EVENTS_MAX) and
 * knows that it has lost something.
 *
 * A client that does not read is left behind by at most CRI_EVENTS_MAX_BEHIND; then, or when events
 * were lost, its stream ends with RESOURCE_EXHAUSTED. To leave single events out instead would make
 * its picture wrong for good without its knowledge, while every client must be able to begin again
 * with a list: the kubelet relists whenever the stream ends.
 *
 * Statuses that cannot be told (text that is not UTF-8, or too much of it) are no reason to end a
 * stream: they would be the same after the next list. Such an event goes without all of them, which
 * clients must expect anyway, since a pod can be gone when its event is sent; some of them would
 * look like containers that are gone.
 *
 * A stream has a slot. Whoever takes it out of its slot ends the call: the thread, or the loop when
 * the client has gone. While the thread sends on it, without the lock, the loop only marks it.
 */
#include "host/cri/events.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/rpc/check.h"

#define EVENTS_LOST "events were lost: list, and subscribe again"

struct subscriber {
    struct cri_events *events;
    struct rpc_call *call;
    bool sending; /* the thread uses the call */
    bool gone;    /* the client has left meanwhile */
};

struct cri_events {
    const struct cri *cri;
    pthread_t thread;
    pthread_mutex_t lock; /* all below */
    struct subscriber *slots[CRI_EVENTS_MAX_STREAMS];
    bool stopped;
};

/* Whether it has a slot; lock held. */
static bool forget(struct subscriber *s)
{
    for (size_t i = 0; i < CRI_EVENTS_MAX_STREAMS; i++) {
        if (s->events->slots[i] != s)
            continue;
        s->events->slots[i] = NULL;
        return true;
    }
    return false;
}

static bool any(const struct cri_events *e)
{
    for (size_t i = 0; i < CRI_EVENTS_MAX_STREAMS; i++) {
        if (e->slots[i] != NULL)
            return true;
    }
    return false;
}

/* On the loop. */
static void on_cancel(void *arg)
{
    struct subscriber *s = arg;
    struct cri_events *e = s->events;
    bool mine = false;
    struct err ignored;

    pthread_mutex_lock(&e->lock);
    if (s->sending)
        s->gone = true;
    else
        mine = forget(s);
    if (!any(e))
        (void)sandbox_events_watch(e->cri->config.sandboxes, false, &ignored);
    pthread_mutex_unlock(&e->lock);
    if (!mine)
        return;
    rpc_call_finish(s->call, RPC_CANCELLED, NULL);
    free(s);
}

/* ---- the thread ---- */

static int add_statuses(const struct cri_ctx *ctx, const struct sandbox_event *event,
                        Runtime__V1__ContainerEventResponse *m, struct err *err)
{
    if (cri_make_pod_status(ctx, &event->pod, &m->pod_sandbox_status, err) < 0 ||
        cri_array(ctx, event->containers.n, &m->containers_statuses, err) < 0)
        return -1;
    for (size_t i = 0; i < event->containers.n; i++) {
        if (cri_make_container_status(ctx, &event->containers.items[i], &m->containers_statuses[i],
                                      err) < 0)
            return -1;
        m->n_containers_statuses++;
    }
    if (rpc_check_message(&m->base, err) < 0)
        return -1;
    size_t n = protobuf_c_message_get_packed_size(&m->base);
    if (n > RPC_DEFAULT_MAX_MESSAGE)
        return err_set(err, ERR_EXHAUSTED, "statuses of %zu bytes", n);
    return 0;
}

static int make_message(const struct cri_ctx *ctx, const struct sandbox_event *event,
                        Runtime__V1__ContainerEventResponse **ret_message, struct err *err)
{
    Runtime__V1__ContainerEventResponse *m;
    struct log_ctx log = {.sandbox = event->pod.id};
    struct err why = {0};

    if (cri_make(ctx, &m, runtime__v1__container_event_response__init) < 0 ||
        cri_text(ctx, event->id, &m->container_id, err) < 0)
        return -1;
    m->container_event_type = event->type;
    m->created_at = event->time_ns;
    if (add_statuses(ctx, event, m, &why) < 0) {
        log_event(LOG_WARN, &log, &why, "an event is sent without statuses");
        m->pod_sandbox_status = NULL;
        m->n_containers_statuses = 0;
    }
    *ret_message = m;
    return 0;
}

/* Queues the message; why (NULL: all is well): the stream is to end for that. */
static const char *send_one(struct subscriber *s, const Runtime__V1__ContainerEventResponse *m)
{
    struct err err;

    if (rpc_call_queued(s->call) > CRI_EVENTS_MAX_BEHIND)
        return "the client does not keep up with the events: list, and subscribe again";
    if (rpc_call_send(s->call, &m->base, &err) < 0)
        return err.code == ERR_CANCELLED ? "" : EVENTS_LOST; /* of memory: it was checked */
    return NULL;
}

/* m NULL: events were lost. */
static void send_all(struct cri_events *e, const Runtime__V1__ContainerEventResponse *m)
{
    for (size_t i = 0; i < CRI_EVENTS_MAX_STREAMS; i++) {
        pthread_mutex_lock(&e->lock);
        struct subscriber *s = e->slots[i];
        if (s != NULL)
            s->sending = true;
        pthread_mutex_unlock(&e->lock);
        if (s == NULL)
            continue;
        const char *why = m != NULL ? send_one(s, m) : EVENTS_LOST;
        pthread_mutex_lock(&e->lock);
        s->sending = false;
        bool over = why != NULL || s->gone;
        if (over)
            (void)forget(s);
        pthread_mutex_unlock(&e->lock);
        if (!over)
            continue;
        if (!s->gone && why != NULL && *why != '\0')
            log_warn("GetContainerEvents: %s", why);
        rpc_call_cut(s->call, RPC_RESOURCE_EXHAUSTED, why);
        free(s);
    }
}

static void tell(struct cri_events *e, const struct sandbox_event *event)
{
    struct cri_ctx ctx = {.cri = e->cri};
    Runtime__V1__ContainerEventResponse *m = NULL;
    struct err err = {0};

    if (event->lost) {
        send_all(e, NULL);
        return;
    }
    if (rpc_arena_new((size_t)2 * RPC_DEFAULT_MAX_MESSAGE, &ctx.arena, &err) < 0 ||
        make_message(&ctx, event, &m, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "an event cannot be told of");
    send_all(e, m);
    rpc_arena_free(ctx.arena);
}

static void end_all(struct cri_events *e)
{
    for (size_t i = 0; i < CRI_EVENTS_MAX_STREAMS; i++) {
        pthread_mutex_lock(&e->lock);
        struct subscriber *s = e->slots[i];
        e->slots[i] = NULL;
        pthread_mutex_unlock(&e->lock);
        if (s == NULL)
            continue;
        rpc_call_cut(s->call, RPC_UNAVAILABLE, "casemated is ending");
        free(s);
    }
}

static bool has_any(struct cri_events *e)
{
    pthread_mutex_lock(&e->lock);
    bool has = any(e);
    pthread_mutex_unlock(&e->lock);
    return has;
}

static void *thread_main(void *arg)
{
    struct cri_events *e = arg;
    struct sandbox_event event;

    while (sandbox_events_next(e->cri->config.sandboxes, &event)) {
        if (has_any(e))
            tell(e, &event);
        sandbox_event_fini(&event);
    }
    end_all(e);
    return NULL;
}

/* ---- the method ---- */

static int subscribe(struct cri_events *e, struct subscriber *s, struct err *err)
{
    int result = -1;

    pthread_mutex_lock(&e->lock);
    size_t i = 0;
    while (i < CRI_EVENTS_MAX_STREAMS && e->slots[i] != NULL)
        i++;
    if (e->stopped) {
        (void)err_set(err, ERR_UNAVAILABLE, "casemated is ending");
    } else if (i == CRI_EVENTS_MAX_STREAMS) {
        (void)err_set(err, ERR_EXHAUSTED, "%u clients listen to events already",
                      CRI_EVENTS_MAX_STREAMS);
    } else if (sandbox_events_watch(e->cri->config.sandboxes, true, err) == 0) {
        e->slots[i] = s;
        result = 0;
    }
    pthread_mutex_unlock(&e->lock);
    return result;
}

void cri_get_events(struct rpc_call *call, void *arg)
{
    const struct cri *cri = arg;
    struct subscriber *s = calloc(1, sizeof(*s));
    struct err err = {0};

    if (s == NULL) {
        (void)err_no_memory(&err);
        rpc_call_fail(call, &err);
        return;
    }
    *s = (struct subscriber){.events = cri->events, .call = call};
    /* Comes on this thread, so not before the slot is taken. */
    rpc_call_on_cancel(call, on_cancel, s);
    if (subscribe(cri->events, s, &err) < 0) {
        rpc_call_fail(call, &err);
        free(s);
    }
}

int cri_events_new(const struct cri *cri, struct cri_events **ret_events, struct err *err)
{
    struct cri_events *e = calloc(1, sizeof(*e));

    if (e == NULL)
        return err_no_memory(err);
    e->cri = cri;
    pthread_mutex_init(&e->lock, NULL);
    int failed = pthread_create(&e->thread, NULL, thread_main, e);
    if (failed != 0) {
        pthread_mutex_destroy(&e->lock);
        free(e);
        return err_set_errno(err, failed, "start the events' thread");
    }
    *ret_events = e;
    return 0;
}

void cri_events_stop(struct cri_events *e)
{
    if (e == NULL)
        return;
    pthread_mutex_lock(&e->lock);
    e->stopped = true;
    pthread_mutex_unlock(&e->lock);
    sandbox_events_stop(e->cri->config.sandboxes);
}

void cri_events_free(struct cri_events *e)
{
    if (e == NULL)
        return;
    cri_events_stop(e);
    (void)pthread_join(e->thread, NULL);
    pthread_mutex_destroy(&e->lock);
    free(e);
}
