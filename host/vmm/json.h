/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound references to jansson values, for this room. A json_t belongs to one thread at a
 * time.
 */
#pragma once

#include <jansson.h>

#include "common/base/cleanup.h"

static inline void json_cleanup_fn_(json_t **p)
{
    json_decref(*p);
}
/* Drops the reference at the end of the scope; NULL is fine. */
#define cleanup_json CLEANUP(json_cleanup_fn_)
