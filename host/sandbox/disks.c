/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A layer is attached to a VM once, however many containers use it; its serial
 * is made of its diff id, so a successor of this process can tell the disks apart. A disk that
 * nobody uses stays attached: a restarted container finds it, and detaching costs a round trip
 * through the guest. Only when more than MAX_IDLE are idle does a release detach, best effort.
 *
 * Attaching takes place without the mutex; `attaching` keeps others from attaching the same layer.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

#define MAX_IDLE  32
#define DETACH_MS 5000

int pod_disk_serial(const char *diff_id, char ret_serial[VM_DISK_SERIAL_SIZE], struct err *err)
{
    const char *hex = strchr(diff_id, ':');

    if (hex == NULL || !text_is_hex(hex + 1, 64))
        return err_set(err, ERR_INVALID, "layer id '%s' is no sha256 digest", diff_id);
    memcpy(ret_serial, hex + 1, VM_DISK_SERIAL_SIZE - 1);
    ret_serial[VM_DISK_SERIAL_SIZE - 1] = '\0';
    return 0;
}

static struct pod_disk *find_disk(struct pod *pod, const char *serial)
{
    struct pod_disk *disk;

    LIST_FOREACH (disk, &pod->disks, entry) {
        if (strcmp(disk->serial, serial) == 0)
            return disk;
    }
    return NULL;
}

static void drop_disk(struct pod_disk *disk)
{
    LIST_REMOVE(disk, entry);
    free(disk);
}

/*
 * The disk of that serial with one more user, mutex held: waits while another attaches it.
 * *ret_new: it is to be attached by the caller.
 */
static struct pod_disk *claim_disk(struct pod *pod, const char *serial, int64_t deadline_ms,
                                   bool *ret_new, struct err *err)
{
    struct pod_disk *disk;

    while ((disk = find_disk(pod, serial)) != NULL && disk->attaching) {
        if (!pod_wait(pod, deadline_ms)) {
            err_set(err, ERR_DEADLINE, "waiting for layer %s to be attached", serial);
            return NULL;
        }
    }
    *ret_new = disk == NULL;
    if (disk == NULL) {
        disk = calloc(1, sizeof(*disk));
        if (disk == NULL) {
            err_no_memory(err);
            return NULL;
        }
        memcpy(disk->serial, serial, sizeof(disk->serial));
        disk->attaching = true;
        LIST_INSERT_HEAD(&pod->disks, disk, entry);
    }
    disk->refs++;
    return disk;
}

static int attach(const struct pod_use *use, const struct image *image, size_t layer,
                  const char *serial, int64_t deadline_ms, uint32_t *ret_lun, struct err *err)
{
    cleanup_fd int fd = -1;
    uint64_t size = 0;
    struct vm_disk disk = {.read_only = true, .serial = serial};

    if (image_open_layer(use->pod->mgr->deps.images, image, layer, &fd, &size, err) != 0)
        return -1;
    disk.fd = fd;
    return vm_add_disk(use->vm, &disk, deadline_ms, ret_lun, err);
}

int pod_disk_acquire(const struct pod_use *use, const struct image *image, size_t layer,
                     int64_t deadline_ms, uint32_t *ret_lun, struct err *err)
{
    struct pod *pod = use->pod;
    char serial[VM_DISK_SERIAL_SIZE];
    struct pod_disk *disk;
    uint32_t lun = 0;
    bool fresh = false;
    int result;

    if (pod_disk_serial(image->layers[layer].diff_id, serial, err) != 0)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    disk = claim_disk(pod, serial, deadline_ms, &fresh, err);
    if (disk != NULL && !fresh)
        *ret_lun = disk->lun;
    pthread_mutex_unlock(&pod->mutex);
    if (disk == NULL)
        return -1;
    if (!fresh)
        return 0;
    result = attach(use, image, layer, serial, deadline_ms, &lun, err);
    pthread_mutex_lock(&pod->mutex);
    disk->attaching = false;
    if (result != 0) {
        drop_disk(disk);
    } else {
        disk->lun = lun;
        disk->size_bytes = image->layers[layer].size_bytes;
        *ret_lun = lun;
    }
    pthread_cond_broadcast(&pod->cond);
    pthread_mutex_unlock(&pod->mutex);
    return result == 0 ? 0 : err_prefix(err, "layer %s", serial);
}

/* An idle disk that is one too many, now `attaching` (out of bounds for others); NULL: none. Mutex
 * held. */
static struct pod_disk *pick_surplus(struct pod *pod)
{
    struct pod_disk *disk, *idle = NULL;
    unsigned n = 0;

    LIST_FOREACH (disk, &pod->disks, entry) {
        if (disk->refs > 0 || disk->attaching)
            continue;
        n++;
        idle = disk;
    }
    if (n <= MAX_IDLE)
        return NULL;
    idle->attaching = true;
    return idle;
}

/* Detaches what is too much; a guest that does not agree keeps its disk. */
static void detach_surplus(struct pod *pod)
{
    struct pod_use use = {0};
    struct pod_disk *disk;
    struct err err;

    if (pod_use_begin(pod, &use, &err) != 0)
        return;
    pthread_mutex_lock(&pod->mutex);
    while ((disk = pick_surplus(pod)) != NULL) {
        uint32_t lun = disk->lun;
        pthread_mutex_unlock(&pod->mutex);
        int result = vm_remove_disk(use.vm, lun, clock_deadline(DETACH_MS), &err);
        pthread_mutex_lock(&pod->mutex);
        disk->attaching = false;
        if (result == 0)
            drop_disk(disk);
        pthread_cond_broadcast(&pod->cond);
        if (result != 0) {
            struct log_ctx ctx = {.sandbox = pod->facts->id};
            log_event(LOG_WARN, &ctx, &err, "LUN %u stays attached, ignoring", lun);
            break;
        }
    }
    pthread_mutex_unlock(&pod->mutex);
    pod_use_end(&use);
}

void pod_disks_release(struct pod *pod, char *const *serials, size_t n)
{
    struct pod_disk *disk;
    unsigned idle = 0;

    pthread_mutex_lock(&pod->mutex);
    for (size_t i = 0; i < n; i++) {
        disk = find_disk(pod, serials[i]);
        if (disk != NULL && disk->refs > 0)
            disk->refs--;
    }
    LIST_FOREACH (disk, &pod->disks, entry)
        idle += disk->refs == 0;
    pthread_mutex_unlock(&pod->mutex);
    if (idle > MAX_IDLE)
        detach_surplus(pod);
}

int pod_disks_reload(struct pod *pod, struct vm *vm, struct err *err)
{
    cleanup_free struct vm_disk_info *disks = NULL;
    struct container *c;
    size_t n = 0;

    if (vm_list_disks(vm, &disks, &n, err) != 0)
        return -1;
    pthread_mutex_lock(&pod->mutex);
    for (size_t i = 0; i < n; i++) {
        struct pod_disk *disk = disks[i].read_only ? calloc(1, sizeof(*disk)) : NULL;
        if (disk == NULL)
            continue;
        memcpy(disk->serial, disks[i].serial, sizeof(disk->serial));
        disk->lun = disks[i].lun;
        LIST_INSERT_HEAD(&pod->disks, disk, entry);
    }
    TAILQ_FOREACH (c, &pod->containers, entry) {
        for (size_t i = 0; i < c->facts->n_disks; i++) {
            struct pod_disk *disk = find_disk(pod, c->facts->disks[i]);
            if (disk != NULL)
                disk->refs++;
        }
    }
    pthread_mutex_unlock(&pod->mutex);
    return 0;
}

void pod_disks_clear(struct pod *pod)
{
    struct pod_disk *disk;

    while ((disk = LIST_FIRST(&pod->disks)) != NULL)
        drop_disk(disk);
}
