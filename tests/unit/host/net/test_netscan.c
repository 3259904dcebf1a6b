/* SPDX-License-Identifier: Apache-2.0 */
/* host/net/netscan: addresses, every kind of route, neighbours, MAC and MTU, as ip(8) set them. */
#include <arpa/inet.h>

#include "host/net/netns.h"
#include "host/net/netscan.h"
#include "tests/unit/host/net/net_fixture.h"

static int scan_here(struct netscan *scan)
{
    cleanup_fd int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    struct err err = {0};
    int result = netscan_read(fd, scan, &err);

    if (result != 0)
        print_error("%s\n", err.msg);
    return result;
}

static bool is(const struct net_addr *addr, const char *text)
{
    char shown[INET6_ADDRSTRLEN];

    if (addr->len == 0)
        return *text == '\0';
    (void)inet_ntop(addr->len == 4 ? AF_INET : AF_INET6, addr->bytes, shown, sizeof(shown));
    return strcmp(shown, text) == 0;
}

static const struct net_route *route_to(const struct net_iface *iface, const char *dst, int prefix)
{
    for (size_t i = 0; i < iface->n_routes; i++) {
        if (is(&iface->routes[i].dst, dst) && iface->routes[i].dst.prefix == prefix)
            return &iface->routes[i];
    }
    return NULL;
}

static int setup(void **state)
{
    (void)state;
    return shell(
        "ip link add e0 type veth peer name e1 && ip link set e0 address "
        "02:00:00:00:00:07 mtu 1380 up && ip link set e1 up && "
        "ip addr add 10.1.0.2/24 dev e0 && ip addr add 10.9.0.1 peer 10.9.0.9/32 dev e0 && "
        "ip -6 addr add fd00:1::2/64 dev e0 nodad");
}

static int teardown(void **state)
{
    (void)state;
    return shell("ip link del e0");
}

static void test_links_and_addresses(void **state)
{
    cleanup_netscan struct netscan scan = {0};
    const struct netscan_link *e0;

    (void)state;
    assert_int_equal(scan_here(&scan), 0);
    assert_null(netscan_find(&scan, "lo"));
    e0 = netscan_find(&scan, "e0");
    assert_non_null(e0);
    assert_non_null(netscan_find(&scan, "e1"));
    assert_true(e0->ethernet);
    assert_false(e0->has_master);
    assert_int_equal(e0->iface.mtu, 1380);
    assert_memory_equal(e0->iface.mac, "\x02\0\0\0\0\x07", NET_MAC_SIZE);
    /* Its link-local address is every interface's own affair. */
    assert_int_equal(e0->iface.n_addrs, 3);
    assert_true(is(&e0->iface.addrs[0], "10.1.0.2") && e0->iface.addrs[0].prefix == 24);
    assert_true(is(&e0->iface.addrs[1], "10.9.0.1"));
    assert_true(is(&e0->iface.addrs[2], "fd00:1::2") && e0->iface.addrs[2].prefix == 64);
}

static void test_routes(void **state)
{
    cleanup_netscan struct netscan scan = {0};
    const struct net_iface *e0;
    const struct net_route *r;
    bool gateways = false;

    (void)state;
    assert_int_equal(
        shell("ip route add default via 169.254.1.1 dev e0 onlink && "
              "ip route add 10.2.0.0/16 via 10.1.0.1 mtu 1300 advmss 1200 metric 7 src "
              "10.1.0.2 && ip route add 10.3.0.0/16 dev e0 scope link && "
              "ip route add 10.4.0.0/16 via inet6 fd00:1::1 dev e0 && "
              "ip -6 route add default via fd00:1::1 dev e0 && "
              "ip route add 10.5.0.0/16 nexthop via 10.1.0.1 nexthop via 10.1.0.3 && "
              "ip route add blackhole 10.6.0.0/16 && "
              "ip route add 10.7.0.0/16 dev e0 table 100"),
        0);
    assert_int_equal(scan_here(&scan), 0);
    e0 = &netscan_find(&scan, "e0")->iface;
    r = route_to(e0, "0.0.0.0", 0);
    assert_non_null(r);
    assert_true(r->onlink && is(&r->gateway, "169.254.1.1") && r->gateway.prefix == 32);
    r = route_to(e0, "10.2.0.0", 16);
    assert_non_null(r);
    assert_int_equal(r->mtu, 1300);
    assert_int_equal(r->advmss, 1200);
    assert_int_equal(r->metric, 7);
    assert_true(is(&r->source, "10.1.0.2"));
    r = route_to(e0, "10.3.0.0", 16);
    assert_non_null(r);
    assert_int_equal(r->scope, 253); /* RT_SCOPE_LINK */
    assert_int_equal(r->gateway.len, 0);
    r = route_to(e0, "10.4.0.0", 16);
    assert_non_null(r);
    assert_true(is(&r->gateway, "fd00:1::1"));
    assert_non_null(route_to(e0, "::", 0));
    /* The kernel's own count too; link-local ones do not. */
    assert_non_null(route_to(e0, "10.1.0.0", 24));
    assert_non_null(route_to(e0, "fd00:1::", 64));
    assert_null(route_to(e0, "fe80::", 64));
    assert_null(route_to(e0, "10.5.0.0", 16));
    assert_null(route_to(e0, "10.6.0.0", 16));
    assert_null(route_to(e0, "10.7.0.0", 16));
    for (size_t i = 0; i < e0->n_routes; i++) {
        assert_false(gateways && e0->routes[i].gateway.len == 0);
        gateways = e0->routes[i].gateway.len > 0;
    }
    assert_int_equal(shell("ip route del blackhole 10.6.0.0/16"), 0);
}

static void test_neighbours(void **state)
{
    cleanup_netscan struct netscan scan = {0};
    const struct net_iface *e0;

    (void)state;
    assert_int_equal(shell("ip neigh add 10.1.0.1 lladdr 02:00:00:00:00:01 dev e0 nud permanent && "
                           "ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev e0 nud reachable && "
                           "ip neigh add fd00:1::1 lladdr 02:00:00:00:00:01 dev e0 nud permanent"),
                     0);
    assert_int_equal(scan_here(&scan), 0);
    e0 = &netscan_find(&scan, "e0")->iface;
    assert_int_equal(e0->n_neighbours, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_memory_equal(e0->neighbours[i].mac, "\x02\0\0\0\0\x01", NET_MAC_SIZE);
        assert_true(is(&e0->neighbours[i].addr, "10.1.0.1") ||
                    is(&e0->neighbours[i].addr, "fd00:1::1"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_links_and_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbours, setup, teardown),
    };
    if (!fixture_isolate())
        return 0;
    return cmocka_run_group_tests_name("host/net/netscan", tests, NULL, NULL);
}
