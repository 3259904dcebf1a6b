/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runtime handlers of a manager: copied, found by name. Constant after they were copied. Any
 * thread.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"

struct sandbox_handler;

/* A deep copy of n handlers (at least one, the first one called ""), for handlers_free. */
int handlers_copy(const struct sandbox_handler *from, size_t n, struct sandbox_handler **ret_copy,
                  struct err *err);
/* A copy made by handlers_copy. NULL is fine. */
void handlers_free(struct sandbox_handler *handlers, size_t n);

/* The one of this name; NULL: there is none. */
const struct sandbox_handler *handlers_find(const struct sandbox_handler *handlers, size_t n,
                                            const char *name);
