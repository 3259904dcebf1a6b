/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Folder names carry a prefix, since ids may look like the kernel's own files ("cgroup.procs").
 * cgroup.kill (Linux 5.14) does atomically what a loop over cgroup.procs cannot: a forking process
 * does not outrun it.
 *
 * A container that may write to its cgroup makes others inside, and the agent must get rid of them
 * all, in little memory and without keeping everybody else waiting: how deep they are is limited
 * once, in the base; how many there are in each container's own, so that none uses up another's.
 * Neither file is one that a cgroup namespace's owner may write.
 */
#include "agent/container/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "agent/container/cgcheck.h"
#include "agent/container/cgrevert.h"
#include "agent/container/validate.h"

#define MAX_FILE  (1u << 20)
#define MAX_KEYED 16384

static void folder_name(const char *id, char ret_name[VALIDATE_MAX_ID + 3])
{
    (void)snprintf(ret_name, VALIDATE_MAX_ID + 3, "c-%s", id);
}

/* Turns each controller of cgroup.controllers on for the children of the cgroup. */
static int delegate(int fd, struct err *err)
{
    cleanup_free char *text = NULL;
    if (fd_read_file(fd, "cgroup.controllers", 4096, &text, NULL, err) < 0)
        return -1;
    char *save = NULL;
    for (char *name = strtok_r(text, " \n", &save); name != NULL;
         name = strtok_r(NULL, " \n", &save)) {
        char command[64];
        struct err refused;
        (void)snprintf(command, sizeof(command), "+%.60s", name);
        /* Some cannot be delegated (real-time scheduling groups): the container then goes without.
         */
        if (fd_write_text(fd, "cgroup.subtree_control", command, &refused) < 0)
            log_event(LOG_WARN, NULL, &refused, "controller %s is not delegated, ignoring", name);
    }
    return 0;
}

static int set_number(int fd, const char *file, unsigned value, struct err *err)
{
    char text[16];
    (void)snprintf(text, sizeof(text), "%u", value);
    return fd_write_text(fd, file, text, err);
}

int cgroup_make_base(const char *mount_point, const char *name, int *ret_base_fd, struct err *err)
{
    cleanup_fd int top = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return err_set_errno(err, errno, "open %s", mount_point);
    if (delegate(top, err) < 0)
        return err_prefix(err, "%s", mount_point);
    if (mkdirat(top, name, 0755) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make cgroup %s", name);
    cleanup_fd int base = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (base < 0)
        return err_set_errno(err, errno, "open cgroup %s", name);
    if (delegate(base, err) < 0 ||
        set_number(base, "cgroup.max.depth", 1 + CGROUP_MAX_DEPTH, err) < 0)
        return err_prefix(err, "cgroup %s", name);
    *ret_base_fd = steal_fd(&base);
    return 0;
}

/* Into a cgroup that is being made, and goes when the kernel refuses one of them. */
static int apply(int cgroup_fd, const Casemate__Agent__V1__Resources *settings, struct err *err)
{
    for (size_t i = 0; settings != NULL && i < settings->n_cgroup; i++) {
        const Casemate__Agent__V1__CgroupSetting *s = settings->cgroup[i];
        if (!cgcheck_is_moot(cgroup_fd, s) && fd_write_text(cgroup_fd, s->file, s->value, err) < 0)
            return err_prefix(err, "cgroup setting %s", s->file);
    }
    return 0;
}

int cgroup_delegate(int cgroup_fd, uid_t uid, gid_t gid, struct err *err)
{
    static const char *const files[] = {".", "cgroup.procs", "cgroup.threads",
                                        "cgroup.subtree_control"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        if (fchownat(cgroup_fd, files[i], uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
            return err_set_errno(err, errno, "delegate the cgroup: %s", files[i]);
    }
    return 0;
}

int cgroup_open_of(int cgroup_fd, const char *id, pid_t pid, int *ret_fd, struct err *err)
{
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    char path[32], name[VALIDATE_MAX_ID + 3], folder[VALIDATE_MAX_ID + 5];
    cleanup_free char *text = NULL;

    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    folder_name(id, name);
    (void)snprintf(folder, sizeof(folder), "/%s/", name);
    if (fd_read_file(AT_FDCWD, path, MAX_FILE, &text, NULL, err) < 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    const char *below = strstr(text, folder);
    if (below == NULL)
        return err_set(err, ERR_BAD_STATE, "process %d is not below the container's cgroup",
                       (int)pid);
    int fd = (int)syscall(SYS_openat2, cgroup_fd, below + strlen(folder), &how, sizeof(how));
    if (fd < 0)
        return err_set_errno(err, errno, "open the cgroup of process %d", (int)pid);
    *ret_fd = fd;
    return 0;
}

/* The number behind `key` in a file of "key number" lines; `missing` if there is none. */
static uint64_t read_keyed(int cgroup_fd, const char *file, const char *key, uint64_t missing)
{
    cleanup_free char *text = NULL;
    struct err err;
    if (fd_read_file(cgroup_fd, file, MAX_KEYED, &text, NULL, &err) < 0)
        return missing;
    char *save = NULL;
    size_t key_len = strlen(key);
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, key, key_len) == 0 && line[key_len] == ' ')
            return strtoull(line + key_len + 1, NULL, 10);
    }
    return missing;
}

/* Whether a cgroup can be given the limit: what its processes use, file pages that could be dropped
 * aside, must fit, or the kernel would kill one of them at once. */
static int check_limit(int cgroup_fd, const char *value, struct err *err)
{
    cleanup_free char *text = NULL;
    uint64_t limit, used;
    if (text_parse_u64(value, UINT64_MAX, &limit) < 0)
        return 0; /* "max", or for the kernel to refuse */
    if (fd_read_file(cgroup_fd, "memory.current", 64, &text, NULL, err) < 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    if (text_parse_u64(text, UINT64_MAX, &used) < 0)
        return err_set(err, ERR_SYSTEM, "memory.current does not hold a number");
    uint64_t droppable = read_keyed(cgroup_fd, "memory.stat", "inactive_file", 0) +
                         read_keyed(cgroup_fd, "memory.stat", "active_file", 0);
    used -= droppable < used ? droppable : used;
    if (used <= limit)
        return 0;
    return err_set(err, ERR_BAD_STATE, "memory.max %s: %llu bytes are in use", value,
                   (unsigned long long)used);
}

int cgroup_update(int base_fd, int cgroup_fd, const Casemate__Agent__V1__Resources *settings,
                  struct err *err)
{
    if (cgcheck_settings(base_fd, settings, err) < 0)
        return -1;
    for (size_t i = 0; settings != NULL && i < settings->n_cgroup; i++) {
        const Casemate__Agent__V1__CgroupSetting *s = settings->cgroup[i];
        if (strcmp(s->file, "memory.max") == 0 && check_limit(cgroup_fd, s->value, err) < 0)
            return -1;
    }
    return cgrevert_apply(cgroup_fd, settings, err);
}

int cgroup_create(int base_fd, const char *id, const Casemate__Agent__V1__Resources *settings,
                  int *ret_fd, struct err *err)
{
    char name[VALIDATE_MAX_ID + 3];
    folder_name(id, name);
    if (cgcheck_settings(base_fd, settings, err) < 0)
        return -1;
    if (mkdirat(base_fd, name, 0755) < 0)
        return err_set_errno(err, errno, "make the cgroup");
    cleanup_fd int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        (void)err_set_errno(err, errno, "open the cgroup");
    if (fd < 0 || set_number(fd, "cgroup.max.descendants", CGROUP_MAX_DESCENDANTS, err) < 0 ||
        apply(fd, settings, err) < 0) {
        (void)unlinkat(base_fd, name, AT_REMOVEDIR);
        return -1;
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

void cgroup_kill(int cgroup_fd)
{
    struct err err;
    if (fd_write_text(cgroup_fd, "cgroup.kill", "1", &err) < 0) {
        log_event(LOG_WARN, NULL, &err, "cgroup.kill failed, killing one by one");
        (void)cgroup_signal(cgroup_fd, SIGKILL);
    }
}

size_t cgroup_signal(int cgroup_fd, int signo)
{
    cleanup_free char *text = NULL;
    struct err err;
    if (fd_read_file(cgroup_fd, "cgroup.procs", MAX_FILE, &text, NULL, &err) < 0)
        return 0;
    size_t n = 0;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        long pid = strtol(line, NULL, 10);
        /* 0: a process that this pid namespace cannot name. */
        if (pid > 1 && kill((pid_t)pid, signo) == 0)
            n++;
    }
    return n;
}

bool cgroup_is_populated(int cgroup_fd)
{
    return read_keyed(cgroup_fd, "cgroup.events", "populated", 0) != 0;
}

uint64_t cgroup_oom_kills(int cgroup_fd)
{
    return read_keyed(cgroup_fd, "memory.events", "oom_kill", 0);
}

/* Removes the folders inside the cgroup, depth first: there are no more below one another than the
 * base allows. Its files cannot be and need not be removed. */
static void remove_children(int dir_fd, unsigned depth)
{
    int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        close_fd(&copy);
        return;
    }
    struct dirent *e;
    while (depth < CGROUP_MAX_DEPTH && (e = readdir(dir)) != NULL) {
        if (e->d_type != DT_DIR || strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int child = openat(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (child < 0)
            continue;
        remove_children(child, depth + 1);
        (void)close(child);
        (void)unlinkat(dir_fd, e->d_name, AT_REMOVEDIR);
    }
    (void)closedir(dir);
}

int cgroup_remove(int base_fd, const char *id, struct err *err)
{
    char name[VALIDATE_MAX_ID + 3];
    folder_name(id, name);
    if (unlinkat(base_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    cleanup_fd int fd = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        remove_children(fd, 0);
    if (unlinkat(base_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return err_set_errno(err, errno, "remove the cgroup");
    return 0;
}
