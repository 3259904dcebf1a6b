/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in a container's /dev: the nodes and links that every container has, devices of the VM
 * that it was given, or all of them. Whether they can be used is for the device filter to say. For
 * the child that builds the root.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* Makes the standard nodes and links in the empty /dev that dev_fd names. */
int devnodes_make_standard(int dev_fd, struct err *err);

/* Makes the devices given, as they are below the VM's /dev, which vm_dev_fd names. */
int devnodes_make(int dev_fd, int vm_dev_fd, Casemate__Agent__V1__Device *const *devices, size_t n,
                  struct err *err);

/* Makes every node of the VM's /dev that the container's does not have yet. */
int devnodes_make_all(int dev_fd, int vm_dev_fd, struct err *err);
