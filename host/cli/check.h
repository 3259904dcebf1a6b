/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside `casemate check`: the configuration as far as checks need it, and the checks. A check
 * looks at one thing and says how it is in a line, and what to do if it is not well. Paths are
 * looked up below a root directory, so that tests can show the checks a host of their own making.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

/* What the daemon will use, as the configuration says it; all strings heap, none NULL but qemu. */
struct cli_conf {
    char *file;
    bool file_read; /* there was one */
    char *socket;
    char *state_dir;
    char *run_dir;
    char *kernel;
    char *initrd;
    char *qemu; /* NULL: the daemon looks for it */
    char *accel;
    char *transport;
    char *converter;
    char *conf_dir; /* of CNI */
    char *bin_dirs; /* of its plugins, separated by ':' */
    char *loopback_only;
};

/*
 * The defaults, and path and the files of its .d folder over them. Keys that no check needs are
 * passed over: the daemon is who complains about those. A missing file is an error only when
 * must_exist. Release with cli_conf_fini, also after a failure.
 */
int cli_conf_load(const char *path, bool must_exist, struct cli_conf *ret_conf, struct err *err);
/* Frees its texts and zeroes it. A zeroed one is fine. */
void cli_conf_fini(struct cli_conf *conf);
#define cleanup_cli_conf CLEANUP(cli_conf_fini)

enum cli_level {
    CLI_CHECK_OK,
    CLI_CHECK_WARN, /* works, with a loss that the text names */
    CLI_CHECK_FAIL, /* pods cannot run */
};

struct cli_finding {
    enum cli_level level;
    char text[512];
    char remedy[512]; /* "" when there is nothing to do */
};

/* What the daemon says of itself. */
struct cli_daemon_view {
    bool reachable;
    bool running; /* somebody answers, if only with an error */
    char error[1024];
    char version[64];
    char accelerator[32];
    char accelerator_reason[256];
    char transport[32];
    char problem[512];
    /* Templates of machines; max_bytes 0: no bound. */
    uint32_t templates, templates_refused;
    uint64_t template_bytes, template_max_bytes;
};

struct cli_check_env {
    const char *root; /* "" for the host itself, else a folder that stands for it */
    const struct cli_conf *conf;
    const struct cli_daemon_view *daemon;
};

struct cli_check {
    const char *name; /* one word */
    void (*fn)(const struct cli_check_env *env, struct cli_finding *ret);
};

/* All checks in the order in which they are shown. */
const struct cli_check *cli_checks(size_t *ret_n);

/* Fills a finding. remedy may be NULL. */
void cli_find(struct cli_finding *f, enum cli_level level, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* root + path, on the heap; NULL when out of memory. */
char *cli_check_path(const struct cli_check_env *env, const char *path);

/* ---- the checks: of the machine ---- */

/* FAIL unless root with the capabilities that the daemon needs; WARN for what only protects. */
void cli_check_privileges(const struct cli_check_env *env, struct cli_finding *ret);
/*
 * The daemon's verdict where there is one, else /dev/kvm. FAIL only if the configuration insists.
 */
void cli_check_kvm(const struct cli_check_env *env, struct cli_finding *ret);
/* /dev/vhost-vsock; without it virtio-serial does. FAIL only if the configuration insists. */
void cli_check_vsock(const struct cli_check_env *env, struct cli_finding *ret);
/* Without /dev/net/tun pods get no network: WARN. */
void cli_check_tun(const struct cli_check_env *env, struct cli_finding *ret);
/* A configuration in conf_dir and a folder of plugins; loopback alone if that is configured. */
void cli_check_cni(const struct cli_check_env *env, struct cli_finding *ret);
/* Which hierarchy there is; WARN when none is mounted. */
void cli_check_cgroups(const struct cli_check_env *env, struct cli_finding *ret);
/* What is available now: FAIL when not even one machine fits. */
void cli_check_memory(const struct cli_check_env *env, struct cli_finding *ret);

/* ---- the checks: of what is installed and where it works ---- */

/* Runs it for its version: FAIL when there is none or it is below 7.2, WARN above 10. */
void cli_check_qemu(const struct cli_check_env *env, struct cli_finding *ret);
/* Whether kernel and initrd can be read: FAIL. */
void cli_check_guest(const struct cli_check_env *env, struct cli_finding *ret);
/* Whether it can be executed: FAIL. */
void cli_check_converter(const struct cli_check_env *env, struct cli_finding *ret);
/* The program that makes scratch disks: FAIL without it. */
void cli_check_mke2fs(const struct cli_check_env *env, struct cli_finding *ret);
/* Whether it (or where it will be made) can be written to, and has room. */
void cli_check_state_dir(const struct cli_check_env *env, struct cli_finding *ret);
/* Whether disks are copied by sharing blocks (tried in state_dir). Never worse than OK. */
void cli_check_reflink(const struct cli_check_env *env, struct cli_finding *ret);
/* As state_dir; WARN when it is not in memory, where a reboot clears it. */
void cli_check_run_dir(const struct cli_check_env *env, struct cli_finding *ret);
/* What all of them occupy as the daemon says; WARN when one was refused for the bound on them. */
void cli_check_templates(const struct cli_check_env *env, struct cli_finding *ret);
/* FAIL when it runs and cannot start pods, WARN when it does not run or is of another version. */
void cli_check_daemon(const struct cli_check_env *env, struct cli_finding *ret);
