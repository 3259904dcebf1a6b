/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of what has to be installed, of the folders that the daemon works in, and of the daemon
 * itself. A folder that does not exist yet is judged by the nearest one above it that does, because
 * the daemon makes it there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/spawn.h"
#include "common/base/text.h"
#include "host/cli/check.h"
#include "host/cli/text.h"

enum { QEMU_TIMEOUT_MS = 20000, MAX_VERSION_TEXT = 4096 };
#define MIB (1ull << 20)

/* The first of the usual folders that holds a program; heap, below the root; NULL: none. */
static char *find_program(const struct cli_check_env *env, const char *name)
{
    static const char *const folders[] = {"/usr/local/bin", "/usr/bin",        "/bin",
                                          "/usr/sbin",      "/usr/local/sbin", "/sbin"};
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        cleanup_free char *path = text_printf("%s%s/%s", env->root, folders[i], name);
        if (path != NULL && access(path, X_OK) == 0)
            return steal_ptr(&path);
    }
    return NULL;
}

/* The first line that `program --version` prints; heap; NULL: it cannot be run. */
static char *version_line(const char *program)
{
    const char *argv[] = {program, "--version", NULL};
    struct spawn_spec spec = {.path = program, .argv = argv};
    struct spawn_output output = {0};
    struct err quiet = {0};
    if (spawn_run(&spec, NULL, MAX_VERSION_TEXT, clock_deadline(QEMU_TIMEOUT_MS), &output, &quiet) <
        0)
        return NULL;
    free(output.err_text);
    if (output.status != 0) {
        free(output.out);
        return NULL;
    }
    output.out[strcspn(output.out, "\n")] = '\0';
    return output.out;
}

void cli_check_qemu(const struct cli_check_env *env, struct cli_finding *ret)
{
    static const char remedy[] = "apt-get install qemu-system-x86, or set [vmm] qemu";
    cleanup_free char *path = NULL;
    if (env->conf->qemu != NULL)
        path = cli_check_path(env, env->conf->qemu);
    else
        path = find_program(env, "qemu-system-x86_64");
    if (path == NULL || access(path, X_OK) < 0) {
        cli_find(ret, CLI_CHECK_FAIL, remedy, "no %s",
                 env->conf->qemu != NULL ? env->conf->qemu : "qemu-system-x86_64");
        return;
    }
    cleanup_free char *line = version_line(path);
    const char *text = line == NULL ? NULL : strstr(line, "version ");
    unsigned major = 0, minor = 0;
    if (text == NULL || sscanf(text, "version %u.%u", &major, &minor) != 2) {
        cli_find(ret, CLI_CHECK_FAIL, remedy, "%s does not tell its version", path);
        return;
    }
    if (major < 7 || (major == 7 && minor < 2))
        cli_find(ret, CLI_CHECK_FAIL, "install QEMU 7.2 or newer", "%s is %u.%u, older than 7.2",
                 path, major, minor);
    else if (major > 10)
        cli_find(ret, CLI_CHECK_WARN, "QEMU 7.2 to 10 are what casemate is tested with",
                 "%s is %u.%u, newer than 10", path, major, minor);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s, version %u.%u", path, major, minor);
}

/* A file that has to be there and hold something. */
static bool readable_file(const struct cli_check_env *env, const char *path)
{
    cleanup_free char *full = cli_check_path(env, path);
    struct stat st;
    return full != NULL && stat(full, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
           access(full, R_OK) == 0;
}

void cli_check_guest(const struct cli_check_env *env, struct cli_finding *ret)
{
    const struct cli_conf *c = env->conf;
    const char *missing = !readable_file(env, c->kernel)   ? c->kernel
                          : !readable_file(env, c->initrd) ? c->initrd
                                                           : NULL;
    if (missing != NULL)
        cli_find(ret, CLI_CHECK_FAIL,
                 "'make guest' and 'make install', or set [guest] kernel and initrd",
                 "no guest: '%s' is missing or empty", missing);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s and %s", c->kernel, c->initrd);
}

void cli_check_converter(const struct cli_check_env *env, struct cli_finding *ret)
{
    cleanup_free char *path = cli_check_path(env, env->conf->converter);
    if (path == NULL || access(path, X_OK) < 0)
        cli_find(ret, CLI_CHECK_FAIL, "'make install', or set [image] converter",
                 "no %s: images cannot be pulled", env->conf->converter);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s", env->conf->converter);
}

void cli_check_mke2fs(const struct cli_check_env *env, struct cli_finding *ret)
{
    cleanup_free char *path = find_program(env, "mke2fs");
    if (path == NULL)
        cli_find(ret, CLI_CHECK_FAIL, "apt-get install e2fsprogs",
                 "no mke2fs: writable disks cannot be made");
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s", path);
}

/* The folder itself or the nearest one above that exists; heap; NULL: none below the root. */
static char *existing_folder(const struct cli_check_env *env, const char *path)
{
    char *full = cli_check_path(env, path);
    struct stat st;
    while (full != NULL && (stat(full, &st) < 0 || !S_ISDIR(st.st_mode))) {
        char *slash = strrchr(full, '/');
        if (slash == NULL || slash == full) {
            free(full);
            return strdup("/");
        }
        *slash = '\0';
    }
    return full;
}

/* The file system under a folder, or what will be one. */
static bool stat_folder(const struct cli_check_env *env, const char *path, struct statfs *ret)
{
    cleanup_free char *dir = existing_folder(env, path);
    return dir != NULL && statfs(dir, ret) == 0;
}

void cli_check_state_dir(const struct cli_check_env *env, struct cli_finding *ret)
{
    const char *dir = env->conf->state_dir;
    struct statfs fs;
    if (!stat_folder(env, dir, &fs)) {
        cli_find(ret, CLI_CHECK_FAIL, "set [casemated] state_dir", "%s cannot be looked at", dir);
        return;
    }
    uint64_t left = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    char size[CLI_QUANTITY_SIZE];
    cli_format_bytes(left, size);
    const char *kind = fs.f_type == TMPFS_MAGIC ? ", a tmpfs: lost at a reboot" : "";
    if (left < 256 * MIB)
        cli_find(ret, CLI_CHECK_FAIL, "free some space, or set [casemated] state_dir",
                 "%s: %s free, too little for images%s", dir, size, kind);
    else if (left < 4096 * MIB || *kind != '\0')
        cli_find(ret, CLI_CHECK_WARN,
                 "images and the pods' disks live there: give it a disk with some GiB",
                 "%s: %s free%s", dir, size, kind);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s: %s free", dir, size);
}

/* 1: two files can share blocks there, 0: not, -1: nothing can be written there. */
static int try_reflink(const char *dir)
{
    /* Nameless files: whatever happens, nothing is left. */
    cleanup_fd int from = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cleanup_fd int to = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    static const char block[4096] = {1};
    if (from < 0 || to < 0 || write(from, block, sizeof(block)) != (ssize_t)sizeof(block))
        return -1;
    return ioctl(to, FICLONE, from) == 0;
}

void cli_check_reflink(const struct cli_check_env *env, struct cli_finding *ret)
{
    cleanup_free char *dir = existing_folder(env, env->conf->state_dir);
    int r = dir == NULL ? -1 : try_reflink(dir);
    if (r == 1)
        cli_find(ret, CLI_CHECK_OK, NULL, "disks are copied by sharing blocks");
    else if (r == 0)
        cli_find(
            ret, CLI_CHECK_OK, NULL,
            "no shared blocks on this file system: disks are copied sparsely, a little slower");
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "not known: no file can be made in %s",
                 dir == NULL ? env->conf->state_dir : dir);
}

void cli_check_run_dir(const struct cli_check_env *env, struct cli_finding *ret)
{
    const char *dir = env->conf->run_dir;
    struct statfs fs;
    if (!stat_folder(env, dir, &fs)) {
        cli_find(ret, CLI_CHECK_FAIL, "set [casemated] run_dir", "%s cannot be looked at", dir);
        return;
    }
    uint64_t left = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    char size[CLI_QUANTITY_SIZE];
    cli_format_bytes(left, size);
    if (left < 16 * MIB)
        cli_find(ret, CLI_CHECK_FAIL, "free some space, or set [casemated] run_dir", "%s: %s free",
                 dir, size);
    else if (fs.f_type != TMPFS_MAGIC)
        cli_find(ret, CLI_CHECK_WARN, "put it on a tmpfs: what is in it must not outlive a reboot",
                 "%s: %s free, not a tmpfs", dir, size);
    else if (left < 64 * MIB)
        cli_find(ret, CLI_CHECK_WARN, "mount -o remount,size=… its tmpfs larger",
                 "%s: %s free on its tmpfs", dir, size);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%s: %s free on its tmpfs", dir, size);
}

void cli_check_templates(const struct cli_check_env *env, struct cli_finding *ret)
{
    const struct cli_daemon_view *d = env->daemon;
    char have[CLI_QUANTITY_SIZE], most[CLI_QUANTITY_SIZE];
    cli_format_bytes(d->template_bytes, have);
    cli_format_bytes(d->template_max_bytes, most);
    if (!d->reachable)
        cli_find(ret, CLI_CHECK_OK, NULL, "none without the daemon");
    else if (d->templates_refused > 0)
        cli_find(ret, CLI_CHECK_WARN,
                 "raise [vmm] templates_max_mib, or set template = no where it does not matter",
                 "%u occupy %s, and with %u more they would exceed %s: machines of those boot",
                 d->templates, have, d->templates_refused, most);
    else if (d->template_max_bytes == 0)
        cli_find(ret, CLI_CHECK_OK, NULL, "%u occupy %s, without a bound", d->templates, have);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "%u occupy %s of %s at most", d->templates, have, most);
}

void cli_check_daemon(const struct cli_check_env *env, struct cli_finding *ret)
{
    const struct cli_daemon_view *d = env->daemon;
    if (!d->reachable && d->running)
        cli_find(ret, CLI_CHECK_FAIL, "look at its log: journalctl -u casemated",
                 "%s: somebody is there and does not answer: %s", env->conf->socket, d->error);
    else if (!d->reachable)
        cli_find(ret, CLI_CHECK_WARN, "systemctl start casemated", "not running: %s", d->error);
    else if (*d->problem != '\0')
        cli_find(ret, CLI_CHECK_FAIL, "look at its log: journalctl -u casemated",
                 "version %s cannot start pods: %s", d->version, d->problem);
    else if (strcmp(d->version, CASEMATE_VERSION) != 0)
        cli_find(ret, CLI_CHECK_WARN, "systemctl restart casemated (pods keep running)",
                 "version %s runs, and this command is %s", d->version, CASEMATE_VERSION);
    else
        cli_find(ret, CLI_CHECK_OK, NULL, "version %s, %s, %s", d->version, d->accelerator,
                 d->transport);
}
