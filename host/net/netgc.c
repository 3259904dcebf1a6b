/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. What belongs to no pod is removed by the room itself, by DEL. Plugins'
 * garbage collection (GC) comes after it and is for what DEL cannot find any more, such as the
 * lease of a pod whose record was lost. It is dangerous: whatever is not listed goes. So
 *
 * - everything that has a record is listed, also what is about to be removed: GC is no DEL;
 * - when a record cannot be read there is no GC;
 * - no ADD, DEL or CHECK runs meanwhile (CNI 1.1, "Lifecycle & Ordering"): the list is made and the
 *   plugins are called while nobody holds a pod's id;
 * - the list has our attachments only, and a network may be another runtime's too. Those that use
 *   libcni (containerd, CRI-O, nerdctl, Podman's CNI) keep a file for each of their attachments,
 *   named after the network, in one folder. While there is such a file, plugins are not asked,
 *   unless the operator says that they shall be.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/net/internal.h"
#include "host/net/netns.h"

enum { EXCLUSIVE_MS = 10000 }; /* how long ADD and DEL of pods may keep GC waiting */

/* ---- namespaces ---- */

static bool is_among(const char *id, const char *const *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(ids[i], id) == 0)
            return true;
    }
    return false;
}

/* Whether a pod has a record. */
static bool has_record(const struct net *net, const char *pod_id)
{
    struct netrecord record = {0};
    struct err err = {0};
    int result = netrecord_load(net->state_fd, pod_id, &record, &err);

    netrecord_fini(&record);
    return result == 0 || err.code != ERR_NOT_FOUND;
}

static void remove_stray_namespaces(const struct net *net, const char *const *pod_ids, size_t n)
{
    DIR *dir = opendir(net->netns_dir);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        cleanup_free char *path = NULL;
        struct err err = {0};
        if (!netrecord_id_is_valid(entry->d_name) || is_among(entry->d_name, pod_ids, n) ||
            has_record(net, entry->d_name))
            continue;
        path = net_netns_path(net, entry->d_name);
        if (path != NULL && netns_remove(path, &err) != 0)
            log_event(LOG_WARN, NULL, &err, "a network namespace that belongs to no pod stays");
    }
    if (dir != NULL)
        (void)closedir(dir);
}

/* ---- attachments ---- */

/* Adds what the pod has of each network to that network's list: {name: [{containerID, ifname}]}. */
static void list_attachments(const struct netrecord *record, json_t *by_network)
{
    for (size_t i = 0; i < record->n; i++) {
        const struct netrecord_network *network = &record->networks[i];
        json_t *list = json_object_get(by_network, network->conf->name);
        if (list == NULL) {
            list = json_array();
            (void)json_object_set_new(by_network, network->conf->name, list);
        }
        (void)json_array_append_new(list, json_pack("{s:s, s:s}", "containerID", record->pod_id,
                                                    "ifname", network->ifname));
    }
}

/* Everything that has a record. false: some of it cannot be read, which was said at the start. */
static bool list_all(const struct net *net, json_t *by_network)
{
    bool complete = true;
    char **ids = NULL;
    size_t n = 0;

    if (netrecord_list(net->state_fd, &ids, &n, NULL) != 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        struct netrecord record = {0};
        if (ids[i] == NULL || netrecord_load(net->state_fd, ids[i], &record, NULL) != 0)
            complete = false;
        else
            list_attachments(&record, by_network);
        netrecord_fini(&record);
        free(ids[i]);
    }
    free(ids);
    return complete;
}

/* ---- other runtimes ---- */

/* A file that another runtime's attachment to the network has: heap text; NULL: there is none. Its
 * name is NETWORK-CONTAINER-INTERFACE, and a network whose name goes on after ours counts too. */
static char *find_other(const struct net *net, const char *network)
{
    cleanup_free char *prefix = text_printf("%s-", network);
    cleanup_free char *folder = text_printf("%s/results", net->cache_dir);
    DIR *dir = prefix == NULL || folder == NULL ? NULL : opendir(folder);
    const struct dirent *entry;
    char *found = NULL;

    while (found == NULL && dir != NULL && (entry = readdir(dir)) != NULL) {
        if (text_has_prefix(entry->d_name, prefix))
            found = text_printf("%s/%s", folder, entry->d_name);
    }
    if (dir != NULL)
        (void)closedir(dir);
    return found;
}

static bool may_collect(const struct net *net, const char *network)
{
    cleanup_free char *other = NULL;

    if (net->gc != NET_GC_AUTO)
        return net->gc == NET_GC_YES;
    other = find_other(net, network);
    if (other != NULL)
        log_info("network '%s': its plugins are not asked to collect garbage, since another "
                 "runtime is attached to it ('%s'); '[network] gc' decides",
                 network, other);
    return other == NULL;
}

int net_gc_parse(const char *text, enum net_gc *ret_gc)
{
    static const char *const names[] = {"auto", "yes", "no"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_gc = (enum net_gc)i;
            return 0;
        }
    }
    return -1;
}

/* ---- all of it ---- */

static void collect_network(struct net *net, const struct cniconf *conf, const json_t *by_network,
                            int64_t deadline_ms)
{
    json_t *list;
    struct err err = {0};

    if (!cnichain_has_gc(conf) || !may_collect(net, conf->name))
        return;
    list = json_object_get(by_network, conf->name);
    list = list == NULL ? json_array() : json_incref(list);
    if (list != NULL && cnichain_gc(&net->env, conf, list, deadline_ms, &err) != 0)
        log_event(LOG_WARN, NULL, &err, "garbage of a network is not collected, ignoring");
    json_decref(list);
}

static void collect_networks(struct net *net, int64_t deadline_ms)
{
    struct cniconf_set set;
    json_t *by_network = json_object();
    uint64_t generation;
    struct err err = {0};

    netconf_get(net->conf, &set, &generation);
    if (by_network != NULL && set.n > 0) {
        if (net_hold_all(net, clock_earlier(deadline_ms, clock_deadline(EXCLUSIVE_MS)), &err) !=
            0) {
            log_event(LOG_INFO, NULL, &err, "garbage of networks is not collected this time");
        } else {
            bool complete = list_all(net, by_network);
            for (size_t i = 0; complete && i < set.n; i++)
                collect_network(net, set.confs[i], by_network, deadline_ms);
            net_release_all(net);
        }
    }
    json_decref(by_network);
    cniconf_set_fini(&set);
}

void net_collect(struct net *net, const char *const *pod_ids, size_t n, int64_t deadline_ms)
{
    struct err err = {0};
    char **ids = NULL;
    size_t n_ids = 0;

    if (netrecord_list(net->state_fd, &ids, &n_ids, &err) != 0) {
        log_event(LOG_WARN, NULL, &err, "networks of pods that are gone are not looked for");
        return;
    }
    for (size_t i = 0; i < n_ids; i++) {
        struct netrecord record = {0};
        if (ids[i] != NULL && netrecord_load(net->state_fd, ids[i], &record, NULL) == 0 &&
            (record.detaching || !is_among(ids[i], pod_ids, n)))
            net_repeat(net, ids[i], 0);
        netrecord_fini(&record);
        free(ids[i]);
    }
    free(ids);
    remove_stray_namespaces(net, pod_ids, n);
    if (net->gc != NET_GC_NO)
        collect_networks(net, deadline_ms);
}
