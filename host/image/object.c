/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parsed config lives as long as the image and most strings are borrowed from it; what is not
 * in the config is duplicated. A null where a list or an object may stand means "empty" (Docker
 * writes them); any other type is refused instead of ignored: a command that is silently dropped
 * runs the wrong program.
 */
#include "host/image/object.h"

#include <jansson.h>
#include <stdatomic.h>
#include <string.h>

#include "common/base/text.h"

struct object {
    struct image image; /* first: what others see */
    atomic_uint owners;
    json_t *config;
    char *strings; /* the id and the config text */
};

static struct object *object_of(struct image *image)
{
    return container_of(image, struct object, image);
}

struct image *image_ref(struct image *image)
{
    atomic_fetch_add_explicit(&object_of(image)->owners, 1, memory_order_relaxed);
    return image;
}

static void free_strings(struct image_strings *s)
{
    void *items;
    memcpy(&items, &s->items, sizeof(items));
    free(items);
}

static void free_owned_strings(struct image_strings *s)
{
    for (size_t i = 0; i < s->n; i++) {
        void *item;
        memcpy(&item, &s->items[i], sizeof(item));
        free(item);
    }
    free_strings(s);
}

static void free_layers(const struct image_layer *layers, size_t n)
{
    void *p;
    for (size_t i = 0; layers != NULL && i < n; i++) {
        memcpy(&p, &layers[i].diff_id, sizeof(p));
        free(p);
        memcpy(&p, &layers[i].path, sizeof(p));
        free(p);
    }
    memcpy(&p, &layers, sizeof(p));
    free(p);
}

static void free_object(struct object *o)
{
    void *labels;
    free_owned_strings(&o->image.repo_tags);
    free_owned_strings(&o->image.repo_digests);
    free_strings(&o->image.env);
    free_strings(&o->image.entrypoint);
    free_strings(&o->image.cmd);
    free_strings(&o->image.volumes);
    memcpy(&labels, &o->image.labels, sizeof(labels));
    free(labels);
    free_layers(o->image.layers, o->image.n_layers);
    json_decref(o->config);
    free(o->strings);
    free(o);
}

void image_unref(struct image *image)
{
    if (image != NULL &&
        atomic_fetch_sub_explicit(&object_of(image)->owners, 1, memory_order_acq_rel) == 1)
        free_object(object_of(image));
}

static int copy_strings(const char *const *items, size_t n, struct image_strings *out,
                        struct err *err)
{
    char **copy = calloc(n + 1, sizeof(*copy));
    if (copy == NULL)
        return err_no_memory(err);
    out->items = (const char *const *)copy;
    for (size_t i = 0; i < n; i++) {
        copy[i] = strdup(items[i]);
        if (copy[i] == NULL)
            return err_no_memory(err);
        out->n++;
    }
    return 0;
}

static int string_member(const json_t *object, const char *key, const char **ret, struct err *err)
{
    const json_t *j = json_object_get(object, key);
    if (j != NULL && !json_is_null(j) && !json_is_string(j))
        return err_set(err, ERR_PROTOCOL, "image config: '%s' is not a string", key);
    *ret = text_or_empty(json_string_value(j));
    return 0;
}

static int list_member(const json_t *object, const char *key, struct image_strings *out,
                       struct err *err)
{
    size_t i;
    json_t *item;
    const json_t *j = json_object_get(object, key);
    if (j != NULL && !json_is_null(j) && !json_is_array(j))
        return err_set(err, ERR_PROTOCOL, "image config: '%s' is not a list", key);
    const char **items = calloc(json_array_size(j) + 1, sizeof(*items));
    if (items == NULL)
        return err_no_memory(err);
    out->items = items;
    json_array_foreach(j, i, item)
    {
        if (!json_is_string(item))
            return err_set(err, ERR_PROTOCOL, "image config: '%s' is not a list of strings", key);
        items[out->n++] = json_string_value(item);
    }
    return 0;
}

/* The keys of an object, such as Volumes. */
static int keys_member(json_t *object, const char *key, struct image_strings *out, struct err *err)
{
    const char *name;
    json_t *value;
    json_t *j = json_object_get(object, key);
    if (j != NULL && !json_is_null(j) && !json_is_object(j))
        return err_set(err, ERR_PROTOCOL, "image config: '%s' is not an object", key);
    const char **items = calloc(json_object_size(j) + 1, sizeof(*items));
    if (items == NULL)
        return err_no_memory(err);
    out->items = items;
    json_object_foreach(j, name, value) items[out->n++] = name;
    return 0;
}

static int labels_member(json_t *object, struct image *image, struct err *err)
{
    const char *name;
    json_t *value;
    json_t *j = json_object_get(object, "Labels");
    if (j != NULL && !json_is_null(j) && !json_is_object(j))
        return err_set(err, ERR_PROTOCOL, "image config: 'Labels' is not an object");
    struct image_label *labels = calloc(json_object_size(j) + 1, sizeof(*labels));
    if (labels == NULL)
        return err_no_memory(err);
    image->labels = labels;
    json_object_foreach(j, name, value)
    {
        if (!json_is_string(value))
            return err_set(err, ERR_PROTOCOL, "image config: a label is not a string");
        labels[image->n_labels++] = (struct image_label){name, json_string_value(value)};
    }
    return 0;
}

/* CRI's view of "user[:group]": a uid when it is a number, else a name. */
static int split_user(struct image *image, struct object *o, struct err *err)
{
    char part[64];
    uint64_t uid;
    size_t n = strcspn(image->user, ":");
    image->username = "";
    if (n == 0)
        return 0;
    if (n < sizeof(part)) {
        memcpy(part, image->user, n);
        part[n] = '\0';
        if (text_parse_u64(part, UINT32_MAX - 1, &uid) == 0) {
            image->has_uid = true;
            image->uid = (int64_t)uid;
            return 0;
        }
    }
    json_t *name = json_stringn(image->user, n);
    if (name == NULL || json_object_set_new(o->config, "casemate.username", name) < 0)
        return err_no_memory(err);
    image->username = json_string_value(name);
    return 0;
}

static int read_config(struct object *o, struct err *err)
{
    struct image *image = &o->image;
    json_t *c = json_object_get(o->config, "config");
    if (c != NULL && !json_is_null(c) && !json_is_object(c))
        return err_set(err, ERR_PROTOCOL, "image config: 'config' is not an object");
    if (string_member(o->config, "architecture", &image->architecture, err) < 0 ||
        string_member(o->config, "variant", &image->variant, err) < 0 ||
        string_member(o->config, "os", &image->os, err) < 0 ||
        string_member(o->config, "created", &image->created, err) < 0 ||
        string_member(c, "WorkingDir", &image->working_dir, err) < 0 ||
        string_member(c, "User", &image->user, err) < 0 ||
        string_member(c, "StopSignal", &image->stop_signal, err) < 0)
        return -1;
    if (list_member(c, "Env", &image->env, err) < 0 ||
        list_member(c, "Entrypoint", &image->entrypoint, err) < 0 ||
        list_member(c, "Cmd", &image->cmd, err) < 0 ||
        keys_member(c, "Volumes", &image->volumes, err) < 0 || labels_member(c, image, err) < 0)
        return -1;
    return split_user(image, o, err);
}

static int copy_layers(const struct image_parts *parts, struct image *image, struct err *err)
{
    struct image_layer *layers = calloc(parts->n_layers + 1, sizeof(*layers));
    if (layers == NULL)
        return err_no_memory(err);
    image->layers = layers;
    for (size_t i = 0; i < parts->n_layers; i++) {
        layers[i] = parts->layers[i];
        layers[i].diff_id = strdup(parts->layers[i].diff_id);
        layers[i].path = strdup(parts->layers[i].path);
        image->n_layers++;
        if (layers[i].diff_id == NULL || layers[i].path == NULL)
            return err_no_memory(err);
    }
    return 0;
}

static int fill_object(struct object *o, const struct image_parts *parts, struct err *err)
{
    struct image *image = &o->image;
    json_error_t why;
    size_t id_size = strlen(parts->id) + 1;
    size_t config_size = strlen(parts->config_json) + 1;
    o->strings = malloc(id_size + config_size);
    if (o->strings == NULL)
        return err_no_memory(err);
    memcpy(o->strings, parts->id, id_size);
    memcpy(o->strings + id_size, parts->config_json, config_size);
    image->id = o->strings;
    image->config_json = o->strings + id_size;
    image->size_bytes = parts->size_bytes;
    image->pinned = parts->pinned;
    o->config = json_loads(parts->config_json, 0, &why);
    if (o->config == NULL)
        return err_set(err, ERR_PROTOCOL, "image config is not valid JSON: %s", why.text);
    if (copy_strings(parts->tags, parts->n_tags, &image->repo_tags, err) < 0 ||
        copy_strings(parts->digests, parts->n_digests, &image->repo_digests, err) < 0 ||
        copy_layers(parts, image, err) < 0)
        return -1;
    return read_config(o, err);
}

int image_object_new(const struct image_parts *parts, struct image **ret_image, struct err *err)
{
    struct object *o = calloc(1, sizeof(*o));
    if (o == NULL)
        return err_no_memory(err);
    atomic_init(&o->owners, 1);
    if (fill_object(o, parts, err) < 0) {
        free_object(o);
        return -1;
    }
    *ret_image = &o->image;
    return 0;
}
