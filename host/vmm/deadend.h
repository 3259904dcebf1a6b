/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taps that lead nowhere, for machines without a network: so that the network interface which every
 * machine has offers the same offloads with and without one. They live in an empty network
 * namespace of the vmm's own. Any thread. Descriptors returned are the caller's and close-on-exec.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

struct vmm;

#define DEADEND_NAME_SIZE 16 /* bytes, NUL included */

/*
 * A tap with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, down, and its name there; n descriptors of it,
 * each a queue (IFF_MULTI_QUEUE when there are several). Needs CAP_NET_ADMIN, CAP_SYS_ADMIN.
 */
int deadend_open(struct vmm *vmm, uint32_t n, int *ret_fds, char ret_name[DEADEND_NAME_SIZE],
                 struct err *err);

/* Moves the tap called name to another namespace, where its name is new_name: now it may lead
 * somewhere. */
int deadend_move(struct vmm *vmm, const char *name, int netns_fd, const char *new_name,
                 struct err *err);
