/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real QEMU under TCG with a real guest. The guest is a folder with vmlinux and initrd.img:
 * CASEMATE_TEST_GUEST, else build/guest. What needs a guest that obeys (it lists its disks, panics
 * on demand, ...) runs only with the test guest that tests/integration/test_vmm.sh makes, and is a
 * named skip otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/vmm/vmm.h"

#define QEMU       "/usr/bin/qemu-system-x86_64"
#define DEADLINE() clock_deadline(60000)

struct exits {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n;
    struct vm_exit last;
};

static struct {
    char dir[64];
    char guest_dir[512];
    char kernel[600];
    char initrd[600];
    bool obeys;
    struct loop *loop;
    pthread_t thread;
    struct exits exits;
    char ids[8][VM_ID_SIZE]; /* of the machines that a test made */
    size_t n_ids;
} t;

static void on_exit_told(void *arg, const struct vm_exit *how)
{
    struct exits *e = arg;

    pthread_mutex_lock(&e->lock);
    e->n++;
    e->last = *how;
    pthread_cond_broadcast(&e->changed);
    pthread_mutex_unlock(&e->lock);
}

static void wait_told(int n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&t.exits.lock);
    while (t.exits.n < n)
        assert_int_equal(pthread_cond_timedwait(&t.exits.changed, &t.exits.lock, &until), 0);
    pthread_mutex_unlock(&t.exits.lock);
}

static void *run_loop(void *arg)
{
    struct err err;

    if (loop_run(arg, &err) < 0)
        abort();
    return NULL;
}

static void require_guest(bool obeying)
{
    if (access(QEMU, X_OK) < 0) {
        print_message("SKIP: " QEMU " is not installed\n");
        skip();
    }
    if (access(t.kernel, R_OK) < 0 || access(t.initrd, R_OK) < 0) {
        print_message("SKIP: no guest in %s (make guest)\n", t.guest_dir);
        skip();
    }
    if (obeying && !t.obeys) {
        print_message("SKIP: needs the test guest of tests/integration/test_vmm.sh\n");
        skip();
    }
}

static void tell_up(void *arg)
{
    if (write(*(const int *)arg, "", 1) != 1)
        abort();
}

static int setup(void **state)
{
    const char *guest = getenv("CASEMATE_TEST_GUEST");
    struct err err;
    char mark[600], byte;
    int up[2];

    (void)state;
    memset(&t, 0, sizeof(t));
    (void)snprintf(t.dir, sizeof(t.dir), "/tmp/test-vm-XXXXXX");
    if (mkdtemp(t.dir) == NULL)
        return -1;
    (void)snprintf(t.guest_dir, sizeof(t.guest_dir), "%s", guest != NULL ? guest : "build/guest");
    (void)snprintf(t.kernel, sizeof(t.kernel), "%s/vmlinux", t.guest_dir);
    (void)snprintf(t.initrd, sizeof(t.initrd), "%s/initrd.img", t.guest_dir);
    (void)snprintf(mark, sizeof(mark), "%s/obeys", t.guest_dir);
    t.obeys = access(mark, F_OK) == 0;
    pthread_mutex_init(&t.exits.lock, NULL);
    pthread_cond_init(&t.exits.changed, NULL);
    if (loop_new(&t.loop, &err) < 0)
        return -1;
    if (pthread_create(&t.thread, NULL, run_loop, t.loop) != 0 || pipe2(up, O_CLOEXEC) < 0)
        return -1;
    /* Until the loop runs it is its maker's, who must not block on it. */
    if (loop_post(t.loop, tell_up, &up[1], &err) < 0 || read(up[0], &byte, 1) != 1)
        return -1;
    close(up[0]);
    close(up[1]);
    return 0;
}

static int teardown(void **state)
{
    unsigned int killed;

    (void)state;
    /* A test that failed half-way leaves its machines to us. */
    for (size_t i = 0; i < t.n_ids; i++)
        (void)vmm_kill_stray(NULL, t.ids[i], &killed, NULL);
    loop_stop(t.loop);
    pthread_join(t.thread, NULL);
    loop_free(t.loop);
    return fd_remove_tree(AT_FDCWD, t.dir, NULL);
}

static struct vmm *make_vmm_as(enum vmm_accel accel, bool own_uids)
{
    struct vmm_config config = {
        .qemu = QEMU,
        .accel = accel,
        .transport = VMM_TRANSPORT_SERIAL,
        .run_dir = t.dir,
        .probe_kernel = t.kernel,
        .probe_initrd = t.initrd,
        .probe_timeout_ms = 8000,
        .uid_base = own_uids ? 3200000000U : 0,
        .uid_count = own_uids ? 64 : 0,
    };
    struct vmm *vmm = NULL;
    struct err err;

    assert_int_equal(vmm_new(&config, t.loop, &vmm, &err), 0);
    return vmm;
}

static struct vmm *make_vmm(enum vmm_accel accel)
{
    return make_vmm_as(accel, geteuid() == 0);
}

/* Names hold the pid, since other runs of this program may be under way on the machine. */
static void make_spec(const char *name, struct vm_spec *spec, char dir[128])
{
    assert_true(t.n_ids < ARRAY_SIZE(t.ids));
    char *id = t.ids[t.n_ids++];
    (void)snprintf(id, VM_ID_SIZE, "%s-%d", name, (int)getpid());
    (void)snprintf(dir, 128, "%s/%s", t.dir, id);
    assert_true(mkdir(dir, 0700) == 0 || access(dir, X_OK) == 0);
    *spec = (struct vm_spec){
        .id = id,
        .dir = dir,
        .kernel = t.kernel,
        .initrd = t.initrd,
        .memory_mib = 256,
        .vcpus = 1,
        .console = VM_CONSOLE_RING,
    };
}

static struct vm *start(struct vmm *vmm, const char *id)
{
    struct vm *vm = NULL;
    struct vm_spec spec;
    struct err err;
    char dir[128];

    make_spec(id, &spec, dir);
    if (vm_start(vmm, &spec, DEADLINE(), &vm, &err) < 0)
        fail_msg("vm_start: %s", err.msg);
    return vm;
}

static int connect_agent(struct vm *vm)
{
    struct err err;
    int fd = -1;

    if (vm_connect_agent(vm, DEADLINE(), &fd, &err) < 0)
        fail_msg("vm_connect_agent: %s", err.msg);
    return fd;
}

/* One line to the test guest; the line it answers with. */
static void ask(int fd, const char *command, char *ret_answer, size_t size)
{
    struct err err;
    size_t n = 0;

    assert_int_equal(fd_write_all(fd, command, strlen(command), &err), 0);
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 30000), 1);
        assert_true(n + 1 < size);
        assert_int_equal(read(fd, ret_answer + n, 1), 1);
        if (ret_answer[n] == '\n')
            break;
        n++;
    }
    ret_answer[n] = '\0';
}

static bool process_lives(pid_t pid)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    return access(path, F_OK) == 0;
}

static int make_disk(const char *name, off_t size, int flags)
{
    char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", t.dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    int wanted = open(path, flags | O_CLOEXEC);
    assert_true(wanted >= 0);
    close(fd);
    return wanted;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void boots_answers_and_stops(void **state)
{
    struct vm_record record;
    struct vm_exit how;
    struct err err;
    char path[PATH_MAX + 16];

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "boots");
    vm_get_record(vm, &record);
    assert_true(process_lives(record.pid));
    assert_int_equal(vm_set_exit_handler(vm, on_exit_told, &t.exits, &err), 0);
    int fd = connect_agent(vm);
    close(fd);
    /* A second connection finds the agent again, whatever the first one left in the port. */
    fd = connect_agent(vm);
    assert_int_equal(vm_stop(vm, DEADLINE(), &err), 0);
    close(fd);
    assert_true(vm_has_exited(vm, &how));
    assert_true(how.asked_for);
    assert_int_equal(how.exit_status, 0);
    wait_told(1);
    assert_false(process_lives(record.pid));
    (void)snprintf(path, sizeof(path), "%s/qmp.sock", record.dir);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(vm_stop(vm, DEADLINE(), &err), 0);
    vm_unref(vm);
    vmm_free(vmm);
}

static void runs_as_a_stranger(void **state)
{
    struct vm_record record;
    struct stat st;
    char path[64], link[2][64];

    (void)state;
    require_guest(false);
    if (geteuid() != 0) {
        print_message("SKIP: needs root for a uid of its own\n");
        skip();
    }
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *a = start(vmm, "stranger-a"), *b = start(vmm, "stranger-b");
    vm_get_record(a, &record);
    uid_t first = record.uid;
    (void)snprintf(path, sizeof(path), "/proc/%d", (int)record.pid);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, first);
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)record.pid);
    memset(link, 0, sizeof(link));
    assert_true(readlink(path, link[0], sizeof(link[0]) - 1) > 0);
    assert_true(readlink("/proc/self/ns/net", link[1], sizeof(link[1]) - 1) > 0);
    assert_string_not_equal(link[0], link[1]);
    vm_get_record(b, &record);
    assert_int_not_equal(record.uid, first);
    assert_int_equal(vm_kill(a, NULL), 0);
    assert_int_equal(vm_kill(b, NULL), 0);
    vm_unref(a);
    vm_unref(b);
    vmm_free(vmm);
}

struct pending_connect {
    struct vm *vm;
    int result;
    struct err err;
};

static void *connect_in_thread(void *arg)
{
    struct pending_connect *p = arg;
    int fd = -1;

    p->result = vm_connect_agent(p->vm, DEADLINE(), &fd, &p->err);
    if (fd >= 0)
        close(fd);
    return NULL;
}

static void kill_fails_what_is_pending(void **state)
{
    struct vm_record record;
    pthread_t thread;

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "killed");
    struct pending_connect p = {.vm = vm};
    vm_get_record(vm, &record);
    assert_int_equal(pthread_create(&thread, NULL, connect_in_thread, &p), 0);
    int64_t before = clock_monotonic_ms();
    assert_int_equal(vm_kill(vm, NULL), 0);
    pthread_join(thread, NULL);
    assert_true(clock_monotonic_ms() - before < 5000);
    assert_int_equal(p.result, -1);
    assert_int_equal(p.err.code, ERR_UNAVAILABLE);
    assert_false(process_lives(record.pid));
    vm_unref(vm);
    vmm_free(vmm);
}

static void disks_come_and_go(void **state)
{
    struct vm_disk_info *list = NULL;
    struct err err = {0};
    uint32_t lun;
    size_t n;

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "disks");
    int agent = connect_agent(vm);
    /* One does not fit into a bay, which takes whole pages. */
    int ro = make_disk("ro", (1 << 20) + 512, O_RDONLY), rw = make_disk("rw", 1 << 20, O_RDWR);
    const struct vm_disk layer = {.fd = ro, .read_only = true, .serial = "layer-1"};
    const struct vm_disk scratch = {.fd = rw, .scratch = true, .serial = "scratch"};

    if (vm_add_disk(vm, &layer, DEADLINE(), &lun, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(lun, 0);
    assert_int_equal(vm_add_disk(vm, &layer, DEADLINE(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    if (vm_add_disk(vm, &scratch, DEADLINE(), &lun, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(lun, 1);
    /* A descriptor that is not open for writing is refused before QEMU sees it. */
    const struct vm_disk wrong = {.fd = ro, .serial = "wrong"};
    assert_int_equal(vm_add_disk(vm, &wrong, DEADLINE(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);

    assert_int_equal(vm_list_disks(vm, &list, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(list[0].serial, "layer-1");
    assert_true(list[0].read_only);
    assert_string_equal(list[1].serial, "scratch");
    assert_false(list[1].read_only);
    free(list);

    if (vm_remove_disk(vm, 0, DEADLINE(), &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(vm_remove_disk(vm, 0, DEADLINE(), &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    if (vm_add_disk(vm, &layer, DEADLINE(), &lun, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(lun, 0);
    close(agent);
    close(ro);
    close(rw);
    assert_int_equal(vm_kill(vm, NULL), 0);
    assert_int_equal(vm_add_disk(vm, &layer, DEADLINE(), &lun, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    vm_unref(vm);
    vmm_free(vmm);
}

/* Into a bay, out of it, and in again, with a real QEMU; the drive shows what it has. */
static void bays_are_filled_and_emptied(void **state)
{
    struct err err = {0};
    uint32_t lun;

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "bays");
    int ro = make_disk("bay", 1 << 20, O_RDONLY);
    for (uint32_t i = 0; i < 2 * VM_DISK_BAYS; i++) {
        char serial[VM_DISK_SERIAL_SIZE];
        (void)snprintf(serial, sizeof(serial), "layer-%u", i);
        const struct vm_disk layer = {.fd = ro, .read_only = true, .serial = serial};
        if (vm_add_disk(vm, &layer, DEADLINE(), &lun, &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(vm_lun_is_bay(lun), i < VM_DISK_BAYS);
    }
    for (int i = 0; i < 3; i++) {
        const struct vm_disk layer = {.fd = ro, .read_only = true, .serial = "again"};
        if (vm_remove_disk(vm, VM_DISK_LUNS + 5, DEADLINE(), &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(vm_remove_disk(vm, VM_DISK_LUNS + 5, DEADLINE(), &err), -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
        if (vm_add_disk(vm, &layer, DEADLINE(), &lun, &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(lun, VM_DISK_LUNS + 5);
    }
    close(ro);
    assert_int_equal(vm_kill(vm, NULL), 0);
    vm_unref(vm);
    vmm_free(vmm);
}

/* A daemon that goes away and comes back: another vmm, only the record's text in common. */
static void is_found_again(void **state)
{
    struct vm_record record, decoded;
    struct vm_disk_info *list = NULL;
    char *text = NULL;
    struct vm *vm = NULL;
    struct err err = {0};
    uint32_t lun;
    size_t n;

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    vm = start(vmm, "again");
    int ro = make_disk("ro2", 1 << 20, O_RDONLY);
    const struct vm_disk disk = {.fd = ro, .read_only = true, .serial = "layer-9"};
    const struct vm_disk other = {.fd = ro, .read_only = true, .serial = "layer-10"};
    int agent = connect_agent(vm);
    assert_int_equal(vm_add_disk(vm, &disk, DEADLINE(), &lun, &err), 0);
    vm_get_record(vm, &record);
    assert_int_equal(vm_record_encode(&record, &text, &err), 0);
    vm_unref(vm);
    vmm_free(vmm);
    close(agent);

    assert_int_equal(vm_record_decode(text, &decoded, &err), 0);
    free(text);
    vmm = make_vmm(VMM_ACCEL_TCG);
    if (vm_attach(vmm, &decoded, DEADLINE(), &vm, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(vm_list_disks(vm, &list, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].lun, lun);
    assert_string_equal(list[0].serial, "layer-9");
    assert_true(list[0].read_only);
    free(list);
    agent = connect_agent(vm);
    assert_int_equal(vm_remove_disk(vm, lun, DEADLINE(), &err), 0);
    assert_int_equal(vm_add_disk(vm, &other, DEADLINE(), &lun, &err), 0);
    close(agent);
    close(ro);
    assert_int_equal(vm_kill(vm, &err), 0);
    vm_unref(vm);

    assert_int_equal(vm_attach(vmm, &decoded, DEADLINE(), &vm, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(vm_kill_record(vmm, &decoded, DEADLINE(), &err), 0);
    vmm_free(vmm);
}

static void strays_are_killed(void **state)
{
    struct vm_record record;
    unsigned int killed = 0;
    struct err err;

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "stray-machine");
    vm_get_record(vm, &record);
    assert_int_equal(vmm_kill_stray(vmm, "stray-machine", &killed, &err), 0);
    assert_int_equal(killed, 0);
    assert_int_equal(vmm_kill_stray(vmm, record.id, &killed, &err), 0);
    assert_int_equal(killed, 1);
    assert_int_equal(vm_set_exit_handler(vm, on_exit_told, &t.exits, &err), 0);
    wait_told(1);
    assert_false(t.exits.last.asked_for);
    assert_non_null(strstr(t.exits.last.reason, "SIGKILL"));
    vm_unref(vm);
    vmm_free(vmm);
}

static void qemu_that_refuses_says_why(void **state)
{
    struct vm *vm = NULL;
    struct vm_spec spec;
    struct err err = {0};
    char dir[128], path[256], refuse[128];

    (void)state;
    require_guest(false);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    make_spec("refused", &spec, dir);
    spec.kernel = "/etc/passwd"; /* not a kernel */
    int64_t before = clock_monotonic_ms();
    assert_int_equal(vm_start(vmm, &spec, DEADLINE(), &vm, &err), -1);
    assert_true(clock_monotonic_ms() - before < 10000);
    assert_non_null(strstr(err.msg, "kernel"));
    assert_non_null(strstr(err.msg, "refused"));
    (void)snprintf(path, sizeof(path), "%s/qmp.sock", dir);
    assert_int_not_equal(access(path, F_OK), 0);
    vmm_free(vmm);

    /* No QEMU at all, and one that ends at once with a word. */
    (void)snprintf(refuse, sizeof(refuse), "%s/qemu", t.dir);
    struct vmm_config config = {.qemu = refuse,
                                .accel = VMM_ACCEL_TCG,
                                .transport = VMM_TRANSPORT_SERIAL,
                                .run_dir = t.dir};
    assert_int_equal(vmm_new(&config, t.loop, &vmm, &err), 0);
    make_spec("refused", &spec, dir);
    assert_int_equal(vm_start(vmm, &spec, DEADLINE(), &vm, &err), -1);
    assert_non_null(strstr(err.msg, refuse));
    static const char script[] =
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'QEMU emulator version 7.2.1'"
        " && exit 0\necho 'no more machines today' >&2\nexit 7\n";
    int fd = open(refuse, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    assert_int_equal(fd_write_all(fd, script, sizeof(script) - 1, &err), 0);
    close(fd);
    /* Many times: it may end before, while or after the daemon connects to it. */
    for (int i = 0; i < 30; i++) {
        assert_int_equal(vm_start(vmm, &spec, DEADLINE(), &vm, &err), -1);
        if (strstr(err.msg, "no more machines today") == NULL ||
            strstr(err.msg, "status 7") == NULL)
            fail_msg("try %d: %s", i, err.msg);
    }
    vmm_free(vmm);
}

/*
 * The verdict is what a guest did. TCG carries one everywhere; what KVM says depends on the host,
 * but it must agree with a trial of its own, be found in time, and be remembered.
 */
static void try_accelerators(bool own_uids)
{
    struct vmm_status first, second;
    struct err err = {0};

    struct vmm *vmm = make_vmm_as(VMM_ACCEL_AUTO, own_uids);
    if (vmm_probe(vmm, VMM_ACCEL_TCG, DEADLINE(), &err) < 0)
        fail_msg("%s", err.msg);
    int64_t before = clock_monotonic_ms();
    assert_int_equal(vmm_prepare(vmm, DEADLINE(), &err), 0);
    assert_true(clock_monotonic_ms() - before < 15000);
    vmm_get_status(vmm, &first);
    assert_true(first.prepared);
    print_message("accelerator: %s: %s\n", vmm_accel_name(first.accel), first.accel_reason);
    assert_int_equal(first.accel_is_fallback, first.accel == VMM_ACCEL_TCG);
    assert_true(first.accel_reason[0] != '\0');
    bool works = vmm_probe(vmm, VMM_ACCEL_KVM, clock_deadline(8000), &err) == 0;
    assert_int_equal(works, first.accel == VMM_ACCEL_KVM);
    vmm_free(vmm);
    if (access("/dev/kvm", F_OK) < 0)
        return;
    vmm = make_vmm_as(VMM_ACCEL_AUTO, own_uids);
    before = clock_monotonic_ms();
    assert_int_equal(vmm_prepare(vmm, DEADLINE(), &err), 0);
    assert_true(clock_monotonic_ms() - before < 3000);
    vmm_get_status(vmm, &second);
    assert_int_equal(second.accel, first.accel);
    assert_string_equal(second.accel_reason, first.accel_reason);
    vmm_free(vmm);
}

static void the_accelerator_is_tried_out(void **state)
{
    char path[128];

    (void)state;
    require_guest(false);
    if (geteuid() == 0)
        try_accelerators(true);
    (void)snprintf(path, sizeof(path), "%s/accel.json", t.dir);
    (void)unlink(path);
    try_accelerators(false);
}

static void the_guest_sees_its_disks(void **state)
{
    char answer[65536];
    struct err err = {0};
    int n_disks = 300;
    uint32_t lun = 0;

    (void)state;
    require_guest(true);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "sees");
    int agent = connect_agent(vm);
    int ro = make_disk("many", (1 << 20) + 512, O_RDONLY);
    for (int i = 0; i < n_disks; i++) {
        char serial[VM_DISK_SERIAL_SIZE];
        (void)snprintf(serial, sizeof(serial), "disk-number-%d", i);
        const struct vm_disk disk = {.fd = ro, .read_only = true, .serial = serial};
        if (vm_add_disk(vm, &disk, DEADLINE(), &lun, &err) < 0)
            fail_msg("%d: %s", i, err.msg);
        assert_int_equal(lun, i);
    }
    int64_t until = clock_deadline(60000);
    int seen = 0;
    while (seen != VM_DISK_BAYS + n_disks && clock_monotonic_ms() < until) {
        ask(agent, "disks\n", answer, sizeof(answer));
        seen = 0;
        for (const char *p = answer; (p = strchr(p, ' ')) != NULL; p++)
            seen++;
    }
    assert_int_equal(seen, VM_DISK_BAYS + n_disks);
    for (lun = 0; lun < 50; lun++)
        if (vm_remove_disk(vm, lun, DEADLINE(), &err) < 0)
            fail_msg("%u: %s", lun, err.msg);
    while (seen != VM_DISK_BAYS + n_disks - 50 && clock_monotonic_ms() < until) {
        ask(agent, "disks\n", answer, sizeof(answer));
        seen = 0;
        for (const char *p = answer; (p = strchr(p, ' ')) != NULL; p++)
            seen++;
    }
    assert_int_equal(seen, VM_DISK_BAYS + n_disks - 50);
    close(ro);
    close(agent);
    assert_int_equal(vm_stop(vm, DEADLINE(), &err), 0);
    vm_unref(vm);
    vmm_free(vmm);
}

static void expect_content(int agent, uint32_t lun, const char *expected)
{
    char command[32], answer[128];

    (void)snprintf(command, sizeof(command), "lun %u\n", lun);
    ask(agent, command, answer, sizeof(answer));
    assert_string_equal(answer, expected);
}

/* What is in a bay changes under the guest, which keeps nothing of what was there before. */
static void the_guest_sees_what_is_in_a_bay(void **state)
{
    static const char *const contents[] = {"first", "second"};
    struct err err = {0};
    uint32_t lun = 0;

    (void)state;
    require_guest(true);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "content");
    int agent = connect_agent(vm);
    expect_content(agent, VM_DISK_LUNS, "'' readable");
    for (size_t i = 0; i < 2; i++) {
        int rw = make_disk(contents[i], 1 << 20, O_RDWR);
        assert_int_equal(fd_write_all(rw, contents[i], strlen(contents[i]), &err), 0);
        close(rw);
        int ro = make_disk(contents[i], 1 << 20, O_RDONLY);
        const struct vm_disk disk = {.fd = ro, .read_only = true, .serial = contents[i]};
        if (vm_add_disk(vm, &disk, DEADLINE(), &lun, &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(lun, VM_DISK_LUNS);
        close(ro);
        expect_content(agent, lun,
                       i == 0 ? "'first' Input/output error" : "'second' Input/output error");
        if (vm_remove_disk(vm, lun, DEADLINE(), &err) < 0)
            fail_msg("%s", err.msg);
        expect_content(agent, lun, "'' readable");
    }
    close(agent);
    assert_int_equal(vm_stop(vm, DEADLINE(), &err), 0);
    vm_unref(vm);
    vmm_free(vmm);
}

/* The guest's own end is told with its reason and its last words. */
static void ends(const char *id, const char *command, const char *reason, const char *words)
{
    struct err err;

    t.exits.n = 0;
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, id);
    assert_int_equal(vm_set_exit_handler(vm, on_exit_told, &t.exits, &err), 0);
    int agent = connect_agent(vm);
    assert_int_equal(fd_write_all(agent, command, strlen(command), &err), 0);
    wait_told(1);
    print_message("%s\n", t.exits.last.reason);
    assert_false(t.exits.last.asked_for);
    assert_non_null(strstr(t.exits.last.reason, reason));
    assert_non_null(strstr(t.exits.last.reason, words));
    int fd = -1;
    assert_int_equal(vm_connect_agent(vm, DEADLINE(), &fd, &err), -1);
    assert_non_null(strstr(err.msg, reason));
    close(agent);
    vm_unref(vm);
    vmm_free(vmm);
}

static void death_is_certified(void **state)
{
    (void)state;
    require_guest(true);
    ends("powers-off", "poweroff\n", "powered off", "");
    ends("panics", "panic\n", "reset itself", "Kernel panic - not syncing");
    ends("init-dies", "die\n", "reset itself", "Attempted to kill init");
}

/* A guest that ended while no daemon was there still has its reason. */
static void death_is_certified_later(void **state)
{
    struct vm_record record;
    struct err err;

    (void)state;
    require_guest(true);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "later");
    int agent = connect_agent(vm);
    vm_get_record(vm, &record);
    vm_unref(vm);
    vmm_free(vmm);
    assert_int_equal(fd_write_all(agent, "panic\n", 6, &err), 0);
    /* The console is what shows, from outside, that the guest has ended: QEMU's own state is asked
     * until it says so. */
    vmm = make_vmm(VMM_ACCEL_TCG);
    t.exits.n = 0;
    if (vm_attach(vmm, &record, DEADLINE(), &vm, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(vm_set_exit_handler(vm, on_exit_told, &t.exits, &err), 0);
    wait_told(1);
    assert_non_null(strstr(t.exits.last.reason, "Kernel panic - not syncing"));
    close(agent);
    vm_unref(vm);
    vmm_free(vmm);
}

static void a_flooded_console_costs_nothing(void **state)
{
    char answer[256], *text = NULL;
    struct err err = {0};

    (void)state;
    require_guest(true);
    struct vmm *vmm = make_vmm(VMM_ACCEL_TCG);
    struct vm *vm = start(vmm, "floods");
    int agent = connect_agent(vm);
    ask(agent, "flood\n", answer, sizeof(answer));
    assert_string_equal(answer, "done");
    if (vm_console_text(vm, DEADLINE(), &text, &err) < 0)
        fail_msg("%s", err.msg);
    assert_true(strlen(text) <= 65536);
    assert_non_null(strstr(text, "flood 4999 "));
    free(text);
    close(agent);
    assert_int_equal(vm_kill(vm, &err), 0);
    vm_unref(vm);
    vmm_free(vmm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(boots_answers_and_stops, setup, teardown),
        cmocka_unit_test_setup_teardown(runs_as_a_stranger, setup, teardown),
        cmocka_unit_test_setup_teardown(kill_fails_what_is_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(disks_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(bays_are_filled_and_emptied, setup, teardown),
        cmocka_unit_test_setup_teardown(is_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(strays_are_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(qemu_that_refuses_says_why, setup, teardown),
        cmocka_unit_test_setup_teardown(the_accelerator_is_tried_out, setup, teardown),
        cmocka_unit_test_setup_teardown(the_guest_sees_its_disks, setup, teardown),
        cmocka_unit_test_setup_teardown(the_guest_sees_what_is_in_a_bay, setup, teardown),
        cmocka_unit_test_setup_teardown(death_is_certified, setup, teardown),
        cmocka_unit_test_setup_teardown(death_is_certified_later, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flooded_console_costs_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
