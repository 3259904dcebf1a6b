/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The plugins take as long as a clone of a machine, or longer, and the two do
 * not need each other: the machine needs a tap, the guest needs the addresses. So the namespace and
 * the tap are made first, the plugins run on a thread of their own while the machine starts, and
 * the guest is told at the end, in a call of its own. The thread is joined before the start of the
 * pod returns, whatever became of it: nothing attaches behind the back of a removal. When a plugin
 * fails, the thread ends the machine's start, so that nobody waits for a pod that cannot be.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/net/net.h"
#include "host/sandbox/model.h"
#include "host/sandbox/netmsg.h"
#include "host/sandbox/podfiles.h"
#include "host/sandbox/podnet.h"
#include "host/sandbox/podsize.h"

#define CHECK_MS 60000

struct podnet {
    struct pod *pod;
    struct net_pod *net_pod; /* NULL: there is no network on this node */
    struct vm_nic nic;       /* n_queues 0: loopback alone, or the machine has it already */
    uint32_t queues;         /* that the machine's first interface has */
    int64_t deadline_ms;
    pthread_t thread;
    bool running;       /* the thread is to be joined */
    atomic_bool failed; /* set by the thread, for all who wait for the machine */
    /* the thread's until it is joined */
    int result;
    struct err err;
    struct net_result found;
};

/* ---- what the plugins are told ---- */

static const char *protocol_name(Runtime__V1__Protocol protocol)
{
    switch (protocol) {
    case RUNTIME__V1__PROTOCOL__UDP:
        return "udp";
    case RUNTIME__V1__PROTOCOL__SCTP:
        return "sctp";
    default:
        return "tcp";
    }
}

static struct net_port *make_ports(const Runtime__V1__PodSandboxConfig *config)
{
    struct net_port *ports = calloc(config->n_port_mappings + 1, sizeof(*ports));

    for (size_t i = 0; ports != NULL && i < config->n_port_mappings; i++) {
        const Runtime__V1__PortMapping *from = config->port_mappings[i];
        ports[i] = (struct net_port){
            .protocol = protocol_name(from->protocol),
            .container_port = (uint16_t)from->container_port,
            .host_port = (uint16_t)from->host_port,
            .host_ip = from->host_ip,
        };
    }
    return ports;
}

static struct net_pair *make_annotations(const Runtime__V1__PodSandboxConfig *config)
{
    struct net_pair *pairs = calloc(config->n_annotations + 1, sizeof(*pairs));

    for (size_t i = 0; pairs != NULL && i < config->n_annotations; i++)
        pairs[i] = (struct net_pair){config->annotations[i]->key, config->annotations[i]->value};
    return pairs;
}

static bool has_host_port(const Runtime__V1__PodSandboxConfig *config)
{
    for (size_t i = 0; i < config->n_port_mappings; i++) {
        if (config->port_mappings[i]->host_port != 0)
            return true;
    }
    return false;
}

/* A machine that was made ahead has a first interface whose tap leads nowhere: it becomes the
 * pod's. */
static int move_tap(void *arg, int netns_fd, const char *name, struct err *err)
{
    const struct podnet *p = arg;

    return vm_join_namespace(p->pod->vm, netns_fd, name, err);
}

static int open_network(struct podnet *p, struct err *err)
{
    const Runtime__V1__PodSandboxConfig *config = p->pod->facts->config;
    const Runtime__V1__DNSConfig *dns = config->dns_config;
    cleanup_free struct net_pair *annotations = make_annotations(config);
    cleanup_free struct net_port *ports = make_ports(config);
    struct net_pod_spec spec = {
        .id = p->pod->facts->id,
        .name = config->metadata->name,
        .namespace_ = config->metadata->namespace_,
        .uid = config->metadata->uid,
        .ports = ports,
        .n_ports = config->n_port_mappings,
        .annotations = annotations,
        .n_annotations = config->n_annotations,
        .cgroup_path = config->linux == NULL ? NULL : config->linux->cgroup_parent,
        .queues = p->queues,
        .move_tap = p->pod->spare_facts != NULL ? move_tap : NULL,
        .move_tap_arg = p,
    };

    if (annotations == NULL || ports == NULL)
        return err_no_memory(err);
    if (dns != NULL) {
        spec.dns_servers = (const char *const *)dns->servers;
        spec.n_dns_servers = dns->n_servers;
        spec.dns_searches = (const char *const *)dns->searches;
        spec.n_dns_searches = dns->n_searches;
        spec.dns_options = (const char *const *)dns->options;
        spec.n_dns_options = dns->n_options;
    }
    return net_pod_open(p->pod->mgr->deps.net, &spec, &p->net_pod, err);
}

/* ---- in the background ---- */

/* The machine's first interface is to have this tap's queues; none when there is no tap. */
static void set_taps(struct podnet *p)
{
    const int *taps = p->net_pod == NULL ? NULL : net_pod_taps(p->net_pod);

    p->nic.n_queues = taps == NULL ? 0 : p->queues;
    for (uint32_t i = 0; i < p->nic.n_queues; i++)
        p->nic.tap_fds[i] = taps[i];
}

/*
 * Without a network there is no pod: nobody needs to wait for its machine. One that was made ahead
 * is there already, and what is still to be done to it is no waiting.
 */
static void give_up_machine(struct podnet *p)
{
    struct log_ctx ctx = {.sandbox = p->pod->facts->id};
    struct vm *vm = NULL;
    struct err err;

    atomic_store(&p->failed, true);
    pthread_mutex_lock(&p->pod->mutex);
    p->pod->network_failed = true;
    if (p->pod->vm != NULL && p->pod->spare_facts == NULL)
        vm = vm_ref(p->pod->vm);
    pthread_mutex_unlock(&p->pod->mutex);
    vmm_look_again(p->pod->mgr->deps.vmm);
    if (vm != NULL && vm_kill(vm, &err) != 0)
        log_event(LOG_WARN, &ctx, &err, "a machine without a network is not killed yet");
    vm_unref(vm);
}

static void *attach_main(void *arg)
{
    struct podnet *p = arg;

    int64_t began_ns = clock_monotonic_ns();
    unsigned step = timeline_begin(&p->pod->timeline, "network (CNI)");
    p->result = net_pod_attach(p->net_pod, p->deadline_ms, &p->found, &p->err);
    timeline_end(&p->pod->timeline, step);
    if (p->result == 0)
        phases_add(&p->pod->mgr->phases, PHASE_NETWORK, clock_monotonic_ns() - began_ns);
    else
        give_up_machine(p);
    return NULL;
}

static void join(struct podnet *p)
{
    if (p->running)
        (void)pthread_join(p->thread, NULL);
    p->running = false;
}

/* An address of its own until the guest sets the network's: unicast, locally administered. */
static void make_mac(uint8_t mac[6])
{
    if (getrandom(mac, 6, 0) != 6)
        memset(mac, 0, 6);
    mac[0] = (uint8_t)((mac[0] & 0xfc) | 0x02);
}

static int start(struct podnet *p, struct err *err)
{
    int error;

    if (p->pod->mgr->deps.net != NULL && open_network(p, err) != 0)
        return -1;
    set_taps(p);
    if (p->net_pod == NULL || !net_pod_has_network(p->net_pod)) {
        if (has_host_port(p->pod->facts->config))
            return err_set(err, ERR_UNSUPPORTED,
                           "port_mappings: host ports need a pod network, and this node has none");
        return 0;
    }
    pthread_mutex_lock(&p->pod->mutex);
    p->pod->has_network = true;
    pthread_mutex_unlock(&p->pod->mutex);
    make_mac(p->nic.mac);
    error = pthread_create(&p->thread, NULL, attach_main, p);
    if (error != 0)
        return err_set_errno(err, error, "start a thread");
    p->running = true;
    return 0;
}

int podnet_begin(struct pod *pod, int64_t deadline_ms, struct podnet **ret_podnet, struct err *err)
{
    struct podnet *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return err_no_memory(err);
    p->pod = pod;
    p->queues = vm_nic_queues(podsize_boot_vcpus(pod));
    p->deadline_ms = deadline_ms;
    if (start(p, err) != 0) {
        podnet_free(p);
        return -1;
    }
    *ret_podnet = p;
    return 0;
}

const atomic_bool *podnet_failed(const struct podnet *podnet)
{
    return &podnet->failed;
}

bool podnet_failure(struct podnet *podnet, struct err *err)
{
    join(podnet);
    if (podnet->result == 0)
        return false;
    if (err != NULL)
        *err = podnet->err;
    return true;
}

const struct vm_nic *podnet_nic(const struct podnet *podnet)
{
    return podnet->nic.n_queues == 0 ? NULL : &podnet->nic;
}

void podnet_free(struct podnet *podnet)
{
    if (podnet == NULL)
        return;
    join(podnet);
    net_result_fini(&podnet->found);
    net_pod_free(podnet->net_pod);
    free(podnet);
}

/* ---- telling the guest ---- */

static int plug_in(struct podnet *p, uint32_t slots[NET_MAX_IFACES], int64_t deadline_ms,
                   struct err *err)
{
    /* The first one of a machine that was made ahead leads nowhere, unless its tap was moved. */
    bool plug_first = p->pod->spare_facts != NULL && p->nic.n_queues > 0;

    slots[0] = VM_NIC_FIRST_SLOT;
    for (size_t i = plug_first ? 0 : 1; i < p->found.n_ifaces; i++) {
        struct net_iface *iface = &p->found.ifaces[i];
        struct vm_nic nic = {.tap_fds = {i == 0 ? p->nic.tap_fds[0] : iface->tap_fd},
                             .n_queues = 1};
        memcpy(nic.mac, iface->mac, sizeof(nic.mac));
        if (vm_add_nic(p->pod->vm, &nic, deadline_ms, &slots[i], err) != 0)
            return err_prefix(err, "interface '%s'", iface->name);
    }
    return 0;
}

static int tell_guest(struct podnet *p, const uint32_t *slots, int64_t deadline_ms, struct err *err)
{
    cleanup_netmsg struct netmsg message = {0};
    char hostname[65];
    const struct netmsg_input input = {
        .result = &p->found,
        .slots = slots,
        .hostname = hostname,
        .dns = p->pod->facts->config->dns_config,
        .host_resolv_conf = PODFILES_RESOLV_CONF,
    };

    pod_hostname(p->pod, hostname);
    if (netmsg_init(&message, &input, err) != 0)
        return -1;
    return guest_configure_network(p->pod->guest, &message.message,
                                   manager_call_deadline(p->pod->mgr, deadline_ms), err);
}

/* The addresses become the pod's. */
static void keep_ips(struct pod *pod, struct net_result *found)
{
    pthread_mutex_lock(&pod->mutex);
    free(pod->ips);
    pod->ips = steal_ptr(&found->ips);
    pod->n_ips = found->n_ips;
    pthread_mutex_unlock(&pod->mutex);
    found->n_ips = 0;
}

int podnet_finish(struct podnet *podnet, int64_t deadline_ms, struct err *err)
{
    struct log_ctx ctx = {.sandbox = podnet->pod->facts->id};
    uint32_t slots[NET_MAX_IFACES];

    if (podnet_failure(podnet, err))
        return -1;
    set_taps(podnet); /* whether the machine's own was moved is known only now */
    if (plug_in(podnet, slots, deadline_ms, err) != 0 ||
        tell_guest(podnet, slots, deadline_ms, err) != 0)
        return err_prefix(err, "network");
    if (podnet->found.n_ifaces > 0)
        log_event(LOG_INFO, &ctx, NULL, "network: %s, plugins took %lld us, the rest of it %lld us",
                  podnet->found.n_ips > 0 ? podnet->found.ips[0] : "no address",
                  (long long)podnet->found.plugins_us, (long long)podnet->found.own_us);
    keep_ips(podnet->pod, &podnet->found);
    return 0;
}

/* ---- later ---- */

void podnet_reopen(struct pod *pod)
{
    cleanup_net_result struct net_result found = {0};
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct err err = {0};
    int result;

    if (pod->mgr->deps.net == NULL)
        return;
    result = net_reopen(pod->mgr->deps.net, pod->facts->id, &found, &err);
    if (result != 0 && err.code == ERR_NOT_FOUND)
        return;
    if (result != 0)
        log_event(LOG_WARN, &ctx, &err, "the pod's addresses are not known");
    else
        keep_ips(pod, &found);
    pthread_mutex_lock(&pod->mutex);
    pod->has_network = true;
    pthread_mutex_unlock(&pod->mutex);
}

/*
 * Takes the reference that it is given. Nothing follows from what is found but a line for people:
 * plugins of 2023 crash in CHECK (bandwidth without limits) or look for rules of the wrong family
 * (portmap with both).
 */
static void check(void *arg)
{
    struct pod *pod = arg;
    struct log_ctx ctx = {.sandbox = pod->facts->id};
    struct err err = {0};

    if (net_check(pod->mgr->deps.net, pod->facts->id, clock_deadline(CHECK_MS), &err) != 0 &&
        err.code != ERR_NOT_FOUND)
        log_event(LOG_INFO, &ctx, &err, "plugins do not find the pod's network as they made it");
    pod_unref(pod);
}

void podnet_check_later(struct pod *pod)
{
    bool has_network;

    pthread_mutex_lock(&pod->mutex);
    has_network = pod->has_network;
    pthread_mutex_unlock(&pod->mutex);
    if (has_network)
        manager_defer(pod->mgr, check, pod_ref(pod));
}

int podnet_detach(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    bool has_network;

    pthread_mutex_lock(&pod->mutex);
    has_network = pod->has_network;
    pthread_mutex_unlock(&pod->mutex);
    if (!has_network)
        return 0;
    if (net_detach(pod->mgr->deps.net, pod->facts->id, deadline_ms, err) != 0)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    pod->has_network = false;
    free(steal_ptr(&pod->ips));
    pod->n_ips = 0;
    pthread_mutex_unlock(&pod->mutex);
    return 0;
}
