/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may be asked of the agent: every request is checked here, whole, before anything is done, so
 * that the code behind can rely on ids being file names, counts being small, paths being absolute
 * and names being known. Pure functions over decoded messages; failures are INVALID and name the
 * field.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "proto/agent/agent.pb-c.h"

#define VALIDATE_MAX_ID 128u
/* Arguments, environment: each. The kubelet tells of a service in seven variables. */
#define VALIDATE_MAX_STRINGS 65536u
#define VALIDATE_MAX_PATHS   256u /* masked, read-only: each */
#define VALIDATE_MAX_CGROUP  128u
#define VALIDATE_MAX_SYSCTLS 256u
#define VALIDATE_MAX_DEVICES 64u
#define VALIDATE_MAX_VOLUMES 128u
#define VALIDATE_MAX_LUN     16383u /* SAM-5 flat space */

/* An id: [A-Za-z0-9_.-]{1,128}, not beginning with a dot. */
bool validate_id(const char *id);

/* The process of CreateContainer and Exec. */
int validate_process(const Casemate__Agent__V1__Process *process, struct err *err);

/* A disk of ConfigurePod or of a root file system. */
int validate_disk(const Casemate__Agent__V1__Disk *disk, struct err *err);

/* Names and values of kernel settings. */
int validate_sysctls(Casemate__Agent__V1__Sysctl *const *list, size_t n, struct err *err);

/* Whole requests. */
int validate_prepare(const Casemate__Agent__V1__PreparePodRequest *r, struct err *err);
/*
 * Everything but whether the disk is there: pod id, hostname, clock, entropy (a bounded number of
 * bytes, and not too few), scratch disk, network, user namespace, sysctls.
 */
int validate_configure(const Casemate__Agent__V1__ConfigurePodRequest *request, struct err *err);
/*
 * Id, process, root file system, cgroup settings, paths, volumes, devices and namespaces; whether a
 * container that it names exists is not looked at.
 */
int validate_create(const Casemate__Agent__V1__CreateContainerRequest *request, struct err *err);
/* Ids, of which exec_id must not be "", and the process. For Exec and Run. */
int validate_exec(const Casemate__Agent__V1__ExecRequest *request, struct err *err);

/* cgroup settings; NULL is none. */
int validate_resources(const Casemate__Agent__V1__Resources *resources, struct err *err);

/* A terminal's size. */
int validate_window(uint32_t width, uint32_t height, struct err *err);

/* A reference to a process: exec_id may be "". */
int validate_ids(const char *container_id, const char *exec_id, struct err *err);
