/* SPDX-License-Identifier: Apache-2.0 */
/* host/sandbox/crilog: whatever a container writes and however it is cut, the log gives back
 * exactly these bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "host/sandbox/crilog.h"

/* Rebuilds the stream from the log; aborts on a line that is not of the format. Returns how many
 * bytes it holds. */
static size_t rebuild(const struct buf *log, uint8_t *ret_bytes)
{
    if (log->len == 0)
        return 0;
    const char *p = (const char *)buf_bytes(log), *end = p + log->len;
    size_t n = 0;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        if (newline == NULL || newline - p < 40 || memcmp(p + 29, "Z stdout ", 9) != 0 ||
            p[39] != ' ')
            abort();
        size_t text = (size_t)(newline - p) - 40;
        if (text > CRILOG_MAX_LINE || (p[38] != 'F' && p[38] != 'P'))
            abort();
        memcpy(ret_bytes + n, p + 40, text);
        n += text;
        if (p[38] == 'F')
            ret_bytes[n++] = '\n';
        p = newline + 1;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct crilog *log = malloc(sizeof(*log));
    uint8_t *again = malloc(size + 1);
    struct buf out = BUF_INIT(64u << 20);
    struct err err = {0};
    if (log == NULL || again == NULL)
        abort();
    crilog_init(log, "stdout", 0);
    /* The first byte decides how the rest is cut into chunks. */
    size_t step = size == 0 ? 1 : (size_t)data[0] * data[0] + 1;
    for (size_t i = 0; i < size; i += step) {
        size_t n = size - i < step ? size - i : step;
        if (crilog_feed(log, (int64_t)i, data + i, n, &out, &err) < 0)
            abort();
    }
    if (crilog_flush(log, &out, &err) < 0 || log->offset != size)
        abort();
    if (rebuild(&out, again) != size || (size > 0 && memcmp(again, data, size) != 0))
        abort();
    buf_fini(&out);
    free(again);
    free(log);
    return 0;
}
