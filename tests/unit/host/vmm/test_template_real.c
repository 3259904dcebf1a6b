/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates and clones with real QEMU under TCG and the real guest (CASEMATE_TEST_GUEST, else
 * build/guest): made once, read again after a restart, made anew when the copy is damaged, missing
 * or of other files, done without when they cannot be made; and machines that grow.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/vmm/template_file.h"
#include "host/vmm/vmm.h"

#define QEMU       "/usr/bin/qemu-system-x86_64"
#define DEADLINE() clock_deadline(240000)

static struct {
    char dir[64];
    char templates[80];
    char kernel[600];
    char initrd[600];
    struct loop *loop;
    pthread_t thread;
    struct vmm *vmm;
    int n_machines;
    uint32_t memory_mib;
    uint64_t max_bytes;
} t;

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

static void start_vmm(void)
{
    struct vmm_config config = {
        .qemu = QEMU,
        .accel = VMM_ACCEL_TCG,
        .transport = VMM_TRANSPORT_SERIAL,
        .run_dir = t.dir,
        .template_dir = t.templates,
        .templates_max_bytes = t.max_bytes,
        .uid_base = geteuid() == 0 ? 3300000000U : 0,
        .uid_count = geteuid() == 0 ? 64 : 0,
    };
    struct err err;

    if (vmm_new(&config, t.loop, &t.vmm, &err) < 0)
        fail_msg("%s", err.msg);
}

/* As a daemon that ended and came back. */
static void restart_vmm(void)
{
    vmm_free(t.vmm);
    start_vmm();
}

static int setup(void **state)
{
    const char *guest = getenv("CASEMATE_TEST_GUEST");
    struct err err;
    char byte;
    int up[2];

    (void)state;
    memset(&t, 0, sizeof(t));
    t.memory_mib = 192;
    (void)snprintf(t.dir, sizeof(t.dir), "/tmp/test-clone-XXXXXX");
    if (mkdtemp(t.dir) == NULL)
        return -1;
    (void)snprintf(t.templates, sizeof(t.templates), "%s/templates", t.dir);
    (void)snprintf(t.kernel, sizeof(t.kernel), "%.500s/vmlinux",
                   guest != NULL ? guest : "build/guest");
    (void)snprintf(t.initrd, sizeof(t.initrd), "%.500s/initrd.img",
                   guest != NULL ? guest : "build/guest");
    if (mkdir(t.templates, 0700) < 0 || loop_new(&t.loop, &err) < 0 ||
        pthread_create(&t.thread, NULL, run_loop, t.loop) != 0 || pipe2(up, O_CLOEXEC) < 0 ||
        loop_post(t.loop, tell_up, &up[1], &err) < 0 || read(up[0], &byte, 1) != 1)
        return -1;
    close(up[0]);
    close(up[1]);
    start_vmm();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vmm_free(t.vmm);
    loop_stop(t.loop);
    pthread_join(t.thread, NULL);
    loop_free(t.loop);
    return fd_remove_tree(AT_FDCWD, t.dir, NULL);
}

static void require_guest(void)
{
    if (access(QEMU, X_OK) < 0) {
        print_message("SKIP: " QEMU " is not installed\n");
        skip();
    }
    if (access(t.kernel, R_OK) < 0 || access(t.initrd, R_OK) < 0) {
        print_message("SKIP: there is no guest (make guest)\n");
        skip();
    }
}

/* A machine whose agent answers. */
static struct vm *start(bool *ret_cloned)
{
    struct vm_record record;
    struct vm *vm = NULL;
    char id[VM_ID_SIZE], dir[160];
    struct err err;
    int fd = -1;

    (void)snprintf(id, sizeof(id), "clone-%d-%d", (int)getpid(), t.n_machines++);
    (void)snprintf(dir, sizeof(dir), "%s/%s", t.dir, id);
    assert_int_equal(mkdir(dir, 0700), 0);
    const struct vm_spec spec = {.id = id,
                                 .dir = dir,
                                 .kernel = t.kernel,
                                 .initrd = t.initrd,
                                 .memory_mib = t.memory_mib,
                                 .memory_max_mib = 1024,
                                 .vcpus = 1,
                                 .vcpus_max = 2,
                                 .console = VM_CONSOLE_RING,
                                 .clone = true};
    if (vm_start(t.vmm, &spec, DEADLINE(), &vm, &err) < 0)
        fail_msg("vm_start: %s", err.msg);
    if (vm_connect_agent(vm, DEADLINE(), &fd, &err) < 0)
        fail_msg("vm_connect_agent: %s", err.msg);
    close(fd);
    vm_get_record(vm, &record);
    *ret_cloned = record.cloned;
    return vm;
}

static void end(struct vm *vm)
{
    assert_int_equal(vm_kill(vm, NULL), 0);
    vm_unref(vm);
}

static void start_and_end(bool cloned_is)
{
    bool cloned;
    struct vm *vm = start(&cloned);

    assert_int_equal(cloned, cloned_is);
    end(vm);
}

/* The one copy on disk: its name. Waits for it: it is written after the template is in use. */
static void copy_of(char ret_key[TEMPLATE_KEY_SIZE])
{
    int64_t deadline_ms = DEADLINE();
    size_t n = 0;

    while (n != 1) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        DIR *dir = opendir(t.templates);
        const struct dirent *d;
        assert_non_null(dir);
        for (n = 0; (d = readdir(dir)) != NULL;) {
            if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
                continue;
            n += strlen(d->d_name) == TEMPLATE_KEY_SIZE - 1 ? 1 : 100;
            (void)snprintf(ret_key, TEMPLATE_KEY_SIZE, "%.64s", d->d_name);
        }
        closedir(dir);
        if (n != 1)
            (void)poll(NULL, 0, 10);
    }
}

static ino_t inode_of(const char *key, const char *part)
{
    char path[256];
    struct stat st;

    (void)snprintf(path, sizeof(path), "%s/%s/%s", t.templates, key, part);
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void is_made_once_and_outlives_the_daemon(void **state)
{
    char key[TEMPLATE_KEY_SIZE], again[TEMPLATE_KEY_SIZE];
    struct vmm_status status;
    bool first, second;

    (void)state;
    require_guest();
    struct vm *a = start(&first), *b = start(&second);
    assert_true(first && second);
    vmm_get_status(t.vmm, &status);
    assert_int_equal(status.templates, 1);
    assert_true(status.template_bytes > 0 && status.template_bytes <= 192ull << 20);
    copy_of(key);
    ino_t memory = inode_of(key, "memory");
    end(a);
    restart_vmm();
    start_and_end(true);
    copy_of(again);
    assert_string_equal(key, again);
    assert_int_equal(inode_of(key, "memory"), memory);
    /* A clone needs neither the template nor the vmm that it was made by. */
    assert_false(vm_has_exited(b, NULL));
    end(b);
}

static void damaged_and_missing_copies_are_made_anew(void **state)
{
    char key[TEMPLATE_KEY_SIZE], again[TEMPLATE_KEY_SIZE], path[256];
    struct template_files files = TEMPLATE_NO_FILES;
    struct err err;

    (void)state;
    require_guest();
    start_and_end(true);
    copy_of(key);
    ino_t before = inode_of(key, "template.json");
    (void)snprintf(path, sizeof(path), "%s/%s/memory", t.templates, key);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "damage", 6, 20 << 20), 6);
    close(fd);
    restart_vmm();
    start_and_end(true);
    copy_of(again);
    assert_string_equal(key, again);
    assert_int_not_equal(inode_of(key, "template.json"), before);
    (void)snprintf(path, sizeof(path), "%s/%s", t.templates, key);
    assert_int_equal(template_file_read(path, key, &files, &err), 0);
    template_files_close(&files);

    assert_int_equal(fd_remove_tree(AT_FDCWD, path, &err), 0);
    restart_vmm();
    start_and_end(true);
    copy_of(again);
    assert_string_equal(key, again);
}

static void other_files_make_another_one(void **state)
{
    char key[TEMPLATE_KEY_SIZE], again[TEMPLATE_KEY_SIZE], initrd[128];
    cleanup_free char *bytes = NULL;
    struct err err;
    size_t n;

    (void)state;
    require_guest();
    assert_int_equal(fd_read_file(AT_FDCWD, t.initrd, 64 << 20, &bytes, &n, &err), 0);
    (void)snprintf(initrd, sizeof(initrd), "%s/initrd.img", t.dir);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, initrd, bytes, n, 0644, &err), 0);
    (void)snprintf(t.initrd, sizeof(t.initrd), "%s", initrd);
    start_and_end(true);
    copy_of(key);
    /* An upgrade while the daemon runs; zeros after an archive mean nothing to the kernel. */
    cleanup_free char *longer = calloc(1, n + 512);
    assert_non_null(longer);
    memcpy(longer, bytes, n);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, initrd, longer, n + 512, 0644, &err), 0);
    start_and_end(true);
    copy_of(again);
    assert_string_not_equal(key, again);
}

static void without_one_machines_boot(void **state)
{
    char path[128];

    (void)state;
    require_guest();
    (void)snprintf(path, sizeof(path), "%s/template", t.dir);
    /* Where the machine for it would live, there is a file. */
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    start_and_end(false);
    start_and_end(false);
}

static void assert_templates(uint32_t count, uint32_t refused)
{
    struct vmm_status status;

    vmm_get_status(t.vmm, &status);
    assert_int_equal(status.templates, count);
    assert_int_equal(status.templates_refused, refused);
    assert_int_equal(status.template_max_bytes, t.max_bytes);
    assert_true(t.max_bytes == 0 || status.template_bytes <= t.max_bytes);
}

/* What fits stays, and machines of what does not fit boot; a copy on disk makes no difference. */
static void together_they_are_bounded(void **state)
{
    struct vmm_status status;
    char key[TEMPLATE_KEY_SIZE];

    (void)state;
    require_guest();
    start_and_end(true);
    vmm_get_status(t.vmm, &status);
    assert_int_equal(status.template_max_bytes, 0);
    assert_true(status.template_bytes > 16 << 20);
    copy_of(key);
    t.max_bytes = status.template_bytes - 1;
    restart_vmm();
    start_and_end(false);
    assert_templates(0, 1);
    start_and_end(false);
    copy_of(key);

    t.max_bytes = status.template_bytes + (8 << 20);
    restart_vmm();
    start_and_end(true);
    assert_templates(1, 0);
    t.memory_mib = 224;
    start_and_end(false);
    assert_templates(1, 1);
    t.memory_mib = 192;
    start_and_end(true);
    assert_templates(1, 1);
}

static void wait_for_memory(struct vm *vm, uint32_t mib)
{
    struct vm_size size = {0};
    int64_t deadline_ms = DEADLINE();
    struct err err;

    while (size.memory_mib != mib) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        if (vm_get_size(vm, DEADLINE(), &size, &err) < 0)
            fail_msg("%s", err.msg);
        if (size.memory_mib != mib)
            (void)poll(NULL, 0, 10);
    }
    assert_int_equal(size.requested_mib, mib);
}

static void clones_grow_and_shrink(void **state)
{
    struct vm_size size;
    struct err err;
    bool cloned;

    (void)state;
    require_guest();
    struct vm *vm = start(&cloned);
    assert_true(cloned);
    assert_int_equal(vm_get_size(vm, DEADLINE(), &size, &err), 0);
    assert_int_equal(size.memory_mib, 192);
    assert_int_equal(size.memory_max_mib, 192 + 768);
    assert_int_equal(size.vcpus, 1);
    assert_int_equal(size.vcpus_max, 2);
    if (vm_resize(vm, 192 + 300, 2, DEADLINE(), &err) < 0)
        fail_msg("%s", err.msg);
    wait_for_memory(vm, 192 + 300);
    assert_int_equal(vm_get_size(vm, DEADLINE(), &size, &err), 0);
    assert_int_equal(size.vcpus, 2);
    /* Nobody uses it, so all of it can be taken away; vCPUs stay. */
    assert_int_equal(vm_resize(vm, 192, 1, DEADLINE(), &err), 0);
    wait_for_memory(vm, 192);
    assert_int_equal(vm_resize(vm, 4096, 0, DEADLINE(), &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(vm_resize(vm, 0, 3, DEADLINE(), &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    end(vm);
}

static void is_given_up_at_the_end(void **state)
{
    const struct vm_spec spec = {.id = "any",
                                 .dir = "/",
                                 .kernel = t.kernel,
                                 .initrd = t.initrd,
                                 .memory_mib = 192,
                                 .vcpus = 1};
    char path[128];
    struct err err;

    (void)state;
    require_guest();
    assert_int_equal(vmm_prepare(t.vmm, DEADLINE(), &err), 0);
    assert_int_equal(vmm_want_template(t.vmm, &spec, &err), 0);
    (void)snprintf(path, sizeof(path), "%s/template/qmp.sock", t.dir);
    int64_t deadline_ms = DEADLINE();
    while (access(path, F_OK) < 0) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        (void)poll(NULL, 0, 5);
    }
    /* In the middle of the boot, or just before it; either way nothing of it is left. */
    restart_vmm();
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_made_once_and_outlives_the_daemon, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_and_missing_copies_are_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(other_files_make_another_one, setup, teardown),
        cmocka_unit_test_setup_teardown(without_one_machines_boot, setup, teardown),
        cmocka_unit_test_setup_teardown(together_they_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(clones_grow_and_shrink, setup, teardown),
        cmocka_unit_test_setup_teardown(is_given_up_at_the_end, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
