/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of work, and why:
 *   1. Cut mount propagation, so that nothing done here shows in the agent's namespace.
 *   2. In a private tmpfs: mount each image disk, and the overlay over all of them. Directory names
 *      are one to three characters and relative, because mount(2) takes one page of options and an
 *      image may have 127 layers. "volatile": nothing in the overlay outlives the VM, so no sync is
 *      worth its price.
 *   3. What is put into the new root, by paths that the image can bend, is resolved below its
 *      descriptor: before the switch, since after it the old root lies over the new one, and ".."
 *      from the top leads there. /dev with its nodes: a tmpfs made inside a user namespace would
 *      have none that can be opened. Then pivot_root.
 *   4. /proc, /sys and the like on real directories (an image whose /proc is a link is refused:
 *      what is masked below must be what the name says). Only now the old root goes: who mounts a
 *      proc or sysfs in a user namespace must see one already. Then masked and read-only paths, and
 *      the root itself read-only if asked for.
 *
 * 1 to 3 are rootfs_build, 4 is rootfs_finish.
 *
 * A volume of the image is a second mount of the overlay, of one directory over itself, made before
 * the root's mount becomes read-only and not read-only with it. So it has what the image has there,
 * with owners, modes and attributes, nothing is copied before it is written to, and what is written
 * is in the container's upper layer: counted, private and temporary as that is.
 *
 * With a user namespace the files of the image must belong to its ids. Where the layers' file
 * system can, they are mounted again with ids mapped, and that costs nothing; whether it can is
 * found out by trying, since it depends on kernel and type (squashfs: Linux 6.2). What the writable
 * layer gets has the mapped ids anyway. Where it cannot, every file's owner is changed in the
 * overlay (shift.h), which with metacopy copies no content. Layers cannot bring metacopy's
 * attributes with them: the host leaves out trusted.overlay.*.
 */
#include "agent/mount/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "agent/mount/devnodes.h"
#include "agent/mount/disk.h"
#include "agent/mount/mnt.h"
#include "agent/mount/podfiles.h"
#include "agent/mount/shift.h"

#define HARMLESS    (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define TTY_GID     "5"
#define N_TTY_GIDS  6u /* ids from 0 with that one among them */
#define MAX_OPTIONS 4095u

/* ---- the overlay
 * -------------------------------------------------------------------------------------------------
 */

/* Mounts the image's disks at "0", "1", … in the working directory, lowest first. */
static int mount_layers(const struct rootfs_spec *spec, struct err *err)
{
    for (size_t i = 0; i < spec->rootfs->n_layers; i++) {
        const Casemate__Agent__V1__Disk *disk = spec->rootfs->layers[i];
        char name[24], device[DISK_PATH_SIZE];
        (void)snprintf(name, sizeof(name), "%zu", i);
        if (disk_find(disk->lun, disk->serial, disk->size_bytes, spec->deadline_ms, device, err) <
            0)
            return err_prefix(err, "layer %zu", i);
        if (mkdir(name, 0700) < 0)
            return err_set_errno(err, errno, "layer %zu: make its directory", i);
        if (mount(device, name, disk->fs_type, MS_RDONLY | MS_NODEV | MS_NOATIME, NULL) < 0)
            return err_set_errno(err, errno, "layer %zu: mount LUN %u as %s", i, disk->lun,
                                 disk->fs_type);
    }
    return 0;
}

/* A copy of layer i's mount with ids mapped, over it. EINVAL: its file system cannot. */
static int map_layer(size_t i, const struct userns *userns, struct err *err)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (__u64)userns->fd};
    char name[24];
    (void)snprintf(name, sizeof(name), "%zu", i);
    cleanup_fd int fd = open_tree(AT_FDCWD, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "layer %zu: copy its mount", i);
    if (mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return err_set_errno(err, errno, "layer %zu: map its ids", i);
    if (move_mount(fd, "", AT_FDCWD, name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return err_set_errno(err, errno, "layer %zu: attach it with ids mapped", i);
    return 0;
}

static void unmap_layers(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[24];
        (void)snprintf(name, sizeof(name), "%zu", i);
        (void)umount2(name, MNT_DETACH);
    }
}

/* All of the layers or none: *ret_mapped says which. */
static int map_layers(const struct rootfs_spec *spec, bool *ret_mapped, struct err *err)
{
    for (size_t i = 0; i < spec->rootfs->n_layers; i++) {
        struct err why;
        if (map_layer(i, spec->userns, &why) == 0)
            continue;
        if (why.sys_errno != EINVAL) {
            if (err != NULL)
                *err = why;
            return -1;
        }
        unmap_layers(i);
        *ret_mapped = false;
        return 0;
    }
    *ret_mapped = true;
    return 0;
}

static int mount_overlay(const struct rootfs_spec *spec, bool metacopy, struct err *err)
{
    cleanup_buf struct buf options = BUF_INIT(MAX_OPTIONS);
    cleanup_free char *text = NULL;
    for (size_t i = spec->rootfs->n_layers; i-- > 0;) {
        const char *before = i + 1 == spec->rootfs->n_layers ? "lowerdir=" : ":";
        if (buf_printf(&options, err, "%s%zu", before, i) < 0)
            return -1;
    }
    if (buf_printf(&options, err, ",upperdir=%s/upper,workdir=%s/work,volatile%s", spec->upper_dir,
                   spec->upper_dir, metacopy ? ",redirect_dir=on,metacopy=on" : "") < 0 ||
        buf_take_string(&options, &text, err) < 0)
        return err_prefix(err, "overlay");
    if (mkdir("root", 0755) < 0)
        return err_set_errno(err, errno, "make the root directory");
    if (mount("overlay", "root", "overlay", 0, text) < 0)
        return err_set_errno(err, errno, "mount the overlay");
    return 0;
}

/* The overlay, whose files belong to the user namespace. */
static int mount_mapped_overlay(const struct rootfs_spec *spec, struct err *err)
{
    char upper[128];
    bool mapped;
    (void)snprintf(upper, sizeof(upper), "%s/upper", spec->upper_dir);
    if (map_layers(spec, &mapped, err) < 0 || mount_overlay(spec, !mapped, err) < 0)
        return -1;
    if (mapped) {
        /* The container's "/". */
        if (chown(upper, spec->userns->uid, spec->userns->gid) < 0)
            return err_set_errno(err, errno, "own the root directory");
        return 0;
    }
    cleanup_fd int root = open("root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_set_errno(err, errno, "open the root directory");
    return shift_tree(root, spec->userns, err);
}

static int build_root(const struct rootfs_spec *spec, struct err *err)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_set_errno(err, errno, "make mounts private");
    if (mount("work", ROOTFS_WORK_DIR, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0700") < 0)
        return err_set_errno(err, errno, "mount the work directory");
    if (chdir(ROOTFS_WORK_DIR) < 0)
        return err_set_errno(err, errno, "enter the work directory");
    if (mount_layers(spec, err) < 0)
        return -1;
    return spec->userns != NULL ? mount_mapped_overlay(spec, err) : mount_overlay(spec, false, err);
}

/* The old root is then over the new one, in which the caller is. */
static int switch_root(int root, struct err *err)
{
    if (fchdir(root) < 0)
        return err_set_errno(err, errno, "enter the new root");
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return err_set_errno(err, errno, "switch to the new root");
    return 0;
}

static int detach_old_root(struct err *err)
{
    if (umount2(".", MNT_DETACH) < 0)
        return err_set_errno(err, errno, "detach the old root");
    if (chdir("/") < 0)
        return err_set_errno(err, errno, "enter the new root");
    return 0;
}

/* ---- the kernel's file systems
 * --------------------------------------------------------------------------------------- */

struct standard_mount {
    const char *path;
    const char *type;
    const struct mnt_option *options;
    unsigned attributes;
    bool writable_if_privileged; /* attributes then lose MOUNT_ATTR_RDONLY */
    bool optional;               /* the kernel may not have the type */
};

static int mount_standard(int root, const struct standard_mount *m, bool privileged,
                          struct err *err)
{
    unsigned attributes = m->attributes;
    if (privileged && m->writable_if_privileged)
        attributes &= ~(unsigned)MOUNT_ATTR_RDONLY;
    cleanup_fd int target = -1;
    cleanup_fd int fs = -1;
    if (mnt_make_dir_in(root, m->path, false, &target, err) < 0)
        return -1;
    if (mnt_new(m->type, m->options, attributes, &fs, err) < 0)
        return m->optional && err->sys_errno == ENODEV ? 0 : err_prefix(err, "/%s", m->path);
    if (mnt_attach(fs, target, err) < 0)
        return err_prefix(err, "/%s", m->path);
    return 0;
}

static int mount_dev(int root, struct err *err)
{
    static const struct mnt_option options[] = {{"mode", "0755"}, {"size", "64m"}, {NULL, NULL}};
    static const struct standard_mount dev = {"dev", "tmpfs", options, MOUNT_ATTR_NOSUID,
                                              false, false};
    return mount_standard(root, &dev, false, err);
}

/* A user namespace may be too small for the terminals' group; they then have their opener's. */
static bool has_tty_group(const struct userns *userns)
{
    return userns == NULL || userns->n_gids >= N_TTY_GIDS;
}

static int mount_kernel_file_systems(int root, const struct rootfs_spec *spec, struct err *err)
{
    const struct mnt_option pts_options[] = {
        {"mode", "0620"},
        {"ptmxmode", "0666"},
        {has_tty_group(spec->userns) ? "gid" : NULL, TTY_GID},
        {NULL, NULL},
    };
    const struct standard_mount mounts[] = {
        {"proc", "proc", NULL, HARMLESS, false, false},
        {"dev/pts", "devpts", pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, false, false},
        {"dev/mqueue", "mqueue", NULL, HARMLESS, false, true},
        {"sys", "sysfs", NULL, HARMLESS | MOUNT_ATTR_RDONLY, true, false},
        {"sys/fs/cgroup", "cgroup2", NULL, HARMLESS | MOUNT_ATTR_RDONLY, true, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        if (mount_standard(root, &mounts[i], spec->privileged, err) < 0)
            return -1;
    }
    return 0;
}

static int attach_shm(int root, int pod_shm, struct err *err)
{
    static const struct mnt_option options[] = {{"mode", "1777"}, {"size", "64m"}, {NULL, NULL}};
    cleanup_fd int own = -1;
    cleanup_fd int target = -1;
    if (pod_shm < 0 && mnt_new("tmpfs", options, HARMLESS, &own, err) < 0)
        return err_prefix(err, "/dev/shm");
    if (mnt_make_dir_in(root, "dev/shm", false, &target, err) < 0 ||
        mnt_attach(pod_shm < 0 ? own : pod_shm, target, err) < 0)
        return err_prefix(err, "/dev/shm");
    return 0;
}

/* ---- restrictions
 * --------------------------------------------------------------------------------------------------
 */

static int is_same_file(int a, int b, bool *ret_same, struct err *err)
{
    struct stat st_a, st_b;
    if (fstat(a, &st_a) < 0 || fstat(b, &st_b) < 0)
        return err_set_errno(err, errno, "stat");
    *ret_same = st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
    return 0;
}

/* *ret_target (O_PATH) stays -1 when the path leads nowhere: that needs neither hiding nor
 * protection. One that is not followed (/proc/self/root, a circle) means to lead somewhere. */
static int open_restricted(int root, const char *path, int *ret_target, bool *ret_is_root,
                           struct err *err)
{
    if (mnt_open_in(root, path, 0, ret_target, err) == 0)
        return is_same_file(*ret_target, root, ret_is_root, err);
    if (err->sys_errno == ENOENT || err->sys_errno == ENOTDIR)
        return 0;
    return err->sys_errno == ELOOP
               ? err_set(err, ERR_INVALID, "leads through a link of /proc's or in a circle")
               : -1;
}

/* Hides a file behind the null device, a directory behind an empty one. */
static int mask_path(int root, int null, const char *path, struct err *err)
{
    static const struct mnt_option empty[] = {{"size", "4k"}, {"mode", "0755"}, {NULL, NULL}};
    cleanup_fd int target = -1;
    cleanup_fd int cover = -1;
    struct stat st;
    bool is_root;
    if (open_restricted(root, path, &target, &is_root, err) < 0)
        return -1;
    if (target < 0)
        return 0;
    if (is_root)
        return err_set(err, ERR_INVALID, "the root directory cannot be hidden");
    if (fstat(target, &st) < 0)
        return err_set_errno(err, errno, "stat %s", path);
    int rc = S_ISDIR(st.st_mode)
                 ? mnt_new("tmpfs", empty, HARMLESS | MOUNT_ATTR_RDONLY, &cover, err)
                 : mnt_copy_at(null, false, &cover, err);
    return rc < 0 ? -1 : mnt_attach(cover, target, err);
}

static int make_path_read_only(int root, const char *path, struct err *err)
{
    cleanup_fd int target = -1;
    cleanup_fd int copy = -1;
    bool is_root;
    if (open_restricted(root, path, &target, &is_root, err) < 0)
        return -1;
    if (target < 0)
        return 0;
    /* A copy over the root would be one that nobody whose root it is sees. */
    if (is_root)
        return mnt_set_read_only(root, true, err);
    if (mnt_copy_at(target, true, &copy, err) < 0 || mnt_set_read_only(copy, true, err) < 0)
        return -1;
    return mnt_attach(copy, target, err);
}

static int restrict_paths(int root, const struct rootfs_spec *spec, struct err *err)
{
    cleanup_fd int null = -1;
    /* Before a mask can hide it. */
    if (mnt_open_in(root, "dev/null", O_NOFOLLOW, &null, err) < 0)
        return -1;
    for (size_t i = 0; i < spec->n_readonly_paths; i++) {
        if (make_path_read_only(root, spec->readonly_paths[i], err) < 0)
            return err_prefix(err, "read-only path %s", spec->readonly_paths[i]);
    }
    for (size_t i = 0; i < spec->n_masked_paths; i++) {
        if (mask_path(root, null, spec->masked_paths[i], err) < 0)
            return err_prefix(err, "masked path %s", spec->masked_paths[i]);
    }
    return 0;
}

/* ---- all of it
 * ------------------------------------------------------------------------------------------------------
 */

/* What comes from the VM's own tree. */
struct outside {
    int pod_shm; /* detached copy of the mount; -1: the container has its own */
    int vm_dev;  /* the VM's /dev */
    struct podfiles files;
};

static void close_outside(struct outside *o)
{
    close_fd(&o->pod_shm);
    close_fd(&o->vm_dev);
    podfiles_close(&o->files);
}

static int open_outside(const struct rootfs_spec *spec, struct outside *o, struct err *err)
{
    o->vm_dev = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (o->vm_dev < 0)
        return err_set_errno(err, errno, "open /dev");
    if (podfiles_open(&o->files, err) < 0)
        return -1;
    return spec->pod_shm ? mnt_copy(ROOTFS_SHM_DIR, false, &o->pod_shm, err) : 0;
}

/* The root itself is as it is asked for, also when a link of the image leads there. */
static int make_volume(int root, const char *path, struct err *err)
{
    cleanup_fd int target = -1;
    cleanup_fd int copy = -1;
    bool is_root;
    if (mnt_make_dir_in(root, path, true, &target, err) < 0 ||
        is_same_file(target, root, &is_root, err) < 0)
        return -1;
    if (is_root)
        return 0;
    return mnt_copy_at(target, false, &copy, err) < 0 ? -1 : mnt_attach(copy, target, err);
}

/* Before all that is attached here, which so is over what they bring, wherever links lead them. */
static int make_volumes(int root, const struct rootfs_spec *spec, struct err *err)
{
    for (size_t i = 0; i < spec->n_volumes; i++) {
        if (make_volume(root, spec->volumes[i], err) < 0)
            return err_prefix(err, "volume %s", spec->volumes[i]);
    }
    return 0;
}

/* What only the VM's root can put there. */
static int furnish(int root, const struct outside *outside, const struct rootfs_spec *spec,
                   struct err *err)
{
    cleanup_fd int dev = -1;
    cleanup_fd int cwd = -1;
    /* The pod's files below /dev: an image's link from one of them into /dev must not get a
     * file put over a device, which is what hides masked files. */
    if (make_volumes(root, spec, err) < 0 ||
        podfiles_attach(&outside->files, root, spec->rootfs->read_only, err) < 0 ||
        mount_dev(root, err) < 0 || attach_shm(root, outside->pod_shm, err) < 0 ||
        mnt_open_in(root, "dev", O_DIRECTORY, &dev, err) < 0 ||
        devnodes_make_standard(dev, err) < 0 ||
        devnodes_make(dev, outside->vm_dev, spec->devices, spec->n_devices, err) < 0 ||
        (spec->privileged && devnodes_make_all(dev, outside->vm_dev, err) < 0))
        return -1;
    if (mnt_make_dir_in(root, spec->cwd, true, &cwd, err) < 0)
        return err_prefix(err, "working directory");
    return 0;
}

static int open_root(const char *path, int *ret_fd, struct err *err)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "open the root directory");
    *ret_fd = fd;
    return 0;
}

int rootfs_build(const struct rootfs_spec *spec, struct err *err)
{
    CLEANUP(close_outside)
    struct outside outside = {.pod_shm = -1, .vm_dev = -1, .files = PODFILES_NONE};
    cleanup_fd int root = -1;
    if (build_root(spec, err) < 0 || open_outside(spec, &outside, err) < 0 ||
        open_root("root", &root, err) < 0)
        return -1;
    if (spec->userns != NULL && userns_own_files(spec->userns, err) < 0)
        return -1;
    return furnish(root, &outside, spec, err) < 0 ? -1 : switch_root(root, err);
}

int rootfs_finish(const struct rootfs_spec *spec, int *ret_ptmx_fd, struct err *err)
{
    cleanup_fd int root = -1;
    cleanup_fd int ptmx = -1;
    if (open_root("/", &root, err) < 0 || mount_kernel_file_systems(root, spec, err) < 0 ||
        mnt_open_in(root, "dev/pts/ptmx", O_NOFOLLOW, &ptmx, err) < 0 || detach_old_root(err) < 0 ||
        restrict_paths(root, spec, err) < 0)
        return -1;
    if (spec->rootfs->read_only && mnt_set_read_only(root, false, err) < 0)
        return -1;
    *ret_ptmx_fd = steal_fd(&ptmx);
    return 0;
}
