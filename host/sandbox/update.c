/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. An update names what is to change; what it leaves zero or empty stays. The
 * whole that comes out is checked like a new container's, but only what the update names is written
 * to the cgroup. A refused update has changed nothing: whatever may fail comes before the guest
 * writes, and the guest writes all or nothing. So the machine first gets room for the old limits
 * and the new ones (it shrinks last, since the old ones may have to stay), then the record has the
 * new ones, and only when the guest has them, too, clients are told of them.
 *
 * A pod's resources are the sum that its machine must have room for. The limits of the host's
 * cgroups above the machine are the client's own business, which it sets before it asks here.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/crivalid.h"
#include "host/sandbox/model.h"
#include "host/sandbox/podsize.h"

typedef Runtime__V1__LinuxContainerResources resources;
typedef Runtime__V1__LinuxContainerResources__UnifiedEntry unified_entry;

static void keep(int64_t *to, int64_t before)
{
    if (*to == 0)
        *to = before;
}

/* The limit of swap is that of memory and swap together: a new limit of memory moves both, so that
 * the swap stays what it was, as far as a number can say it. No limit of memory any more is none of
 * both. */
static void keep_swap(const resources *before, resources *merged)
{
    int64_t both = before->memory_swap_limit_in_bytes, memory = before->memory_limit_in_bytes;

    if (merged->memory_swap_limit_in_bytes != 0)
        return;
    if (merged->memory_limit_in_bytes < 0 && both > 0)
        both = -1;
    else if (both > 0 && memory > 0 &&
             __builtin_add_overflow(merged->memory_limit_in_bytes, both - memory, &both))
        both = INT64_MAX;
    merged->memory_swap_limit_in_bytes = both;
}

/* Puts the entries of both into merged, those of the update first. */
static int merge_unified(const resources *before, const resources *update, resources *merged,
                         struct err *err)
{
    unified_entry **list =
        calloc(before->n_unified + update->n_unified + 1, sizeof(unified_entry *));
    size_t n = 0;

    if (list == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < update->n_unified; i++)
        list[n++] = update->unified[i];
    for (size_t i = 0; i < before->n_unified; i++) {
        bool replaced = false;
        for (size_t j = 0; j < update->n_unified && !replaced; j++)
            replaced = strcmp(before->unified[i]->key, update->unified[j]->key) == 0;
        if (!replaced)
            list[n++] = before->unified[i];
    }
    merged->unified = list;
    merged->n_unified = n;
    return 0;
}

/* Likewise the limits of huge pages, which are told apart by their size. */
static int merge_hugepages(const resources *before, const resources *update, resources *merged,
                           struct err *err)
{
    Runtime__V1__HugepageLimit **list =
        calloc(before->n_hugepage_limits + update->n_hugepage_limits + 1, sizeof(*list));
    size_t n = 0;

    if (list == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < update->n_hugepage_limits; i++)
        list[n++] = update->hugepage_limits[i];
    for (size_t i = 0; i < before->n_hugepage_limits; i++) {
        bool replaced = false;
        for (size_t j = 0; j < update->n_hugepage_limits && !replaced; j++)
            replaced = strcmp(before->hugepage_limits[i]->page_size,
                              update->hugepage_limits[j]->page_size) == 0;
        if (!replaced)
            list[n++] = before->hugepage_limits[i];
    }
    merged->hugepage_limits = list;
    merged->n_hugepage_limits = n;
    return 0;
}

int resources_merge(const resources *before, const resources *update,
                    struct container_limits **ret_limits, struct err *err)
{
    resources none = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    resources merged = *update;

    if (before == NULL)
        before = &none;
    keep(&merged.cpu_period, before->cpu_period);
    keep(&merged.cpu_quota, before->cpu_quota);
    keep(&merged.cpu_shares, before->cpu_shares);
    keep(&merged.memory_limit_in_bytes, before->memory_limit_in_bytes);
    keep_swap(before, &merged);
    keep(&merged.oom_score_adj, before->oom_score_adj);
    if (*merged.cpuset_cpus == '\0')
        merged.cpuset_cpus = before->cpuset_cpus;
    if (*merged.cpuset_mems == '\0')
        merged.cpuset_mems = before->cpuset_mems;
    if (merge_unified(before, update, &merged, err) != 0)
        return -1;
    if (merge_hugepages(before, update, &merged, err) != 0) {
        free(merged.unified);
        return -1;
    }
    *ret_limits = container_limits_new(&merged, err);
    free(merged.hugepage_limits);
    free(merged.unified);
    return *ret_limits == NULL ? -1 : 0;
}

/* Whether a container could have been made with these. */
static int check(const struct container *c, const resources *before, resources *merged,
                 struct err *err)
{
    Runtime__V1__LinuxContainerConfig linux_;
    Runtime__V1__ContainerConfig config = *c->facts->config;

    if (config.linux != NULL)
        linux_ = *config.linux;
    else
        runtime__v1__linux_container_config__init(&linux_);
    linux_.resources = merged;
    config.linux = &linux_;
    if (crivalid_container(&config, c->pod->facts->config, err) != 0)
        return -1;
    if (merged->oom_score_adj != before->oom_score_adj)
        return err_set(
            err, ERR_BAD_STATE,
            "linux.oom_score_adj: a process has it from its start, it cannot be changed");
    return 0;
}

/* The job slot of a container that has not ended, and its limits now (a reference, may be NULL). */
static int begin(struct container *c, int64_t deadline_ms, struct container_limits **ret_before,
                 struct err *err)
{
    int result;

    pthread_mutex_lock(&c->pod->mutex);
    result = container_await_slot(c, deadline_ms, err);
    if (result == 0 && c->state != CTR_CREATED && c->state != CTR_RUNNING) {
        result = err_set(err, ERR_BAD_STATE, "container %s is %s", c->facts->id,
                         container_state_name(c->state));
    } else if (result == 0) {
        c->busy = true;
        *ret_before = container_limits_ref(c->limits);
    }
    pthread_mutex_unlock(&c->pod->mutex);
    return result;
}

/* Room is made for these (taken) beside those that are in force, and the record has them. */
static void prepare(struct container *c, struct container_limits *next)
{
    pthread_mutex_lock(&c->pod->mutex);
    c->next_limits = next;
    pthread_mutex_unlock(&c->pod->mutex);
}

/* What was prepared is in force now, or will not be. */
static void settle(struct container *c, bool in_force)
{
    struct container_limits *old;

    pthread_mutex_lock(&c->pod->mutex);
    old = in_force ? c->limits : c->next_limits;
    if (in_force)
        c->limits = c->next_limits;
    c->next_limits = NULL;
    pthread_mutex_unlock(&c->pod->mutex);
    container_limits_unref(old);
}

static void end(struct container *c)
{
    pthread_mutex_lock(&c->pod->mutex);
    c->busy = false;
    pthread_cond_broadcast(&c->pod->cond);
    pthread_mutex_unlock(&c->pod->mutex);
}

static bool is_set_by(const struct crispec *spec, const char *file)
{
    const Casemate__Agent__V1__Resources *settings = crispec_request(spec)->resources;

    for (size_t i = 0; i < settings->n_cgroup; i++) {
        if (strcmp(settings->cgroup[i]->file, file) == 0)
            return true;
    }
    return false;
}

/* The settings for what is named, and again what `unified` said before of the same files: it goes
 * over the other fields, whichever call they came with. */
static int new_settings(const resources *named, const resources *merged, bool plain_cgroups,
                        struct crispec **ret_spec, struct err *err)
{
    cleanup_free unified_entry **entries = calloc(merged->n_unified + 1, sizeof(*entries));
    cleanup_crispec struct crispec *first = NULL;
    resources all = *named;
    size_t n = 0;

    if (entries == NULL)
        return err_no_memory(err);
    if (crispec_new_resources(named, plain_cgroups, &first, err) != 0)
        return -1;
    for (size_t i = 0; i < merged->n_unified; i++) {
        if (is_set_by(first, merged->unified[i]->key))
            entries[n++] = merged->unified[i];
    }
    all.unified = entries;
    all.n_unified = n;
    return crispec_new_resources(&all, plain_cgroups, ret_spec, err);
}

/* What the update names goes to the guest. A quota and its period are one file, swap counts from
 * the memory limit: those two are written with their other half as it is. */
static int write_to_guest(const struct pod_use *use, const struct container *c,
                          const resources *update, const resources *merged, int64_t deadline_ms,
                          struct err *err)
{
    cleanup_crispec struct crispec *spec = NULL;
    int64_t until_ms = clock_earlier(deadline_ms, clock_deadline(PODSIZE_ONLINE_MS));
    resources named = *update;
    int result;

    if (named.cpu_period != 0 || named.cpu_quota != 0) {
        named.cpu_period = merged->cpu_period;
        named.cpu_quota = merged->cpu_quota;
    }
    if (named.memory_limit_in_bytes != 0 || named.memory_swap_limit_in_bytes != 0) {
        named.memory_limit_in_bytes = merged->memory_limit_in_bytes;
        named.memory_swap_limit_in_bytes = merged->memory_swap_limit_in_bytes;
    }
    if (new_settings(&named, merged, !guest_get_info(use->guest)->checks_cgroups, &spec, err) != 0)
        return -1;
    do
        result = guest_update_resources(use->guest, c->facts->id, crispec_request(spec)->resources,
                                        manager_call_deadline(c->pod->mgr, deadline_ms), err);
    while (result != 0 && podsize_try_again(c->pod, update, err, until_ms));
    return result;
}

/* A machine that lacks room already is no reason to refuse less. */
static int make_room(const struct pod_use *use, const struct container *c, int64_t deadline_ms,
                     struct err *err)
{
    if (podsize_apply(c->pod, use->vm, deadline_ms, err) == 0 ||
        (err->code == ERR_EXHAUSTED && !podsize_asks_for_more(c)))
        return 0;
    return -1;
}

/* The guest comes last: what it has taken, nothing can refuse any more. */
static int put_in_force(const struct pod_use *use, struct container *c, const resources *update,
                        const resources *merged, int64_t deadline_ms, struct err *err)
{
    if (make_room(use, c, deadline_ms, err) != 0 || container_save(c, err) != 0)
        return -1;
    return write_to_guest(use, c, update, merged, deadline_ms, err);
}

/* The record of a refused update is that of the old limits again, and the machine has room for
 * one set of limits only. */
static void tidy_up(const struct pod_use *use, struct container *c, bool refused,
                    int64_t deadline_ms)
{
    struct log_ctx ctx = {.sandbox = c->pod->facts->id, .container = c->facts->id};
    struct err err;

    if (refused && container_save(c, &err) != 0)
        log_event(LOG_ERROR, &ctx, &err, "the record has resources that were refused, ignoring");
    if (podsize_apply(c->pod, use->vm, deadline_ms, &err) != 0)
        log_event(LOG_WARN, &ctx, &err, "the machine keeps the size it had, ignoring");
}

/* Holding the job slot. */
static int change(const struct pod_use *use, struct container *c, const resources *before,
                  const resources *update, int64_t deadline_ms, struct err *err)
{
    struct container_limits *next;
    int result;

    if (resources_merge(before, update, &next, err) != 0)
        return -1;
    if (check(c, before, next->message, err) != 0) {
        container_limits_unref(next);
        return -1;
    }
    prepare(c, next);
    result = put_in_force(use, c, update, next->message, deadline_ms, err);
    settle(c, result == 0);
    tidy_up(use, c, result != 0, deadline_ms);
    return result;
}

static int update_container(const struct pod_use *use, struct container *c, const resources *update,
                            int64_t deadline_ms, struct err *err)
{
    resources none = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    const Runtime__V1__LinuxContainerConfig *linux_ = c->facts->config->linux;
    const resources *before =
        linux_ != NULL && linux_->resources != NULL ? linux_->resources : &none;
    struct container_limits *old = NULL;
    int result;

    if (begin(c, deadline_ms, &old, err) != 0)
        return -1;
    result = change(use, c, old != NULL ? old->message : before, update, deadline_ms, err);
    end(c);
    container_limits_unref(old);
    return result;
}

int sandbox_container_update(struct sandbox_manager *mgr, const char *id,
                             const Runtime__V1__LinuxContainerResources *update,
                             int64_t deadline_ms, struct err *err)
{
    cleanup_container struct container *c = NULL;
    struct pod_use use = {0};
    int result;

    if (manager_find_container(mgr, id, &c, err) != 0 || pod_use_begin(c->pod, &use, err) != 0)
        return -1;
    result = update_container(&use, c, update, deadline_ms, err);
    pod_use_end(&use);
    return result;
}

/* ---- pods ---- */

const resources *pod_resources(const struct pod *pod)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;

    if (pod->limits != NULL)
        return pod->limits->message;
    return linux_ == NULL ? NULL : linux_->resources;
}

int sandbox_update(struct sandbox_manager *mgr, const char *id, const resources *overhead,
                   const resources *update, int64_t deadline_ms, struct err *err)
{
    cleanup_pod struct pod *pod = NULL;
    struct pod_use use = {0};
    int result = 0;

    if (crivalid_resources(overhead, "overhead", err) != 0 ||
        manager_find_pod(mgr, id, &pod, err) != 0 || pod_use_begin(pod, &use, err) != 0)
        return -1;
    if (update != NULL)
        result =
            podsize_update(pod, use.vm, update, deadline_ms, err) == 0 ? pod_save(pod, err) : -1;
    pod_use_end(&use);
    return result;
}
