/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The QMP engine on any bytes of a QEMU that a guest has taken over: every command is answered
 * exactly once, and the outcome does not depend on how the bytes are cut. The first byte says how
 * many commands wait; a 0x01 in the input (which no JSON holds) stands for the moment at which the
 * engine's output is taken.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/vmm/qmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    int answers, values, events;
    int fed; /* 0, or -1 */
};

static void on_reply(void *arg, json_t *ret, const struct err *err)
{
    struct outcome *o = arg;

    if ((ret == NULL) == (err == NULL))
        abort();
    o->answers++;
    o->values += ret != NULL;
}

static void on_event(void *arg, const char *name, const json_t *data)
{
    struct outcome *o = arg;

    if (name == NULL || (data != NULL && !json_is_object(data)))
        abort();
    o->events++;
}

static void take_output(struct qmp *qmp)
{
    const void *bytes;
    size_t n;
    int fd;

    qmp_output(qmp, &bytes, &n, &fd);
    if (fd >= 0)
        abort();
    qmp_sent(qmp, n);
}

static struct outcome run(const uint8_t *data, size_t size, size_t step, int n_commands)
{
    struct outcome o = {0};
    const struct qmp_handlers handlers = {.event = on_event, .arg = &o};
    struct qmp *qmp;
    struct err err;
    int submitted = 0;

    if (qmp_new(&handlers, &qmp, &err) < 0)
        abort();
    for (int i = 0; i < n_commands; i++)
        submitted += qmp_submit(qmp, "query-status", NULL, -1, on_reply, &o, &err) == 0;
    while (size > 0 && o.fed == 0) {
        const uint8_t *mark = memchr(data, 1, size);
        size_t n = mark != NULL ? (size_t)(mark - data) : size;
        for (size_t at = 0; at < n && o.fed == 0; at += step)
            o.fed = qmp_feed(qmp, data + at, n - at < step ? n - at : step, &err);
        take_output(qmp);
        size_t used = mark != NULL ? n + 1 : n;
        data += used;
        size -= used;
    }
    qmp_free(qmp);
    if (o.answers != submitted)
        abort();
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    int n_commands = data[0] % 8;
    const struct outcome whole = run(data + 1, size - 1, size, n_commands);
    const struct outcome cut = run(data + 1, size - 1, 1 + data[0] / 16, n_commands);

    if (memcmp(&whole, &cut, sizeof(whole)) != 0)
        abort();
    return 0;
}
