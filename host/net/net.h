/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod's network: a network namespace of its own, the CNI chain run on it, and for each interface
 * that the chain made there a tap device wired to it, to be handed to the pod's VM. Only this room
 * knows CNI, netlink and the namespace files. What was attached is on disk before it is acted on,
 * so that it can be taken back after a restart or a reboot. Threads: every function is thread-safe
 * and may block until its deadline; calls for different pods run in parallel, calls for one pod one
 * after another. Deadlines as in common/base/clock.h. Addresses are in network byte order.
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
#define NET_ERROR_SIZE  512

struct net;

struct net_config {
    const char *conf_dir; /* network configurations; NULL: /etc/cni/net.d; need not exist */
    /* Where plugins are looked for, in order; none: /opt/cni/bin, /usr/libexec/cni, /usr/lib/cni */
    const char *const *bin_dirs;
    size_t n_bin_dirs;
    const char *state_dir; /* durable, the room's own: what is attached; made if missing (0700) */
    const char
        *run_dir; /* lost at a reboot, the room's own: namespace files; made if missing (0700) */
    const char
        *conf_template; /* configuration with {{.PodCIDR}} for net_set_pod_cidr; NULL: none */
    bool loopback_only; /* while there is no configuration, pods run with loopback alone */
    int64_t plugin_timeout_ms; /* of one run of one plugin; 0: 60 s */
    int64_t
        retry_ms; /* first pause before a failed removal is repeated; 0: 2 s; doubles up to 5 min */
};

/* Makes the folders; starts the thread that repeats failed removals. config is copied. */
int net_new(const struct net_config *config, struct net **ret_net, struct err *err);
/* Ends that thread. What is attached stays attached. No call may be running. NULL is fine. */
void net_free(struct net *net);
DEFINE_CLEANUP(net, struct net, net_free)
#define cleanup_net CLEANUP(net_cleanup_)

struct net_status {
    bool ready;
    bool loopback_only;          /* ready without any network */
    char network[128];           /* name of the configuration that the next pod gets; "" if none */
    char reason[NET_ERROR_SIZE]; /* why not ready; for people */
};
/*
 * Whether the next pod would get a network. Looks at the configuration folder again when it has
 * changed; asks the plugins (STATUS, CNI 1.1) at most every few seconds.
 */
void net_get_status(struct net *net, int64_t deadline_ms, struct net_status *ret_status);

/*
 * The node's pod CIDRs, comma separated ("10.1.2.0/24,fd00:1::/64"), as UpdateRuntimeConfig brings
 * them: writes the configuration that the template makes of them, unless the operator has one of
 * his own. INVALID when a CIDR is none. Without a template: nothing happens.
 */
int net_set_pod_cidr(struct net *net, const char *cidrs, struct err *err);

/* ---- attaching
 * ------------------------------------------------------------------------------------------------------
 */

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
struct net_pod {
    const char *id; /* not NULL; [A-Za-z0-9][A-Za-z0-9_.-]*, at most 128 bytes */
    const char *name;
    const char *namespace_;
    const char *uid;
    const struct net_port *ports;
    size_t n_ports;
    /* kubernetes.io/ingress-bandwidth and egress-bandwidth are understood; all are passed on to
     * plugins that ask */
    const struct net_pair *annotations;
    size_t n_annotations;
    const char *const *dns_servers;
    size_t n_dns_servers;
    const char *const *dns_searches;
    size_t n_dns_searches;
    const char *const *dns_options;
    size_t n_dns_options;
    const char *const *ips; /* wanted addresses, with or without prefix */
    size_t n_ips;
    const char *mac; /* wanted */
    const char *cgroup_path;
};

struct net_addr {
    uint8_t bytes[16]; /* 4 are used of IPv4 */
    uint8_t len;       /* 4 or 16; 0: none */
    uint8_t prefix;    /* bits */
};

/* A route of the namespace's main table. */
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

/* One interface for the VM: what the namespace's interface was, to be set on the guest's. */
struct net_iface {
    char name[NET_IFNAME_SIZE]; /* "eth0" first */
    uint8_t mac[NET_MAC_SIZE];
    uint32_t mtu;
    int tap_fd;   /* with IFF_VNET_HDR; the tap lives as long as a descriptor of it; -1 after
                     net_reopen */
    int vhost_fd; /* /dev/vhost-net; -1: this host has none */
    struct net_addr *addrs;
    size_t n_addrs;
    struct net_route *routes;
    size_t n_routes;
    struct net_neighbour *neighbours; /* permanent ones only */
    size_t n_neighbours;
};

/* A kernel setting of the namespace that the chain asked for (the tuning plugin), to be made in the
 * guest. */
struct net_sysctl {
    char *name;
    char *value;
};

struct net_dns {
    char **servers;
    size_t n_servers;
    char **searches;
    size_t n_searches;
    char **options;
    size_t n_options;
};

struct net_attachment {
    char *network; /* name of the configuration; "" with loopback alone */
    struct net_iface *ifaces;
    size_t n_ifaces;
    char (*ips)[NET_ADDR_TEXT]; /* the pod's addresses, primary one first, as PodSandboxStatus shows
                                   them */
    size_t n_ips;
    struct net_dns dns; /* as the plugins say; what the pod's own dns_config says goes before it */
    struct net_sysctl *sysctls;
    size_t n_sysctls;
    int64_t plugins_ms; /* time the plugins took */
    int64_t own_ms;     /* time everything else took */
};

/* Closes the descriptors and frees; a zeroed one is fine. */
void net_attachment_fini(struct net_attachment *attachment);
#define cleanup_net_attachment CLEANUP(net_attachment_fini)

/*
 * Makes the pod's namespace, runs the chain (ADD) and wires the taps. EXISTS when the pod has a
 * network already. UNAVAILABLE when there is no configuration and loopback_only is off. When a
 * plugin refuses, hangs or talks nonsense the error has its own words, and what it had done is
 * taken back (DEL); what cannot be is repeated in the background.
 */
int net_attach(struct net *net, const struct net_pod *pod, int64_t deadline_ms,
               struct net_attachment *ret_attachment, struct err *err);

/*
 * The attachment of a pod whose VM lives on after a restart of the daemon: everything but the
 * descriptors, which QEMU holds. NOT_FOUND when there is none.
 */
int net_reopen(struct net *net, const char *pod_id, struct net_attachment *ret_attachment,
               struct err *err);

/*
 * Runs the chain's removal (DEL) and removes the namespace. Success when there is nothing (any
 * more). After a failure the caller may repeat it, and the room does so by itself until it
 * succeeds. The VM should be gone, or its network unused.
 */
int net_detach(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err);

/* Asks the plugins whether the pod's network is as they made it (CHECK, CNI 0.4.0). BAD_STATE with
 * their words if not. */
int net_check(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err);

/*
 * At start-up: detaches what belongs to none of the n pods (in the background when it does not
 * succeed at once), removes namespaces that nobody knows, and lets plugins collect garbage (GC,
 * CNI 1.1). Never fails: what stays is logged.
 */
void net_gc(struct net *net, const char *const *pod_ids, size_t n, int64_t deadline_ms);

/* A namespace's path, for people and verbose status: heap text, NULL when out of memory. */
char *net_netns_path(struct net *net, const char *pod_id);
