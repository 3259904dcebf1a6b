/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the kernel's hand-over to a VM in which containers can be made: modules, a root that can be
 * pivoted away from, the kernel's file systems, cgroups, loopback, limits. Called once, by PID 1,
 * before there is a loop; may wait.
 */
#pragma once

#include "common/base/err.h"

struct network_card;

/* Does all of it. *ret_cgroup_base_fd is the caller's (see cgroup_make_base). */
int boot_prepare(int *ret_cgroup_base_fd, struct network_card *ret_card, struct err *err);
