/* SPDX-License-Identifier: Apache-2.0 */
/* Disks by address in a made-up sysfs; places below a root that links try to leave; mounts in a
 * namespace of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/mount/disk.h"
#include "agent/mount/mnt.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"

struct root {
    char path[32];
    int fd;
};

static int setup(void **state)
{
    struct root *r = calloc(1, sizeof(*r));
    memcpy(r->path, "/tmp/mount.XXXXXX", sizeof("/tmp/mount.XXXXXX"));
    if (mkdtemp(r->path) == NULL)
        return -1;
    r->fd = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = r;
    return r->fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct root *r = *state;
    struct err err;
    (void)close(r->fd);
    int rc = fd_remove_tree(AT_FDCWD, r->path, &err);
    free(r);
    return rc;
}

static void make(const struct root *r, const char *path)
{
    char full[512];
    struct err err;
    (void)snprintf(full, sizeof(full), "%s/%s", r->path, path);
    assert_int_equal(fd_make_dirs(full, 0755, &err), 0);
}

static void write_file(const struct root *r, const char *path, const char *text)
{
    struct err err;
    assert_int_equal(fd_write_file_atomic(r->fd, path, text, strlen(text), 0644, &err), 0);
}

/* A disk of the made-up sysfs: address, the device's folder, the disk's name. */
static void add_disk(const struct root *r, const char *address, const char *device,
                     const char *name)
{
    char path[512], target[512];
    (void)snprintf(path, sizeof(path), "devices/%s/block/%s", device, name);
    make(r, path);
    make(r, "bus/scsi/devices");
    (void)snprintf(target, sizeof(target), "../../../devices/%s", device);
    (void)snprintf(path, sizeof(path), "bus/scsi/devices/%s", address);
    assert_int_equal(symlinkat(target, r->fd, path), 0);
    (void)snprintf(path, sizeof(path), "class/block/%s", name);
    make(r, path);
    (void)snprintf(path, sizeof(path), "class/block/%s/size", name);
    write_file(r, path, "16\n");
}

static void test_disks(void **state)
{
    const struct root *r = *state;
    char path[DISK_PATH_SIZE];
    struct err err;
    assert_int_equal(disk_find_now(r->path, 0, NULL, 0, path, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);

    add_disk(r, "0:0:0:0", "pci/ata1/host0/target0:0:0/0:0:0:0", "sda"); /* not the VM's bus */
    add_disk(r, "6:0:0:0", "pci/virtio2/host6/target6:0:0/6:0:0:0", "sdb");
    add_disk(r, "6:0:0:12", "pci/virtio2/host6/target6:0:0/6:0:0:12", "sdc");
    add_disk(r, "6:0:1:7", "pci/virtio2/host6/target6:0:1/6:0:1:7", "sdd"); /* another target */
    add_disk(r, "6:0:0:16640", "pci/virtio2/host6/target6:0:0/6:0:0:16640", "sde"); /* LUN 256 */
    make(r, "bus/scsi/devices/host6");
    make(r, "bus/scsi/devices/6:0:0:99"); /* no link, and no disk yet */

    assert_int_equal(disk_find_now(r->path, 0, NULL, 0, path, &err), 0);
    assert_string_equal(path, "/dev/sdb");
    assert_int_equal(disk_find_now(r->path, 12, NULL, 16 * 512, path, &err), 0);
    assert_string_equal(path, "/dev/sdc");
    assert_int_equal(disk_find_now(r->path, 256, NULL, 0, path, &err), 0);
    assert_string_equal(path, "/dev/sde");
    assert_int_equal(disk_find_now(r->path, 12, NULL, 17 * 512, path, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(disk_find_now(r->path, 7, NULL, 0, path, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(disk_find_now(r->path, 1, NULL, 0, path, &err), -1);
    assert_int_equal(disk_find_now(r->path, 99, NULL, 0, path, &err), -1);
}

static void test_schedulers(void **state)
{
    static const char *const disks[] = {"sda", "sdz", "vda"};
    const struct root *r = *state;
    struct err err;

    disk_drop_schedulers(r->path); /* no disks at all */
    for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "block/%s/queue", disks[i]);
        make(r, path);
        (void)snprintf(path, sizeof(path), "block/%s/queue/scheduler", disks[i]);
        write_file(r, path, "mq-deadline");
    }
    make(r, "block/sdx"); /* one that goes away meanwhile */
    disk_drop_schedulers(r->path);
    for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
        char path[64];
        cleanup_free char *text = NULL;
        (void)snprintf(path, sizeof(path), "block/%s/queue/scheduler", disks[i]);
        assert_int_equal(fd_read_file(r->fd, path, 64, &text, NULL, &err), 0);
        assert_int_equal(strncmp(text, "none", 4) == 0, disks[i][0] == 's');
    }
}

/* A node whose disk the kernel does not open yet is waited for, as one that is not there. */
static void test_ready(void **state)
{
    const struct root *r = *state;
    char path[64];

    (void)snprintf(path, sizeof(path), "%s/node", r->path);
    assert_false(disk_is_ready(path));
    if (mknod(path, S_IFBLK | 0600, makedev(240, 0)) < 0) {
        print_message("SKIP: no right to make device nodes\n");
        skip();
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fd, -1);
    if (errno == ENXIO)
        assert_false(disk_is_ready(path));
    assert_int_equal(unlink(path), 0);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_true(disk_is_ready(path));
}

/* A LUN that was used again: what is there is the disk that went, until its serial says otherwise.
 */
static void test_serials(void **state)
{
    static const char page[] = "\0\x80\0\4abcd"; /* VPD page 80h */
    const struct root *r = *state;
    char path[DISK_PATH_SIZE];
    struct err err;
    add_disk(r, "6:0:0:3", "pci/virtio2/host6/target6:0:0/6:0:0:3", "sda");
    assert_int_equal(disk_find_now(r->path, 3, "", 0, path, &err), 0);
    assert_int_equal(disk_find_now(r->path, 3, "abcd", 0, path, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(fd_write_file_atomic(r->fd,
                                          "devices/pci/virtio2/host6/target6:0:0/6:0:0:3/vpd_pg80",
                                          page, sizeof(page) - 1, 0644, &err),
                     0);
    assert_int_equal(disk_find_now(r->path, 3, "abcd", 0, path, &err), 0);
    assert_string_equal(path, "/dev/sda");
    assert_int_equal(disk_find_now(r->path, 3, "abce", 17 * 512, path, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND); /* not INVALID: its size says nothing */
    assert_int_equal(disk_find_now(r->path, 3, "abc", 0, path, &err), -1);
}

static void test_make_dir(void **state)
{
    const struct root *r = *state;
    struct stat st;
    struct err err;
    int fd;
    assert_int_equal(mnt_make_dir_in(r->fd, "a/b/c", false, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "a/b/c", &st, 0), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "/a//b/d/", false, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "a/b/d", &st, 0), 0);

    assert_int_equal(symlinkat("/a", r->fd, "link"), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "link/x", true, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "a/x", &st, 0), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "link", false, &fd, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);

    /* Out of the root by links: stays inside. */
    assert_int_equal(symlinkat("../../../../../..", r->fd, "out"), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "out/made", true, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "made", &st, 0), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "a/../../../made2", true, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "made2", &st, 0), 0);

    /* A link to where nothing is, relative, absolute, over another link, and round and round. */
    make(r, "in");
    assert_int_equal(symlinkat("../nowhere", r->fd, "in/dangling"), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "/in/dangling/x", true, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "nowhere/x", &st, 0), 0);
    assert_int_equal(symlinkat("/over/../three", r->fd, "two"), 0);
    assert_int_equal(symlinkat("two/below", r->fd, "one"), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "one", true, &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "three/below", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(symlinkat("/still/nowhere", r->fd, "refused"), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "refused", false, &fd, &err), -1);
    assert_int_equal(fstatat(r->fd, "still", &st, 0), -1);
    assert_int_equal(symlinkat("round/x", r->fd, "round"), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "round", true, &fd, &err), -1);
    for (int i = 0; i < 20; i++) {
        char name[16], next[16];
        (void)snprintf(name, sizeof(name), "chain%d", i);
        (void)snprintf(next, sizeof(next), "chain%d/x", i + 1);
        assert_int_equal(symlinkat(next, r->fd, name), 0);
    }
    assert_int_equal(mnt_make_dir_in(r->fd, "chain0", true, &fd, &err), -1);
    write_file(r, "file", "x");
    assert_int_equal(mnt_make_dir_in(r->fd, "file/x", true, &fd, &err), -1);
}

static void test_mounts(void **state)
{
    static const struct mnt_option options[] = {{"size", "1m"}, {"mode", "0700"}, {NULL, NULL}};
    static const struct mnt_option wrong[] = {{"no-such-option", "1"}, {NULL, NULL}};
    struct root *r = *state;
    struct err err;
    cleanup_fd int fs = -1;
    cleanup_fd int target = -1;
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        (void)printf("SKIP: needs to make a mount namespace: %s\n", strerror(errno));
        skip();
    }
    /* The descriptor still names the old namespace's mount. */
    (void)close(r->fd);
    r->fd = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mnt_new("tmpfs", options, MOUNT_ATTR_NOSUID, &fs, &err), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "m", false, &target, &err), 0);
    assert_int_equal(mnt_attach(fs, target, &err), 0);
    write_file(r, "m/file", "x");
    assert_int_equal(mnt_set_read_only(fs, false, &err), 0);
    assert_int_equal(openat(r->fd, "m/other", O_CREAT | O_WRONLY | O_CLOEXEC, 0644), -1);
    assert_int_equal(errno, EROFS);

    /* A copy of a part is not read-only with the whole. */
    cleanup_fd int whole = -1;
    cleanup_fd int part = -1;
    cleanup_fd int place = -1;
    assert_int_equal(mnt_new("tmpfs", options, 0, &whole, &err), 0);
    close_fd(&target);
    assert_int_equal(mnt_make_dir_in(r->fd, "w", false, &target, &err), 0);
    assert_int_equal(mnt_attach(whole, target, &err), 0);
    assert_int_equal(mnt_make_dir_in(r->fd, "w/part", false, &place, &err), 0);
    assert_int_equal(mnt_copy_at(place, false, &part, &err), 0);
    assert_int_equal(mnt_attach(part, place, &err), 0);
    assert_int_equal(mnt_set_read_only(whole, false, &err), 0);
    write_file(r, "w/part/file", "x");
    assert_int_equal(openat(r->fd, "w/other", O_CREAT | O_WRONLY | O_CLOEXEC, 0644), -1);
    assert_int_equal(errno, EROFS);

    int ignored;
    assert_int_equal(mnt_new("no-such-fs", NULL, 0, &ignored, &err), -1);
    assert_int_equal(err.sys_errno, ENODEV);
    assert_int_equal(mnt_new("tmpfs", wrong, 0, &ignored, &err), -1);
    assert_non_null(strstr(err.msg, "no-such-option")); /* the kernel's own words */

    char path[64];
    (void)snprintf(path, sizeof(path), "%s/m", r->path);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
    (void)snprintf(path, sizeof(path), "%s/w", r->path);
    assert_int_equal(umount2(path, MNT_DETACH), 0);
}

/* A file that a mount can be put over, whatever the image has there: made inside the root only. */
static void test_place_for_a_file(void **state)
{
    const struct root *r = *state;
    struct err err;
    struct stat st;
    int fd = -1;

    make(r, "etc");
    assert_int_equal(mnt_make_file_in(r->fd, "etc/hosts", &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "etc/hosts", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_size, 0);
    /* What is there stays. */
    write_file(r, "etc/hostname", "old");
    assert_int_equal(mnt_make_file_in(r->fd, "etc/hostname", &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "etc/hostname", &st, 0), 0);
    assert_int_equal(st.st_size, 3);
    /* No folder yet. */
    assert_int_equal(mnt_make_file_in(r->fd, "a/b/c", &fd, &err), 0);
    (void)close(fd);

    /* A link to where nothing is, relative, absolute, and over another link. */
    assert_int_equal(symlinkat("../run/resolve/stub.conf", r->fd, "etc/resolv.conf"), 0);
    assert_int_equal(mnt_make_file_in(r->fd, "etc/resolv.conf", &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "run/resolve/stub.conf", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(symlinkat("/etc/two", r->fd, "one"), 0);
    assert_int_equal(symlinkat("../../../../../../tmp/../three", r->fd, "etc/two"), 0);
    make(r, "tmp");
    assert_int_equal(mnt_make_file_in(r->fd, "one", &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(fstatat(r->fd, "three", &st, AT_SYMLINK_NOFOLLOW), 0);

    /* Neither outside, nor round and round, nor in the place of a directory. */
    char outside[64], path[64];
    (void)snprintf(outside, sizeof(outside), "%s.outside", r->path);
    assert_int_equal(symlinkat(outside, r->fd, "escape"), 0);
    assert_int_equal(mnt_make_file_in(r->fd, "escape", &fd, &err), 0);
    (void)close(fd);
    assert_int_equal(access(outside, F_OK), -1);
    (void)snprintf(path, sizeof(path), "%s", outside + 1);
    assert_int_equal(fstatat(r->fd, path, &st, 0), 0);
    assert_int_equal(symlinkat("round", r->fd, "round"), 0);
    assert_int_equal(mnt_make_file_in(r->fd, "round", &fd, &err), -1);
    assert_int_equal(mnt_make_file_in(r->fd, "etc", &fd, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(mnt_make_file_in(r->fd, "etc/hosts/x", &fd, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_place_for_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_schedulers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(test_serials, setup, teardown),
        cmocka_unit_test_setup_teardown(test_make_dir, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mounts, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
