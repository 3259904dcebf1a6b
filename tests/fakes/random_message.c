/* SPDX-License-Identifier: Apache-2.0 */
/* Two of three fields are set; texts and numbers are such as mean something to an agent, or are at
 * the edges of their types. */
#include "tests/fakes/random_message.h"

#include <stdlib.h>
#include <string.h>

static unsigned seed = 20261124;

uint32_t random_below(uint32_t below)
{
    return (uint32_t)rand_r(&seed) % below;
}

#define MAX_DEPTH 6

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *d, int depth);

static void random_scalar(const ProtobufCFieldDescriptor *f, void *at, int depth)
{
    static const char *const texts[] = {"",       "c",  "/",          "/proc/kcore", "..",
                                        "a/b",    "sh", "KILL",       "NOFILE",      "squashfs",
                                        "root:x", "-1", "memory.max", "\xc3\xa9"};
    static const uint64_t numbers[] = {0, 1, 2, 9, 63, 64, 65535, 65536, UINT32_MAX, UINT64_MAX};
    uint64_t number = numbers[random_below(10)];
    uint32_t number32 = (uint32_t)number;
    protobuf_c_boolean flag = (protobuf_c_boolean)random_below(2);
    ProtobufCBinaryData *data = at;
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = strdup(texts[random_below(14)]);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        data->len = random_below(100);
        data->data = calloc(1, data->len + 1);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)at = make(f->descriptor, depth + 1);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        memcpy(at, &flag, sizeof(flag));
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        memcpy(at, &number, sizeof(number));
        break;
    default:
        memcpy(at, &number32, sizeof(number32));
        break;
    }
}

static size_t size_of(const ProtobufCFieldDescriptor *f)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return 8;
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *d, int depth)
{
    ProtobufCMessage *m = calloc(1, d->sizeof_message);
    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields && depth < MAX_DEPTH; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        char *at = (char *)m + f->offset;
        if (random_below(3) == 0)
            continue;
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            random_scalar(f, at, depth);
            continue;
        }
        size_t n = random_below(4);
        char *list = calloc(n + 1, size_of(f));
        for (size_t j = 0; j < n; j++)
            random_scalar(f, list + j * size_of(f), depth);
        *(void **)(void *)at = list;
        memcpy((char *)m + f->quantifier_offset, &n, sizeof(n));
    }
    return m;
}

/* A random field of the message, or of one that it holds, gets another value. */
static void vary(ProtobufCMessage *m)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    const ProtobufCFieldDescriptor *f;
    char *at;

    if (d->n_fields == 0)
        return;
    f = &d->fields[random_below(d->n_fields)];
    at = (char *)m + f->offset;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t n = *(size_t *)(void *)((char *)m + f->quantifier_offset);
        if (n == 0)
            return;
        at = *(char **)(void *)at + random_below((uint32_t)n) * size_of(f);
    }
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        ProtobufCMessage *inner = *(ProtobufCMessage **)(void *)at;
        if (inner != NULL && random_below(4) != 0) {
            vary(inner);
            return;
        }
        if (inner != NULL)
            protobuf_c_message_free_unpacked(inner, NULL);
    } else if (f->type == PROTOBUF_C_TYPE_STRING && *(char **)(void *)at != f->default_value &&
               *(char **)(void *)at != protobuf_c_empty_string) {
        free(*(char **)(void *)at);
    } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
        free(((ProtobufCBinaryData *)(void *)at)->data);
    }
    random_scalar(f, at, MAX_DEPTH - 2);
}

ProtobufCMessage *random_variation(const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(n + 1);
    ProtobufCMessage *copy = protobuf_c_message_unpack(
        message->descriptor, NULL, protobuf_c_message_pack(message, bytes), bytes);

    free(bytes);
    for (uint32_t i = random_below(4); i > 0; i--)
        vary(copy);
    return copy;
}

ProtobufCMessage *random_message(const ProtobufCMessageDescriptor *descriptor)
{
    return make(descriptor, 0);
}
