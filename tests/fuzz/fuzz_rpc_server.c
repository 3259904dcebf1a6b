/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's bytes against a whole server of the test service. The first byte's lowest bit asks
 * for the HTTP/2 preface and SETTINGS to be put in front; the second, if not 0, makes
 * allocations fail from 8 times that number on. The rest is what the client sends before it
 * closes. Whatever it was, the connection ends, and every call with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "common/rpc/mem.h"
#include "common/rpc/server.h"
#include "proto/test/rpc_test.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct rpc_server *server;
static unsigned live; /* calls that handlers own */

static void require(int condition)
{
    if (!condition)
        abort();
}

static void on_echo(struct rpc_call *call, void *arg)
{
    const Casemate__Test__V1__EchoRequest *request = (const void *)rpc_call_request(call);
    Casemate__Test__V1__EchoReply reply;
    (void)arg;
    casemate__test__v1__echo_reply__init(&reply);
    reply.text = request->text;
    reply.data = request->data;
    reply.n_words = request->n_words;
    reply.words = request->words;
    rpc_call_reply(call, &reply.base);
}

static void on_count(struct rpc_call *call, void *arg)
{
    const Casemate__Test__V1__CountRequest *request = (const void *)rpc_call_request(call);
    static uint8_t zeros[1000];
    struct err err;
    (void)arg;
    for (uint32_t i = 0; i < request->messages % 200; i++) {
        Casemate__Test__V1__CountReply reply = CASEMATE__TEST__V1__COUNT_REPLY__INIT;
        reply.data = (ProtobufCBinaryData){request->bytes_each % sizeof(zeros), zeros};
        if (rpc_call_send(call, &reply.base, &err) < 0)
            break;
    }
    rpc_call_finish(call, RPC_OK, "counted");
}

static void gone(void *arg)
{
    live--;
    rpc_call_finish(arg, RPC_CANCELLED, NULL);
}

/* Chat: every message is answered, and the call stays open until the client's end or its loss. */
static void on_chat_message(void *arg, struct rpc_call *call, const ProtobufCMessage *message)
{
    Casemate__Test__V1__EchoReply reply;
    struct err err;
    (void)arg;
    casemate__test__v1__echo_reply__init(&reply);
    if (message == NULL) {
        live--;
        rpc_call_fail(call, &(struct err){.code = ERR_EXISTS, .msg = "that was all"});
        return;
    }
    (void)rpc_call_send(call, &reply.base, &err);
}

static void on_chat(struct rpc_call *call, void *arg)
{
    (void)arg;
    live++;
    rpc_call_on_cancel(call, gone, call);
    rpc_call_on_message(call, on_chat_message, NULL);
}

static void start(void)
{
    static const struct rpc_method methods[] = {
        {.name = "Echo", .handler = on_echo},
        {.name = "Count", .handler = on_count},
        {.name = "Chat", .handler = on_chat, .client_streaming = true},
    };
    static struct rpc_service service = {"casemate.test.v1.RpcTest", NULL, methods, 3, NULL};
    struct err err;
    service.descriptor = &casemate__test__v1__rpc_test__descriptor;
    log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
    require(loop_new(&loop, &err) == 0);
    struct rpc_server_config config = {
        .loop = loop,
        .services = &service,
        .n_services = 1,
        .limits = {.max_message_bytes = 1u << 20, .max_streams = 16},
    };
    require(rpc_server_new(&config, &server, &err) == 0);
}

static void on_closed(void *arg)
{
    *(int *)arg = 1;
}

/* Sends all, reading and dropping what comes back; then the end. */
static void play(int fd, const uint8_t *bytes, size_t n, const int *closed)
{
    static uint8_t drop[65536];
    struct err err;
    int shut = 0;
    for (unsigned rounds = 0; !*closed; rounds++) {
        require(rounds < 100000); /* each round makes progress, or the server hangs */
        if (n > 0) {
            ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent < 0 && errno != EAGAIN)
                n = 0;
            if (sent > 0) {
                bytes += sent;
                n -= (size_t)sent;
            }
        } else if (!shut) {
            shut = 1;
            (void)shutdown(fd, SHUT_WR);
        }
        require(loop_run_once(loop, 0, &err) == 0);
        while (recv(fd, drop, sizeof(drop), MSG_DONTWAIT) > 0)
            ;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t opening[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    uint8_t all[sizeof(opening) + 65536];
    struct err err;
    int fds[2], closed = 0;
    size_t n = 0;
    if (size < 2 || size > 65536)
        return 0;
    if (loop == NULL)
        start();
    if ((data[0] & 1) != 0) {
        n = sizeof(opening) - 1;
        memcpy(all, opening, n);
    }
    memcpy(all + n, data + 2, size - 2);
    n += size - 2;
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    rpc_mem_fail_from(data[1] * 8L);
    if (rpc_server_add_connection(server, fds[0], on_closed, &closed, &err) == 0)
        play(fds[1], all, n, &closed);
    rpc_mem_fail_from(0);
    close(fds[1]);
    require(loop_run_once(loop, 0, &err) == 0); /* what the last calls posted */
    require(loop_run_once(loop, 0, &err) == 0);
    require(live == 0);
    return 0;
}
