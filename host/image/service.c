/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing of the service, its configuration, and the thin functions that only pass on
 * to the catalog. Pulls are in pull.c, imports in import.c, the way of a layer onto the disk in
 * layers.c.
 */
#include "host/image/service.h"

#include <string.h>

#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/convert.h"
#include "host/image/ref.h"

#define DEFAULT_LAYER_BYTES   (32ull << 30)
#define DEFAULT_LAYER_RATIO   400
#define DEFAULT_LAYER_ENTRIES 2000000
#define DEFAULT_MEMORY        (1ull << 30)
#define DEFAULT_PARALLEL      3
#define DEFAULT_STALL_S       30
#define MAX_PARALLEL          16

/* ---- configuration ---- */

static int copy_string(const char *from, const char **to, struct err *err)
{
    *to = from == NULL ? NULL : strdup(from);
    return from != NULL && *to == NULL ? err_no_memory(err) : 0;
}

static void free_string(const char **text)
{
    void *p;
    memcpy(&p, text, sizeof(p));
    free(p);
    *text = NULL;
}

static int copy_registry(const struct image_registry *from, struct image_registry *to,
                         struct err *err)
{
    char **mirrors = calloc(from->n_mirrors + 1, sizeof(*mirrors));
    if (mirrors == NULL)
        return err_no_memory(err);
    to->mirrors = (const char *const *)mirrors;
    to->plain_http = from->plain_http;
    for (size_t i = 0; i < from->n_mirrors; i++) {
        mirrors[i] = strdup(from->mirrors[i]);
        if (mirrors[i] == NULL)
            return err_no_memory(err);
        to->n_mirrors++;
    }
    if (copy_string(from->host, &to->host, err) < 0 ||
        copy_string(from->ca_file, &to->ca_file, err) < 0 ||
        copy_string(from->client_cert_file, &to->client_cert_file, err) < 0 ||
        copy_string(from->client_key_file, &to->client_key_file, err) < 0)
        return -1;
    return 0;
}

static void free_registry(struct image_registry *r)
{
    char **mirrors;
    memcpy(&mirrors, &r->mirrors, sizeof(mirrors));
    for (size_t i = 0; i < r->n_mirrors; i++)
        free(mirrors[i]);
    free(mirrors);
    free_string(&r->host);
    free_string(&r->ca_file);
    free_string(&r->client_cert_file);
    free_string(&r->client_key_file);
}

static int copy_registries(const struct image_config *from, struct image_config *to,
                           struct err *err)
{
    struct image_registry *copies = calloc(from->n_registries + 1, sizeof(*copies));
    if (copies == NULL)
        return err_no_memory(err);
    to->registries = copies;
    for (size_t i = 0; i < from->n_registries; i++) {
        to->n_registries++;
        if (copy_registry(&from->registries[i], &copies[i], err) < 0)
            return -1;
    }
    return 0;
}

static int copy_pinned(const struct image_config *from, struct image_service *svc, struct err *err)
{
    svc->pinned = calloc(from->n_pinned + 1, sizeof(*svc->pinned));
    if (svc->pinned == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < from->n_pinned; i++) {
        struct ref ref;
        char text[REF_TEXT_SIZE];
        if (ref_parse(from->pinned[i], &ref, err) < 0)
            return err_prefix(err, "pinned image");
        ref_format(&ref, text);
        svc->pinned[i] = strdup(text);
        if (svc->pinned[i] == NULL)
            return err_no_memory(err);
        svc->config.n_pinned++;
    }
    return 0;
}

static void fill_limits(struct image_limits *l)
{
    if (l->layer_bytes == 0)
        l->layer_bytes = DEFAULT_LAYER_BYTES;
    if (l->layer_ratio == 0)
        l->layer_ratio = DEFAULT_LAYER_RATIO;
    if (l->layer_entries == 0)
        l->layer_entries = DEFAULT_LAYER_ENTRIES;
    if (l->memory_bytes == 0)
        l->memory_bytes = DEFAULT_MEMORY;
    if (l->parallel == 0)
        l->parallel = DEFAULT_PARALLEL;
    if (l->parallel > MAX_PARALLEL)
        l->parallel = MAX_PARALLEL;
    if (l->stall_s == 0)
        l->stall_s = DEFAULT_STALL_S;
}

static int copy_config(const struct image_config *from, struct image_service *svc, struct err *err)
{
    struct image_config *to = &svc->config;
    to->converter_uid = from->converter_uid;
    to->converter_gid = from->converter_gid;
    to->compression = from->compression;
    to->limits = from->limits;
    fill_limits(&to->limits);
    if (copy_string(from->converter, &to->converter, err) < 0 ||
        copy_string(from->auth_file, &to->auth_file, err) < 0 || copy_registries(from, to, err) < 0)
        return -1;
    return copy_pinned(from, svc, err);
}

/* ---- life ---- */

int image_service_open(const struct image_config *config, struct store *store,
                       struct image_service **ret_svc, struct err *err)
{
    struct image_service *svc = calloc(1, sizeof(*svc));
    if (svc == NULL)
        return err_no_memory(err);
    if (copy_config(config, svc, err) < 0 || content_open(config->root, &svc->content, err) < 0 ||
        catalog_open(store, svc->content, (const char *const *)svc->pinned, svc->config.n_pinned,
                     &svc->catalog, err) < 0) {
        image_service_free(svc);
        return err_prefix(err, "image service");
    }
    *ret_svc = svc;
    return 0;
}

void image_service_free(struct image_service *svc)
{
    struct image_registry *registries;
    if (svc == NULL)
        return;
    catalog_free(svc->catalog);
    content_free(svc->content);
    memcpy(&registries, &svc->config.registries, sizeof(registries));
    for (size_t i = 0; i < svc->config.n_registries; i++)
        free_registry(&registries[i]);
    free(registries);
    for (size_t i = 0; svc->pinned != NULL && svc->pinned[i] != NULL; i++)
        free(svc->pinned[i]);
    free(svc->pinned);
    free_string(&svc->config.converter);
    free_string(&svc->config.auth_file);
    free(svc);
}

int image_service_collect(struct image_service *svc, struct err *err)
{
    if (content_clean_ingest(svc->content, err) < 0)
        return -1;
    return catalog_collect(svc->catalog, err);
}

/* ---- passing on ---- */

int image_get(struct image_service *svc, const char *name_or_id, struct image **ret_image,
              struct err *err)
{
    return catalog_get(svc->catalog, name_or_id, ret_image, err);
}

int image_list(struct image_service *svc, struct image_list *ret_list, struct err *err)
{
    return catalog_list(svc->catalog, ret_list, err);
}

void image_list_fini(struct image_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        image_unref(list->items[i]);
    free(list->items);
    *list = (struct image_list){0};
}

int image_use(struct image_service *svc, const char *id, const char *user, struct err *err)
{
    return catalog_use(svc->catalog, id, user, err);
}

void image_release(struct image_service *svc, const char *id, const char *user)
{
    catalog_release(svc->catalog, id, user);
}

int image_open_layer(struct image_service *svc, const struct image *image, size_t index,
                     int *ret_fd, uint64_t *ret_size, struct err *err)
{
    if (index >= image->n_layers)
        return err_set(err, ERR_INVALID, "image has no layer %zu", index);
    return content_open_layer(svc->content, image->layers[index].diff_id, ret_fd, ret_size, err);
}

int image_remove(struct image_service *svc, const char *name_or_id, struct err *err)
{
    return catalog_remove(svc->catalog, name_or_id, err);
}

int image_fs_info(struct image_service *svc, struct image_fs_info *ret_info, struct err *err)
{
    struct image_fs_info info = {.mountpoint = content_root(svc->content)};
    if (content_usage(svc->content, &info.used_bytes, &info.inodes, err) < 0)
        return -1;
    *ret_info = info;
    return 0;
}

void image_ids_free(char **ids, size_t n)
{
    for (size_t i = 0; ids != NULL && i < n; i++)
        free(ids[i]);
    free(ids);
}
