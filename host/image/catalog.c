/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images and names. An image's record is one JSON object: config (the registry's text), tags,
 * digests, removed, and the id of the layer that completes its others, if there is one
 * (completion.h). Its other layers follow from the config. A name moves from one image to another
 * in one transaction; the memory is changed after the transaction, from objects that were made
 * before it, so that nothing can fail in between.
 *
 * An image that is removed while containers use it keeps its record, marked removed and without
 * names, until the last of them releases it: after a restart the owner of the containers can find
 * it again.
 */
#include "host/image/catalog.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/catalog_internal.h"
#include "host/image/convert.h"
#include "host/image/manifest.h"
#include "host/image/object.h"
#include "host/image/ref.h"

enum { IMAGE_VERSION = 1 };

/* ---- making entries ---- */

struct names {
    const char **tags;
    size_t n_tags;
    const char **digests;
    size_t n_digests;
};

static void names_fini(struct names *n)
{
    free(n->tags);
    free(n->digests);
}
#define cleanup_names CLEANUP(names_fini)

static bool contains(const char *const *items, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(items[i], text) == 0)
            return true;
    return false;
}

/* The union of two lists, without the items of a third. Pointers are borrowed. */
static int merge(const struct image_strings *a, const char *const *b, size_t n_b,
                 const char *const *without, size_t n_without, const char ***ret_items,
                 size_t *ret_n, struct err *err)
{
    size_t n = 0;
    size_t n_a = a == NULL ? 0 : a->n;
    const char **items = calloc(n_a + n_b + 1, sizeof(*items));
    if (items == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n_a + n_b; i++) {
        const char *item = i < n_a ? a->items[i] : b[i - n_a];
        if (!contains(items, n, item) && !contains(without, n_without, item))
            items[n++] = item;
    }
    *ret_items = items;
    *ret_n = n;
    return 0;
}

static bool is_pinned(const struct catalog *c, const struct names *names)
{
    for (size_t i = 0; i < names->n_tags; i++)
        if (contains(c->pinned, c->n_pinned, names->tags[i]))
            return true;
    for (size_t i = 0; i < names->n_digests; i++)
        if (contains(c->pinned, c->n_pinned, names->digests[i]))
            return true;
    return false;
}

/* The lowest layer that shows: everything below an opaque root is hidden. Needs lock. */
static size_t first_visible(struct catalog *c, const struct image_entry *e)
{
    for (size_t i = e->n_diff_ids; i > 0; i--) {
        const struct layer_entry *l = catalog_find_layer(c, e->diff_ids[i - 1]);
        if (l != NULL && (l->flags & CONVERT_ROOT_OPAQUE) != 0)
            return i - 1;
    }
    return 0;
}

static int describe_layers(struct catalog *c, const struct image_entry *e,
                           struct image_layer **ret_layers, size_t *ret_n, struct err *err)
{
    int rc = 0;
    size_t n = 0;
    struct image_layer *layers = calloc(e->n_diff_ids + 1, sizeof(*layers));
    if (layers == NULL)
        return err_no_memory(err);
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = first_visible(c, e); rc == 0 && i < e->n_diff_ids; i++) {
        const struct layer_entry *l = catalog_find_layer(c, e->diff_ids[i]);
        if (l == NULL || l->state != LAYER_PRESENT)
            rc = err_set(err, ERR_NOT_FOUND, "layer %s is missing", e->diff_ids[i]);
        else
            layers[n++] =
                (struct image_layer){.diff_id = e->diff_ids[i],
                                     .path = content_layer_path(c->content, e->diff_ids[i]),
                                     .size_bytes = l->size,
                                     .fs_type = "squashfs"};
    }
    (void)pthread_mutex_unlock(&c->lock);
    *ret_layers = layers;
    *ret_n = n;
    return rc;
}

static void free_described(struct image_layer *layers, size_t n)
{
    for (size_t i = 0; layers != NULL && i < n; i++) {
        void *path;
        memcpy(&path, &layers[i].path, sizeof(path));
        free(path);
    }
    free(layers);
}

/* The object of an entry with the given names. */
static int make_object(struct catalog *c, const struct image_entry *e, const char *config_json,
                       const struct names *names, struct image **ret_image, struct err *err)
{
    struct image_layer *layers = NULL;
    struct image_parts parts = {.id = e->id,
                                .config_json = config_json,
                                .tags = names->tags,
                                .n_tags = names->n_tags,
                                .digests = names->digests,
                                .n_digests = names->n_digests,
                                .size_bytes = strlen(config_json),
                                .pinned = is_pinned(c, names)};
    int rc = describe_layers(c, e, &layers, &parts.n_layers, err);
    for (size_t i = 0; rc == 0 && i < parts.n_layers; i++) {
        bool again = false; /* the same file further down */
        for (size_t k = 0; k < i; k++)
            again = again || strcmp(layers[k].diff_id, layers[i].diff_id) == 0;
        parts.size_bytes += again ? 0 : layers[i].size_bytes;
        if (layers[i].path == NULL)
            rc = err_no_memory(err);
    }
    parts.layers = layers;
    if (rc == 0)
        rc = image_object_new(&parts, ret_image, err);
    free_described(layers, parts.n_layers);
    return rc;
}

static void free_entry(struct image_entry *e)
{
    struct user_entry *u;
    struct user_entry *next;
    if (e == NULL)
        return;
    HASH_ITER(hh, e->users, u, next)
    {
        HASH_DEL(e->users, u);
        free(u);
    }
    image_unref(e->image);
    free(e->diff_ids);
    free(e);
}

/* Adds the completing layer to those of the config. */
static int append_completion(struct image_entry *e, const char *completion, struct err *err)
{
    char(*ids)[DIGEST_TEXT_SIZE] = reallocarray(e->diff_ids, e->n_diff_ids + 1, sizeof(*ids));
    if (ids == NULL)
        return err_no_memory(err);
    e->diff_ids = ids;
    (void)snprintf(ids[e->n_diff_ids], sizeof(*ids), "%s", completion);
    e->n_diff_ids++;
    e->completed = true;
    return 0;
}

static int make_entry(const char *id, const char *config_json, const char *completion,
                      struct image_entry **ret_entry, struct err *err)
{
    struct image_entry *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return err_no_memory(err);
    (void)snprintf(e->id, sizeof(e->id), "%s", id);
    if (manifest_parse_diff_ids(config_json, strlen(config_json), &e->diff_ids, &e->n_diff_ids,
                                err) < 0 ||
        (completion[0] != '\0' && append_completion(e, completion, err) < 0)) {
        free_entry(e);
        return -1;
    }
    *ret_entry = e;
    return 0;
}

/* Counts an image in or out of its layers. Needs lock. */
static void count_layers(struct catalog *c, const struct image_entry *e, int by)
{
    for (size_t i = 0; i < e->n_diff_ids; i++) {
        struct layer_entry *l = catalog_find_layer(c, e->diff_ids[i]);
        if (l != NULL)
            l->images += (unsigned)by;
    }
}

/* ---- records ---- */

static int put_record(struct catalog *c, const struct image_entry *e, const char *config_json,
                      const struct names *names, bool removed, struct err *err)
{
    json_t *tags = json_array();
    json_t *digests = json_array();
    int bad = 0;
    for (size_t i = 0; i < names->n_tags; i++)
        bad |= json_array_append_new(tags, json_string(names->tags[i]));
    for (size_t i = 0; i < names->n_digests; i++)
        bad |= json_array_append_new(digests, json_string(names->digests[i]));
    json_t *root = json_pack("{s:s, s:o, s:o, s:b, s:s}", "config", config_json, "tags", tags,
                             "digests", digests, "removed", removed ? 1 : 0, "completion",
                             e->completed ? e->diff_ids[e->n_diff_ids - 1] : "");
    char *text = root == NULL || bad != 0 ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text == NULL)
        return err_no_memory(err);
    int rc = store_put(c->store, RECORD_IMAGE, e->id, IMAGE_VERSION, text, strlen(text), err);
    free(text);
    return rc;
}

static int read_names(const json_t *list, const char ***ret_items, size_t *ret_n, struct err *err)
{
    size_t i;
    json_t *item;
    const char **items = calloc(json_array_size(list) + 1, sizeof(*items));
    if (items == NULL)
        return err_no_memory(err);
    json_array_foreach(list, i, item) if (json_is_string(item)) items[(*ret_n)++] =
        json_string_value(item);
    *ret_items = items;
    return 0;
}

static int load_image_json(struct catalog *c, const char *id, const json_t *j, struct err *err)
{
    struct image_entry *e = NULL;
    cleanup_names struct names names = {0};
    const char *config = json_string_value(json_object_get(j, "config"));
    const char *completion = text_or_empty(json_string_value(json_object_get(j, "completion")));
    if (config == NULL || !digest_is_valid(id) ||
        (completion[0] != '\0' && !digest_is_valid(completion)))
        return err_set(err, ERR_PROTOCOL, "record is not valid");
    if (read_names(json_object_get(j, "tags"), &names.tags, &names.n_tags, err) < 0 ||
        read_names(json_object_get(j, "digests"), &names.digests, &names.n_digests, err) < 0 ||
        make_entry(id, config, completion, &e, err) < 0)
        return -1;
    e->removed = json_is_true(json_object_get(j, "removed"));
    if (make_object(c, e, config, &names, &e->image, err) < 0) {
        free_entry(e);
        return -1;
    }
    HASH_ADD_STR(c->images, id, e);
    count_layers(c, e, 1);
    return 0;
}

static int load_image(void *arg, const char *id, uint32_t version, const void *bytes, size_t n,
                      struct err *err)
{
    struct catalog *c = arg;
    struct err why = {0};
    json_error_t json_err;
    json_t *j = version == IMAGE_VERSION ? json_loadb(bytes, n, 0, &json_err) : NULL;
    int rc = j == NULL ? err_set(&why, ERR_PROTOCOL, "record cannot be read")
                       : load_image_json(c, id, j, &why);
    json_decref(j);
    if (rc == 0)
        return 0;
    if (why.code == ERR_EXHAUSTED) {
        *err = why;
        return -1;
    }
    log_event(LOG_WARN, NULL, &why, "image %s cannot be used, dropping it", id);
    return store_delete(c->store, RECORD_IMAGE, id, err);
}

int catalog_open(struct store *store, struct content *content, const char *const *pinned,
                 size_t n_pinned, struct catalog **ret_catalog, struct err *err)
{
    pthread_condattr_t attr;
    struct catalog *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    c->store = store;
    c->content = content;
    c->pinned = pinned;
    c->n_pinned = n_pinned;
    (void)pthread_mutex_init(&c->commit, NULL);
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&c->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    if (catalog_load_layers(c, err) < 0 ||
        store_each(store, RECORD_IMAGE, load_image, c, err) < 0) {
        catalog_free(c);
        return err_prefix(err, "load image records");
    }
    *ret_catalog = c;
    return 0;
}

void catalog_free(struct catalog *c)
{
    struct image_entry *e;
    struct image_entry *next;
    struct layer_entry *l;
    struct layer_entry *next_layer;
    if (c == NULL)
        return;
    HASH_ITER(hh, c->images, e, next)
    {
        HASH_DEL(c->images, e);
        free_entry(e);
    }
    HASH_ITER(hh, c->layers, l, next_layer)
    {
        HASH_DEL(c->layers, l);
        free(l);
    }
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_mutex_destroy(&c->commit);
    free(c);
}

/* ---- commit ---- */

/* One image whose names change in a commit. */
struct change {
    struct image_entry *entry;
    struct image *image; /* with the new names */
    struct change *next;
};

static void free_changes(struct change *list)
{
    while (list != NULL) {
        struct change *next = list->next;
        image_unref(list->image);
        free(list);
        list = next;
    }
}

/* Prepares entry's new object and puts its record. Needs commit; the transaction is open. */
static int change_names(struct catalog *c, struct image_entry *entry, const char *config_json,
                        const struct names *names, struct change **list, struct err *err)
{
    struct change *ch = calloc(1, sizeof(*ch));
    if (ch == NULL)
        return err_no_memory(err);
    ch->entry = entry;
    ch->next = *list;
    *list = ch;
    if (make_object(c, entry, config_json, names, &ch->image, err) < 0)
        return -1;
    return put_record(c, entry, config_json, names, false, err);
}

/* Takes the new image's tags away from all others. */
static int take_tags(struct catalog *c, const struct catalog_image *new, struct change **list,
                     struct err *err)
{
    struct image_entry *e;
    struct image_entry *next;
    HASH_ITER(hh, c->images, e, next) /* the table only changes under commit, which is held */
    {
        cleanup_names struct names names = {0};
        const struct image *old = e->image;
        if (e->removed || strcmp(e->id, new->id) == 0)
            continue;
        if (merge(&old->repo_tags, NULL, 0, new->tags, new->n_tags, &names.tags, &names.n_tags,
                  err) < 0 ||
            merge(&old->repo_digests, NULL, 0, NULL, 0, &names.digests, &names.n_digests, err) < 0)
            return -1;
        if (names.n_tags != old->repo_tags.n &&
            change_names(c, e, old->config_json, &names, list, err) < 0)
            return -1;
    }
    return 0;
}

static int prepare(struct catalog *c, struct image_entry *entry, bool had,
                   const struct catalog_image *new, struct change **list, struct err *err)
{
    cleanup_names struct names names = {0};
    const struct image *old = had && !entry->removed ? entry->image : NULL;
    if (merge(old == NULL ? NULL : &old->repo_tags, new->tags, new->n_tags, NULL, 0, &names.tags,
              &names.n_tags, err) < 0 ||
        merge(old == NULL ? NULL : &old->repo_digests, new->digests, new->n_digests, NULL, 0,
              &names.digests, &names.n_digests, err) < 0)
        return -1;
    if (store_begin(c->store, err) < 0)
        return -1;
    if (take_tags(c, new, list, err) < 0 ||
        change_names(c, entry, new->config_json, &names, list, err) < 0) {
        store_rollback(c->store);
        return -1;
    }
    return store_commit(c->store, err);
}

int catalog_commit(struct catalog *c, const struct catalog_image *new, struct err *err)
{
    struct change *list = NULL;
    struct image_entry *entry = NULL;
    (void)pthread_mutex_lock(&c->commit);
    HASH_FIND_STR(c->images, new->id, entry);
    bool had = entry != NULL;
    int rc =
        had ? 0
            : make_entry(new->id, new->config_json, text_or_empty(new->completion), &entry, err);
    if (rc == 0)
        rc = prepare(c, entry, had, new, &list, err);
    if (rc == 0) {
        (void)pthread_mutex_lock(&c->lock);
        for (struct change *ch = list; ch != NULL; ch = ch->next) {
            struct image *old = ch->entry->image;
            ch->entry->image = ch->image;
            ch->image = old; /* freed with the list */
        }
        entry->removed = false;
        if (!had) {
            HASH_ADD_STR(c->images, id, entry);
            count_layers(c, entry, 1);
        }
        (void)pthread_mutex_unlock(&c->lock);
    } else if (!had) {
        free_entry(entry);
    }
    free_changes(list);
    (void)pthread_mutex_unlock(&c->commit);
    return rc;
}

/* ---- looking up ---- */

/* "sha256:<64>" or "<64>": the entry, removed or not. Needs lock. */
static struct image_entry *find_by_id(struct catalog *c, const char *text)
{
    char id[DIGEST_TEXT_SIZE];
    struct image_entry *e = NULL;
    if (text_is_hex(text, 64))
        (void)snprintf(id, sizeof(id), "sha256:%s", text);
    else if (digest_is_valid(text))
        (void)snprintf(id, sizeof(id), "%s", text);
    else
        return NULL;
    HASH_FIND_STR(c->images, id, e);
    return e;
}

static struct image_entry *find_by_name(struct catalog *c, const char *text)
{
    struct ref ref;
    char name[REF_TEXT_SIZE];
    struct image_entry *e;
    struct image_entry *next;
    if (ref_parse(text, &ref, NULL) < 0)
        return NULL;
    ref_format(&ref, name);
    HASH_ITER(hh, c->images, e, next)
    {
        const struct image_strings *s =
            ref.digest[0] != '\0' ? &e->image->repo_digests : &e->image->repo_tags;
        if (!e->removed && contains(s->items, s->n, name))
            return e;
    }
    return NULL;
}

/* A unique beginning of an id, in hexadecimal. */
static struct image_entry *find_by_prefix(struct catalog *c, const char *text)
{
    struct image_entry *found = NULL;
    struct image_entry *e;
    struct image_entry *next;
    if (text_has_prefix(text, "sha256:"))
        text += strlen("sha256:");
    size_t n = strlen(text);
    if (n == 0 || n >= 64 || !text_is_hex(text, n))
        return NULL;
    HASH_ITER(hh, c->images, e, next)
    {
        if (e->removed || strncmp(digest_hex(e->id), text, n) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = e;
    }
    return found;
}

static struct image_entry *find(struct catalog *c, const char *name_or_id)
{
    struct image_entry *e = find_by_id(c, name_or_id);
    if (e == NULL)
        e = find_by_name(c, name_or_id);
    if (e == NULL)
        e = find_by_prefix(c, name_or_id);
    return e;
}

int catalog_get(struct catalog *c, const char *name_or_id, struct image **ret_image,
                struct err *err)
{
    if (name_or_id == NULL || name_or_id[0] == '\0')
        return err_set(err, ERR_INVALID, "image name is empty");
    (void)pthread_mutex_lock(&c->lock);
    struct image_entry *e = find(c, name_or_id);
    struct image *image = e == NULL ? NULL : image_ref(e->image);
    (void)pthread_mutex_unlock(&c->lock);
    if (image == NULL)
        return err_set(err, ERR_NOT_FOUND, "image '%s' not found", name_or_id);
    *ret_image = image;
    return 0;
}

static int compare_images(const void *a, const void *b)
{
    return strcmp((*(struct image *const *)a)->id, (*(struct image *const *)b)->id);
}

int catalog_list(struct catalog *c, struct image_list *ret_list, struct err *err)
{
    struct image_entry *e;
    struct image_entry *next;
    struct image_list list = {0};
    (void)pthread_mutex_lock(&c->lock);
    list.items = calloc(HASH_COUNT(c->images) + 1, sizeof(struct image *));
    if (list.items != NULL)
        HASH_ITER(hh, c->images, e, next)
    if (!e->removed)
        list.items[list.n++] = image_ref(e->image);
    (void)pthread_mutex_unlock(&c->lock);
    if (list.items == NULL)
        return err_no_memory(err);
    qsort(list.items, list.n, sizeof(struct image *), compare_images);
    *ret_list = list;
    return 0;
}

/* ---- removing and using ---- */

/* Deletes an entry and what only it needed. Needs commit; the record is deleted already. */
static void drop_entry(struct catalog *c, struct image_entry *e)
{
    (void)pthread_mutex_lock(&c->lock);
    HASH_DEL(c->images, e);
    count_layers(c, e, -1);
    (void)pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; i < e->n_diff_ids; i++)
        catalog_drop_layer(c, e->diff_ids[i]);
    free_entry(e);
}

/* Takes the names off an image that is in use. Needs commit. */
static int hide_entry(struct catalog *c, struct image_entry *e, struct err *err)
{
    struct names none = {0};
    struct image *bare = NULL;
    if (make_object(c, e, e->image->config_json, &none, &bare, err) < 0)
        return -1;
    if (put_record(c, e, e->image->config_json, &none, true, err) < 0) {
        image_unref(bare);
        return -1;
    }
    (void)pthread_mutex_lock(&c->lock);
    struct image *old = e->image;
    e->image = bare;
    e->removed = true;
    (void)pthread_mutex_unlock(&c->lock);
    image_unref(old);
    return 0;
}

int catalog_remove(struct catalog *c, const char *name_or_id, struct err *err)
{
    int rc = 0;
    if (name_or_id == NULL || name_or_id[0] == '\0')
        return err_set(err, ERR_INVALID, "image name is empty");
    (void)pthread_mutex_lock(&c->commit);
    (void)pthread_mutex_lock(&c->lock);
    struct image_entry *e = find(c, name_or_id);
    bool used = e != NULL && e->users != NULL;
    bool gone = e == NULL || e->removed;
    (void)pthread_mutex_unlock(&c->lock);
    if (!gone && used) {
        rc = hide_entry(c, e, err);
    } else if (!gone) {
        rc = store_delete(c->store, RECORD_IMAGE, e->id, err);
        if (rc == 0)
            drop_entry(c, e);
    }
    (void)pthread_mutex_unlock(&c->commit);
    return rc;
}

int catalog_use(struct catalog *c, const char *id, const char *user, struct err *err)
{
    int rc = 0;
    struct user_entry *u = NULL;
    size_t n = strlen(user);
    /* commit too: a removal that has looked for users already must not miss this one */
    (void)pthread_mutex_lock(&c->commit);
    (void)pthread_mutex_lock(&c->lock);
    struct image_entry *e = find_by_id(c, id);
    if (e == NULL) {
        rc = err_set(err, ERR_NOT_FOUND, "image '%s' not found", id);
    } else {
        HASH_FIND(hh, e->users, user, n, u);
        if (u == NULL && (u = calloc(1, sizeof(*u) + n + 1)) == NULL) {
            rc = err_no_memory(err);
        } else if (u->name[0] == '\0') {
            memcpy(u->name, user, n + 1);
            HASH_ADD_KEYPTR(hh, e->users, u->name, n, u);
        }
    }
    (void)pthread_mutex_unlock(&c->lock);
    (void)pthread_mutex_unlock(&c->commit);
    return rc;
}

/* Deletes a removed image that nobody uses any more. Needs commit. */
static void drop_if_unused(struct catalog *c, struct image_entry *e)
{
    struct err err = {0};
    (void)pthread_mutex_lock(&c->lock);
    bool drop = e->removed && e->users == NULL;
    (void)pthread_mutex_unlock(&c->lock);
    if (!drop)
        return;
    if (store_delete(c->store, RECORD_IMAGE, e->id, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "image %s is not deleted now, the next start will", e->id);
    else
        drop_entry(c, e);
}

void catalog_release(struct catalog *c, const char *id, const char *user)
{
    struct user_entry *u = NULL;
    (void)pthread_mutex_lock(&c->commit);
    (void)pthread_mutex_lock(&c->lock);
    struct image_entry *e = find_by_id(c, id);
    if (e != NULL)
        HASH_FIND(hh, e->users, user, strlen(user), u);
    if (u != NULL) {
        HASH_DEL(e->users, u);
        free(u);
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (e != NULL)
        drop_if_unused(c, e);
    (void)pthread_mutex_unlock(&c->commit);
}

int catalog_collect(struct catalog *c, struct err *err)
{
    struct image_entry *e;
    struct image_entry *next;
    (void)pthread_mutex_lock(&c->commit);
    HASH_ITER(hh, c->images, e, next) drop_if_unused(c, e);
    int rc = catalog_collect_layers(c, err);
    (void)pthread_mutex_unlock(&c->commit);
    return rc;
}
