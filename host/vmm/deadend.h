/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taps that lead nowhere, for machines without a network: so that the network interface which every
 * machine has offers the same offloads with and without one. They live in an empty network
 * namespace of the vmm's own. Any thread. Descriptors returned are the caller's and close-on-exec.
 */
#pragma once

#include "common/base/err.h"

struct vmm;

/* A tap with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, down. Needs CAP_NET_ADMIN, CAP_SYS_ADMIN. */
int deadend_open(struct vmm *vmm, int *ret_fd, struct err *err);
