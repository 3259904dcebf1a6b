/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capability sets by name, applied to the calling process. Sets are bit masks, bit n for capability
 * number n of capabilities(7). For the child between fork and exec; nothing allocates.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

struct caps {
    uint64_t bounding;
    uint64_t permitted;
    uint64_t effective;
    uint64_t inheritable;
    uint64_t ambient;
};

/* All five by name; NULL: none. INVALID names what is unknown. */
int caps_read(const Casemate__Agent__V1__Capabilities *message, struct caps *ret_caps,
              struct err *err);

/* The mask of n names. INVALID names the one that is unknown. */
int caps_parse(char *const *names, size_t n, uint64_t *ret_mask, struct err *err);

/* Drops from the bounding set what is not in it, and keeps permitted capabilities over the coming
 * change of user. */
int caps_prepare(const struct caps *caps, struct err *err);

/* Makes everything effective that is permitted: after the change of user nothing is. */
int caps_raise(struct err *err);

/* Makes the sets exactly these (those that the kernel knows); after the change of user. */
int caps_apply(const struct caps *caps, struct err *err);
