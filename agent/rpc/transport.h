/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the host reaches the agent: the virtio-serial port named org.casemate.agent.0, and vsock port
 * 1024 of the VM where there is vsock. Each gives gRPC connections to one server. Only the host is
 * heard: on vsock a peer of any other CID (a container of this VM) is turned away. One thread.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"

struct loop;
struct rpc_server;
struct transport_port;
struct transport_vsock;

#define TRANSPORT_PORT_NAME  "org.casemate.agent.0"
#define TRANSPORT_VSOCK_PORT 1024u

/* Serves sessions on a port's descriptor (taken, also on failure), one after the other, for ever.
 */
int transport_serve_port(struct loop *loop, struct rpc_server *server, int fd,
                         struct transport_port **ret_port, struct err *err);
/* Closes the port. The session on it, if any, is the server's. NULL is fine. */
void transport_port_free(struct transport_port *port);

/* Opens the VM's port, if it is there (it may take a moment to appear, or not exist). NOT_FOUND
 * otherwise. */
int transport_open_port(int *ret_fd, struct err *err);

/*
 * Serves a connected stream (taken, also on failure) once the host has greeted on it, with the same
 * handshake as on the port: garbage before the greeting is dropped. A stream that ends before is
 * closed.
 */
int transport_greet(struct loop *loop, struct rpc_server *server, int fd, struct err *err);

/* Listens on vsock. UNSUPPORTED where the guest has none. */
int transport_serve_vsock(struct loop *loop, struct rpc_server *server,
                          struct transport_vsock **ret_vsock, struct err *err);
/* Stops listening. NULL is fine. */
void transport_vsock_free(struct transport_vsock *vsock);
