/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor by which a clone's QEMU holds its memory's file, and the one system call on it
 * that is answered in QEMU's stead. For this room. Pure but for /proc; any thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include <linux/filter.h>

#define RAMFD_FILTER_SIZE 16

/* A descriptor of process pid, other than `inherited`, for the file behind memory_fd; -1: none. */
int ramfd_find(pid_t pid, int memory_fd, int inherited);
/* Whether descriptor fd of process pid is for that file. */
bool ramfd_is(pid_t pid, int fd, int memory_fd);

/*
 * A seccomp filter that says "done" to a hole that is to be punched through descriptor fd, and lets
 * everything else through. Returns its length, 0 where this processor's calls are not known here.
 */
unsigned short ramfd_filter(int fd, struct sock_filter ret_filter[RAMFD_FILTER_SIZE]);
