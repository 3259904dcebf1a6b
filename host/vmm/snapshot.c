/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A machine is saved and loaded with QEMU's migration over a file, without its
 * memory: that is a file of its own, shared by the machine that is saved and privately mapped by
 * those that are loaded (capability x-ignore-shared). What is left is the state of CPUs and
 * devices, half a MiB.
 *
 * The capability `events` makes QEMU tell how far it is; vm_on_event keeps the last status, and
 * whoever waits here is woken by it, or by the machine's end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/sync.h"

static int call(struct vm *vm, const char *command, json_t *args, int64_t deadline_ms,
                struct err *err)
{
    return qmp_client_call(vm->qmp, command, args, -1, deadline_ms, NULL, err);
}

/* Settings that saver and loader must share, and the file under the name "state". */
static int prepare(struct vm *vm, int state_fd, int64_t deadline_ms, struct err *err)
{
    if (call(vm, "migrate-set-capabilities",
             json_pack("{s:[{s:s, s:b}, {s:s, s:b}]}", "capabilities", "capability",
                       "x-ignore-shared", "state", 1, "capability", "events", "state", 1),
             deadline_ms, err) < 0)
        return -1;
    return qmp_client_call(vm->qmp, "getfd", json_pack("{s:s}", "fdname", "state"), state_fd,
                           deadline_ms, NULL, err);
}

static int await_end(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    char status[sizeof(vm->migration)];

    pthread_mutex_lock(&vm->lock);
    while (vm->state < VM_ENDING && strcmp(vm->migration, "completed") != 0 &&
           strcmp(vm->migration, "failed") != 0 && strcmp(vm->migration, "cancelled") != 0 &&
           sync_wait_until(&vm->changed, &vm->lock, deadline_ms))
        continue;
    memcpy(status, vm->migration, sizeof(status));
    bool over = vm->state >= VM_ENDING;
    pthread_mutex_unlock(&vm->lock);
    if (strcmp(status, "completed") == 0)
        return 0;
    if (over)
        return err_set(err, ERR_UNAVAILABLE, "QEMU ended meanwhile");
    if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)
        return err_set(err, ERR_SYSTEM, "QEMU says that it %s", status);
    return err_set(err, ERR_DEADLINE, "QEMU was not done in time");
}

void snapshot_on_event(struct vm *vm, const char *status)
{
    pthread_mutex_lock(&vm->lock);
    (void)snprintf(vm->migration, sizeof(vm->migration), "%.*s", (int)sizeof(vm->migration) - 1,
                   status);
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

int snapshot_save(struct vm *vm, int state_fd, int64_t deadline_ms, struct err *err)
{
    if (call(vm, "stop", NULL, deadline_ms, err) < 0 ||
        prepare(vm, state_fd, deadline_ms, err) < 0 ||
        call(vm, "migrate", json_pack("{s:s}", "uri", "fd:state"), deadline_ms, err) < 0 ||
        await_end(vm, deadline_ms, err) < 0)
        return err_prefix(err, "save the machine's state");
    return 0;
}

/* QEMU would tell the network that the template's MAC address has moved here. */
static int keep_quiet(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    return call(vm, "migrate-set-parameters", json_pack("{s:i}", "announce-rounds", 0), deadline_ms,
                err);
}

int snapshot_load(struct vm *vm, int state_fd, int64_t deadline_ms, struct err *err)
{
    char path[64];

    /* QEMU reads the file from where it stands, so each machine needs a file description of its
     * own. */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", state_fd);
    cleanup_fd int own_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (own_fd < 0)
        return err_set_errno(err, errno, "the template's state");
    if (prepare(vm, own_fd, deadline_ms, err) < 0 || keep_quiet(vm, deadline_ms, err) < 0 ||
        call(vm, "migrate-incoming", json_pack("{s:s}", "uri", "fd:state"), deadline_ms, err) < 0 ||
        await_end(vm, deadline_ms, err) < 0)
        return err_prefix(err, "load the template's state");
    return 0;
}

int snapshot_resume(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    return call(vm, "cont", NULL, deadline_ms, err);
}
