/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Opening makes the namespace and one tap, which is all that a VM needs to
 * start; attaching then runs the chains while it does. The record is written before the first
 * plugin runs and again with each answer, so at any instruction the room can take back exactly
 * what may exist. What the guest gets is read from the namespace, not from the answers (netscan.h);
 * the answers say which interfaces are the pod's and in which order its addresses count.
 *
 * Removal runs every plugin, then takes namespace and record away; while it fails both stay, so
 * that it can be repeated under the same conditions. A namespace that a reboot took is passed as
 * an empty path, which plugins know.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/net/internal.h"
#include "host/net/netargs.h"
#include "host/net/netns.h"
#include "host/net/netscan.h"
#include "host/net/tap.h"
#include "host/net/tc.h"

enum { ROLLBACK_MS = 10000 };

struct net_pod {
    struct net *net;
    struct netrecord record;     /* what is, or will be, on disk; no networks: loopback alone */
    int netns_fd;                /* -1 with loopback alone */
    int tap_fds[NET_MAX_QUEUES]; /* of the first interface; -1 with loopback alone */
    unsigned queues;
    int (*move_tap)(void *arg, int netns_fd, const char *name, struct err *err); /* or NULL */
    void *move_tap_arg;
    int64_t opened_ns; /* how long opening took */
};

/* ---- opening ---- */

/* The networks of the pod, as the folder has them now. */
static int choose_networks(struct net *net, struct netrecord *record, struct err *err)
{
    struct cniconf_set set;
    uint64_t generation;
    int result = 0;

    netconf_get(net->conf, &set, &generation);
    if (set.n == 0 && !net->loopback_only)
        result = err_set(err, ERR_UNAVAILABLE, "%s", set.problem);
    for (unsigned i = 0; i < set.n && i < ARRAY_SIZE(record->networks); i++) {
        struct netrecord_network *network = &record->networks[record->n++];
        network->conf = cniconf_ref(set.confs[i]);
        (void)snprintf(network->ifname, sizeof(network->ifname), "eth%u", i);
    }
    cniconf_set_fini(&set);
    return result;
}

/* Some networks do host ports by other means than CNI's, so this is not refused. */
static void warn_of_ports(const struct netrecord *record)
{
    const struct cniconf *conf = record->n == 0 ? NULL : record->networks[0].conf;
    struct log_ctx ctx = {.sandbox = record->pod_id};

    if (conf == NULL || json_object_get(record->capabilities, "portMappings") == NULL)
        return;
    for (size_t i = 0; i < conf->n_plugins; i++) {
        if (cniconf_plugin_wants(conf->plugins[i], "portMappings"))
            return;
    }
    log_event(LOG_WARN, &ctx, NULL,
              "the pod asks for host ports, and no plugin of network '%s' has the capability "
              "portMappings",
              conf->name);
}

static int make_record(struct net *net, const struct net_pod_spec *spec, struct netrecord *record,
                       struct err *err)
{
    if (!netrecord_id_is_valid(spec->id))
        return err_set(err, ERR_INVALID, "'%.140s' is not a pod's id", spec->id);
    if (spec->queues > NET_MAX_QUEUES)
        return err_set(err, ERR_INVALID, "%u queues: at most %d are possible", spec->queues,
                       NET_MAX_QUEUES);
    if (netargs_make(spec, &record->args, err) != 0 ||
        netargs_capabilities(spec, &record->capabilities, err) != 0 ||
        choose_networks(net, record, err) != 0)
        return -1;
    record->pod_id = strdup(spec->id);
    record->netns = net_netns_path(net, spec->id);
    if (record->pod_id == NULL || record->netns == NULL)
        return err_no_memory(err);
    warn_of_ports(record);
    return 0;
}

static int check_unused(const struct net *net, const char *pod_id, struct err *err)
{
    struct netrecord record = {0};
    struct err why = {0};
    int result = netrecord_load(net->state_fd, pod_id, &record, &why);

    netrecord_fini(&record);
    if (result != 0 && why.code == ERR_NOT_FOUND)
        return 0;
    return err_set(err, ERR_EXISTS, "the pod has a network already");
}

static void close_taps(struct net_pod *pod)
{
    for (size_t i = 0; i < ARRAY_SIZE(pod->tap_fds); i++)
        close_fd(&pod->tap_fds[i]);
}

static int make_tap(struct net_pod *pod, struct err *err)
{
    return tap_open(pod->netns_fd, NET_TAP_PREFIX "0", pod->queues, pod->tap_fds, err);
}

static int make_namespace(struct net_pod *pod, struct err *err)
{
    const char *path = pod->record.netns;

    if (netns_make(path, err) != 0)
        return -1;
    if (netns_open(path, &pod->netns_fd, err) != 0 ||
        (pod->move_tap == NULL && make_tap(pod, err) != 0)) {
        (void)netns_remove(path, NULL);
        return -1;
    }
    return 0;
}

int net_pod_open(struct net *net, const struct net_pod_spec *spec, struct net_pod **ret_pod,
                 struct err *err)
{
    struct net_pod *pod = calloc(1, sizeof(*pod));
    int64_t began_ns = clock_monotonic_ns();

    if (pod == NULL)
        return err_no_memory(err);
    *pod = (struct net_pod){.net = net,
                            .netns_fd = -1,
                            .queues = spec->queues == 0 ? 1 : spec->queues,
                            .move_tap = spec->move_tap,
                            .move_tap_arg = spec->move_tap_arg};
    for (size_t i = 0; i < ARRAY_SIZE(pod->tap_fds); i++)
        pod->tap_fds[i] = -1;
    if (make_record(net, spec, &pod->record, err) != 0 ||
        (pod->record.n > 0 &&
         (check_unused(net, spec->id, err) != 0 || make_namespace(pod, err) != 0))) {
        net_pod_free(pod);
        return err_prefix(err, "network");
    }
    pod->opened_ns = clock_monotonic_ns() - began_ns;
    *ret_pod = pod;
    return 0;
}

bool net_pod_has_network(const struct net_pod *pod)
{
    return pod->record.n > 0;
}

const int *net_pod_taps(const struct net_pod *pod)
{
    return pod->tap_fds[0] < 0 ? NULL : pod->tap_fds;
}

void net_pod_free(struct net_pod *pod)
{
    if (pod == NULL)
        return;
    netrecord_fini(&pod->record);
    close_fd(&pod->netns_fd);
    close_taps(pod);
    free(pod);
}

/* ---- results ---- */

void net_result_fini(struct net_result *result)
{
    for (size_t i = 0; i < result->n_ifaces; i++)
        net_iface_fini(&result->ifaces[i]);
    for (size_t i = 0; i < result->n_sysctls; i++) {
        free(result->sysctls[i].name);
        free(result->sysctls[i].value);
    }
    free(result->ifaces);
    free(result->ips);
    free(result->sysctls);
    net_dns_fini(&result->dns);
    *result = (struct net_result){0};
}

/* The name of a setting with the interface's put in for IFNAME, as the tuning plugin has it. */
static char *sysctl_name(const char *name, const char *ifname)
{
    const char *at = strstr(name, "IFNAME");

    if (at == NULL)
        return strdup(name);
    return text_printf("%.*s%s%s", (int)(at - name), name, ifname, at + strlen("IFNAME"));
}

static int add_sysctl(struct net_result *result, const char *name, const char *value,
                      const char *ifname, struct err *err)
{
    struct net_sysctl *grown = realloc(result->sysctls, (result->n_sysctls + 1) * sizeof(*grown));
    struct net_sysctl *s;

    if (grown == NULL)
        return err_no_memory(err);
    result->sysctls = grown;
    s = &grown[result->n_sysctls++];
    s->name = sysctl_name(name, ifname);
    s->value = strdup(value);
    return s->name == NULL || s->value == NULL ? err_no_memory(err) : 0;
}

/* The settings of the tuning plugin: it makes them in the namespace, where no process lives. */
static int add_sysctls(const struct netrecord_network *network, struct net_result *result,
                       struct err *err)
{
    for (size_t i = 0; i < network->conf->n_plugins; i++) {
        json_t *plugin = network->conf->plugins[i];
        const char *name;
        json_t *value;
        if (strcmp(cniconf_plugin_type(plugin), "tuning") != 0)
            continue;
        json_object_foreach(json_object_get(plugin, "sysctl"), name, value)
        {
            if (json_is_string(value) &&
                add_sysctl(result, name, json_string_value(value), network->ifname, err) != 0)
                return -1;
        }
    }
    return 0;
}

static int add_ips(const struct cniresult *from, struct net_result *result, struct err *err)
{
    result->ips = calloc(from->n_ips + 1, sizeof(*result->ips));
    if (result->ips == NULL)
        return err_no_memory(err);
    memcpy(result->ips, from->ips, from->n_ips * sizeof(*result->ips));
    result->n_ips = from->n_ips;
    return 0;
}

/* The addresses, DNS and sysctls that a record has. */
static int add_from_record(const struct netrecord *record, struct net_result *result,
                           struct err *err)
{
    for (size_t i = 0; i < record->n; i++) {
        const struct netrecord_network *network = &record->networks[i];
        cleanup_cniresult struct cniresult answer = {0};
        if (add_sysctls(network, result, err) != 0)
            return -1;
        if (network->result == NULL)
            continue;
        if (cniresult_read(network->result, &answer, err) != 0)
            return err_prefix(err, "network '%s'", network->conf->name);
        /* The first network is the cluster's: the pod's addresses and DNS are its. */
        if (i > 0)
            continue;
        if (add_ips(&answer, result, err) != 0)
            return -1;
        result->dns = answer.dns;
        answer.dns = (struct net_dns){0};
    }
    return 0;
}

/* ---- attaching ---- */

static int run_add(struct net_pod *pod, struct netrecord_network *network, bool first,
                   int64_t deadline_ms, struct err *err)
{
    const struct netrecord *record = &pod->record;
    json_t *capabilities =
        first ? json_incref(record->capabilities) : netargs_for_further(record->capabilities);
    const struct cnichain_call call = {
        .conf = network->conf,
        .container_id = record->pod_id,
        .netns = record->netns,
        .ifname = network->ifname,
        .args = record->args,
        .capabilities = capabilities,
    };
    struct cniresult result = {0};
    int r;

    if (capabilities == NULL)
        return err_no_memory(err);
    r = cnichain_add(&pod->net->env, &call, deadline_ms, &result, &network->result, err);
    json_decref(capabilities);
    cniresult_fini(&result);
    return r == 0 ? netrecord_save(pod->net->state_fd, record, err) : -1;
}

static int run_chains(struct net_pod *pod, int64_t deadline_ms, struct err *err)
{
    for (size_t i = 0; i < pod->record.n; i++) {
        if (run_add(pod, &pod->record.networks[i], i == 0, deadline_ms, err) != 0)
            return -1;
    }
    return 0;
}

static bool is_chosen(const struct net_result *result, const char *name)
{
    for (size_t i = 0; i < result->n_ifaces; i++) {
        if (strcmp(result->ifaces[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Makes a link the pod's next interface. */
static int choose(struct netscan_link *link, struct net_result *result, struct err *err)
{
    if (is_chosen(result, link->iface.name))
        return 0;
    if (!link->ethernet)
        return err_set(err, ERR_UNSUPPORTED,
                       "interface '%s' is not an Ethernet interface, which a virtual machine needs",
                       link->iface.name);
    if (result->n_ifaces == NET_MAX_IFACES)
        return err_set(err, ERR_UNSUPPORTED, "the networks have more than %d interfaces",
                       NET_MAX_IFACES);
    result->ifaces[result->n_ifaces++] = link->iface;
    link->iface = (struct net_iface){.tap_fd = -1};
    memcpy(link->iface.name, result->ifaces[result->n_ifaces - 1].name, NET_IFNAME_SIZE);
    return 0;
}

/* Those that an answer names, in its order. */
static int choose_named(const struct netrecord_network *network, struct netscan *scan,
                        struct net_result *result, struct err *err)
{
    cleanup_cniresult struct cniresult answer = {0};
    struct netscan_link *link = netscan_find(scan, network->ifname);

    if (link != NULL && choose(link, result, err) != 0)
        return -1;
    if (cniresult_read(network->result, &answer, err) != 0)
        return -1;
    for (size_t i = 0; i < answer.n_ifaces; i++) {
        link = answer.ifaces[i].in_pod ? netscan_find(scan, answer.ifaces[i].name) : NULL;
        if (link != NULL && choose(link, result, err) != 0)
            return -1;
    }
    return 0;
}

static int choose_interfaces(struct net_pod *pod, struct net_result *result, struct err *err)
{
    cleanup_netscan struct netscan scan = {0};

    result->ifaces = calloc(NET_MAX_IFACES, sizeof(*result->ifaces));
    if (result->ifaces == NULL)
        return err_no_memory(err);
    if (netscan_read(pod->netns_fd, &scan, err) != 0)
        return -1;
    for (size_t i = 0; i < pod->record.n; i++) {
        if (choose_named(&pod->record.networks[i], &scan, result, err) != 0)
            return -1;
    }
    /* Meta-plugins answer for their first interface only. */
    for (size_t i = 0; i < scan.n; i++) {
        struct netscan_link *link = &scan.links[i];
        if (link->ethernet && !link->has_master && link->iface.n_addrs > 0 &&
            !text_has_prefix(link->iface.name, NET_TAP_PREFIX) && choose(link, result, err) != 0)
            return -1;
    }
    return 0;
}

static int join_taps(struct net_pod *pod, struct net_result *result, struct err *err)
{
    char tap[NET_IFNAME_SIZE];

    for (size_t i = 0; i < result->n_ifaces; i++) {
        struct net_iface *iface = &result->ifaces[i];
        (void)snprintf(tap, sizeof(tap), NET_TAP_PREFIX "%u", (unsigned)i);
        if (i > 0 && tap_open(pod->netns_fd, tap, 1, &iface->tap_fd, err) != 0)
            return -1;
        if (tc_join(pod->netns_fd, iface->name, tap, err) != 0)
            return err_prefix(err, "join '%s' to the virtual machine", iface->name);
    }
    return 0;
}

/* The VM's own tap, on its way into the namespace. */
struct mover {
    struct net_pod *pod;
    pthread_t thread;
    bool running;
    int result;
    struct err err;
};

static void *mover_main(void *arg)
{
    struct mover *m = arg;

    m->result =
        m->pod->move_tap(m->pod->move_tap_arg, m->pod->netns_fd, NET_TAP_PREFIX "0", &m->err);
    return NULL;
}

static void mover_start(struct mover *m, struct net_pod *pod)
{
    m->pod = pod;
    if (pod->move_tap == NULL)
        return;
    m->running = pthread_create(&m->thread, NULL, mover_main, m) == 0;
    if (!m->running)
        (void)mover_main(m);
}

/* The tap is in the namespace, moved or made; also called when nothing is made of it any more. */
static int mover_finish(struct mover *m, struct err *err)
{
    struct log_ctx ctx = {.sandbox = m->pod->record.pod_id};

    if (m->pod->move_tap == NULL)
        return 0;
    if (m->running)
        (void)pthread_join(m->thread, NULL);
    m->running = false;
    if (m->result == 0)
        return 0;
    log_event(LOG_WARN, &ctx, &m->err, "the machine's tap cannot be used, making another one");
    return make_tap(m->pod, err);
}

static int run_chains_and_mover(struct net_pod *pod, int64_t deadline_ms, struct err *err)
{
    struct mover mover = {0};
    int result;

    mover_start(&mover, pod);
    result = run_chains(pod, deadline_ms, err);
    return mover_finish(&mover, result == 0 ? err : NULL) != 0 || result != 0 ? -1 : 0;
}

static int attach_held(struct net_pod *pod, int64_t deadline_ms, struct net_result *result,
                       struct err *err)
{
    int64_t began_ns = clock_monotonic_ns(), chains_ns;

    if (netrecord_save(pod->net->state_fd, &pod->record, err) != 0)
        return -1;
    chains_ns = clock_monotonic_ns();
    if (run_chains_and_mover(pod, deadline_ms, err) != 0)
        return -1;
    chains_ns = clock_monotonic_ns() - chains_ns;
    if (choose_interfaces(pod, result, err) != 0 || join_taps(pod, result, err) != 0 ||
        add_from_record(&pod->record, result, err) != 0)
        return -1;
    result->plugins_us = chains_ns / 1000;
    result->own_us = (clock_monotonic_ns() - began_ns - chains_ns + pod->opened_ns) / 1000;
    return 0;
}

/* What a failed attachment may have made. */
static void take_back(struct net_pod *pod)
{
    struct log_ctx ctx = {.sandbox = pod->record.pod_id};
    struct err err = {0};

    if (net_detach_held(pod->net, pod->record.pod_id, clock_deadline(ROLLBACK_MS), &err) == 0)
        return;
    log_event(LOG_WARN, &ctx, &err, "what was attached is not removed, trying again");
    net_repeat(pod->net, pod->record.pod_id, pod->net->retry_ms);
}

int net_pod_attach(struct net_pod *pod, int64_t deadline_ms, struct net_result *ret_result,
                   struct err *err)
{
    struct net_hold hold = {.pod_id = pod->record.pod_id};
    struct net_result result = {0};
    int r;

    if (pod->record.n == 0) {
        *ret_result = result;
        return 0;
    }
    if (net_hold(pod->net, &hold, deadline_ms, err) != 0)
        return -1;
    r = attach_held(pod, deadline_ms, &result, err);
    if (r != 0)
        take_back(pod);
    net_release(pod->net, &hold);
    if (r != 0) {
        net_result_fini(&result);
        return -1;
    }
    *ret_result = result;
    return 0;
}

/* ---- later ---- */

int net_reopen(struct net *net, const char *pod_id, struct net_result *ret_result, struct err *err)
{
    struct net_result result = {0};
    struct netrecord record = {0};
    int r;

    if (!netrecord_id_is_valid(pod_id))
        return err_set(err, ERR_NOT_FOUND, "'%.140s' is not a pod's id", pod_id);
    if (netrecord_load(net->state_fd, pod_id, &record, err) != 0)
        return -1;
    r = add_from_record(&record, &result, err);
    netrecord_fini(&record);
    if (r != 0) {
        net_result_fini(&result);
        return -1;
    }
    *ret_result = result;
    return 0;
}

/* Calls fn (cnichain_del, cnichain_check) for each network, the last one first; the first error. */
static int for_each_network(struct net *net, const struct netrecord *record, const char *netns,
                            int (*fn)(const struct cnichain_env *env,
                                      const struct cnichain_call *call, int64_t deadline_ms,
                                      struct err *err),
                            int64_t deadline_ms, struct err *err)
{
    int result = 0;

    for (size_t i = record->n; i-- > 0;) {
        const struct netrecord_network *network = &record->networks[i];
        json_t *capabilities =
            i == 0 ? json_incref(record->capabilities) : netargs_for_further(record->capabilities);
        const struct cnichain_call call = {
            .conf = network->conf,
            .container_id = record->pod_id,
            .netns = netns,
            .ifname = network->ifname,
            .args = record->args,
            .capabilities = capabilities,
            .result = network->result,
        };
        struct err why = {0};
        if (fn(&net->env, &call, deadline_ms, &why) != 0 && result == 0) {
            result = -1;
            if (err != NULL)
                *err = why;
        }
        json_decref(capabilities);
    }
    return result;
}

static int detach_record(struct net *net, struct netrecord *record, int64_t deadline_ms,
                         struct err *err)
{
    cleanup_fd int netns_fd = -1;
    bool lives;

    if (!record->detaching) {
        record->detaching = true;
        if (netrecord_save(net->state_fd, record, err) != 0)
            return -1;
    }
    lives = netns_open(record->netns, &netns_fd, NULL) == 0;
    close_fd(&netns_fd);
    if (for_each_network(net, record, lives ? record->netns : "", cnichain_del, deadline_ms, err) !=
        0)
        return -1;
    if (netns_remove(record->netns, err) != 0)
        return -1;
    return netrecord_delete(net->state_fd, record->pod_id, err);
}

int net_detach_held(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err)
{
    cleanup_free char *path = net_netns_path(net, pod_id);
    struct netrecord record = {0};
    struct err why = {0};
    int result;

    if (path == NULL)
        return err_no_memory(err);
    if (netrecord_load(net->state_fd, pod_id, &record, &why) != 0) {
        /* One that was opened and never attached. */
        if (why.code == ERR_NOT_FOUND)
            return netns_remove(path, err);
        if (err != NULL)
            *err = why;
        return -1;
    }
    result = detach_record(net, &record, deadline_ms, err);
    netrecord_fini(&record);
    return result;
}

int net_detach(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err)
{
    struct net_hold hold = {.pod_id = pod_id};
    int result;

    if (!netrecord_id_is_valid(pod_id))
        return 0;
    if (net_hold(net, &hold, deadline_ms, err) != 0)
        return -1;
    result = net_detach_held(net, pod_id, deadline_ms, err);
    net_release(net, &hold);
    if (result != 0) {
        net_repeat(net, pod_id, net->retry_ms);
        return err_prefix(err, "network is not removed");
    }
    return 0;
}

int net_check(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err)
{
    struct net_hold hold = {.pod_id = pod_id};
    struct netrecord record = {0};
    int result;

    if (!netrecord_id_is_valid(pod_id))
        return err_set(err, ERR_NOT_FOUND, "'%.140s' is not a pod's id", pod_id);
    if (net_hold(net, &hold, deadline_ms, err) != 0)
        return -1;
    result = netrecord_load(net->state_fd, pod_id, &record, err);
    if (result == 0)
        result = for_each_network(net, &record, record.netns, cnichain_check, deadline_ms, err);
    net_release(net, &hold);
    netrecord_fini(&record);
    return result;
}
