/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every unary method goes through one dispatcher (events.c and liststream.c have the streams): find
 * the method in the tables, call it, log it, answer. v1 and v1alpha2 are the same messages under
 * two service names, so both are registered with v1's descriptors (proto/cri/README.md says where
 * that is exact). Errors become gRPC statuses by their code (common/rpc/status); there is no
 * exception to it.
 */
#include "host/cri/cri.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "host/cri/events.h"
#include "host/cri/method.h"

static const struct cri_method *find_in(const struct cri_method *methods, const char *name)
{
    for (; methods->name != NULL; methods++) {
        if (strcmp(methods->name, name) == 0)
            return methods;
    }
    return NULL;
}

const struct cri_method *cri_find_method(const char *name)
{
    const struct cri_method *tables[] = {cri_status_methods(),    cri_pod_methods(),
                                         cri_container_methods(), cri_stats_methods(),
                                         cri_metric_methods(),    cri_image_methods()};
    const struct cri_method *m = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(tables) && m == NULL; i++)
        m = find_in(tables[i], name);
    return m;
}

void *cri_hold(struct cri_ctx *ctx, size_t size, void (*release)(void *object))
{
    if (ctx->n_held == CRI_MAX_HELD)
        return NULL;
    void *object = calloc(1, size);
    if (object != NULL)
        ctx->held[ctx->n_held++] = (struct cri_held){.release = release, .object = object};
    return object;
}

void cri_release_held(struct cri_ctx *ctx)
{
    while (ctx->n_held > 0) {
        struct cri_held *h = &ctx->held[--ctx->n_held];
        if (h->release != NULL)
            h->release(h->object);
        free(h->object);
    }
}

void *cri_alloc(const struct cri_ctx *ctx, size_t size)
{
    if (ctx->arena == NULL)
        return rpc_call_alloc(ctx->call, size);
    void *p = rpc_arena_alloc(ctx->arena, size);
    if (p != NULL)
        memset(p, 0, size);
    return p;
}

static void log_outcome(const struct cri_method *m, int r, const struct err *err, int64_t begin_ns)
{
    double ms = (double)(clock_monotonic_ns() - begin_ns) / 1e6;
    if (r < 0)
        log_event(m->changes ? LOG_WARN : LOG_DEBUG, NULL, err, "%s failed after %.1f ms", m->name,
                  ms);
    else
        log_event(m->changes ? LOG_INFO : LOG_DEBUG, NULL, NULL, "%s took %.1f ms", m->name, ms);
}

/* Runs on a worker thread. */
static void handle(struct rpc_call *call, void *arg)
{
    struct cri_ctx ctx = {.cri = arg,
                          .call = call,
                          .request = rpc_call_request(call),
                          .deadline_ms = rpc_call_deadline(call)};
    const struct cri_method *m = cri_find_method(rpc_call_method(call));
    struct err err = {0};
    ProtobufCMessage *reply = NULL;
    int64_t begin = clock_monotonic_ns();
    int r = m->fn(&ctx, &reply, &err);
    /* A call past its deadline counts as cancelled below; the client shall hear what really ended
     * it. */
    if (r < 0 && err.code == ERR_CANCELLED && clock_poll_timeout(ctx.deadline_ms) == 0)
        err.code = ERR_DEADLINE;
    log_outcome(m, r, &err, begin);
    if (r < 0)
        rpc_call_fail(call, &err);
    else
        rpc_call_reply(call, reply);
    cri_release_held(&ctx);
}

int cri_text(const struct cri_ctx *ctx, const char *text, char **ret_copy, struct err *err)
{
    const char *from = text == NULL ? "" : text;
    size_t n = strlen(from) + 1;
    char *copy = cri_alloc(ctx, n);
    if (copy == NULL)
        return err_no_memory(err);
    memcpy(copy, from, n);
    *ret_copy = copy;
    return 0;
}

int cri_array(const struct cri_ctx *ctx, size_t n, void *ret_array, struct err *err)
{
    void *p = cri_alloc(ctx, (n + 1) * sizeof(void *));
    if (p == NULL)
        return err_no_memory(err);
    memcpy(ret_array, &p, sizeof(p));
    return 0;
}

int cri_map(const struct cri_ctx *ctx, size_t n, const void *entries,
            const ProtobufCMessageDescriptor *entry_type, void *ret_entries, struct err *err)
{
    const struct cri_entry *const *in = entries;
    struct cri_entry **out;
    if (cri_array(ctx, n, &out, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        out[i] = cri_alloc(ctx, sizeof(*out[i]));
        if (out[i] == NULL)
            return err_no_memory(err);
        protobuf_c_message_init(entry_type, out[i]);
        out[i]->key = in[i]->key;
        out[i]->value = in[i]->value;
    }
    memcpy(ret_entries, &out, sizeof(void *));
    return 0;
}

int cri_map_entry(const struct cri_ctx *ctx, const char *key, const char *value,
                  const ProtobufCMessageDescriptor *entry_type, void *ret_entries, struct err *err)
{
    struct cri_entry source = {0};
    const struct cri_entry *list = &source;
    if (cri_text(ctx, key, &source.key, err) < 0 || cri_text(ctx, value, &source.value, err) < 0)
        return -1;
    return cri_map(ctx, 1, &list, entry_type, ret_entries, err);
}

/* The rpc methods of one service: all that its descriptor has and a table implements, and the
 * streams. */
static struct rpc_method *methods_of(const ProtobufCServiceDescriptor *d, size_t *ret_n)
{
    struct rpc_method *list = calloc(d->n_methods, sizeof(*list));
    size_t n = 0;
    for (unsigned i = 0; list != NULL && i < d->n_methods; i++) {
        const char *name = d->methods[i].name;
        if (cri_find_method(name) != NULL)
            list[n++] = (struct rpc_method){.name = name, .handler = handle};
        else if (cri_list_stream(name) != NULL)
            list[n++] = (struct rpc_method){.name = name, .handler = cri_list_stream(name)};
        else if (strcmp(name, "GetContainerEvents") == 0)
            list[n++] =
                (struct rpc_method){.name = name, .handler = cri_get_events, .on_loop = true};
    }
    *ret_n = n;
    return list;
}

static const struct rpc_method control_methods[] = {
    {.name = "ImportImage", .handler = control_import_image},
    {.name = "ExportImage", .handler = control_export_image},
    {.name = "PullImage", .handler = control_pull_image},
    {.name = "Info", .handler = control_info},
    {.name = "Metrics", .handler = control_metrics},
};

static int add_service(struct cri *cri, const char *name, const ProtobufCServiceDescriptor *d,
                       struct err *err)
{
    size_t n;
    struct rpc_method *methods = methods_of(d, &n);
    if (methods == NULL)
        return err_no_memory(err);
    cri->services[cri->n_services++] = (struct rpc_service){
        .name = name, .descriptor = d, .methods = methods, .n_methods = n, .arg = cri};
    return 0;
}

int cri_new(const struct cri_config *config, struct cri **ret_cri, struct err *err)
{
    cleanup_cri struct cri *cri = calloc(1, sizeof(*cri));
    if (cri == NULL)
        return err_no_memory(err);
    cri->config = *config;
    if (cri_events_new(cri, &cri->events, err) < 0)
        return -1;
    const ProtobufCServiceDescriptor *runtime = &runtime__v1__runtime_service__descriptor;
    const ProtobufCServiceDescriptor *image = &runtime__v1__image_service__descriptor;
    if (add_service(cri, "runtime.v1.RuntimeService", runtime, err) < 0 ||
        add_service(cri, "runtime.v1alpha2.RuntimeService", runtime, err) < 0 ||
        add_service(cri, "runtime.v1.ImageService", image, err) < 0 ||
        add_service(cri, "runtime.v1alpha2.ImageService", image, err) < 0)
        return -1;
    cri->services[cri->n_services++] =
        (struct rpc_service){.name = "casemate.control.v1.Control",
                             .descriptor = &casemate__control__v1__control__descriptor,
                             .methods = control_methods,
                             .n_methods = ARRAY_SIZE(control_methods),
                             .arg = cri};
    *ret_cri = steal_ptr(&cri);
    return 0;
}

void cri_free(struct cri *cri)
{
    if (cri == NULL)
        return;
    cri_events_free(cri->events);
    for (size_t i = 0; i < cri->n_services; i++) {
        union {
            const struct rpc_method *in;
            void *out;
        } methods = {.in = cri->services[i].methods};
        if (methods.in != control_methods)
            free(methods.out);
    }
    free(cri);
}

void cri_end_streams(struct cri *cri)
{
    cri_events_stop(cri->events);
}

const struct rpc_service *cri_services(const struct cri *cri, size_t *ret_n)
{
    *ret_n = cri->n_services;
    return cri->services;
}
