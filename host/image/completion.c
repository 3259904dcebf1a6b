/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The id is a hash of the layers' ids: the same stack is completed once, whatever images have it.
 * An image that is known keeps what it has, so that pulling it again starts no converter; that
 * matters because kubelets do so all the time. Whether a stack that is marked needs anything is
 * only known to the converter, which most often says no (a directory that is root's and 0755 below
 * too).
 */
#include "host/image/completion.h"

#include <string.h>

#include "common/base/log.h"
#include "host/image/catalog.h"
#include "host/image/complete.h"
#include "host/image/content.h"
#include "host/image/converter.h"

static int make_id(const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n,
                   char ret_id[DIGEST_TEXT_SIZE], struct err *err)
{
    static const char kind[] = "casemate completing layer, version 1\n";
    uint8_t raw[DIGEST_BYTES];
    cleanup_hasher struct hasher *hasher = NULL;
    if (hasher_new(&hasher, err) < 0)
        return -1;
    hasher_update(hasher, kind, strlen(kind));
    for (size_t i = 0; i < n; i++)
        hasher_update(hasher, diff_ids[i], strlen(diff_ids[i]) + 1);
    hasher_final(hasher, raw);
    digest_format(raw, ret_id);
    return 0;
}

struct descriptors {
    int *fds;
    size_t n;
};

static void descriptors_fini(struct descriptors *d)
{
    for (size_t i = 0; i < d->n; i++)
        close_fd(&d->fds[i]);
    free(d->fds);
}

static int open_layers(struct content *content, const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n,
                       struct descriptors *d, struct err *err)
{
    d->fds = calloc(n + 1, sizeof(*d->fds));
    if (d->fds == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n; i++, d->n++)
        if (content_open_layer(content, diff_ids[i], &d->fds[i], NULL, err) < 0)
            return -1;
    return 0;
}

static int convert(struct image_service *svc, const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n,
                   const struct http_limits *limits, int out_fd, struct convert_result *ret_result,
                   struct err *err)
{
    CLEANUP(descriptors_fini) struct descriptors layers = {0};
    cleanup_converter struct converter *converter = NULL;
    if (open_layers(svc->content, diff_ids, n, &layers, err) < 0)
        return -1;
    struct converter_spec spec;
    converter_spec_init(&spec, &svc->config, out_fd, limits);
    spec.task = CONVERTER_COMPLETE;
    spec.layers = layers.fds;
    spec.n_layers = n;
    return converter_start(&spec, &converter, err) < 0
               ? -1
               : converter_finish(converter, ret_result, err);
}

/* Makes the layer that is leased to be fetched; *ret_bytes 0: none is needed. */
static int make(struct image_service *svc, const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n,
                const struct http_limits *limits, const char *id, uint64_t *ret_bytes,
                struct err *err)
{
    char name[CONTENT_NAME_SIZE];
    struct convert_result result;
    cleanup_fd int fd = -1;
    if (content_ingest(svc->content, name, &fd, err) < 0)
        return -1;
    int rc = convert(svc, diff_ids, n, limits, fd, &result, err);
    if (rc == 0 && result.image_bytes > 0)
        rc = content_commit(svc->content, name, fd, id, err);
    if (rc < 0 || result.image_bytes == 0)
        content_discard(svc->content, name);
    if (rc < 0)
        return -1;
    if (result.image_bytes > 0 &&
        catalog_layer_done(svc->catalog, id, result.image_bytes, 0, err) < 0) {
        (void)content_remove_layer(svc->content, id, NULL);
        return -1;
    }
    *ret_bytes = result.image_bytes;
    return 0;
}

int completion_bring(struct image_service *svc, const char *image_id,
                     const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n,
                     const struct http_limits *limits, char ret_id[DIGEST_TEXT_SIZE],
                     struct err *err)
{
    char id[DIGEST_TEXT_SIZE] = "";
    enum catalog_lease lease;
    uint64_t bytes = 0;
    ret_id[0] = '\0';
    bool known = catalog_completion(svc->catalog, image_id, id);
    if (known ? id[0] == '\0' : !catalog_needs_completion(svc->catalog, diff_ids, n))
        return 0;
    if (n > COMPLETE_MAX_LAYERS)
        return err_set(err, ERR_UNSUPPORTED, "more than %d layers that need each other",
                       COMPLETE_MAX_LAYERS);
    if ((!known && make_id(diff_ids, n, id, err) < 0) ||
        catalog_lease_layer(svc->catalog, id, limits, &lease, err) < 0)
        return -1;
    if (lease == CATALOG_FETCH) {
        int rc = make(svc, diff_ids, n, limits, id, &bytes, err);
        if (rc < 0 || bytes == 0) {
            catalog_layer_failed(svc->catalog, id);
            catalog_unlease(svc->catalog, id);
            return rc < 0 ? err_prefix(err, "completing the layers") : 0;
        }
        log_debug("image %s: a layer of %llu bytes completes the others", image_id,
                  (unsigned long long)bytes);
    }
    memcpy(ret_id, id, DIGEST_TEXT_SIZE);
    return 0;
}
