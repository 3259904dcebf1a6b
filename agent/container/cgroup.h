/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's cgroup (version 2): limits, killing everything in it, what the OOM killer did. One
 * folder per container below a base folder; settings are files written as the daemon says. Files of
 * cgroupfs do not wait, except that lowering memory.max may reclaim. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* Cgroups that a container can have below its own: one below the other, and altogether. A node of
 * a cluster in a container needs ten and some hundreds. */
#define CGROUP_MAX_DEPTH       32u
#define CGROUP_MAX_DESCENDANTS 4096u

/*
 * Makes the base folder below a mounted cgroup2 and delegates every controller there is to its
 * children. *ret_base_fd is the caller's.
 */
int cgroup_make_base(const char *mount_point, const char *name, int *ret_base_fd, struct err *err);

/* Makes a container's cgroup and applies the settings (may be NULL; cgcheck_settings says what of
 * them is refused before anything is made). *ret_fd (a directory) is the
 * caller's. */
int cgroup_create(int base_fd, const char *id, const Casemate__Agent__V1__Resources *settings,
                  int *ret_fd, struct err *err);

/* Writes settings into a cgroup that has processes: BAD_STATE for a memory limit below what they
 * use, and what cgcheck_settings refuses. On failure nothing has changed (cgrevert_apply). */
int cgroup_update(int base_fd, int cgroup_fd, const Casemate__Agent__V1__Resources *settings,
                  struct err *err);

/*
 * Lets a user make cgroups below the container's and move processes between them: what cgroups(7),
 * "Delegating a hierarchy", says. Its limits stay the agent's.
 */
int cgroup_delegate(int cgroup_fd, uid_t uid, gid_t gid, struct err *err);

/*
 * The cgroup below container id's (whose folder is cgroup_fd) that the process is in: where another
 * one can be born when the container has divided its own, which then takes none. The caller's.
 */
int cgroup_open_of(int cgroup_fd, const char *id, pid_t pid, int *ret_fd, struct err *err);

/* Kills every process in it and below, also such as are just being forked. Failure is logged. */
void cgroup_kill(int cgroup_fd);

/* Sends a signal to every process in it (not below). Returns how many there were. */
size_t cgroup_signal(int cgroup_fd, int signo);

/* Whether any process is in it or below. */
bool cgroup_is_populated(int cgroup_fd);

/* How many processes in it the OOM killer has killed so far; 0 where memory is not accounted. */
uint64_t cgroup_oom_kills(int cgroup_fd);

/* Removes an empty container's cgroup and empty ones that it made inside. A missing one is fine. */
int cgroup_remove(int base_fd, const char *id, struct err *err);
