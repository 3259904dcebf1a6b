/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine without QEMU: the process is a sleeper, the monitor a fake. What cannot be made to
 * happen with a real QEMU at will is shown here: commands that fail half-way or are never answered,
 * guests that keep a disk, a daemon that died between two commands.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/spawn.h"
#include "common/loop/loop.h"
#include "host/vmm/process.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/vmm.h"
#include "tests/fakes/fake_qmp.h"

#define VANISH_ROUNDS 50
#define VANISHING     100

#define SOON()  clock_deadline(100)
#define LATER() clock_deadline(20000)

static struct {
    char dir[64];
    struct loop *loop;
    pthread_t thread;
    struct vmm *vmm;
    struct spawn_child child;
    struct vm_record record;
    struct fake_qmp *fake;
    struct vm *vm;
    int disk_fd;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_exits;
    struct vm_exit exit;
    void (*before_device_del)(void); /* what happens before the next undo's is queued; NULL */
    sem_t loop_may_go_on;
} t;

/* The linker puts this before the real one (Makefile), to hold a worker up where events of QEMU may
 * overtake it. */
int __real_qmp_client_send(struct qmp_client *client, const char *command, json_t *args,
                           qmp_reply_fn fn, void *arg, struct err *err);
int __wrap_qmp_client_send(struct qmp_client *client, const char *command, json_t *args,
                           qmp_reply_fn fn, void *arg, struct err *err);

int __wrap_qmp_client_send(struct qmp_client *client, const char *command, json_t *args,
                           qmp_reply_fn fn, void *arg, struct err *err)
{
    if (strcmp(command, "device_del") == 0 && t.before_device_del != NULL)
        t.before_device_del();
    return __real_qmp_client_send(client, command, args, fn, arg, err);
}

/* And this one, to widen every gap that a thread leaves between two of its locks. */
static _Thread_local bool dawdling;
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int result = __real_pthread_mutex_unlock(mutex);

    if (dawdling)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1}, NULL);
    return result;
}

static void *run_loop(void *arg)
{
    struct err err;

    if (loop_run(arg, &err) < 0)
        abort();
    return NULL;
}

static void tell_up(void *arg)
{
    if (write(*(const int *)arg, "", 1) != 1)
        abort();
}

static void on_exit_told(void *arg, const struct vm_exit *how)
{
    assert_ptr_equal(arg, &t);
    pthread_mutex_lock(&t.lock);
    t.n_exits++;
    t.exit = *how;
    pthread_cond_broadcast(&t.changed);
    pthread_mutex_unlock(&t.lock);
}

static void wait_told(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&t.lock);
    while (t.n_exits == 0)
        assert_int_equal(pthread_cond_timedwait(&t.changed, &t.lock, &until), 0);
    pthread_mutex_unlock(&t.lock);
}

static void start_fake(const struct fake_qmp_options *options)
{
    char path[128];
    struct err err;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/qmp.sock", t.dir);
    assert_int_equal(fd_listen_unix(path, 0600, &fd, &err), 0);
    t.fake = fake_qmp_start(fd, true, options);
}

static bool without_vhost_net; /* the setup's: there is no such device */

static int setup(void **state)
{
    const char *const argv[] = {"sleep", "1000", NULL};
    const struct spawn_spec spec = {.path = "/bin/sleep", .argv = argv};
    struct err err;
    char path[128], byte;
    int up[2];

    (void)state;
    memset(&t, 0, sizeof(t));
    (void)snprintf(t.dir, sizeof(t.dir), "/tmp/test-vm-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    pthread_mutex_init(&t.lock, NULL);
    pthread_cond_init(&t.changed, NULL);
    assert_int_equal(loop_new(&t.loop, &err), 0);
    assert_int_equal(pthread_create(&t.thread, NULL, run_loop, t.loop), 0);
    assert_int_equal(pipe2(up, O_CLOEXEC), 0);
    assert_int_equal(loop_post(t.loop, tell_up, &up[1], &err), 0);
    assert_int_equal(read(up[0], &byte, 1), 1);
    close(up[0]);
    close(up[1]);
    /* Any file does: what QEMU is handed is a descriptor. */
    (void)snprintf(path, sizeof(path), "%s/vhost-net", t.dir);
    if (!without_vhost_net)
        assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, "", 0, 0600, &err), 0);
    const struct vmm_config config = {
        .run_dir = t.dir,
        .accel = VMM_ACCEL_TCG,
        .vhost_net = path,
        .uid_base = 5000,
        .uid_count = 4,
    };
    assert_int_equal(vmm_new(&config, t.loop, &t.vmm, &err), 0);

    assert_int_equal(spawn_start(&spec, &t.child, &err), 0);
    t.record = (struct vm_record){.id = "fake",
                                  .pid = t.child.pid,
                                  .uid = 5000,
                                  .accel = VMM_ACCEL_TCG,
                                  .transport = VMM_TRANSPORT_SERIAL,
                                  .qemu_version = "7.2.0"};
    (void)snprintf(t.record.dir, sizeof(t.record.dir), "%s", t.dir);
    assert_int_equal(process_boot_id(t.record.boot_id, &err), 0);
    assert_int_equal(process_start_ticks(t.child.pid, &t.record.start_ticks, &err), 0);
    (void)snprintf(path, sizeof(path), "%s/disk", t.dir);
    t.disk_fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(t.disk_fd >= 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    process_kill(t.child.pidfd);
    vm_unref(t.vm);
    vmm_free(t.vmm);
    if (t.fake != NULL)
        fake_qmp_stop(t.fake);
    loop_stop(t.loop);
    pthread_join(t.thread, NULL);
    loop_free(t.loop);
    spawn_kill(&t.child);
    close(t.disk_fd);
    return fd_remove_tree(AT_FDCWD, t.dir, NULL);
}

/* The daemon comes back to a machine that runs. */
static void find_again(void)
{
    struct err err;

    if (vm_attach(t.vmm, &t.record, LATER(), &t.vm, &err) < 0)
        fail_msg("%s", err.msg);
}

static void attach(const struct fake_qmp_options *options)
{
    struct err err;

    start_fake(options);
    find_again();
    assert_int_equal(vm_set_exit_handler(t.vm, on_exit_told, &t, &err), 0);
}

static int add(const char *serial, int64_t deadline_ms, uint32_t *ret_lun, struct err *err)
{
    const struct vm_disk disk = {.fd = t.disk_fd, .read_only = true, .serial = serial};

    return vm_add_disk(t.vm, &disk, deadline_ms, ret_lun, err);
}

static size_t n_disks(void)
{
    struct vm_disk_info *list = NULL;
    struct err err;
    size_t n;

    assert_int_equal(vm_list_disks(t.vm, &list, &n, &err), 0);
    free(list);
    return n;
}

static void expect_nothing_attached(void)
{
    assert_int_equal(fake_qmp_devices(t.fake), 0);
    assert_int_equal(fake_qmp_nodes(t.fake), 0);
    assert_int_equal(fake_qmp_fdsets(t.fake), 0);
    assert_int_equal(n_disks(), 0);
}

static void failed_additions_are_undone(void **state)
{
    static const char *const steps[] = {"add-fd", "blockdev-add", "device_add"};
    struct err err;
    uint32_t lun;

    (void)state;
    attach(NULL);
    for (size_t i = 0; i < 3; i++) {
        fake_qmp_set(t.fake, &(struct fake_qmp_options){.fail = steps[i]});
        assert_int_equal(add("a", LATER(), &lun, &err), -1);
        assert_non_null(strstr(err.msg, "told to fail"));
        assert_non_null(strstr(err.msg, steps[i]));
        expect_nothing_attached();
    }
    fake_qmp_set(t.fake, &(struct fake_qmp_options){0});
    assert_int_equal(add("a", LATER(), &lun, &err), 0);
    /* as long as a serial may be */
    assert_int_equal(add("ba5e1c85676a16df5a2573b84470d71984d9", LATER(), &lun, &err), 0);
    assert_int_equal(vm_remove_disk(t.vm, 0, LATER(), &err), 0);
    assert_int_equal(vm_remove_disk(t.vm, lun, LATER(), &err), 0);
    expect_nothing_attached();
}

/* No answer: the caller leaves at its deadline, the LUN stays reserved, and the monitor is still in
 * order. */
static void an_unanswered_addition_ends_at_its_deadline(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    attach(NULL);
    fake_qmp_set(t.fake, &(struct fake_qmp_options){.silent = "device_add"});
    int64_t before = clock_monotonic_ms();
    assert_int_equal(add("a", SOON(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_true(clock_monotonic_ms() - before < 10000);
    assert_int_equal(n_disks(), 1); /* being taken apart: the guest may still have it */
    assert_int_equal(vm_kill(t.vm, &err), 0);
    wait_told();
    assert_true(t.exit.asked_for);
}

static void hold_loop(void *arg)
{
    (void)arg;
    (void)sem_wait(&t.loop_may_go_on);
}

/* QEMU says that disk0 is gone, and the loop takes all of it apart. */
static void lose_first_disk(void)
{
    static const char gone[] =
        "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"disk0\"}}\r\n";
    struct err err;

    t.before_device_del = NULL;
    (void)sem_post(&t.loop_may_go_on);
    fake_qmp_wait_for(t.fake, "device_add", 1);
    fake_qmp_say(t.fake, gone, sizeof(gone) - 1);
    fake_qmp_wait_for(t.fake, "remove-fd", 1);
    if (vm_remove_disk(t.vm, 0, LATER(), &err) < 0)
        assert_int_equal(err.code, ERR_NOT_FOUND);
}

/* The undo of an addition is overtaken by its own end, before its device_del is queued. */
static void an_undo_may_be_overtaken(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    attach(&(struct fake_qmp_options){.fail = "device_add"});
    t.before_device_del = lose_first_disk;
    assert_int_equal(sem_init(&t.loop_may_go_on, 0, 0), 0);
    assert_int_equal(loop_post(t.loop, hold_loop, NULL, &err), 0);
    assert_int_equal(add("a", 0, &lun, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    fake_qmp_wait_for(t.fake, "device_del", 1);
    fake_qmp_set(t.fake, &(struct fake_qmp_options){0});
    assert_int_equal(add("a", LATER(), &lun, &err), 0);
    assert_int_equal(lun, 0);
    assert_int_equal(vm_remove_disk(t.vm, 0, LATER(), &err), 0);
    expect_nothing_attached();
    (void)sem_destroy(&t.loop_may_go_on);
}

static void a_guest_may_keep_a_disk(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    attach(&(struct fake_qmp_options){.hold_deletion = true});
    assert_int_equal(add("a", LATER(), &lun, &err), 0);
    assert_int_equal(vm_remove_disk(t.vm, lun, SOON(), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(fake_qmp_nodes(t.fake), 1);
    assert_int_equal(fake_qmp_count(t.fake, "blockdev-del"), 0);
    /* Again: QEMU says that it is under way. */
    assert_int_equal(vm_remove_disk(t.vm, lun, SOON(), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    /* The guest gives in when nobody waits. */
    fake_qmp_release(t.fake);
    fake_qmp_wait_for(t.fake, "remove-fd", 1);
    assert_int_equal(add("b", LATER(), &lun, &err), 0);
    assert_int_equal(fake_qmp_nodes(t.fake), 1);
    assert_int_equal(vm_remove_disk(t.vm, 500, LATER(), &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(vm_remove_disk(t.vm, VM_DISK_LUNS, LATER(), &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void a_disk_that_sticks_blocks_only_its_lun(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    attach(NULL);
    assert_int_equal(add("a", LATER(), &lun, &err), 0);
    assert_int_equal(lun, 0);
    fake_qmp_set(t.fake, &(struct fake_qmp_options){.fail = "blockdev-del"});
    assert_int_equal(vm_remove_disk(t.vm, 0, LATER(), &err), -1);
    assert_int_equal(err.code, ERR_SYSTEM);
    fake_qmp_set(t.fake, &(struct fake_qmp_options){0});
    assert_int_equal(add("b", LATER(), &lun, &err), 0);
    assert_int_equal(lun, 1);
}

static void all_luns_can_be_used(void **state)
{
    struct err err;
    uint32_t lun;
    char serial[16];

    (void)state;
    attach(NULL);
    for (uint32_t i = 0; i < VM_DISK_LUNS; i++) {
        (void)snprintf(serial, sizeof(serial), "disk-%u", i);
        assert_int_equal(add(serial, LATER(), &lun, &err), 0);
        assert_int_equal(lun, i);
    }
    assert_int_equal(add("one-more", LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(add("disk-77", LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
}

static void bad_disks_are_refused(void **state)
{
    static const char *const serials[] = {
        NULL, "", "a b", "a,b", "\xc3\xa4", "0123456789012345678901234567890123456"};
    struct err err;
    uint32_t lun;
    int pair[2];

    (void)state;
    attach(NULL);
    for (size_t i = 0; i < sizeof(serials) / sizeof(serials[0]); i++) {
        assert_int_equal(add(serials[i], LATER(), &lun, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    const struct vm_disk writable = {.fd = t.disk_fd, .serial = "w"};
    assert_int_equal(vm_add_disk(t.vm, &writable, LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
    const struct vm_disk a_pipe = {.fd = pair[0], .read_only = true, .serial = "p"};
    assert_int_equal(vm_add_disk(t.vm, &a_pipe, LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    close(pair[0]);
    close(pair[1]);
    assert_int_equal(fake_qmp_count(t.fake, "add-fd"), 0);
}

static void attach_with_bays(void)
{
    start_fake(NULL);
    fake_qmp_plant_bays(t.fake, VM_DISK_BAYS);
    find_again();
}

static void set_disk_size(off_t bytes)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/disk", t.dir);
    assert_int_equal(truncate(path, bytes), 0);
}

/* Bays are filled and emptied without a device that comes or goes; when all are full, and for what
 * does not fit, there is hotplug. */
static void layers_go_into_bays(void **state)
{
    struct vm_disk_info *list = NULL;
    struct err err;
    uint32_t lun;
    size_t n;
    char serial[16];

    (void)state;
    attach_with_bays();
    set_disk_size(4096 + 512);
    assert_int_equal(add("no-page", LATER(), &lun, &err), 0);
    assert_int_equal(lun, 0);
    set_disk_size(8192);
    for (uint32_t i = 0; i < VM_DISK_BAYS; i++) {
        (void)snprintf(serial, sizeof(serial), "layer-%u", i);
        assert_int_equal(add(serial, LATER(), &lun, &err), 0);
        assert_int_equal(lun, VM_DISK_LUNS + i);
        assert_true(vm_lun_is_bay(lun));
    }
    assert_string_equal(vm_bay_serial(lun), "bay7");
    assert_int_equal(fake_qmp_devices(t.fake), 1);
    assert_int_equal(add("layer-3", LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(add("one-more", LATER(), &lun, &err), 0);
    assert_int_equal(lun, 1);
    assert_false(vm_lun_is_bay(lun));

    assert_int_equal(vm_remove_disk(t.vm, VM_DISK_LUNS + 2, LATER(), &err), 0);
    assert_int_equal(vm_remove_disk(t.vm, VM_DISK_LUNS + 2, LATER(), &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(fake_qmp_count(t.fake, "device_del"), 0);
    assert_int_equal(add("again", LATER(), &lun, &err), 0);
    assert_int_equal(lun, VM_DISK_LUNS + 2);
    assert_int_equal(vm_list_disks(t.vm, &list, &n, &err), 0);
    assert_int_equal(n, VM_DISK_BAYS + 2);
    assert_string_equal(list[4].serial, "again");
    for (size_t i = 0; i < n; i++)
        assert_int_equal(vm_remove_disk(t.vm, list[i].lun, LATER(), &err), 0);
    free(list);
    expect_nothing_attached();
}

static void failed_fillings_are_undone(void **state)
{
    static const char *const steps[] = {"add-fd", "blockdev-add"};
    struct err err;
    uint32_t lun;

    (void)state;
    attach_with_bays();
    set_disk_size(4096);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        fake_qmp_set(t.fake, &(struct fake_qmp_options){.fail = steps[i]});
        assert_int_equal(add("a", LATER(), &lun, &err), -1);
        assert_non_null(strstr(err.msg, steps[i]));
        expect_nothing_attached();
    }
    /* A drive that can be neither filled nor emptied is left alone. */
    fake_qmp_set(t.fake, &(struct fake_qmp_options){.fail = "blockdev-reopen"});
    assert_int_equal(add("b", LATER(), &lun, &err), -1);
    fake_qmp_set(t.fake, &(struct fake_qmp_options){0});
    assert_int_equal(add("c", LATER(), &lun, &err), 0);
    assert_int_equal(lun, VM_DISK_LUNS + 1);
}

/* The read-only disk "whole" is there, and no other. */
static void expect_only_whole(uint32_t lun)
{
    struct vm_disk_info *list = NULL;
    struct err err;
    size_t n;

    assert_int_equal(vm_list_disks(t.vm, &list, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].lun, lun);
    assert_string_equal(list[0].serial, "whole");
    assert_true(list[0].read_only);
    free(list);
}

/* The former daemon died while it filled and emptied bays. */
static void bays_are_found_again(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    start_fake(NULL);
    fake_qmp_plant_bays(t.fake, VM_DISK_BAYS);
    fake_qmp_plant_in_bay(t.fake, 1, VM_DISK_LUNS + 2, 3, "whole");
    fake_qmp_plant_in_bay(t.fake, 4, VM_DISK_LUNS + 5, 2, "on its way");
    fake_qmp_plant_in_bay(t.fake, 6, VM_DISK_LUNS + 7, 1, "hardly begun");
    fake_qmp_plant_in_bay(t.fake, 7, VM_DISK_LUNS + 8, 3, "");
    find_again();
    fake_qmp_wait_for(t.fake, "remove-fd", 3);
    assert_int_equal(fake_qmp_fdsets(t.fake), 1);
    assert_int_equal(fake_qmp_nodes(t.fake), 1);
    expect_only_whole(VM_DISK_LUNS + 1);
    set_disk_size(4096);
    assert_int_equal(add("next", LATER(), &lun, &err), 0);
    assert_int_equal(lun, VM_DISK_LUNS);
    assert_int_equal(vm_remove_disk(t.vm, VM_DISK_LUNS + 1, LATER(), &err), 0);
}

/* The former daemon died in the middle of additions: a set, a node without a device; and one whole
 * disk. */
static void rests_are_cleared_when_found_again(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    start_fake(NULL);
    fake_qmp_plant(t.fake, 2, 3, "whole");
    fake_qmp_plant(t.fake, 5, 2, NULL);
    fake_qmp_plant(t.fake, 9, 1, NULL);
    fake_qmp_plant(t.fake, VM_DISK_LUNS + 10, 1, NULL); /* not of ours */
    find_again();
    fake_qmp_wait_for(t.fake, "remove-fd", 2);
    assert_int_equal(fake_qmp_fdsets(t.fake), 2);
    assert_int_equal(fake_qmp_nodes(t.fake), 1);
    expect_only_whole(2);
    assert_int_equal(add("whole", LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(vm_remove_disk(t.vm, 2, LATER(), &err), 0);
    assert_int_equal(add("whole", LATER(), &lun, &err), 0);
    assert_int_equal(lun, 0);
}

/* The list of devices and the events tell of the same disks, to two threads at once: each disk is
 * taken apart once. */
static void disks_that_vanish_while_found_are_dropped_once(void **state)
{
    (void)state;
    for (int round = 0; round < VANISH_ROUNDS; round++) {
        start_fake(&(struct fake_qmp_options){.vanishing = true});
        /* The worker counts up: it meets the events, which come in this order. */
        for (unsigned int lun = VANISHING; lun-- > 0;)
            fake_qmp_plant(t.fake, lun, 2, NULL);
        dawdling = true;
        find_again();
        dawdling = false;
        fake_qmp_wait_for(t.fake, "remove-fd", VANISHING);
        expect_nothing_attached();
        assert_int_equal(fake_qmp_count(t.fake, "blockdev-del"), VANISHING);
        vm_unref(t.vm);
        t.vm = NULL;
        fake_qmp_stop(t.fake);
        t.fake = NULL;
    }
}

static void a_lost_monitor_ends_the_machine(void **state)
{
    struct err err;
    uint32_t lun;

    (void)state;
    attach(NULL);
    fake_qmp_hang_up(t.fake);
    wait_told();
    assert_false(t.exit.asked_for);
    assert_true(vm_has_exited(t.vm, NULL));
    assert_int_equal(add("a", LATER(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(vm_stop(t.vm, LATER(), &err), 0);
    assert_int_equal(t.n_exits, 1);
}

static void a_garbled_monitor_is_named(void **state)
{
    (void)state;
    attach(NULL);
    fake_qmp_say(t.fake, "what?\n", 6);
    wait_told();
    assert_non_null(strstr(t.exit.reason, "cannot be managed"));
}

static const char guest_reset[] =
    "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n";

/* The guest's end, as QEMU tells it. The console is base64 of "one\nKernel panic - not syncing:
 * \"x\"\ntwo\n". */
static void the_last_words_are_kept(void **state)
{
    (void)state;
    attach(&(struct fake_qmp_options){
        .console = "b25lCktlcm5lbCBwYW5pYyAtIG5vdCBzeW5jaW5nOiAieCIKdHdvCg=="});
    fake_qmp_say(t.fake, guest_reset, sizeof(guest_reset) - 1);
    fake_qmp_wait_for(t.fake, "quit", 1);
    process_kill(t.child.pidfd); /* what quit does to a real one */
    wait_told();
    assert_non_null(strstr(t.exit.reason, "the guest reset itself"));
    assert_non_null(strstr(t.exit.reason, "Kernel panic - not syncing: ?x?"));
    assert_null(strstr(t.exit.reason, "two"));
}

static void a_guest_that_ended_alone_is_led_to_its_end(void **state)
{
    struct err err;
    int fd = -1;

    (void)state;
    attach(&(struct fake_qmp_options){.status = "shutdown"});
    assert_int_equal(vm_connect_agent(t.vm, LATER(), &fd, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    /* Nobody obeys "quit" here, so the timer kills. */
    wait_told();
    assert_non_null(strstr(t.exit.reason, "powered off"));
}

static void *attach_on_its_own(void *arg)
{
    struct err *err = arg;

    return vm_attach(t.vmm, &t.record, LATER(), &t.vm, err) == 0 ? arg : NULL;
}

/* The reason is not lost in the error of whatever was being asked at that moment. */
static void a_guest_that_ends_while_it_is_found_has_its_reason(void **state)
{
    struct err err = {0};
    pthread_t thread;
    void *found;

    (void)state;
    start_fake(&(struct fake_qmp_options){.silent = "qom-list"});
    assert_int_equal(pthread_create(&thread, NULL, attach_on_its_own, &err), 0);
    fake_qmp_wait_for(t.fake, "qom-list", 1);
    fake_qmp_say(t.fake, guest_reset, sizeof(guest_reset) - 1);
    fake_qmp_hang_up(t.fake);
    pthread_join(thread, &found);
    if (found == NULL)
        fail_msg("%s", err.msg);
    assert_int_equal(vm_set_exit_handler(t.vm, on_exit_told, &t, &err), 0);
    wait_told();
    assert_non_null(strstr(t.exit.reason, "the guest reset itself"));
}

static void stop_kills_what_does_not_quit(void **state)
{
    struct err err;

    (void)state;
    attach(NULL);
    assert_int_equal(vm_stop(t.vm, SOON(), &err), 0);
    fake_qmp_wait_for(t.fake, "quit", 1);
    wait_told();
    assert_true(t.exit.asked_for);
    assert_int_equal(t.exit.exit_status, 128 + 9);
    /* A handler set afterwards is told too, and one that is taken back is not. */
    t.n_exits = 0;
    assert_int_equal(vm_set_exit_handler(t.vm, NULL, NULL, &err), 0);
    assert_int_equal(t.n_exits, 0);
}

static void a_late_handler_is_told(void **state)
{
    struct err err;

    (void)state;
    start_fake(NULL);
    assert_int_equal(vm_attach(t.vmm, &t.record, LATER(), &t.vm, &err), 0);
    assert_int_equal(vm_kill(t.vm, &err), 0);
    assert_int_equal(vm_set_exit_handler(t.vm, on_exit_told, &t, &err), 0);
    wait_told();
    assert_int_equal(t.n_exits, 1);
}

static void records_of_others_are_not_found(void **state)
{
    struct vm_record r = t.record;
    struct err err;

    (void)state;
    r.start_ticks++;
    assert_int_equal(vm_attach(t.vmm, &r, LATER(), &t.vm, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(vm_kill_record(t.vmm, &r, LATER(), &err), 0);
    r = t.record;
    r.boot_id[0] = r.boot_id[0] == '0' ? '1' : '0';
    assert_int_equal(vm_attach(t.vmm, &r, LATER(), &t.vm, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(vm_kill_record(t.vmm, &r, LATER(), &err), 0);
    /* None of this touched the process; and without a monitor it can still be killed. */
    assert_int_equal(process_wait(t.child.pidfd, SOON(), NULL), -1);
    assert_int_equal(vm_attach(t.vmm, &t.record, SOON(), &t.vm, &err), -1);
    assert_int_not_equal(err.code, ERR_DEADLINE);
    assert_int_equal(process_wait(t.child.pidfd, SOON(), NULL), -1);
    assert_int_equal(vm_kill_record(t.vmm, &t.record, LATER(), &err), 0);
    assert_int_equal(process_wait(t.child.pidfd, SOON(), NULL), 0);
}

static void a_monitor_that_hangs_is_reported(void **state)
{
    struct err err;

    (void)state;
    start_fake(&(struct fake_qmp_options){.silent = "query-status"});
    assert_int_equal(vm_attach(t.vmm, &t.record, SOON(), &t.vm, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(process_wait(t.child.pidfd, SOON(), NULL), -1);
    assert_int_equal(vm_kill_record(t.vmm, &t.record, LATER(), &err), 0);
}

static int add_nic(int64_t deadline_ms, uint32_t *ret_slot, struct err *err)
{
    const struct vm_nic nic = {.tap_fds = {t.disk_fd}, .n_queues = 1, .mac = {2, 3}};

    return vm_add_nic(t.vm, &nic, deadline_ms, ret_slot, err);
}

static void interfaces_are_plugged_in(void **state)
{
    struct err err;
    uint32_t slot = 0;

    (void)state;
    attach(NULL);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(add_nic(LATER(), &slot, &err), 0);
        assert_int_equal(slot, VM_NIC_FIRST_SLOT + i);
    }
    assert_int_equal(fake_qmp_netdevs(t.fake), 3);
    assert_int_equal(fake_qmp_devices(t.fake), 3);
    assert_int_equal(fake_qmp_named_fds(t.fake), 0);
    assert_int_equal(add_nic(LATER(), &slot, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
}

static void interfaces_are_moved_by_the_host_where_it_can(void **state)
{
    struct err err;
    uint32_t slot = 0;

    (void)state;
    attach(NULL);
    assert_int_equal(add_nic(LATER(), &slot, &err), 0);
    assert_int_equal(fake_qmp_count(t.fake, "getfd"), without_vhost_net ? 1 : 2);
    assert_int_equal(fake_qmp_named_fds(t.fake), 0);
}

static int setup_without_vhost_net(void **state)
{
    without_vhost_net = true;
    int result = setup(state);
    without_vhost_net = false;
    return result;
}

static void without_it_qemu_moves_them(void **state)
{
    without_vhost_net = true;
    interfaces_are_moved_by_the_host_where_it_can(state);
    without_vhost_net = false;
}

static void failed_interfaces_are_undone(void **state)
{
    static const char *const steps[] = {"getfd", "netdev_add", "device_add"};
    struct err err;
    uint32_t slot = 0;

    (void)state;
    attach(NULL);
    fake_qmp_wait_for(t.fake, "closefd", 6); /* rests that the attachment looks for */
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        size_t before = fake_qmp_count(t.fake, "closefd");
        fake_qmp_set(t.fake, &(struct fake_qmp_options){.fail = steps[i]});
        assert_int_equal(add_nic(LATER(), &slot, &err), -1);
        assert_non_null(strstr(err.msg, "told to fail"));
        fake_qmp_wait_for(t.fake, "closefd", before + 2);
        assert_int_equal(fake_qmp_netdevs(t.fake), 0);
        assert_int_equal(fake_qmp_devices(t.fake), 0);
        assert_int_equal(fake_qmp_named_fds(t.fake), 0);
    }
    fake_qmp_set(t.fake, &(struct fake_qmp_options){0});
    assert_int_equal(add_nic(LATER(), &slot, &err), 0);
    assert_int_equal(slot, VM_NIC_FIRST_SLOT + 1);
}

static void an_unanswered_interface_ends_at_its_deadline(void **state)
{
    struct err err;
    uint32_t slot = 0;

    (void)state;
    attach(NULL);
    fake_qmp_wait_for(t.fake, "closefd", 6);
    fake_qmp_set(t.fake, &(struct fake_qmp_options){.silent = "device_add"});
    assert_int_equal(add_nic(SOON(), &slot, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(vm_kill(t.vm, &err), 0);
    wait_told();
}

static void interfaces_are_found_again(void **state)
{
    struct err err;
    uint32_t slot = 0;

    (void)state;
    start_fake(NULL);
    fake_qmp_plant_nic(t.fake, 1, true);
    fake_qmp_plant_nic(t.fake, 2, false);
    assert_int_equal(vm_attach(t.vmm, &t.record, LATER(), &t.vm, &err), 0);
    assert_int_equal(add_nic(LATER(), &slot, &err), 0);
    assert_int_equal(slot, VM_NIC_FIRST_SLOT + 2);
    assert_int_equal(fake_qmp_netdevs(t.fake), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(failed_additions_are_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unanswered_addition_ends_at_its_deadline, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_undo_may_be_overtaken, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_may_keep_a_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_sticks_blocks_only_its_lun, setup, teardown),
        cmocka_unit_test_setup_teardown(all_luns_can_be_used, setup, teardown),
        cmocka_unit_test_setup_teardown(layers_go_into_bays, setup, teardown),
        cmocka_unit_test_setup_teardown(failed_fillings_are_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(bays_are_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_disks_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(rests_are_cleared_when_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(disks_that_vanish_while_found_are_dropped_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(interfaces_are_plugged_in, setup, teardown),
        cmocka_unit_test_setup_teardown(interfaces_are_moved_by_the_host_where_it_can, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(without_it_qemu_moves_them, setup_without_vhost_net,
                                        teardown),
        cmocka_unit_test_setup_teardown(failed_interfaces_are_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unanswered_interface_ends_at_its_deadline, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(interfaces_are_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_monitor_ends_the_machine, setup, teardown),
        cmocka_unit_test_setup_teardown(a_garbled_monitor_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_words_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(a_guest_that_ended_alone_is_led_to_its_end, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_guest_that_ends_while_it_is_found_has_its_reason, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(stop_kills_what_does_not_quit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_late_handler_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(records_of_others_are_not_found, setup, teardown),
        cmocka_unit_test_setup_teardown(a_monitor_that_hangs_is_reported, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
