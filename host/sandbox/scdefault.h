/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seccomp profile that CRI calls RuntimeDefault: an allow-list with the semantics that
 * container engines have agreed on for years. A call that needs a capability is there when the
 * container has it. Only this file knows the list. Thread-safe: programs are made once per set of
 * capabilities and kept.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "host/sandbox/sysfilter.h"

/* The program for a container with these capabilities (bit n: capability n): a copy, the caller's.
 */
int scdefault_program(uint64_t capabilities, struct sysfilter_program *ret_program,
                      struct err *err);
