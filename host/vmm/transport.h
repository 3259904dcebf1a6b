/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a byte stream to the agent is had: a unix socket behind a virtio-serial port, or vsock. The
 * same protocol runs on both. Blocks with deadlines; any thread. Returned descriptors are the
 * caller's, blocking and close-on-exec.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/vmm/record.h"

#define TRANSPORT_AGENT_SOCKET "agent.sock" /* in the machine's folder */
#define TRANSPORT_VSOCK_PORT   1024U        /* where the agent listens (proto/agent/PROTOCOL.md) */

struct transport_target {
    enum vmm_transport kind; /* VSOCK or SERIAL */
    const char *dir;         /* SERIAL: the machine's folder */
    uint32_t cid;            /* VSOCK: the machine's context id */
};

/* Whether vsock machines can be made here: /dev/vhost-vsock and AF_VSOCK sockets exist. */
bool transport_vsock_available(void);

/* /dev/vhost-vsock, opened for one machine. */
int transport_open_vhost(int *ret_fd, struct err *err);

/* A context id for a new machine: random, since other programs take ids on this host too. Never one
 * of 0 to 1023. */
uint32_t transport_random_cid(void);

/*
 * Connects and runs the link handshake, trying again until the deadline while the guest is not up
 * yet. UNAVAILABLE as soon as abort_fd (-1: none) is readable.
 */
int transport_connect(const struct transport_target *target, int abort_fd, int64_t deadline_ms,
                      int *ret_fd, struct err *err);
