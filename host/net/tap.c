/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap is made in the namespace of the thread that opened /dev/net/tun. The header before each
 * frame (IFF_VNET_HDR) carries what the guest's and the host's kernel leave to each other: unsummed
 * checksums and segments of up to 64 KiB; QEMU asks for each of them as the guest agrees.
 *
 * A tap with several queues is one interface and a descriptor for each. QEMU sets those aside that
 * its guest does not use.
 */
#include "host/net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/base/cleanup.h"
#include "host/net/netns.h"

struct opening {
    const char *name;
    unsigned n;
    int *fds;
};

static int open_queue(const struct opening *o, int *ret_fd, struct err *err)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    cleanup_fd int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_set_errno(err, errno, "/dev/net/tun");
    if (o->n > 1)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    memcpy(request.ifr_name, o->name, strlen(o->name) + 1);
    if (ioctl(fd, TUNSETIFF, &request) < 0)
        /* Another kind of interface has the name: the kernel says EINVAL. */
        return err_set_errno(err, errno == EINVAL || errno == EBUSY ? EEXIST : errno, "tap '%s'",
                             o->name);
    *ret_fd = steal_fd(&fd);
    return 0;
}

static int open_here(void *arg, struct err *err)
{
    const struct opening *o = arg;

    /* A tap with several queues would take another one's as its own. */
    if (o->n > 1 && if_nametoindex(o->name) != 0)
        return err_set_errno(err, EEXIST, "tap '%s'", o->name);
    for (unsigned i = 0; i < o->n; i++) {
        if (open_queue(o, &o->fds[i], err) != 0) {
            while (i-- > 0)
                close_fd(&o->fds[i]);
            return -1;
        }
    }
    return 0;
}

int tap_open(int netns_fd, const char *name, unsigned n, int *ret_fds, struct err *err)
{
    struct opening o = {.name = name, .n = n, .fds = ret_fds};

    if (name[0] == '\0' || strlen(name) >= IFNAMSIZ)
        return err_set(err, ERR_INVALID, "'%.64s' does not do as an interface's name", name);
    return netns_run(netns_fd, open_here, &o, err);
}
