/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owners, set-id bits and file capabilities of a tree that is given to a user namespace, and what
 * must not be touched: the targets of links, other mounts. Needs root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent/mount/shift.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"

#define CAPABILITY "security.capability"

static const struct userns userns = {
    .fd = -1, .uid = 100000, .n_uids = 65536, .gid = 200000, .n_gids = 1000};
static char top[] = "/tmp/shift.XXXXXX";
static int top_fd = -1, tree_fd = -1;

/* A tmpfs in a mount namespace of the test's own; "tree" in it is what is shifted. */
static int set_up(void **state)
{
    (void)state;
    if (geteuid() != 0)
        return 0;
    if (mkdtemp(top) == NULL || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("shift", top, "tmpfs", 0, "mode=0755") < 0)
        return -1;
    top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top_fd < 0 || mkdirat(top_fd, "tree", 0755) < 0)
        return -1;
    tree_fd = openat(top_fd, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return tree_fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    close_fd(&tree_fd);
    close_fd(&top_fd);
    if (geteuid() != 0)
        return 0;
    return umount2(top, MNT_DETACH) == 0 && rmdir(top) == 0 ? 0 : -1;
}

static void need_root(void)
{
    if (geteuid() != 0)
        skip();
}

static void make(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    cleanup_fd int fd = openat(top_fd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(fchown(fd, uid, gid), 0);
    assert_int_equal(fchmod(fd, mode), 0);
}

static void expect(const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    struct stat st;

    assert_int_equal(fstatat(top_fd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
    if (st.st_uid != uid || st.st_gid != gid || (st.st_mode & 07777) != mode)
        fail_msg("%s: %u:%u %o, not %u:%u %o", path, st.st_uid, st.st_gid, st.st_mode & 07777, uid,
                 gid, mode);
}

static void shift(void)
{
    struct err err;

    if (shift_tree(tree_fd, &userns, &err) < 0)
        fail_msg("%s", err.msg);
}

static void owners_and_modes(void **state)
{
    (void)state;
    need_root();
    make("tree/root", 0644, 0, 0);
    make("tree/last", 0600, 65535, 999);
    make("tree/set", 06755, 5, 6);
    make("tree/beyond", 06755, 65536, 1000);
    make("tree/inside-already", 04711, 100005, 5); /* not taken for the namespace's 5 */
    assert_int_equal(mkdirat(top_fd, "tree/dir", 0755), 0);
    assert_int_equal(fchmodat(top_fd, "tree/dir", 03775, 0), 0);
    make("tree/dir/below", 0440, 7, 8);
    assert_int_equal(mknodat(top_fd, "tree/fifo", S_IFIFO | 0600, 0), 0);
    shift();
    expect("tree", 0755, 100000, 200000);
    expect("tree/root", 0644, 100000, 200000);
    expect("tree/last", 0600, 165535, 200999);
    expect("tree/set", 06755, 100005, 200006);
    expect("tree/beyond", 0755, 0, 0);
    expect("tree/inside-already", 0711, 0, 200005);
    expect("tree/dir", 03775, 100000, 200000);
    expect("tree/dir/below", 0440, 100007, 200008);
    expect("tree/fifo", 0600, 100000, 200000);
}

static void links_and_mounts(void **state)
{
    struct err err;
    char path[64];

    (void)state;
    need_root();
    make("outside", 04755, 1, 1);
    assert_int_equal(mkdirat(top_fd, "away", 0755), 0);
    make("away/file", 0644, 1, 1);
    assert_int_equal(symlinkat("../outside", top_fd, "tree/to-file"), 0);
    assert_int_equal(symlinkat("../away", top_fd, "tree/to-dir"), 0);
    assert_int_equal(symlinkat("/proc/self/root", top_fd, "tree/to-root"), 0);
    shift();
    expect("outside", 04755, 1, 1);
    expect("away", 0755, 0, 0);
    expect("away/file", 0644, 1, 1);
    expect("tree/to-dir", 0777, 100000, 200000);

    assert_int_equal(mkdirat(top_fd, "tree/mounted", 0755), 0);
    (void)snprintf(path, sizeof(path), "%s/tree/mounted", top);
    assert_int_equal(mount("other", path, "tmpfs", 0, "mode=0755"), 0);
    make("tree/mounted/file", 0644, 1, 1);
    assert_int_equal(shift_tree(tree_fd, &userns, &err), -1);
    assert_int_equal(err.sys_errno, EXDEV);
    expect("tree/mounted/file", 0644, 1, 1);
    assert_int_equal(umount2(path, 0), 0);
    assert_int_equal(unlinkat(top_fd, "tree/mounted", AT_REMOVEDIR), 0);
}

static void set_capability(const char *path, uint32_t revision, uint32_t root, size_t size)
{
    const struct vfs_ns_cap_data data = {
        .magic_etc = revision | VFS_CAP_FLAGS_EFFECTIVE,
        .data = {{.permitted = 1u << CAP_NET_BIND_SERVICE}},
        .rootid = root,
    };

    assert_int_equal(lsetxattr(path, CAPABILITY, &data, size, 0), 0);
}

static void expect_capability(const char *path, uint32_t root)
{
    struct vfs_ns_cap_data data = {0};

    assert_int_equal(lgetxattr(path, CAPABILITY, &data, sizeof(data)), XATTR_CAPS_SZ_3);
    assert_int_equal(data.magic_etc, VFS_CAP_REVISION_3 | VFS_CAP_FLAGS_EFFECTIVE);
    assert_int_equal(data.data[0].permitted, 1u << CAP_NET_BIND_SERVICE);
    assert_int_equal(data.rootid, root);
}

static void capabilities(void **state)
{
    static const char *const names[] = {"plain", "nested", "foreign"};
    char paths[3][64];

    (void)state;
    need_root();
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "tree/%s", names[i]);
        (void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", top, name);
        make(name, 0755, 0, 0);
    }
    set_capability(paths[0], VFS_CAP_REVISION_2, 0, XATTR_CAPS_SZ_2);
    set_capability(paths[1], VFS_CAP_REVISION_3, 3000, XATTR_CAPS_SZ_3);
    set_capability(paths[2], VFS_CAP_REVISION_3, 70000, XATTR_CAPS_SZ_3);
    shift();
    expect_capability(paths[0], 100000);
    expect_capability(paths[1], 103000);
    assert_int_equal(lgetxattr(paths[2], CAPABILITY, NULL, 0), -1);
}

static void depth(void **state)
{
    struct err err;

    (void)state;
    need_root();
    int fd = dup(tree_fd);
    for (unsigned i = 0; i < SHIFT_MAX_DEPTH; i++) {
        assert_int_equal(mkdirat(fd, "d", 0755), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        (void)close(fd);
        fd = next;
    }
    (void)close(fd);
    assert_int_equal(shift_tree(tree_fd, &userns, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "deep"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_and_modes),
        cmocka_unit_test(links_and_mounts),
        cmocka_unit_test(capabilities),
        cmocka_unit_test(depth),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
