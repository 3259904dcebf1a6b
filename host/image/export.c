/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Export: an OCI image layout (image-spec 1.1, image-layout.md) of one image. The layers are kept
 * as filesystem images only, so each is turned into a tar again by the confined converter, and the
 * config gets the new tars' digests as its diff ids: what comes out means the same image, under
 * another id. Everything but that list is the config as the registry sent it.
 *
 * The layout is built in a folder beside its destination and renamed when it is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "common/base/buf.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/catalog.h"
#include "host/image/content.h"
#include "host/image/converter.h"
#include "host/image/manifest.h"
#include "host/image/service.h"

#define MEDIA_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_CONFIG   "application/vnd.oci.image.config.v1+json"
#define MEDIA_LAYER    "application/vnd.oci.image.layer.v1.tar"
#define BLOBS          "blobs/sha256"

enum { CHUNK = 256 * 1024 };

struct export
{
    struct image_service *svc;
    const struct image_export_spec *spec;
    struct http_limits limits;
    struct image *image;
    char(*diff_ids)[DIGEST_TEXT_SIZE]; /* of the config */
    size_t n;
    char *folder; /* the layout as it grows; NULL: not made, or renamed */
    int folder_fd;
    int blobs_fd;
    struct descriptor *layers; /* the new tars, of the same count */
    struct image_progress progress;
};

static void export_fini(struct export *x)
{
    close_fd(&x->blobs_fd);
    close_fd(&x->folder_fd);
    if (x->folder != NULL)
        (void)fd_remove_tree(AT_FDCWD, x->folder, NULL);
    free(x->folder);
    free(x->layers);
    free(x->diff_ids);
    image_unref(x->image);
}
#define cleanup_export CLEANUP(export_fini)

static void report(struct export *x, uint64_t bytes, unsigned layers)
{
    x->progress.bytes_done += bytes;
    x->progress.layers_done += layers;
    if (x->spec->progress != NULL)
        x->spec->progress(x->spec->arg, &x->progress);
}

/* ---- files of the layout ---- */

static int make_folder(struct export *x, struct err *err)
{
    struct stat st;
    char suffix[2 * 8 + 1];
    if (lstat(x->spec->path, &st) == 0)
        return err_set(err, ERR_EXISTS, "it exists");
    text_random_hex(8, suffix);
    x->folder = text_printf("%s.partial-%s", x->spec->path, suffix);
    if (x->folder == NULL)
        return err_no_memory(err);
    if (mkdir(x->folder, 0755) < 0)
        return err_set_errno(err, errno, "make '%s'", x->folder);
    x->folder_fd = open(x->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (x->folder_fd < 0 || mkdirat(x->folder_fd, "blobs", 0755) < 0 ||
        mkdirat(x->folder_fd, BLOBS, 0755) < 0)
        return err_set_errno(err, errno, "make '%s'", x->folder);
    x->blobs_fd = openat(x->folder_fd, BLOBS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return x->blobs_fd < 0 ? err_set_errno(err, errno, "open '%s'", x->folder) : 0;
}

/* A JSON document as a blob. Takes the object over. */
static int put_document(struct export *x, json_t *root, struct descriptor *ret_d, struct err *err)
{
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text == NULL)
        return err_no_memory(err);
    size_t n = strlen(text);
    int rc = digest_of(text, n, ret_d->digest, err);
    ret_d->size = n;
    if (rc == 0)
        rc = fd_write_file_atomic(x->blobs_fd, digest_hex(ret_d->digest), text, n, 0644, err);
    free(text);
    return rc;
}

/* ---- layers ---- */

static int write_tar(struct export *x, size_t i, int out_fd, struct err *err)
{
    cleanup_converter struct converter *converter = NULL;
    cleanup_fd int layer = -1;
    struct convert_result result;
    if (content_open_layer(x->svc->content, x->diff_ids[i], &layer, NULL, err) < 0)
        return -1;
    struct converter_spec spec;
    converter_spec_init(&spec, &x->svc->config, out_fd, &x->limits);
    spec.task = CONVERTER_RETAR;
    spec.layers = &layer;
    spec.n_layers = 1;
    if (converter_start(&spec, &converter, err) < 0 ||
        converter_finish(converter, &result, err) < 0)
        return -1;
    if (result.xattrs_dropped > 0)
        log_info("layer %s: %u sockets are left out, tar has no word for them", x->diff_ids[i],
                 result.xattrs_dropped);
    return 0;
}

static int hash_file(int fd, struct descriptor *ret_d, struct err *err)
{
    cleanup_hasher struct hasher *hasher = NULL;
    cleanup_free char *chunk = malloc(CHUNK);
    uint8_t raw[DIGEST_BYTES];
    uint64_t at = 0;
    if (chunk == NULL)
        return err_no_memory(err);
    if (hasher_new(&hasher, err) < 0)
        return -1;
    for (;;) {
        ssize_t n = pread(fd, chunk, CHUNK, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read a layer's tar");
        if (n == 0)
            break;
        hasher_update(hasher, chunk, (size_t)n);
        at += (uint64_t)n;
    }
    hasher_final(hasher, raw);
    digest_format(raw, ret_d->digest);
    ret_d->size = at;
    return 0;
}

static int export_layer(struct export *x, size_t i, struct err *err)
{
    static const char name[] = "layer.partial";
    uint64_t image_bytes = 0;
    for (size_t k = 0; k < i; k++) {
        if (strcmp(x->diff_ids[k], x->diff_ids[i]) == 0) { /* there twice */
            x->layers[i] = x->layers[k];
            return 0;
        }
    }
    cleanup_fd int fd =
        openat(x->blobs_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set_errno(err, errno, "make a layer's file");
    if (write_tar(x, i, fd, err) < 0 || hash_file(fd, &x->layers[i], err) < 0)
        return -1;
    if (fsync(fd) < 0)
        return err_set_errno(err, errno, "sync a layer's tar");
    if (renameat(x->blobs_fd, name, x->blobs_fd, digest_hex(x->layers[i].digest)) < 0)
        return err_set_errno(err, errno, "rename a layer's tar");
    (void)content_stat_layer(x->svc->content, x->diff_ids[i], &image_bytes, NULL);
    report(x, image_bytes, 1);
    return 0;
}

static int export_layers(struct export *x, struct err *err)
{
    if (manifest_parse_diff_ids(x->image->config_json, strlen(x->image->config_json), &x->diff_ids,
                                &x->n, err) < 0)
        return -1;
    x->layers = calloc(x->n + 1, sizeof(*x->layers));
    if (x->layers == NULL)
        return err_no_memory(err);
    x->progress.layers_total = (unsigned)x->n;
    for (size_t i = 0; i < x->n; i++) {
        uint64_t size = 0;
        if (content_stat_layer(x->svc->content, x->diff_ids[i], &size, err) < 0)
            return -1;
        x->progress.bytes_total += size;
    }
    for (size_t i = 0; i < x->n; i++)
        if (export_layer(x, i, err) < 0)
            return err_prefix(err, "layer %zu of %zu", i + 1, x->n);
    return 0;
}

/* ---- documents ---- */

static json_t *describe(const char *media_type, const struct descriptor *d)
{
    return json_pack("{s:s, s:s, s:I}", "mediaType", media_type, "digest", d->digest, "size",
                     (json_int_t)d->size);
}

/* The config with the new diff ids. */
static int export_config(struct export *x, struct descriptor *ret_d, struct err *err)
{
    json_error_t why;
    json_t *config = json_loads(x->image->config_json, 0, &why);
    json_t *rootfs = json_object_get(config, "rootfs");
    json_t *ids = json_array();
    int bad = rootfs == NULL || ids == NULL ? -1 : 0;
    for (size_t i = 0; i < x->n; i++)
        bad |= json_array_append_new(ids, json_string(x->layers[i].digest));
    bad |= json_object_set_new(rootfs, "diff_ids", ids); /* takes ids over, also when it fails */
    if (bad != 0) {
        json_decref(config);
        return err_no_memory(err);
    }
    return put_document(x, config, ret_d, err);
}

static int export_manifest(struct export *x, const struct descriptor *config,
                           struct descriptor *ret_d, struct err *err)
{
    json_t *layers = json_array();
    int bad = layers == NULL ? -1 : 0;
    for (size_t i = 0; i < x->n; i++)
        bad |= json_array_append_new(layers, describe(MEDIA_LAYER, &x->layers[i]));
    json_t *root =
        json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", MEDIA_MANIFEST, "config",
                  describe(MEDIA_CONFIG, config), "layers", layers);
    if (bad != 0) {
        json_decref(root);
        return err_no_memory(err);
    }
    return put_document(x, root, ret_d, err);
}

/* The manifest's entry of index.json, under a name if there is one. */
static json_t *index_entry(const struct export *x, const struct descriptor *manifest,
                           const char *name)
{
    json_t *entry = describe(MEDIA_MANIFEST, manifest);
    const struct image *image = x->image;
    json_t *platform =
        json_pack("{s:s, s:s}", "os", image->os, "architecture", image->architecture);
    if (image->variant[0] != '\0')
        (void)json_object_set_new(platform, "variant", json_string(image->variant));
    (void)json_object_set_new(entry, "platform", platform);
    if (name != NULL)
        (void)json_object_set_new(entry, "annotations",
                                  json_pack("{s:s, s:s}", "io.containerd.image.name", name,
                                            "org.opencontainers.image.ref.name", name));
    return entry;
}

static int write_text(struct export *x, const char *name, json_t *root, struct err *err)
{
    char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text == NULL)
        return err_no_memory(err);
    int rc = fd_write_file_atomic(x->folder_fd, name, text, strlen(text), 0644, err);
    free(text);
    return rc;
}

static int export_index(struct export *x, const struct descriptor *manifest, struct err *err)
{
    const struct image_strings *tags = &x->image->repo_tags;
    json_t *list = json_array();
    int bad = list == NULL ? -1 : 0;
    for (size_t i = 0; i < tags->n; i++)
        bad |= json_array_append_new(list, index_entry(x, manifest, tags->items[i]));
    if (tags->n == 0)
        bad |= json_array_append_new(list, index_entry(x, manifest, NULL));
    json_t *root = json_pack("{s:i, s:s, s:o}", "schemaVersion", 2, "mediaType",
                             "application/vnd.oci.image.index.v1+json", "manifests", list);
    if (bad != 0) {
        json_decref(root);
        return err_no_memory(err);
    }
    if (write_text(x, "index.json", root, err) < 0)
        return -1;
    return write_text(x, "oci-layout", json_pack("{s:s}", "imageLayoutVersion", "1.0.0"), err);
}

static int run(struct export *x, char **ret_id, struct err *err)
{
    struct descriptor config;
    struct descriptor manifest;
    if (make_folder(x, err) < 0 || export_layers(x, err) < 0 ||
        export_config(x, &config, err) < 0 || export_manifest(x, &config, &manifest, err) < 0 ||
        export_index(x, &manifest, err) < 0)
        return -1;
    char *id = strdup(config.digest);
    if (id == NULL)
        return err_no_memory(err);
    if (fsync(x->folder_fd) < 0 ||
        renameat2(AT_FDCWD, x->folder, AT_FDCWD, x->spec->path, RENAME_NOREPLACE) < 0) {
        free(id);
        return err_set_errno(err, errno, "rename '%s'", x->folder);
    }
    free(x->folder);
    x->folder = NULL;
    *ret_id = id;
    return 0;
}

int image_export(struct image_service *svc, const struct image_export_spec *spec, char **ret_id,
                 struct err *err)
{
    char user[48] = "export ";
    cleanup_export struct export x = {.svc = svc,
                                      .spec = spec,
                                      .limits = {.deadline_ms = spec->deadline_ms,
                                                 .cancelled = spec->cancelled,
                                                 .arg = spec->arg},
                                      .folder_fd = -1,
                                      .blobs_fd = -1};
    if (catalog_get(svc->catalog, spec->image, &x.image, err) < 0)
        return -1;
    x.progress.reference = x.image->id;
    text_random_hex(16, user + strlen(user));
    if (catalog_use(svc->catalog, x.image->id, user, err) < 0)
        return -1;
    int rc = run(&x, ret_id, err);
    catalog_release(svc->catalog, x.image->id, user);
    if (rc < 0)
        return err_prefix(err, "export '%s' to '%s'", spec->image, spec->path);
    log_info("exported %s to '%s' as %s", x.image->id, spec->path, *ret_id);
    return 0;
}
