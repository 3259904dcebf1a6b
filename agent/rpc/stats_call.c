/* SPDX-License-Identifier: Apache-2.0 */
/* Everything is read at once into messages in the call's memory: one call shows one moment. */
#include "agent/rpc/stats_call.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/rpc/server.h"
#include "agent/container/container.h"
#include "agent/mount/rootfs.h"
#include "agent/net/netstats.h"
#include "proto/agent/agent.pb-c.h"

struct collection {
    struct rpc_call *call;
    struct containers *containers;
    Casemate__Agent__V1__ContainerStats **list;
    size_t n;
    size_t capacity;
    struct err err; /* of the first that failed for want of memory */
    bool failed;
};

static void collect(struct collection *c, const char *container_id)
{
    struct err ignored;
    if (c->failed || c->n == c->capacity)
        return;
    struct container_stats *stats = rpc_call_alloc(c->call, sizeof(*stats));
    if (stats == NULL) {
        c->failed = true;
        (void)err_no_memory(&c->err);
        return;
    }
    if (container_read_stats(c->containers, container_id, stats, &ignored) == 0)
        c->list[c->n++] = &stats->message;
}

static void collect_each(void *arg, const char *container_id, const char *exec_id,
                         struct process *process)
{
    (void)process;
    if (exec_id[0] == '\0')
        collect(arg, container_id);
}

/* A figure of /proc/meminfo in bytes. */
static uint64_t meminfo(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10) * 1024;
}

static void fill_vm(Casemate__Agent__V1__StatsReply *reply)
{
    cleanup_free char *text = NULL;
    struct statvfs fs;
    struct err err;
    if (fd_read_file(AT_FDCWD, "/proc/meminfo", 16384, &text, NULL, &err) == 0) {
        reply->vm_memory_bytes = meminfo(text, "MemTotal:");
        reply->vm_memory_available_bytes = meminfo(text, "MemAvailable:");
    }
    if (statvfs(ROOTFS_SCRATCH_DIR, &fs) == 0) {
        reply->scratch_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
        reply->scratch_used_bytes = (uint64_t)(fs.f_blocks - fs.f_bfree) * fs.f_frsize;
        reply->scratch_inodes = fs.f_files;
        reply->scratch_used_inodes = fs.f_files - fs.f_ffree;
    }
}

struct interfaces {
    struct netstats stats[NETSTATS_MAX];
    Casemate__Agent__V1__NetInterfaceStats *list[NETSTATS_MAX];
};

static void fill_interfaces(Casemate__Agent__V1__StatsReply *reply, struct interfaces *interfaces)
{
    struct err err;
    size_t n;
    if (netstats_read(interfaces->stats, &n, &err) < 0) {
        log_event(LOG_WARN, NULL, &err, "no figures of network interfaces");
        return;
    }
    for (size_t i = 0; i < n; i++)
        interfaces->list[i] = &interfaces->stats[i].message;
    reply->interfaces = interfaces->list;
    reply->n_interfaces = n;
}

void stats_call_answer(struct rpc_call *call, struct containers *containers)
{
    const Casemate__Agent__V1__StatsRequest *r = (const void *)rpc_call_request(call);
    struct collection c = {.call = call, .containers = containers};
    Casemate__Agent__V1__StatsReply reply = CASEMATE__AGENT__V1__STATS_REPLY__INIT;
    Casemate__Agent__V1__CgroupStats pod;
    struct stats_pressures pressures;
    if (r->n_container_ids > CONTAINERS_MAX) {
        rpc_call_finish(call, RPC_INVALID_ARGUMENT, "container_ids: too many");
        return;
    }
    c.capacity = r->n_container_ids > 0 ? r->n_container_ids : containers_count(containers);
    c.list = rpc_call_alloc(call, (c.capacity + 1) * sizeof(reply.containers[0]));
    if (c.list == NULL) {
        c.failed = true;
        (void)err_no_memory(&c.err);
    }
    for (size_t i = 0; i < r->n_container_ids; i++)
        collect(&c, r->container_ids[i]);
    if (r->n_container_ids == 0)
        containers_each(containers, collect_each, &c);
    if (c.failed) {
        rpc_call_fail(call, &c.err);
        return;
    }
    containers_read_stats(containers, &pod, &pressures);
    fill_vm(&reply);
    struct interfaces *interfaces = rpc_call_alloc(call, sizeof(*interfaces));
    if (interfaces != NULL)
        fill_interfaces(&reply, interfaces);
    reply.containers = c.list;
    reply.n_containers = c.n;
    reply.pod = &pod;
    reply.time_ns = clock_realtime_ns();
    rpc_call_reply(call, &reply.base);
}
