/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record is written once, right after a machine started, and read by a daemon that may be newer
 * or older. Rules for change: a reader ignores members it does not know; a change that an old
 * reader would misunderstand raises `version`.
 *
 * The text comes from our own store, yet it decides which process is killed and which folder's
 * sockets are removed, so it is decoded as strictly as if a stranger had written it: every member
 * present, of its type, in its range.
 */
#include "host/vmm/record.h"

#include <string.h>

#include <jansson.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/vmm/json.h"

#define RECORD_VERSION 1

static const char *const accel_names[] = {
    [VMM_ACCEL_AUTO] = "auto",
    [VMM_ACCEL_KVM] = "kvm",
    [VMM_ACCEL_TCG] = "tcg",
};

static const char *const transport_names[] = {
    [VMM_TRANSPORT_AUTO] = "auto",
    [VMM_TRANSPORT_VSOCK] = "vsock",
    [VMM_TRANSPORT_SERIAL] = "virtio-serial",
};

static int find_name(const char *const *names, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], text) == 0)
            return (int)i;
    return -1;
}

const char *vmm_accel_name(enum vmm_accel accel)
{
    return (size_t)accel < ARRAY_SIZE(accel_names) ? accel_names[accel] : "unknown";
}

int vmm_accel_parse(const char *text, enum vmm_accel *ret_accel)
{
    int i = find_name(accel_names, ARRAY_SIZE(accel_names), text);

    if (i < 0)
        return -1;
    *ret_accel = (enum vmm_accel)i;
    return 0;
}

const char *vmm_transport_name(enum vmm_transport transport)
{
    return (size_t)transport < ARRAY_SIZE(transport_names) ? transport_names[transport] : "unknown";
}

int vmm_transport_parse(const char *text, enum vmm_transport *ret_transport)
{
    int i = find_name(transport_names, ARRAY_SIZE(transport_names), text);

    if (i < 0)
        return -1;
    *ret_transport = (enum vmm_transport)i;
    return 0;
}

bool vm_id_is_valid(const char *id)
{
    size_t n = strlen(id);

    return n > 0 && n < VM_ID_SIZE && id[0] != '-' && id[0] != '.' &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n;
}

int vm_record_encode(const struct vm_record *record, char **ret_text, struct err *err)
{
    cleanup_json json_t *root =
        json_pack("{s:i, s:s, s:s, s:i, s:I, s:s, s:I, s:s, s:s, s:I, s:s, s:b}", "version",
                  RECORD_VERSION, "id", record->id, "dir", record->dir, "pid", (int)record->pid,
                  "start_ticks", (json_int_t)record->start_ticks, "boot_id", record->boot_id, "uid",
                  (json_int_t)record->uid, "accel", vmm_accel_name(record->accel), "transport",
                  vmm_transport_name(record->transport), "cid", (json_int_t)record->cid,
                  "qemu_version", record->qemu_version, "cloned", record->cloned);
    if (root == NULL)
        return err_set(err, ERR_INVALID,
                       "machine record: cannot be encoded (out of memory, or not UTF-8)");

    cleanup_free char *text = json_dumps(root, JSON_COMPACT);
    if (text == NULL)
        return err_no_memory(err);
    if (strlen(text) > VM_RECORD_MAX)
        return err_set(err, ERR_EXHAUSTED, "machine record: longer than %d bytes", VM_RECORD_MAX);
    *ret_text = steal_ptr(&text);
    return 0;
}

static int bad_member(struct err *err, const char *name)
{
    return err_set(err, ERR_PROTOCOL, "machine record: '%s' is missing or out of range", name);
}

static int get_text(const json_t *root, const char *name, char *ret_text, size_t size,
                    struct err *err)
{
    const char *text = json_string_value(json_object_get(root, name));

    if (text == NULL || strlen(text) >= size)
        return bad_member(err, name);
    memcpy(ret_text, text, strlen(text) + 1);
    return 0;
}

static int get_number(const json_t *root, const char *name, int64_t min, int64_t max,
                      int64_t *ret_value, struct err *err)
{
    const json_t *member = json_object_get(root, name);

    if (!json_is_integer(member) || json_integer_value(member) < min ||
        json_integer_value(member) > max)
        return bad_member(err, name);
    *ret_value = json_integer_value(member);
    return 0;
}

static int get_enums(const json_t *root, struct vm_record *r, struct err *err)
{
    char name[32];

    if (get_text(root, "accel", name, sizeof(name), err) < 0)
        return -1;
    if (vmm_accel_parse(name, &r->accel) < 0 || r->accel == VMM_ACCEL_AUTO)
        return bad_member(err, "accel");
    if (get_text(root, "transport", name, sizeof(name), err) < 0)
        return -1;
    if (vmm_transport_parse(name, &r->transport) < 0 || r->transport == VMM_TRANSPORT_AUTO)
        return bad_member(err, "transport");
    return 0;
}

int vm_record_decode(const char *text, struct vm_record *ret_record, struct err *err)
{
    int64_t version, pid, ticks, uid, cid;
    json_error_t json_err;
    struct vm_record r = {0};

    if (strnlen(text, VM_RECORD_MAX + 1) > VM_RECORD_MAX)
        return err_set(err, ERR_PROTOCOL, "machine record: longer than %d bytes", VM_RECORD_MAX);
    cleanup_json json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &json_err);
    if (root == NULL)
        return err_set(err, ERR_PROTOCOL, "machine record: %s", json_err.text);

    if (get_number(root, "version", 1, INT64_MAX, &version, err) < 0)
        return -1;
    if (version != RECORD_VERSION)
        return err_set(err, ERR_PROTOCOL, "machine record: version %lld is not understood",
                       (long long)version);
    if (get_text(root, "id", r.id, sizeof(r.id), err) < 0 ||
        get_text(root, "dir", r.dir, sizeof(r.dir), err) < 0 ||
        get_text(root, "boot_id", r.boot_id, sizeof(r.boot_id), err) < 0 ||
        get_text(root, "qemu_version", r.qemu_version, sizeof(r.qemu_version), err) < 0 ||
        get_number(root, "pid", 2, INT32_MAX, &pid, err) < 0 ||
        get_number(root, "start_ticks", 1, INT64_MAX, &ticks, err) < 0 ||
        get_number(root, "uid", 0, UINT32_MAX - 1LL, &uid, err) < 0 ||
        get_number(root, "cid", 0, UINT32_MAX - 1LL, &cid, err) < 0 || get_enums(root, &r, err) < 0)
        return -1;
    if (!vm_id_is_valid(r.id))
        return bad_member(err, "id");
    if (r.dir[0] != '/')
        return bad_member(err, "dir");
    if ((r.transport == VMM_TRANSPORT_VSOCK) != (cid > 2))
        return bad_member(err, "cid");
    r.pid = (pid_t)pid;
    r.start_ticks = (uint64_t)ticks;
    r.uid = (uid_t)uid;
    r.cid = (uint32_t)cid;
    r.cloned = json_is_true(json_object_get(root, "cloned")); /* newer than version 1 */
    *ret_record = r;
    return 0;
}
