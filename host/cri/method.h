/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside host/cri: the shape of a method and the tools that methods share. A method reads a decoded
 * request and builds its reply in the call's memory (cri_make, cri_text: never freed by hand); it
 * neither ends the call nor logs.
 */
#pragma once

#include "common/rpc/arena.h"
#include "host/cri/cri.h"
#include "host/sandbox/sandbox.h"
#include "proto/control/control.pb-c.h"
#include "proto/cri/cri.pb-c.h"

struct cri_events;

struct cri {
    struct cri_config config;
    struct cri_events *events;
    struct rpc_service services[5];
    size_t n_services;
};

/* What a reply points into, released once it has been encoded. */
struct cri_held {
    void (*release)(void *object);
    void *object;
};

enum { CRI_MAX_HELD = 4 };

/* One request being answered. */
struct cri_ctx {
    const struct cri *cri;
    struct rpc_call *call;
    struct rpc_arena *arena; /* what is built lives here; NULL: in the call */
    const ProtobufCMessage *request;
    int64_t deadline_ms; /* the client's */
    struct cri_held held[CRI_MAX_HELD];
    size_t n_held;
};

/*
 * Zeroed heap memory that the reply may point into: after the reply was encoded, or the method
 * failed, release(object) is called (NULL: nothing) and the memory is freed. NULL when there is
 * none, or no place to note it.
 */
void *cri_hold(struct cri_ctx *ctx, size_t size, void (*release)(void *object));

/* Zeroed memory that lives as long as what is built, or NULL. */
void *cri_alloc(const struct cri_ctx *ctx, size_t size);

/* Answers: *ret_reply is in the call's memory. */
typedef int (*cri_method_fn)(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err);

struct cri_method {
    const char *name;
    cri_method_fn fn;
    bool changes; /* logged at info: it makes, changes or removes something */
};

/* The methods that one file implements, ended by a NULL name. */
const struct cri_method *cri_status_methods(void);
/* Likewise: pods. */
const struct cri_method *cri_pod_methods(void);
/* Likewise: containers. */
const struct cri_method *cri_container_methods(void);
/* Likewise: statistics. */
const struct cri_method *cri_stats_methods(void);
/* Likewise: metrics. */
const struct cri_method *cri_metric_methods(void);
/* Likewise: images. */
const struct cri_method *cri_image_methods(void);

/* The status messages of a pod and of a container; the snapshot must outlive them. */
int cri_make_pod_status(const struct cri_ctx *ctx, const struct sandbox_info *info,
                        Runtime__V1__PodSandboxStatus **ret_status, struct err *err);
/* Likewise. */
int cri_make_container_status(const struct cri_ctx *ctx, const struct sandbox_container_info *info,
                              Runtime__V1__ContainerStatus **ret_status, struct err *err);

/* GetContainerEvents, on the loop: the call stays open. arg is the struct cri. */
void cri_get_events(struct rpc_call *call, void *arg);

/* The methods StreamPodSandboxes, StreamContainers and so on; NULL for any other name. */
rpc_handler cri_list_stream(const char *name);
/* The method of the List family, or whichever, of that name; NULL: there is none. */
const struct cri_method *cri_find_method(const char *name);
/* Releases what cri_hold gave out. */
void cri_release_held(struct cri_ctx *ctx);

/* The control service's methods: streaming, they end their call themselves. arg is the struct cri.
 */
void control_import_image(struct rpc_call *call, void *arg);
void control_export_image(struct rpc_call *call, void *arg);
/* Likewise: PullImage with progress. */
void control_pull_image(struct rpc_call *call, void *arg);
/* Likewise: Info. */
void control_info(struct rpc_call *call, void *arg);
/* Likewise: Metrics. */
void control_metrics(struct rpc_call *call, void *arg);

/* Zeroed and initialised message in the call's memory: cri_make(ctx, &m, init), m of type T *.
 * Fails with EXHAUSTED. */
#define cri_make(ctx, ret, init)                                                                   \
    (((*(ret)) = cri_alloc((ctx), sizeof(**(ret)))) == NULL ? err_no_memory(err)                   \
                                                            : (init(*(ret)), 0))

/* A copy of text ("" for NULL) in the call's memory. */
int cri_text(const struct cri_ctx *ctx, const char *text, char **ret_copy, struct err *err);

/* An array of n pointers in the call's memory. */
int cri_array(const struct cri_ctx *ctx, size_t n, void *ret_array, struct err *err);

/*
 * Copies a map field: every map<string, string> of CRI has entries of this shape, whatever its
 * message is called. `init` initialises an entry of the target's type. The strings are shared with
 * the source, which must outlive the reply.
 */
struct cri_entry {
    ProtobufCMessage base;
    char *key;
    char *value;
};
int cri_map(const struct cri_ctx *ctx, size_t n, const void *entries,
            const ProtobufCMessageDescriptor *entry_type, void *ret_entries, struct err *err);

/* One map entry from two strings, which are copied. */
int cri_map_entry(const struct cri_ctx *ctx, const char *key, const char *value,
                  const ProtobufCMessageDescriptor *entry_type, void *ret_entries, struct err *err);
