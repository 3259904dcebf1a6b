/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The containers of the pod: made, run, joined by further processes, removed. Requests have passed
 * validate.h. What takes time goes on by itself: creation and start are seen by watching the
 * process, removal calls back. Ids are unique among what exists; an id is free again when its
 * removal has been called back. One per agent; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "agent/container/stats.h"
#include "proto/agent/agent.pb-c.h"

struct containers;
struct loop;
struct process;
struct podenv;
struct reaper;

#define CONTAINERS_MAX       512u
#define CONTAINERS_MAX_EXECS 256u /* per container */

struct containers_config {
    struct loop *loop;
    struct reaper *reaper;
    const struct podenv *pod; /* outlives them; may be NULL */
    int cgroup_base_fd;       /* see cgroup_make_base; stays the caller's */
};

/* No containers. */
int containers_new(const struct containers_config *config, struct containers **ret_containers,
                   struct err *err);

/* Forgets everything; what runs goes on. Calls back nothing. NULL is fine. */
void containers_free(struct containers *containers);

/* How many there are. */
size_t containers_count(const struct containers *containers);

/*
 * Begins to make a container. *ret_process (the container's reference: take one to keep it) is then
 * PREPARING; it is HELD when the container is made, or fails: remove the container then. EXISTS
 * when the id is taken.
 */
int container_create(struct containers *containers,
                     const Casemate__Agent__V1__CreateContainerRequest *request,
                     struct process **ret_process, struct err *err);

/*
 * Lets a container that was made exec: its process is STARTING, and RUNNING or failed later. One
 * that was started before stays as it is. BAD_STATE while it is still being made.
 */
int container_start(struct containers *containers, const char *container_id,
                    struct process **ret_process, struct err *err);

/* Begins one more process in a running container: *ret_process is STARTING. EXISTS when the exec id
 * is taken. outcome_only: see struct process_config. */
int container_exec(struct containers *containers, const Casemate__Agent__V1__ExecRequest *request,
                   bool outcome_only, struct process **ret_process, struct err *err);

/* A process by its ids; exec_id "" is the container's first. NOT_FOUND says which one there is not.
 */
int containers_find(struct containers *containers, const char *container_id, const char *exec_id,
                    struct process **ret_process, struct err *err);

/* Sends a signal to every process of the container. NOT_FOUND when there is no such container, or
 * no process in it. */
int container_signal_all(struct containers *containers, const char *container_id, int signo,
                         struct err *err);

/* Writes cgroup settings. NOT_FOUND when there is no such container. */
int container_update(struct containers *containers, const char *container_id,
                     const Casemate__Agent__V1__Resources *settings, struct err *err);

/*
 * Kills what is left of the container (exec_id ""), or of one exec, and forgets it; done(arg) is
 * called later when nothing of it is left. What does not exist is done at once, before this
 * returns.
 */
int container_remove(struct containers *containers, const char *container_id, const char *exec_id,
                     void (*done)(void *arg), void *arg, struct err *err);

/* Calls fn for each process: a container's first one with exec_id "", then its execs. */
void containers_each(struct containers *containers,
                     void (*fn)(void *arg, const char *container_id, const char *exec_id,
                                struct process *process),
                     void *arg);

/* The messages of one container's stats, which point at each other: not to be moved. */
struct container_stats {
    Casemate__Agent__V1__ContainerStats message;
    Casemate__Agent__V1__CgroupStats cgroup;
    struct stats_pressures pressures;
};

/* Reads what a container uses. The message's id is the container's own. NOT_FOUND when there is
 * none. */
int container_read_stats(struct containers *containers, const char *container_id,
                         struct container_stats *stats, struct err *err);

/* Reads what all of them use together. */
void containers_read_stats(struct containers *containers, Casemate__Agent__V1__CgroupStats *stats,
                           struct stats_pressures *pressures);

/* Kills every process of every container at once: the VM is going down. */
void containers_kill_all(struct containers *containers);
