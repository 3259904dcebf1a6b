/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest says its containers use: one call of the agent for all of them, asked and answered
 * in two steps so that many guests can be asked at once. Only this file knows the agent's messages
 * of it; what a guest may not say (ids nobody asked for, shares above the whole) is PROTOCOL. Plain
 * values, freed by the caller. Any thread but the loop's. Sizes bytes, times ns of the guest's
 * realtime clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define GUEST_MAX_STATS      1024 /* containers in one reply */
#define GUEST_MAX_INTERFACES 64

struct guest;

/* Pressure stall information: shares of time in hundredths of a percent, totals in microseconds. */
struct guest_stall {
    uint32_t avg10, avg60, avg300;
    uint64_t total_us;
};
struct guest_pressure {
    bool known;
    struct guest_stall some, full;
};

struct guest_usage {
    uint64_t cpu_ns;
    uint64_t memory_bytes;
    uint64_t working_set_bytes; /* memory less file pages that nobody has used lately */
    uint64_t rss_bytes;         /* anonymous */
    uint64_t page_faults;
    uint64_t major_page_faults;
    uint64_t memory_limit_bytes; /* 0: none */
    uint64_t swap_bytes;
    uint64_t swap_limit_bytes; /* 0: none */
    uint64_t processes;
    uint64_t oom_kills;
    struct guest_pressure cpu, memory, io;
};

struct guest_container_stats {
    char container_id[65];
    int64_t time_ns;
    struct guest_usage usage;
    bool has_layer; /* the two below are known */
    uint64_t layer_bytes;
    uint64_t layer_inodes;
};

struct guest_interface_stats {
    char name[16];
    uint64_t rx_bytes, rx_errors, tx_bytes, tx_errors;
};

struct guest_stats {
    int64_t time_ns;
    struct guest_usage pod; /* all containers together */
    uint64_t vm_memory_bytes;
    uint64_t vm_memory_available_bytes;
    uint64_t scratch_bytes, scratch_used_bytes;
    uint64_t scratch_inodes, scratch_used_inodes;
    struct guest_container_stats *containers; /* heap */
    size_t n_containers;
    struct guest_interface_stats *interfaces; /* heap */
    size_t n_interfaces;
};
/* Releases what is on the heap; a zeroed one is fine. */
void guest_stats_fini(struct guest_stats *stats);

struct guest_stats_call;

/* Asks for all containers; guest_stats_end must follow. UNSUPPORTED from an older agent. */
int guest_stats_begin(struct guest *guest, int64_t deadline_ms, struct guest_stats_call **ret_call,
                      struct err *err);
/* Waits for the answer (until the deadline at the latest), and frees the call in any case. */
int guest_stats_end(struct guest_stats_call *call, struct guest_stats *ret_stats, struct err *err);
