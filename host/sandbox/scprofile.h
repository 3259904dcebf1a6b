/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp profiles as JSON (OCI runtime-spec 1.2, "Seccomp"; and "includes"/"excludes" per rule, as
 * container engines write them). Only this file knows the form. A profile is a file that the node's
 * administrator wrote; its bytes are decoded within fixed limits all the same. A field that changes
 * what the profile means and that is not honoured is refused by name. Pure but for scprofile_load.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/sandbox/sysfilter.h"

#define SCPROFILE_MAX_BYTES (1u << 20)

/*
 * Compiles a profile for a process with these capabilities (bit n: capability n), which only
 * includes.caps and excludes.caps ask for. INVALID, with the place in the profile.
 */
int scprofile_compile(const char *json, size_t n, uint64_t capabilities,
                      struct sysfilter_program *ret_program, struct err *err);

/* Reads and compiles a file of this host. INVALID also when it is no regular file or too large. */
int scprofile_load(const char *path, uint64_t capabilities, struct sysfilter_program *ret_program,
                   struct err *err);
