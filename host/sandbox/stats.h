/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pods and containers use. Figures of containers and of a pod as a whole are the guest's, from
 * one call a VM; what the host sees of the VM is the host's own. Pods are asked all at once, and
 * one that does not answer in time is left out of a list (and logged). Snapshots are the caller's
 * to release. Blocks; any thread but the loop's. Times ns of the host's realtime clock, sizes
 * bytes.
 */
#pragma once

#include "host/guest/stats.h"
#include "host/sandbox/sandbox.h"

/* A rate over the time between two calls, at least a second. */
struct sandbox_rate {
    bool known;
    uint64_t nano_cores;
};

struct sandbox_container_stats {
    struct sandbox_container_info info;
    bool known; /* the guest has told the rest: not after the end of the VM */
    int64_t time_ns;
    struct guest_usage usage;
    struct sandbox_rate rate;
    bool has_layer;
    uint64_t layer_bytes;
    uint64_t layer_inodes;
};
/* Frees and zeroes it. A zeroed one is fine. */
void sandbox_container_stats_fini(struct sandbox_container_stats *stats);

struct sandbox_pod_stats {
    struct sandbox_info info;
    bool known;
    int64_t time_ns;
    struct guest_stats guest; /* as the guest said it; its list of containers is empty: see below */
    struct sandbox_rate rate;
    struct sandbox_container_stats *containers; /* running ones */
    size_t n_containers;
    bool vm_known;
    uint64_t vm_rss_bytes; /* host memory that QEMU has, pages shared with a template included */
    uint64_t vm_cpu_ns;
};
/* Frees and zeroes it, its containers too. A zeroed one is fine. */
void sandbox_pod_stats_fini(struct sandbox_pod_stats *stats);

struct sandbox_stats_list {
    struct sandbox_pod_stats *pods;
    size_t n;
};
/* Likewise, and its pods. */
void sandbox_stats_list_fini(struct sandbox_stats_list *list);

/* The READY pods and their running containers that the filters (NULL: all) let through. */
int sandbox_stats_list(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxFilter *pods,
                       const Runtime__V1__ContainerFilter *containers, int64_t deadline_ms,
                       struct sandbox_stats_list *ret_list, struct err *err);

/* One pod. NOT_FOUND; a pod without VM has nothing `known`. */
int sandbox_stats_pod(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                      struct sandbox_pod_stats *ret_stats, struct err *err);

/* One container, of any state. NOT_FOUND. */
int sandbox_stats_container(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                            struct sandbox_container_stats *ret_stats, struct err *err);
