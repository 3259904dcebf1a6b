/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/cli/logtail: any file is taken apart without harm, and the same bytes come out whether it is
 * read at once or in pieces. The first byte chooses the size of the pieces.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "host/cli/logtail.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int take(void *arg, const struct cli_log_piece *p, struct err *err)
{
    struct buf *streams = arg;
    struct buf *b = &streams[p->is_stderr ? 1 : 0];
    if (buf_append(b, p->text, p->n, err) < 0)
        return -1;
    return p->ends_line ? buf_append(b, "\n", 1, err) : 0;
}

/* Offers at first `step` bytes, then as many more each time that nothing was taken. */
static uint64_t parse(const uint8_t *bytes, size_t n, size_t step, struct buf *streams)
{
    struct cli_log_parser p = {0};
    struct err err = {0};
    size_t at = 0, seen = 0;
    while (seen < n) {
        seen = n - seen < step ? n : seen + step;
        size_t used = 0;
        do {
            if (cli_log_parse(&p, bytes + at, seen - at, take, streams, &used, &err) < 0)
                abort();
            if (used > seen - at)
                abort();
            at += used;
        } while (used > 0 && at < seen);
    }
    return p.bad_lines;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t step = 1 + (size_t)data[0];
    struct buf whole[2], pieces[2];
    for (int i = 0; i < 2; i++) {
        buf_init(&whole[i], 1 << 20);
        buf_init(&pieces[i], 1 << 20);
    }
    uint64_t bad = parse(data + 1, size - 1, size, whole);
    if (parse(data + 1, size - 1, step, pieces) != bad)
        abort();
    for (int i = 0; i < 2; i++) {
        if (whole[i].len != pieces[i].len ||
            (whole[i].len > 0 &&
             memcmp(buf_bytes(&whole[i]), buf_bytes(&pieces[i]), whole[i].len) != 0))
            abort();
        buf_fini(&whole[i]);
        buf_fini(&pieces[i]);
    }
    return 0;
}
