/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a container: its log as it grows, until the container has exited and everything that it
 * wrote has been handed on. Survives restarts of the daemon. Times in milliseconds.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/cli/conn.h"
#include "host/cli/output.h"

struct cli_follow {
    struct cli_conn *conn;
    const char *container_id;
    const char *log_path;
    struct cli_output *output;
    uint64_t rotate_bytes; /* a log that has grown beyond is begun anew; 0: never (not our log) */
    int64_t daemon_timeout_ms; /* how long the daemon may be away */
    void (*on_poll)(
        void *arg); /* each time the container was seen not to have exited; may be NULL */
    void *arg;
};

/* How it ended. */
struct cli_exit_status {
    int exit_code;
    char reason[64];
    char message[512];
};

/*
 * Until the end, or until nobody reads standard output any more and on_poll is NULL. NOT_FOUND when
 * the container was removed meanwhile.
 */
int cli_follow(const struct cli_follow *spec, struct cli_exit_status *ret_status, struct err *err);
