/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The converter's cage: what the process may still ask of the kernel while it parses a tenant's
 * bytes. Applies to every thread of the process and cannot be undone.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

/* Upper bound of the processor time of this process, in seconds; no core files; SIGXFSZ becomes
 * EFBIG. */
int confine_limits(uint64_t cpu_seconds, struct err *err);

/*
 * Installs the system call filter in all threads. Afterwards any call that is not on the list
 * (confine.c) kills the process; opening a file fails with EACCES. Needs no privilege (sets
 * no_new_privs).
 */
int confine_syscalls(struct err *err);
