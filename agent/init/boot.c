/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel starts the agent in its initramfs, whose root cannot be pivoted away from (it has no
 * parent mount), which is what every container's first process must do. So a tmpfs becomes the
 * root, once and for all; the initramfs stays behind it, and the module files in it, which are
 * needed once, are deleted to give their memory back.
 *
 * What cannot be had is not fatal here: a VM without vsock, or without one controller, still
 * serves; a failure that matters shows in the first call that needs the thing, with its reason.
 * Only a missing root or /proc ends the boot.
 */
#include "agent/init/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "agent/container/cgroup.h"
#include "agent/init/demand.h"
#include "agent/init/options.h"
#include "agent/mount/rootfs.h"
#include "agent/net/network.h"

#define MODULE_LIST  "/modules.list"
#define NEW_ROOT     "/casemate-root"
#define MAX_FILES    1048576u
#define PIDS         "4194304" /* PID_MAX_LIMIT, which the kernel takes on 64 bits */
#define CGROUP_MOUNT "/sys/fs/cgroup"

/* ENODEV: a driver for a processor that this VM has not, wanted only where it has (crc32c_intel).
 */
static void load_module(const char *path)
{
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 ||
        (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV)) {
        struct err err;
        (void)err_set_errno(&err, errno, "load module %s", path);
        log_event(LOG_WARN, NULL, &err, "a module is not loaded, going on without it");
    }
    (void)unlink(path);
}

/* Loads what /modules.list names, in its order. A kernel without modules has no list. */
static void load_modules(void)
{
    cleanup_free char *text = NULL;
    struct err err;
    if (fd_read_file(AT_FDCWD, MODULE_LIST, 65536, &text, NULL, &err) < 0)
        return;
    char *cursor = text, *path;
    while ((path = options_next_module(&cursor)) != NULL)
        load_module(path);
}

static int switch_to_tmpfs(struct err *err)
{
    if (mkdir(NEW_ROOT, 0755) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make %s", NEW_ROOT);
    if (mount("root", NEW_ROOT, "tmpfs", 0, "mode=0755") < 0)
        return err_set_errno(err, errno, "mount the root");
    demand_keep(NEW_ROOT);
    if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        return err_set_errno(err, errno, "switch to the root");
    return 0;
}

struct early_mount {
    const char *path;
    const char *type;
    unsigned long flags;
    const char *options;
};

static int mount_early(struct err *err)
{
    static const struct early_mount mounts[] = {
        {"/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL},
        {"/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"},
        {"/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
        {CGROUP_MOUNT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC,
         "nsdelegate,memory_recursiveprot"},
    };
    static const char *const folders[] = {ROOTFS_WORK_DIR, ROOTFS_SCRATCH_DIR, ROOTFS_SHM_DIR,
                                          ROOTFS_FILES_DIR};
    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        const struct early_mount *m = &mounts[i];
        (void)mkdir(m->path, 0755);
        if (mount(m->type, m->path, m->type, m->flags, m->options) < 0)
            return err_set_errno(err, errno, "mount %s", m->path);
    }
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        if (fd_make_dirs(folders[i], 0700, err) < 0)
            return -1;
    }
    /* Containers write there, too: what they use up is theirs alone. */
    if (mount("files", ROOTFS_FILES_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0755,size=1m,nr_inodes=16") < 0)
        return err_set_errno(err, errno, "mount %s", ROOTFS_FILES_DIR);
    return 0;
}

/* Logs go to the console if the VM has one, to the kernel's log otherwise. The descriptor lives as
 * long as the agent. */
static void open_log(void)
{
    int fd = open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        log_set_fd(fd);
}

/* What the kernel tells of the whole VM is for who has CAP_SYSLOG. Set here: not every kernel that
 * a VM may have is built so. */
static void close_kernel_log(void)
{
    struct err err;
    if (fd_write_text(AT_FDCWD, "/proc/sys/kernel/dmesg_restrict", "1", &err) < 0)
        log_event(LOG_WARN, NULL, &err, "every container can read the kernel's log, ignoring");
}

static void read_options(void)
{
    cleanup_free char *text = NULL;
    struct options options;
    struct err err;
    if (fd_read_file(AT_FDCWD, "/proc/cmdline", 65536, &text, NULL, &err) < 0)
        return;
    options_parse(text, &options);
    log_set_level(options.log_level);
}

/* Descriptors 0 to 2 exist, whatever the kernel gave: pipes and sockets must not get these numbers.
 */
static void fill_stdio(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    } while (fd >= 0 && fd <= 2);
    close_fd(&fd);
}

/*
 * The kernel derives these from the memory it boots with, which is the least that a pod ever has:
 * the rest is plugged in later, and it does not count again. What holds a pod is its memory and
 * pids.max. No thread is without a pid, of which there are PIDS at most.
 */
static void lift_boot_limits(void)
{
    static const char *const settings[][2] = {
        {"/proc/sys/kernel/pid_max", PIDS},
        {"/proc/sys/kernel/threads-max", PIDS},
        {"/proc/sys/fs/file-max", "9223372036854775807"},
    };
    struct err err;
    for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
        if (fd_write_text(AT_FDCWD, settings[i][0], settings[i][1], &err) < 0)
            log_event(LOG_WARN, NULL, &err, "keeping the kernel's limit");
    }
}

/* For the agent, and for the containers, which inherit it where they are not told otherwise. */
static void set_limit(__rlimit_resource_t resource, rlim_t limit, const char *what)
{
    struct rlimit both = {.rlim_cur = limit, .rlim_max = limit};
    struct err err;
    if (setrlimit(resource, &both) < 0) {
        (void)err_set_errno(&err, errno, "limit of %s", what);
        log_event(LOG_WARN, NULL, &err, "keeping the kernel's");
    }
}

static void set_process(void)
{
    set_limit(RLIMIT_NOFILE, MAX_FILES, "open files");
    set_limit(RLIMIT_NPROC, RLIM_INFINITY, "processes");
    set_limit(RLIMIT_SIGPENDING, RLIM_INFINITY, "pending signals");
    /* A child that is in a container but not yet its program must not be traced or looked into. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)umask(0022);
    (void)signal(SIGPIPE, SIG_IGN);
    /* Ctrl-Alt-Del from the VMM becomes SIGINT instead of an immediate reboot. */
    (void)reboot(RB_DISABLE_CAD);
}

int boot_prepare(int *ret_cgroup_base_fd, struct network_card *ret_card, struct err *err)
{
    load_modules();
    if (switch_to_tmpfs(err) < 0 || mount_early(err) < 0)
        return -1;
    fill_stdio();
    open_log();
    close_kernel_log();
    read_options();
    demand_enable();
    lift_boot_limits();
    set_process();
    network_prepare(ret_card);
    return cgroup_make_base(CGROUP_MOUNT, "pod", ret_cgroup_base_fd, err);
}
