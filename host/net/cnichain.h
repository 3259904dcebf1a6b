/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running a chain of CNI plugins (spec 1.1, "Execution of Network Configurations"): each plugin is
 * a short-lived child in a process group of its own, gets its configuration on stdin and answers on
 * stdout. Only this file knows how a plugin is called. Nothing is shared; any number of chains may
 * run at the same time. Blocks until the deadline at most; a plugin that is still running then, or
 * for longer than timeout_ms, or that writes more than CNIRESULT_MAX_BYTES, is killed with its
 * group.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/net/cniconf.h"
#include "host/net/cniresult.h"

struct cnichain_env {
    const char *const *bin_dirs; /* searched in order */
    size_t n_bin_dirs;
    int64_t timeout_ms; /* of one run of one plugin */
};

/* One attachment: what all plugins of the chain are told. */
struct cnichain_call {
    const struct cniconf *conf;
    const char *container_id;
    const char *netns; /* path; "" when the namespace is gone (DEL) */
    const char *ifname;
    const char *args;           /* CNI_ARGS */
    const json_t *capabilities; /* object: capability to its argument; NULL: none */
    json_t *result;             /* what ADD returned; NULL: not known. Not changed */
};

/*
 * ADD: every plugin in order, each given the answer of the one before. *ret_doc (a reference) is
 * the last answer, *ret_result what is in it. A failure has the plugin's own words; what was done
 * stays for cnichain_del.
 */
int cnichain_add(const struct cnichain_env *env, const struct cnichain_call *call,
                 int64_t deadline_ms, struct cniresult *ret_result, json_t **ret_doc,
                 struct err *err);

/* DEL: every plugin in reverse order, also after one that failed, whose error it is then. */
int cnichain_del(const struct cnichain_env *env, const struct cnichain_call *call,
                 int64_t deadline_ms, struct err *err);

/* CHECK (0.4.0 and later; else, and with disableCheck, success). BAD_STATE with the plugin's words.
 */
int cnichain_check(const struct cnichain_env *env, const struct cnichain_call *call,
                   int64_t deadline_ms, struct err *err);

/* Whether every plugin's program is there, and what it says to STATUS (1.1). UNAVAILABLE if not. */
int cnichain_status(const struct cnichain_env *env, const struct cniconf *conf, int64_t deadline_ms,
                    struct err *err);

/* Whether GC is for this network: 1.1, without disableGC. */
bool cnichain_has_gc(const struct cniconf *conf);
/*
 * GC (1.1; else, and with disableGC, success): everything of the network that is not in
 * `attachments` ([{containerID, ifname}, …]) may be removed by the plugins.
 */
int cnichain_gc(const struct cnichain_env *env, const struct cniconf *conf, json_t *attachments,
                int64_t deadline_ms, struct err *err);
