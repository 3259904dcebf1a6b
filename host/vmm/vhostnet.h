/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-net: the host's kernel moves a machine's packets between its memory and its tap, without
 * QEMU. Only this file knows the device. Descriptors are the caller's and close-on-exec. Any
 * thread.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"

#define VHOSTNET_DEVICE "/dev/vhost-net"

/* Whether the device can be used here: it opens and speaks vhost-net. false: *err says why not. */
bool vhostnet_usable(const char *device, struct err *err);

/* Opens the device n times, once for each queue of an interface. After a failure none is open. */
int vhostnet_open(const char *device, unsigned n, int *ret_fds, struct err *err);
