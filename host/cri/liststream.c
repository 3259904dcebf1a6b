/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Each method of the Stream family is one of the List family whose answer goes
 * out in pieces, for a node with more than one message can hold. Their messages are made alike: a
 * request has the same filter as its only field, an answer the same items in its first, so the List
 * method answers, and its items are sent on, PAGE bytes of them at a time, under the other
 * message's name. Nothing waits for a client that does not read: what rpc_call_send queues is
 * bounded.
 */
#include <string.h>

#include "common/base/log.h"
#include "host/cri/method.h"

enum { PAGE = 256 * 1024 };

static const struct pair {
    const char *stream;
    const char *list;
    const ProtobufCMessageDescriptor *reply;
} pairs[] = {
    {"StreamPodSandboxes", "ListPodSandbox",
     &runtime__v1__stream_pod_sandboxes_response__descriptor},
    {"StreamContainers", "ListContainers", &runtime__v1__stream_containers_response__descriptor},
    {"StreamContainerStats", "ListContainerStats",
     &runtime__v1__stream_container_stats_response__descriptor},
    {"StreamPodSandboxStats", "ListPodSandboxStats",
     &runtime__v1__stream_pod_sandbox_stats_response__descriptor},
    {"StreamPodSandboxMetrics", "ListPodSandboxMetrics",
     &runtime__v1__stream_pod_sandbox_metrics_response__descriptor},
    {"StreamImages", "ListImages", &runtime__v1__stream_images_response__descriptor},
};

/* The shape that every answer of both families has. */
struct items {
    ProtobufCMessage base;
    size_t n;
    ProtobufCMessage **items;
};

static int send_items(struct rpc_call *call, const ProtobufCMessageDescriptor *type,
                      const struct items *all, struct err *err)
{
    struct items page;

    for (size_t done = 0; done < all->n; done += page.n) {
        size_t bytes = 0;
        protobuf_c_message_init(type, &page);
        page.items = all->items + done;
        while (done + page.n < all->n && bytes < PAGE)
            bytes += protobuf_c_message_get_packed_size(page.items[page.n++]);
        if (rpc_call_send(call, &page.base, err) < 0)
            return -1;
    }
    return 0;
}

static void handle(struct rpc_call *call, void *arg)
{
    struct cri_ctx ctx = {.cri = arg,
                          .call = call,
                          .request = rpc_call_request(call),
                          .deadline_ms = rpc_call_deadline(call)};
    const struct pair *pair = pairs;
    ProtobufCMessage *reply = NULL;
    struct err err = {0};
    union {
        ProtobufCMessage *message;
        const struct items *items;
    } all;

    while (strcmp(pair->stream, rpc_call_method(call)) != 0)
        pair++;
    int r = cri_find_method(pair->list)->fn(&ctx, &reply, &err);
    all.message = reply;
    if (r == 0)
        r = send_items(call, pair->reply, all.items, &err);
    if (r < 0)
        log_event(LOG_DEBUG, NULL, &err, "%s failed", pair->stream);
    if (r < 0)
        rpc_call_fail(call, &err);
    else
        rpc_call_finish(call, RPC_OK, NULL);
    cri_release_held(&ctx);
}

rpc_handler cri_list_stream(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        if (strcmp(pairs[i].stream, name) == 0)
            return handle;
    }
    return NULL;
}
