/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of the machine and its kernel: what can only be had by root, or by another machine. The
 * presence of a device node proves little (a hypervisor can offer a /dev/kvm under which no guest
 * ever comes up), so where the daemon has tried, its verdict is shown.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/cli/check.h"
#include "host/cli/text.h"

enum { MAX_PROC_FILE = 64 << 10 };

static char *read_host_file(const struct cli_check_env *env, const char *path)
{
    cleanup_free char *full = cli_check_path(env, path);
    char *text = NULL;
    struct err quiet = {0};
    if (full == NULL || fd_read_file(AT_FDCWD, full, MAX_PROC_FILE, &text, NULL, &quiet) < 0)
        return NULL;
    return text;
}

/* 0, or the errno of opening a device of the host for reading and writing. */
static int try_open(const struct cli_check_env *env, const char *path)
{
    cleanup_free char *full = cli_check_path(env, path);
    if (full == NULL)
        return ENOMEM;
    cleanup_fd int fd = open(full, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? errno : 0;
}

/* The number after "<name>:" in a /proc file; false: it is not there. */
static bool find_number(const char *text, const char *name, int base, uint64_t *ret)
{
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        size_t n = strlen(name);
        if (strncmp(line, name, n) == 0 && line[n] == ':') {
            *ret = strtoull(line + n + 1, NULL, base);
            return true;
        }
    }
    return false;
}

struct capability {
    unsigned bit;
    const char *name;
};

/* Appends the names of the capabilities that are not in the set. */
static void name_missing(const struct capability *list, size_t n, uint64_t have, char *ret,
                         size_t size)
{
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        if ((have >> list[i].bit & 1) == 0 && at < size)
            at += (size_t)snprintf(ret + at, size - at, "%s%s", at == 0 ? "" : ", ", list[i].name);
    }
}

void cli_check_privileges(const struct cli_check_env *env, struct cli_finding *ret)
{
    static const struct capability needed[] = {
        {CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},   {CAP_NET_ADMIN, "CAP_NET_ADMIN"},
        {CAP_SETUID, "CAP_SETUID"},         {CAP_SETGID, "CAP_SETGID"},
        {CAP_CHOWN, "CAP_CHOWN"},           {CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"},
        {CAP_FOWNER, "CAP_FOWNER"},         {CAP_KILL, "CAP_KILL"},
        {CAP_SYS_CHROOT, "CAP_SYS_CHROOT"},
    };
    static const struct capability wanted[] = {{CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE"}};
    cleanup_free char *status = read_host_file(env, "/proc/self/status");
    uint64_t uid = 0, have = 0;
    if (status == NULL || !find_number(status, "Uid", 10, &uid) ||
        !find_number(status, "CapEff", 16, &have)) {
        cli_find(ret, CLI_CHECK_WARN, "mount /proc", "/proc/self/status cannot be read");
        return;
    }
    char missing[256];
    if (uid != 0) {
        cli_find(ret, CLI_CHECK_FAIL,
                 "run this check as root: what it sees is what the daemon gets",
                 "not root (uid %llu)", (unsigned long long)uid);
        return;
    }
    name_missing(needed, ARRAY_SIZE(needed), have, missing, sizeof(missing));
    if (*missing != '\0') {
        cli_find(ret, CLI_CHECK_FAIL, "give the machine or container around casemated these",
                 "root without %s", missing);
        return;
    }
    name_missing(wanted, ARRAY_SIZE(wanted), have, missing, sizeof(missing));
    if (*missing != '\0')
        cli_find(ret, CLI_CHECK_WARN, "nothing to do unless memory runs short on this host",
                 "root without %s: machines cannot be shielded from the OOM killer", missing);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "root with the capabilities that are needed");
}

void cli_check_kvm(const struct cli_check_env *env, struct cli_finding *ret)
{
    const struct cli_daemon_view *d = env->daemon;
    int problem = try_open(env, "/dev/kvm");
    const char *node = problem == 0        ? "/dev/kvm can be opened"
                       : problem == ENOENT ? "no /dev/kvm"
                                           : "/dev/kvm cannot be opened";
    const char *remedy = "turn virtualization on in the firmware (or nested virtualization in the "
                         "hypervisor) and load kvm_intel or kvm_amd";
    if (strcmp(env->conf->accel, "tcg") == 0) {
        cli_find(ret, CLI_CHECK_WARN, "set [vmm] accel = auto",
                 "software emulation (tcg) is what the configuration asks for: slow");
    } else if (d->reachable && strcmp(d->accelerator, "kvm") == 0) {
        cli_find(ret, CLI_CHECK_OK, NULL, "kvm: the daemon has run a guest with it");
    } else if (d->reachable && *d->accelerator != '\0') {
        cli_find(ret, CLI_CHECK_WARN, remedy, "%s; the daemon uses %s: %s", node, d->accelerator,
                 d->accelerator_reason);
    } else if (problem == 0) {
        cli_find(ret, CLI_CHECK_OK, NULL,
                 "%s; whether a guest runs with it shows only when the daemon tries", node);
    } else if (strcmp(env->conf->accel, "kvm") == 0) {
        cli_find(ret, CLI_CHECK_FAIL, remedy, "%s, and the configuration asks for kvm", node);
    } else {
        cli_find(ret, CLI_CHECK_WARN, remedy,
                 "%s: software emulation (tcg), which is several times slower", node);
    }
}

void cli_check_vsock(const struct cli_check_env *env, struct cli_finding *ret)
{
    static const char remedy[] = "modprobe vhost_vsock";
    int problem = try_open(env, "/dev/vhost-vsock");
    const char *node =
        problem == ENOENT ? "no /dev/vhost-vsock" : "/dev/vhost-vsock cannot be opened";
    if (strcmp(env->conf->transport, "virtio-serial") == 0)
        cli_find(ret, CLI_CHECK_OK, NULL, "virtio-serial is what the configuration asks for");
    else if (problem == 0)
        cli_find(ret, CLI_CHECK_OK, NULL, "/dev/vhost-vsock can be opened: vsock");
    else if (strcmp(env->conf->transport, "vsock") == 0)
        cli_find(ret, CLI_CHECK_FAIL, remedy, "%s, and the configuration asks for vsock", node);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s: virtio-serial, which does the same", node);
}

void cli_check_tun(const struct cli_check_env *env, struct cli_finding *ret)
{
    int problem = try_open(env, "/dev/net/tun");
    if (problem == 0)
        cli_find(ret, CLI_CHECK_OK, NULL, "/dev/net/tun can be opened; packets are moved by %s",
                 try_open(env, "/dev/vhost-net") == 0
                     ? "the host's kernel (vhost-net), unless the configuration says no"
                     : "QEMU, there being no vhost-net");
    else
        cli_find(ret, CLI_CHECK_WARN, "modprobe tun (pods without a network run all the same)",
                 "/dev/net/tun: %s: pods get no network", strerror(problem));
}

/* Whether a name is one of a network configuration, as the daemon takes them. */
static bool is_network(const char *name)
{
    const char *dot = strrchr(name, '.');
    return *name != '.' && dot != NULL &&
           (strcmp(dot, ".conf") == 0 || strcmp(dot, ".conflist") == 0 ||
            strcmp(dot, ".json") == 0);
}

static bool has_network(const struct cli_check_env *env)
{
    cleanup_free char *path = cli_check_path(env, env->conf->conf_dir);
    DIR *dir = path == NULL ? NULL : opendir(path);
    const struct dirent *entry;
    bool found = false;
    while (dir != NULL && !found && (entry = readdir(dir)) != NULL)
        found = is_network(entry->d_name);
    if (dir != NULL)
        (void)closedir(dir);
    return found;
}

static bool has_plugins(const struct cli_check_env *env)
{
    cleanup_free char *dirs = strdup(env->conf->bin_dirs);
    char *rest = NULL;
    bool found = false;
    for (char *part = dirs == NULL ? NULL : strtok_r(dirs, ":", &rest); part != NULL && !found;
         part = strtok_r(NULL, ":", &rest)) {
        cleanup_free char *path = cli_check_path(env, part);
        found = path != NULL && access(path, X_OK) == 0;
    }
    return found;
}

void cli_check_cni(const struct cli_check_env *env, struct cli_finding *ret)
{
    const struct cli_conf *c = env->conf;
    bool alone = strcmp(c->loopback_only, "no") != 0 && strcmp(c->loopback_only, "false") != 0 &&
                 strcmp(c->loopback_only, "off") != 0 && strcmp(c->loopback_only, "0") != 0;
    if (!has_network(env) && alone)
        cli_find(ret, CLI_CHECK_OK, NULL,
                 "no configuration in '%s': pods have loopback only, as configured", c->conf_dir);
    else if (!has_network(env))
        cli_find(ret, CLI_CHECK_WARN,
                 "put the cluster's CNI configuration there, or set [network] loopback_only = yes",
                 "no configuration in '%s': the node is not ready for pods", c->conf_dir);
    else if (!has_plugins(env))
        cli_find(ret, CLI_CHECK_WARN, "install the plugins (Debian: containernetworking-plugins)",
                 "none of the plugins' folders is there: %s", c->bin_dirs);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "configured in '%s'", c->conf_dir);
}

void cli_check_cgroups(const struct cli_check_env *env, struct cli_finding *ret)
{
    cleanup_free char *v2 = cli_check_path(env, "/sys/fs/cgroup/cgroup.controllers");
    cleanup_free char *hybrid = cli_check_path(env, "/sys/fs/cgroup/unified");
    cleanup_free char *v1 = cli_check_path(env, "/sys/fs/cgroup/memory");
    if (v2 != NULL && access(v2, F_OK) == 0)
        cli_find(ret, CLI_CHECK_OK, NULL, "version 2");
    else if (v1 != NULL && access(v1, F_OK) == 0)
        cli_find(ret, CLI_CHECK_OK, NULL, "version 1%s (containers get version 2 in their guest)",
                 hybrid != NULL && access(hybrid, F_OK) == 0 ? ", hybrid" : "");
    else
        cli_find(ret, CLI_CHECK_WARN, "mount cgroup2 on /sys/fs/cgroup",
                 "none mounted: the kubelet's limits cannot be put on the machines");
}

void cli_check_memory(const struct cli_check_env *env, struct cli_finding *ret)
{
    cleanup_free char *meminfo = read_host_file(env, "/proc/meminfo");
    uint64_t kib = 0;
    if (meminfo == NULL || !find_number(meminfo, "MemAvailable", 10, &kib)) {
        cli_find(ret, CLI_CHECK_WARN, "mount /proc", "/proc/meminfo cannot be read");
        return;
    }
    char size[CLI_QUANTITY_SIZE];
    cli_format_bytes(kib << 10, size);
    if (kib < (192u << 10))
        cli_find(ret, CLI_CHECK_FAIL, "a machine needs about 256 MiB: end something, or add memory",
                 "%s available", size);
    else if (kib < (512u << 10))
        cli_find(ret, CLI_CHECK_WARN, "a machine needs about 256 MiB", "%s available", size);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s available", size);
}
