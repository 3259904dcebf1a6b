/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What containers use, read from their cgroups and from the scratch disk's project quota. Numbers
 * go straight into the wire's messages. Files of cgroupfs do not wait. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

/* The pressure messages that a CgroupStats may point to. */
struct stats_pressures {
    Casemate__Agent__V1__Pressure cpu, memory, io;
};

/* Reads a cgroup. What the kernel does not tell stays 0, or NULL for pressure. */
void stats_read_cgroup(int cgroup_fd, Casemate__Agent__V1__CgroupStats *stats,
                       struct stats_pressures *pressures);

/*
 * Makes a new, empty directory and all that will be below it count as one project. Where the file
 * system has no project quota nothing happens, and nothing will be known.
 */
int stats_set_project(int dir_fd, uint32_t project, struct err *err);

/* What a project uses. Returns whether that is known. */
bool stats_read_project(const char *mount_point, uint32_t project, uint64_t *ret_bytes,
                        uint64_t *ret_inodes);

/* Parses one file of /proc/pressure's format into the message; false when it is not of that format.
 */
bool stats_parse_pressure(const char *text, Casemate__Agent__V1__Pressure *ret_pressure);
