/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `casemate run` was asked for, and the CRI messages that say it to the daemon. Pure but for
 * the random name. The messages borrow the spec's strings.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/cli/cli.h"
#include "host/cli/follow.h"
#include "proto/cri/cri.pb-c.h"

#define CLI_RUN_LOG       "output.log"   /* the container's log, below log_dir */
#define CLI_RUN_LABEL     "casemate.run" /* on every pod of `casemate run`; its value is unique */
#define CLI_RUN_NAMESPACE "casemate"

struct cli_run_spec {
    const char *image;
    char *const *args;
    size_t n_args;
    const struct cli_list *env; /* NAME=VALUE or NAME */
    const char *entrypoint;
    const char *user; /* USER[:GID] */
    const char *workdir;
    const char *name; /* NULL: one is made up */
    const char *log_dir;
    uint64_t memory_mib; /* 0: no limit of its own */
    uint64_t timeout_s;  /* 0: none */
};

/* Whether it can be said to the daemon. INVALID, naming the option. */
int cli_run_spec_check(const struct cli_run_spec *spec, struct err *err);

struct cli_run_config;

/* The messages; spec must outlive them. */
int cli_run_config_new(const struct cli_run_spec *spec, struct cli_run_config **ret_config,
                       struct err *err);
/* NULL is fine. */
void cli_run_config_free(struct cli_run_config *config);

/* The pod, its container, and the filter that finds the pod again; owned by config. */
Runtime__V1__PodSandboxConfig *cli_run_pod_config(const struct cli_run_config *config);
Runtime__V1__ContainerConfig *cli_run_container_config(const struct cli_run_config *config);
Runtime__V1__PodSandboxFilter *cli_run_filter(const struct cli_run_config *config);

/* The exit code for a container that could not be started: 126, 127 or 125. */
int cli_run_start_failure(const struct err *err);
/* The exit code for a container that has exited; says why on standard error where the code does
 * not. */
int cli_run_exit_code(const struct cli_exit_status *status);
