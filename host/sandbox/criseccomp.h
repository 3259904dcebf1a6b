/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From CRI's seccomp fields, the present and the older form, to a filter. Thread-safe.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "host/sandbox/sysfilter.h"
#include "proto/cri/cri.pb-c.h"

/* Whether the fields say something that there is. INVALID, with the field's path. */
int criseccomp_check(const Runtime__V1__LinuxContainerSecurityContext *security, struct err *err);

/*
 * The filter of a container with these capabilities; no bytes (and success) when it runs without
 * one: not asked for, Unconfined, or privileged. Reads the profile of Localhost from this host's
 * disk: NOT_FOUND, INVALID.
 */
int criseccomp_program(const Runtime__V1__LinuxContainerSecurityContext *security,
                       uint64_t capabilities, struct sysfilter_program *ret_program,
                       struct err *err);
