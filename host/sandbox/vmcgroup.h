/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM's place in the host's cgroups: a child of the pod's cgroup_parent in each hierarchy that
 * matters (v1: memory, cpu, pids; v2: the one), made here and removed here. Blocking, thread-safe.
 * Paths absolute.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "common/base/err.h"

/*
 * Makes <parent>/casemate-<name>, and parent where it is missing. *ret_dirs: the directories (heap,
 * each heap), *ret_n of them, at least one. INVALID for a parent that is not a plain path;
 * UNSUPPORTED where there is no hierarchy.
 */
int vmcgroup_make(const char *parent, const char *name, char ***ret_dirs, size_t *ret_n,
                  struct err *err);

/* Moves a process that runs already into all of them. */
int vmcgroup_enter(char *const *dirs, size_t n, pid_t pid, struct err *err);

/* Removes them; what is gone is fine, what is in use is logged. */
void vmcgroup_remove(char *const *dirs, size_t n);
