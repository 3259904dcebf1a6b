/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Everything durable is one record a pod (netrecord.h), everything living is
 * one namespace a pod below run_dir; this file has what is between pods: configuration, status, the
 * exclusion of two hands on one pod, and the thread that repeats failed removals. A removal that
 * fails is repeated after a pause that doubles, for as long as there is a record; a daemon that
 * comes back goes on with those that its predecessor had begun.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/net/internal.h"
#include "host/net/netns.h"
#include "host/net/nettemplate.h"

#define DEFAULT_CONF_DIR  "/etc/cni/net.d"
#define DEFAULT_CACHE_DIR "/var/lib/cni"         /* of libcni */
#define OWN_CONF_FILE     "10-casemate.conflist" /* what net_set_pod_cidr writes */

enum {
    DEFAULT_PLUGIN_MS = 60000,
    DEFAULT_RETRY_MS = 2000,
    MAX_RETRY_MS = 300000,
    STATUS_MS = 5000, /* how long an answer of net_get_status is good */
    DETACH_MS = 120000,
};

static const char *const default_bin_dirs[] = {"/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni"};

/* ---- making it ---- */

static int copy_bin_dirs(struct net *net, const struct net_config *config, struct err *err)
{
    const char *const *dirs = config->n_bin_dirs == 0 ? default_bin_dirs : config->bin_dirs;
    size_t n = config->n_bin_dirs == 0 ? ARRAY_SIZE(default_bin_dirs) : config->n_bin_dirs;

    net->bin_dirs = calloc(n + 1, sizeof(char *));
    for (size_t i = 0; net->bin_dirs != NULL && i < n; i++) {
        net->bin_dirs[i] = strdup(dirs[i]);
        if (net->bin_dirs[i] == NULL)
            return err_no_memory(err);
    }
    if (net->bin_dirs == NULL)
        return err_no_memory(err);
    net->env.bin_dirs = (const char *const *)net->bin_dirs;
    net->env.n_bin_dirs = n;
    return 0;
}

static int copy_config(struct net *net, const struct net_config *config, struct err *err)
{
    unsigned want = config->max_networks == 0 ? 1 : config->max_networks;

    if (want > NET_MAX_IFACES)
        return err_set(err, ERR_INVALID, "max_networks: at most %d", NET_MAX_IFACES);
    net->loopback_only = config->loopback_only;
    net->gc = config->gc;
    net->cache_dir = strdup(config->cache_dir == NULL ? DEFAULT_CACHE_DIR : config->cache_dir);
    net->env.timeout_ms =
        config->plugin_timeout_ms == 0 ? DEFAULT_PLUGIN_MS : config->plugin_timeout_ms;
    net->retry_ms = config->retry_ms == 0 ? DEFAULT_RETRY_MS : config->retry_ms;
    net->conf_dir = strdup(config->conf_dir == NULL ? DEFAULT_CONF_DIR : config->conf_dir);
    net->netns_dir = text_printf("%s/netns", config->run_dir);
    if (config->conf_template != NULL)
        net->conf_template = strdup(config->conf_template);
    if (net->conf_dir == NULL || net->netns_dir == NULL || net->cache_dir == NULL ||
        (config->conf_template != NULL && net->conf_template == NULL))
        return err_no_memory(err);
    if (copy_bin_dirs(net, config, err) != 0 ||
        netconf_new(net->conf_dir, want, OWN_CONF_FILE, &net->conf, err) != 0 ||
        fd_make_dirs(net->netns_dir, 0711, err) != 0 ||
        fd_make_dirs(config->state_dir, 0700, err) != 0)
        return -1;
    net->state_fd = open(config->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (net->state_fd < 0)
        return err_set_errno(err, errno, "open '%s'", config->state_dir);
    return 0;
}

/* Goes on with the removals of a predecessor. */
static int resume_removals(struct net *net, struct err *err)
{
    char **ids = NULL;
    size_t n = 0;

    if (netrecord_list(net->state_fd, &ids, &n, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct netrecord record = {0};
        struct err why = {0};
        if (ids[i] != NULL && netrecord_load(net->state_fd, ids[i], &record, &why) != 0) {
            struct log_ctx ctx = {.sandbox = ids[i]};
            log_event(LOG_ERROR, &ctx, &why, "what is attached to the pod is not known, ignoring");
        }
        if (record.detaching)
            net_repeat(net, ids[i], 0);
        netrecord_fini(&record);
        free(ids[i]);
    }
    free(ids);
    return 0;
}

static void *repeat_main(void *arg);

static int start(struct net *net, struct err *err)
{
    pthread_condattr_t attr;
    int error;

    pthread_mutex_init(&net->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&net->cond, &attr);
    pthread_condattr_destroy(&attr);
    if (resume_removals(net, err) != 0)
        return -1;
    error = pthread_create(&net->thread, NULL, repeat_main, net);
    if (error != 0)
        return err_set_errno(err, error, "start a thread");
    net->thread_started = true;
    return 0;
}

int net_new(const struct net_config *config, struct net **ret_net, struct err *err)
{
    struct net *net = calloc(1, sizeof(*net));

    if (net == NULL)
        return err_no_memory(err);
    net->state_fd = -1;
    if (copy_config(net, config, err) != 0 || start(net, err) != 0) {
        net_free(net);
        return err_prefix(err, "network");
    }
    *ret_net = net;
    return 0;
}

void net_free(struct net *net)
{
    struct net_retry *retry;

    if (net == NULL)
        return;
    if (net->thread_started) {
        pthread_mutex_lock(&net->mutex);
        net->ending = true;
        pthread_cond_broadcast(&net->cond);
        pthread_mutex_unlock(&net->mutex);
        (void)pthread_join(net->thread, NULL);
    }
    while ((retry = LIST_FIRST(&net->retries)) != NULL) {
        LIST_REMOVE(retry, entry);
        free(retry->pod_id);
        free(retry);
    }
    netconf_free(net->conf);
    close_fd(&net->state_fd);
    for (size_t i = 0; net->bin_dirs != NULL && net->bin_dirs[i] != NULL; i++)
        free(net->bin_dirs[i]);
    free(net->bin_dirs);
    free(net->conf_dir);
    free(net->cache_dir);
    free(net->conf_template);
    free(net->netns_dir);
    free(net);
}

char *net_netns_path(const struct net *net, const char *pod_id)
{
    return text_printf("%s/%s", net->netns_dir, pod_id);
}

/* ---- one at a time ---- */

/* Waits on the room's cond (mutex held) until the deadline: false when it has passed. */
static bool wait_until(struct net *net, int64_t deadline_ms)
{
    struct timespec until = {.tv_sec = deadline_ms / 1000,
                             .tv_nsec = deadline_ms % 1000 * (NSEC_PER_SEC / 1000)};

    if (deadline_ms == CLOCK_NO_DEADLINE)
        return pthread_cond_wait(&net->cond, &net->mutex) == 0;
    return pthread_cond_timedwait(&net->cond, &net->mutex, &until) != ETIMEDOUT;
}

static bool is_held(const struct net *net, const char *pod_id)
{
    const struct net_hold *hold;

    LIST_FOREACH (hold, &net->holds, entry) {
        if (strcmp(hold->pod_id, pod_id) == 0)
            return true;
    }
    return false;
}

int net_hold(struct net *net, struct net_hold *hold, int64_t deadline_ms, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&net->mutex);
    while (result == 0 && (net->all_held || is_held(net, hold->pod_id))) {
        if (!wait_until(net, deadline_ms))
            result = err_set(err, ERR_DEADLINE, "the pod's network is still being worked on");
    }
    if (result == 0)
        LIST_INSERT_HEAD(&net->holds, hold, entry);
    pthread_mutex_unlock(&net->mutex);
    return result;
}

void net_release(struct net *net, struct net_hold *hold)
{
    pthread_mutex_lock(&net->mutex);
    LIST_REMOVE(hold, entry);
    pthread_cond_broadcast(&net->cond);
    pthread_mutex_unlock(&net->mutex);
}

int net_hold_all(struct net *net, int64_t deadline_ms, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&net->mutex);
    while (result == 0 && (net->all_held || !LIST_EMPTY(&net->holds))) {
        if (!wait_until(net, deadline_ms))
            result = err_set(err, ERR_DEADLINE, "networks of pods are still being worked on");
    }
    if (result == 0)
        net->all_held = true;
    pthread_mutex_unlock(&net->mutex);
    return result;
}

void net_release_all(struct net *net)
{
    pthread_mutex_lock(&net->mutex);
    net->all_held = false;
    pthread_cond_broadcast(&net->cond);
    pthread_mutex_unlock(&net->mutex);
}

/* ---- repeating removals ---- */

void net_repeat(struct net *net, const char *pod_id, int64_t pause_ms)
{
    struct net_retry *retry = calloc(1, sizeof(*retry));
    struct net_retry *other;

    if (retry != NULL)
        retry->pod_id = strdup(pod_id);
    if (retry == NULL || retry->pod_id == NULL) {
        struct log_ctx ctx = {.sandbox = pod_id};
        log_event(LOG_ERROR, &ctx, NULL, "no memory: its network is removed at the next start");
        free(retry);
        return;
    }
    retry->due_ms = clock_deadline(pause_ms);
    retry->pause_ms = pause_ms == 0 ? net->retry_ms : pause_ms * 2;
    if (retry->pause_ms > MAX_RETRY_MS)
        retry->pause_ms = MAX_RETRY_MS;
    pthread_mutex_lock(&net->mutex);
    LIST_FOREACH (other, &net->retries, entry) {
        if (strcmp(other->pod_id, pod_id) == 0)
            break;
    }
    if (other == NULL) {
        LIST_INSERT_HEAD(&net->retries, retry, entry);
        pthread_cond_broadcast(&net->cond);
    }
    pthread_mutex_unlock(&net->mutex);
    if (other != NULL) {
        free(retry->pod_id);
        free(retry);
    }
}

/* The next removal that is due, taken off the list, or NULL at the end; waits for it. */
static struct net_retry *take_due(struct net *net)
{
    struct net_retry *found = NULL;

    pthread_mutex_lock(&net->mutex);
    while (!net->ending && found == NULL) {
        int64_t earliest_ms = CLOCK_NO_DEADLINE;
        struct net_retry *retry;
        LIST_FOREACH (retry, &net->retries, entry) {
            if (retry->due_ms < earliest_ms) {
                earliest_ms = retry->due_ms;
                found = retry;
            }
        }
        if (found != NULL && found->due_ms <= clock_monotonic_ms())
            break;
        found = NULL;
        (void)wait_until(net, earliest_ms);
    }
    if (found != NULL)
        LIST_REMOVE(found, entry);
    pthread_mutex_unlock(&net->mutex);
    return found;
}

static void *repeat_main(void *arg)
{
    struct net *net = arg;
    struct net_retry *retry;

    while ((retry = take_due(net)) != NULL) {
        struct log_ctx ctx = {.sandbox = retry->pod_id};
        struct net_hold hold = {.pod_id = retry->pod_id};
        struct err err = {0};
        int result = net_hold(net, &hold, clock_deadline(DETACH_MS), &err);
        if (result == 0) {
            result = net_detach_held(net, retry->pod_id, clock_deadline(DETACH_MS), &err);
            net_release(net, &hold);
        }
        if (result == 0) {
            log_event(LOG_INFO, &ctx, NULL, "the pod's network is removed");
        } else {
            log_event(LOG_WARN, &ctx, &err, "the pod's network is not removed, trying again");
            net_repeat(net, retry->pod_id, retry->pause_ms);
        }
        free(retry->pod_id);
        free(retry);
    }
    return NULL;
}

/* ---- status ---- */

static void add_name(char *list, size_t size, const char *name)
{
    size_t n = strlen(list);

    (void)snprintf(list + n, size - n, "%s%s", n == 0 ? "" : ",", name);
}

static void find_status(const struct net *net, const struct cniconf_set *set, int64_t deadline_ms,
                        struct net_status *status)
{
    struct err err = {0};

    *status = (struct net_status){.ready = set->n > 0};
    (void)memccpy(status->reason, set->problem, '\0', sizeof(status->reason) - 1);
    if (set->n == 0 && net->loopback_only) {
        status->ready = status->loopback_only = true;
        (void)snprintf(status->reason, sizeof(status->reason),
                       "pods have loopback only, as configured: %.400s", set->problem);
    }
    for (size_t i = 0; i < set->n && status->ready; i++) {
        add_name(status->network, sizeof(status->network), set->confs[i]->name);
        if (cnichain_status(&net->env, set->confs[i], deadline_ms, &err) != 0) {
            status->ready = false;
            (void)memccpy(status->reason, err.msg, '\0', sizeof(status->reason) - 1);
        }
    }
}

void net_get_status(struct net *net, int64_t deadline_ms, struct net_status *ret_status)
{
    struct cniconf_set set;
    uint64_t generation;
    bool known;

    netconf_get(net->conf, &set, &generation);
    pthread_mutex_lock(&net->mutex);
    known = net->status_generation == generation && clock_monotonic_ms() < net->status_until_ms;
    *ret_status = net->status;
    pthread_mutex_unlock(&net->mutex);
    if (!known) {
        find_status(net, &set, deadline_ms, ret_status);
        pthread_mutex_lock(&net->mutex);
        net->status = *ret_status;
        net->status_generation = generation;
        net->status_until_ms = clock_deadline(STATUS_MS);
        pthread_mutex_unlock(&net->mutex);
    }
    cniconf_set_fini(&set);
}

/* ---- the node's pod CIDR ---- */

static int write_own(const struct net *net, const char *text, struct err *err)
{
    cleanup_free char *path = text_printf("%s/" OWN_CONF_FILE, net->conf_dir);
    cleanup_free char *now = NULL;

    if (path == NULL)
        return err_no_memory(err);
    if (fd_read_file(AT_FDCWD, path, CNICONF_MAX_BYTES, &now, NULL, NULL) == 0 &&
        strcmp(now, text) == 0)
        return 0;
    if (fd_make_dirs(net->conf_dir, 0755, err) != 0 ||
        fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644, err) != 0)
        return -1;
    log_info("wrote '%s'", path);
    return 0;
}

int net_set_pod_cidr(struct net *net, const char *cidrs, struct err *err)
{
    cleanup_free char *template_ = NULL, *text = NULL;
    struct cniconf_set set;
    uint64_t generation;
    bool others;

    if (net->conf_template == NULL)
        return 0;
    if (fd_read_file(AT_FDCWD, net->conf_template, CNICONF_MAX_BYTES, &template_, NULL, err) != 0 ||
        nettemplate_render(template_, cidrs, &text, err) != 0)
        return err_prefix(err, "network configuration for pod_cidr");
    netconf_get(net->conf, &set, &generation);
    others = set.others;
    cniconf_set_fini(&set);
    if (others) {
        log_info(
            "pod_cidr '%s': '%s' holds a configuration of the operator's, which stays as it is",
            cidrs, net->conf_dir);
        return 0;
    }
    return write_own(net, text, err);
}
