/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets of small numbers as the kernel writes them: "0-2,5" (cpuset(7), "List format"). No
 * ownership, thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define NUMSET_MAX 1024u /* numbers are below this */

struct numset {
    uint64_t words[NUMSET_MAX / 64];
};

/* INVALID for what is no such list or has a number that is too large. An empty text is the empty
 * set; one newline at the end is fine. */
int numset_parse(const char *text, struct numset *ret_set, struct err *err);

/* The largest number plus one; 0 for the empty set. */
unsigned numset_end(const struct numset *set);

/* Whether all of a's are in b. */
bool numset_is_subset(const struct numset *a, const struct numset *b);
