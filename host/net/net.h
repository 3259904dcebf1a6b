/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod's network: a network namespace of its own, the CNI chains run on it, and for each interface
 * that they made there a tap device wired to it, to be handed to the pod's VM. Only this room knows
 * CNI, netlink and the namespace files. What is attached is on disk before it is acted on, so that
 * it can be taken back after a crash or a reboot. Threads: every function is thread-safe and may
 * block until its deadline, so call from worker threads; calls for different pods run in parallel.
 * Deadlines as in common/base/clock.h. Addresses are in network byte order. CNI: spec 0.3.1 to 1.1.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define NET_IFNAME_SIZE 16 /* bytes, NUL included, as IFNAMSIZ */
#define NET_MAC_SIZE    6
#define NET_ADDR_TEXT   48 /* bytes of an address as text, NUL included */
#define NET_MAX_IFACES  4  /* of one pod */
#define NET_MAX_QUEUES  8  /* of its first interface */

struct net;
struct net_pod;

/* Whether plugins are asked to collect garbage (GC, CNI 1.1), which takes away whatever of a
 * network is not ours. */
enum net_gc {
    NET_GC_AUTO, /* unless another runtime's attachment to the network is seen */
    NET_GC_YES,  /* no other runtime uses the networks */
    NET_GC_NO,
};
#define NET_GC_NAMES "auto, yes, no"
/* Parses such a name. Returns 0, or -1 for any other text. */
int net_gc_parse(const char *text, enum net_gc *ret_gc);

struct net_config {
    const char *conf_dir; /* network configurations; NULL: /etc/cni/net.d; need not exist */
    /* Where plugins are looked for, in order; none: /opt/cni/bin, /usr/libexec/cni, /usr/lib/cni */
    const char *const *bin_dirs;
    size_t n_bin_dirs;
    const char *state_dir;     /* durable, the room's own: what is attached; made if missing */
    const char *run_dir;       /* lost at a reboot, the room's own: namespaces; made if missing */
    const char *conf_template; /* file; see net_set_pod_cidr; NULL: none */
    unsigned max_networks;     /* configurations that each pod gets, in order of file name; 0: 1 */
    enum net_gc gc;            /* at start-up */
    const char *cache_dir;     /* where libcni keeps other runtimes' results; NULL: /var/lib/cni */
    bool loopback_only;        /* while there is no configuration, pods have loopback alone */
    int64_t plugin_timeout_ms; /* of one run of one plugin; 0: 60 s */
    int64_t
        retry_ms; /* first pause before a failed removal is repeated; 0: 2 s; doubles to 5 min */
};

/* Makes the folders; starts the thread that repeats failed removals. config is copied. */
int net_new(const struct net_config *config, struct net **ret_net, struct err *err);
/* Ends that thread. What is attached stays attached. No call may be running. NULL is fine. */
void net_free(struct net *net);
DEFINE_CLEANUP(net, struct net, net_free)
#define cleanup_net CLEANUP(net_cleanup_)

struct net_status {
    bool ready;
    bool loopback_only; /* ready without any network */
    char network[256];  /* names of the configurations that the next pod gets; "" if none */
    char reason[512];   /* why not ready, or why loopback alone; for people */
};
/*
 * Whether the next pod would get a network. Reads the configuration folder again when it has
 * changed; asks the plugins (STATUS, CNI 1.1) at most every few seconds.
 */
void net_get_status(struct net *net, int64_t deadline_ms, struct net_status *ret_status);

/*
 * The node's pod CIDRs, comma separated ("10.1.2.0/24,fd00:1::/64"), as UpdateRuntimeConfig brings
 * them: writes the configuration that the template makes of them, unless the operator has one of
 * his own. INVALID when a CIDR is none. Without a template: nothing happens.
 */
int net_set_pod_cidr(struct net *net, const char *cidrs, struct err *err);

/* ---- attaching ------------------------------------------------------------------------------ */

struct net_port {
    const char *protocol; /* "tcp", "udp", "sctp" */
    uint16_t container_port;
    uint16_t host_port;  /* 0: no mapping */
    const char *host_ip; /* NULL or "": all */
};

struct net_pair {
    const char *key;
    const char *value;
};

/* What a pod's plugins are told. Strings may be NULL unless said otherwise. */
struct net_pod_spec {
    const char *id; /* not NULL; [A-Za-z0-9][A-Za-z0-9_.-]*, at most 128 bytes */
    const char *name;
    const char *namespace_;
    const char *uid;
    const struct net_port *ports;
    size_t n_ports;
    /* kubernetes.io/ingress-bandwidth and egress-bandwidth are understood; all are passed on to
     * plugins that ask (io.kubernetes.cri.pod-annotations). */
    const struct net_pair *annotations;
    size_t n_annotations;
    const char *const *dns_servers;
    size_t n_dns_servers;
    const char *const *dns_searches;
    size_t n_dns_searches;
    const char *const *dns_options;
    size_t n_dns_options;
    const char *cgroup_path;
    unsigned queues; /* of the first interface's tap, at most NET_MAX_QUEUES; 0: 1 */
    /*
     * For a VM that is there already and has a tap of its own; NULL: none, one is made. Called by
     * net_pod_attach on a thread of its own, beside the plugins, since it waits for the kernel:
     * puts the tap into the namespace (which stays the handle's) under that name. When it fails, a
     * tap is made after all.
     */
    int (*move_tap)(void *arg, int netns_fd, const char *name, struct err *err);
    void *move_tap_arg;
};

struct net_addr {
    uint8_t bytes[16]; /* 4 are used of IPv4 */
    uint8_t len;       /* 4 or 16; 0: none */
    uint8_t prefix;    /* bits */
};

/*
 * A route of the namespace's main table. All of them are given, also those that came with an
 * address, because plugins take such routes away (ptp): the guest's addresses bring none
 * (IFA_F_NOPREFIXROUTE). Only what every IPv6 interface has by itself (fe80::/64, ff00::/8) is left
 * out, and so are link-local addresses. Those without a gateway come first.
 */
struct net_route {
    struct net_addr dst;     /* prefix 0: default; len is always set */
    struct net_addr gateway; /* len 0: on link; may be of the other family */
    struct net_addr source;  /* preferred; len 0: none */
    uint32_t metric;
    uint32_t mtu;    /* 0: the interface's */
    uint32_t advmss; /* 0: none */
    uint8_t scope;   /* RT_SCOPE_* */
    bool onlink;     /* the gateway counts as reachable, though no route says so */
};

struct net_neighbour {
    struct net_addr addr;
    uint8_t mac[NET_MAC_SIZE];
};

/* One interface for the VM: what the namespace's interface is, to be set on the guest's. */
struct net_iface {
    char name[NET_IFNAME_SIZE]; /* "eth0" first */
    uint8_t mac[NET_MAC_SIZE];  /* to be set on the guest's NIC, whatever that booted with */
    uint32_t mtu;
    int tap_fd; /* for vm_add_nic; -1: the first, whose tap net_pod_open gave; -1 after reopening */
    struct net_addr *addrs;
    size_t n_addrs;
    struct net_route *routes;
    size_t n_routes;
    struct net_neighbour *neighbours; /* permanent ones only */
    size_t n_neighbours;
};

/* A kernel setting that the chain made in the namespace (the tuning plugin), for the guest. */
struct net_sysctl {
    char *name;
    char *value;
};

struct net_dns {
    char **servers;
    size_t n_servers;
    char *domain; /* NULL: none */
    char **searches;
    size_t n_searches;
    char **options;
    size_t n_options;
};

struct net_result {
    struct net_iface *ifaces; /* the VM's NICs in order; none with loopback alone */
    size_t n_ifaces;
    char (*ips)[NET_ADDR_TEXT]; /* the pod's addresses, primary one first, for PodSandboxStatus */
    size_t n_ips;
    struct net_dns dns; /* as the plugins say; what the pod's own dns_config says goes before it */
    struct net_sysctl *sysctls;
    size_t n_sysctls;
    int64_t plugins_us; /* time that the plugins took */
    int64_t own_us;     /* time that everything else took */
};

/* Closes the descriptors and frees; a zeroed one is fine. */
void net_result_fini(struct net_result *result);
#define cleanup_net_result CLEANUP(net_result_fini)

/*
 * First step, a few ms: decides on the networks, makes the pod's namespace and a tap in it, so that
 * the VM can start while net_pod_attach runs. EXISTS when the pod has a network already.
 * UNAVAILABLE when there is no configuration and loopback_only is off. spec is copied. After a
 * failure nothing is left.
 */
int net_pod_open(struct net *net, const struct net_pod_spec *spec, struct net_pod **ret_pod,
                 struct err *err);
/*
 * The tap of the VM's first NIC (with IFF_VNET_HDR), a descriptor for each queue that was asked
 * for, the handle's: it may be closed as soon as the VM has it. NULL: the pod has loopback alone,
 * and its VM needs no NIC; or the VM's own is moved (decided when net_pod_attach returns).
 */
const int *net_pod_taps(const struct net_pod *pod);
/* Whether the pod has more than loopback. */
bool net_pod_has_network(const struct net_pod *pod);
/*
 * Second step: runs the chains (ADD) and wires the taps to what they made. Once. When a plugin
 * refuses, hangs or talks nonsense the error has its own words, and what was done is taken back
 * (DEL); what cannot be is repeated in the background.
 */
int net_pod_attach(struct net_pod *pod, int64_t deadline_ms, struct net_result *ret_result,
                   struct err *err);
/* Lets go of the handle and its tap. What is attached stays attached. NULL is fine. */
void net_pod_free(struct net_pod *pod);
DEFINE_CLEANUP(net_pod, struct net_pod, net_pod_free)
#define cleanup_net_pod CLEANUP(net_pod_cleanup_)

/* ---- later ---------------------------------------------------------------------------------- */

/*
 * What was attached, for a daemon that comes back: ips, dns and sysctls; the interfaces stay as
 * they are in the living VM. NOT_FOUND when the pod has no network.
 */
int net_reopen(struct net *net, const char *pod_id, struct net_result *ret_result, struct err *err);

/*
 * Runs the chains' removal (DEL) and removes the namespace. Success when there is nothing (any
 * more). After a failure the caller may repeat it, and the room does so by itself until it
 * succeeds. The VM should be gone.
 */
int net_detach(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err);

/* Asks the plugins whether the pod's network is as they made it (CHECK, CNI 0.4.0 and later).
 * BAD_STATE with their words if not. */
int net_check(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err);

/*
 * At start-up: detaches what belongs to none of the n pods (in the background where it does not
 * succeed at once), removes namespaces that nobody knows, and lets plugins collect garbage (GC, CNI
 * 1.1), while no other plugin runs. Never fails: what stays is logged.
 */
void net_collect(struct net *net, const char *const *pod_ids, size_t n, int64_t deadline_ms);
