/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The manager's list of pods is the only table: a lookup walks it, which for
 * the hundreds of pods that a node runs costs less than keeping indices true. A pod leaves the list
 * last, when nothing of it is left, so its name stays taken as long as anything is.
 *
 * References keep memory, `operations` keeps a VM: whoever talks to a guest holds a pod_use, and
 * pod_end_vm waits for those after it has killed the VM, which makes all of their calls fail at
 * once.
 */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/loop/workers.h"
#include "host/sandbox/handler.h"
#include "host/sandbox/model.h"
#include "host/sandbox/spares.h"

#define MAX_WORKERS 16
#define MAX_QUEUED  8192

void set_text(char **text, const char *value)
{
    char *copy = strdup(text_or_empty(value));

    if (copy == NULL)
        return;
    free(*text);
    *text = copy;
}

/* ---- references ---- */

/* One whose waits end by the monotonic clock. */
static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

int pod_new(struct sandbox_manager *mgr, struct pod_facts *facts, struct pod **ret_pod,
            struct err *err)
{
    struct pod *pod = calloc(1, sizeof(*pod));

    if (pod == NULL)
        return err_no_memory(err);
    atomic_init(&pod->refs, 1);
    pod->mgr = mgr;
    pod->facts = pod_facts_ref(facts);
    memcpy(pod->short_id, facts->id, POD_SHORT_ID_LEN);
    timeline_init(&pod->timeline);
    pthread_mutex_init(&pod->save_mutex, NULL);
    pthread_mutex_init(&pod->size_mutex, NULL);
    pthread_mutex_init(&pod->mutex, NULL);
    init_cond(&pod->cond);
    pod->state = POD_CREATING;
    LIST_INIT(&pod->disks);
    TAILQ_INIT(&pod->containers);
    *ret_pod = pod;
    return 0;
}

struct pod *pod_ref(struct pod *pod)
{
    atomic_fetch_add(&pod->refs, 1);
    return pod;
}

void pod_unref(struct pod *pod)
{
    if (pod == NULL || atomic_fetch_sub(&pod->refs, 1) != 1)
        return;
    assert(TAILQ_EMPTY(&pod->containers));
    pod_disks_clear(pod);
    guest_unref(pod->guest);
    vm_unref(pod->vm);
    for (size_t i = 0; i < pod->n_cgroups; i++)
        free(pod->cgroups[i]);
    free(pod->cgroups);
    container_limits_unref(pod->limits);
    free(pod->reason);
    free(pod->message);
    free(pod->vm_record);
    free(pod->ips);
    pthread_cond_destroy(&pod->cond);
    pthread_mutex_destroy(&pod->mutex);
    pthread_mutex_destroy(&pod->size_mutex);
    pthread_mutex_destroy(&pod->save_mutex);
    timeline_fini(&pod->timeline);
    pod_facts_unref(pod->spare_facts);
    pod_facts_unref(pod->facts);
    free(pod);
}

int container_new(struct pod *pod, struct container_facts *facts, struct container **ret_container,
                  struct err *err)
{
    struct container *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return err_no_memory(err);
    atomic_init(&c->refs, 1);
    c->pod = pod_ref(pod);
    c->facts = container_facts_ref(facts);
    c->state = CTR_CREATING;
    *ret_container = c;
    return 0;
}

struct container *container_ref(struct container *c)
{
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void container_unref(struct container *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    assert(c->pump == NULL);
    container_facts_unref(c->facts);
    container_limits_unref(c->limits);
    free(c->reason);
    free(c->message);
    pod_unref(c->pod);
    free(c);
}

/* ---- the table ---- */

static bool same_name(const struct pod *a, const struct pod *b)
{
    const Runtime__V1__PodSandboxMetadata *x = a->facts->config->metadata;
    const Runtime__V1__PodSandboxMetadata *y = b->facts->config->metadata;

    return x->attempt == y->attempt && strcmp(x->name, y->name) == 0 &&
           strcmp(x->uid, y->uid) == 0 && strcmp(x->namespace_, y->namespace_) == 0;
}

int manager_add_pod(struct sandbox_manager *mgr, struct pod *pod, struct err *err)
{
    const Runtime__V1__PodSandboxMetadata *name = pod->facts->config->metadata;
    struct pod *other;
    int result = 0;

    pthread_mutex_lock(&mgr->mutex);
    TAILQ_FOREACH (other, &mgr->pods, entry) {
        if (!same_name(pod, other))
            continue;
        result =
            err_set(err, ERR_EXISTS, "pod '%s' of namespace '%s', uid '%s', attempt %u exists: %s",
                    name->name, name->namespace_, name->uid, name->attempt, other->facts->id);
        break;
    }
    /* Not in the macro's arguments: it names them more than once. */
    if (result == 0) {
        (void)pod_ref(pod);
        TAILQ_INSERT_HEAD(&mgr->pods, pod, entry);
    }
    pthread_mutex_unlock(&mgr->mutex);
    return result;
}

void manager_drop_pod(struct sandbox_manager *mgr, struct pod *pod)
{
    pthread_mutex_lock(&mgr->mutex);
    TAILQ_REMOVE(&mgr->pods, pod, entry);
    pthread_mutex_unlock(&mgr->mutex);
    pod_unref(pod);
}

int manager_all_pods(struct sandbox_manager *mgr, struct pod ***ret_pods, size_t *ret_n,
                     struct err *err)
{
    struct pod **pods;
    struct pod *pod;
    size_t n = 0;

    pthread_mutex_lock(&mgr->mutex);
    TAILQ_FOREACH (pod, &mgr->pods, entry)
        n++;
    pods = calloc(n + 1, sizeof(struct pod *));
    if (pods != NULL) {
        n = 0;
        TAILQ_FOREACH (pod, &mgr->pods, entry)
            pods[n++] = pod_ref(pod);
    }
    pthread_mutex_unlock(&mgr->mutex);
    if (pods == NULL)
        return err_no_memory(err);
    *ret_pods = pods;
    *ret_n = n;
    return 0;
}

void manager_free_pods(struct pod **pods, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pod_unref(pods[i]);
    free(pods);
}

/* An id as clients write it: up to 64 characters; a longer or empty one names nothing. */
static bool may_be_id(const char *id)
{
    size_t n = strlen(id);

    return n > 0 && n <= SANDBOX_ID_LEN;
}

static bool pod_visible(struct pod *pod)
{
    bool visible;

    pthread_mutex_lock(&pod->mutex);
    visible = pod->state != POD_CREATING;
    pthread_mutex_unlock(&pod->mutex);
    return visible;
}

int manager_find_pod(struct sandbox_manager *mgr, const char *id, struct pod **ret_pod,
                     struct err *err)
{
    struct pod *pod, *found = NULL;
    unsigned matches = 0;

    if (!may_be_id(id))
        return err_set(err, ERR_NOT_FOUND, "no pod '%s'", id);
    pthread_mutex_lock(&mgr->mutex);
    TAILQ_FOREACH (pod, &mgr->pods, entry) {
        if (!text_has_prefix(pod->facts->id, id) || !pod_visible(pod))
            continue;
        matches++;
        found = pod;
    }
    if (matches == 1)
        pod_ref(found);
    pthread_mutex_unlock(&mgr->mutex);
    if (matches == 0)
        return err_set(err, ERR_NOT_FOUND, "no pod '%s'", id);
    if (matches > 1)
        return err_set(err, ERR_INVALID, "'%s' begins the ids of %u pods", id, matches);
    *ret_pod = found;
    return 0;
}

/* Counts the containers of one pod that match; the last of them gets a reference in *found. */
static unsigned match_containers(struct pod *pod, const char *id, struct container **found)
{
    struct container *c;
    unsigned matches = 0;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (c, &pod->containers, entry) {
        if (c->state == CTR_CREATING || !text_has_prefix(c->facts->id, id))
            continue;
        matches++;
        container_unref(*found);
        *found = container_ref(c);
    }
    pthread_mutex_unlock(&pod->mutex);
    return matches;
}

int manager_find_container(struct sandbox_manager *mgr, const char *id,
                           struct container **ret_container, struct err *err)
{
    cleanup_container struct container *found = NULL;
    struct pod **pods = NULL;
    unsigned matches = 0;
    size_t n = 0;

    if (!may_be_id(id))
        return err_set(err, ERR_NOT_FOUND, "no container '%s'", id);
    if (manager_all_pods(mgr, &pods, &n, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        matches += match_containers(pods[i], id, &found);
    manager_free_pods(pods, n);
    if (matches == 0)
        return err_set(err, ERR_NOT_FOUND, "no container '%s'", id);
    if (matches > 1)
        return err_set(err, ERR_INVALID, "'%s' begins the ids of %u containers", id, matches);
    *ret_container = steal_ptr(&found);
    return 0;
}

struct container **pod_containers(struct pod *pod, size_t *ret_n)
{
    struct container **list;
    struct container *c;
    size_t n = 0;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (c, &pod->containers, entry)
        n++;
    list = calloc(n + 1, sizeof(struct container *));
    n = 0;
    if (list != NULL) {
        TAILQ_FOREACH (c, &pod->containers, entry)
            list[n++] = container_ref(c);
    }
    pthread_mutex_unlock(&pod->mutex);
    *ret_n = n;
    return list;
}

/* ---- threads ---- */

void manager_defer(struct sandbox_manager *mgr, void (*fn)(void *arg), void *arg)
{
    struct err err;

    if (workers_run(mgr->workers, fn, arg, &err) == 0)
        return;
    log_event(LOG_WARN, NULL, &err, "no worker; doing it here");
    fn(arg);
}

struct loop_errand {
    void (*fn)(void *arg);
    void *arg;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done;
};

static void run_errand(void *arg)
{
    struct loop_errand *errand = arg;

    errand->fn(errand->arg);
    pthread_mutex_lock(&errand->mutex);
    errand->done = true;
    pthread_cond_signal(&errand->cond);
    pthread_mutex_unlock(&errand->mutex);
}

void manager_on_loop(struct sandbox_manager *mgr, void (*fn)(void *arg), void *arg)
{
    struct loop_errand errand = {.fn = fn, .arg = arg};
    struct err err;

    if (loop_is_current(mgr->deps.loop)) {
        fn(arg);
        return;
    }
    pthread_mutex_init(&errand.mutex, NULL);
    pthread_cond_init(&errand.cond, NULL);
    /* Fails only for want of memory, and then the object behind arg could not be let go safely. */
    while (loop_post(mgr->deps.loop, run_errand, &errand, &err) != 0) {
        struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
        nanosleep(&pause, NULL);
    }
    pthread_mutex_lock(&errand.mutex);
    while (!errand.done)
        pthread_cond_wait(&errand.cond, &errand.mutex);
    pthread_mutex_unlock(&errand.mutex);
    pthread_cond_destroy(&errand.cond);
    pthread_mutex_destroy(&errand.mutex);
}

bool pod_wait(struct pod *pod, int64_t deadline_ms)
{
    struct timespec until;

    if (deadline_ms == CLOCK_NO_DEADLINE) {
        pthread_cond_wait(&pod->cond, &pod->mutex);
        return true;
    }
    until.tv_sec = (time_t)(deadline_ms / 1000);
    until.tv_nsec = (long)(deadline_ms % 1000) * 1000000;
    return pthread_cond_timedwait(&pod->cond, &pod->mutex, &until) != ETIMEDOUT;
}

int pod_use_begin(struct pod *pod, struct pod_use *ret_use, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&pod->mutex);
    if (pod->state != POD_READY || pod->vm == NULL || pod->guest == NULL) {
        result = err_set(err, ERR_BAD_STATE, "pod %s is not ready (%s%s%s)", pod->facts->id,
                         pod_state_name(pod->state), pod->reason == NULL ? "" : ": ",
                         text_or_empty(pod->reason));
    } else {
        pod->operations++;
        *ret_use = (struct pod_use){
            .pod = pod_ref(pod),
            .vm = vm_ref(pod->vm),
            .guest = guest_ref(pod->guest),
        };
    }
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

void pod_use_end(struct pod_use *use)
{
    struct pod *pod = use->pod;

    if (pod == NULL)
        return;
    guest_unref(use->guest);
    vm_unref(use->vm);
    pthread_mutex_lock(&pod->mutex);
    pod->operations--;
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    use->pod = NULL;
    pod_unref(pod);
}

int64_t manager_call_deadline(const struct sandbox_manager *mgr, int64_t deadline_ms)
{
    return clock_earlier(deadline_ms, clock_deadline(mgr->config.call_timeout_ms));
}

/* ---- the manager itself ---- */

static void free_manager(struct sandbox_manager *mgr)
{
    struct sandbox_config *config = &mgr->config;

    if (mgr->workers != NULL)
        workers_free(mgr->workers);
    pthread_cond_destroy(&mgr->calm_cond);
    pthread_mutex_destroy(&mgr->mutex);
    pthread_mutex_destroy(&mgr->scratch_mutex);
    phases_fini(&mgr->phases);
    events_fini(&mgr->events);
    free(mgr->pods_run_dir);
    free(mgr->logs_run_dir);
    free(mgr->pods_state_dir);
    free(mgr->scratch_template);
    free((void *)(uintptr_t)config->state_dir);
    free((void *)(uintptr_t)config->run_dir);
    handlers_free(mgr->handlers, config->n_handlers);
    free((void *)(uintptr_t)config->warm_image);
    free(mgr);
}

static int copy_config(struct sandbox_manager *mgr, const struct sandbox_config *from,
                       struct err *err)
{
    struct sandbox_config *to = &mgr->config;

    *to = *from;
    to->state_dir = strdup(from->state_dir);
    to->run_dir = strdup(from->run_dir);
    if (handlers_copy(from->handlers, from->n_handlers, &mgr->handlers, err) != 0)
        return -1;
    to->handlers = mgr->handlers;
    to->warm_image = strdup(text_or_empty(from->warm_image));
    if (to->scratch_bytes == 0)
        to->scratch_bytes = 10ull << 30;
    if (to->boot_timeout_ms == 0)
        to->boot_timeout_ms = 60000;
    if (to->call_timeout_ms == 0)
        to->call_timeout_ms = 20000;
    if (to->reconnect_timeout_ms == 0)
        to->reconnect_timeout_ms = 30000;
    mgr->pods_run_dir = text_printf("%s/vm", from->run_dir);
    mgr->logs_run_dir = text_printf("%s/log", from->run_dir);
    mgr->pods_state_dir = text_printf("%s/disk", from->state_dir);
    mgr->scratch_template = text_printf("%s/scratch-quota-16k-%llu.ext4", from->state_dir,
                                        (unsigned long long)to->scratch_bytes);
    if (to->warm_image == NULL || to->state_dir == NULL || to->run_dir == NULL ||
        mgr->pods_run_dir == NULL || mgr->logs_run_dir == NULL || mgr->pods_state_dir == NULL ||
        mgr->scratch_template == NULL)
        return err_no_memory(err);
    return 0;
}

int sandbox_manager_new(const struct sandbox_config *config, const struct sandbox_deps *deps,
                        struct sandbox_manager **ret_mgr, struct err *err)
{
    struct sandbox_manager *mgr = calloc(1, sizeof(*mgr));

    if (mgr == NULL)
        return err_no_memory(err);
    mgr->deps = *deps;
    pthread_mutex_init(&mgr->mutex, NULL);
    init_cond(&mgr->calm_cond);
    pthread_mutex_init(&mgr->scratch_mutex, NULL);
    phases_init(&mgr->phases);
    events_init(&mgr->events);
    TAILQ_INIT(&mgr->pods);
    TAILQ_INIT(&mgr->spares);
    if (copy_config(mgr, config, err) != 0 ||
        workers_new(MAX_WORKERS, MAX_QUEUED, &mgr->workers, err) != 0 ||
        fd_make_dirs(mgr->pods_run_dir, 0700, err) != 0 ||
        fd_make_dirs(mgr->logs_run_dir, 0700, err) != 0 ||
        fd_make_dirs(mgr->pods_state_dir, 0700, err) != 0) {
        free_manager(mgr);
        return -1;
    }
    if (mgr->deps.vmm != NULL)
        vmm_set_template_hook(mgr->deps.vmm, machine_prepare, spares_on_template, mgr);
    *ret_mgr = mgr;
    return 0;
}

/* No callback of this pod comes any more. */
static void quiet_pod(struct pod *pod)
{
    struct container *c;

    if (pod->vm != NULL)
        pod_watch_vm(pod, NULL);
    if (pod->guest != NULL)
        guest_close(pod->guest);
    TAILQ_FOREACH (c, &pod->containers, entry)
        container_unfollow(c, false);
}

/* Forgets a pod that runs on. */
static void release_pod(struct sandbox_manager *mgr, struct pod *pod)
{
    struct container *c;

    guest_unref(steal_ptr(&pod->guest));
    while ((c = TAILQ_FIRST(&pod->containers)) != NULL) {
        TAILQ_REMOVE(&pod->containers, c, entry);
        container_unref(c);
    }
    manager_drop_pod(mgr, pod);
}

void sandbox_manager_free(struct sandbox_manager *mgr)
{
    struct pod *pod;

    if (mgr == NULL)
        return;
    pthread_mutex_lock(&mgr->mutex);
    mgr->closing = true;
    pthread_cond_signal(&mgr->calm_cond);
    pthread_mutex_unlock(&mgr->mutex);
    if (mgr->deps.vmm != NULL)
        vmm_set_template_hook(mgr->deps.vmm, NULL, NULL, NULL);
    TAILQ_FOREACH (pod, &mgr->pods, entry)
        quiet_pod(pod);
    TAILQ_FOREACH (pod, &mgr->spares, entry)
        quiet_pod(pod);
    workers_free(steal_ptr(&mgr->workers));
    /* One may have been finished meanwhile; its end must not be work for workers that are gone. */
    TAILQ_FOREACH (pod, &mgr->spares, entry)
        quiet_pod(pod);
    spares_end(mgr);
    while ((pod = TAILQ_FIRST(&mgr->pods)) != NULL)
        release_pod(mgr, pod);
    free_manager(mgr);
}
