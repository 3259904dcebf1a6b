/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sync(2) may hang on a disk that is no longer served, so a child does it and is waited for only so
 * long. Whatever is left unwritten then belongs to a disk that nobody could write.
 */
#include "agent/init/power.h"

#include <poll.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SYNC_TIMEOUT_MS 5000

void power_off(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        sync();
        _exit(0);
    }
    int fd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd end = {.fd = fd, .events = POLLIN};
    if (fd >= 0)
        (void)poll(&end, 1, SYNC_TIMEOUT_MS);
    for (;;)
        (void)reboot(RB_POWER_OFF);
}
