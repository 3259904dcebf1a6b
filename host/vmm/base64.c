/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four digits make three bytes; '=' only fills up the last group. Nothing else is skipped or
 * tolerated.
 */
#include "host/vmm/base64.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    return c == '/' ? 63 : -1;
}

int base64_decode_text(const char *text, char **ret_bytes, struct err *err)
{
    size_t n = strlen(text), out = 0, pad = 0;
    cleanup_free char *bytes = malloc(n / 4 * 3 + 1);

    if (bytes == NULL)
        return err_no_memory(err);
    while (pad < 2 && pad < n && text[n - 1 - pad] == '=')
        pad++;
    if (n % 4 != 0)
        return err_set(err, ERR_PROTOCOL, "base64: %zu digits", n);
    for (size_t i = 0; i < n; i += 4) {
        uint32_t group = 0;
        size_t missing = i + 4 == n ? pad : 0;
        for (size_t k = 0; k < 4; k++) {
            int d = k >= 4 - missing ? 0 : digit(text[i + k]);
            if (d < 0)
                return err_set(err, ERR_PROTOCOL, "base64: not a digit at %zu", i + k);
            group = group << 6 | (uint32_t)d;
        }
        for (size_t k = 0; k < 3 - missing; k++) {
            char c = (char)(uint8_t)(group >> (16 - 8 * k));
            bytes[out++] = c != '\0' ? c : '?';
        }
    }
    bytes[out] = '\0';
    *ret_bytes = steal_ptr(&bytes);
    return 0;
}
