/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest against an agent of another release: what the agent does not know is not asked of it, and
 * what it says about users is checked. And against one that says too much, or what is out of place.
 * The agent is a server on the other end of a socket pair that says what the test tells it to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/rpc/server.h"
#include "host/guest/guest.h"

#define DEADLINE_MS 10000

struct fixture {
    struct loop *loop;
    pthread_t thread;
    struct rpc_server *server;
    struct guest *guest;
    /* what the agent says */
    char *features[8];
    size_t n_features;
    size_t n_groups; /* of the user in a CreateContainerReply; SIZE_MAX: no user */
    unsigned asked;  /* calls that reached it, but for Hello */
    /* of the last Exec */
    bool same_capabilities;
    size_t n_bounding;
    /* of a ListReply; ids of n_id bytes */
    size_t n_processes;
    size_t n_id;
};

static void handle_hello(struct rpc_call *call, void *arg)
{
    struct fixture *f = arg;
    Casemate__Agent__V1__HelloReply reply = CASEMATE__AGENT__V1__HELLO_REPLY__INIT;
    char version[] = "0.0.9", text[] = "x";
    reply.version = 1;
    reply.agent_version = version;
    reply.kernel_release = reply.boot_id = text;
    reply.features = f->features;
    reply.n_features = f->n_features;
    rpc_call_reply(call, &reply.base);
}

static void handle_create(struct rpc_call *call, void *arg)
{
    static uint32_t groups[GUEST_MAX_GROUPS + 1] = {7, 8};
    struct fixture *f = arg;
    Casemate__Agent__V1__User user = CASEMATE__AGENT__V1__USER__INIT;
    Casemate__Agent__V1__CreateContainerReply reply =
        CASEMATE__AGENT__V1__CREATE_CONTAINER_REPLY__INIT;
    f->asked++;
    user.uid = 5;
    user.gid = 6;
    user.additional_gids = groups;
    user.n_additional_gids = f->n_groups;
    reply.user = f->n_groups == SIZE_MAX ? NULL : &user;
    rpc_call_reply(call, &reply.base);
}

static void handle_exec(struct rpc_call *call, void *arg)
{
    struct fixture *f = arg;
    const Casemate__Agent__V1__ExecRequest *r = (const void *)rpc_call_request(call);
    Casemate__Agent__V1__ExecReply reply = CASEMATE__AGENT__V1__EXEC_REPLY__INIT;
    f->asked++;
    f->same_capabilities = r->same_capabilities;
    f->n_bounding = r->process->capabilities == NULL ? 0 : r->process->capabilities->n_bounding;
    rpc_call_reply(call, &reply.base);
}

static void handle_list(struct rpc_call *call, void *arg)
{
    static char id[GUEST_ID_SIZE];
    struct fixture *f = arg;
    Casemate__Agent__V1__ListReply reply = CASEMATE__AGENT__V1__LIST_REPLY__INIT;
    Casemate__Agent__V1__ProcessInfo process = CASEMATE__AGENT__V1__PROCESS_INFO__INIT;
    Casemate__Agent__V1__ProcessInfo **processes = calloc(f->n_processes, sizeof(*processes));

    memset(id, 0, sizeof(id));
    memset(id, 'a', f->n_id);
    process.container_id = process.exec_id = id;
    process.state = CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_RUNNING;
    process.pid = f->n_id > 0 ? 7 : 0;
    for (size_t i = 0; i < f->n_processes; i++)
        processes[i] = &process;
    reply.processes = processes;
    reply.n_processes = f->n_processes;
    rpc_call_reply(call, &reply.base);
    free(processes);
}

/* What handle_run leaves open. */
static void on_run_cancelled(void *arg)
{
    struct rpc_call *call = arg;
    rpc_call_finish(call, RPC_CANCELLED, NULL);
}

/* Says what no agent would, and then nothing. */
static void handle_run(struct rpc_call *call, void *arg)
{
    Casemate__Agent__V1__RunEvent event = CASEMATE__AGENT__V1__RUN_EVENT__INIT;
    struct err err;

    (void)arg;
    event.stream = 77;
    rpc_call_on_cancel(call, on_run_cancelled, call);
    assert_int_equal(rpc_call_send(call, &event.base, &err), 0);
}

static const struct rpc_method methods[] = {
    {.name = "Hello", .handler = handle_hello},
    {.name = "CreateContainer", .handler = handle_create},
    {.name = "Exec", .handler = handle_exec},
    {.name = "List", .handler = handle_list},
    {.name = "Run", .handler = handle_run},
};

static void *run_loop(void *arg)
{
    struct fixture *f = arg;
    struct err err;
    (void)loop_run(f->loop, &err);
    return NULL;
}

static void tell_up(void *arg)
{
    int *fd = arg;
    assert_int_equal(write(*fd, "", 1), 1);
}

/* Before it is under way nobody is the loop's thread, and whoever calls would run it himself. */
static void start_loop(struct fixture *f)
{
    struct err err;
    char byte;
    int up[2];

    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    assert_int_equal(loop_post(f->loop, tell_up, &up[1], &err), 0);
    assert_int_equal(pthread_create(&f->thread, NULL, run_loop, f), 0);
    assert_int_equal(read(up[0], &byte, 1), 1);
    close(up[0]);
    close(up[1]);
}

/* Connects to an agent with these features, as words. */
static void connect_to(struct fixture *f, char *words)
{
    static struct rpc_service service;
    struct rpc_server_config server = {.services = &service, .n_services = 1};
    struct guest_config config = {0};
    char *save = NULL;
    struct err err;
    int pair[2];

    *f = (struct fixture){.n_groups = SIZE_MAX};
    for (char *word = strtok_r(words, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
        f->features[f->n_features++] = word;
    (void)signal(SIGPIPE, SIG_IGN);
    service = (struct rpc_service){
        .name = "casemate.agent.v1.Agent",
        .descriptor = &casemate__agent__v1__agent__descriptor,
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .arg = f,
    };
    assert_int_equal(loop_new(&f->loop, &err), 0);
    config.loop = server.loop = f->loop;
    assert_int_equal(rpc_server_new(&server, &f->server, &err), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(rpc_server_add_connection(f->server, pair[0], NULL, NULL, &err), 0);
    start_loop(f);
    if (guest_connect(&config, pair[1], clock_deadline(DEADLINE_MS), &f->guest, &err) != 0)
        fail_msg("%s", err.msg);
}

static void disconnect(struct fixture *f)
{
    guest_unref(f->guest);
    loop_stop(f->loop);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    rpc_server_free(f->server);
    loop_free(f->loop);
}

/* A request that asks for nothing special. */
struct request {
    Casemate__Agent__V1__CreateContainerRequest create;
    Casemate__Agent__V1__ExecRequest exec;
    Casemate__Agent__V1__Process process;
    Casemate__Agent__V1__User user;
    Casemate__Agent__V1__Capabilities capabilities;
    char *bounding[1];
    Casemate__Agent__V1__Seccomp seccomp;
    Casemate__Agent__V1__Device device;
    Casemate__Agent__V1__Device *devices[1];
    char *volumes[1];
};

static void request_init(struct request *r)
{
    static char name[] = "CHOWN", volume[] = "/data";
    casemate__agent__v1__create_container_request__init(&r->create);
    casemate__agent__v1__exec_request__init(&r->exec);
    casemate__agent__v1__process__init(&r->process);
    casemate__agent__v1__user__init(&r->user);
    casemate__agent__v1__seccomp__init(&r->seccomp);
    casemate__agent__v1__device__init(&r->device);
    r->devices[0] = &r->device;
    r->volumes[0] = volume;
    r->process.user = &r->user;
    casemate__agent__v1__capabilities__init(&r->capabilities);
    r->bounding[0] = name;
    r->capabilities.bounding = r->bounding;
    r->capabilities.n_bounding = 1;
    r->process.capabilities = &r->capabilities;
    r->create.process = r->exec.process = &r->process;
}

static int create(struct fixture *f, const struct request *r, struct guest_user *ret_user,
                  struct err *err)
{
    return guest_create_container(f->guest, &r->create, clock_deadline(DEADLINE_MS), ret_user, err);
}

static void old_agent(void **state)
{
    static const char *const names[] = {"seccomp", "oom-score", "strict-groups", "devices",
                                        "image-volumes"};
    char words[] = "stats";
    struct guest_user user;
    struct request r;
    struct fixture f;
    struct err err;

    (void)state;
    connect_to(&f, words);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        request_init(&r);
        if (i == 0)
            r.process.seccomp = &r.seccomp;
        r.process.oom_score_adj = i == 1 ? 5 : 0;
        r.user.strict_groups = i == 2;
        r.create.devices = r.devices;
        r.create.n_devices = i == 3 ? 1 : 0;
        r.create.volumes = r.volumes;
        r.create.n_volumes = i == 4 ? 1 : 0;
        assert_int_equal(create(&f, &r, &user, &err), -1);
        assert_int_equal(err.code, ERR_UNSUPPORTED);
        assert_non_null(strstr(err.msg, names[i]));
        assert_non_null(strstr(err.msg, "0.0.9"));
        if (i >= 3)
            continue; /* an exec has neither devices nor volumes */
        assert_int_equal(guest_exec(f.guest, &r.exec, clock_deadline(DEADLINE_MS), &err), -1);
        assert_int_equal(err.code, ERR_UNSUPPORTED);
    }
    assert_int_equal(f.asked, 0);
    assert_false(guest_get_info(f.guest)->makes_volumes);
    request_init(&r);
    assert_int_equal(create(&f, &r, &user, &err), 0);
    assert_false(user.known);
    assert_int_equal(guest_exec(f.guest, &r.exec, clock_deadline(DEADLINE_MS), &err), 0);
    assert_int_equal(f.asked, 2);
    assert_false(f.same_capabilities);
    assert_int_equal(f.n_bounding, 1);
    disconnect(&f);
}

static void own_agent(void **state)
{
    char words[] = "devices image-volumes oom-score same-capabilities seccomp something-new "
                   "strict-groups user";
    struct guest_user user;
    struct request r;
    struct fixture f;
    struct err err;

    (void)state;
    connect_to(&f, words);
    assert_true(guest_get_info(f.guest)->makes_volumes);
    request_init(&r);
    r.process.seccomp = &r.seccomp;
    r.process.oom_score_adj = -5;
    r.user.strict_groups = true;
    r.create.devices = r.devices;
    r.create.n_devices = 1;
    r.create.volumes = r.volumes;
    r.create.n_volumes = 1;
    f.n_groups = 2;
    assert_int_equal(create(&f, &r, &user, &err), 0);
    assert_true(user.known);
    assert_int_equal(user.uid, 5);
    assert_int_equal(user.gid, 6);
    assert_int_equal(user.n_groups, 2);
    assert_int_equal(user.groups[1], 8);
    f.n_groups = GUEST_MAX_GROUPS;
    assert_int_equal(create(&f, &r, &user, &err), 0);
    f.n_groups = GUEST_MAX_GROUPS + 1;
    assert_int_equal(create(&f, &r, &user, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_int_equal(guest_exec(f.guest, &r.exec, clock_deadline(DEADLINE_MS), &err), 0);
    assert_true(f.same_capabilities);
    assert_int_equal(f.n_bounding, 0);
    assert_non_null(r.process.capabilities); /* the caller's own is as it was */
    disconnect(&f);
}

static int list(struct fixture *f, size_t n_processes, size_t n_id, struct err *err)
{
    struct guest_process_info *items = NULL;
    size_t n = 0;

    f->n_processes = n_processes;
    f->n_id = n_id;
    if (guest_list(f->guest, clock_deadline(DEADLINE_MS), &items, &n, err) != 0)
        return -1;
    assert_int_equal(n, n_processes);
    free(items);
    return 0;
}

/* The longest list that there is comes; what is longer than a message, encoded or decoded, fails
 * alone. */
static void messages_have_a_limit(void **state)
{
    char words[] = "";
    struct fixture f;
    struct err err;

    (void)state;
    connect_to(&f, words);
    if (list(&f, GUEST_MAX_PROCESSES, GUEST_ID_SIZE - 1, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(list(&f, 40000, GUEST_ID_SIZE - 1, &err), -1); /* 5 MiB */
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(list(&f, 200000, 0, &err), -1); /* 14 MiB of memory out of 800 KB */
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(list(&f, 1, 1, &err), 0);
    disconnect(&f);
}

static void on_output(void *arg, bool is_stderr, const uint8_t *bytes, size_t n)
{
    (void)arg;
    (void)is_stderr;
    (void)bytes;
    (void)n;
}

static void a_broken_run_ends_at_once(void **state)
{
    char words[] = "run";
    struct guest_exit exit;
    struct request r;
    struct fixture f;
    struct err err;

    (void)state;
    connect_to(&f, words);
    request_init(&r);
    struct guest_run run = {.request = &r.exec, .on_output = on_output};
    int64_t deadline_ms = clock_deadline(DEADLINE_MS);
    assert_int_equal(guest_run(f.guest, &run, deadline_ms, &exit, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_non_null(strstr(err.msg, "out of place"));
    assert_true(clock_monotonic_ms() < deadline_ms - DEADLINE_MS / 2);
    disconnect(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_agent),
        cmocka_unit_test(own_agent),
        cmocka_unit_test(messages_have_a_limit),
        cmocka_unit_test(a_broken_run_ends_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
