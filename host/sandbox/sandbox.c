/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A pod's life as clients drive it. Its name is reserved in the table before
 * its record is stored, the record before anything is started. Stop kills running containers
 * through the agent first, for a short while, so that what they wrote reaches their logs; then the
 * VM is ended whether or not the agent helped. Remove is Stop, then REMOVING on disk, then files
 * and records in one transaction.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/crivalid.h"
#include "host/sandbox/handler.h"
#include "host/sandbox/model.h"
#include "host/sandbox/podnet.h"
#include "host/sandbox/spares.h"

#define LAST_WORDS_MS                                                                              \
    2000 /* for containers that are killed with their pod to get their output out */

static int check_handler(const struct sandbox_manager *mgr, const char *handler, struct err *err)
{
    if (handlers_find(mgr->handlers, mgr->config.n_handlers, handler) != NULL)
        return 0;
    return err_set(err, ERR_INVALID, "runtime_handler '%s' is not configured", handler);
}

/* Ends a pod that nobody has heard of, with its machine if it has one. */
static void discard(struct pod *pod)
{
    pthread_mutex_lock(&pod->mutex);
    pod->spare = true; /* no record is to tell of it */
    pthread_mutex_unlock(&pod->mutex);
    pod_end_vm(pod, "StartFailed", "");
    pod_unref(pod);
}

/* A spare that is none any more, with the facts of what it becomes. */
static int name_spare(struct pod *pod, const Runtime__V1__PodSandboxConfig *config,
                      const char *handler, struct err *err)
{
    struct pod_facts *facts =
        pod_facts_new(pod->facts->id, clock_realtime_ns(), handler, config, err);

    if (facts == NULL)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    pod->spare_facts = pod->facts;
    pod->facts = facts;
    pod->spare = false;
    pthread_mutex_unlock(&pod->mutex);
    timeline_restore(&pod->timeline, 0, &(struct timeline_step){0}, 0);
    return 0;
}

/* A spare, or a pod with a fresh id, CREATING. */
static int make_pod(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxConfig *config,
                    const char *handler, bool spare_will_do, struct pod **ret_pod, struct err *err)
{
    char id[SANDBOX_ID_SIZE];
    struct pod_facts *facts;
    struct pod *spare = spare_will_do ? spares_take(mgr) : NULL;
    int result;

    if (spare != NULL && name_spare(spare, config, handler, err) != 0) {
        discard(spare);
        return -1;
    }
    if (spare != NULL) {
        *ret_pod = spare;
        return 0;
    }
    text_random_hex(SANDBOX_ID_LEN / 2, id);
    facts = pod_facts_new(id, clock_realtime_ns(), handler, config, err);
    if (facts == NULL)
        return -1;
    result = pod_new(mgr, facts, ret_pod, err);
    pod_facts_unref(facts);
    return result;
}

/* A pod in the table and in the store, CREATING. */
static int reserve(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxConfig *config,
                   const char *handler, bool spare_will_do, struct pod **ret_pod, struct err *err)
{
    struct pod *pod = NULL;

    if (make_pod(mgr, config, handler, spare_will_do, &pod, err) != 0)
        return -1;
    if (manager_add_pod(mgr, pod, err) != 0) {
        discard(pod);
        return -1;
    }
    if (pod_save(pod, err) != 0) {
        manager_drop_pod(mgr, pod);
        discard(pod);
        return -1;
    }
    *ret_pod = pod;
    return 0;
}

static void log_timeline(struct pod *pod)
{
    struct timeline_step steps[TIMELINE_STEPS];
    const struct log_ctx ctx = {.sandbox = pod->facts->id};
    unsigned n;

    (void)timeline_copy(&pod->timeline, steps, &n);
    for (unsigned i = 0; i < n; i++)
        log_event(LOG_DEBUG, &ctx, NULL, "%-18s %7.1f to %7.1f ms, %.1f ms of the machine's CPU",
                  steps[i].name, (double)steps[i].from_us / 1000, (double)steps[i].to_us / 1000,
                  (double)steps[i].cpu_us / 1000);
}

static void count_starting(struct sandbox_manager *mgr, int more)
{
    pthread_mutex_lock(&mgr->mutex);
    mgr->starting += (unsigned)more;
    pthread_mutex_unlock(&mgr->mutex);
}

/* *was_spare: whether it may be one; then, whether it was, and failed as one. */
static int run_once(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxConfig *config,
                    const char *handler, int64_t deadline_ms, bool *was_spare,
                    char ret_id[SANDBOX_ID_SIZE], struct err *err)
{
    cleanup_pod struct pod *pod = NULL;
    struct log_ctx ctx = {0};
    char unknown[80];

    if (reserve(mgr, config, handler, *was_spare, &pod, err) != 0)
        return -1;
    *was_spare = pod->spare_facts != NULL;
    ctx.sandbox = pod->facts->id;
    if (crivalid_has_unknown(&config->base, unknown, sizeof(unknown)))
        log_event(LOG_WARN, &ctx, NULL, "the client is newer: %s is not known here, ignoring",
                  unknown);
    if (pod_bring_up(pod, deadline_ms, err) != 0) {
        struct err why;
        /* No other machine would help. */
        *was_spare = *was_spare && !pod->network_failed;
        log_event(LOG_ERROR, &ctx, err, "pod %s does not start", config->metadata->name);
        pod_end_vm(pod, "StartFailed", err->msg);
        if (pod_forget(pod, &why) != 0)
            log_event(LOG_ERROR, &ctx, &why, "what is left of it is cleared at the next start");
        return -1;
    }
    log_event(LOG_INFO, &ctx, NULL, "pod %s is ready%s, its agent answered after %lld ms",
              config->metadata->name, *was_spare ? " (made ahead)" : "", (long long)pod->boot_ms);
    log_timeline(pod);
    memcpy(ret_id, pod->facts->id, SANDBOX_ID_SIZE);
    return 0;
}

int sandbox_run(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxConfig *config,
                const char *runtime_handler, int64_t deadline_ms, char ret_id[SANDBOX_ID_SIZE],
                struct err *err)
{
    const char *handler = text_or_empty(runtime_handler);
    int64_t began_ns = clock_monotonic_ns();
    bool spare;
    int result;

    if (crivalid_pod(config, err) != 0 || check_handler(mgr, handler, err) != 0)
        return -1;
    deadline_ms = clock_earlier(deadline_ms, clock_deadline(mgr->config.boot_timeout_ms));
    spare = handlers_find(mgr->handlers, mgr->config.n_handlers, handler) == &mgr->handlers[0];
    count_starting(mgr, 1);
    spares_call_begins(mgr);
    result = run_once(mgr, config, handler, deadline_ms, &spare, ret_id, err);
    /* A machine that was made ahead may have died since: the pod shall not suffer for it. */
    if (result != 0 && spare && err->code == ERR_UNAVAILABLE) {
        spare = false;
        result = run_once(mgr, config, handler, deadline_ms, &spare, ret_id, err);
    }
    if (result == 0)
        phases_add(&mgr->phases, PHASE_POD, clock_monotonic_ns() - began_ns);
    count_starting(mgr, -1);
    spares_call_ends(mgr);
    spares_refill(mgr);
    return result;
}

/* ---- stop ---- */

/* Whether a container of the pod still runs; mutex held. */
static bool any_running(const struct pod *pod)
{
    struct container *c;

    TAILQ_FOREACH (c, &pod->containers, entry) {
        if (c->state == CTR_RUNNING || c->state == CTR_STARTING)
            return true;
    }
    return false;
}

/* SIGKILL to all that run, one container after the other; the agent may be deaf. */
static void kill_containers(struct pod *pod, struct guest *guest, int64_t deadline_ms)
{
    size_t n = 0;
    struct container **list = pod_containers(pod, &n);
    bool deaf = false;
    struct err err;

    for (size_t i = 0; i < n; i++) {
        struct guest_process process = {.container_id = list[i]->facts->id, .exec_id = ""};
        bool running;

        pthread_mutex_lock(&pod->mutex);
        running = list[i]->state == CTR_RUNNING;
        pthread_mutex_unlock(&pod->mutex);
        if (running && !deaf &&
            guest_signal(guest, &process, SIGKILL, true, deadline_ms, &err) != 0)
            deaf = err.code != ERR_NOT_FOUND;
        container_unref(list[i]);
    }
    free(list);
}

/* Lets the containers end while there is an agent to tell of it. Best effort, bounded. */
static void last_words(struct pod *pod, int64_t deadline_ms)
{
    struct pod_use use = {0};
    struct err err;
    bool running;

    deadline_ms = clock_earlier(deadline_ms, clock_deadline(LAST_WORDS_MS));
    pthread_mutex_lock(&pod->mutex);
    running = any_running(pod);
    pthread_mutex_unlock(&pod->mutex);
    if (!running || pod_use_begin(pod, &use, &err) != 0)
        return;
    kill_containers(pod, use.guest, deadline_ms);
    pod_use_end(&use);
    pthread_mutex_lock(&pod->mutex);
    while (pod->state == POD_READY && any_running(pod) && pod_wait(pod, deadline_ms))
        ;
    pthread_mutex_unlock(&pod->mutex);
}

static void stop_pod(struct pod *pod, int64_t deadline_ms)
{
    bool stopped;

    pthread_mutex_lock(&pod->mutex);
    stopped = pod->state == POD_STOPPED || pod->state == POD_REMOVING;
    pthread_mutex_unlock(&pod->mutex);
    if (stopped)
        return;
    last_words(pod, deadline_ms);
    pod_end_vm(pod, "Stopped", "the pod was stopped");
}

int sandbox_stop(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms, struct err *err)
{
    cleanup_pod struct pod *pod = NULL;

    if (manager_find_pod(mgr, id, &pod, err) != 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    stop_pod(pod, deadline_ms);
    /* What could not be taken back then is tried again now, and its failure is the client's to
     * know: the pod still holds addresses. */
    return podnet_detach(pod, deadline_ms, err);
}

/* ---- remove ---- */

/* Waits until no container of the pod has an operation under way; the VM is gone, so they end. */
static int await_jobs(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct container *c;
    bool busy = true;
    int result = 0;

    pthread_mutex_lock(&pod->mutex);
    while (busy && result == 0) {
        busy = false;
        TAILQ_FOREACH (c, &pod->containers, entry)
            busy = busy || c->busy;
        if (busy && !pod_wait(pod, deadline_ms))
            result = err_set(err, ERR_DEADLINE, "operations on containers of the pod still run");
    }
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

/* Becomes the one who removes; *ret_mine false: somebody else has, and it is gone. */
static int begin_remove(struct pod *pod, int64_t deadline_ms, bool *ret_mine, struct err *err)
{
    int result = 0;

    *ret_mine = false;
    pthread_mutex_lock(&pod->mutex);
    while (pod->state == POD_REMOVING && !pod->gone && result == 0) {
        if (!pod_wait(pod, deadline_ms))
            result = err_set(err, ERR_DEADLINE, "the pod is still being removed");
    }
    if (result == 0 && !pod->gone) {
        pod_set_state(pod, POD_REMOVING);
        *ret_mine = true;
    }
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

int pod_forget(struct pod *pod, struct err *err)
{
    struct sandbox_manager *mgr = pod->mgr;
    struct container *c;

    if (pod_delete_records(pod, err) != 0)
        return err_prefix(err, "pod %s", pod->facts->id);
    for (;;) {
        pthread_mutex_lock(&pod->mutex);
        c = TAILQ_FIRST(&pod->containers);
        if (c != NULL)
            TAILQ_REMOVE(&pod->containers, c, entry);
        pthread_mutex_unlock(&pod->mutex);
        if (c == NULL)
            break;
        container_let_go(c);
        if (pod->announced)
            events_add(&mgr->events, pod, c->facts->id,
                       RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_DELETED_EVENT);
        container_unref(c);
    }
    manager_drop_pod(mgr, pod);
    if (pod->announced)
        events_add(&mgr->events, pod, pod->facts->id,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_DELETED_EVENT);
    pthread_mutex_lock(&pod->mutex);
    pod->gone = true;
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    return 0;
}

static int remove_pod(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    bool mine;

    stop_pod(pod, deadline_ms);
    if (await_jobs(pod, deadline_ms, err) != 0 || begin_remove(pod, deadline_ms, &mine, err) != 0)
        return -1;
    if (!mine)
        return 0;
    if (pod_save(pod, err) != 0 || pod_forget(pod, err) != 0) {
        pthread_mutex_lock(&pod->mutex);
        pod_set_state(pod, POD_STOPPED);
        pthread_mutex_unlock(&pod->mutex);
        return -1;
    }
    log_event(LOG_INFO, &ctx, NULL, "pod removed");
    return 0;
}

int sandbox_remove(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                   struct err *err)
{
    cleanup_pod struct pod *pod = NULL;

    if (manager_find_pod(mgr, id, &pod, err) != 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    return remove_pod(pod, deadline_ms, err);
}
