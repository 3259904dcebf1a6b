/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport has checked that strings are UTF-8 without NULs and that the message has at most
 * its limit of bytes. What is refused here is refused by what a field means; what only the kernel
 * can judge (a cgroup value, a path that does not exist) is left to it.
 */
#include "agent/container/validate.h"

#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/param.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "agent/mount/rootfs.h"
#include "agent/net/netvalid.h"
#include "agent/process/caps.h"
#include "agent/process/limits.h"
#include "agent/process/lodging.h"
#include "agent/process/userdb.h"

#define MAX_STRING   131072u /* MAX_ARG_STRLEN of Linux */
#define MAX_HOSTNAME 64u     /* HOST_NAME_MAX of Linux */
#define MIN_ENTROPY  32u
#define MAX_ENTROPY  512u
#define MAX_VALUE    4096u

static const char alphanumeric[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/* Whether text has 1..max characters, each alphanumeric or in `more`. */
static bool is_word(const char *text, const char *more, size_t max)
{
    size_t len = strlen(text);
    if (len == 0 || len > max)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (strchr(alphanumeric, text[i]) == NULL && strchr(more, text[i]) == NULL)
            return false;
    }
    return true;
}

bool validate_id(const char *id)
{
    return is_word(id, "_.-", VALIDATE_MAX_ID) && id[0] != '.';
}

int validate_ids(const char *container_id, const char *exec_id, struct err *err)
{
    if (!validate_id(container_id))
        return err_set(err, ERR_INVALID, "container id \"%.130s\" is not [A-Za-z0-9_.-]{1,128}",
                       container_id);
    if (exec_id[0] != '\0' && !validate_id(exec_id))
        return err_set(err, ERR_INVALID, "exec id \"%.130s\" is not [A-Za-z0-9_.-]{1,128}",
                       exec_id);
    return 0;
}

_Static_assert(LODGING_SCRATCH > 2 * (USERDB_MAX_FILE + VALIDATE_MAX_STRINGS * sizeof(char *)),
               "a child has room for what is accepted");

static int check_strings(const char *field, char *const *list, size_t n, struct err *err)
{
    if (n > VALIDATE_MAX_STRINGS)
        return err_set(err, ERR_INVALID, "%s: more than %u strings", field, VALIDATE_MAX_STRINGS);
    for (size_t i = 0; i < n; i++) {
        if (strlen(list[i]) >= MAX_STRING)
            return err_set(err, ERR_INVALID, "%s[%zu]: longer than %u bytes", field, i,
                           MAX_STRING - 1);
    }
    return 0;
}

static int check_paths(const char *field, char *const *list, size_t n, struct err *err)
{
    if (n > VALIDATE_MAX_PATHS)
        return err_set(err, ERR_INVALID, "%s: more than %u paths", field, VALIDATE_MAX_PATHS);
    for (size_t i = 0; i < n; i++) {
        if (list[i][0] != '/' || strlen(list[i]) >= PATH_MAX)
            return err_set(err, ERR_INVALID, "%s[%zu]: not an absolute path", field, i);
    }
    return 0;
}

static int check_user(const Casemate__Agent__V1__User *user, struct err *err)
{
    if (user == NULL)
        return 0;
    if (user->uid == UINT32_MAX || user->gid == UINT32_MAX)
        return err_set(err, ERR_INVALID, "user: 4294967295 is no id");
    if (user->n_additional_gids > USERDB_MAX_GROUPS)
        return err_set(err, ERR_INVALID, "user.additional_gids: more than %u", USERDB_MAX_GROUPS);
    for (size_t i = 0; i < user->n_additional_gids; i++) {
        if (user->additional_gids[i] == UINT32_MAX)
            return err_set(err, ERR_INVALID, "user.additional_gids: 4294967295 is no id");
    }
    return 0;
}

static int check_capabilities(const Casemate__Agent__V1__Capabilities *c, struct err *err)
{
    struct caps caps;
    if (caps_read(c, &caps, err) < 0)
        return -1;
    if ((caps.effective & ~caps.permitted) != 0)
        return err_set(err, ERR_INVALID, "capabilities: effective has some that permitted has not");
    if ((caps.ambient & ~(caps.permitted & caps.inheritable)) != 0)
        return err_set(err, ERR_INVALID,
                       "capabilities: ambient has some that permitted or inheritable has not");
    return 0;
}

static int check_rlimits(const Casemate__Agent__V1__Process *p, struct err *err)
{
    if (p->n_rlimits > 64)
        return err_set(err, ERR_INVALID, "rlimits: more than 64");
    for (size_t i = 0; i < p->n_rlimits; i++) {
        if (rlimit_by_name(p->rlimits[i]->type) < 0)
            return err_set(err, ERR_INVALID, "rlimits: unknown limit \"%.32s\"",
                           p->rlimits[i]->type);
        if (p->rlimits[i]->soft > p->rlimits[i]->hard)
            return err_set(err, ERR_INVALID, "rlimits: %s: soft is above hard",
                           p->rlimits[i]->type);
    }
    return 0;
}

int validate_window(uint32_t width, uint32_t height, struct err *err)
{
    if (width > USHRT_MAX || height > USHRT_MAX)
        return err_set(err, ERR_INVALID, "tty: larger than 65535");
    return 0;
}

static int check_seccomp(const Casemate__Agent__V1__Seccomp *s, struct err *err)
{
    const uint32_t flags = SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if (s == NULL)
        return 0;
    if (s->filter.len == 0 || s->filter.len % sizeof(struct sock_filter) != 0 ||
        s->filter.len / sizeof(struct sock_filter) > BPF_MAXINSNS)
        return err_set(err, ERR_INVALID, "seccomp.filter: not 1 to %d instructions", BPF_MAXINSNS);
    if ((s->flags & ~flags) != 0)
        return err_set(err, ERR_INVALID, "seccomp.flags: unknown flags 0x%x", s->flags & ~flags);
    return 0;
}

int validate_process(const Casemate__Agent__V1__Process *p, struct err *err)
{
    if (p == NULL)
        return err_set(err, ERR_INVALID, "process is missing");
    if (p->n_args == 0 || p->args[0][0] == '\0')
        return err_set(err, ERR_INVALID, "args: there is no program");
    if (check_strings("args", p->args, p->n_args, err) < 0 ||
        check_strings("env", p->env, p->n_env, err) < 0)
        return -1;
    if ((p->cwd[0] != '\0' && p->cwd[0] != '/') || strlen(p->cwd) >= PATH_MAX)
        return err_set(err, ERR_INVALID, "cwd: not an absolute path");
    if (validate_window(p->tty_width, p->tty_height, err) < 0 || check_user(p->user, err) < 0 ||
        check_capabilities(p->capabilities, err) < 0 || check_rlimits(p, err) < 0 ||
        check_seccomp(p->seccomp, err) < 0)
        return -1;
    if (p->oom_score_adj < -1000 || p->oom_score_adj > 1000)
        return err_set(err, ERR_INVALID, "oom_score_adj: not -1000 to 1000");
    return 0;
}

int validate_disk(const Casemate__Agent__V1__Disk *disk, struct err *err)
{
    static const char *const types[] = {"squashfs", "erofs", "ext4"};
    if (disk->lun > VALIDATE_MAX_LUN)
        return err_set(err, ERR_INVALID, "disk: LUN %u is above %u", disk->lun, VALIDATE_MAX_LUN);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (strcmp(disk->fs_type, types[i]) == 0)
            return 0;
    }
    return err_set(err, ERR_INVALID, "disk: unknown file system \"%.32s\"", disk->fs_type);
}

/* "net.ipv4.ip_forward" or with slashes: words that cannot climb. */
static bool is_sysctl_name(const char *name)
{
    return is_word(name, "_./-", 256) && strstr(name, "..") == NULL && name[0] != '/' &&
           name[0] != '.';
}

int validate_sysctls(Casemate__Agent__V1__Sysctl *const *list, size_t n, struct err *err)
{
    if (n > VALIDATE_MAX_SYSCTLS)
        return err_set(err, ERR_INVALID, "sysctls: more than %u", VALIDATE_MAX_SYSCTLS);
    for (size_t i = 0; i < n; i++) {
        if (!is_sysctl_name(list[i]->name) || strlen(list[i]->value) > MAX_VALUE)
            return err_set(err, ERR_INVALID,
                           "sysctls: \"%.64s\" is no valid name or its value is too long",
                           list[i]->name);
    }
    return 0;
}

static int check_scratch(const Casemate__Agent__V1__Disk *scratch, struct err *err)
{
    if (validate_disk(scratch, err) < 0)
        return err_prefix(err, "scratch");
    if (strcmp(scratch->fs_type, "ext4") != 0 || scratch->read_only)
        return err_set(err, ERR_INVALID, "scratch: not a writable ext4");
    return 0;
}

int validate_prepare(const Casemate__Agent__V1__PreparePodRequest *r, struct err *err)
{
    if (r->scratch == NULL)
        return err_set(err, ERR_INVALID, "scratch is missing");
    return check_scratch(r->scratch, err);
}

/* No more than one range each, from 0 on: what CRI's clients ask for. */
static int check_mapping(const char *field, const Casemate__Agent__V1__IdMapping *m,
                         struct err *err)
{
    if (m == NULL || m->length == 0 || m->host_id == 0)
        return err_set(err, ERR_INVALID, "user_namespace.%s: none, empty, or of the VM's root",
                       field);
    if (m->length > UINT32_MAX - m->host_id)
        return err_set(err, ERR_INVALID, "user_namespace.%s: beyond the last id", field);
    return 0;
}

int validate_configure(const Casemate__Agent__V1__ConfigurePodRequest *r, struct err *err)
{
    if (!validate_id(r->pod_id))
        return err_set(err, ERR_INVALID, "pod_id \"%.130s\" is not [A-Za-z0-9_.-]{1,128}",
                       r->pod_id);
    if (r->hostname[0] != '\0' && !is_word(r->hostname, ".-_", MAX_HOSTNAME))
        return err_set(err, ERR_INVALID, "hostname: not 1 to %u letters, digits, dots and dashes",
                       MAX_HOSTNAME);
    if (r->entropy.len < MIN_ENTROPY || r->entropy.len > MAX_ENTROPY)
        return err_set(err, ERR_INVALID, "entropy: not %u to %u bytes", MIN_ENTROPY, MAX_ENTROPY);
    if (r->realtime_ns <= 0)
        return err_set(err, ERR_INVALID, "realtime_ns: not a time");
    if (r->scratch != NULL && check_scratch(r->scratch, err) < 0)
        return -1;
    if (r->network != NULL && netvalid_check(r->network, err) < 0)
        return -1;
    if (r->user_namespace != NULL && (check_mapping("uids", r->user_namespace->uids, err) < 0 ||
                                      check_mapping("gids", r->user_namespace->gids, err) < 0))
        return -1;
    return validate_sysctls(r->sysctls, r->n_sysctls, err);
}

int validate_resources(const Casemate__Agent__V1__Resources *resources, struct err *err)
{
    static const char *const controllers[] = {"cpu.", "cpuset.",  "memory.", "pids.",
                                              "io.",  "hugetlb.", "misc.",   "rdma."};
    if (resources == NULL)
        return 0;
    if (resources->n_cgroup > VALIDATE_MAX_CGROUP)
        return err_set(err, ERR_INVALID, "resources: more than %u settings", VALIDATE_MAX_CGROUP);
    for (size_t i = 0; i < resources->n_cgroup; i++) {
        const char *file = resources->cgroup[i]->file;
        bool known = false;
        for (size_t j = 0; j < ARRAY_SIZE(controllers); j++)
            known = known || text_has_prefix(file, controllers[j]);
        if (!known || !is_word(file, "._-", 64))
            return err_set(err, ERR_INVALID, "resources: \"%.64s\" is no file of a controller",
                           file);
        if (strlen(resources->cgroup[i]->value) > MAX_VALUE)
            return err_set(err, ERR_INVALID, "resources: the value of %s is too long", file);
    }
    return 0;
}

static int check_rootfs(const Casemate__Agent__V1__RootFs *rootfs, struct err *err)
{
    if (rootfs == NULL || rootfs->n_layers == 0)
        return err_set(err, ERR_INVALID, "rootfs: there is no layer");
    if (rootfs->n_layers > ROOTFS_MAX_LAYERS)
        return err_set(err, ERR_INVALID, "rootfs: more than %u layers", ROOTFS_MAX_LAYERS);
    for (size_t i = 0; i < rootfs->n_layers; i++) {
        if (validate_disk(rootfs->layers[i], err) < 0)
            return err_prefix(err, "rootfs: layer %zu", i);
    }
    return 0;
}

/* Absolute, below "/", and without parts that are empty, "." or "..". */
static bool is_clean_path(const char *path)
{
    if (strlen(path) >= PATH_MAX)
        return false;
    do {
        if (*path++ != '/')
            return false;
        size_t n = strcspn(path, "/");
        if (n == 0 || (n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += n;
    } while (*path != '\0');
    return true;
}

/* In a file system of the kernel, or one of its places. */
static bool is_kernels_place(const char *path)
{
    static const char *const places[] = {"/proc", "/sys", "/dev"};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        size_t n = strlen(places[i]);
        if (text_has_prefix(path, places[i]) && (path[n] == '\0' || path[n] == '/'))
            return true;
    }
    return false;
}

static int check_volumes(const Casemate__Agent__V1__CreateContainerRequest *r, struct err *err)
{
    if (r->n_volumes > VALIDATE_MAX_VOLUMES)
        return err_set(err, ERR_INVALID, "volumes: more than %u", VALIDATE_MAX_VOLUMES);
    for (size_t i = 0; i < r->n_volumes; i++) {
        if (!is_clean_path(r->volumes[i]) || is_kernels_place(r->volumes[i]))
            return err_set(err, ERR_INVALID,
                           "volumes[%zu]: not a clean absolute path outside of /proc, /sys, /dev",
                           i);
        for (size_t j = 0; j < i; j++) {
            if (strcmp(r->volumes[i], r->volumes[j]) == 0)
                return err_set(err, ERR_INVALID, "volumes[%zu]: is there twice", i);
        }
    }
    return 0;
}

/* A path below /dev that cannot climb out of it. */
static bool is_device_path(const char *path)
{
    return text_has_prefix(path, "/dev/") && path[5] != '\0' && strlen(path) < 256 &&
           strstr(path, "/../") == NULL && strstr(path, "//") == NULL &&
           strcmp(path + strlen(path) - 3, "/..") != 0;
}

static int check_devices(const Casemate__Agent__V1__CreateContainerRequest *r, struct err *err)
{
    if (r->n_devices > VALIDATE_MAX_DEVICES)
        return err_set(err, ERR_INVALID, "devices: more than %u", VALIDATE_MAX_DEVICES);
    for (size_t i = 0; i < r->n_devices; i++) {
        const Casemate__Agent__V1__Device *d = r->devices[i];
        if (!is_device_path(d->path) ||
            (d->guest_path[0] != '\0' && !is_device_path(d->guest_path)))
            return err_set(err, ERR_INVALID, "devices[%zu]: not a path below /dev", i);
        if (d->permissions[0] == '\0' || strspn(d->permissions, "rwm") != strlen(d->permissions))
            return err_set(err, ERR_INVALID, "devices[%zu]: permissions are not of \"rwm\"", i);
    }
    return 0;
}

int validate_create(const Casemate__Agent__V1__CreateContainerRequest *r, struct err *err)
{
    if (validate_ids(r->id, "", err) < 0 || validate_process(r->process, err) < 0 ||
        check_rootfs(r->rootfs, err) < 0 || validate_resources(r->resources, err) < 0 ||
        check_paths("masked_paths", r->masked_paths, r->n_masked_paths, err) < 0 ||
        check_paths("readonly_paths", r->readonly_paths, r->n_readonly_paths, err) < 0 ||
        check_volumes(r, err) < 0 || check_devices(r, err) < 0)
        return -1;
    switch (r->pid_namespace) {
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_POD:
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER:
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_NODE:
        break;
    case CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_TARGET:
        if (!validate_id(r->pid_target_id))
            return err_set(err, ERR_INVALID, "pid_target_id: not an id");
        break;
    default:
        return err_set(err, ERR_INVALID, "pid_namespace: unknown value %d", (int)r->pid_namespace);
    }
    if (r->ipc_namespace != CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_POD &&
        r->ipc_namespace != CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER &&
        r->ipc_namespace != CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_NODE)
        return err_set(err, ERR_INVALID, "ipc_namespace: unknown value %d", (int)r->ipc_namespace);
    return 0;
}

int validate_exec(const Casemate__Agent__V1__ExecRequest *r, struct err *err)
{
    if (validate_ids(r->container_id, r->exec_id, err) < 0)
        return -1;
    if (r->exec_id[0] == '\0')
        return err_set(err, ERR_INVALID, "exec_id is empty");
    if (validate_process(r->process, err) < 0)
        return -1;
    if (r->same_capabilities && r->process->capabilities != NULL)
        return err_set(err, ERR_INVALID, "capabilities: both the container's and others");
    return 0;
}
