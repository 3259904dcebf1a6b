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

void cli_check_privileges(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_kvm(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_vsock(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_tun(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_cni(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_cgroups(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_memory(const struct cli_check_env *env, struct cli_finding *ret);

/* ---- the checks: of what is installed and where it works ---- */

void cli_check_qemu(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_guest(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_converter(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_mke2fs(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_state_dir(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_reflink(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_run_dir(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_templates(const struct cli_check_env *env, struct cli_finding *ret);
void cli_check_daemon(const struct cli_check_env *env, struct cli_finding *ret);
