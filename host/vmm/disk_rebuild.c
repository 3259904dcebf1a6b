/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is attached is known to QEMU itself, so a daemon that comes back asks instead of trusting
 * notes: block nodes called "diskN", and devices called "diskN" with their serials. The former
 * daemon may have died between any two commands: a node without a device, and a descriptor set
 * without a node, are rests of an addition or a removal and are given back.
 *
 * A bay's device says nothing of what is in it: its node does, and the descriptor set knows the
 * serial.
 *
 * A device may go away while this asks (a removal that was under way). So entries are made from the
 * nodes first, and from then on the DEVICE_DELETED event finds them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp_client.h"

static int make_entries(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *nodes = NULL;
    const json_t *node;
    size_t i;
    uint32_t lun;
    int result = 0;

    if (qmp_client_call(vm->qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), -1,
                        deadline_ms, &nodes, err) < 0)
        return -1;
    pthread_mutex_lock(&vm->lock);
    json_array_foreach(nodes, i, node)
    {
        const char *name = json_string_value(json_object_get(node, "node-name"));
        if (name == NULL || disk_lun_of_name(name, &lun) < 0 || vm->disks[lun] != NULL)
            continue;
        vm->disks[lun] =
            disk_new(vm, lun, json_is_true(json_object_get(node, "ro")), "", DISK_ATTACHED);
        if (vm->disks[lun] == NULL)
            result = err_no_memory(err);
    }
    if (result == 0)
        result = bay_rebuild(vm, nodes, err);
    pthread_mutex_unlock(&vm->lock);
    return result;
}

/* "" when the device has gone meanwhile. */
static int ask_serial(struct vm *vm, uint32_t lun, char ret_serial[VM_DISK_SERIAL_SIZE],
                      int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *value = NULL;
    char name[DISK_NAME_SIZE], path[64];
    struct err why;

    disk_name(lun, name);
    (void)snprintf(path, sizeof(path), "/machine/peripheral/%s", name);
    ret_serial[0] = '\0';
    if (qmp_client_call(vm->qmp, "qom-get",
                        json_pack("{s:s, s:s}", "path", path, "property", "serial"), -1,
                        deadline_ms, &value, &why) < 0) {
        if (why.code == ERR_NOT_FOUND || why.code == ERR_SYSTEM)
            return 0;
        if (err != NULL)
            *err = why;
        return -1;
    }
    (void)snprintf(ret_serial, VM_DISK_SERIAL_SIZE, "%.*s", VM_DISK_SERIAL_SIZE - 1,
                   text_or_empty(json_string_value(value)));
    return 0;
}

static int match_devices(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *devices = NULL;
    cleanup_free bool *has_device = calloc(VM_DISK_LUNS, sizeof(*has_device));
    const json_t *device;
    size_t i;
    uint32_t lun;

    if (has_device == NULL)
        return err_no_memory(err);
    if (qmp_client_call(vm->qmp, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), -1,
                        deadline_ms, &devices, err) < 0)
        return -1;
    json_array_foreach(devices, i, device)
    {
        const char *name = json_string_value(json_object_get(device, "name"));
        if (name != NULL && disk_lun_of_name(name, &lun) == 0)
            has_device[lun] = true;
    }
    for (lun = 0; lun < VM_DISK_LUNS; lun++) {
        char serial[VM_DISK_SERIAL_SIZE] = "";
        pthread_mutex_lock(&vm->lock);
        struct disk *d = vm->disks[lun];
        bool attached = d != NULL && d->state == DISK_ATTACHED;
        pthread_mutex_unlock(&vm->lock);
        if (!attached)
            continue;
        if (has_device[lun] && ask_serial(vm, lun, serial, deadline_ms, err) < 0)
            return -1;
        pthread_mutex_lock(&vm->lock);
        d = vm->disks[lun];
        attached = d != NULL && d->state == DISK_ATTACHED;
        if (attached)
            memcpy(d->info.serial, serial, sizeof(serial));
        pthread_mutex_unlock(&vm->lock);
        if (attached && !has_device[lun])
            disk_drop(vm, lun);
    }
    return 0;
}

/* A descriptor set was given the serial of what is in it. */
static const char *serial_of_fdset(const json_t *set)
{
    const json_t *fds = json_object_get(set, "fds");

    return text_or_empty(json_string_value(json_object_get(json_array_get(fds, 0), "opaque")));
}

/* Bays learn the serials of what is in them; sets that nothing uses are given back. */
static int match_fdsets(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *sets = NULL;
    const json_t *set;
    size_t i;

    if (qmp_client_call(vm->qmp, "query-fdsets", NULL, -1, deadline_ms, &sets, err) < 0)
        return -1;
    json_array_foreach(sets, i, set)
    {
        json_int_t id = json_integer_value(json_object_get(set, "fdset-id"));
        if (id < disk_fdset(0) || id >= disk_fdset(DISK_TABLE))
            continue;
        uint32_t lun = (uint32_t)(id - disk_fdset(0));
        pthread_mutex_lock(&vm->lock);
        struct disk *d = vm->disks[lun];
        if (d != NULL && vm_lun_is_bay(lun))
            (void)snprintf(d->info.serial, sizeof(d->info.serial), "%.*s", VM_DISK_SERIAL_SIZE - 1,
                           serial_of_fdset(set));
        pthread_mutex_unlock(&vm->lock);
        if (d == NULL && qmp_client_send(vm->qmp, "remove-fd", json_pack("{s:I}", "fdset-id", id),
                                         NULL, NULL, err) < 0)
            return -1;
    }
    return 0;
}

/* What was on its way into a bay or out of it, or is nobody's, goes. */
static void clear_bays(struct vm *vm)
{
    for (uint32_t lun = VM_DISK_LUNS; lun < DISK_TABLE; lun++) {
        pthread_mutex_lock(&vm->lock);
        const struct disk *d = vm->disks[lun];
        bool useless = d != NULL && (d->state == DISK_REMOVING ||
                                     (d->state == DISK_ATTACHED && d->info.serial[0] == '\0'));
        pthread_mutex_unlock(&vm->lock);
        if (useless)
            disk_drop(vm, lun);
    }
}

int disk_rebuild(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    if (make_entries(vm, deadline_ms, err) < 0 || match_devices(vm, deadline_ms, err) < 0 ||
        match_fdsets(vm, deadline_ms, err) < 0)
        return err_prefix(err, "finding out what is attached");
    clear_bays(vm);
    return 0;
}
