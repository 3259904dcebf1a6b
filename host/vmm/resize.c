/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Memory beyond what the machine booted with is one virtio-mem device: its
 * `requested-size` is set, and the guest's driver plugs or unplugs blocks until it has that much,
 * or, when shrinking, as much as it can free. Nobody waits for the guest here. vCPUs are added one
 * by one; the agent takes them into use. They are never taken away: that needs the guest's consent,
 * and a pod's CPU limit is enforced by its cgroups anyhow.
 *
 * What there is is always asked of QEMU, so a daemon that came back needs no record of it.
 *
 * The emulator has its translated code in regions, of which a vCPU's thread takes one when it
 * begins. When none is left QEMU empties them all for a vCPU that runs, but for a new one it aborts
 * (tcg/region.c of QEMU 7.2 to 10), and takes the pod with it: near that point no vCPU is added.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp_client.h"

#define GROWTH_PATH "/machine/peripheral/" CMDLINE_GROWTH_DEVICE
#define CPU_SLOTS   240
#define MIB         (1ull << 20)
#define REGION_MIN  (2 * MIB) /* of the emulator's code; smaller only if there are too few */
#define REGIONS_CPU 8u        /* at most that many for each vCPU that there may be */
#define REGIONS_ON  1u        /* that may be filled while one is added */

/* A member that is a number in range; -1 otherwise. */
static int get_bytes(const json_t *object, const char *name, uint64_t *ret_bytes)
{
    const json_t *member = json_object_get(object, name);

    if (!json_is_integer(member) || json_integer_value(member) < 0)
        return -1;
    *ret_bytes = (uint64_t)json_integer_value(member);
    return 0;
}

static int not_understood(const char *command, struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "QMP %s: the answer is not understood", command);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

struct growth {
    bool there;
    uint64_t size, requested, most, block; /* bytes */
};

/* Finds our device among the memory devices. */
static int parse_growth(const json_t *devices, struct growth *ret_growth, struct err *err)
{
    const json_t *device;
    size_t i;

    *ret_growth = (struct growth){0};
    json_array_foreach(devices, i, device)
    {
        const json_t *data = json_object_get(device, "data");
        const char *id = json_string_value(json_object_get(data, "id"));
        struct growth g = {.there = true};
        if (id == NULL || strcmp(id, CMDLINE_GROWTH_DEVICE) != 0)
            continue;
        if (get_bytes(data, "size", &g.size) < 0 ||
            get_bytes(data, "requested-size", &g.requested) < 0 ||
            get_bytes(data, "max-size", &g.most) < 0 ||
            get_bytes(data, "block-size", &g.block) < 0 || g.block == 0)
            return not_understood("query-memory-devices", err);
        *ret_growth = g;
        return 0;
    }
    return 0;
}

static int query_memory(struct vm *vm, int64_t deadline_ms, uint64_t *ret_base,
                        struct growth *ret_growth, struct err *err)
{
    cleanup_json json_t *sizes = NULL;
    cleanup_json json_t *devices = NULL;

    if (qmp_client_call(vm->qmp, "query-memory-size-summary", NULL, -1, deadline_ms, &sizes, err) <
            0 ||
        qmp_client_call(vm->qmp, "query-memory-devices", NULL, -1, deadline_ms, &devices, err) < 0)
        return -1;
    if (get_bytes(sizes, "base-memory", ret_base) < 0)
        return not_understood("query-memory-size-summary", err);
    return parse_growth(devices, ret_growth, err);
}

static int resize_memory(struct vm *vm, uint32_t memory_mib, int64_t deadline_ms, struct err *err)
{
    uint64_t wanted = memory_mib * MIB, base;
    struct growth g;

    if (query_memory(vm, deadline_ms, &base, &g, err) < 0)
        return -1;
    wanted = wanted > base ? wanted - base : 0;
    if (g.there)
        wanted = (wanted + g.block - 1) / g.block * g.block;
    /* The device was made of whole steps: up to the spec's size less than one of them is missing.
     */
    if (g.there && wanted > g.most && wanted - g.most <= CMDLINE_GROWTH_MIB * MIB)
        wanted = g.most;
    if (wanted > g.most)
        return err_set(err, ERR_EXHAUSTED, "%u MiB of memory: this machine can grow to %llu MiB",
                       memory_mib, (unsigned long long)((base + g.most) / MIB));
    if (wanted == g.requested)
        return 0;
    return qmp_client_call(vm->qmp, "qom-set",
                           json_pack("{s:s, s:s, s:I}", "path", GROWTH_PATH, "property",
                                     "requested-size", "value", (json_int_t)wanted),
                           -1, deadline_ms, NULL, err);
}

/* ---- vCPUs ------------------------------------------------------------------------------------
 */

/* What is there of a vCPU's slot; one that is empty has no path. */
static bool is_plugged(const json_t *slot)
{
    return json_object_get(slot, "qom-path") != NULL;
}

static int count_cpus(const json_t *slots, uint32_t *ret_plugged, uint32_t *ret_most,
                      struct err *err)
{
    const json_t *slot;
    uint32_t n = 0;
    size_t i;

    if (!json_is_array(slots) || json_array_size(slots) > CPU_SLOTS)
        return not_understood("query-hotpluggable-cpus", err);
    json_array_foreach(slots, i, slot) n += is_plugged(slot) ? 1 : 0;
    *ret_plugged = n;
    *ret_most = (uint32_t)json_array_size(slots);
    return 0;
}

static int plug_cpu(struct vm *vm, json_t *slot, uint32_t number, int64_t deadline_ms,
                    struct err *err)
{
    const char *type = json_string_value(json_object_get(slot, "type"));
    json_t *props = json_object_get(slot, "props");
    char id[32];

    if (type == NULL || !json_is_object(props))
        return not_understood("query-hotpluggable-cpus", err);
    (void)snprintf(id, sizeof(id), "cpu%u", number);
    json_t *args = json_pack("{s:s, s:s}", "driver", type, "id", id);
    if (args == NULL || json_object_update(args, props) < 0) {
        json_decref(args);
        return err_no_memory(err);
    }
    return qmp_client_call(vm->qmp, "device_add", args, -1, deadline_ms, NULL, err);
}

bool resize_has_region(const char *jit, uint32_t plugged, uint32_t most)
{
    const char *size = strstr(jit, "gen code size");
    unsigned long long used, total;

    if (size == NULL || sscanf(size, "gen code size %llu/%llu", &used, &total) != 2)
        return true;
    unsigned long long regions = total / REGION_MIN + 1; /* guard pages are not in the total */
    if (regions > most * REGIONS_CPU)
        regions = most * REGIONS_CPU;
    if (regions <= most)
        regions = most > 0 ? most : 1;
    /* Each vCPU may have begun one that counts as empty. */
    return used / (total / regions + 1) + plugged + REGIONS_ON < regions;
}

static int check_region(struct vm *vm, uint32_t plugged, uint32_t most, int64_t deadline_ms,
                        struct err *err)
{
    cleanup_json json_t *answer = NULL;
    struct err unknown;

    if (vm->record.accel != VMM_ACCEL_TCG)
        return 0;
    /* Not a stable command: one that is gone says nothing. */
    if (qmp_client_call(vm->qmp, "x-query-jit", NULL, -1, deadline_ms, &answer, &unknown) < 0)
        return 0;
    const char *jit = json_string_value(json_object_get(answer, "human-readable-text"));
    if (jit == NULL || resize_has_region(jit, plugged, most))
        return 0;
    return err_set(err, ERR_EXHAUSTED, "one more vCPU: the emulator has no room for its code now");
}

/* QEMU lists the highest slot first; the lowest empty one is the next to fill. */
static int resize_cpus(struct vm *vm, uint32_t vcpus, int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *slots = NULL;
    uint32_t plugged, most;

    if (qmp_client_call(vm->qmp, "query-hotpluggable-cpus", NULL, -1, deadline_ms, &slots, err) <
            0 ||
        count_cpus(slots, &plugged, &most, err) < 0)
        return -1;
    if (vcpus > most)
        return err_set(err, ERR_EXHAUSTED, "%u vCPUs: this machine can grow to %u", vcpus, most);
    for (size_t i = json_array_size(slots); i-- > 0 && plugged < vcpus;) {
        json_t *slot = json_array_get(slots, i);
        if (is_plugged(slot))
            continue;
        if (check_region(vm, plugged, most, deadline_ms, err) < 0 ||
            plug_cpu(vm, slot, plugged, deadline_ms, err) < 0)
            return -1;
        plugged++;
    }
    return 0;
}

/* ---- both -------------------------------------------------------------------------------------
 */

int vm_resize(struct vm *vm, uint32_t memory_mib, uint32_t vcpus, int64_t deadline_ms,
              struct err *err)
{
    if (vm_check_running(vm, err) < 0 ||
        (memory_mib > 0 && resize_memory(vm, memory_mib, deadline_ms, err) < 0) ||
        (vcpus > 0 && resize_cpus(vm, vcpus, deadline_ms, err) < 0))
        return err_prefix(err, "machine '%s'", vm->record.id);
    return 0;
}

int vm_get_size(struct vm *vm, int64_t deadline_ms, struct vm_size *ret_size, struct err *err)
{
    cleanup_json json_t *slots = NULL;
    struct vm_size size = {0};
    struct growth g;
    uint64_t base;

    if (vm_check_running(vm, err) < 0 || query_memory(vm, deadline_ms, &base, &g, err) < 0 ||
        qmp_client_call(vm->qmp, "query-hotpluggable-cpus", NULL, -1, deadline_ms, &slots, err) <
            0 ||
        count_cpus(slots, &size.vcpus, &size.vcpus_max, err) < 0)
        return err_prefix(err, "machine '%s'", vm->record.id);
    size.memory_mib = (uint32_t)((base + g.size) / MIB);
    size.requested_mib = (uint32_t)((base + g.requested) / MIB);
    size.memory_max_mib = (uint32_t)((base + g.most) / MIB);
    *ret_size = size;
    return 0;
}
