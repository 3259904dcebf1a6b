/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices a container's processes may use: a BPF program on its cgroup (version 2 has no
 * files for that). Without it a process with CAP_MKNOD could open the disks of other containers.
 * One thread.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/*
 * Loads a program that allows what every container may (its standard devices, and to make nodes of
 * any kind without using them) and the devices given, found in the agent's /dev. *ret_fd is the
 * caller's. NOT_FOUND names a device that the VM has not.
 */
int devices_load(Casemate__Agent__V1__Device *const *devices, size_t n, int *ret_fd,
                 struct err *err);

/* Makes the program decide for the cgroup, from now on, along with those of its parents. */
int devices_attach(int program_fd, int cgroup_fd, struct err *err);
