/* SPDX-License-Identifier: Apache-2.0 */
/* The loopback gets its addresses from the kernel when it goes up: one ioctl is all it needs. */
#include "agent/net/interfaces.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"

int interface_up(const char *name, struct err *err)
{
    struct ifreq request = {.ifr_flags = 0};
    cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_set_errno(err, errno, "open a socket");
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return err_set_errno(err, errno, "interface %s", name);
    request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return err_set_errno(err, errno, "bring %s up", name);
    return 0;
}
