/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call that cannot be answered at once becomes a `pending`: it holds a reference to a process,
 * watches it, and each time anything has changed asks its step function whether the answer is due.
 * Steps are plain predicates over the process's fields, so no order of events has to be thought
 * through twice. When the caller gives up, calls that only wait end; those that have begun
 * something go on, and the daemon finds out by List.
 */
#include "agent/rpc/service.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "common/base/cleanup.h"
#include "common/base/log.h"
#include "common/rpc/server.h"
#include "agent/container/container.h"
#include "agent/container/podenv.h"
#include "agent/container/validate.h"
#include "agent/net/netvalid.h"
#include "agent/process/process.h"
#include "agent/rpc/run_call.h"
#include "agent/rpc/stats_call.h"
#include "proto/agent/agent.pb-c.h"

#define PROTOCOL_VERSION 1u
#define READ_CHUNK       (32u << 10)  /* of output, a message */
#define READ_QUEUE       (128u << 10) /* of encoded output, a call */
#define MAX_LIST         (CONTAINERS_MAX * 4u)

struct service {
    struct service_config config;
    struct rpc_service description;
};

struct pending {
    struct process_watch watch;
    struct service *service;
    struct rpc_call *call;
    struct process *process;
    bool (*step)(struct pending *p); /* true: the call has been ended */
    uint64_t offset; /* ReadOutput: the next byte to send. WriteStdin: the first offset not taken at
                        the start */
    unsigned stream;
};

/* ---- pending calls
 * ------------------------------------------------------------------------------------------------------
 */

static void pending_free(struct pending *p)
{
    process_unwatch(p->process, &p->watch);
    process_unref(p->process);
    free(p);
}

static void on_change(void *arg)
{
    struct pending *p = arg;
    if (p->step(p))
        pending_free(p);
}

static void on_cancel(void *arg)
{
    struct pending *p = arg;
    rpc_call_finish(p->call, RPC_CANCELLED, "the caller gave up");
    pending_free(p);
}

/* Takes the step now and at every change. `gives_up`: the call ends when its caller is gone. */
static void pend(struct service *s, struct rpc_call *call, struct process *process,
                 bool (*step)(struct pending *p), bool gives_up)
{
    struct err err;
    struct pending *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        (void)err_no_memory(&err);
        rpc_call_fail(call, &err);
        return;
    }
    p->service = s;
    p->call = call;
    p->process = process_ref(process);
    p->step = step;
    p->watch = (struct process_watch){.fn = on_change, .arg = p};
    process_watch(process, &p->watch);
    if (gives_up)
        rpc_call_on_cancel(call, on_cancel, p);
    on_change(p);
}

static bool fail_gone(struct pending *p)
{
    rpc_call_finish(p->call, RPC_NOT_FOUND, "the process was removed");
    return true;
}

static bool fail_with(struct pending *p, const struct err *failure)
{
    struct err err;
    if (failure == NULL)
        (void)err_no_memory(&err);
    rpc_call_fail(p->call, failure != NULL ? failure : &err);
    return true;
}

/* ---- Hello, ConfigurePod, Shutdown
 * ---------------------------------------------------------------------------------------- */

static void handle_hello(struct rpc_call *call, void *arg)
{
    static char features[][20] = {"cgroup-checks",    "devices",   "image-volumes",
                                  "network",          "oom-score", "pid-pod",
                                  "pid-target",       "prepare",   "rehearse",
                                  "resize-tty",       "run",       "same-capabilities",
                                  "seccomp",          "stats",     "strict-groups",
                                  "update-resources", "user",      "userns"};
    struct service *s = arg;
    const Casemate__Agent__V1__HelloRequest *r = (const void *)rpc_call_request(call);
    if (r->version_min > PROTOCOL_VERSION || r->version_max < PROTOCOL_VERSION) {
        rpc_call_finish(call, RPC_FAILED_PRECONDITION,
                        "no common protocol version: this agent speaks 1");
        return;
    }
    struct utsname uts;
    struct sysinfo info;
    if (uname(&uts) < 0 || sysinfo(&info) < 0) {
        rpc_call_finish(call, RPC_INTERNAL, "cannot ask the kernel");
        return;
    }
    char *feature_list[ARRAY_SIZE(features)];
    for (size_t i = 0; i < ARRAY_SIZE(features); i++)
        feature_list[i] = features[i];
    union {
        const char *in;
        char *out;
    } boot_id = {.in = podenv_boot_id(s->config.pod)};
    Casemate__Agent__V1__HelloReply reply = CASEMATE__AGENT__V1__HELLO_REPLY__INIT;
    reply.version = PROTOCOL_VERSION;
    reply.agent_version = (char[]){CASEMATE_VERSION};
    reply.kernel_release = uts.release;
    reply.boot_id = boot_id.out;
    reply.features = feature_list;
    reply.n_features = ARRAY_SIZE(features);
    reply.configured = podenv_is_configured(s->config.pod);
    reply.memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    reply.cpus = (uint32_t)get_nprocs();
    rpc_call_reply(call, &reply.base);
}

struct configuring {
    struct rpc_call *call;
    struct podenv *pod;
};

static void on_configured(void *arg, const struct err *err)
{
    struct configuring *c = arg;
    if (err != NULL) {
        rpc_call_fail(c->call, err);
    } else {
        Casemate__Agent__V1__ConfigurePodReply reply =
            CASEMATE__AGENT__V1__CONFIGURE_POD_REPLY__INIT;
        char boot_id[PODENV_BOOT_ID_SIZE];
        memcpy(boot_id, podenv_boot_id(c->pod), sizeof(boot_id));
        reply.boot_id = boot_id;
        rpc_call_reply(c->call, &reply.base);
    }
    free(c);
}

static void handle_configure_pod(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__ConfigurePodRequest *r = (const void *)rpc_call_request(call);
    struct err err;
    struct configuring *c = NULL;
    if (validate_configure(r, &err) < 0)
        goto fail;
    if (r->user_namespace != NULL && podenv_userns(s->config.pod) == NULL &&
        containers_count(s->config.containers) > 0) {
        (void)err_set(&err, ERR_BAD_STATE, "user_namespace: there are containers already");
        goto fail;
    }
    c = calloc(1, sizeof(*c));
    if (c == NULL) {
        (void)err_no_memory(&err);
        goto fail;
    }
    *c = (struct configuring){.call = call, .pod = s->config.pod};
    if (podenv_configure(s->config.pod, r, on_configured, c, &err) < 0)
        goto fail;
    return;
fail:
    free(c);
    rpc_call_fail(call, &err);
}

static void on_networked(void *arg, const struct err *err)
{
    struct rpc_call *call = arg;
    Casemate__Agent__V1__ConfigureNetworkReply reply =
        CASEMATE__AGENT__V1__CONFIGURE_NETWORK_REPLY__INIT;
    if (err != NULL)
        rpc_call_fail(call, err);
    else
        rpc_call_reply(call, &reply.base);
}

static int rehearse_network(struct podenv *pod, struct rpc_call *call,
                            const Casemate__Agent__V1__Network *network, struct err *err)
{
    if (podenv_rehearse_network(pod, network, err) < 0)
        return -1;
    on_networked(call, NULL);
    return 0;
}

static void handle_configure_network(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__ConfigureNetworkRequest *r = (const void *)rpc_call_request(call);
    struct podenv *pod = s->config.pod;
    struct err err;
    if (r->network == NULL)
        (void)err_set(&err, ERR_INVALID, "network is missing");
    else if (netvalid_check(r->network, &err) == 0 &&
             (r->rehearsal
                  ? rehearse_network(pod, call, r->network, &err)
                  : podenv_configure_network(pod, r->network, on_networked, call, &err)) == 0)
        return;
    rpc_call_fail(call, &err);
}

static void on_prepared(void *arg, const struct err *err)
{
    struct rpc_call *call = arg;
    Casemate__Agent__V1__PreparePodReply reply = CASEMATE__AGENT__V1__PREPARE_POD_REPLY__INIT;
    if (err != NULL)
        rpc_call_fail(call, err);
    else
        rpc_call_reply(call, &reply.base);
}

static void handle_prepare_pod(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__PreparePodRequest *r = (const void *)rpc_call_request(call);
    struct err err;
    if (validate_prepare(r, &err) < 0 ||
        podenv_prepare(s->config.pod, r->scratch, on_prepared, call, &err) < 0)
        rpc_call_fail(call, &err);
}

static void handle_shutdown(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    Casemate__Agent__V1__ShutdownReply reply = CASEMATE__AGENT__V1__SHUTDOWN_REPLY__INIT;
    rpc_call_reply(call, &reply.base);
    s->config.on_shutdown(s->config.arg);
}

/* ---- containers and processes
 * ------------------------------------------------------------------------------------------ */

struct failed_create {
    struct rpc_call *call;
    struct err err;
};

static void on_failed_create_removed(void *arg)
{
    struct failed_create *f = arg;
    rpc_call_fail(f->call, &f->err);
    free(f);
}

/* What could not be made is removed before the daemon hears of it, so that the id is free again. */
static bool fail_create(struct pending *p)
{
    const Casemate__Agent__V1__CreateContainerRequest *r = (const void *)rpc_call_request(p->call);
    struct failed_create *f = calloc(1, sizeof(*f));
    struct err err;
    if (f == NULL)
        return fail_with(p, NULL);
    f->call = p->call;
    if (p->process->failure != NULL)
        f->err = *p->process->failure;
    else
        (void)err_no_memory(&f->err);
    if (container_remove(p->service->config.containers, r->id, "", on_failed_create_removed, f,
                         &err) < 0) {
        free(f);
        return fail_with(p, &err);
    }
    return true;
}

static bool step_create(struct pending *p)
{
    if (p->process->state == PROCESS_PREPARING)
        return false;
    if (p->process->gone)
        return fail_gone(p);
    if (p->process->state == PROCESS_ENDED)
        return fail_create(p);
    Casemate__Agent__V1__CreateContainerReply reply =
        CASEMATE__AGENT__V1__CREATE_CONTAINER_REPLY__INIT;
    Casemate__Agent__V1__User user = CASEMATE__AGENT__V1__USER__INIT;
    reply.pid = (uint32_t)p->process->pid;
    if (p->process->user != NULL) {
        user.uid = p->process->user->uid;
        user.gid = p->process->user->gid;
        user.n_additional_gids = p->process->user->n_groups;
        user.additional_gids = p->process->user->groups;
        reply.user = &user;
    }
    rpc_call_reply(p->call, &reply.base);
    return true;
}

static void handle_create_container(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__CreateContainerRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_create(r, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    if (!podenv_is_configured(s->config.pod)) {
        rpc_call_finish(call, RPC_FAILED_PRECONDITION, "the pod is not configured yet");
        return;
    }
    if (container_create(s->config.containers, r, &process, &err) < 0) {
        (void)err_prefix(&err, "container %s", r->id);
        rpc_call_fail(call, &err);
        return;
    }
    pend(s, call, process, step_create, false);
}

static bool step_start(struct pending *p)
{
    const struct process *process = p->process;
    if (process->failed)
        return fail_with(p, process->failure);
    if (process->status.started_ns != 0) {
        Casemate__Agent__V1__StartContainerReply reply =
            CASEMATE__AGENT__V1__START_CONTAINER_REPLY__INIT;
        reply.started_ns = process->status.started_ns;
        rpc_call_reply(p->call, &reply.base);
        return true;
    }
    return process->gone ? fail_gone(p) : false;
}

static void handle_start_container(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__StartContainerRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_ids(r->id, "", &err) < 0 ||
        container_start(s->config.containers, r->id, &process, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    /* Asking again is fine: the answer is the same. */
    pend(s, call, process, step_start, false);
}

static bool step_exec(struct pending *p)
{
    const struct process *process = p->process;
    if (process->failed)
        return fail_with(p, process->failure);
    if (process->status.started_ns != 0) {
        Casemate__Agent__V1__ExecReply reply = CASEMATE__AGENT__V1__EXEC_REPLY__INIT;
        reply.pid = (uint32_t)process->pid;
        reply.started_ns = process->status.started_ns;
        rpc_call_reply(p->call, &reply.base);
        return true;
    }
    return process->gone ? fail_gone(p) : false;
}

static void handle_exec(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__ExecRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_exec(r, &err) < 0 ||
        container_exec(s->config.containers, r, false, &process, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    pend(s, call, process, step_exec, false);
}

static void handle_run(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    run_call_begin(call, s->config.containers);
}

static void handle_signal(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__SignalRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0)
        goto fail;
    if (r->signal == 0 || r->signal >= NSIG) {
        (void)err_set(&err, ERR_INVALID, "signal: %u is none", r->signal);
        goto fail;
    }
    if (r->all && r->exec_id[0] == '\0') {
        if (container_signal_all(s->config.containers, r->container_id, (int)r->signal, &err) < 0)
            goto fail;
    } else if (containers_find(s->config.containers, r->container_id, r->exec_id, &process, &err) <
                   0 ||
               process_signal(process, (int)r->signal, &err) < 0) {
        goto fail;
    }
    Casemate__Agent__V1__SignalReply reply = CASEMATE__AGENT__V1__SIGNAL_REPLY__INIT;
    rpc_call_reply(call, &reply.base);
    return;
fail:
    rpc_call_fail(call, &err);
}

static void fill_status(const struct process *p, Casemate__Agent__V1__ExitStatus *status)
{
    status->exit_code = p->status.exit_code;
    status->signal = (uint32_t)p->status.signal;
    status->oom_killed = p->status.oom_killed;
    status->started_ns = p->status.started_ns;
    status->finished_ns = p->status.finished_ns;
    status->stdout_end = p->out[0].ring.end;
    status->stderr_end = p->out[1].ring.end;
}

static bool step_wait(struct pending *p)
{
    if (!p->process->settled)
        return p->process->gone ? fail_gone(p) : false;
    Casemate__Agent__V1__ExitStatus status = CASEMATE__AGENT__V1__EXIT_STATUS__INIT;
    Casemate__Agent__V1__WaitReply reply = CASEMATE__AGENT__V1__WAIT_REPLY__INIT;
    fill_status(p->process, &status);
    reply.status = &status;
    rpc_call_reply(p->call, &reply.base);
    return true;
}

static void handle_wait(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__WaitRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0 ||
        containers_find(s->config.containers, r->container_id, r->exec_id, &process, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    pend(s, call, process, step_wait, true);
}

static void on_removed(void *arg)
{
    struct rpc_call *call = arg;
    Casemate__Agent__V1__RemoveReply reply = CASEMATE__AGENT__V1__REMOVE_REPLY__INIT;
    rpc_call_reply(call, &reply.base);
}

static void handle_remove(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__RemoveRequest *r = (const void *)rpc_call_request(call);
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0 ||
        container_remove(s->config.containers, r->container_id, r->exec_id, on_removed, call,
                         &err) < 0)
        rpc_call_fail(call, &err);
}

static void handle_update_resources(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__UpdateResourcesRequest *r = (const void *)rpc_call_request(call);
    struct err err;
    if (validate_ids(r->container_id, "", &err) < 0 || validate_resources(r->resources, &err) < 0 ||
        container_update(s->config.containers, r->container_id, r->resources, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    Casemate__Agent__V1__UpdateResourcesReply reply =
        CASEMATE__AGENT__V1__UPDATE_RESOURCES_REPLY__INIT;
    rpc_call_reply(call, &reply.base);
}

static void handle_stats(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    stats_call_answer(call, s->config.containers);
}

/* ---- List
 * ----------------------------------------------------------------------------------------------------------------
 */

struct listing {
    struct rpc_call *call;
    Casemate__Agent__V1__ProcessInfo **infos;
    size_t n;
    size_t capacity;
    bool failed;
};

static Casemate__Agent__V1__ProcessState wire_state(const struct process *p)
{
    switch (p->state) {
    case PROCESS_PREPARING:
    case PROCESS_HELD:
        return CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_CREATED;
    case PROCESS_STARTING:
    case PROCESS_RUNNING:
        return CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_RUNNING;
    case PROCESS_ENDED:
        break;
    }
    return CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_EXITED;
}

static void count_process(void *arg, const char *container_id, const char *exec_id,
                          struct process *process)
{
    size_t *n = arg;
    (void)container_id;
    (void)exec_id;
    (void)process;
    (*n)++;
}

static void list_process(void *arg, const char *container_id, const char *exec_id,
                         struct process *p)
{
    struct listing *l = arg;
    Casemate__Agent__V1__ProcessInfo *info = rpc_call_alloc(l->call, sizeof(*info));
    Casemate__Agent__V1__ExitStatus *status = rpc_call_alloc(l->call, sizeof(*status));
    if (info == NULL || status == NULL || l->n == l->capacity) {
        l->failed = true;
        return;
    }
    casemate__agent__v1__process_info__init(info);
    casemate__agent__v1__exit_status__init(status);
    info->container_id = rpc_call_strdup(l->call, container_id);
    info->exec_id = rpc_call_strdup(l->call, exec_id);
    info->state = wire_state(p);
    info->pid = p->state == PROCESS_ENDED ? 0 : (uint32_t)p->pid;
    info->stdout_acked = p->out[0].ring.start;
    info->stderr_acked = p->out[1].ring.start;
    fill_status(p, status);
    info->status = status;
    l->failed = l->failed || info->container_id == NULL || info->exec_id == NULL;
    l->infos[l->n++] = info;
}

static void handle_list(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    struct listing l = {.call = call};
    struct err err;
    containers_each(s->config.containers, count_process, &l.capacity);
    l.infos = rpc_call_alloc(call, (l.capacity + 1) * sizeof(struct listing *));
    if (l.infos != NULL)
        containers_each(s->config.containers, list_process, &l);
    if (l.infos == NULL || l.failed) {
        (void)err_no_memory(&err);
        rpc_call_fail(call, &err);
        return;
    }
    Casemate__Agent__V1__ListReply reply = CASEMATE__AGENT__V1__LIST_REPLY__INIT;
    reply.processes = l.infos;
    reply.n_processes = l.n;
    rpc_call_reply(call, &reply.base);
}

/* ---- output
 * --------------------------------------------------------------------------------------------------------------
 */

static bool send_chunk(struct pending *p, const struct ring_span *span, bool eof)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } data = {.in = span->data};
    struct err err;
    Casemate__Agent__V1__OutputChunk chunk = CASEMATE__AGENT__V1__OUTPUT_CHUNK__INIT;
    chunk.offset = span->offset;
    chunk.data = (ProtobufCBinaryData){.len = span->len, .data = data.out};
    chunk.time_ns = span->time_ns;
    chunk.eof = eof;
    return rpc_call_send(p->call, &chunk.base, &err) == 0;
}

static bool step_read(struct pending *p)
{
    const struct ring *ring = &p->process->out[p->stream].ring;
    struct ring_span span;
    if (p->offset < ring->start || p->offset > ring->end) {
        rpc_call_finish(p->call, RPC_OUT_OF_RANGE, "no output is kept at this offset");
        return true;
    }
    while (rpc_call_queued(p->call) < READ_QUEUE && ring_read(ring, p->offset, READ_CHUNK, &span)) {
        if (!send_chunk(p, &span, false))
            return false; /* nobody listens: on_cancel follows */
        p->offset += span.len;
    }
    if (p->offset < ring->end)
        return false;
    if (process_output_complete(p->process, p->stream)) {
        span = (struct ring_span){.offset = p->offset, .time_ns = p->process->status.finished_ns};
        (void)send_chunk(p, &span, true);
        rpc_call_finish(p->call, RPC_OK, "");
        return true;
    }
    return p->process->gone ? fail_gone(p) : false;
}

static void handle_read_output(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__ReadOutputRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct pending *p = NULL;
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0)
        goto fail;
    if (r->stream != CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDOUT &&
        r->stream != CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR) {
        (void)err_set(&err, ERR_INVALID, "stream: unknown value %d", (int)r->stream);
        goto fail;
    }
    if (containers_find(s->config.containers, r->container_id, r->exec_id, &process, &err) < 0)
        goto fail;
    p = calloc(1, sizeof(*p));
    if (p == NULL) {
        (void)err_no_memory(&err);
        goto fail;
    }
    p->service = s;
    p->call = call;
    p->process = process_ref(process);
    p->step = step_read;
    p->stream = r->stream == CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR ? 1 : 0;
    p->offset = r->offset;
    p->watch = (struct process_watch){.fn = on_change, .arg = p};
    process_watch(process, &p->watch);
    rpc_call_on_cancel(call, on_cancel, p);
    rpc_call_on_drain(call, READ_QUEUE / 2, on_change, p);
    on_change(p);
    return;
fail:
    rpc_call_fail(call, &err);
}

static void handle_ack_output(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__AckOutputRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0 ||
        containers_find(s->config.containers, r->container_id, r->exec_id, &process, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    process_ack(process, 0, r->stdout_offset);
    process_ack(process, 1, r->stderr_offset);
    Casemate__Agent__V1__AckOutputReply reply = CASEMATE__AGENT__V1__ACK_OUTPUT_REPLY__INIT;
    rpc_call_reply(call, &reply.base);
}

/* ---- stdin and terminal
 * ------------------------------------------------------------------------------------------------
 */

static bool step_write(struct pending *p)
{
    const Casemate__Agent__V1__WriteStdinRequest *r = (const void *)rpc_call_request(p->call);
    struct process *process = p->process;
    struct err err;
    if (process->gone)
        return fail_gone(p);
    if (process_write_stdin(process, r->offset, r->data.data, r->data.len, r->eof, &err) < 0)
        return fail_with(p, &err);
    if (r->data.len > 0 && process->stdin_offset <= r->offset)
        return false;
    Casemate__Agent__V1__WriteStdinReply reply = CASEMATE__AGENT__V1__WRITE_STDIN_REPLY__INIT;
    reply.offset = process->stdin_offset;
    rpc_call_reply(p->call, &reply.base);
    return true;
}

static void handle_write_stdin(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__WriteStdinRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0 ||
        containers_find(s->config.containers, r->container_id, r->exec_id, &process, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    pend(s, call, process, step_write, true);
}

static void handle_resize_tty(struct rpc_call *call, void *arg)
{
    struct service *s = arg;
    const Casemate__Agent__V1__ResizeTtyRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    if (validate_ids(r->container_id, r->exec_id, &err) < 0 ||
        validate_window(r->width, r->height, &err) < 0 ||
        containers_find(s->config.containers, r->container_id, r->exec_id, &process, &err) < 0 ||
        process_resize(process, (uint16_t)r->width, (uint16_t)r->height, &err) < 0) {
        rpc_call_fail(call, &err);
        return;
    }
    Casemate__Agent__V1__ResizeTtyReply reply = CASEMATE__AGENT__V1__RESIZE_TTY_REPLY__INIT;
    rpc_call_reply(call, &reply.base);
}

/* ---- the table
 * -----------------------------------------------------------------------------------------------------------
 */

static const struct rpc_method methods[] = {
    {.name = "Hello", .handler = handle_hello},
    {.name = "ConfigurePod", .handler = handle_configure_pod},
    {.name = "ConfigureNetwork", .handler = handle_configure_network},
    {.name = "PreparePod", .handler = handle_prepare_pod},
    {.name = "CreateContainer", .handler = handle_create_container},
    {.name = "StartContainer", .handler = handle_start_container},
    {.name = "Exec", .handler = handle_exec},
    {.name = "Run", .handler = handle_run},
    {.name = "Signal", .handler = handle_signal},
    {.name = "Wait", .handler = handle_wait},
    {.name = "Remove", .handler = handle_remove},
    {.name = "List", .handler = handle_list},
    {.name = "ReadOutput", .handler = handle_read_output},
    {.name = "AckOutput", .handler = handle_ack_output},
    {.name = "WriteStdin", .handler = handle_write_stdin},
    {.name = "ResizeTty", .handler = handle_resize_tty},
    {.name = "UpdateResources", .handler = handle_update_resources},
    {.name = "Stats", .handler = handle_stats},
    {.name = "Shutdown", .handler = handle_shutdown},
};

int service_new(const struct service_config *config, struct service **ret_service, struct err *err)
{
    struct service *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return err_no_memory(err);
    s->config = *config;
    s->description = (struct rpc_service){
        .name = "casemate.agent.v1.Agent",
        .descriptor = &casemate__agent__v1__agent__descriptor,
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .arg = s,
    };
    *ret_service = s;
    return 0;
}

void service_free(struct service *service)
{
    free(service);
}

const struct rpc_service *service_description(const struct service *service)
{
    return &service->description;
}
