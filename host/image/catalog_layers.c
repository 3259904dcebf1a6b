/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers. A record is written after the file got its name, and deleted before the file goes, so
 * that a record without a file can only come from damage, and a file without a record is garbage.
 *
 * A layer is needed by images (counted per occurrence) and by leases of running operations. Whoever
 * takes the last need away deletes it, in state LAYER_BUSY, so that nobody finds it half deleted: a
 * pull that wants it meanwhile waits and then fetches it anew.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "host/image/catalog_internal.h"
#include "host/image/convert.h"

enum { LAYER_VERSION = 1, WAIT_MS = 100 };

struct layer_entry *catalog_find_layer(struct catalog *c, const char *diff_id)
{
    struct layer_entry *e = NULL;
    HASH_FIND_STR(c->layers, diff_id, e);
    return e;
}

static struct layer_entry *make_layer(struct catalog *c, const char *diff_id)
{
    struct layer_entry *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return NULL;
    (void)snprintf(e->diff_id, sizeof(e->diff_id), "%s", diff_id);
    HASH_ADD_STR(c->layers, diff_id, e);
    return e;
}

/* Forgets an entry that says nothing any more. Needs lock. */
static void forget_if_idle(struct catalog *c, struct layer_entry *e)
{
    if (e->state == LAYER_ABSENT && e->leases == 0 && e->images == 0) {
        HASH_DEL(c->layers, e);
        free(e);
    }
}

/* Waits up to WAIT_MS for a layer to leave LAYER_BUSY. Needs lock. */
static void wait_changed(struct catalog *c)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_MS * 1000000L;
    if (until.tv_nsec >= NSEC_PER_SEC) {
        until.tv_nsec -= NSEC_PER_SEC;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

int catalog_lease_layer(struct catalog *c, const char *diff_id, const struct http_limits *limits,
                        enum catalog_lease *ret_lease, struct err *err)
{
    int rc = 0;
    (void)pthread_mutex_lock(&c->lock);
    struct layer_entry *e = catalog_find_layer(c, diff_id);
    if (e == NULL)
        e = make_layer(c, diff_id);
    if (e == NULL) {
        (void)pthread_mutex_unlock(&c->lock);
        return err_no_memory(err);
    }
    e->leases++;
    while (e->state == LAYER_BUSY && rc == 0) {
        (void)pthread_mutex_unlock(&c->lock);
        if (limits->cancelled != NULL && limits->cancelled(limits->arg))
            rc = err_set(err, ERR_CANCELLED, "cancelled");
        else if (clock_poll_timeout(limits->deadline_ms) == 0)
            rc = err_set(err, ERR_DEADLINE, "deadline exceeded");
        (void)pthread_mutex_lock(&c->lock);
        if (rc == 0 && e->state == LAYER_BUSY)
            wait_changed(c);
    }
    if (rc < 0) {
        e->leases--;
    } else if (e->state == LAYER_PRESENT) {
        *ret_lease = CATALOG_PRESENT;
    } else {
        e->state = LAYER_BUSY;
        *ret_lease = CATALOG_FETCH;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

static void set_state(struct catalog *c, const char *diff_id, enum layer_state state, uint64_t size,
                      uint32_t flags)
{
    (void)pthread_mutex_lock(&c->lock);
    struct layer_entry *e = catalog_find_layer(c, diff_id);
    if (e != NULL) {
        e->state = state;
        e->size = size;
        e->flags = flags;
        forget_if_idle(c, e);
    }
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
}

int catalog_layer_done(struct catalog *c, const char *diff_id, uint64_t size, uint32_t flags,
                       struct err *err)
{
    char record[96];
    int n = snprintf(record, sizeof(record), "{\"size\": %llu, \"flags\": %u}",
                     (unsigned long long)size, flags);
    if (store_put(c->store, RECORD_LAYER, diff_id, LAYER_VERSION, record, (size_t)n, err) < 0)
        return -1;
    set_state(c, diff_id, LAYER_PRESENT, size, flags);
    return 0;
}

void catalog_layer_failed(struct catalog *c, const char *diff_id)
{
    set_state(c, diff_id, LAYER_ABSENT, 0, 0);
}

void catalog_drop_layer(struct catalog *c, const char *diff_id)
{
    struct err err = {0};
    (void)pthread_mutex_lock(&c->lock);
    struct layer_entry *e = catalog_find_layer(c, diff_id);
    bool drop = e != NULL && e->state == LAYER_PRESENT && e->leases == 0 && e->images == 0;
    if (drop)
        e->state = LAYER_BUSY;
    else if (e != NULL)
        forget_if_idle(c, e);
    (void)pthread_mutex_unlock(&c->lock);
    if (!drop)
        return;
    if (store_delete(c->store, RECORD_LAYER, diff_id, &err) < 0 ||
        content_remove_layer(c->content, diff_id, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "layer %s is not deleted now, the next start will",
                  diff_id);
    set_state(c, diff_id, LAYER_ABSENT, 0, 0);
}

bool catalog_needs_completion(struct catalog *c, const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n)
{
    bool needs = false;
    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < n; i++) {
        const struct layer_entry *e = catalog_find_layer(c, diff_ids[i]);
        uint32_t flags = e == NULL ? 0 : e->flags;
        needs = needs || (flags & CONVERT_LOWER_LINKS) != 0 ||
                (i > 0 && (flags & CONVERT_IMPLICIT) != 0);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return needs;
}

bool catalog_completion(struct catalog *c, const char *image_id, char ret_id[DIGEST_TEXT_SIZE])
{
    struct image_entry *e = NULL;
    (void)pthread_mutex_lock(&c->lock);
    HASH_FIND_STR(c->images, image_id, e);
    (void)snprintf(ret_id, DIGEST_TEXT_SIZE, "%s",
                   e != NULL && e->completed ? e->diff_ids[e->n_diff_ids - 1] : "");
    (void)pthread_mutex_unlock(&c->lock);
    return e != NULL;
}

void catalog_unlease(struct catalog *c, const char *diff_id)
{
    (void)pthread_mutex_lock(&c->lock);
    struct layer_entry *e = catalog_find_layer(c, diff_id);
    if (e != NULL && e->leases > 0)
        e->leases--;
    (void)pthread_mutex_unlock(&c->lock);
    catalog_drop_layer(c, diff_id);
}

/* ---- start-up ---- */

static int load_layer(void *arg, const char *id, uint32_t version, const void *bytes, size_t n,
                      struct err *err)
{
    struct catalog *c = arg;
    struct err why = {0};
    uint64_t size = 0;
    json_error_t json_err;
    json_t *j = json_loadb(bytes, n, 0, &json_err);
    json_int_t flags = json_integer_value(json_object_get(j, "flags"));
    json_int_t wanted = json_integer_value(json_object_get(j, "size"));
    bool usable = j != NULL && version == LAYER_VERSION && digest_is_valid(id);
    json_decref(j);
    if (usable && (content_stat_layer(c->content, id, &size, &why) < 0 || size != (uint64_t)wanted))
        usable = false;
    if (!usable) {
        log_event(LOG_WARN, NULL, why.code == ERR_NONE ? NULL : &why,
                  "layer %s is damaged or missing, dropping it", id);
        return store_delete(c->store, RECORD_LAYER, id, err);
    }
    struct layer_entry *e = make_layer(c, id);
    if (e == NULL)
        return err_no_memory(err);
    e->state = LAYER_PRESENT;
    e->size = size;
    e->flags = (uint32_t)flags;
    return 0;
}

int catalog_load_layers(struct catalog *c, struct err *err)
{
    return store_each(c->store, RECORD_LAYER, load_layer, c, err);
}

static int collect_file(void *arg, const char *diff_id, struct err *err)
{
    struct catalog *c = arg;
    (void)pthread_mutex_lock(&c->lock);
    bool known = catalog_find_layer(c, diff_id) != NULL;
    (void)pthread_mutex_unlock(&c->lock);
    return known ? 0 : content_remove_layer(c->content, diff_id, err);
}

int catalog_collect_layers(struct catalog *c, struct err *err)
{
    /* drop_layer changes the table: take one unneeded layer at a time */
    for (;;) {
        char diff_id[DIGEST_TEXT_SIZE] = "";
        struct layer_entry *e;
        struct layer_entry *next;
        (void)pthread_mutex_lock(&c->lock);
        HASH_ITER(hh, c->layers, e, next)
        {
            if (e->state == LAYER_PRESENT && e->leases == 0 && e->images == 0)
                memcpy(diff_id, e->diff_id, sizeof(diff_id));
        }
        (void)pthread_mutex_unlock(&c->lock);
        if (diff_id[0] == '\0')
            break;
        catalog_drop_layer(c, diff_id);
    }
    return content_each_layer(c->content, collect_file, c, err);
}
