/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Import: what a pull does, with a layout instead of a registry. index.json names manifests or
 * indexes; each that fits this machine becomes an image. An archive of `docker save` without an
 * index has manifest.json instead: there a layer is named by a file, not by a digest, and only its
 * diff id is checked. Images are committed one after another; a failure leaves those before it in
 * place, whole.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>

#include <jansson.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/catalog.h"
#include "host/image/completion.h"
#include "host/image/layers.h"
#include "host/image/layout.h"
#include "host/image/manifest.h"
#include "host/image/ref.h"
#include "host/image/service.h"

enum { CHUNK = 256 * 1024, MAX_IMAGES = 1024 };

struct import {
    struct image_service *svc;
    const struct image_import_spec *spec;
    struct layout *layout;
    char **ids; /* committed so far */
    size_t n_ids;
};

/* One image of the layout. */
struct candidate {
    struct manifest manifest;
    char manifest_digest[DIGEST_TEXT_SIZE]; /* "" for a docker archive */
    char id[DIGEST_TEXT_SIZE];
    char *config;
    char (*diff_ids)[DIGEST_TEXT_SIZE];
    const json_t *files; /* of a docker archive: layer file names, else NULL */
    struct import *import;
};

static void candidate_fini(struct candidate *c)
{
    manifest_fini(&c->manifest);
    free(c->config);
    free(c->diff_ids);
}
#define cleanup_candidate CLEANUP(candidate_fini)

static void blob_name(const char *digest, char ret_name[128])
{
    (void)snprintf(ret_name, 128, "blobs/sha256/%s", digest_hex(digest));
}

/* A document of the layout, with its digest checked when one is wanted. */
static int read_blob(struct import *im, const char *digest, char **ret_text, size_t *ret_n,
                     struct err *err)
{
    char name[128];
    char actual[DIGEST_TEXT_SIZE];
    char *text = NULL;
    blob_name(digest, name);
    if (layout_read(im->layout, name, MANIFEST_MAX_BYTES, &text, ret_n, err) < 0)
        return -1;
    if (digest_of(text, *ret_n, actual, err) < 0 ||
        (strcmp(actual, digest) != 0 &&
         err_set(err, ERR_PROTOCOL, "%s has digest %s", name, actual) < 0)) {
        free(text);
        return -1;
    }
    *ret_text = text;
    return 0;
}

/* ---- the source of layers ---- */

/* The index of the layer whose blob this is. */
static size_t layer_index(const struct candidate *c, const struct descriptor *blob)
{
    return (size_t)(blob - c->manifest.layers);
}

static int copy_range(struct candidate *c, const struct layout_file *f, struct hasher *hasher,
                      http_body_fn sink, void *arg, struct err *err)
{
    const struct image_import_spec *spec = c->import->spec;
    cleanup_free char *chunk = malloc(CHUNK);
    uint64_t done = 0;
    if (chunk == NULL)
        return err_no_memory(err);
    while (done < f->size) {
        size_t want = f->size - done < CHUNK ? (size_t)(f->size - done) : CHUNK;
        if (spec->cancelled != NULL && spec->cancelled(spec->arg))
            return err_set(err, ERR_CANCELLED, "cancelled");
        ssize_t n = pread(f->fd, chunk, want, (off_t)(f->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set_errno(err, n < 0 ? errno : EIO, "read the layout");
        hasher_update(hasher, chunk, (size_t)n);
        if (sink(arg, chunk, (size_t)n, err) != 0)
            return -1;
        done += (uint64_t)n;
    }
    return 0;
}

static int get_blob(void *source, struct http_client *client, const struct descriptor *blob,
                    http_body_fn sink, void *arg, struct err *err)
{
    struct candidate *c = source;
    char name[128];
    uint8_t raw[DIGEST_BYTES];
    char digest[DIGEST_TEXT_SIZE];
    struct layout_file f;
    cleanup_hasher struct hasher *hasher = NULL;
    const char *path = name;
    (void)client;
    if (c->files != NULL)
        path = json_string_value(json_array_get(c->files, layer_index(c, blob)));
    else
        blob_name(blob->digest, name);
    if (hasher_new(&hasher, err) < 0 || layout_find(c->import->layout, path, &f, err) < 0)
        return -1;
    int rc = copy_range(c, &f, hasher, sink, arg, err);
    (void)close(f.fd);
    if (rc < 0)
        return -1;
    hasher_final(hasher, raw);
    digest_format(raw, digest);
    if (c->files == NULL && strcmp(digest, blob->digest) != 0)
        return err_set(err, ERR_PROTOCOL, "%s has digest %s", path, digest);
    return 0;
}

/* ---- one image ---- */

static int add_id(struct import *im, const char *id, struct err *err)
{
    for (size_t i = 0; i < im->n_ids; i++)
        if (strcmp(im->ids[i], id) == 0)
            return 0; /* the same image under another name */
    char **ids = reallocarray(im->ids, im->n_ids + 1, sizeof(*ids));
    if (ids == NULL)
        return err_no_memory(err);
    im->ids = ids;
    ids[im->n_ids] = strdup(id);
    if (ids[im->n_ids] == NULL)
        return err_no_memory(err);
    im->n_ids++;
    return 0;
}

/* Fetches the layers of a candidate whose config is read, and commits it under a name, if there is
 * one. */
static int bring(struct candidate *c, const struct ref *ref, struct err *err)
{
    struct import *im = c->import;
    struct layers_job *job = NULL;
    char name[REF_TEXT_SIZE] = "";
    char digest_name[REF_TEXT_SIZE] = "";
    const char *tags[] = {name};
    const char *digests[] = {digest_name};
    char completion[DIGEST_TEXT_SIZE] = "";
    if (ref != NULL)
        ref_format(ref, name);
    if (ref != NULL && c->manifest_digest[0] != '\0')
        ref_format_digest(ref, c->manifest_digest, digest_name);
    struct layers_spec spec = {.svc = im->svc,
                               .diff_ids = (const char(*)[DIGEST_TEXT_SIZE])c->diff_ids,
                               .blobs = c->manifest.layers,
                               .n = c->manifest.n_layers,
                               .get_blob = get_blob,
                               .source = c,
                               .reference = name,
                               .limits = {.deadline_ms = im->spec->deadline_ms,
                                          .stall_s = im->svc->config.limits.stall_s,
                                          .cancelled = im->spec->cancelled,
                                          .arg = im->spec->arg},
                               .progress = im->spec->progress,
                               .progress_arg = im->spec->arg};
    struct catalog_image image = {.id = c->id,
                                  .config_json = c->config,
                                  .tags = tags,
                                  .n_tags = ref != NULL && ref->digest[0] == '\0' ? 1 : 0,
                                  .digests = digests,
                                  .n_digests = digest_name[0] != '\0' ? 1 : 0,
                                  .completion = completion};
    if (layers_run(&spec, &job, err) < 0)
        return -1;
    int rc = completion_bring(im->svc, c->id, (const char(*)[DIGEST_TEXT_SIZE])c->diff_ids,
                              c->manifest.n_layers, &spec.limits, completion, err);
    if (rc == 0)
        rc = catalog_commit(im->svc->catalog, &image, err);
    if (completion[0] != '\0')
        catalog_unlease(im->svc->catalog, completion);
    layers_free(job);
    return rc < 0 ? -1 : add_id(im, c->id, err);
}

/* Diff ids out of the config, and their count against the layers. */
static int read_diff_ids(struct candidate *c, size_t config_len, struct err *err)
{
    size_t n = 0;
    if (manifest_parse_diff_ids(c->config, config_len, &c->diff_ids, &n, err) < 0)
        return -1;
    if (n != c->manifest.n_layers)
        return err_set(err, ERR_PROTOCOL, "manifest has %zu layers, image config has %zu",
                       c->manifest.n_layers, n);
    return 0;
}

/*
 * The name an entry gets: the caller's, else the annotation if it is a whole name. A bare word
 * there is only a tag by the specification, and of what repository, nobody knows.
 */
static bool choose_name(const struct import *im, const char *annotation, struct ref *ret_ref)
{
    const char *text = im->spec->reference != NULL ? im->spec->reference : annotation;
    if (im->spec->reference == NULL && strpbrk(text, ":/") == NULL)
        return false;
    return ref_parse(text, ret_ref, NULL) == 0;
}

/* ---- OCI layout ---- */

static int import_manifest(struct import *im, const struct descriptor *top, const char *annotation,
                           struct err *err)
{
    cleanup_candidate struct candidate c = {.import = im};
    struct descriptor at = *top;
    struct ref ref;
    size_t n = 0;
    memcpy(c.manifest_digest, top->digest, DIGEST_TEXT_SIZE);
    for (unsigned depth = 0;; depth++) {
        cleanup_free char *text = NULL;
        struct manifest_doc doc;
        if (depth > MANIFEST_MAX_DEPTH)
            return err_set(err, ERR_PROTOCOL, "indexes are nested too deeply");
        if (read_blob(im, at.digest, &text, &n, err) < 0 || manifest_parse(text, n, &doc, err) < 0)
            return -1;
        if (!doc.is_index) {
            c.manifest = doc.manifest;
            break;
        }
        at = doc.chosen;
    }
    memcpy(c.id, c.manifest.config.digest, DIGEST_TEXT_SIZE);
    if (read_blob(im, c.id, &c.config, &n, err) < 0 || read_diff_ids(&c, n, err) < 0)
        return -1;
    return bring(&c, choose_name(im, annotation, &ref) ? &ref : NULL, err);
}

static int import_layout(struct import *im, const char *index, size_t n_index, struct err *err)
{
    struct descriptor *items = NULL;
    char **names = NULL;
    size_t n = 0;
    if (manifest_parse_layout_index(index, n_index, &items, &names, &n, err) < 0)
        return -1;
    int rc = 0;
    if (n == 0)
        rc = err_set(err, ERR_UNSUPPORTED, "the layout holds no image for linux/%s",
                     manifest_architecture());
    else if (n > 1 && im->spec->reference != NULL)
        rc = err_set(err, ERR_INVALID, "the layout holds %zu images, one name does not fit", n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = import_manifest(im, &items[i], names[i], err);
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
    free(items);
    return rc;
}

/* ---- docker save ---- */

static int read_archive_layers(struct candidate *c, const json_t *files, struct err *err)
{
    size_t n = json_array_size(files);
    size_t i;
    json_t *item;
    if (!json_is_array(files) || n > MANIFEST_MAX_LAYERS)
        return err_set(err, ERR_PROTOCOL, "manifest.json has no valid list of layers");
    c->files = files;
    c->manifest.layers = calloc(n + 1, sizeof(*c->manifest.layers));
    if (c->manifest.layers == NULL)
        return err_no_memory(err);
    c->manifest.n_layers = n;
    json_array_foreach(files, i, item)
    {
        struct layout_file f;
        if (!json_is_string(item))
            return err_set(err, ERR_PROTOCOL, "manifest.json has no valid list of layers");
        if (layout_find(c->import->layout, json_string_value(item), &f, err) < 0)
            return -1;
        (void)close(f.fd);
        c->manifest.layers[i].size = f.size;
    }
    return 0;
}

static int import_archived(struct import *im, const json_t *entry, struct err *err)
{
    cleanup_candidate struct candidate c = {.import = im};
    struct ref ref;
    size_t n = 0;
    const char *config = json_string_value(json_object_get(entry, "Config"));
    const json_t *tags = json_object_get(entry, "RepoTags");
    if (config == NULL)
        return err_set(err, ERR_PROTOCOL, "manifest.json names no config");
    if (layout_read(im->layout, config, MANIFEST_MAX_BYTES, &c.config, &n, err) < 0 ||
        digest_of(c.config, n, c.id, err) < 0 ||
        read_archive_layers(&c, json_object_get(entry, "Layers"), err) < 0 ||
        read_diff_ids(&c, n, err) < 0)
        return -1;
    size_t n_tags = im->spec->reference != NULL ? 0 : json_array_size(tags);
    if (n_tags <= 1) {
        const char *tag = text_or_empty(json_string_value(json_array_get(tags, 0)));
        return bring(&c, choose_name(im, tag, &ref) ? &ref : NULL, err);
    }
    for (size_t i = 0; i < n_tags; i++) {
        const char *tag = text_or_empty(json_string_value(json_array_get(tags, i)));
        if (bring(&c, choose_name(im, tag, &ref) ? &ref : NULL, err) < 0)
            return -1;
    }
    return 0;
}

static int import_archive(struct import *im, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t n = 0;
    json_error_t why;
    if (layout_read(im->layout, "manifest.json", MANIFEST_MAX_BYTES, &text, &n, err) < 0)
        return err_set(err, ERR_INVALID,
                       "neither index.json nor manifest.json is in it: not an image");
    json_t *root = json_loadb(text, n, 0, &why);
    int rc = 0;
    if (!json_is_array(root) || json_array_size(root) == 0 || json_array_size(root) > MAX_IMAGES)
        rc = err_set(err, ERR_PROTOCOL, "manifest.json is not a list of images");
    else if (json_array_size(root) > 1 && im->spec->reference != NULL)
        rc = err_set(err, ERR_INVALID, "the archive holds several images, one name does not fit");
    for (size_t i = 0; rc == 0 && i < json_array_size(root); i++)
        rc = import_archived(im, json_array_get(root, i), err);
    json_decref(root);
    return rc;
}

/* ---- all ---- */

static int run(struct import *im, struct err *err)
{
    cleanup_free char *index = NULL;
    size_t n = 0;
    struct ref ref;
    if (im->spec->reference != NULL && ref_parse(im->spec->reference, &ref, err) < 0)
        return -1;
    if (layout_open(im->spec->path, &im->layout, err) < 0)
        return -1;
    struct err missing = {0};
    int rc = layout_read(im->layout, "index.json", MANIFEST_MAX_BYTES, &index, &n, &missing);
    if (rc == 0)
        return import_layout(im, index, n, err);
    if (missing.code == ERR_NOT_FOUND)
        return import_archive(im, err);
    if (err != NULL)
        *err = missing;
    return -1;
}

int image_import(struct image_service *svc, const struct image_import_spec *spec, char ***ret_ids,
                 size_t *ret_n, struct err *err)
{
    struct import im = {.svc = svc, .spec = spec};
    int rc = run(&im, err);
    layout_free(im.layout);
    if (rc < 0) {
        image_ids_free(im.ids, im.n_ids);
        return err_prefix(err, "import '%s'", spec->path);
    }
    log_info("imported %zu image(s) from '%s'", im.n_ids, spec->path);
    *ret_ids = im.ids;
    *ret_n = im.n_ids;
    return 0;
}
