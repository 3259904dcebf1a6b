/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything happens on the loop's thread; a mutex lets the test's thread look and set. A Wait
 * whose container runs is kept until it ends.
 */
#include "tests/fakes/fake_agent.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/rpc/server.h"

#define MAX_CONTAINERS 8
#define MAX_WAITING    32

struct ctr {
    char id[80];
    bool used, running, ended;
    int exit_code;
    int64_t started_ns, finished_ns;
};

/* A call that waits for the end of a container: Wait, or ReadOutput when stream is not -1. */
struct waiting {
    struct rpc_call *call;
    struct ctr *ctr;
    int stream;
};

struct fake_agent {
    pthread_mutex_t lock;
    struct fake_agent_options options;
    struct rpc_service service;
    struct rpc_server *server;
    int fd;
    struct ctr ctrs[MAX_CONTAINERS];
    struct waiting waiting[MAX_WAITING];
    unsigned signals[FAKE_AGENT_SIGNALS];
    size_t n_signals;
    unsigned removed;
    unsigned created;
    char settings[512];
};

static struct fake_agent *enter(void *arg)
{
    struct fake_agent *a = arg;
    pthread_mutex_lock(&a->lock);
    return a;
}

static void leave(struct fake_agent *a)
{
    pthread_mutex_unlock(&a->lock);
}

static struct ctr *find(struct fake_agent *a, const char *id)
{
    for (size_t i = 0; i < MAX_CONTAINERS; i++) {
        if (a->ctrs[i].used && strcmp(a->ctrs[i].id, id) == 0)
            return &a->ctrs[i];
    }
    return NULL;
}

static void fail(struct rpc_call *call, enum err_code code, const char *words)
{
    struct err err;
    (void)err_set(&err, code, "%s", words);
    rpc_call_fail(call, &err);
}

static size_t output_size(const struct fake_agent *a)
{
    return a->options.output == NULL ? 0 : strlen(a->options.output);
}

static Casemate__Agent__V1__ExitStatus status_of(const struct fake_agent *a, int exit_code)
{
    Casemate__Agent__V1__ExitStatus s = CASEMATE__AGENT__V1__EXIT_STATUS__INIT;
    s.exit_code = exit_code;
    s.signal = exit_code > 128 ? (uint32_t)exit_code - 128 : 0;
    s.oom_killed = a->options.oom_killed;
    s.started_ns = s.finished_ns = clock_realtime_ns();
    s.stdout_end = output_size(a);
    return s;
}

static ProtobufCBinaryData bytes_of(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text_or_empty(text)),
                                 .data = (uint8_t *)(uintptr_t)text_or_empty(text)};
}

static void answer(struct fake_agent *a, struct waiting *w)
{
    struct err err;
    if (w->stream < 0) {
        Casemate__Agent__V1__ExitStatus status = status_of(a, w->ctr->exit_code);
        Casemate__Agent__V1__WaitReply reply = CASEMATE__AGENT__V1__WAIT_REPLY__INIT;
        status.started_ns = w->ctr->started_ns;
        status.finished_ns = w->ctr->finished_ns;
        reply.status = &status;
        rpc_call_reply(w->call, &reply.base);
    } else {
        Casemate__Agent__V1__OutputChunk chunk = CASEMATE__AGENT__V1__OUTPUT_CHUNK__INIT;
        chunk.time_ns = clock_realtime_ns();
        if (w->stream == 0)
            chunk.data = bytes_of(a->options.output);
        chunk.eof = true;
        (void)rpc_call_send(w->call, &chunk.base, &err);
        rpc_call_finish(w->call, RPC_OK, "");
    }
    w->call = NULL;
}

static void end(struct fake_agent *a, struct ctr *c, int exit_code)
{
    c->running = false;
    c->ended = true;
    c->exit_code = exit_code;
    c->finished_ns = clock_realtime_ns();
    for (size_t i = 0; i < MAX_WAITING; i++) {
        if (a->waiting[i].call != NULL && a->waiting[i].ctr == c)
            answer(a, &a->waiting[i]);
    }
}

static void wait_for_end(struct fake_agent *a, struct rpc_call *call, struct ctr *c, int stream)
{
    struct waiting w = {.call = call, .ctr = c, .stream = stream};
    if (c->ended) {
        answer(a, &w);
        return;
    }
    for (size_t i = 0; i < MAX_WAITING; i++) {
        if (a->waiting[i].call == NULL) {
            a->waiting[i] = w;
            return;
        }
    }
    assert(!"too many calls wait");
}

/* ---- the calls ---- */

static void on_hello(struct rpc_call *call, void *arg)
{
    static char words[][20] = {"run",     "stats", "update-resources",
                               "network", "user",  "cgroup-checks"};
    char *features[ARRAY_SIZE(words)];
    char text[] = "fake";
    Casemate__Agent__V1__HelloReply reply = CASEMATE__AGENT__V1__HELLO_REPLY__INIT;
    (void)arg;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        features[i] = words[i];
    reply.version = 1;
    reply.agent_version = reply.kernel_release = reply.boot_id = text;
    reply.features = features;
    reply.n_features = ARRAY_SIZE(words);
    rpc_call_reply(call, &reply.base);
}

static void on_start(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    const Casemate__Agent__V1__StartContainerRequest *r = (const void *)rpc_call_request(call);
    struct ctr *c = find(a, r->id);
    Casemate__Agent__V1__StartContainerReply reply =
        CASEMATE__AGENT__V1__START_CONTAINER_REPLY__INIT;
    if (c == NULL) {
        fail(call, ERR_NOT_FOUND, "no such container");
    } else if (a->options.start_fails != ERR_NONE) {
        c->ended = true;
        c->exit_code = 128;
        fail(call, a->options.start_fails, a->options.words);
    } else {
        c->running = true;
        c->started_ns = reply.started_ns = clock_realtime_ns();
        rpc_call_reply(call, &reply.base);
        if (a->options.ends_at_once)
            end(a, c, a->options.exit_code);
    }
    leave(a);
}

static void on_signal(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    const Casemate__Agent__V1__SignalRequest *r = (const void *)rpc_call_request(call);
    struct ctr *c = find(a, r->container_id);
    Casemate__Agent__V1__SignalReply reply = CASEMATE__AGENT__V1__SIGNAL_REPLY__INIT;
    if (a->n_signals < FAKE_AGENT_SIGNALS)
        a->signals[a->n_signals++] = r->signal;
    if (c == NULL || !c->running) {
        fail(call, ERR_NOT_FOUND, "has ended");
    } else {
        rpc_call_reply(call, &reply.base);
        if (r->signal == SIGKILL || !a->options.ignores_term)
            end(a, c, 128 + (int)r->signal);
    }
    leave(a);
}

static void on_wait(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    const Casemate__Agent__V1__WaitRequest *r = (const void *)rpc_call_request(call);
    struct ctr *c = find(a, r->container_id);
    if (c == NULL)
        fail(call, ERR_NOT_FOUND, "no such container");
    else
        wait_for_end(a, call, c, -1);
    leave(a);
}

static void on_read(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    const Casemate__Agent__V1__ReadOutputRequest *r = (const void *)rpc_call_request(call);
    struct ctr *c = find(a, r->container_id);
    if (c == NULL)
        fail(call, ERR_NOT_FOUND, "no such container");
    else
        wait_for_end(a, call, c, (int)r->stream);
    leave(a);
}

static void on_ack(struct rpc_call *call, void *arg)
{
    Casemate__Agent__V1__AckOutputReply reply = CASEMATE__AGENT__V1__ACK_OUTPUT_REPLY__INIT;
    (void)arg;
    rpc_call_reply(call, &reply.base);
}

static void on_given_up(void *arg)
{
    rpc_call_finish(arg, RPC_CANCELLED, "given up");
}

static void on_remove(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    Casemate__Agent__V1__RemoveReply reply = CASEMATE__AGENT__V1__REMOVE_REPLY__INIT;
    a->removed++;
    if (a->options.never_removes)
        rpc_call_on_cancel(call, on_given_up, call);
    else
        rpc_call_reply(call, &reply.base);
    leave(a);
}

/* Only what nobody made. */
static void on_list(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    Casemate__Agent__V1__ListReply reply = CASEMATE__AGENT__V1__LIST_REPLY__INIT;
    size_t n = a->options.made_up;
    Casemate__Agent__V1__ProcessInfo *items = calloc(n + 1, sizeof(*items));
    Casemate__Agent__V1__ProcessInfo **list = calloc(n + 1, sizeof(*list));
    char(*ids)[32] = calloc(n + 1, sizeof(*ids));
    assert(items != NULL && list != NULL && ids != NULL);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(ids[i], sizeof(ids[i]), "made-up-%zu", i);
        casemate__agent__v1__process_info__init(&items[i]);
        items[i].container_id = ids[i];
        items[i].state = CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_RUNNING;
        list[i] = &items[i];
    }
    reply.processes = list;
    reply.n_processes = n;
    rpc_call_reply(call, &reply.base);
    free(ids);
    free(list);
    free(items);
    leave(a);
}

static void on_run(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    Casemate__Agent__V1__ExitStatus status = status_of(a, a->options.exit_code);
    Casemate__Agent__V1__RunEvent output = CASEMATE__AGENT__V1__RUN_EVENT__INIT;
    Casemate__Agent__V1__RunEvent exit = CASEMATE__AGENT__V1__RUN_EVENT__INIT;
    struct err err;
    output.data = bytes_of(a->options.output);
    exit.exit = &status;
    if (a->options.command_hangs) {
        rpc_call_on_cancel(call, on_given_up, call);
        leave(a);
        return;
    }
    if (output.data.len > 0)
        (void)rpc_call_send(call, &output.base, &err);
    if (!a->options.no_exit)
        (void)rpc_call_send(call, &exit.base, &err);
    if (a->options.two_exits)
        (void)rpc_call_send(call, &exit.base, &err);
    rpc_call_finish(call, RPC_OK, "");
    leave(a);
}

static void add(struct fake_agent *a, const char *id)
{
    for (size_t i = 0; i < MAX_CONTAINERS; i++) {
        if (!a->ctrs[i].used) {
            a->ctrs[i] = (struct ctr){.used = true};
            (void)snprintf(a->ctrs[i].id, sizeof(a->ctrs[i].id), "%s", id);
            break;
        }
    }
}

static void note_settings(struct fake_agent *a, const Casemate__Agent__V1__Resources *r)
{
    size_t at = 0;
    a->settings[0] = '\0';
    for (size_t i = 0; r != NULL && i < r->n_cgroup && at < sizeof(a->settings); i++)
        at += (size_t)snprintf(a->settings + at, sizeof(a->settings) - at, "%s%s=%s",
                               i == 0 ? "" : " ", r->cgroup[i]->file, r->cgroup[i]->value);
}

static bool refuse(struct fake_agent *a, struct rpc_call *call)
{
    if (a->options.refusals == 0)
        return false;
    a->options.refusals--;
    fail(call, ERR_EXHAUSTED, "cpuset.cpus 0-1: the guest has 0");
    return true;
}

static void on_create(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    const Casemate__Agent__V1__CreateContainerRequest *r = (const void *)rpc_call_request(call);
    Casemate__Agent__V1__CreateContainerReply reply =
        CASEMATE__AGENT__V1__CREATE_CONTAINER_REPLY__INIT;
    a->created++;
    note_settings(a, r->resources);
    if (!refuse(a, call)) {
        add(a, r->id);
        rpc_call_reply(call, &reply.base);
    }
    leave(a);
}

static void on_update(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    const Casemate__Agent__V1__UpdateResourcesRequest *r = (const void *)rpc_call_request(call);
    Casemate__Agent__V1__UpdateResourcesReply reply =
        CASEMATE__AGENT__V1__UPDATE_RESOURCES_REPLY__INIT;
    note_settings(a, r->resources);
    if (refuse(a, call))
        ;
    else if (a->options.update_fails != ERR_NONE)
        fail(call, a->options.update_fails, a->options.words);
    else
        rpc_call_reply(call, &reply.base);
    leave(a);
}

static void on_stats(struct rpc_call *call, void *arg)
{
    struct fake_agent *a = enter(arg);
    Casemate__Agent__V1__StatsReply reply = CASEMATE__AGENT__V1__STATS_REPLY__INIT;
    Casemate__Agent__V1__ContainerStats stats[MAX_CONTAINERS + 1], *list[MAX_CONTAINERS + 1];
    Casemate__Agent__V1__CgroupStats cgroup = CASEMATE__AGENT__V1__CGROUP_STATS__INIT;
    Casemate__Agent__V1__Pressure pressure = CASEMATE__AGENT__V1__PRESSURE__INIT;
    size_t n = 0;
    pressure.some_avg10 = a->options.pressure;
    cgroup.cpu_usage_ns = 1000;
    cgroup.memory_usage_bytes = 4096;
    cgroup.memory_pressure = &pressure;
    for (size_t i = 0; i <= MAX_CONTAINERS; i++) {
        const char *id = i == MAX_CONTAINERS ? a->options.foreign
                         : a->ctrs[i].used   ? a->ctrs[i].id
                                             : NULL;
        if (id == NULL)
            continue;
        casemate__agent__v1__container_stats__init(&stats[n]);
        stats[n].container_id = (char *)(uintptr_t)id;
        stats[n].cgroup = &cgroup;
        stats[n].has_layer = true;
        stats[n].layer_bytes = 77;
        list[n] = &stats[n];
        n++;
    }
    reply.containers = list;
    reply.n_containers = n;
    reply.pod = a->options.no_pod ? NULL : &cgroup;
    rpc_call_reply(call, &reply.base);
    leave(a);
}

static const struct rpc_method methods[] = {
    {.name = "Hello", .handler = on_hello},
    {.name = "CreateContainer", .handler = on_create},
    {.name = "StartContainer", .handler = on_start},
    {.name = "Signal", .handler = on_signal},
    {.name = "Wait", .handler = on_wait},
    {.name = "ReadOutput", .handler = on_read},
    {.name = "AckOutput", .handler = on_ack},
    {.name = "Remove", .handler = on_remove},
    {.name = "List", .handler = on_list},
    {.name = "Run", .handler = on_run},
    {.name = "UpdateResources", .handler = on_update},
    {.name = "Stats", .handler = on_stats},
};

struct fake_agent *fake_agent_new(struct loop *loop, const struct fake_agent_options *options)
{
    struct fake_agent *a = calloc(1, sizeof(*a));
    struct rpc_server_config server = {.loop = loop, .n_services = 1};
    struct err err;
    int pair[2], rc;
    assert(a != NULL);
    pthread_mutex_init(&a->lock, NULL);
    a->options = *options;
    a->service = (struct rpc_service){
        .name = "casemate.agent.v1.Agent",
        .descriptor = &casemate__agent__v1__agent__descriptor,
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .arg = a,
    };
    server.services = &a->service;
    rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    assert(rc == 0);
    rc = rpc_server_new(&server, &a->server, &err);
    assert(rc == 0);
    rc = rpc_server_add_connection(a->server, pair[0], NULL, NULL, &err);
    assert(rc == 0);
    (void)rc;
    a->fd = pair[1];
    return a;
}

int fake_agent_fd(struct fake_agent *agent)
{
    return agent->fd;
}

void fake_agent_free(struct fake_agent *agent)
{
    if (agent == NULL)
        return;
    rpc_server_free(agent->server);
    for (size_t i = 0; i < MAX_WAITING; i++) {
        if (agent->waiting[i].call != NULL)
            rpc_call_finish(agent->waiting[i].call, RPC_CANCELLED, "");
    }
    pthread_mutex_destroy(&agent->lock);
    free(agent);
}

void fake_agent_set(struct fake_agent *agent, const struct fake_agent_options *options)
{
    (void)enter(agent);
    agent->options = *options;
    leave(agent);
}

void fake_agent_add(struct fake_agent *agent, const char *id)
{
    (void)enter(agent);
    add(agent, id);
    leave(agent);
}

size_t fake_agent_signals(struct fake_agent *agent, unsigned ret_signals[FAKE_AGENT_SIGNALS])
{
    (void)enter(agent);
    size_t n = agent->n_signals;
    memcpy(ret_signals, agent->signals, sizeof(agent->signals));
    leave(agent);
    return n;
}

unsigned fake_agent_removed(struct fake_agent *agent)
{
    (void)enter(agent);
    unsigned n = agent->removed;
    leave(agent);
    return n;
}

unsigned fake_agent_created(struct fake_agent *agent)
{
    (void)enter(agent);
    unsigned n = agent->created;
    leave(agent);
    return n;
}

const char *fake_agent_settings(struct fake_agent *agent)
{
    return agent->settings;
}
