/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link handshake, host side: makes a fresh byte stream out of a channel that may still carry
 * bytes of an earlier connection. The text of the handshake is in the .c file. Blocks; any thread.
 * Owns nothing.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define LINK_NONCE_DIGITS  32
#define LINK_PREAMBLE      "CASEMATE-LINK/1 "  /* + nonce + "\n" */
#define LINK_ECHO          "CASEMATE-AGENT/1 " /* + nonce + "\n" */
#define LINK_PREAMBLE_SIZE (sizeof(LINK_PREAMBLE) - 1 + LINK_NONCE_DIGITS + 1)
#define LINK_ECHO_SIZE     (sizeof(LINK_ECHO) - 1 + LINK_NONCE_DIGITS + 1)
#define LINK_REPEAT_MS     100
#define LINK_DISCARD_MAX                                                                           \
    (64 * 1024 * 1024) /* stale bytes, at most what a guest's ring can have left in flight */

/*
 * Runs the handshake on a connected stream socket. Success: the next byte that is read was sent
 * after the agent's echo. abort_fd (-1: none) becomes readable when there is no point in waiting:
 * UNAVAILABLE, as for a hang-up; PROTOCOL when too much was discarded; DEADLINE.
 */
int link_handshake(int socket_fd, int abort_fd, int64_t deadline_ms, struct err *err);
