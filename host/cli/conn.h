/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the daemon: only this file knows that it is gRPC on a unix socket. A connection
 * has an event loop of its own that runs on the calling thread whenever something is waited for, so
 * that signals and timers that a command adds to it are served meanwhile. Times in milliseconds.
 */
#pragma once

#include <stdbool.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "common/rpc/client.h"
#include "proto/control/control.pb-c.h"
#include "proto/cri/cri.pb-c.h"

enum cli_service { CLI_RUNTIME, CLI_IMAGE, CLI_CONTROL };

struct cli_conn;

/* Connects to the daemon's socket (copied). The error says what to do when nobody is there. */
int cli_conn_open(const char *socket_path, struct cli_conn **ret_conn, struct err *err);
/* Closes it. NULL is fine. */
void cli_conn_free(struct cli_conn *conn);
DEFINE_CLEANUP(cli_conn, struct cli_conn, cli_conn_free)
#define cleanup_cli_conn CLEANUP(cli_conn_cleanup_)

/* The loop, for signals and timers. */
struct loop *cli_conn_loop(struct cli_conn *conn);

/* One unary call. Release the reply with rpc_reply_fini. */
int cli_conn_call(struct cli_conn *conn, enum cli_service service, const char *method,
                  const ProtobufCMessage *request, int64_t timeout_ms, struct rpc_reply *ret_reply,
                  struct err *err);

/* A unary call whose reply says nothing. */
int cli_conn_tell(struct cli_conn *conn, enum cli_service service, const char *method,
                  const ProtobufCMessage *request, int64_t timeout_ms, struct err *err);

/*
 * cli_conn_call for a call that may be repeated: when the connection is lost (the daemon restarts,
 * containers run on), connects again for up to retry_ms and asks again.
 */
int cli_conn_call_again(struct cli_conn *conn, enum cli_service service, const char *method,
                        const ProtobufCMessage *request, int64_t retry_ms,
                        struct rpc_reply *ret_reply, struct err *err);

/*
 * A call without a reply of interest that runs while the loop does. At most one at a time: a newer
 * one takes the older one's place (which the daemon finishes or not, as it likes).
 */
int cli_conn_start(struct cli_conn *conn, enum cli_service service, const char *method,
                   const ProtobufCMessage *request, int64_t timeout_ms, struct err *err);

/* Whether what cli_conn_start began has not ended yet. */
bool cli_conn_busy(const struct cli_conn *conn);

/* A call that answers with many messages: each is given to on_message. */
struct cli_stream {
    enum cli_service service;
    const char *method;
    const ProtobufCMessage *request;
    void (*on_message)(void *arg, const ProtobufCMessage *message);
    void *arg;
    const bool *stop; /* may be NULL; once true the call is given up with CANCELLED */
};
/*
 * Returns when the stream has ended in order, or the status that it ended with, or CANCELLED. Runs
 * the loop meanwhile; on_message is called from it, and its message is valid during the call only.
 */
int cli_conn_stream(struct cli_conn *conn, const struct cli_stream *stream, struct err *err);
