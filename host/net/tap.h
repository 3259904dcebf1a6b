/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tap devices in a pod's namespace: what a guest's network interface is on the host. Only this file
 * knows /dev/net/tun. A tap is there as long as somebody (QEMU) has a descriptor of it.
 * Descriptors are the caller's and close-on-exec. Thread-safe.
 */
#pragma once

#include "common/base/err.h"

/*
 * Makes a tap called name (1 to 15 bytes) in the namespace, down, for vm_nic: with IFF_NO_PI and
 * IFF_VNET_HDR; n descriptors of it, each a queue, with IFF_MULTI_QUEUE when there are several.
 * EXISTS when there is an interface of that name.
 */
int tap_open(int netns_fd, const char *name, unsigned n, int *ret_fds, struct err *err);
