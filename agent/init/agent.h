/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent as a whole: loop, children, pod, containers, service and the ways in, put together.
 * main boots the VM and runs it; tests run it over a socket pair. One thread.
 */
#pragma once

#include "common/base/err.h"
#include "agent/net/network.h"

struct agent;
struct loop;
struct rpc_server;

struct agent_config {
    int cgroup_base_fd;             /* stays the caller's */
    struct network_card card;       /* see agent/net/network.h */
    void (*on_shutdown)(void *arg); /* Shutdown was asked for and its answer is on the way */
    void *arg;
};

/* Everything but the ways in. Blocks SIGCHLD, SIGTERM, SIGINT and SIGPWR for the process. */
int agent_new(const struct agent_config *config, struct agent **ret_agent, struct err *err);
/* NULL is fine. Containers that still run are left alone. */
void agent_free(struct agent *agent);

/* The loop that runs it, and the server that connections are given to. */
struct loop *agent_loop(struct agent *agent);
/*
 * Lives as long as the agent; a connection that is given to it speaks HTTP/2 from its first byte.
 */
struct rpc_server *agent_server(struct agent *agent);

/* Serves the VM's port and vsock, whichever there is. NOT_FOUND when there is neither. */
int agent_serve_host(struct agent *agent, struct err *err);
