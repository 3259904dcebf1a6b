/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent is told of a pod's network: the protocol's Network message, made of what the
 * network room found in the pod's namespace and of the pod's configuration. The message is the
 * caller's as long as the struct lives, and shares nothing with what it was made of. Thread-safe.
 */
#pragma once

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/net/net.h"
#include "proto/agent/agent.pb-c.h"
#include "proto/cri/cri.pb-c.h"

struct rpc_arena;

struct netmsg {
    Casemate__Agent__V1__Network message;
    struct rpc_arena *arena; /* holds what the message points to */
};

struct netmsg_input {
    const struct net_result *result; /* NULL: the pod has loopback alone */
    /* Where the guest finds each of result's interfaces: the slots of vmm.h. */
    const uint32_t *slots;
    const char *hostname;
    const Runtime__V1__DNSConfig *dns; /* may be NULL */
    const char *host_resolv_conf;      /* PODFILES_RESOLV_CONF */
};

/*
 * The message and all that it points to, in memory of its own: input need not live on. INVALID for
 * dns entries that no resolv.conf can hold, EXHAUSTED when it becomes larger than the agent takes.
 */
int netmsg_init(struct netmsg *ret_message, const struct netmsg_input *input, struct err *err);
/* A zeroed one is fine. */
void netmsg_fini(struct netmsg *message);
#define cleanup_netmsg CLEANUP(netmsg_fini)
