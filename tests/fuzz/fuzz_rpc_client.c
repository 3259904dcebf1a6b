/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server's bytes against a client with three calls in flight: what a hostile guest can say to
 * the daemon. The first byte, if not 0, makes allocations fail from 8 times that number on,
 * after the calls were begun. Every call ends exactly once.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/rpc/client.h"
#include "common/rpc/mem.h"
#include "proto/test/rpc_test.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;

struct seen {
    unsigned ends;
    unsigned messages;
};

static void require(int condition)
{
    if (!condition)
        abort();
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
    struct seen *seen = arg;
    require(message->descriptor != NULL && seen->ends == 0);
    seen->messages++;
}

static void on_end(void *arg, const struct err *err)
{
    struct seen *seen = arg;
    seen->ends++;
    require(err == NULL || (err->code != ERR_NONE && text_is_utf8(err->msg, strlen(err->msg))));
}

static void on_closed(void *arg, const struct err *err)
{
    require(err != NULL);
    *(int *)arg = 1;
}

static void begin(struct rpc_client *client, const char *method, const ProtobufCMessage *request,
                  struct seen *seen)
{
    struct rpc_target target = {&casemate__test__v1__rpc_test__descriptor, NULL, method};
    struct rpc_call_handlers handlers = {.on_message = on_message, .on_end = on_end, .arg = seen};
    struct rpc_client_call *call;
    struct err err;
    require(rpc_client_start(client, &target, request, CLOCK_NO_DEADLINE, &handlers, &call, &err) ==
            0);
}

static void play(int fd, const uint8_t *bytes, size_t n, const int *closed)
{
    static uint8_t drop[65536];
    struct err err;
    int shut = 0;
    for (unsigned rounds = 0; !*closed; rounds++) {
        require(rounds < 100000);
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
    Casemate__Test__V1__EchoRequest echo;
    Casemate__Test__V1__CountRequest count;
    struct seen seen[3] = {{0}};
    struct rpc_client *client;
    struct err err;
    int fds[2], closed = 0;
    if (size < 1)
        return 0;
    casemate__test__v1__echo_request__init(&echo);
    casemate__test__v1__count_request__init(&count);
    if (loop == NULL)
        require(loop_new(&loop, &err) == 0);
    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    struct rpc_client_config config = {
        .loop = loop,
        .limits = {.max_message_bytes = 1u << 20},
        .on_closed = on_closed,
        .on_closed_arg = &closed,
    };
    require(rpc_client_new(&config, fds[0], &client, &err) == 0);
    begin(client, "Echo", &echo.base, &seen[0]);
    begin(client, "Count", &count.base, &seen[1]);
    begin(client, "Chat", NULL, &seen[2]);
    require(loop_run_once(loop, 0, &err) == 0); /* the requests leave, as streams 1, 3 and 5 */
    require(loop_run_once(loop, 0, &err) == 0);
    rpc_mem_fail_from(data[0] * 8L);
    play(fds[1], data + 1, size - 1, &closed);
    rpc_mem_fail_from(0);
    rpc_client_free(client);
    close(fds[1]);
    for (size_t i = 0; i < 3; i++)
        require(seen[i].ends == 1);
    return 0;
}
