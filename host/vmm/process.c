/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard error. QEMU must be able to say why it refuses, must outlive the daemon, and may be in a
 * guest's hands. A pipe blocks or breaks when nobody reads, and a log file can be filled. So it
 * gets a memfd whose size is fixed in advance and sealed: writes beyond it fail, what was written
 * stays readable to this daemon and, through /proc/PID/fd/2, to the next one. The price is that the
 * first 16 KiB are kept and not the last, and QEMU says little.
 */
#include "host/vmm/process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"

#define CMDLINE_MAX  (256 * 1024)
#define KILL_WAIT_MS 10000

int process_boot_id(char ret_id[PROCESS_BOOT_ID_SIZE], struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len;

    if (fd_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, &len, err) < 0)
        return -1;
    if (len < PROCESS_BOOT_ID_SIZE - 1)
        return err_set(err, ERR_SYSTEM, "the host's boot id is too short");
    memcpy(ret_id, text, PROCESS_BOOT_ID_SIZE - 1);
    ret_id[PROCESS_BOOT_ID_SIZE - 1] = '\0';
    return 0;
}

/* "PID (comm) S ppid ... starttime": comm may hold anything, so what follows is found from the end.
 */
static int parse_stat(const char *text, char *ret_state, uint64_t *ret_ticks)
{
    const char *p = strrchr(text, ')');
    unsigned long long ticks;

    if (p == NULL || p[1] != ' ' || p[2] == '\0')
        return -1;
    *ret_state = p[2];
    p += 2;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (p == NULL)
            return -1;
        p++;
    }
    char *end;
    ticks = strtoull(p, &end, 10);
    if (end == p)
        return -1;
    *ret_ticks = ticks;
    return 0;
}

int process_start_ticks(pid_t pid, uint64_t *ret_ticks, struct err *err)
{
    cleanup_free char *text = NULL;
    char path[64], state;
    uint64_t ticks;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (fd_read_file(AT_FDCWD, path, 4096, &text, NULL, err) < 0)
        return err_set(err, ERR_NOT_FOUND, "there is no process %d", (int)pid);
    if (parse_stat(text, &state, &ticks) < 0)
        return err_set(err, ERR_SYSTEM, "%s is not understood", path);
    if (state == 'Z' || state == 'X')
        return err_set(err, ERR_NOT_FOUND, "process %d has ended", (int)pid);
    *ret_ticks = ticks;
    return 0;
}

int process_open(pid_t pid, uint64_t start_ticks, int *ret_pidfd, struct err *err)
{
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    uint64_t ticks;

    if (pidfd < 0 && errno == ESRCH)
        return err_set(err, ERR_NOT_FOUND, "there is no process %d", (int)pid);
    if (pidfd < 0)
        return err_set_errno(err, errno, "pidfd_open %d", (int)pid);
    /* Looked up after the pidfd was opened: if the start fits, the pidfd is of that very process.
     */
    if (process_start_ticks(pid, &ticks, err) < 0)
        return -1;
    if (ticks != start_ticks)
        return err_set(err, ERR_NOT_FOUND, "process %d is another one by now", (int)pid);
    *ret_pidfd = steal_fd(&pidfd);
    return 0;
}

void process_kill(int pidfd)
{
    (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

int process_wait(int pidfd, int64_t deadline_ms, struct err *err)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    for (;;) {
        int n = poll(&p, 1, clock_poll_timeout(deadline_ms));
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "poll");
        if (clock_monotonic_ms() >= deadline_ms)
            return err_set(err, ERR_DEADLINE, "the process has not ended in time");
    }
}

static bool has_args(pid_t pid, const char *a, const char *b)
{
    cleanup_free char *text = NULL;
    char path[64];
    size_t len;

    (void)snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    if (fd_read_file(AT_FDCWD, path, CMDLINE_MAX, &text, &len, NULL) < 0)
        return false;
    for (const char *p = text; p < text + len;) {
        const char *next = p + strlen(p) + 1;
        if (strcmp(p, a) == 0 && next < text + len && strcmp(next, b) == 0)
            return true;
        p = next;
    }
    return false;
}

static int kill_one(pid_t pid, const char *a, const char *b, unsigned int *n, struct err *err)
{
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    /* Asked again now that the pidfd pins the process: the pid may have changed hands since. */
    if (pidfd < 0 || !has_args(pid, a, b))
        return 0;
    process_kill(pidfd);
    (*n)++;
    return process_wait(pidfd, clock_deadline(KILL_WAIT_MS), err);
}

int process_kill_by_args(const char *a, const char *b, unsigned int *ret_n, struct err *err)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    unsigned int n = 0;
    int result = 0;

    if (proc == NULL)
        return err_set_errno(err, errno, "/proc");
    while (result == 0 && (entry = readdir(proc)) != NULL) {
        uint64_t pid;
        if (text_parse_u64(entry->d_name, INT32_MAX, &pid) == 0 && pid > 1 &&
            (pid_t)pid != getpid() && has_args((pid_t)pid, a, b))
            result = kill_one((pid_t)pid, a, b, &n, err);
    }
    (void)closedir(proc);
    if (result == 0)
        *ret_n = n;
    return result;
}

int process_stderr_new(int *ret_fd, struct err *err)
{
    cleanup_fd int fd = memfd_create("stderr", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return err_set_errno(err, errno, "memfd_create");
    if (ftruncate(fd, PROCESS_STDERR_BYTES) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return err_set_errno(err, errno, "standard error in memory");
    *ret_fd = steal_fd(&fd);
    return 0;
}

int process_stderr_open(pid_t pid, int *ret_fd, struct err *err)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/fd/2", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set_errno(err, errno, "%s", path);
    *ret_fd = fd;
    return 0;
}

void process_stderr_text(int fd, char *ret_text, size_t size)
{
    char raw[PROCESS_STDERR_BYTES];
    size_t n = 0, start, out = 0;

    ret_text[0] = '\0';
    ssize_t got = pread(fd, raw, sizeof(raw), 0);
    /* The file is as long as it may become; what was not written yet is NUL. */
    while (got > 0 && n < (size_t)got && raw[n] != '\0')
        n++;
    while (n > 0 && isspace((unsigned char)raw[n - 1]))
        n--;
    start = 0;
    while (n - start > (size - 1) / 2 && start < n) {
        const char *end = memchr(raw + start, '\n', n - start);
        if (end == NULL)
            break;
        start = (size_t)(end - raw) + 1;
    }
    for (size_t i = start; i < n && out + 3 < size; i++) {
        char c = raw[i];
        if (c == '\n') {
            ret_text[out++] = ';';
            ret_text[out++] = ' ';
        } else {
            ret_text[out++] = c >= 0x20 && c < 0x7f ? c : '?';
        }
    }
    ret_text[out] = '\0';
}
