/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent without a machine: a gRPC server on the other end of a socket pair that knows containers
 * by id, starts, ends and removes them, keeps their output, and misbehaves on demand. It runs on
 * the loop that it is given, whose thread is the caller's affair; what a test sets, it sets before
 * the call that it is for. For tests; failures abort.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

#define FAKE_AGENT_SIGNALS 8

struct loop;
struct fake_agent;

struct fake_agent_options {
    enum err_code start_fails; /* with `words` */
    enum err_code update_fails;
    unsigned refusals; /* with EXHAUSTED: so many updates and creations, before others succeed */
    const char *words;
    bool ignores_term;  /* a container does not end by SIGTERM */
    const char *output; /* what a container writes before it ends, and a command */
    int exit_code;      /* of commands, and of containers that end by themselves */
    bool ends_at_once;  /* a container ends right after its start */
    bool oom_killed;
    bool command_hangs;  /* Run does not answer until it is given up */
    bool two_exits;      /* of Run: something follows the exit */
    bool no_exit;        /* of Run: the stream ends without it */
    uint32_t pressure;   /* of Stats: an average, in hundredths of a percent */
    const char *foreign; /* of Stats: a container that nobody made */
    bool no_pod;         /* of Stats: no figures of the pod */
    unsigned made_up;    /* of List: so many containers that nobody made */
    bool never_removes;  /* Remove does not answer until it is given up */
};

struct fake_agent *fake_agent_new(struct loop *loop, const struct fake_agent_options *options);
/* The other end; the caller's, once. */
int fake_agent_fd(struct fake_agent *agent);
/* After the loop has stopped. */
void fake_agent_free(struct fake_agent *agent);

/* What it does from now on. */
void fake_agent_set(struct fake_agent *agent, const struct fake_agent_options *options);
/* Makes it have a container that waits for its start. */
void fake_agent_add(struct fake_agent *agent, const char *id);

/* What came. */
size_t fake_agent_signals(struct fake_agent *agent, unsigned ret_signals[FAKE_AGENT_SIGNALS]);
unsigned fake_agent_removed(struct fake_agent *agent);
/* Containers that were asked for, with success or without. */
unsigned fake_agent_created(struct fake_agent *agent);
/* "file=value file=value" of the last UpdateResources or CreateContainer. */
const char *fake_agent_settings(struct fake_agent *agent);
