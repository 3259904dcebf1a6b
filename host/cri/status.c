/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version, Status and RuntimeConfig: what the kubelet asks before it trusts a runtime with pods,
 * and what crictl info shows. A pod in software emulation is slower by an order of magnitude, so
 * RuntimeReady's message says it even when it is true.
 */
#include <jansson.h>
#include <string.h>

#include "host/cri/method.h"

#define KUBE_API_VERSION "0.1.0"

static int method_version(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    Runtime__V1__VersionResponse *m;
    if (cri_make(ctx, &m, runtime__v1__version_response__init) < 0)
        return -1;
    bool alpha = strstr(rpc_call_service(ctx->call), ".v1alpha2.") != NULL;
    if (cri_text(ctx, KUBE_API_VERSION, &m->version, err) < 0 ||
        cri_text(ctx, "casemate", &m->runtime_name, err) < 0 ||
        cri_text(ctx, CASEMATE_VERSION, &m->runtime_version, err) < 0 ||
        cri_text(ctx, alpha ? "v1alpha2" : "v1", &m->runtime_api_version, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int make_condition(const struct cri_ctx *ctx, const char *type, bool status,
                          const char *reason, const char *message,
                          Runtime__V1__RuntimeCondition **ret_condition, struct err *err)
{
    Runtime__V1__RuntimeCondition *c;
    if (cri_make(ctx, &c, runtime__v1__runtime_condition__init) < 0 ||
        cri_text(ctx, type, &c->type, err) < 0 || cri_text(ctx, reason, &c->reason, err) < 0 ||
        cri_text(ctx, message, &c->message, err) < 0)
        return -1;
    c->status = status;
    *ret_condition = c;
    return 0;
}

/* The handlers of the configuration; NULL when out of memory. */
static json_t *make_handlers(const struct cri_config *c, const struct cri_daemon_status *d)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < c->n_handlers; i++) {
        const struct cri_handler *h = &c->handlers[i];
        if (json_array_append_new(
                list, json_pack("{s:s, s:s, s:b, s:s}", "name", h->name, "machine", h->machine,
                                "template", h->clones, "accelerator",
                                h->accelerator == NULL ? d->accelerator : h->accelerator)) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static int add_info(const struct cri_ctx *ctx, const struct cri_daemon_status *d,
                    Runtime__V1__StatusResponse *m, struct err *err)
{
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:{s:i, s:I, s:I, s:i}}", "version",
        CASEMATE_VERSION, "accelerator", d->accelerator, "acceleratorReason", d->accelerator_reason,
        "qemu", d->qemu_version, "transport", d->transport, "guestKernel", d->guest_kernel_path,
        "network", d->network, "handlers", make_handlers(&ctx->cri->config, d), "templates",
        "count", (int)d->templates.count, "bytes", (json_int_t)d->templates.bytes, "maxBytes",
        (json_int_t)d->templates.max_bytes, "refused", (int)d->templates.refused);
    char *text = j == NULL ? NULL : json_dumps(j, JSON_COMPACT);
    json_decref(j);
    if (text == NULL)
        return err_no_memory(err);
    int r = cri_map_entry(ctx, "casemate", text,
                          &runtime__v1__status_response__info_entry__descriptor, &m->info, err);
    free(text);
    if (r == 0)
        m->n_info = 1;
    return r;
}

/* What they can is the guest's, the same for all. Read-only mounts are volumes, which there are
 * not.
 */
static int add_handlers(const struct cri_ctx *ctx, Runtime__V1__StatusResponse *m, struct err *err)
{
    const struct cri_config *c = &ctx->cri->config;
    if (cri_array(ctx, c->n_handlers, &m->runtime_handlers, err) < 0)
        return -1;
    for (size_t i = 0; i < c->n_handlers; i++) {
        Runtime__V1__RuntimeHandler *h;
        if (cri_make(ctx, &h, runtime__v1__runtime_handler__init) < 0 ||
            cri_text(ctx, c->handlers[i].name, &h->name, err) < 0 ||
            cri_make(ctx, &h->features, runtime__v1__runtime_handler_features__init) < 0)
            return -1;
        h->features->user_namespaces = true;
        m->runtime_handlers[m->n_runtime_handlers++] = h;
    }
    return 0;
}

static int method_status(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__StatusRequest *q = (const Runtime__V1__StatusRequest *)ctx->request;
    struct cri_daemon_status d = {0};
    ctx->cri->config.get_status(ctx->cri->config.get_status_arg, &d);

    Runtime__V1__StatusResponse *m;
    if (cri_make(ctx, &m, runtime__v1__status_response__init) < 0 ||
        cri_make(ctx, &m->status, runtime__v1__runtime_status__init) < 0 ||
        cri_make(ctx, &m->features, runtime__v1__runtime_features__init) < 0 ||
        cri_array(ctx, 2, &m->status->conditions, err) < 0 ||
        make_condition(ctx, "RuntimeReady", d.runtime_ready,
                       d.runtime_ready ? "" : "VirtualMachinesUnavailable", d.runtime_message,
                       &m->status->conditions[0], err) < 0 ||
        make_condition(ctx, "NetworkReady", d.network_ready,
                       d.network_ready ? "" : "NetworkPluginNotReady", d.network_message,
                       &m->status->conditions[1], err) < 0 ||
        add_handlers(ctx, m, err) < 0)
        return -1;
    m->status->n_conditions = 2;
    m->features->supplemental_groups_policy = true;
    if (q->verbose && add_info(ctx, &d, m, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

/* The host's cgroups are managed through their files, whatever manages the rest of the host. */
static int method_runtime_config(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    Runtime__V1__RuntimeConfigResponse *m;
    if (cri_make(ctx, &m, runtime__v1__runtime_config_response__init) < 0 ||
        cri_make(ctx, &m->linux, runtime__v1__linux_runtime_configuration__init) < 0)
        return -1;
    m->linux->cgroup_driver = RUNTIME__V1__CGROUP_DRIVER__CGROUPFS;
    *ret_reply = &m->base;
    return 0;
}

/* The kubelet tells the node's pod CIDRs once it knows them, and again when they change. */
static int method_update_runtime_config(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                        struct err *err)
{
    const struct cri_config *c = &ctx->cri->config;
    const Runtime__V1__UpdateRuntimeConfigRequest *q =
        (const Runtime__V1__UpdateRuntimeConfigRequest *)ctx->request;
    const Runtime__V1__NetworkConfig *network =
        q->runtime_config == NULL ? NULL : q->runtime_config->network_config;
    Runtime__V1__UpdateRuntimeConfigResponse *m;
    if (cri_make(ctx, &m, runtime__v1__update_runtime_config_response__init) < 0)
        return -1;
    if (network != NULL && *network->pod_cidr != '\0' &&
        c->set_pod_cidr(c->set_pod_cidr_arg, network->pod_cidr, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

const struct cri_method *cri_status_methods(void)
{
    static const struct cri_method methods[] = {
        {"Version", method_version, false},
        {"Status", method_status, false},
        {"RuntimeConfig", method_runtime_config, false},
        {"UpdateRuntimeConfig", method_update_runtime_config, true},
        {0},
    };
    return methods;
}
