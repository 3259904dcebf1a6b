/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU as a process of the host: identified so that a reused pid cannot be mistaken for it, killed
 * through a pidfd, and heard through a bounded standard error. Any thread. Descriptors returned are
 * the caller's and close-on-exec.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

#define PROCESS_BOOT_ID_SIZE 37    /* bytes, NUL included */
#define PROCESS_STDERR_BYTES 16384 /* of a process's standard error are kept; the first ones */

/* The host's boot id. */
int process_boot_id(char ret_id[PROCESS_BOOT_ID_SIZE], struct err *err);

/* When pid was started, in the kernel's ticks. NOT_FOUND when there is none, or only a zombie. */
int process_start_ticks(pid_t pid, uint64_t *ret_ticks, struct err *err);

/* A pidfd of the process with this pid and start; NOT_FOUND when it is gone. */
int process_open(pid_t pid, uint64_t start_ticks, int *ret_pidfd, struct err *err);

/* SIGKILL; a process that has ended is fine. */
void process_kill(int pidfd);

/* Waits until the process behind pidfd has ended (and, if it is a child, leaves it unreaped).
 * DEADLINE. */
int process_wait(int pidfd, int64_t deadline_ms, struct err *err);

/* Kills and waits for every process that has the two arguments a and b one after the other. *ret_n
 * counts them. */
int process_kill_by_args(const char *a, const char *b, unsigned int *ret_n, struct err *err);

/* A file in memory for a child's standard error that holds PROCESS_STDERR_BYTES and refuses to
 * grow. */
int process_stderr_new(int *ret_fd, struct err *err);

/* The same file of a running process. */
int process_stderr_open(pid_t pid, int *ret_fd, struct err *err);

/* The last whole lines in the file that fit, joined by "; ", control bytes and non-ASCII as '?'. ""
 * when empty. */
void process_stderr_text(int fd, char *ret_text, size_t size);
