/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC's framing, timeouts, percent encoding, content types and numbers. The first byte is the
 * size of the pieces in which the frame decoder is fed; it must find the same messages as when
 * fed at once.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/rpc/frame.h"
#include "common/rpc/meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

#define MAX_MESSAGE 5000u

/* A digest of the messages' lengths and bytes; the decoder's failure counts too. */
static uint64_t frames(const uint8_t *data, size_t size, size_t step)
{
    struct rpc_budget budget = {.max = MAX_MESSAGE};
    struct rpc_frame frame;
    uint64_t digest = 14695981039346656037u;
    rpc_frame_init(&frame, MAX_MESSAGE, &budget);
    for (size_t at = 0; at < size;) {
        size_t n = size - at < step ? size - at : step;
        size_t used = 0;
        struct rpc_bytes m;
        struct err err;
        int r = rpc_frame_feed(&frame, data + at, n, &used, &m, &err);
        if (r < 0) {
            require(err.code == ERR_EXHAUSTED || err.code == ERR_UNSUPPORTED ||
                    err.code == ERR_PROTOCOL);
            digest = digest * 31 + (uint64_t)err.code;
            break;
        }
        require(used > 0 && used <= n);
        at += used;
        if (r == 0) {
            require(used == n);
            continue;
        }
        require(m.len <= MAX_MESSAGE);
        digest = (digest ^ m.len) * 1099511628211u;
        for (size_t i = 0; i < m.len; i++)
            digest = (digest ^ m.data[i]) * 1099511628211u;
        free(m.data);
    }
    require(budget.used <= budget.max);
    rpc_frame_fini(&frame);
    require(budget.used == 0);
    return digest;
}

static void texts(const uint8_t *data, size_t size)
{
    int64_t ms;
    uint32_t number;
    char text[RPC_TIMEOUT_SIZE];
    char decoded[64], encoded[64 * 3 + 1], again[64];
    if (rpc_timeout_parse(data, size, &ms) == 0) {
        int64_t back = -1;
        require(ms >= 0);
        rpc_timeout_format(ms, text);
        require(rpc_timeout_parse(text, strlen(text), &back) == 0 && back >= ms);
    }
    if (rpc_number_parse(data, size, &number) == 0)
        require(size > 0 && size <= 9 && number <= 999999999);
    (void)rpc_is_grpc_content(data, size);

    rpc_percent_decode(data, size, decoded, sizeof(decoded));
    require(text_is_utf8(decoded, strlen(decoded)));
    rpc_percent_encode(decoded, encoded, sizeof(encoded));
    for (const char *p = encoded; *p != '\0'; p++)
        require(*p >= 0x20 && *p <= 0x7e);
    rpc_percent_decode(encoded, strlen(encoded), again, sizeof(again));
    require(strcmp(decoded, again) == 0);
    rpc_percent_encode(decoded, encoded, size % sizeof(encoded) + 1); /* cut somewhere */
    rpc_percent_decode(encoded, strlen(encoded), again, sizeof(again));
    require(strncmp(decoded, again, strlen(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t step = (size_t)data[0] + 1;
    require(frames(data + 1, size - 1, step) == frames(data + 1, size - 1, size));
    texts(data + 1, size - 1);
    return 0;
}
