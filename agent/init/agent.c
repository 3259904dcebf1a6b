/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wiring only. The port's device may appear a moment after its driver was loaded, so it is looked
 * for again for a while; vsock, where there is any, is there at once.
 */
#include "agent/init/agent.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "common/rpc/server.h"
#include "agent/container/container.h"
#include "agent/container/podenv.h"
#include "agent/process/reaper.h"
#include "agent/rpc/service.h"
#include "agent/rpc/transport.h"

#define PORT_TIMEOUT_MS   5000
#define PORT_POLL_MS      5
#define SHUTDOWN_DELAY_MS 50 /* for the answer to leave the VM */
#define MAX_CONNECTIONS   8
#define MAX_STREAMS       2048
#define STREAM_WINDOW     (256u << 10)
#define MAX_MESSAGE       (4u << 20)

struct agent {
    struct agent_config config;
    struct loop *loop;
    struct loop_source *signals;
    struct loop_source *shutdown_timer;
    struct reaper *reaper;
    struct containers *containers;
    struct podenv *pod;
    struct service *service;
    struct rpc_server *server;
    struct transport_port *port;
    struct transport_vsock *vsock;
};

static void begin_shutdown(void *arg)
{
    struct agent *agent = arg;
    log_info("shutting down");
    containers_kill_all(agent->containers);
    loop_arm(agent->shutdown_timer, SHUTDOWN_DELAY_MS);
}

static void on_shutdown_timer(void *arg)
{
    struct agent *agent = arg;
    agent->config.on_shutdown(agent->config.arg);
}

static void on_signal(void *arg, int signo)
{
    struct agent *agent = arg;
    if (signo == SIGCHLD)
        reaper_collect(agent->reaper);
    else
        begin_shutdown(agent);
}

static int make_server(struct agent *agent, struct err *err)
{
    struct service_config service = {
        .containers = agent->containers,
        .pod = agent->pod,
        .on_shutdown = begin_shutdown,
        .arg = agent,
    };
    if (service_new(&service, &agent->service, err) < 0)
        return -1;
    struct rpc_server_config server = {
        .loop = agent->loop,
        .services = service_description(agent->service),
        .n_services = 1,
        .limits = {.max_message_bytes = MAX_MESSAGE,
                   .max_streams = MAX_STREAMS,
                   .stream_window_bytes = STREAM_WINDOW},
        .max_connections = MAX_CONNECTIONS,
    };
    return rpc_server_new(&server, &agent->server, err);
}

static int make_all(struct agent *agent, struct err *err)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGPWR, 0};
    if (loop_new(&agent->loop, err) < 0 || reaper_new(&agent->reaper, err) < 0 ||
        loop_add_signals(agent->loop, signals, on_signal, agent, &agent->signals, err) < 0 ||
        loop_add_timer(agent->loop, on_shutdown_timer, agent, &agent->shutdown_timer, err) < 0 ||
        podenv_new(agent->reaper, &agent->config.card, &agent->pod, err) < 0)
        return -1;
    struct containers_config config = {
        .loop = agent->loop,
        .reaper = agent->reaper,
        .pod = agent->pod,
        .cgroup_base_fd = agent->config.cgroup_base_fd,
    };
    if (containers_new(&config, &agent->containers, err) < 0)
        return -1;
    return make_server(agent, err);
}

int agent_new(const struct agent_config *config, struct agent **ret_agent, struct err *err)
{
    struct agent *agent = calloc(1, sizeof(*agent));
    if (agent == NULL)
        return err_no_memory(err);
    agent->config = *config;
    if (make_all(agent, err) < 0) {
        agent_free(agent);
        return -1;
    }
    *ret_agent = agent;
    return 0;
}

void agent_free(struct agent *agent)
{
    if (agent == NULL)
        return;
    transport_vsock_free(agent->vsock);
    rpc_server_free(agent->server);
    transport_port_free(agent->port);
    containers_free(agent->containers);
    service_free(agent->service);
    podenv_free(agent->pod);
    reaper_free(agent->reaper);
    loop_source_free(agent->shutdown_timer);
    loop_source_free(agent->signals);
    loop_free(agent->loop);
    free(agent);
}

struct loop *agent_loop(struct agent *agent)
{
    return agent->loop;
}

struct rpc_server *agent_server(struct agent *agent)
{
    return agent->server;
}

/* Opens the port, waiting for it to appear unless there is vsock to be reached by. */
static int open_port(bool wait, int *ret_fd, struct err *err)
{
    int64_t deadline = clock_deadline(wait ? PORT_TIMEOUT_MS : 0);
    for (;;) {
        if (transport_open_port(ret_fd, err) == 0)
            return 0;
        if (clock_poll_timeout(deadline) == 0)
            return -1;
        (void)poll(NULL, 0, PORT_POLL_MS);
    }
}

int agent_serve_host(struct agent *agent, struct err *err)
{
    struct err vsock_err;
    bool has_vsock =
        transport_serve_vsock(agent->loop, agent->server, &agent->vsock, &vsock_err) == 0;
    int fd;
    if (open_port(!has_vsock, &fd, err) < 0)
        return has_vsock ? 0 : -1;
    return transport_serve_port(agent->loop, agent->server, fd, &agent->port, err);
}
