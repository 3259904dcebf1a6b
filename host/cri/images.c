/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image methods. What the kubelet builds on: ImageStatus of an image that is not there is an
 * empty reply and not an error, RemoveImage of one succeeds, and the id in a reply is what it will
 * ask for next.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/cri/method.h"
#include "host/image/image.h"
#include "host/sandbox/sandbox.h"

static void release_image(void *object)
{
    image_unref(*(struct image **)object);
}

static void release_image_list(void *object)
{
    image_list_fini(object);
}

/* Shares the strings, which live as long as the image is held. */
static int share_strings(const struct cri_ctx *ctx, const struct image_strings *in, size_t *ret_n,
                         char ***ret_items, struct err *err)
{
    if (cri_array(ctx, in->n, ret_items, err) < 0)
        return -1;
    if (in->n > 0)
        memcpy(*ret_items, in->items, in->n * sizeof(char *));
    *ret_n = in->n;
    return 0;
}

static int make_image(const struct cri_ctx *ctx, const struct image *image,
                      Runtime__V1__Image **ret_image, struct err *err)
{
    Runtime__V1__Image *m;
    if (cri_make(ctx, &m, runtime__v1__image__init) < 0 ||
        cri_text(ctx, image->id, &m->id, err) < 0 ||
        cri_text(ctx, image->username, &m->username, err) < 0 ||
        share_strings(ctx, &image->repo_tags, &m->n_repo_tags, &m->repo_tags, err) < 0 ||
        share_strings(ctx, &image->repo_digests, &m->n_repo_digests, &m->repo_digests, err) < 0)
        return -1;
    m->size = image->size_bytes;
    m->pinned = image->pinned;
    if (image->has_uid) {
        if (cri_make(ctx, &m->uid, runtime__v1__int64_value__init) < 0)
            return -1;
        m->uid->value = image->uid;
    }
    if (cri_make(ctx, &m->spec, runtime__v1__image_spec__init) < 0 ||
        cri_text(ctx, image->id, &m->spec->image, err) < 0)
        return -1;
    *ret_image = m;
    return 0;
}

static int method_list_images(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__ListImagesRequest *q = (const Runtime__V1__ListImagesRequest *)ctx->request;
    struct image_list *list = cri_hold(ctx, sizeof(*list), release_image_list);
    Runtime__V1__ListImagesResponse *m;
    if (list == NULL)
        return err_no_memory(err);
    if (cri_make(ctx, &m, runtime__v1__list_images_response__init) < 0)
        return -1;
    *ret_reply = &m->base;

    const char *wanted =
        q->filter != NULL && q->filter->image != NULL ? q->filter->image->image : "";
    if (*wanted != '\0') {
        struct image **one = cri_hold(ctx, sizeof(*one), release_image);
        if (one == NULL)
            return err_no_memory(err);
        if (image_get(ctx->cri->config.images, wanted, one, err) < 0)
            return err->code == ERR_NOT_FOUND ? 0 : -1;
        if (cri_array(ctx, 1, &m->images, err) < 0 || make_image(ctx, *one, &m->images[0], err) < 0)
            return -1;
        m->n_images = 1;
        return 0;
    }
    if (image_list(ctx->cri->config.images, list, err) < 0 ||
        cri_array(ctx, list->n, &m->images, err) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++, m->n_images++) {
        if (make_image(ctx, list->items[i], &m->images[i], err) < 0)
            return -1;
    }
    return 0;
}

static int method_image_status(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__ImageStatusRequest *q =
        (const Runtime__V1__ImageStatusRequest *)ctx->request;
    if (q->image == NULL || *q->image->image == '\0')
        return err_set(err, ERR_INVALID, "image is required");
    Runtime__V1__ImageStatusResponse *m;
    struct image **image = cri_hold(ctx, sizeof(*image), release_image);
    if (image == NULL)
        return err_no_memory(err);
    if (cri_make(ctx, &m, runtime__v1__image_status_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    if (image_get(ctx->cri->config.images, q->image->image, image, err) < 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    if (make_image(ctx, *image, &m->image, err) < 0)
        return -1;
    if (q->verbose) {
        if (cri_map_entry(ctx, "imageSpec", (*image)->config_json,
                          &runtime__v1__image_status_response__info_entry__descriptor, &m->info,
                          err) < 0)
            return -1;
        m->n_info = 1;
    }
    return 0;
}

static bool call_cancelled(void *arg)
{
    return rpc_call_cancelled(arg);
}

static const char *or_null(const char *text)
{
    return text == NULL || *text == '\0' ? NULL : text;
}

static int method_pull_image(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__PullImageRequest *q = (const Runtime__V1__PullImageRequest *)ctx->request;
    if (q->image == NULL || *q->image->image == '\0')
        return err_set(err, ERR_INVALID, "image is required");
    struct image_auth auth = {0};
    if (q->auth != NULL)
        auth = (struct image_auth){.username = or_null(q->auth->username),
                                   .password = or_null(q->auth->password),
                                   .auth = or_null(q->auth->auth),
                                   .identity_token = or_null(q->auth->identity_token),
                                   .registry_token = or_null(q->auth->registry_token),
                                   .server_address = or_null(q->auth->server_address)};
    struct image_pull_spec spec = {.reference = q->image->image,
                                   .auth = q->auth == NULL ? NULL : &auth,
                                   .deadline_ms = ctx->deadline_ms,
                                   .cancelled = call_cancelled,
                                   .arg = ctx->call};
    cleanup_free char *id = NULL;
    Runtime__V1__PullImageResponse *m;
    if (image_pull(ctx->cri->config.images, &spec, &id, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__pull_image_response__init) < 0 ||
        cri_text(ctx, id, &m->image_ref, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_remove_image(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__RemoveImageRequest *q =
        (const Runtime__V1__RemoveImageRequest *)ctx->request;
    if (q->image == NULL || *q->image->image == '\0')
        return err_set(err, ERR_INVALID, "image is required");
    Runtime__V1__RemoveImageResponse *m;
    if (image_remove(ctx->cri->config.images, q->image->image, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__remove_image_response__init) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int make_usage(const struct cri_ctx *ctx, const char *mountpoint, uint64_t bytes,
                      uint64_t inodes, Runtime__V1__FilesystemUsage **ret_usage, struct err *err)
{
    Runtime__V1__FilesystemUsage *u;
    if (cri_make(ctx, &u, runtime__v1__filesystem_usage__init) < 0 ||
        cri_make(ctx, &u->fs_id, runtime__v1__filesystem_identifier__init) < 0 ||
        cri_text(ctx, mountpoint, &u->fs_id->mountpoint, err) < 0 ||
        cri_make(ctx, &u->used_bytes, runtime__v1__uint64_value__init) < 0 ||
        cri_make(ctx, &u->inodes_used, runtime__v1__uint64_value__init) < 0)
        return -1;
    u->timestamp = clock_realtime_ns();
    u->used_bytes->value = bytes;
    u->inodes_used->value = inodes;
    *ret_usage = u;
    return 0;
}

static int method_image_fs_info(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    struct image_fs_info images = {0};
    struct sandbox_fs_info pods = {0};
    Runtime__V1__ImageFsInfoResponse *m;
    if (image_fs_info(ctx->cri->config.images, &images, err) < 0 ||
        sandbox_fs_info(ctx->cri->config.sandboxes, &pods, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__image_fs_info_response__init) < 0 ||
        cri_array(ctx, 1, &m->image_filesystems, err) < 0 ||
        cri_array(ctx, 1, &m->container_filesystems, err) < 0 ||
        make_usage(ctx, images.mountpoint, images.used_bytes, images.inodes,
                   &m->image_filesystems[0], err) < 0 ||
        make_usage(ctx, pods.mountpoint, pods.used_bytes, pods.inodes, &m->container_filesystems[0],
                   err) < 0)
        return -1;
    m->n_image_filesystems = 1;
    m->n_container_filesystems = 1;
    *ret_reply = &m->base;
    return 0;
}

const struct cri_method *cri_image_methods(void)
{
    static const struct cri_method methods[] = {
        {"ListImages", method_list_images, false},    {"ImageStatus", method_image_status, false},
        {"PullImage", method_pull_image, true},       {"RemoveImage", method_remove_image, true},
        {"ImageFsInfo", method_image_fs_info, false}, {0},
    };
    return methods;
}
