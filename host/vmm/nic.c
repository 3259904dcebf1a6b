/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A further network interface is three things in QEMU, made in this order:
 * named descriptors ("tapN", "vhostN"), which the netdev "netN" takes over, and the device "nicN"
 * behind the root port "nicportN". N is chosen here, so an undo can be queued behind a command
 * whose fate is not known (its deadline passed). What may then still be a device keeps its port:
 * taking it out again would need the guest.
 */
#include <stdio.h>
#include <string.h>

#include "host/vmm/internal.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/vhostnet.h"

#define NAME_SIZE 16

struct names {
    char tap[NAME_SIZE];
    char vhost[NAME_SIZE];
    char net[NAME_SIZE];
    char nic[NAME_SIZE];
    char port[NAME_SIZE];
};

static struct names names_of(unsigned int index)
{
    struct names n;

    (void)snprintf(n.tap, sizeof(n.tap), "tap%u", index);
    (void)snprintf(n.vhost, sizeof(n.vhost), "vhost%u", index);
    (void)snprintf(n.net, sizeof(n.net), "net%u", index);
    (void)snprintf(n.nic, sizeof(n.nic), "nic%u", index);
    (void)snprintf(n.port, sizeof(n.port), "nicport%u", index);
    return n;
}

static int reserve(struct vm *vm, unsigned int *ret_index, struct err *err)
{
    unsigned int index = 1;

    pthread_mutex_lock(&vm->lock);
    while (index < CMDLINE_NICS && vm->nics_used[index])
        index++;
    if (index < CMDLINE_NICS)
        vm->nics_used[index] = true;
    pthread_mutex_unlock(&vm->lock);
    if (index == CMDLINE_NICS)
        return err_set(err, ERR_EXHAUSTED, "all %d network interfaces are used", CMDLINE_NICS);
    *ret_index = index;
    return 0;
}

static void release(struct vm *vm, unsigned int index)
{
    pthread_mutex_lock(&vm->lock);
    vm->nics_used[index] = false;
    pthread_mutex_unlock(&vm->lock);
}

/* Gives back what there may be of an interface that has no device; refusals are expected. */
static void drop_backend(struct vm *vm, const struct names *n)
{
    (void)qmp_client_send(vm->qmp, "netdev_del", json_pack("{s:s}", "id", n->net), NULL, NULL,
                          NULL);
    (void)qmp_client_send(vm->qmp, "closefd", json_pack("{s:s}", "fdname", n->tap), NULL, NULL,
                          NULL);
    (void)qmp_client_send(vm->qmp, "closefd", json_pack("{s:s}", "fdname", n->vhost), NULL, NULL,
                          NULL);
}

static int pass_fd(struct vm *vm, const char *name, int fd, int64_t deadline_ms, struct err *err)
{
    return qmp_client_call(vm->qmp, "getfd", json_pack("{s:s}", "fdname", name), fd, deadline_ms,
                           NULL, err);
}

/* The host's kernel moves the packets where it can: fails only for what QEMU says. */
static int pass_vhost(struct vm *vm, const char *name, int64_t deadline_ms, bool *ret_passed,
                      struct err *err)
{
    const char *device = vm->vmm->config.vhost_net;
    cleanup_fd int fd = -1;

    *ret_passed = false;
    if (device[0] == '\0' || vhostnet_open(device, 1, &fd, NULL) < 0)
        return 0;
    if (pass_fd(vm, name, fd, deadline_ms, err) < 0)
        return -1;
    *ret_passed = true;
    return 0;
}

static int add_backend(struct vm *vm, const struct vm_nic *nic, const struct names *n,
                       int64_t deadline_ms, struct err *err)
{
    bool vhost;

    if (pass_fd(vm, n->tap, nic->tap_fds[0], deadline_ms, err) < 0 ||
        pass_vhost(vm, n->vhost, deadline_ms, &vhost, err) < 0)
        return -1;
    json_t *args = json_pack("{s:s, s:s, s:s}", "type", "tap", "id", n->net, "fd", n->tap);
    if (args == NULL)
        return err_no_memory(err);
    if (vhost && (json_object_set_new(args, "vhost", json_true()) < 0 ||
                  json_object_set_new(args, "vhostfd", json_string(n->vhost)) < 0)) {
        json_decref(args);
        return err_no_memory(err);
    }
    return qmp_client_call(vm->qmp, "netdev_add", args, -1, deadline_ms, NULL, err);
}

static int add_device(struct vm *vm, const struct vm_nic *nic, const struct names *n,
                      int64_t deadline_ms, struct err *err)
{
    const uint8_t *m = nic->mac;
    char mac[18];

    (void)snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
                   m[5]);
    return qmp_client_call(vm->qmp, "device_add",
                           json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:s}", "driver",
                                     "virtio-net-pci", "id", n->nic, "bus", n->port, "netdev",
                                     n->net, "mac", mac, "disable-legacy", "on", "queue_reset", 0,
                                     "romfile", ""),
                           -1, deadline_ms, NULL, err);
}

int vm_add_nic(struct vm *vm, const struct vm_nic *nic, int64_t deadline_ms, uint32_t *ret_slot,
               struct err *err)
{
    unsigned int index = 0;
    struct err why;

    if (vm_check_running(vm, err) < 0 || reserve(vm, &index, err) < 0)
        return -1;
    const struct names n = names_of(index);
    if (add_backend(vm, nic, &n, deadline_ms, &why) < 0) {
        drop_backend(vm, &n);
        release(vm, index);
    } else if (add_device(vm, nic, &n, deadline_ms, &why) < 0) {
        drop_backend(vm, &n);
        if (why.code != ERR_DEADLINE)
            release(vm, index);
    } else {
        *ret_slot = CMDLINE_NIC_SLOT(index);
        return 0;
    }
    if (err != NULL)
        *err = why;
    return err_prefix(err, "machine '%s': network interface", vm->record.id);
}

int vm_join_namespace(struct vm *vm, int netns_fd, const char *name, struct err *err)
{
    char tap[DEADEND_NAME_SIZE];

    pthread_mutex_lock(&vm->lock);
    memcpy(tap, vm->deadend, sizeof(tap));
    vm->deadend[0] = '\0';
    pthread_mutex_unlock(&vm->lock);
    if (tap[0] == '\0')
        return err_set(err, ERR_BAD_STATE, "machine '%s' has no tap that could be moved",
                       vm->record.id);
    if (deadend_move(vm->vmm, tap, netns_fd, name, err) < 0)
        return err_prefix(err, "machine '%s'", vm->record.id);
    return 0;
}

int nic_rebuild(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    cleanup_json json_t *devices = NULL;
    const json_t *device;
    size_t i;

    if (qmp_client_call(vm->qmp, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), -1,
                        deadline_ms, &devices, err) < 0)
        return err_prefix(err, "finding out which network interfaces there are");
    for (unsigned int index = 1; index < CMDLINE_NICS; index++) {
        const struct names n = names_of(index);
        bool used = false;
        json_array_foreach(devices, i, device)
        {
            const char *name = json_string_value(json_object_get(device, "name"));
            used = used || (name != NULL && strcmp(name, n.nic) == 0);
        }
        pthread_mutex_lock(&vm->lock);
        vm->nics_used[index] = used;
        pthread_mutex_unlock(&vm->lock);
        /* The former daemon may have died between two steps. */
        if (!used)
            drop_backend(vm, &n);
    }
    return 0;
}
