/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The container methods. A container's image is shown by its name where it has one now, as
 * containerd does, because the kubelet and people compare it with the pod's spec; image_ref and
 * image_id stay what they were at creation.
 */
#include <stdlib.h>

#include "host/cri/method.h"
#include "host/image/image.h"
#include "host/sandbox/sandbox.h"

static void release_info(void *object)
{
    sandbox_container_info_fini(object);
}

static void release_list(void *object)
{
    sandbox_container_list_fini(object);
}

static void release_output(void *object)
{
    sandbox_exec_output_fini(object);
}

static int method_create_container(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                   struct err *err)
{
    const Runtime__V1__CreateContainerRequest *q =
        (const Runtime__V1__CreateContainerRequest *)ctx->request;
    if (q->config == NULL || q->config->metadata == NULL)
        return err_set(err, ERR_INVALID, "config.metadata is required");
    if (q->config->image == NULL || *q->config->image->image == '\0')
        return err_set(err, ERR_INVALID, "config.image is required");
    char id[SANDBOX_ID_SIZE];
    Runtime__V1__CreateContainerResponse *m;
    if (sandbox_container_create(ctx->cri->config.sandboxes, q->pod_sandbox_id, q->config,
                                 q->sandbox_config, ctx->deadline_ms, id, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__create_container_response__init) < 0 ||
        cri_text(ctx, id, &m->container_id, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_start_container(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                  struct err *err)
{
    const Runtime__V1__StartContainerRequest *q =
        (const Runtime__V1__StartContainerRequest *)ctx->request;
    Runtime__V1__StartContainerResponse *m;
    if (sandbox_container_start(ctx->cri->config.sandboxes, q->container_id, ctx->deadline_ms,
                                err) < 0 ||
        cri_make(ctx, &m, runtime__v1__start_container_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_stop_container(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__StopContainerRequest *q =
        (const Runtime__V1__StopContainerRequest *)ctx->request;
    Runtime__V1__StopContainerResponse *m;
    if (sandbox_container_stop(ctx->cri->config.sandboxes, q->container_id, q->timeout,
                               ctx->deadline_ms, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__stop_container_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_remove_container(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                   struct err *err)
{
    const Runtime__V1__RemoveContainerRequest *q =
        (const Runtime__V1__RemoveContainerRequest *)ctx->request;
    Runtime__V1__RemoveContainerResponse *m;
    if (sandbox_container_remove(ctx->cri->config.sandboxes, q->container_id, ctx->deadline_ms,
                                 err) < 0 ||
        cri_make(ctx, &m, runtime__v1__remove_container_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_update_resources(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                   struct err *err)
{
    const Runtime__V1__UpdateContainerResourcesRequest *q =
        (const Runtime__V1__UpdateContainerResourcesRequest *)ctx->request;
    Runtime__V1__UpdateContainerResourcesResponse *m;
    if (q->windows != NULL)
        return err_set(err, ERR_UNSUPPORTED, "windows: this is a Linux runtime");
    if (q->linux == NULL)
        return err_set(err, ERR_INVALID, "linux is required");
    if (sandbox_container_update(ctx->cri->config.sandboxes, q->container_id, q->linux,
                                 ctx->deadline_ms, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__update_container_resources_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_reopen_container_log(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                       struct err *err)
{
    const Runtime__V1__ReopenContainerLogRequest *q =
        (const Runtime__V1__ReopenContainerLogRequest *)ctx->request;
    Runtime__V1__ReopenContainerLogResponse *m;
    if (sandbox_container_reopen_log(ctx->cri->config.sandboxes, q->container_id, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__reopen_container_log_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_exec_sync(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__ExecSyncRequest *q = (const Runtime__V1__ExecSyncRequest *)ctx->request;
    if (q->n_cmd == 0)
        return err_set(err, ERR_INVALID, "cmd is required");
    if (q->timeout < 0)
        return err_set(err, ERR_INVALID, "timeout is negative");
    struct sandbox_exec_output *o = cri_hold(ctx, sizeof(*o), release_output);
    if (o == NULL)
        return err_no_memory(err);
    struct sandbox_exec spec = {.container_id = q->container_id,
                                .args = q->cmd,
                                .n_args = q->n_cmd,
                                .timeout_s = q->timeout,
                                .deadline_ms = ctx->deadline_ms};
    Runtime__V1__ExecSyncResponse *m;
    if (sandbox_container_exec(ctx->cri->config.sandboxes, &spec, o, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__exec_sync_response__init) < 0)
        return -1;
    m->stdout = (ProtobufCBinaryData){.len = o->out_len, .data = o->out};
    m->stderr = (ProtobufCBinaryData){.len = o->err_len, .data = o->err_out};
    m->exit_code = o->exit_code;
    *ret_reply = &m->base;
    return 0;
}

/* The image by its first tag if it has one, else as the client named it. */
static int make_image_spec(const struct cri_ctx *ctx, const struct sandbox_container_info *info,
                           Runtime__V1__ImageSpec **ret_spec, struct err *err)
{
    Runtime__V1__ImageSpec *s;
    if (cri_make(ctx, &s, runtime__v1__image_spec__init) < 0)
        return -1;
    const Runtime__V1__ImageSpec *asked = info->config->image;
    const char *name = asked == NULL ? info->image_id : asked->image;
    cleanup_image struct image *image = NULL;
    struct err gone = {0};
    if (image_get(ctx->cri->config.images, info->image_id, &image, &gone) == 0 &&
        image->repo_tags.n > 0)
        name = image->repo_tags.items[0];
    if (cri_text(ctx, name, &s->image, err) < 0)
        return -1;
    if (asked != NULL) {
        s->user_specified_image = asked->user_specified_image;
        s->runtime_handler = asked->runtime_handler;
    }
    *ret_spec = s;
    return 0;
}

static int add_user(const struct cri_ctx *ctx, const struct sandbox_container_info *info,
                    Runtime__V1__ContainerStatus *s)
{
    struct err *err = NULL;
    if (!info->has_user)
        return 0;
    if (cri_make(ctx, &s->user, runtime__v1__container_user__init) < 0 ||
        cri_make(ctx, &s->user->linux, runtime__v1__linux_container_user__init) < 0)
        return -1;
    s->user->linux->uid = info->uid;
    s->user->linux->gid = info->gid;
    s->user->linux->supplemental_groups = cri_alloc(ctx, (info->n_groups + 1) * sizeof(int64_t));
    if (s->user->linux->supplemental_groups == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < info->n_groups; i++)
        s->user->linux->supplemental_groups[i] = info->groups[i];
    s->user->linux->n_supplemental_groups = info->n_groups;
    return 0;
}

int cri_make_container_status(const struct cri_ctx *ctx, const struct sandbox_container_info *info,
                              Runtime__V1__ContainerStatus **ret_status, struct err *err)
{
    const Runtime__V1__ContainerConfig *c = info->config;
    Runtime__V1__ContainerStatus *s;
    if (cri_make(ctx, &s, runtime__v1__container_status__init) < 0 ||
        cri_text(ctx, info->id, &s->id, err) < 0 ||
        cri_text(ctx, info->image_ref, &s->image_ref, err) < 0 ||
        cri_text(ctx, info->image_id, &s->image_id, err) < 0 ||
        cri_text(ctx, info->reason, &s->reason, err) < 0 ||
        cri_text(ctx, info->message, &s->message, err) < 0 ||
        cri_text(ctx, info->log_path, &s->log_path, err) < 0 ||
        make_image_spec(ctx, info, &s->image, err) < 0 ||
        cri_map(ctx, c->n_labels, c->labels,
                &runtime__v1__container_status__labels_entry__descriptor, &s->labels, err) < 0 ||
        cri_map(ctx, c->n_annotations, c->annotations,
                &runtime__v1__container_status__annotations_entry__descriptor, &s->annotations,
                err) < 0)
        return -1;
    if (add_user(ctx, info, s) < 0)
        return err_no_memory(err);
    s->n_labels = c->n_labels;
    s->n_annotations = c->n_annotations;
    s->metadata = c->metadata;
    s->state = info->state;
    s->created_at = info->created_ns;
    s->started_at = info->started_ns;
    s->finished_at = info->finished_ns;
    s->exit_code = info->exit_code;
    s->stop_signal = info->stop_signal;
    s->n_mounts = c->n_mounts;
    s->mounts = c->mounts;
    if (info->resources != NULL) {
        if (cri_make(ctx, &s->resources, runtime__v1__container_resources__init) < 0)
            return -1;
        /* Only encoded. */
        s->resources->linux = (Runtime__V1__LinuxContainerResources *)(uintptr_t)info->resources;
    }
    *ret_status = s;
    return 0;
}

static int method_container_status(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                   struct err *err)
{
    const Runtime__V1__ContainerStatusRequest *q =
        (const Runtime__V1__ContainerStatusRequest *)ctx->request;
    struct sandbox_container_info *info = cri_hold(ctx, sizeof(*info), release_info);
    if (info == NULL)
        return err_no_memory(err);
    Runtime__V1__ContainerStatusResponse *m;
    if (sandbox_container_status(ctx->cri->config.sandboxes, q->container_id, info, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__container_status_response__init) < 0 ||
        cri_make_container_status(ctx, info, &m->status, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_list_containers(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                  struct err *err)
{
    const Runtime__V1__ListContainersRequest *q =
        (const Runtime__V1__ListContainersRequest *)ctx->request;
    struct sandbox_container_list *list = cri_hold(ctx, sizeof(*list), release_list);
    if (list == NULL)
        return err_no_memory(err);
    Runtime__V1__ListContainersResponse *m;
    if (sandbox_container_list(ctx->cri->config.sandboxes, q->filter, list, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__list_containers_response__init) < 0 ||
        cri_array(ctx, list->n, &m->containers, err) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++) {
        const struct sandbox_container_info *info = &list->items[i];
        const Runtime__V1__ContainerConfig *c = info->config;
        Runtime__V1__Container *o;
        if (cri_make(ctx, &o, runtime__v1__container__init) < 0 ||
            cri_text(ctx, info->id, &o->id, err) < 0 ||
            cri_text(ctx, info->pod_id, &o->pod_sandbox_id, err) < 0 ||
            cri_text(ctx, info->image_ref, &o->image_ref, err) < 0 ||
            cri_text(ctx, info->image_id, &o->image_id, err) < 0 ||
            cri_map(ctx, c->n_labels, c->labels, &runtime__v1__container__labels_entry__descriptor,
                    &o->labels, err) < 0 ||
            cri_map(ctx, c->n_annotations, c->annotations,
                    &runtime__v1__container__annotations_entry__descriptor, &o->annotations,
                    err) < 0)
            return -1;
        o->n_labels = c->n_labels;
        o->n_annotations = c->n_annotations;
        o->metadata = c->metadata;
        o->image = c->image;
        o->state = info->state;
        o->created_at = info->created_ns;
        m->containers[m->n_containers++] = o;
    }
    *ret_reply = &m->base;
    return 0;
}

const struct cri_method *cri_container_methods(void)
{
    static const struct cri_method methods[] = {
        {"CreateContainer", method_create_container, true},
        {"StartContainer", method_start_container, true},
        {"StopContainer", method_stop_container, true},
        {"RemoveContainer", method_remove_container, true},
        {"ListContainers", method_list_containers, false},
        {"ContainerStatus", method_container_status, false},
        {"ExecSync", method_exec_sync, false},
        {"ReopenContainerLog", method_reopen_container_log, true},
        {"UpdateContainerResources", method_update_resources, true},
        {0},
    };
    return methods;
}
