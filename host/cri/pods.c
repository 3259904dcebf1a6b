/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pod methods. Replies point into the snapshots that host/sandbox gave out; cri_hold keeps them
 * until the reply has been encoded, so that a list of hundreds of pods copies no label.
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "host/cri/method.h"
#include "host/sandbox/sandbox.h"

static void release_info(void *object)
{
    sandbox_info_fini(object);
}

static void release_list(void *object)
{
    sandbox_list_fini(object);
}

static Runtime__V1__PodSandboxState state_of(const struct sandbox_info *info)
{
    return info->ready ? RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY
                       : RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_NOTREADY;
}

static int method_run_pod_sandbox(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                  struct err *err)
{
    const Runtime__V1__RunPodSandboxRequest *q =
        (const Runtime__V1__RunPodSandboxRequest *)ctx->request;
    if (q->config == NULL || q->config->metadata == NULL)
        return err_set(err, ERR_INVALID, "config.metadata is required");
    struct cri_daemon_status d = {0};
    ctx->cri->config.get_status(ctx->cri->config.get_status_arg, &d);
    if (!d.network_ready)
        return err_set(err, ERR_UNAVAILABLE, "network is not ready: %s", d.network_message);

    char id[SANDBOX_ID_SIZE];
    Runtime__V1__RunPodSandboxResponse *m;
    if (sandbox_run(ctx->cri->config.sandboxes, q->config, q->runtime_handler, ctx->deadline_ms, id,
                    err) < 0 ||
        cri_make(ctx, &m, runtime__v1__run_pod_sandbox_response__init) < 0 ||
        cri_text(ctx, id, &m->pod_sandbox_id, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_stop_pod_sandbox(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                   struct err *err)
{
    const Runtime__V1__StopPodSandboxRequest *q =
        (const Runtime__V1__StopPodSandboxRequest *)ctx->request;
    Runtime__V1__StopPodSandboxResponse *m;
    if (sandbox_stop(ctx->cri->config.sandboxes, q->pod_sandbox_id, ctx->deadline_ms, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__stop_pod_sandbox_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_remove_pod_sandbox(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                     struct err *err)
{
    const Runtime__V1__RemovePodSandboxRequest *q =
        (const Runtime__V1__RemovePodSandboxRequest *)ctx->request;
    Runtime__V1__RemovePodSandboxResponse *m;
    if (sandbox_remove(ctx->cri->config.sandboxes, q->pod_sandbox_id, ctx->deadline_ms, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__remove_pod_sandbox_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_update_pod(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__UpdatePodSandboxResourcesRequest *q =
        (const Runtime__V1__UpdatePodSandboxResourcesRequest *)ctx->request;
    Runtime__V1__UpdatePodSandboxResourcesResponse *m;
    if (sandbox_update(ctx->cri->config.sandboxes, q->pod_sandbox_id, q->overhead, q->resources,
                       ctx->deadline_ms, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__update_pod_sandbox_resources_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

/* The steps of the pod's start; microseconds. */
static json_t *make_timeline(const struct cri_ctx *ctx, const struct sandbox_info *info)
{
    struct timeline_step steps[TIMELINE_STEPS];
    json_t *list = json_array();
    struct err ignored;
    unsigned n = 0;

    (void)sandbox_timeline(ctx->cri->config.sandboxes, info->id, steps, &n, &ignored);
    for (unsigned i = 0; i < n; i++)
        if (json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "step", steps[i].name,
                                                  "from", (json_int_t)steps[i].from_us, "to",
                                                  (json_int_t)steps[i].to_us, "machineCpu",
                                                  (json_int_t)steps[i].cpu_us)) < 0)
            continue; /* a name that is not UTF-8, cut in the middle of a character */
    return list;
}

/* What crictl inspectp shows beside the status. */
static int add_info(const struct cri_ctx *ctx, const struct sandbox_info *info,
                    Runtime__V1__PodSandboxStatusResponse *m, struct err *err)
{
    const Runtime__V1__LinuxContainerResources *limits = info->resources;
    json_t *j =
        json_pack("{s:i, s:s, s:s, s:s, s:I, s:b, s:b, s:I, s:I, s:I, s:o}", "pid",
                  (int)info->vm_pid, "reason", info->reason, "message", info->message,
                  "guestKernel", info->guest_kernel, "bootMilliseconds", (json_int_t)info->boot_ms,
                  "cloned", info->cloned, "madeAhead", info->made_ahead, "memoryLimit",
                  (json_int_t)(limits == NULL ? 0 : limits->memory_limit_in_bytes), "cpuQuota",
                  (json_int_t)(limits == NULL ? 0 : limits->cpu_quota), "cpuPeriod",
                  (json_int_t)(limits == NULL ? 0 : limits->cpu_period), "timeline",
                  make_timeline(ctx, info));
    char *text = j == NULL ? NULL : json_dumps(j, JSON_COMPACT);
    json_decref(j);
    if (text == NULL)
        return err_no_memory(err);
    int r = cri_map_entry(ctx, "info", text,
                          &runtime__v1__pod_sandbox_status_response__info_entry__descriptor,
                          &m->info, err);
    free(text);
    if (r == 0)
        m->n_info = 1;
    return r;
}

static int add_namespaces(const struct cri_ctx *ctx, const Runtime__V1__PodSandboxConfig *config,
                          Runtime__V1__PodSandboxStatus *s, struct err *err)
{
    Runtime__V1__NamespaceOption *asked = NULL;
    if (config->linux != NULL && config->linux->security_context != NULL)
        asked = config->linux->security_context->namespace_options;
    if (cri_make(ctx, &s->linux, runtime__v1__linux_pod_sandbox_status__init) < 0 ||
        cri_make(ctx, &s->linux->namespaces, runtime__v1__namespace__init) < 0)
        return -1;
    if (asked != NULL) {
        s->linux->namespaces->options = asked;
        return 0;
    }
    return cri_make(ctx, &s->linux->namespaces->options, runtime__v1__namespace_option__init);
}

static int add_ips(const struct cri_ctx *ctx, const struct sandbox_info *info,
                   Runtime__V1__PodSandboxStatus *s, struct err *err)
{
    Runtime__V1__PodSandboxNetworkStatus *network;
    if (cri_make(ctx, &network, runtime__v1__pod_sandbox_network_status__init) < 0 ||
        cri_text(ctx, info->n_ips > 0 ? info->ips[0] : "", &network->ip, err) < 0 ||
        cri_array(ctx, info->n_ips, &network->additional_ips, err) < 0)
        return -1;
    for (size_t i = 1; i < info->n_ips; i++) {
        Runtime__V1__PodIP *ip;
        if (cri_make(ctx, &ip, runtime__v1__pod_ip__init) < 0 ||
            cri_text(ctx, info->ips[i], &ip->ip, err) < 0)
            return -1;
        network->additional_ips[network->n_additional_ips++] = ip;
    }
    s->network = network;
    return 0;
}

int cri_make_pod_status(const struct cri_ctx *ctx, const struct sandbox_info *info,
                        Runtime__V1__PodSandboxStatus **ret_status, struct err *err)
{
    const Runtime__V1__PodSandboxConfig *c = info->config;
    Runtime__V1__PodSandboxStatus *s;
    if (cri_make(ctx, &s, runtime__v1__pod_sandbox_status__init) < 0 ||
        cri_text(ctx, info->id, &s->id, err) < 0 ||
        cri_text(ctx, info->runtime_handler, &s->runtime_handler, err) < 0 ||
        add_ips(ctx, info, s, err) < 0 || add_namespaces(ctx, c, s, err) < 0 ||
        cri_map(ctx, c->n_labels, c->labels,
                &runtime__v1__pod_sandbox_status__labels_entry__descriptor, &s->labels, err) < 0 ||
        cri_map(ctx, c->n_annotations, c->annotations,
                &runtime__v1__pod_sandbox_status__annotations_entry__descriptor, &s->annotations,
                err) < 0)
        return -1;
    s->n_labels = c->n_labels;
    s->n_annotations = c->n_annotations;
    s->metadata = c->metadata;
    s->state = state_of(info);
    s->created_at = info->created_ns;
    *ret_status = s;
    return 0;
}

static int method_pod_sandbox_status(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                     struct err *err)
{
    const Runtime__V1__PodSandboxStatusRequest *q =
        (const Runtime__V1__PodSandboxStatusRequest *)ctx->request;
    struct sandbox_info *info = cri_hold(ctx, sizeof(*info), release_info);
    if (info == NULL)
        return err_no_memory(err);
    Runtime__V1__PodSandboxStatusResponse *m;
    if (sandbox_status(ctx->cri->config.sandboxes, q->pod_sandbox_id, info, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__pod_sandbox_status_response__init) < 0 ||
        cri_make_pod_status(ctx, info, &m->status, err) < 0 ||
        (q->verbose && add_info(ctx, info, m, err) < 0))
        return -1;
    m->timestamp = clock_realtime_ns();
    *ret_reply = &m->base;
    return 0;
}

static int method_list_pod_sandbox(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                   struct err *err)
{
    const Runtime__V1__ListPodSandboxRequest *q =
        (const Runtime__V1__ListPodSandboxRequest *)ctx->request;
    struct sandbox_list *list = cri_hold(ctx, sizeof(*list), release_list);
    if (list == NULL)
        return err_no_memory(err);
    Runtime__V1__ListPodSandboxResponse *m;
    if (sandbox_list(ctx->cri->config.sandboxes, q->filter, list, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__list_pod_sandbox_response__init) < 0 ||
        cri_array(ctx, list->n, &m->items, err) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++) {
        const struct sandbox_info *info = &list->items[i];
        const Runtime__V1__PodSandboxConfig *c = info->config;
        Runtime__V1__PodSandbox *p;
        if (cri_make(ctx, &p, runtime__v1__pod_sandbox__init) < 0 ||
            cri_text(ctx, info->id, &p->id, err) < 0 ||
            cri_text(ctx, info->runtime_handler, &p->runtime_handler, err) < 0 ||
            cri_map(ctx, c->n_labels, c->labels,
                    &runtime__v1__pod_sandbox__labels_entry__descriptor, &p->labels, err) < 0 ||
            cri_map(ctx, c->n_annotations, c->annotations,
                    &runtime__v1__pod_sandbox__annotations_entry__descriptor, &p->annotations,
                    err) < 0)
            return -1;
        p->n_labels = c->n_labels;
        p->n_annotations = c->n_annotations;
        p->metadata = c->metadata;
        p->state = state_of(info);
        p->created_at = info->created_ns;
        m->items[m->n_items++] = p;
    }
    *ret_reply = &m->base;
    return 0;
}

const struct cri_method *cri_pod_methods(void)
{
    static const struct cri_method methods[] = {
        {"RunPodSandbox", method_run_pod_sandbox, true},
        {"StopPodSandbox", method_stop_pod_sandbox, true},
        {"RemovePodSandbox", method_remove_pod_sandbox, true},
        {"UpdatePodSandboxResources", method_update_pod, true},
        {"PodSandboxStatus", method_pod_sandbox_status, false},
        {"ListPodSandbox", method_list_pod_sandbox, false},
        {0},
    };
    return methods;
}
