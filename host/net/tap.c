/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap is made in the namespace of the thread that opened /dev/net/tun. The header before each
 * frame (IFF_VNET_HDR) carries what the guest's and the host's kernel leave to each other: unsummed
 * checksums and segments of up to 64 KiB; QEMU asks for each of them as the guest agrees.
 */
#include "host/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/base/cleanup.h"
#include "host/net/netns.h"

struct opening {
    const char *name;
    int fd;
};

static int open_here(void *arg, struct err *err)
{
    struct opening *o = arg;
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_set_errno(err, errno, "/dev/net/tun");
    memcpy(request.ifr_name, o->name, strlen(o->name) + 1);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        /* Another kind of interface has the name: the kernel says EINVAL. */
        return err_set_errno(err, errno == EINVAL || errno == EBUSY ? EEXIST : errno, "tap '%s'",
                             o->name);
    o->fd = steal_fd(&fd);
    return 0;
}

int tap_open(int netns_fd, const char *name, int *ret_fd, struct err *err)
{
    struct opening o = {.name = name, .fd = -1};

    if (name[0] == '\0' || strlen(name) >= IFNAMSIZ)
        return err_set(err, ERR_INVALID, "'%.64s' does not do as an interface's name", name);
    if (netns_run(netns_fd, open_here, &o, err) != 0)
        return -1;
    *ret_fd = o.fd;
    return 0;
}
