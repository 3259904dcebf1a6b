/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink: framing in both directions, and the real kernel in a network namespace of the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/netlink.h"

static bool own_namespace(void)
{
    static int made; /* 0: not tried, 1: yes, -1: no */

    if (made == 0)
        made = unshare(CLONE_NEWNET) == 0 ? 1 : -1;
    if (made < 0)
        print_message("SKIP: needs the right to make a network namespace\n");
    return made > 0;
}

static void requests_are_framed(void **state)
{
    struct netlink_message m;
    struct ifinfomsg head = {.ifi_index = 7};
    const struct nlattr *attrs[IFLA_MAX + 1], *inner[IFLA_INFO_MAX + 1];
    char name[IFNAMSIZ];
    uint32_t mtu = 0;

    (void)state;
    netlink_begin(&m, RTM_NEWLINK, NLM_F_CREATE, &head, sizeof(head));
    netlink_put_text(&m, IFLA_IFNAME, "eth0");
    netlink_put_u32(&m, IFLA_MTU, 1400);
    netlink_put_u16(&m, 200, 3); /* beyond what is asked for below */
    size_t nest = netlink_nest(&m, IFLA_LINKINFO);
    netlink_put_text(&m, IFLA_INFO_KIND, "veth");
    netlink_put_u8(&m, IFLA_INFO_DATA, 9);
    netlink_nest_end(&m, nest);
    assert_false(m.overflow);
    assert_int_equal(m.len % 4, 0);
    m.u.header.nlmsg_len = (uint32_t)m.len;

    assert_int_equal(netlink_attrs(&m.u.header, sizeof(head), IFLA_MAX, attrs), 0);
    assert_true(netlink_text(attrs[IFLA_IFNAME], name, sizeof(name)));
    assert_string_equal(name, "eth0");
    assert_false(netlink_text(attrs[IFLA_IFNAME], name, 4));
    assert_true(netlink_u32(attrs[IFLA_MTU], &mtu));
    assert_int_equal(mtu, 1400);
    assert_null(attrs[IFLA_ADDRESS]);
    assert_false(netlink_u32(attrs[IFLA_ADDRESS], &mtu));
    assert_false(netlink_u32(attrs[IFLA_IFNAME], &mtu));
    netlink_nested(attrs[IFLA_LINKINFO], IFLA_INFO_MAX, inner);
    assert_true(netlink_text(inner[IFLA_INFO_KIND], name, sizeof(name)));
    assert_string_equal(name, "veth");
    netlink_nested(NULL, IFLA_INFO_MAX, inner);
    assert_null(inner[IFLA_INFO_KIND]);
}

static void too_much_is_noticed(void **state)
{
    static const uint8_t bytes[NETLINK_MESSAGE_MAX];
    struct netlink_message m;
    struct err err;

    (void)state;
    netlink_begin(&m, RTM_NEWLINK, 0, bytes, 16);
    netlink_put(&m, 1, bytes, NETLINK_MESSAGE_MAX - 16 - 16 - 4);
    assert_false(m.overflow);
    netlink_put(&m, 1, NULL, 0);
    assert_true(m.overflow);
    assert_int_equal(netlink_do(-1, &m, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);

    netlink_begin(&m, RTM_NEWLINK, 0, bytes, 16);
    size_t nest = netlink_nest(&m, 3);
    netlink_put(&m, 1, bytes, 70000);
    netlink_nest_end(&m, nest);
    assert_true(m.overflow);
    netlink_begin(&m, RTM_NEWLINK, 0, bytes, sizeof(bytes));
    assert_true(m.overflow);
}

/* Lengths in a message are nobody's promise. */
static void malformed_attributes_end_the_list(void **state)
{
    struct netlink_message m;
    const struct nlattr *attrs[3];
    const uint8_t head[4] = {0};
    const uint16_t lengths[] = {0, 3, 9, 0xffff};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        netlink_begin(&m, RTM_NEWLINK, 0, head, sizeof(head));
        netlink_put_u32(&m, 1, 5);
        size_t at = m.len;
        netlink_put_u32(&m, 2, 6);
        m.u.header.nlmsg_len = (uint32_t)m.len;
        memcpy(m.u.bytes + at, &lengths[i], sizeof(lengths[i]));
        assert_int_equal(netlink_attrs(&m.u.header, sizeof(head), 2, attrs), 0);
        assert_non_null(attrs[1]);
        assert_null(attrs[2]);
    }
    m.u.header.nlmsg_len = NLMSG_HDRLEN + 3;
    assert_int_equal(netlink_attrs(&m.u.header, sizeof(head), 2, attrs), -1);
    m.u.header.nlmsg_len = NLMSG_HDRLEN + 5;
    assert_int_equal(netlink_attrs(&m.u.header, 5, 2, attrs), 0);
    assert_null(attrs[1]);
}

static int count(void *arg, const struct nlmsghdr *message, struct err *err)
{
    const struct nlattr *attrs[IFLA_MAX + 1];

    (void)err;
    assert_int_equal(message->nlmsg_type, RTM_NEWLINK);
    assert_int_equal(netlink_attrs(message, sizeof(struct ifinfomsg), IFLA_MAX, attrs), 0);
    assert_non_null(attrs[IFLA_IFNAME]);
    (*(int *)arg)++;
    return 0;
}

static int refuse(void *arg, const struct nlmsghdr *message, struct err *err)
{
    (void)message;
    (*(int *)arg)++;
    return err_set(err, ERR_INVALID, "enough");
}

static int dump_links(int fd, netlink_message_fn fn, int *ret_n, struct err *err)
{
    struct netlink_message m;
    struct ifinfomsg head = {.ifi_family = AF_UNSPEC};

    *ret_n = 0;
    netlink_begin(&m, RTM_GETLINK, NLM_F_DUMP, &head, sizeof(head));
    return netlink_ask(fd, &m, fn, ret_n, err);
}

static void make_veth(struct netlink_message *m, const char *a, const char *b)
{
    struct ifinfomsg head = {.ifi_family = AF_UNSPEC};

    netlink_begin(m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
    netlink_put_text(m, IFLA_IFNAME, a);
    size_t info = netlink_nest(m, IFLA_LINKINFO);
    netlink_put_text(m, IFLA_INFO_KIND, "veth");
    size_t data = netlink_nest(m, IFLA_INFO_DATA);
    size_t peer = netlink_nest(m, VETH_INFO_PEER);
    /* A second link header comes before the peer's attributes. */
    memcpy(m->u.bytes + m->len, &head, sizeof(head));
    m->len += sizeof(head);
    netlink_put_text(m, IFLA_IFNAME, b);
    netlink_nest_end(m, peer);
    netlink_nest_end(m, data);
    netlink_nest_end(m, info);
}

static void the_kernel_obeys_and_refuses(void **state)
{
    struct netlink_message m;
    struct ifinfomsg head = {.ifi_index = 4711};
    struct err err;
    cleanup_fd int fd = -1;
    int n = 0;

    (void)state;
    if (!own_namespace())
        skip();
    assert_int_equal(netlink_open(&fd, &err), 0);
    assert_int_equal(dump_links(fd, count, &n, &err), 0);
    const int before = n;
    for (int i = 0; i < 100; i++) { /* enough for a dump of several datagrams */
        char a[IFNAMSIZ], b[IFNAMSIZ];
        (void)snprintf(a, sizeof(a), "a%d", i);
        (void)snprintf(b, sizeof(b), "b%d", i);
        make_veth(&m, a, b);
        if (netlink_do(fd, &m, &err) < 0)
            fail_msg("%s", err.msg);
    }
    assert_int_equal(dump_links(fd, count, &n, &err), 0);
    assert_int_equal(n, before + 200);
    make_veth(&m, "a1", "c1");
    assert_int_equal(netlink_do(fd, &m, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);

    /* The reader's own error ends it, and the next request is not confused by the rest. */
    assert_int_equal(dump_links(fd, refuse, &n, &err), -1);
    assert_string_equal(err.msg, "enough");
    assert_int_equal(n, 1);
    assert_int_equal(dump_links(fd, count, &n, &err), 0);
    assert_int_equal(n, before + 200);

    netlink_begin(&m, RTM_GETLINK, 0, &head, sizeof(head));
    assert_int_equal(netlink_do(fd, &m, &err), -1);
    assert_int_equal(err.sys_errno, ENODEV);
    /* In the kernel's own words where it has some. */
    head.ifi_index = 1;
    netlink_begin(&m, RTM_NEWLINK, 0, &head, sizeof(head));
    netlink_put_u32(&m, IFLA_MTU, 0xffffffff);
    assert_int_equal(netlink_do(fd, &m, &err), -1);
    assert_non_null(strstr(err.msg, "mtu"));
    /* One object, and its acknowledgement. */
    netlink_begin(&m, RTM_GETLINK, 0, &head, sizeof(head));
    n = 0;
    assert_int_equal(netlink_ask(fd, &m, count, &n, &err), 0);
    assert_int_equal(n, 1);
}

static void only_sockets_are_set_up(void **state)
{
    struct err err;
    cleanup_fd int fd = -1;

    (void)state;
    assert_int_equal(netlink_open(&fd, &err), 0);
    assert_int_equal(netlink_setup(0, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_framed),
        cmocka_unit_test(too_much_is_noticed),
        cmocka_unit_test(malformed_attributes_end_the_list),
        cmocka_unit_test(the_kernel_obeys_and_refuses),
        cmocka_unit_test(only_sockets_are_set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
