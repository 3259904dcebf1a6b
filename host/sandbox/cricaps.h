/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities by name: containerd's default set and what a CRI request makes of it. Bit masks, bit
 * n for capability number n of capabilities(7). Pure functions; thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "proto/cri/cri.pb-c.h"

/* Number of a name with or without "CAP_", in either case; -1: unknown. */
int cricaps_number(const char *name);

/* What a container gets. request may be NULL. INVALID for an unknown name. */
int cricaps_resolve(const Runtime__V1__Capability *request, bool privileged, uint64_t *ret_mask,
                    uint64_t *ret_ambient, struct err *err);
