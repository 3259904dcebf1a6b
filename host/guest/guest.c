/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One rpc_client per VM. A blocking call is rpc_client_call plus a check of
 * the reply; the checks are here and nowhere else, so that the rest of the host may believe what it
 * gets. The agent is the tenant's in the worst case: a reply that is well-formed protobuf can still
 * carry a negative length of life, a foreign id or an offset that goes backwards.
 *
 * A guest_call is a callback call with an owner: it lives until guest_call_free, whether the rpc
 * has ended (call->rpc is NULL then) or not. A callback may free its own call; `in_callback` keeps
 * the memory until the outermost frame has returned.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/rpc/client.h"
#include "host/guest/guest.h"
#include "host/guest/internal.h"

#define MAX_SIGNAL  64
#define MAX_MESSAGE (4u << 20) /* PROTOCOL.md, "Limits" */

/*
 * What a message of a guest may take decoded. Messages that callbacks get are decoded on the loop,
 * so every byte of it is time of all pods. The largest that are taken need less: one chunk of
 * output as large as a message, and GUEST_MAX_PROCESSES with their ids (2 MiB); a guest can make a
 * hundred bytes of two.
 */
#define MAX_ARENA (2u * MAX_MESSAGE)

struct guest {
    atomic_uint refs;
    atomic_bool closed; /* by guest_close: on_closed keeps quiet */
    struct guest_config config;
    struct rpc_client *client;
    struct guest_info info;
    unsigned features; /* bit n: enum guest_feature n */
};

enum call_kind { CALL_WAIT, CALL_OUTPUT, CALL_ACK };

struct guest_call {
    struct rpc_client_call *rpc; /* NULL once ended */
    enum call_kind kind;
    bool in_callback;
    bool freed; /* by its owner, inside a callback */
    bool answered;
    guest_exit_fn on_exit;
    struct guest_output output; /* its strings are not used after the start */
    void (*on_ack)(void *arg, const struct err *err);
    void *arg;
    uint64_t next_offset;
    bool saw_eof;
};

struct rpc_target guest_target(const char *method)
{
    return (struct rpc_target){
        .descriptor = &casemate__agent__v1__agent__descriptor,
        .method = method,
    };
}

/* Whether an error is not the agent's own answer, which speaks for itself. */
static bool is_about_the_call(const struct err *err)
{
    return err->code == ERR_UNAVAILABLE || err->code == ERR_DEADLINE || err->code == ERR_PROTOCOL ||
           err->code == ERR_CANCELLED;
}

/* One blocking call; an error that is about the call says which. */
static int call(struct guest *guest, const char *method, const void *request, int64_t deadline_ms,
                struct rpc_reply *ret_reply, struct err *err)
{
    struct rpc_target target = guest_target(method);

    if (rpc_client_call(guest->client, &target, request, deadline_ms, ret_reply, err) != 0)
        return err == NULL || !is_about_the_call(err) ? -1 : err_prefix(err, "agent %s", method);
    return 0;
}

/* For replies that say nothing. */
static int call_plain(struct guest *guest, const char *method, const void *request,
                      int64_t deadline_ms, struct err *err)
{
    struct rpc_reply reply = {0};

    if (call(guest, method, request, deadline_ms, &reply, err) != 0)
        return -1;
    rpc_reply_fini(&reply);
    return 0;
}

static char *unconst(const char *text)
{
    /* protobuf-c's structs have no const; requests are only read. */
    return (char *)(uintptr_t)text;
}

/* Copies an agent's short text; PROTOCOL when it is longer than we allow or holds control bytes. */
static int take_text(char *ret_text, size_t size, const char *text, const char *what,
                     struct err *err)
{
    size_t n = strlen(text);

    if (n >= size)
        return err_set(err, ERR_PROTOCOL, "agent: %s of %zu bytes", what, n);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return err_set(err, ERR_PROTOCOL, "agent: control byte in %s", what);
    }
    memcpy(ret_text, text, n + 1);
    return 0;
}

/* ---- optional parts of the protocol ---- */

static const char *const feature_names[] = {
    [GUEST_DEVICES] = "devices",
    [GUEST_SECCOMP] = "seccomp",
    [GUEST_OOM_SCORE] = "oom-score",
    [GUEST_STRICT_GROUPS] = "strict-groups",
    [GUEST_RUN] = "run",
    [GUEST_NETWORK] = "network",
    [GUEST_STATS] = "stats",
    [GUEST_UPDATE_RESOURCES] = "update-resources",
    [GUEST_PREPARE] = "prepare",
    [GUEST_CGROUP_CHECKS] = "cgroup-checks",
    [GUEST_USERNS] = "userns",
    [GUEST_REHEARSE] = "rehearse",
    [GUEST_SAME_CAPABILITIES] = "same-capabilities",
    [GUEST_IMAGE_VOLUMES] = "image-volumes",
};

static unsigned take_features(const Casemate__Agent__V1__HelloReply *reply)
{
    unsigned features = 0;

    for (size_t i = 0; i < reply->n_features; i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(feature_names); j++) {
            if (strcmp(reply->features[i], feature_names[j]) == 0)
                features |= 1u << j;
        }
    }
    return features;
}

static int hello(struct guest *guest, int64_t deadline_ms, struct err *err)
{
    Casemate__Agent__V1__HelloRequest request;
    const Casemate__Agent__V1__HelloReply *reply;
    struct guest_info *info = &guest->info;
    struct rpc_reply raw = {0};
    int result = -1;

    casemate__agent__v1__hello_request__init(&request);
    request.version_min = GUEST_VERSION_MIN;
    request.version_max = GUEST_VERSION_MAX;
    request.daemon_version = unconst(CASEMATE_VERSION);
    if (call(guest, "Hello", &request, deadline_ms, &raw, err) != 0)
        return -1;
    reply = (const Casemate__Agent__V1__HelloReply *)raw.message;
    if (reply->version < GUEST_VERSION_MIN || reply->version > GUEST_VERSION_MAX) {
        err_set(err, ERR_UNSUPPORTED, "agent speaks protocol %u, this daemon %d to %d",
                reply->version, GUEST_VERSION_MIN, GUEST_VERSION_MAX);
        goto out;
    }
    if (take_text(info->agent_version, sizeof(info->agent_version), reply->agent_version,
                  "agent_version", err) != 0 ||
        take_text(info->kernel_release, sizeof(info->kernel_release), reply->kernel_release,
                  "kernel_release", err) != 0 ||
        take_text(info->boot_id, sizeof(info->boot_id), reply->boot_id, "boot_id", err) != 0)
        goto out;
    info->version = reply->version;
    info->configured = reply->configured;
    info->memory_bytes = reply->memory_bytes;
    info->cpus = reply->cpus;
    guest->features = take_features(reply);
    info->checks_cgroups = (guest->features >> GUEST_CGROUP_CHECKS & 1) != 0;
    info->makes_volumes = (guest->features >> GUEST_IMAGE_VOLUMES & 1) != 0;
    result = 0;
out:
    rpc_reply_fini(&raw);
    return result;
}

static void on_client_closed(void *arg, const struct err *err)
{
    struct guest *guest = arg;

    if (!atomic_load(&guest->closed) && guest->config.on_closed != NULL)
        guest->config.on_closed(guest->config.on_closed_arg, err);
}

int guest_connect(const struct guest_config *config, int fd, int64_t deadline_ms,
                  struct guest **ret_guest, struct err *err)
{
    struct guest *guest = calloc(1, sizeof(*guest));
    struct rpc_client_config client = {
        .loop = config->loop,
        .limits = {.max_message_bytes = MAX_MESSAGE, .max_arena_bytes = MAX_ARENA},
        .authority = "agent",
        .on_closed = on_client_closed,
        .on_closed_arg = guest,
    };

    if (guest == NULL) {
        close(fd);
        return err_no_memory(err);
    }
    atomic_init(&guest->refs, 1);
    atomic_init(&guest->closed, true); /* until Hello was answered, failures are returned */
    guest->config = *config;
    if (rpc_client_new(&client, fd, &guest->client, err) != 0) {
        free(guest);
        return -1;
    }
    if (hello(guest, deadline_ms, err) != 0) {
        guest_unref(guest);
        return -1;
    }
    atomic_store(&guest->closed, false);
    *ret_guest = guest;
    return 0;
}

struct guest *guest_ref(struct guest *guest)
{
    atomic_fetch_add(&guest->refs, 1);
    return guest;
}

void guest_unref(struct guest *guest)
{
    if (guest == NULL || atomic_fetch_sub(&guest->refs, 1) != 1)
        return;
    rpc_client_free(guest->client);
    free(guest);
}

void guest_close(struct guest *guest)
{
    atomic_store(&guest->closed, true);
    rpc_client_close(guest->client);
}

const struct guest_info *guest_get_info(const struct guest *guest)
{
    return &guest->info;
}

struct rpc_client *guest_client(const struct guest *guest)
{
    return guest->client;
}

int guest_prepare_pod(struct guest *guest, const Casemate__Agent__V1__PreparePodRequest *request,
                      int64_t deadline_ms, struct err *err)
{
    struct rpc_reply raw = {0};

    if (guest_need_feature(guest, GUEST_PREPARE, err) != 0 ||
        call(guest, "PreparePod", request, deadline_ms, &raw, err) != 0)
        return -1;
    rpc_reply_fini(&raw);
    return 0;
}

int guest_configure_pod(struct guest *guest,
                        const Casemate__Agent__V1__ConfigurePodRequest *request,
                        int64_t deadline_ms, char ret_boot_id[GUEST_TEXT_SIZE], struct err *err)
{
    struct rpc_reply raw = {0};
    int result;

    if (request->network != NULL && guest_need_feature(guest, GUEST_NETWORK, err) != 0)
        return -1;
    if (request->user_namespace != NULL && guest_need_feature(guest, GUEST_USERNS, err) != 0)
        return -1;
    if (call(guest, "ConfigurePod", request, deadline_ms, &raw, err) != 0)
        return -1;
    result = take_text(ret_boot_id, GUEST_TEXT_SIZE,
                       ((const Casemate__Agent__V1__ConfigurePodReply *)raw.message)->boot_id,
                       "boot_id", err);
    rpc_reply_fini(&raw);
    return result;
}

static int call_network(struct guest *guest, const Casemate__Agent__V1__Network *network,
                        bool rehearsal, int64_t deadline_ms, struct err *err)
{
    Casemate__Agent__V1__ConfigureNetworkRequest request;
    union {
        const Casemate__Agent__V1__Network *in;
        Casemate__Agent__V1__Network *out;
    } arg = {.in = network};

    if (guest_need_feature(guest, GUEST_NETWORK, err) != 0 ||
        (rehearsal && guest_need_feature(guest, GUEST_REHEARSE, err) != 0))
        return -1;
    casemate__agent__v1__configure_network_request__init(&request);
    request.network = arg.out;
    request.rehearsal = rehearsal;
    return call_plain(guest, "ConfigureNetwork", &request, deadline_ms, err);
}

int guest_configure_network(struct guest *guest, const Casemate__Agent__V1__Network *network,
                            int64_t deadline_ms, struct err *err)
{
    return call_network(guest, network, false, deadline_ms, err);
}

int guest_rehearse_network(struct guest *guest, const Casemate__Agent__V1__Network *network,
                           int64_t deadline_ms, struct err *err)
{
    return call_network(guest, network, true, deadline_ms, err);
}

static bool has_feature(const struct guest *guest, enum guest_feature feature)
{
    return (guest->features >> feature & 1) != 0;
}

/* An agent skips a field that it does not know: what it would not do must not be asked of it. */
int guest_need_feature(const struct guest *guest, enum guest_feature feature, struct err *err)
{
    if (has_feature(guest, feature))
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "this pod's agent (release %s) does not know '%s': make the pod anew",
                   guest->info.agent_version, feature_names[feature]);
}

static int check_process(const struct guest *guest, const Casemate__Agent__V1__Process *process,
                         struct err *err)
{
    if (process->seccomp != NULL && guest_need_feature(guest, GUEST_SECCOMP, err) != 0)
        return -1;
    if (process->oom_score_adj != 0 && guest_need_feature(guest, GUEST_OOM_SCORE, err) != 0)
        return -1;
    if (process->user != NULL && process->user->strict_groups &&
        guest_need_feature(guest, GUEST_STRICT_GROUPS, err) != 0)
        return -1;
    return 0;
}

int guest_prepare_exec(const struct guest *guest, const Casemate__Agent__V1__ExecRequest *request,
                       struct guest_exec *ret_exec, struct err *err)
{
    if (check_process(guest, request->process, err) != 0)
        return -1;
    ret_exec->request = *request;
    ret_exec->process = *request->process;
    ret_exec->request.process = &ret_exec->process;
    /* CRI has no capabilities of an exec's own: who keeps the container's need not be told. */
    if (has_feature(guest, GUEST_SAME_CAPABILITIES)) {
        ret_exec->request.same_capabilities = true;
        ret_exec->process.capabilities = NULL;
    }
    return 0;
}

/* An older agent writes what the kernel then does not do. */
static int check_resources(const struct guest *guest,
                           const Casemate__Agent__V1__Resources *resources, struct err *err)
{
    for (size_t i = 0; resources != NULL && i < resources->n_cgroup; i++) {
        const char *file = resources->cgroup[i]->file;
        if ((text_has_prefix(file, "cpuset.") || text_has_prefix(file, "hugetlb.")) &&
            guest_need_feature(guest, GUEST_CGROUP_CHECKS, err) != 0)
            return err_prefix(err, "%s", file);
    }
    return 0;
}

static int take_user(const Casemate__Agent__V1__User *user, struct guest_user *ret_user,
                     struct err *err)
{
    struct guest_user taken = {.known = user != NULL};

    if (user != NULL) {
        if (user->n_additional_gids > GUEST_MAX_GROUPS)
            return err_set(err, ERR_PROTOCOL, "agent: a user with %zu groups",
                           user->n_additional_gids);
        taken.uid = user->uid;
        taken.gid = user->gid;
        taken.n_groups = user->n_additional_gids;
        for (size_t i = 0; i < taken.n_groups; i++)
            taken.groups[i] = user->additional_gids[i];
    }
    *ret_user = taken;
    return 0;
}

int guest_create_container(struct guest *guest,
                           const Casemate__Agent__V1__CreateContainerRequest *request,
                           int64_t deadline_ms, struct guest_user *ret_user, struct err *err)
{
    struct rpc_reply raw = {0};
    int result;

    if (check_process(guest, request->process, err) != 0)
        return -1;
    if (check_resources(guest, request->resources, err) != 0)
        return -1;
    if (request->n_volumes > 0 && guest_need_feature(guest, GUEST_IMAGE_VOLUMES, err) != 0)
        return -1;
    if (request->n_devices > 0 && guest_need_feature(guest, GUEST_DEVICES, err) != 0)
        return -1;
    if (call(guest, "CreateContainer", request, deadline_ms, &raw, err) != 0)
        return -1;
    result = take_user(((const Casemate__Agent__V1__CreateContainerReply *)raw.message)->user,
                       ret_user, err);
    rpc_reply_fini(&raw);
    return result;
}

int guest_start(struct guest *guest, const char *container_id, int64_t deadline_ms,
                int64_t *ret_started_ns, struct err *err)
{
    Casemate__Agent__V1__StartContainerRequest request;
    struct rpc_reply raw = {0};

    casemate__agent__v1__start_container_request__init(&request);
    request.id = unconst(container_id);
    if (call(guest, "StartContainer", &request, deadline_ms, &raw, err) != 0)
        return -1;
    *ret_started_ns = ((const Casemate__Agent__V1__StartContainerReply *)raw.message)->started_ns;
    rpc_reply_fini(&raw);
    return 0;
}

int guest_exec(struct guest *guest, const Casemate__Agent__V1__ExecRequest *request,
               int64_t deadline_ms, struct err *err)
{
    struct guest_exec exec;

    if (guest_prepare_exec(guest, request, &exec, err) != 0)
        return -1;
    return call_plain(guest, "Exec", &exec.request, deadline_ms, err);
}

int guest_signal(struct guest *guest, const struct guest_process *process, unsigned signo, bool all,
                 int64_t deadline_ms, struct err *err)
{
    Casemate__Agent__V1__SignalRequest request;

    casemate__agent__v1__signal_request__init(&request);
    request.container_id = unconst(process->container_id);
    request.exec_id = unconst(process->exec_id);
    request.signal = signo;
    request.all = all;
    return call_plain(guest, "Signal", &request, deadline_ms, err);
}

int guest_update_resources(struct guest *guest, const char *container_id,
                           const Casemate__Agent__V1__Resources *resources, int64_t deadline_ms,
                           struct err *err)
{
    Casemate__Agent__V1__UpdateResourcesRequest request;

    if (guest_need_feature(guest, GUEST_UPDATE_RESOURCES, err) != 0 ||
        check_resources(guest, resources, err) != 0)
        return -1;
    casemate__agent__v1__update_resources_request__init(&request);
    request.container_id = unconst(container_id);
    request.resources = (Casemate__Agent__V1__Resources *)(uintptr_t)resources;
    return call_plain(guest, "UpdateResources", &request, deadline_ms, err);
}

int guest_remove(struct guest *guest, const struct guest_process *process, int64_t deadline_ms,
                 struct err *err)
{
    Casemate__Agent__V1__RemoveRequest request;

    casemate__agent__v1__remove_request__init(&request);
    request.container_id = unconst(process->container_id);
    request.exec_id = unconst(process->exec_id);
    return call_plain(guest, "Remove", &request, deadline_ms, err);
}

int guest_take_exit(const Casemate__Agent__V1__ExitStatus *status, struct guest_exit *ret_exit,
                    struct err *err)
{
    if (status == NULL)
        return err_set(err, ERR_PROTOCOL, "agent: exit without a status");
    if (status->exit_code < 0 || status->exit_code > 255 || status->signal > MAX_SIGNAL)
        return err_set(err, ERR_PROTOCOL, "agent: exit code %d, signal %u", status->exit_code,
                       status->signal);
    *ret_exit = (struct guest_exit){
        .exit_code = status->exit_code,
        .signo = status->signal,
        .oom_killed = status->oom_killed,
        .started_ns = status->started_ns,
        .finished_ns = status->finished_ns,
        .stdout_end = status->stdout_end,
        .stderr_end = status->stderr_end,
    };
    return 0;
}

int guest_wait(struct guest *guest, const struct guest_process *process, int64_t deadline_ms,
               struct guest_exit *ret_exit, struct err *err)
{
    Casemate__Agent__V1__WaitRequest request;
    struct rpc_reply raw = {0};
    int result;

    casemate__agent__v1__wait_request__init(&request);
    request.container_id = unconst(process->container_id);
    request.exec_id = unconst(process->exec_id);
    if (call(guest, "Wait", &request, deadline_ms, &raw, err) != 0)
        return -1;
    result = guest_take_exit(((const Casemate__Agent__V1__WaitReply *)raw.message)->status,
                             ret_exit, err);
    rpc_reply_fini(&raw);
    return result;
}

static int take_process(const Casemate__Agent__V1__ProcessInfo *from, struct guest_process_info *to,
                        struct err *err)
{
    *to = (struct guest_process_info){
        .stdout_acked = from->stdout_acked,
        .stderr_acked = from->stderr_acked,
    };
    if (take_text(to->container_id, sizeof(to->container_id), from->container_id, "container id",
                  err) != 0 ||
        take_text(to->exec_id, sizeof(to->exec_id), from->exec_id, "exec id", err) != 0)
        return -1;
    switch (from->state) {
    case CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_CREATED:
        to->state = GUEST_CREATED;
        return 0;
    case CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_RUNNING:
        to->state = GUEST_RUNNING;
        return 0;
    case CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_EXITED:
        to->state = GUEST_EXITED;
        return guest_take_exit(from->status, &to->exit, err);
    default:
        return err_set(err, ERR_PROTOCOL, "agent: process state %d", (int)from->state);
    }
}

int guest_list(struct guest *guest, int64_t deadline_ms, struct guest_process_info **ret_items,
               size_t *ret_n, struct err *err)
{
    Casemate__Agent__V1__ListRequest request;
    const Casemate__Agent__V1__ListReply *reply;
    cleanup_free struct guest_process_info *items = NULL;
    struct rpc_reply raw = {0};
    int result = -1;

    casemate__agent__v1__list_request__init(&request);
    if (call(guest, "List", &request, deadline_ms, &raw, err) != 0)
        return -1;
    reply = (const Casemate__Agent__V1__ListReply *)raw.message;
    if (reply->n_processes > GUEST_MAX_PROCESSES) {
        err_set(err, ERR_PROTOCOL, "agent: a list of %zu processes", reply->n_processes);
        goto out;
    }
    items = calloc(reply->n_processes + 1, sizeof(*items));
    if (items == NULL) {
        err_no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < reply->n_processes; i++) {
        if (take_process(reply->processes[i], &items[i], err) != 0)
            goto out;
    }
    *ret_n = reply->n_processes;
    *ret_items = steal_ptr(&items);
    result = 0;
out:
    rpc_reply_fini(&raw);
    return result;
}

int guest_write_stdin(struct guest *guest, const struct guest_stdin *input, int64_t deadline_ms,
                      uint64_t *ret_offset, struct err *err)
{
    Casemate__Agent__V1__WriteStdinRequest request;
    struct rpc_reply raw = {0};
    uint64_t next;

    casemate__agent__v1__write_stdin_request__init(&request);
    request.container_id = unconst(input->process.container_id);
    request.exec_id = unconst(input->process.exec_id);
    request.offset = input->offset;
    request.data.data = (uint8_t *)(uintptr_t)input->bytes;
    request.data.len = input->n;
    request.eof = input->eof;
    if (call(guest, "WriteStdin", &request, deadline_ms, &raw, err) != 0)
        return -1;
    next = ((const Casemate__Agent__V1__WriteStdinReply *)raw.message)->offset;
    rpc_reply_fini(&raw);
    if (next < input->offset || next - input->offset > input->n)
        return err_set(err, ERR_PROTOCOL, "agent: took stdin up to %llu, was given %llu+%zu",
                       (unsigned long long)next, (unsigned long long)input->offset, input->n);
    *ret_offset = next;
    return 0;
}

int guest_shutdown(struct guest *guest, int64_t deadline_ms, struct err *err)
{
    Casemate__Agent__V1__ShutdownRequest request;

    casemate__agent__v1__shutdown_request__init(&request);
    return call_plain(guest, "Shutdown", &request, deadline_ms, err);
}

/* ---- calls with callbacks ---- */

void guest_call_free(struct guest_call *c)
{
    if (c == NULL)
        return;
    if (c->rpc != NULL)
        rpc_client_cancel(steal_ptr(&c->rpc));
    if (c->in_callback)
        c->freed = true;
    else
        free(c);
}

/* Tells the owner of an output stream that it has ended, at most once. */
static void output_ended(struct guest_call *c, const struct err *err)
{
    if (c->answered)
        return;
    c->answered = true;
    c->output.on_end(c->output.arg, err);
}

static int check_chunk(const struct guest_call *c, const Casemate__Agent__V1__OutputChunk *chunk,
                       struct err *err)
{
    if (c->saw_eof)
        return err_set(err, ERR_PROTOCOL, "agent: output after its end");
    if (chunk->data.len > GUEST_MAX_CHUNK)
        return err_set(err, ERR_PROTOCOL, "agent: %zu bytes of output at once", chunk->data.len);
    if (chunk->offset != c->next_offset)
        return err_set(err, ERR_PROTOCOL, "agent: output at %llu, expected %llu",
                       (unsigned long long)chunk->offset, (unsigned long long)c->next_offset);
    if (chunk->offset + chunk->data.len < chunk->offset)
        return err_set(err, ERR_PROTOCOL, "agent: output offset overflows");
    return 0;
}

static void on_output(struct guest_call *c, const Casemate__Agent__V1__OutputChunk *message)
{
    struct guest_chunk chunk;
    struct err err;

    if (c->answered)
        return;
    if (check_chunk(c, message, &err) != 0) {
        rpc_client_cancel(steal_ptr(&c->rpc));
        output_ended(c, &err);
        return;
    }
    chunk = (struct guest_chunk){
        .offset = message->offset,
        .bytes = message->data.data,
        .n = message->data.len,
        .time_ns = message->time_ns,
        .eof = message->eof,
    };
    c->next_offset += chunk.n;
    c->saw_eof = chunk.eof;
    c->output.on_chunk(c->output.arg, &chunk);
}

static void on_wait_reply(struct guest_call *c, const Casemate__Agent__V1__WaitReply *reply)
{
    struct guest_exit exit;
    struct err err;

    if (c->answered)
        return;
    c->answered = true;
    if (guest_take_exit(reply->status, &exit, &err) != 0)
        c->on_exit(c->arg, NULL, &err);
    else
        c->on_exit(c->arg, &exit, NULL);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
    struct guest_call *c = arg;

    c->in_callback = true;
    switch (c->kind) {
    case CALL_OUTPUT:
        on_output(c, (const Casemate__Agent__V1__OutputChunk *)message);
        break;
    case CALL_WAIT:
        on_wait_reply(c, (const Casemate__Agent__V1__WaitReply *)message);
        break;
    case CALL_ACK:
        break;
    }
    c->in_callback = false;
    if (c->freed)
        free(c);
}

/* What on_end means for the kind of call; an orderly end without an answer is a broken protocol. */
static void call_ended(struct guest_call *c, const struct err *err)
{
    struct err silent;

    if (err == NULL && !c->answered &&
        ((c->kind == CALL_OUTPUT && !c->saw_eof) || c->kind == CALL_WAIT)) {
        err_set(&silent, ERR_PROTOCOL, "agent: the stream ended without its end");
        err = &silent;
    }
    switch (c->kind) {
    case CALL_OUTPUT:
        output_ended(c, err);
        break;
    case CALL_WAIT:
        if (!c->answered) {
            c->answered = true;
            c->on_exit(c->arg, NULL, err);
        }
        break;
    case CALL_ACK:
        c->on_ack(c->arg, err);
        break;
    }
}

static void on_end(void *arg, const struct err *err)
{
    struct guest_call *c = arg;

    c->rpc = NULL;
    c->in_callback = true;
    call_ended(c, err);
    c->in_callback = false;
    if (c->freed)
        free(c);
}

/* Starts c (taken on failure) and hands it out. */
static int start_call(struct guest *guest, const char *method, const void *request,
                      int64_t deadline_ms, struct guest_call *c, struct guest_call **ret_call,
                      struct err *err)
{
    struct rpc_target target = guest_target(method);
    struct rpc_call_handlers handlers = {
        .on_message = on_message,
        .on_end = on_end,
        .arg = c,
    };

    if (rpc_client_start(guest->client, &target, request, deadline_ms, &handlers, &c->rpc, err) !=
        0) {
        free(c);
        return err_prefix(err, "agent %s", method);
    }
    *ret_call = c;
    return 0;
}

int guest_watch_exit(struct guest *guest, const struct guest_process *process, guest_exit_fn fn,
                     void *arg, struct guest_call **ret_call, struct err *err)
{
    Casemate__Agent__V1__WaitRequest request;
    struct guest_call *c = calloc(1, sizeof(*c));

    casemate__agent__v1__wait_request__init(&request);
    if (c == NULL)
        return err_no_memory(err);
    c->kind = CALL_WAIT;
    c->on_exit = fn;
    c->arg = arg;
    request.container_id = unconst(process->container_id);
    request.exec_id = unconst(process->exec_id);
    return start_call(guest, "Wait", &request, CLOCK_NO_DEADLINE, c, ret_call, err);
}

int guest_read_output(struct guest *guest, const struct guest_output *output,
                      struct guest_call **ret_call, struct err *err)
{
    Casemate__Agent__V1__ReadOutputRequest request;
    struct guest_call *c = calloc(1, sizeof(*c));

    casemate__agent__v1__read_output_request__init(&request);
    if (c == NULL)
        return err_no_memory(err);
    c->kind = CALL_OUTPUT;
    c->output = *output;
    c->next_offset = output->offset;
    request.container_id = unconst(output->process.container_id);
    request.exec_id = unconst(output->process.exec_id);
    request.stream = output->is_stderr ? CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR
                                       : CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDOUT;
    request.offset = output->offset;
    return start_call(guest, "ReadOutput", &request, CLOCK_NO_DEADLINE, c, ret_call, err);
}

void guest_call_pause(struct guest_call *c, bool paused)
{
    if (c->rpc != NULL)
        rpc_client_pause(c->rpc, paused);
}

int guest_ack_output(struct guest *guest, const struct guest_ack *ack, struct guest_call **ret_call,
                     struct err *err)
{
    Casemate__Agent__V1__AckOutputRequest request;
    struct guest_call *c = calloc(1, sizeof(*c));

    casemate__agent__v1__ack_output_request__init(&request);
    if (c == NULL)
        return err_no_memory(err);
    c->kind = CALL_ACK;
    c->on_ack = ack->fn;
    c->arg = ack->arg;
    request.container_id = unconst(ack->process.container_id);
    request.exec_id = unconst(ack->process.exec_id);
    request.stdout_offset = ack->stdout_offset;
    request.stderr_offset = ack->stderr_offset;
    return start_call(guest, "AckOutput", &request, CLOCK_NO_DEADLINE, c, ret_call, err);
}
