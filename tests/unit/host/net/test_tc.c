/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taps and their joining, in namespaces of the test's own: a pod's with one end of a veth pair as
 * CNI would leave it, and the node's with the other. The test is the guest: it reads and writes the
 * tap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/netlink.h"
#include "host/net/netns.h"
#include "host/net/tap.h"
#include "host/net/tc.h"

#define MTU  1400
#define TEST "casemate-tc" /* in each frame, to tell it from what the kernel says by itself */

static struct {
    char dir[64];
    int pod;   /* the pod's namespace */
    int wire;  /* raw socket on the node's end of the veth pair */
    bool able; /* to make namespaces */
} t;

static void put_veth(struct netlink_message *m, const char *name, const char *peer, int peer_ns)
{
    const struct ifinfomsg head = {0};

    netlink_begin(m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
    netlink_put_text(m, IFLA_IFNAME, name);
    netlink_put_u32(m, IFLA_MTU, MTU);
    size_t info = netlink_nest(m, IFLA_LINKINFO);
    netlink_put_text(m, IFLA_INFO_KIND, "veth");
    size_t data = netlink_nest(m, IFLA_INFO_DATA);
    size_t inner = netlink_nest(m, VETH_INFO_PEER);
    memcpy(m->u.bytes + m->len, &head, sizeof(head));
    m->len += sizeof(head);
    netlink_put_text(m, IFLA_IFNAME, peer);
    netlink_put_u32(m, IFLA_MTU, MTU);
    netlink_put_u32(m, IFLA_NET_NS_FD, (uint32_t)peer_ns);
    netlink_nest_end(m, inner);
    netlink_nest_end(m, data);
    netlink_nest_end(m, info);
}

static int set_up(const char *name, struct err *err)
{
    const struct ifinfomsg head = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct netlink_message m;
    cleanup_fd int fd = -1;

    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_text(&m, IFLA_IFNAME, name);
    return netlink_open(&fd, err) != 0 ? -1 : netlink_do(fd, &m, err);
}

static int set_pod_up(void *arg, struct err *err)
{
    (void)arg;
    return set_up("eth0", err);
}

static int setup(void **state)
{
    struct sockaddr_ll on = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct netlink_message m;
    struct err err = {0};
    cleanup_fd int fd = -1;
    char path[80];

    (void)state;
    (void)snprintf(t.dir, sizeof(t.dir), "/tmp/casemate-test.XXXXXX");
    t.pod = t.wire = -1;
    if (mkdtemp(t.dir) == NULL)
        return -1;
    t.able = geteuid() == 0 && unshare(CLONE_NEWNET) == 0 && access("/dev/net/tun", R_OK) == 0;
    if (!t.able) {
        print_message("SKIP: needs root and /dev/net/tun\n");
        return 0;
    }
    (void)snprintf(path, sizeof(path), "%s/pod", t.dir);
    if (netns_make(path, &err) != 0 || netns_open(path, &t.pod, &err) != 0 ||
        netns_remove(path, &err) != 0 || netlink_open(&fd, &err) != 0)
        return -1;
    put_veth(&m, "node0", "eth0", t.pod);
    if (netlink_do(fd, &m, &err) != 0 || set_up("node0", &err) != 0 ||
        netns_run(t.pod, set_pod_up, NULL, &err) != 0) {
        print_error("%s\n", err.msg);
        return -1;
    }
    t.wire = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    on.sll_ifindex = (int)if_nametoindex("node0");
    return bind(t.wire, (struct sockaddr *)&on, sizeof(on));
}

static int teardown(void **state)
{
    (void)state;
    close_fd(&t.wire);
    close_fd(&t.pod);
    return fd_remove_tree(AT_FDCWD, t.dir, NULL);
}

/* ---- the two ends --------------------------------------------------------------------------- */

static size_t make_frame(uint8_t *ret_frame, size_t size, char mark)
{
    const struct ethhdr head = {.h_dest = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
                                .h_source = {2, 0, 0, 0, 0, 9},
                                .h_proto = htons(0x88b5)}; /* for local experiments */

    memset(ret_frame, mark, size);
    memcpy(ret_frame, &head, sizeof(head));
    memcpy(ret_frame + sizeof(head), TEST, sizeof(TEST));
    return size;
}

/* Reads until a frame of the test comes; its last byte. 0: none in time. */
static char next_mark(int fd, size_t header, int timeout_ms, size_t *ret_size)
{
    static uint8_t bytes[70000];

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, timeout_ms) != 1)
            return 0;
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n < (ssize_t)(header + ETH_HLEN + sizeof(TEST)))
            continue;
        if (memcmp(bytes + header + ETH_HLEN, TEST, sizeof(TEST)) == 0) {
            *ret_size = (size_t)n - header;
            return (char)bytes[n - 1];
        }
    }
}

static void guest_sends(int tap, size_t size, char mark)
{
    struct {
        struct virtio_net_hdr head;
        uint8_t frame[2000];
    } packet = {0};

    size_t n = make_frame(packet.frame, size, mark);
    assert_int_equal(write(tap, &packet, sizeof(packet.head) + n), sizeof(packet.head) + n);
}

struct link_facts {
    const char *name;
    unsigned int flags;
    uint32_t mtu;
    int n_ipv6; /* addresses */
};

static int take_link(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct link_facts *facts = arg;
    const struct nlattr *attrs[IFLA_MTU + 1];
    struct ifinfomsg head;

    (void)err;
    assert_int_equal(netlink_attrs(message, sizeof(head), IFLA_MTU, attrs), 0);
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    facts->flags = head.ifi_flags;
    assert_true(netlink_u32(attrs[IFLA_MTU], &facts->mtu));
    return 0;
}

static int count_address(void *arg, const struct nlmsghdr *message, struct err *err)
{
    struct link_facts *facts = arg;
    struct ifaddrmsg head;

    (void)err;
    memcpy(&head, NLMSG_DATA(message), sizeof(head));
    facts->n_ipv6 += head.ifa_index == if_nametoindex(facts->name);
    return 0;
}

static int ask_link(void *arg, struct err *err)
{
    struct link_facts *facts = arg;
    struct ifinfomsg link = {0};
    struct ifaddrmsg address = {.ifa_family = AF_INET6};
    struct netlink_message m;
    cleanup_fd int fd = -1;

    if (netlink_open(&fd, err) != 0)
        return -1;
    netlink_begin(&m, RTM_GETLINK, 0, &link, sizeof(link));
    netlink_put_text(&m, IFLA_IFNAME, facts->name);
    if (netlink_ask(fd, &m, take_link, facts, err) != 0)
        return -1;
    netlink_begin(&m, RTM_GETADDR, NLM_F_DUMP, &address, sizeof(address));
    return netlink_ask(fd, &m, count_address, facts, err);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void taps_are_made(void **state)
{
    struct err err = {0};
    int fd = -1, again = -1;
    struct ifreq request;

    (void)state;
    if (!t.able)
        skip();
    assert_int_equal(tap_open(t.pod, "tap0", 1, &fd, &err), 0);
    assert_int_equal(ioctl(fd, TUNGETIFF, &request), 0);
    assert_string_equal(request.ifr_name, "tap0");
    assert_int_equal(request.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR),
                     IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    /* It is the pod's, not the caller's. */
    assert_int_equal(if_nametoindex("tap0"), 0);
    assert_int_equal(tap_open(t.pod, "tap0", 1, &again, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(tap_open(t.pod, "eth0", 1, &again, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(tap_open(t.pod, "0123456789abcdef", 1, &again, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(tap_open(t.pod, "", 1, &again, &err), -1);
    /* And it goes with its last descriptor. */
    assert_int_equal(close(fd), 0);
    assert_int_equal(tap_open(t.pod, "tap0", 1, &fd, &err), 0);
    assert_int_equal(close(fd), 0);
}

static void a_tap_may_have_several_queues(void **state)
{
    struct err err = {0};
    int fds[3] = {-1, -1, -1}, others[2] = {-1, -1};
    struct ifreq request;

    (void)state;
    if (!t.able)
        skip();
    assert_int_equal(tap_open(t.pod, "tap0", 3, fds, &err), 0);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        assert_int_equal(ioctl(fds[i], TUNGETIFF, &request), 0);
        assert_string_equal(request.ifr_name, "tap0");
        assert_int_equal(request.ifr_flags & (IFF_VNET_HDR | IFF_MULTI_QUEUE),
                         IFF_VNET_HDR | IFF_MULTI_QUEUE);
        /* As QEMU does for the queues that a guest does not use, and does not. */
        request.ifr_flags = IFF_DETACH_QUEUE;
        assert_int_equal(ioctl(fds[i], TUNSETQUEUE, &request), 0);
        request.ifr_flags = IFF_ATTACH_QUEUE;
        assert_int_equal(ioctl(fds[i], TUNSETQUEUE, &request), 0);
    }
    /* Nobody joins it by its name. */
    assert_int_equal(tap_open(t.pod, "tap0", 2, others, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(tap_open(t.pod, "tap0", 1, others, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(others[0], -1);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        assert_int_equal(close(fds[i]), 0);
    assert_int_equal(tap_open(t.pod, "tap0", 2, fds, &err), 0);
    assert_int_equal(close(fds[0]), 0);
    assert_int_equal(close(fds[1]), 0);
}

static void frames_pass_both_ways(void **state)
{
    struct link_facts tap_facts = {.name = "tap0"}, link_facts = {.name = "eth0"};
    struct err err = {0};
    uint8_t frame[2000];
    cleanup_fd int tap = -1;
    size_t size = 0;

    (void)state;
    if (!t.able)
        skip();
    assert_int_equal(tap_open(t.pod, "tap0", 1, &tap, &err), 0);
    if (tc_join(t.pod, "eth0", "tap0", &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(netns_run(t.pod, ask_link, &tap_facts, &err), 0);
    assert_true((tap_facts.flags & IFF_UP) != 0);
    assert_int_equal(tap_facts.mtu, MTU);
    assert_int_equal(tap_facts.n_ipv6, 0);
    assert_int_equal(netns_run(t.pod, ask_link, &link_facts, &err), 0);
    assert_true((link_facts.flags & IFF_UP) != 0);

    for (int i = 0; i < 20; i++) {
        const char mark = (char)('a' + i);
        const size_t n = i % 2 == 0 ? 60 : MTU + ETH_HLEN;
        guest_sends(tap, n, mark);
        assert_int_equal(next_mark(t.wire, 0, 10000, &size), mark);
        assert_int_equal(size, n);
        assert_int_equal(send(t.wire, frame, make_frame(frame, n, mark), 0), n);
        assert_int_equal(next_mark(tap, sizeof(struct virtio_net_hdr), 10000, &size), mark);
        assert_int_equal(size, n);
    }
    /* The guest does not hear itself, and nothing comes twice. */
    assert_int_equal(next_mark(tap, sizeof(struct virtio_net_hdr), 50, &size), 0);
}

static void what_cannot_be_joined_is_named(void **state)
{
    struct err err = {0};
    cleanup_fd int tap = -1;

    (void)state;
    if (!t.able)
        skip();
    assert_int_equal(tap_open(t.pod, "tap0", 1, &tap, &err), 0);
    assert_int_equal(tc_join(t.pod, "net7", "tap0", &err), -1);
    assert_non_null(strstr(err.msg, "net7"));
    assert_int_equal(tc_join(t.pod, "eth0", "tap7", &err), -1);
    assert_non_null(strstr(err.msg, "tap7"));
    assert_int_equal(tc_join(t.pod, "lo", "tap0", &err), -1);
}

/* A plugin that uses the ingress hook as well keeps it. */
static void an_ingress_may_be_there_already(void **state)
{
    struct err err = {0};
    cleanup_fd int tap = -1, other = -1;
    uint8_t frame[100];
    size_t size;

    (void)state;
    if (!t.able)
        skip();
    assert_int_equal(tap_open(t.pod, "tap0", 1, &tap, &err), 0);
    assert_int_equal(tap_open(t.pod, "tap1", 1, &other, &err), 0);
    assert_int_equal(tc_join(t.pod, "eth0", "tap0", &err), 0);
    if (tc_join(t.pod, "eth0", "tap1", &err) != 0)
        fail_msg("%s", err.msg);
    guest_sends(other, 60, 'x');
    assert_int_equal(next_mark(t.wire, 0, 10000, &size), 'x');
    assert_int_equal(send(t.wire, frame, make_frame(frame, 60, 'y'), 0), 60);
    assert_int_equal(next_mark(other, sizeof(struct virtio_net_hdr), 10000, &size), 'y');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(taps_are_made, setup, teardown),
        cmocka_unit_test_setup_teardown(a_tap_may_have_several_queues, setup, teardown),
        cmocka_unit_test_setup_teardown(frames_pass_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_joined_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(an_ingress_may_be_there_already, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
