/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A disk is three things in QEMU, made in this order and taken apart in the
 * reverse one: a descriptor set that holds the file, a block node "diskN" over it, and a device
 * "diskN" on LUN N of the one SCSI controller. N is chosen here, so every name is known before its
 * command is answered. An undo can therefore be queued behind a command whose fate is not known yet
 * (its deadline passed): QMP runs commands in order, so the undo finds whatever there is.
 *
 * Taking apart is driven by events, on the loop, and not by whoever asked: device_del only starts
 * the removal, DEVICE_DELETED says that the device is gone, and a guest may take any time for that.
 * Then blockdev-del and remove-fd are sent, and the LUN is free again when both are answered.
 * vm_remove_disk only waits to see this. (blockdev-del before DEVICE_DELETED fails with "Node is in
 * use".)
 *
 * A read-only file goes into a bay while one is free (bay.c): no device comes or goes, the node is
 * another one, and the guest is not asked. The rest of its life is the same.
 *
 * Node and descriptors are given back by one sequence, which owns the disk: it is begun by whoever
 * moves the disk to DISK_DROPPING, and the disk leaves the table at its end. Everybody else, who
 * may have been overtaken by an event of QEMU, holds a LUN and looks the disk up under the lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/log.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/sync.h"

#define GUEST_PAGE 4096

void disk_name(uint32_t lun, char ret_name[DISK_NAME_SIZE])
{
    (void)snprintf(ret_name, DISK_NAME_SIZE, "disk%u", lun);
}

int disk_lun_of_name(const char *name, uint32_t *ret_lun)
{
    char again[DISK_NAME_SIZE];
    uint64_t lun;

    if (!text_has_prefix(name, "disk") || text_parse_u64(name + 4, VM_DISK_LUNS - 1, &lun) < 0)
        return -1;
    disk_name((uint32_t)lun, again);
    if (strcmp(again, name) != 0)
        return -1;
    *ret_lun = (uint32_t)lun;
    return 0;
}

/* ---- the table ------------------------------------------------------------------------------ */

struct disk *disk_new(struct vm *vm, uint32_t lun, bool read_only, const char *serial,
                      enum disk_state state)
{
    struct disk *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->state = state;
    d->vm = vm;
    d->info.lun = lun;
    d->info.read_only = read_only;
    (void)snprintf(d->info.serial, sizeof(d->info.serial), "%s", serial);
    return d;
}

void disk_fdset_path(uint32_t lun, char ret_path[DISK_PATH_SIZE])
{
    (void)snprintf(ret_path, DISK_PATH_SIZE, "/dev/fdset/%lld", (long long)disk_fdset(lun));
}

void disk_forget_all(struct vm *vm)
{
    for (size_t i = 0; i < DISK_TABLE; i++) {
        free(vm->disks[i]);
        vm->disks[i] = NULL;
    }
}

static void set_disk_state(struct vm *vm, uint32_t lun, enum disk_state state)
{
    pthread_mutex_lock(&vm->lock);
    vm->disks[lun]->state = state;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

/* The lowest free LUN in [first, end); end: there is none. Lock held. */
static uint32_t lowest_free(const struct vm *vm, uint32_t first, uint32_t end)
{
    uint32_t lun = first;

    while (lun < end && vm->disks[lun] != NULL)
        lun++;
    return lun;
}

/* The LUN for a disk: a bay, if it may be in one and one is empty. Lock held. */
static bool pick_lun(const struct vm *vm, bool may_be_in_bay, uint32_t *ret_lun)
{
    if (may_be_in_bay && vm->has_bays) {
        *ret_lun = lowest_free(vm, VM_DISK_LUNS, DISK_TABLE);
        if (*ret_lun < DISK_TABLE)
            return true;
    }
    *ret_lun = lowest_free(vm, 0, VM_DISK_LUNS);
    return *ret_lun < VM_DISK_LUNS;
}

static int reserve(struct vm *vm, const struct vm_disk *disk, bool may_be_in_bay, uint32_t *ret_lun,
                   struct err *err)
{
    uint32_t lun;
    int result = 0;

    pthread_mutex_lock(&vm->lock);
    for (uint32_t i = 0; i < DISK_TABLE && result == 0; i++) {
        if (vm->disks[i] != NULL && strcmp(vm->disks[i]->info.serial, disk->serial) == 0)
            result = err_set(err, ERR_EXISTS, "disk '%s' is attached already", disk->serial);
    }
    if (result == 0 && !pick_lun(vm, may_be_in_bay, &lun))
        result = err_set(err, ERR_EXHAUSTED, "all %d LUNs are used", VM_DISK_LUNS);
    if (result == 0) {
        vm->disks[lun] = disk_new(vm, lun, disk->read_only, disk->serial, DISK_ADDING);
        if (vm->disks[lun] == NULL)
            result = err_no_memory(err);
        else
            *ret_lun = lun;
    }
    pthread_mutex_unlock(&vm->lock);
    return result;
}

/* Waits until the LUN is free. */
static int wait_gone(struct vm *vm, uint32_t lun, int64_t deadline_ms, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&vm->lock);
    for (;;) {
        const struct disk *d = vm->disks[lun];
        if (d == NULL || vm->state == VM_EXITED)
            break;
        if (d->state == DISK_STUCK) {
            result = err_set(err, ERR_SYSTEM, "QEMU does not give the disk back");
            break;
        }
        if (!sync_wait_until(&vm->changed, &vm->lock, deadline_ms)) {
            result = err_set(err, ERR_DEADLINE, "the guest has not let go of the disk in time");
            break;
        }
    }
    pthread_mutex_unlock(&vm->lock);
    return result;
}

/* ---- taking apart: a sequence on the loop
 * --------------------------------------------------------------------------- */

/* The disk is the caller's to take apart, with a reference to its vm; NULL: it has gone, or
 * somebody is at it. */
static struct disk *sequence_begin(struct vm *vm, uint32_t lun)
{
    pthread_mutex_lock(&vm->lock);
    struct disk *d = vm->disks[lun];
    bool mine = d != NULL && (d->state == DISK_REMOVING || d->state == DISK_ATTACHED);
    if (mine) {
        d->state = DISK_DROPPING;
        pthread_cond_broadcast(&vm->changed);
    }
    pthread_mutex_unlock(&vm->lock);
    if (!mine)
        return NULL;
    (void)vm_ref(vm);
    return d;
}

static void sequence_end(struct disk *d, const struct err *failure)
{
    struct vm *vm = d->vm;
    uint32_t lun = d->info.lun;

    pthread_mutex_lock(&vm->lock);
    if (failure == NULL) {
        vm->disks[lun] = NULL;
        free(d);
    } else {
        d->state = DISK_STUCK;
    }
    bool alive = vm->state < VM_ENDING;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    if (failure != NULL && alive)
        log_event(LOG_WARN, &(struct log_ctx){.sandbox = vm->record.id}, failure,
                  "LUN %u could not be given back, leaving it unused", lun);
    vm_unref(vm);
}

static void on_fd_removed(void *arg, json_t *ret, const struct err *err)
{
    /* "Not found" is the undo of an add-fd that failed. */
    bool gone = ret != NULL || err->code == ERR_SYSTEM || err->code == ERR_NOT_FOUND;

    sequence_end(arg, gone ? NULL : err);
}

static void on_node_deleted(void *arg, json_t *ret, const struct err *err)
{
    struct disk *d = arg;
    struct err failure;

    /* A node that is not there is what we want; one in use is not. */
    if (ret == NULL && strstr(err->msg, "Failed to find node") == NULL &&
        strstr(err->msg, "Cannot find") == NULL) {
        sequence_end(d, err);
        return;
    }
    if (qmp_client_send(d->vm->qmp, "remove-fd",
                        json_pack("{s:I}", "fdset-id", disk_fdset(d->info.lun)), on_fd_removed, d,
                        &failure) < 0)
        sequence_end(d, &failure);
}

static void delete_node(struct disk *d)
{
    char name[CMDLINE_BAY_NAME_SIZE];
    struct err failure;

    if (vm_lun_is_bay(d->info.lun))
        bay_file_name(d->info.lun, name);
    else
        disk_name(d->info.lun, name);
    if (qmp_client_send(d->vm->qmp, "blockdev-del", json_pack("{s:s}", "node-name", name),
                        on_node_deleted, d, &failure) < 0)
        sequence_end(d, &failure);
}

static void on_bay_emptied(void *arg, json_t *ret, const struct err *err)
{
    if (ret == NULL)
        sequence_end(arg, err);
    else
        delete_node(arg);
}

void disk_drop(struct vm *vm, uint32_t lun)
{
    struct disk *d = sequence_begin(vm, lun);
    struct err failure;

    if (d == NULL)
        return;
    if (!vm_lun_is_bay(lun))
        delete_node(d);
    else if (qmp_client_send(vm->qmp, "blockdev-reopen", bay_empty_arguments(lun), on_bay_emptied,
                             d, &failure) < 0)
        sequence_end(d, &failure);
}

void disk_on_device_deleted(struct vm *vm, const char *device_id)
{
    uint32_t lun;

    if (disk_lun_of_name(device_id, &lun) == 0)
        disk_drop(vm, lun);
}

/* A LUN whose device_del is not answered yet. Not the disk: it may be gone before. */
struct undoing {
    struct vm *vm; /* a reference */
    uint32_t lun;
};

/* The undo's device_del: accepted means that DEVICE_DELETED will start the rest; refused, that
 * there is no device. */
static void on_undo_device_del(void *arg, json_t *ret, const struct err *err)
{
    struct undoing *u = arg;

    (void)err;
    if (ret == NULL)
        disk_drop(u->vm, u->lun);
    vm_unref(u->vm);
    free(u);
}

static int undo_device(struct vm *vm, uint32_t lun)
{
    struct undoing *u = calloc(1, sizeof(*u));
    char name[DISK_NAME_SIZE];

    if (u == NULL)
        return -1;
    *u = (struct undoing){.vm = vm_ref(vm), .lun = lun};
    disk_name(lun, name);
    if (qmp_client_send(vm->qmp, "device_del", json_pack("{s:s}", "id", name), on_undo_device_del,
                        u, NULL) == 0)
        return 0;
    vm_unref(vm);
    free(u);
    return -1;
}

/*
 * After a failed addition: takes apart whatever there is of it, without waiting. A device that
 * cannot be asked for keeps its node, which makes the LUN stick.
 */
static void undo(struct vm *vm, uint32_t lun, bool device_possible)
{
    set_disk_state(vm, lun, DISK_REMOVING);
    if (!device_possible || undo_device(vm, lun) < 0)
        disk_drop(vm, lun);
}

/* ---- adding --------------------------------------------------------------------------------- */

static json_t *node_arguments(const struct vm_disk *disk, uint32_t lun, bool is_block)
{
    char name[DISK_NAME_SIZE], path[DISK_PATH_SIZE];

    disk_name(lun, name);
    disk_fdset_path(lun, path);
    /*
     * Read-only layers are shared by many machines, so they go through the host's page cache, and
     * so does scratch, which is mostly dead before it would be written. Locking is off: descriptors
     * came open, and layers are opened many times.
     */
    json_t *args =
        json_pack("{s:s, s:s, s:b, s:b, s:s, s:{s:b, s:b}, s:{s:s, s:s, s:s, s:s}}", "driver",
                  "raw", "node-name", name, "read-only", disk->read_only, "auto-read-only", 0,
                  "discard", disk->read_only ? "ignore" : "unmap", "cache", "direct", 0, "no-flush",
                  disk->scratch, "file", "driver", is_block ? "host_device" : "file", "filename",
                  path, "locking", "off", "aio", "threads");
    if (!disk->read_only && json_object_set_new(args, "detect-zeroes", json_string("unmap")) < 0) {
        json_decref(args);
        return NULL;
    }
    return args;
}

static json_t *device_arguments(const struct vm_disk *disk, uint32_t lun)
{
    char name[DISK_NAME_SIZE];

    disk_name(lun, name);
    /* Errors are the guest's to see: QEMU's default would stop the whole machine on a full host
     * disk. device_id: QEMU 10 refuses to make one of a serial of more than 20 characters. */
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:I, s:s, s:s, s:s, s:s, s:s}", "driver", "scsi-hd",
                     "id", name, "bus", "scsi0.0", "channel", 0, "scsi-id", 0, "lun",
                     (json_int_t)lun, "drive", name, "serial", disk->serial, "device_id", name,
                     "werror", "report", "rerror", "report");
}

/* Descriptor set, node, and the device or the bay's filling. */
static int attach(struct vm *vm, const struct vm_disk *disk, uint32_t lun, bool is_block,
                  int64_t deadline_ms, struct err *err)
{
    const bool in_bay = vm_lun_is_bay(lun);
    struct qmp_step steps[] = {
        {.command = "add-fd",
         .args = json_pack("{s:I, s:s}", "fdset-id", disk_fdset(lun), "opaque", disk->serial),
         .fd = disk->fd},
        {.command = "blockdev-add",
         .args = in_bay ? bay_file_arguments(lun) : node_arguments(disk, lun, is_block),
         .fd = -1},
        {.command = in_bay ? "blockdev-reopen" : "device_add",
         .args = in_bay ? bay_fill_arguments(lun) : device_arguments(disk, lun),
         .fd = -1},
    };

    return qmp_client_call_all(vm->qmp, steps, ARRAY_SIZE(steps), deadline_ms, err);
}

static int check_disk(const struct vm_disk *disk, struct stat *ret_st, struct err *err)
{
    size_t n = disk->serial == NULL ? 0 : strlen(disk->serial);

    if (n == 0 || n >= VM_DISK_SERIAL_SIZE ||
        strspn(disk->serial, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") !=
            n)
        return err_set(err, ERR_INVALID, "'%.64s' does not do as a disk's serial",
                       text_or_empty(disk->serial));
    if (fstat(disk->fd, ret_st) < 0)
        return err_set_errno(err, errno, "disk '%s'", disk->serial);
    if (!S_ISREG(ret_st->st_mode) && !S_ISBLK(ret_st->st_mode))
        return err_set(err, ERR_INVALID, "disk '%s': neither a file nor a block device",
                       disk->serial);
    int flags = fcntl(disk->fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) != (disk->read_only ? O_RDONLY : O_RDWR))
        return err_set(err, ERR_INVALID, "disk '%s': the descriptor must be opened %s",
                       disk->serial, disk->read_only ? "read-only" : "for reading and writing");
    return 0;
}

/* The guest reads whole pages, also the last one. */
static bool fits_in_bay(const struct vm_disk *disk, const struct stat *st)
{
    return disk->read_only && S_ISREG(st->st_mode) && st->st_size > 0 &&
           st->st_size % GUEST_PAGE == 0 && (uint64_t)st->st_size <= CMDLINE_BAY_BYTES;
}

static int add_disk(struct vm *vm, const struct vm_disk *disk, int64_t deadline_ms,
                    uint32_t *ret_lun, struct err *err)
{
    uint32_t lun = 0;
    struct stat st;
    struct err why;

    if (check_disk(disk, &st, err) < 0 || reserve(vm, disk, fits_in_bay(disk, &st), &lun, err) < 0)
        return -1;
    if (attach(vm, disk, lun, S_ISBLK(st.st_mode), deadline_ms, &why) == 0) {
        set_disk_state(vm, lun, DISK_ATTACHED);
        *ret_lun = lun;
        return 0;
    }
    /* A device comes last, so there is none but when it is not known how far QEMU came. */
    undo(vm, lun, !vm_lun_is_bay(lun) && why.code == ERR_DEADLINE);
    /* Whoever fails for another reason than time waits for the undo, so that a second try finds a
     * clean slate. */
    if (why.code != ERR_DEADLINE)
        (void)wait_gone(vm, lun, deadline_ms, NULL);
    if (err != NULL)
        *err = why;
    return err_prefix(err, "machine '%s': disk '%s'", vm->record.id, disk->serial);
}

int vm_add_disk(struct vm *vm, const struct vm_disk *disk, int64_t deadline_ms, uint32_t *ret_lun,
                struct err *err)
{
    return vm_check_running(vm, err) < 0 ? -1 : add_disk(vm, disk, deadline_ms, ret_lun, err);
}

int disk_add_first(struct vm *vm, const struct vm_disk *disk, int64_t deadline_ms, struct err *err)
{
    uint32_t lun;

    return add_disk(vm, disk, deadline_ms, &lun, err);
}

/* ---- removing ------------------------------------------------------------------------------- */

int vm_remove_disk(struct vm *vm, uint32_t lun, int64_t deadline_ms, struct err *err)
{
    char name[DISK_NAME_SIZE];
    struct err why = {0};

    if (vm_check_running(vm, err) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    struct disk *d = lun < DISK_TABLE ? vm->disks[lun] : NULL;
    enum disk_state before = d != NULL ? d->state : DISK_ADDING;
    if (before == DISK_ATTACHED)
        d->state = DISK_REMOVING;
    pthread_mutex_unlock(&vm->lock);
    if (before == DISK_ADDING)
        return err_set(err, ERR_NOT_FOUND, "machine '%s': there is no LUN %u", vm->record.id, lun);

    if (vm_lun_is_bay(lun)) {
        if (before == DISK_ATTACHED)
            disk_drop(vm, lun);
    } else if (before == DISK_ATTACHED || before == DISK_REMOVING) {
        disk_name(lun, name);
        /* A refusal means that the removal is under way already; QEMU has no error class for that.
         */
        if (qmp_client_call(vm->qmp, "device_del", json_pack("{s:s}", "id", name), -1, deadline_ms,
                            NULL, &why) < 0 &&
            why.code != ERR_SYSTEM && why.code != ERR_NOT_FOUND) {
            if (err != NULL)
                *err = why;
            return err_prefix(err, "machine '%s': LUN %u", vm->record.id, lun);
        }
    }
    if (wait_gone(vm, lun, deadline_ms, err) < 0)
        return err_prefix(err, "machine '%s': LUN %u", vm->record.id, lun);
    return 0;
}

int vm_list_disks(struct vm *vm, struct vm_disk_info **ret_disks, size_t *ret_n, struct err *err)
{
    struct vm_disk_info *list = calloc(DISK_TABLE, sizeof(*list));
    size_t n = 0;

    if (list == NULL)
        return err_no_memory(err);
    pthread_mutex_lock(&vm->lock);
    for (size_t i = 0; i < DISK_TABLE; i++) {
        const struct disk *d = vm->disks[i];
        if (d != NULL && (d->state == DISK_ATTACHED || d->state == DISK_REMOVING))
            list[n++] = d->info;
    }
    pthread_mutex_unlock(&vm->lock);
    *ret_disks = list;
    *ret_n = n;
    return 0;
}
