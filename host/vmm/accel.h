/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which accelerator: the verdict on KVM, found by running a guest, and its memory in a file. For
 * this room. Blocks with a deadline; one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/vmm/record.h"

struct vmm;

struct accel_verdict {
    enum vmm_accel accel; /* KVM or TCG */
    bool is_fallback;     /* KVM was wanted */
    char reason[256];
};

/*
 * Decides as the vmm's configuration says. QEMU was found before. Never fails for want of KVM;
 * DEADLINE when there was no time for a fair trial, and then nothing is remembered.
 */
int accel_decide(struct vmm *vmm, int64_t deadline_ms, struct accel_verdict *ret_verdict,
                 struct err *err);

#define ACCEL_CACHE_MAX 4096 /* bytes of the file */

/*
 * The verdict in the text of a cache file, if it was written under the same key. NOT_FOUND when the
 * key is another one, PROTOCOL when the text is not such a file.
 */
int accel_cache_decode(const char *text, const char *key, struct accel_verdict *ret_verdict,
                       struct err *err);
/* The text of a cache file; free it. */
int accel_cache_encode(const struct accel_verdict *verdict, const char *key, char **ret_text,
                       struct err *err);
