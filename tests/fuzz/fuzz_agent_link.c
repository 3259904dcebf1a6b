/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The greeting's state machine on any bytes: progress at every call, and the same answers and the
 * same beginning of the session however the bytes are cut into pieces.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/rpc/link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    size_t answers;
    uint64_t sum; /* over the answers' bytes */
    size_t session;
};

static struct outcome run(const uint8_t *data, size_t size, size_t step)
{
    struct outcome o = {.session = size};
    struct link l;
    size_t at = 0;
    link_reset(&l);
    while (at < size) {
        size_t want = step == 0 ? link_wants(&l) : step;
        size_t n = size - at < want ? size - at : want, taken;
        if (want == 0)
            abort();
        enum link_event e = link_feed(&l, data + at, n, &taken);
        if (taken > n || (taken < n && e == LINK_MORE))
            abort();
        at += taken;
        if (e == LINK_ECHO) {
            o.answers++;
            for (size_t i = 0; i < LINK_ANSWER_SIZE; i++)
                o.sum = o.sum * 31 + (uint8_t)l.answer[i];
        }
        if (e == LINK_SESSION) {
            if (data[at] != 'P' || o.answers == 0)
                abort();
            o.session = at;
            break;
        }
    }
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole = run(data, size, size + 1);
    for (size_t step = 0; step < 4; step++) {
        struct outcome cut = run(data, size, step);
        if (memcmp(&whole, &cut, sizeof(whole)) != 0)
            abort();
    }
    return 0;
}
