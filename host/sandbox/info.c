/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A snapshot holds a reference of the facts and copies of the few texts that
 * change, in one owner block. Lists are made pod by pod: each pod is consistent in itself, the list
 * as a whole need not be. No guest is asked, ever.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/model.h"

/* What keeps a snapshot's pointers alive. */
struct owner {
    struct pod_facts *pod;
    struct container_facts *container;
    struct container_limits *limits;
    char *reason;
    char *message;
    char kernel[GUEST_TEXT_SIZE];
    char (*ip_texts)[NET_ADDR_TEXT];
    const char **ips;
};

static void owner_free(struct owner *owner)
{
    if (owner == NULL)
        return;
    pod_facts_unref(owner->pod);
    container_facts_unref(owner->container);
    container_limits_unref(owner->limits);
    free(owner->reason);
    free(owner->message);
    free(owner->ip_texts);
    free(owner->ips);
    free(owner);
}

static struct owner *owner_new(const char *reason, const char *message)
{
    struct owner *owner = calloc(1, sizeof(*owner));

    if (owner == NULL)
        return NULL;
    owner->reason = strdup(text_or_empty(reason));
    owner->message = strdup(text_or_empty(message));
    if (owner->reason == NULL || owner->message == NULL) {
        owner_free(owner);
        return NULL;
    }
    return owner;
}

/* ---- pods ---- */

/* Mutex held. A pod that is not ready has given its addresses back, or is about to. */
static int copy_ips(const struct pod *pod, struct owner *owner, size_t *ret_n, struct err *err)
{
    size_t n = pod->state == POD_READY ? pod->n_ips : 0;

    owner->ip_texts = calloc(n + 1, sizeof(*owner->ip_texts));
    owner->ips = calloc(n + 1, sizeof(char *));
    if (owner->ip_texts == NULL || owner->ips == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n; i++) {
        memcpy(owner->ip_texts[i], pod->ips[i], NET_ADDR_TEXT);
        owner->ips[i] = owner->ip_texts[i];
    }
    *ret_n = n;
    return 0;
}

/* Mutex held. */
static int fill_pod(struct pod *pod, struct sandbox_info *ret_info, struct err *err)
{
    struct owner *owner = owner_new(pod->reason, pod->message);
    size_t n_ips = 0;

    if (owner == NULL)
        return err_no_memory(err);
    if (copy_ips(pod, owner, &n_ips, err) != 0) {
        owner_free(owner);
        return -1;
    }
    owner->pod = pod_facts_ref(pod->facts);
    owner->limits = container_limits_ref(pod->limits);
    memcpy(owner->kernel, pod->guest_kernel, sizeof(owner->kernel));
    *ret_info = (struct sandbox_info){
        .id = pod->facts->id,
        .ready = pod->state == POD_READY,
        .created_ns = pod->facts->created_ns,
        .runtime_handler = pod->facts->runtime_handler,
        .config = pod->facts->config,
        .resources = pod_resources(pod),
        .reason = owner->reason,
        .message = owner->message,
        .ips = owner->ips,
        .n_ips = n_ips,
        .vm_pid = pod->vm_pid,
        .cloned = pod->cloned,
        .made_ahead = pod->spare_facts != NULL,
        .boot_ms = pod->boot_ms,
        .guest_kernel = owner->kernel,
        .owner_ = owner,
    };
    return 0;
}

void sandbox_info_fini(struct sandbox_info *info)
{
    owner_free(info->owner_);
    *info = (struct sandbox_info){0};
}

int sandbox_status(struct sandbox_manager *mgr, const char *id, struct sandbox_info *ret_info,
                   struct err *err)
{
    cleanup_pod struct pod *pod = NULL;
    int result;

    if (manager_find_pod(mgr, id, &pod, err) != 0)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    if (pod->gone)
        result = err_set(err, ERR_NOT_FOUND, "no pod '%s'", id);
    else
        result = fill_pod(pod, ret_info, err);
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

int sandbox_timeline(struct sandbox_manager *mgr, const char *id,
                     struct timeline_step ret_steps[TIMELINE_STEPS], unsigned *ret_n,
                     struct err *err)
{
    cleanup_pod struct pod *pod = NULL;

    if (manager_find_pod(mgr, id, &pod, err) != 0)
        return -1;
    (void)timeline_copy(&pod->timeline, ret_steps, ret_n);
    return 0;
}

void sandbox_phases(struct sandbox_manager *mgr, struct phase_histogram ret_histograms[PHASES])
{
    phases_copy(&mgr->phases, ret_histograms);
}

static bool pod_passes(const struct pod *pod, const Runtime__V1__PodSandboxFilter *filter)
{
    const Runtime__V1__PodSandboxConfig *config = pod->facts->config;
    bool ready = pod->state == POD_READY;

    if (pod->state == POD_CREATING || pod->state == POD_REMOVING)
        return false;
    if (filter == NULL)
        return true;
    if (!text_has_prefix(pod->facts->id, filter->id))
        return false;
    if (filter->state != NULL &&
        ready != (filter->state->state == RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY))
        return false;
    for (size_t i = 0; i < filter->n_label_selector; i++) {
        bool has = false;
        for (size_t j = 0; j < config->n_labels && !has; j++)
            has = strcmp(config->labels[j]->key, filter->label_selector[i]->key) == 0 &&
                  strcmp(config->labels[j]->value, filter->label_selector[i]->value) == 0;
        if (!has)
            return false;
    }
    return true;
}

static int newest_pod_first(const void *a, const void *b)
{
    const struct sandbox_info *x = a, *y = b;

    return x->created_ns < y->created_ns ? 1 : x->created_ns > y->created_ns ? -1 : 0;
}

int sandbox_list(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxFilter *filter,
                 struct sandbox_list *ret_list, struct err *err)
{
    struct sandbox_list list = {0};
    struct pod **pods = NULL;
    size_t n = 0;
    int result = 0;

    if (manager_all_pods(mgr, &pods, &n, err) != 0)
        return -1;
    list.items = calloc(n + 1, sizeof(*list.items));
    if (list.items == NULL)
        result = err_no_memory(err);
    for (size_t i = 0; result == 0 && i < n; i++) {
        pthread_mutex_lock(&pods[i]->mutex);
        if (pod_passes(pods[i], filter)) {
            result = fill_pod(pods[i], &list.items[list.n], err);
            if (result == 0)
                list.n++;
        }
        pthread_mutex_unlock(&pods[i]->mutex);
    }
    manager_free_pods(pods, n);
    if (result != 0) {
        sandbox_list_fini(&list);
        return -1;
    }
    qsort(list.items, list.n, sizeof(*list.items), newest_pod_first);
    *ret_list = list;
    return 0;
}

void sandbox_list_fini(struct sandbox_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        sandbox_info_fini(&list->items[i]);
    free(list->items);
    *list = (struct sandbox_list){0};
}

/* ---- containers ---- */

static Runtime__V1__ContainerState cri_state(enum container_state state)
{
    switch (state) {
    case CTR_CREATING:
    case CTR_CREATED:
    case CTR_STARTING:
        return RUNTIME__V1__CONTAINER_STATE__CONTAINER_CREATED;
    case CTR_RUNNING:
        return RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING;
    case CTR_EXITED:
    case CTR_REMOVING:
        return RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
    }
    return RUNTIME__V1__CONTAINER_STATE__CONTAINER_UNKNOWN;
}

/* Those of the last update, or the configuration's. Mutex held. */
static const Runtime__V1__LinuxContainerResources *resources_of(const struct container *c)
{
    const Runtime__V1__LinuxContainerConfig *linux_ = c->facts->config->linux;

    if (c->limits != NULL)
        return c->limits->message;
    return linux_ == NULL ? NULL : linux_->resources;
}

/* Mutex held. */
static int fill_container(struct container *c, struct sandbox_container_info *ret_info,
                          struct err *err)
{
    struct container_facts *facts = c->facts;
    struct owner *owner = owner_new(c->reason, c->message);

    if (owner == NULL)
        return err_no_memory(err);
    owner->container = container_facts_ref(facts);
    owner->limits = container_limits_ref(c->limits);
    *ret_info = (struct sandbox_container_info){
        .id = facts->id,
        .pod_id = facts->pod_id,
        .state = cri_state(c->state),
        .created_ns = facts->created_ns,
        .started_ns = c->started_ns,
        .finished_ns = c->finished_ns,
        .exit_code = c->exit_code,
        .reason = owner->reason,
        .message = owner->message,
        .config = facts->config,
        .resources = resources_of(c),
        .image_id = facts->image_id,
        .image_ref = facts->image_ref,
        .log_path = facts->log_path,
        .stop_signal = crispec_cri_signal(facts->stop_signal),
        .has_user = facts->has_user,
        .uid = facts->uid,
        .gid = facts->gid,
        .owner_ = owner,
    };
    if (facts->has_user && facts->process != NULL && facts->process->user != NULL) {
        ret_info->groups = facts->process->user->additional_gids;
        ret_info->n_groups = facts->process->user->n_additional_gids;
    }
    return 0;
}

void sandbox_container_info_fini(struct sandbox_container_info *info)
{
    owner_free(info->owner_);
    *info = (struct sandbox_container_info){0};
}

int sandbox_container_status(struct sandbox_manager *mgr, const char *id,
                             struct sandbox_container_info *ret_info, struct err *err)
{
    cleanup_container struct container *c = NULL;
    int result;

    if (manager_find_container(mgr, id, &c, err) != 0)
        return -1;
    pthread_mutex_lock(&c->pod->mutex);
    result = fill_container(c, ret_info, err);
    pthread_mutex_unlock(&c->pod->mutex);
    return result;
}

static bool container_passes(const struct container *c, const Runtime__V1__ContainerFilter *filter)
{
    const Runtime__V1__ContainerConfig *config = c->facts->config;

    if (c->state == CTR_CREATING || c->state == CTR_REMOVING)
        return false;
    if (filter == NULL)
        return true;
    if (!text_has_prefix(c->facts->id, filter->id) ||
        !text_has_prefix(c->facts->pod_id, filter->pod_sandbox_id))
        return false;
    if (filter->state != NULL && filter->state->state != cri_state(c->state))
        return false;
    for (size_t i = 0; i < filter->n_label_selector; i++) {
        bool has = false;
        for (size_t j = 0; j < config->n_labels && !has; j++)
            has = strcmp(config->labels[j]->key, filter->label_selector[i]->key) == 0 &&
                  strcmp(config->labels[j]->value, filter->label_selector[i]->value) == 0;
        if (!has)
            return false;
    }
    return true;
}

static int newest_container_first(const void *a, const void *b)
{
    const struct sandbox_container_info *x = a, *y = b;

    return x->created_ns < y->created_ns ? 1 : x->created_ns > y->created_ns ? -1 : 0;
}

/* Adds one pod's containers to the list. */
static int list_pod(struct pod *pod, const Runtime__V1__ContainerFilter *filter,
                    struct sandbox_container_list *list, struct err *err)
{
    struct container *c;
    size_t n = 0;
    int result = 0;
    void *grown;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (c, &pod->containers, entry)
        n++;
    grown = reallocarray(list->items, list->n + n + 1, sizeof(*list->items));
    if (grown == NULL)
        result = err_no_memory(err);
    else
        list->items = grown;
    TAILQ_FOREACH (c, &pod->containers, entry) {
        if (result != 0 || !container_passes(c, filter))
            continue;
        result = fill_container(c, &list->items[list->n], err);
        if (result == 0)
            list->n++;
    }
    pthread_mutex_unlock(&pod->mutex);
    return result;
}

int sandbox_container_list(struct sandbox_manager *mgr, const Runtime__V1__ContainerFilter *filter,
                           struct sandbox_container_list *ret_list, struct err *err)
{
    struct sandbox_container_list list = {0};
    struct pod **pods = NULL;
    size_t n = 0;
    int result = 0;

    if (manager_all_pods(mgr, &pods, &n, err) != 0)
        return -1;
    for (size_t i = 0; result == 0 && i < n; i++)
        result = list_pod(pods[i], filter, &list, err);
    manager_free_pods(pods, n);
    if (result != 0) {
        sandbox_container_list_fini(&list);
        return -1;
    }
    if (list.n > 0)
        qsort(list.items, list.n, sizeof(*list.items), newest_container_first);
    *ret_list = list;
    return 0;
}

void sandbox_container_list_fini(struct sandbox_container_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        sandbox_container_info_fini(&list->items[i]);
    free(list->items);
    *list = (struct sandbox_container_list){0};
}

/* ---- events ---- */

int pod_snapshot(struct pod *pod, struct sandbox_info *ret_info,
                 struct sandbox_container_list *ret_list, struct err *err)
{
    struct sandbox_container_list list = {0};
    struct sandbox_info info = {0};
    int result;

    pthread_mutex_lock(&pod->mutex);
    result = fill_pod(pod, &info, err);
    pthread_mutex_unlock(&pod->mutex);
    if (result == 0)
        result = list_pod(pod, NULL, &list, err);
    if (result != 0) {
        sandbox_info_fini(&info);
        sandbox_container_list_fini(&list);
        return -1;
    }
    *ret_info = info;
    *ret_list = list;
    return 0;
}

/* ---- disks ---- */

int sandbox_fs_info(struct sandbox_manager *mgr, struct sandbox_fs_info *ret_info, struct err *err)
{
    struct sandbox_fs_info info = {.mountpoint = mgr->config.state_dir};
    struct pod **pods = NULL;
    size_t n = 0;

    if (manager_all_pods(mgr, &pods, &n, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        cleanup_free char *dir = pod_state_path(pods[i]);
        cleanup_free char *path = dir == NULL ? NULL : text_printf("%s/scratch.ext4", dir);
        struct stat st;
        if (path != NULL && stat(path, &st) == 0) {
            info.used_bytes += (uint64_t)st.st_blocks * 512;
            info.inodes++;
        }
    }
    manager_free_pods(pods, n);
    *ret_info = info;
    return 0;
}
