/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Follows one container: its output into its log, acknowledged to the agent when it is there, and
 * its exit. When the exit is known and all output is in the log (or has not come for a bounded
 * time) it says so, once. A failing disk holds output back and is tried again. Lives on the loop's
 * thread; only logpump_new may be called elsewhere, before logpump_begin.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/guest/guest.h"
#include "host/sandbox/logfile.h"

struct loop;
struct logpump;

struct logpump_config {
    struct loop *loop;
    struct guest *guest;               /* a reference is taken */
    const char *container_id;          /* copied */
    const char *pod_id;                /* copied, for the log */
    bool tty;                          /* stdout only */
    struct logfile *file;              /* taken; NULL: output is drained and dropped */
    uint64_t offsets[LOGFILE_STREAMS]; /* where to go on reading */
    /* The end; exit NULL when the agent was lost (err says how). Not after logpump_free. */
    void (*on_exit)(void *arg, const struct guest_exit *exit, const struct err *err);
    void *arg;
};

/* A pump that does nothing yet. On failure config->file is freed too. */
int logpump_new(const struct logpump_config *config, struct logpump **ret_pump, struct err *err);
/* Starts reading and waiting. */
int logpump_begin(struct logpump *pump, struct err *err);
/* Whether all output is in the log: nothing is missed when the pump is freed. */
bool logpump_drained(const struct logpump *pump);
/* Goes on in a new file of the same name. */
int logpump_reopen(struct logpump *pump, struct err *err);
/* Stops. flush: an unfinished line is written as it is, for a guest that will not come back. */
void logpump_free(struct logpump *pump, bool flush);
