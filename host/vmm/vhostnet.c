/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's node may be there without its module, or (in a container) be another kernel's: what
 * it can do is asked for. It must know the header before each frame and mergeable buffers, which
 * the guest was promised when QEMU moves the packets itself; then machines with and without it
 * differ in nothing that a guest sees.
 */
#include "host/vmm/vhostnet.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_net.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "common/base/cleanup.h"

bool vhostnet_usable(const char *device, struct err *err)
{
    cleanup_fd int fd = open(device, O_RDWR | O_CLOEXEC);
    uint64_t features = 0;

    if (fd < 0) {
        (void)err_set_errno(err, errno, "%s", device);
        return false;
    }
    if (ioctl(fd, VHOST_GET_FEATURES, &features) < 0) {
        (void)err_set_errno(err, errno, "%s does not speak vhost", device);
        return false;
    }
    if ((features & (UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF)) == 0) {
        (void)err_set(err, ERR_UNSUPPORTED, "%s does not merge buffers", device);
        return false;
    }
    return true;
}

int vhostnet_open(const char *device, unsigned n, int *ret_fds, struct err *err)
{
    for (unsigned i = 0; i < n; i++) {
        ret_fds[i] = open(device, O_RDWR | O_CLOEXEC);
        if (ret_fds[i] < 0) {
            (void)err_set_errno(err, errno, "%s", device);
            while (i-- > 0)
                close_fd(&ret_fds[i]);
            return -1;
        }
    }
    return 0;
}
