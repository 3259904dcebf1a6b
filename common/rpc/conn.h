/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session on a descriptor and a loop: reads, writes, timers, keepalive, the end of the
 * connection. Belongs to the loop's thread.
 */
#pragma once

#include "common/rpc/session.h"

struct loop;
struct rpc_conn;

struct rpc_conn_config {
    struct loop *loop;
    struct rpc_session_config
        session;       /* its on_pong must ignore tokens that its owner did not send */
    const void *first; /* bytes of the stream that were read already; copied, at most 64 KiB */
    size_t n_first;
    /*
     * Once, when the connection has ended; err says why, NULL: both sides were done. The owner
     * frees the conn, here or later. Never from inside another callback.
     */
    void (*on_closed)(void *arg, const struct err *err);
};

/* The descriptor is taken, also on failure. Nothing is called before the loop's next round. */
int rpc_conn_new(const struct rpc_conn_config *config, int fd, struct rpc_conn **ret_conn,
                 struct err *err);
/* Closes at once, without callbacks. Not from inside a session callback. NULL is fine. */
void rpc_conn_free(struct rpc_conn *conn);

/* NULL once the connection has ended. */
struct rpc_session *rpc_conn_session(struct rpc_conn *conn);

/* Writes what the session has to say. May call back, on_closed too, unless called from inside a
 * callback. */
void rpc_conn_flush(struct rpc_conn *conn);

/* Ends the connection: on_closed, now, or when the callback in progress has returned. */
void rpc_conn_close(struct rpc_conn *conn, const struct err *err);
