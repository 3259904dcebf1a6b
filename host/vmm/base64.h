/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RFC 4648 base64, as QEMU uses it for bytes in JSON. Pure; any thread.
 */
#pragma once

#include "common/base/err.h"

/* The bytes as a NUL-terminated string on the heap (free it); NUL bytes among them become '?'.
 * PROTOCOL: not base64. */
int base64_decode_text(const char *text, char **ret_bytes, struct err *err);
