/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between guest.c, which has the connection and the checks that several calls share, and
 * the files of single calls. Not for use outside this room. Thread-safe.
 */
#pragma once

#include "common/rpc/client.h"
#include "host/guest/guest.h"

/* Largest piece of output that an agent may put into one message. */
#define GUEST_MAX_CHUNK (4u << 20)

/* Optional parts of the protocol: PROTOCOL.md, "Versions". */
enum guest_feature {
    GUEST_DEVICES,
    GUEST_SECCOMP,
    GUEST_OOM_SCORE,
    GUEST_STRICT_GROUPS,
    GUEST_RUN,
    GUEST_NETWORK,
    GUEST_STATS,
    GUEST_UPDATE_RESOURCES,
    GUEST_PREPARE,
    GUEST_CGROUP_CHECKS,
    GUEST_USERNS,
    GUEST_REHEARSE,
    GUEST_SAME_CAPABILITIES,
    GUEST_IMAGE_VOLUMES,
};
/* UNSUPPORTED when the agent has not the part: it skips fields that it does not know. */
int guest_need_feature(const struct guest *guest, enum guest_feature feature, struct err *err);

/* An exec as this agent gets it. Points into the request that it was made of, and into itself. */
struct guest_exec {
    Casemate__Agent__V1__ExecRequest request;
    Casemate__Agent__V1__Process process;
};
/* Makes it. UNSUPPORTED when the agent has not what the process asks for. */
int guest_prepare_exec(const struct guest *guest, const Casemate__Agent__V1__ExecRequest *request,
                       struct guest_exec *ret_exec, struct err *err);

/* Where a method of the agent's service is called; method (static) is not copied. */
struct rpc_target guest_target(const char *method);
/* Lives as long as the guest. Calls of it fail with UNAVAILABLE after guest_close. */
struct rpc_client *guest_client(const struct guest *guest);

/* Checks an agent's exit status, which may be NULL: PROTOCOL. */
int guest_take_exit(const Casemate__Agent__V1__ExitStatus *status, struct guest_exit *ret_exit,
                    struct err *err);
