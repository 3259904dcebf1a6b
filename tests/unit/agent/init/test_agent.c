/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole agent over a socket pair, on the host: what it answers before it is configured, and a
 * peer that sends random bytes and random messages. Made to run under ASan: the agent must survive
 * everything. ConfigurePod never gets that far: it would set this machine's clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/init/agent.h"
#include "common/base/clock.h"
#include "common/loop/loop.h"
#include "common/rpc/client.h"
#include "common/rpc/server.h"
#include "proto/agent/agent.pb-c.h"
#include "tests/fakes/random_message.h"

#define DEADLINE_MS 10000

struct fixture {
    struct agent *agent;
    struct rpc_client *client;
    unsigned shutdowns;
};

static void on_shutdown(void *arg)
{
    struct fixture *f = arg;
    f->shutdowns++;
}

static struct rpc_client *connect_client(struct fixture *f)
{
    int pair[2];
    struct err err;
    struct rpc_client *client = NULL;
    struct rpc_client_config config = {.loop = agent_loop(f->agent)};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(rpc_server_add_connection(agent_server(f->agent), pair[0], NULL, NULL, &err),
                     0);
    assert_int_equal(rpc_client_new(&config, pair[1], &client, &err), 0);
    return client;
}

static int setup(void **state)
{
    static struct fixture f;
    struct agent_config config = {.cgroup_base_fd = -1, .on_shutdown = on_shutdown, .arg = &f};
    struct err err;
    f = (struct fixture){.agent = NULL};
    (void)signal(SIGPIPE, SIG_IGN);
    *state = &f;
    if (agent_new(&config, &f.agent, &err) < 0)
        return -1;
    f.client = connect_client(&f);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    rpc_client_free(f->client);
    agent_free(f->agent);
    return 0;
}

static struct rpc_target target(const char *method)
{
    return (struct rpc_target){
        .descriptor = &casemate__agent__v1__agent__descriptor,
        .service = "casemate.agent.v1.Agent",
        .method = method,
    };
}

static enum err_code call(struct rpc_client *client, const char *method,
                          const ProtobufCMessage *request)
{
    struct rpc_reply reply = {0};
    struct rpc_target t = target(method);
    struct err err = {.code = ERR_NONE};
    int rc = rpc_client_call(client, &t, request, clock_deadline(DEADLINE_MS), &reply, &err);
    rpc_reply_fini(&reply);
    return rc == 0 ? ERR_NONE : err.code;
}

static void test_unconfigured(void **state)
{
    struct fixture *f = *state;
    char c[] = "c";
    Casemate__Agent__V1__HelloRequest hello = CASEMATE__AGENT__V1__HELLO_REQUEST__INIT;
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    Casemate__Agent__V1__RemoveRequest remove = CASEMATE__AGENT__V1__REMOVE_REQUEST__INIT;
    Casemate__Agent__V1__WaitRequest wait = CASEMATE__AGENT__V1__WAIT_REQUEST__INIT;
    Casemate__Agent__V1__SignalRequest signal_ = CASEMATE__AGENT__V1__SIGNAL_REQUEST__INIT;
    Casemate__Agent__V1__CreateContainerRequest create =
        CASEMATE__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    Casemate__Agent__V1__ConfigurePodRequest configure =
        CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    assert_int_equal(call(f->client, "Hello", &hello.base), ERR_BAD_STATE); /* versions 0 to 0 */
    hello.version_max = 9;
    assert_int_equal(call(f->client, "Hello", &hello.base), ERR_NONE);
    assert_int_equal(call(f->client, "List", &list.base), ERR_NONE);
    assert_int_equal(call(f->client, "CreateContainer", &create.base), ERR_INVALID);
    assert_int_equal(call(f->client, "ConfigurePod", &configure.base), ERR_INVALID);
    assert_int_equal(call(f->client, "Wait", &wait.base), ERR_INVALID);
    wait.container_id = c;
    assert_int_equal(call(f->client, "Wait", &wait.base), ERR_NOT_FOUND);
    remove.container_id = c;
    assert_int_equal(call(f->client, "Remove", &remove.base), ERR_NONE);
    remove.exec_id = c;
    assert_int_equal(call(f->client, "Remove", &remove.base), ERR_NONE);
    signal_.container_id = c;
    assert_int_equal(call(f->client, "Signal", &signal_.base), ERR_INVALID);
    signal_.signal = 9;
    signal_.all = true;
    assert_int_equal(call(f->client, "Signal", &signal_.base), ERR_NOT_FOUND);
}

static void test_shutdown(void **state)
{
    struct fixture *f = *state;
    Casemate__Agent__V1__ShutdownRequest shutdown_ = CASEMATE__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    struct err err;
    assert_int_equal(call(f->client, "Shutdown", &shutdown_.base), ERR_NONE);
    int64_t deadline = clock_deadline(DEADLINE_MS);
    while (f->shutdowns == 0) {
        assert_int_not_equal(clock_poll_timeout(deadline), 0);
        assert_int_equal(loop_run_once(agent_loop(f->agent), 100, &err), 0);
    }
}

/* ---- random bytes
 * ---------------------------------------------------------------------------------------------------
 */

static void test_garbage(void **state)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    struct fixture *f = *state;
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    struct err err;
    for (int round = 0; round < 200; round++) {
        int pair[2];
        uint8_t bytes[600];
        size_t n = 0;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        if (rpc_server_add_connection(agent_server(f->agent), pair[0], NULL, NULL, &err) < 0) {
            assert_int_equal(err.code, ERR_EXHAUSTED);
            (void)close(pair[1]);
            assert_int_equal(loop_run_once(agent_loop(f->agent), 0, &err), 0);
            continue;
        }
        if (round % 2 == 0) {
            memcpy(bytes, preface, sizeof(preface));
            n = sizeof(preface);
            bytes[n++] = 0; /* frames with a plausible header */
            bytes[n++] = 0;
            bytes[n++] = (uint8_t)random_below(200);
            bytes[n++] = (uint8_t)random_below(10);
            bytes[n++] = (uint8_t)random_below(256);
            memset(bytes + n, 0, 3);
            n += 3;
            bytes[n++] = (uint8_t)random_below(4);
        }
        while (n < sizeof(bytes))
            bytes[n++] = (uint8_t)random_below(256);
        (void)send(pair[1], bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        for (int i = 0; i < 3; i++)
            assert_int_equal(loop_run_once(agent_loop(f->agent), 0, &err), 0);
        (void)close(pair[1]);
        for (int i = 0; i < 3; i++)
            assert_int_equal(loop_run_once(agent_loop(f->agent), 0, &err), 0);
    }
    assert_int_equal(call(f->client, "List", &list.base), ERR_NONE);
}

/* ---- random messages
 * -------------------------------------------------------------------------------------------------
 */

struct fired {
    bool ended;
};

static void on_message(void *arg, const ProtobufCMessage *message)
{
    (void)arg;
    (void)message;
}

static void on_end(void *arg, const struct err *err)
{
    struct fired *f = arg;
    (void)err;
    f->ended = true;
}

static void fire(struct fixture *f, const char *method, const ProtobufCMessage *request)
{
    struct fired fired = {0};
    struct rpc_call_handlers handlers = {.on_message = on_message, .on_end = on_end, .arg = &fired};
    struct rpc_client_call *started;
    struct rpc_target t = target(method);
    struct err err;
    if (rpc_client_start(f->client, &t, request, clock_deadline(DEADLINE_MS), &handlers, &started,
                         &err) < 0)
        return;
    for (uint32_t i = random_below(6); i > 0 && !fired.ended; i--)
        assert_int_equal(loop_run_once(agent_loop(f->agent), 0, &err), 0);
    if (!fired.ended)
        rpc_client_cancel(started);
}

static void test_random_messages(void **state)
{
    struct fixture *f = *state;
    const ProtobufCServiceDescriptor *d = &casemate__agent__v1__agent__descriptor;
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    for (int round = 0; round < 3000; round++) {
        const ProtobufCMethodDescriptor *m = &d->methods[random_below(d->n_methods)];
        ProtobufCMessage *request = random_message(m->input);
        if (strcmp(m->name, "ConfigurePod") == 0)
            ((Casemate__Agent__V1__ConfigurePodRequest *)(void *)request)->realtime_ns = 0;
        if (strcmp(m->name, "ConfigureNetwork") != 0)
            fire(f, m->name, request);
        protobuf_c_message_free_unpacked(request, NULL);
    }
    assert_int_equal(call(f->client, "List", &list.base), ERR_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unconfigured, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shutdown, setup, teardown),
        cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_messages, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
