/* SPDX-License-Identifier: Apache-2.0 */
/* host/net with the real plugins of containernetworking: what each makes of a pod arrives as the
 * machine needs it, and goes again without a trace. Network targets are in namespaces of the test.
 */
#include <arpa/inet.h>
#include <pthread.h>

#include "tests/unit/host/net/net_fixture.h"

#define IPAM4                                                                                      \
    "{\"type\":\"host-local\",\"dataDir\":\"%s/leases\",\"ranges\":[[{\"subnet\":\"10.88.0.0/"     \
    "16\"}]],\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}"
#define IPAM6                                                                                      \
    "{\"type\":\"host-local\",\"dataDir\":\"%s/leases\",\"ranges\":[[{\"subnet\":\"fd00:88::/"     \
    "64\"}]],\"routes\":[{\"dst\":\"::/0\"}]}"
#define IPAM_DUAL                                                                                  \
    "{\"type\":\"host-local\",\"dataDir\":\"%s/leases\",\"ranges\":[[{\"subnet\":\"10.88.0.0/"     \
    "16\"}],[{\"subnet\":\"fd00:88::/64\"}]],\"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/"   \
    "0\"}]}"

static void put_conf(const char *file, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put_conf(const char *file, const char *fmt, ...)
{
    char text[4096];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    put_file(conf_dir, file, text);
}

static void attach_as(struct net *net, const struct net_pod_spec *spec, struct net_result *result)
{
    cleanup_net_pod struct net_pod *pod = NULL;
    struct err err = {0};

    if (net_pod_open(net, spec, &pod, &err) != 0 ||
        net_pod_attach(pod, clock_deadline(WAIT_MS), result, &err) != 0)
        fail_msg("%s", err.msg);
}

static void attach(struct net *net, const char *id, struct net_result *result)
{
    struct net_pod_spec spec = {.id = id};

    attach_as(net, &spec, result);
}

static void detach(struct net *net, const char *id)
{
    struct err err = {0};

    if (net_detach(net, id, clock_deadline(WAIT_MS), &err) != 0)
        fail_msg("%s", err.msg);
}

static bool address_is(const struct net_addr *addr, const char *text, int prefix)
{
    char shown[NET_ADDR_TEXT];

    if (addr->len == 0)
        return text == NULL;
    (void)inet_ntop(addr->len == 4 ? AF_INET : AF_INET6, addr->bytes, shown, sizeof(shown));
    return text != NULL && strcmp(shown, text) == 0 && (prefix < 0 || addr->prefix == prefix);
}

static const struct net_route *find_route(const struct net_iface *iface, const char *dst,
                                          int prefix)
{
    for (size_t i = 0; i < iface->n_routes; i++) {
        if (address_is(&iface->routes[i].dst, dst, prefix))
            return &iface->routes[i];
    }
    return NULL;
}

/* Leases of host-local, beside its lock and its note of the last one. */
static int count_leases(void)
{
    return shell("exit $(find %s/leases -type f ! -name lock ! -name 'last_reserved*' | wc -l)",
                 work);
}

/* No lease, no link, no namespace, no rule that speaks of a pod. */
static void assert_clean(void)
{
    assert_int_equal(count_leases(), 0);
    assert_int_equal(count_files("%s/netns", run_dir), 0);
    assert_int_equal(count_files("%s", state_dir), 0);
    assert_int_equal(shell("ip -o link | grep -E ': (veth|ifb|bwp|ctap)'"), 1);
    assert_int_equal(shell("iptables-save | grep -E 'pod-|10\\.88\\.0\\.[0-9]+(/32)? '"), 1);
    assert_int_equal(shell("ip6tables-save | grep -E 'pod-|fd00:88::[0-9a-f]+(/128)? '"), 1);
}

static void test_bridge_dual_stack(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);
    static const uint8_t no_mac[NET_MAC_SIZE];
    const struct net_route *route;
    const struct net_iface *eth0;
    struct err err = {0};

    (void)state;
    put_conf("10.conflist",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"bridge\","
             "\"bridge\":\"cni0\",\"isGateway\":true,\"ipMasq\":true,\"hairpinMode\":true,"
             "\"mtu\":1400,\"ipam\":" IPAM_DUAL "}]}",
             work);
    attach(net, "pod-a", &result);
    assert_int_equal(result.n_ips, 2);
    assert_string_equal(result.ips[0], "10.88.0.2");
    assert_string_equal(result.ips[1], "fd00:88::2");
    assert_int_equal(result.n_ifaces, 1);
    eth0 = &result.ifaces[0];
    assert_string_equal(eth0->name, "eth0");
    assert_int_equal(eth0->mtu, 1400);
    assert_memory_not_equal(eth0->mac, no_mac, NET_MAC_SIZE);
    assert_int_equal(eth0->tap_fd, -1);
    assert_int_equal(eth0->n_addrs, 2);
    assert_true(address_is(&eth0->addrs[0], "10.88.0.2", 16));
    assert_true(address_is(&eth0->addrs[1], "fd00:88::2", 64));
    assert_non_null(find_route(eth0, "10.88.0.0", 16));
    assert_non_null(find_route(eth0, "fd00:88::", 64));
    route = find_route(eth0, "0.0.0.0", 0);
    assert_non_null(route);
    assert_true(address_is(&route->gateway, "10.88.0.1", -1));
    route = find_route(eth0, "::", 0);
    assert_non_null(route);
    assert_true(address_is(&route->gateway, "fd00:88::1", -1));
    assert_int_equal(count_leases(), 2);
    assert_int_equal(net_check(net, "pod-a", clock_deadline(WAIT_MS), &err), 0);
    detach(net, "pod-a");
    assert_clean();
}

/* The plugin gives a /16 and takes the kernel's route for it away: all goes through the host. */
static void test_ptp(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);
    const struct net_route *route;

    (void)state;
    put_conf("10.conf",
             "{\"cniVersion\":\"0.3.1\",\"name\":\"p2p\",\"type\":\"ptp\",\"ipam\":" IPAM4 "}",
             work);
    attach(net, "pod-a", &result);
    assert_int_equal(result.n_ifaces, 1);
    assert_true(address_is(&result.ifaces[0].addrs[0], "10.88.0.2", 16));
    route = find_route(&result.ifaces[0], "10.88.0.1", 32);
    assert_non_null(route);
    assert_int_equal(route->gateway.len, 0);
    route = find_route(&result.ifaces[0], "10.88.0.0", 16);
    assert_non_null(route);
    assert_true(address_is(&route->gateway, "10.88.0.1", -1));
    assert_non_null(find_route(&result.ifaces[0], "0.0.0.0", 0));
    detach(net, "pod-a");
    assert_clean();
}

static void test_macvlan_v6(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);

    (void)state;
    assert_int_equal(shell("ip link add up0 type veth peer name up1 && ip link set up0 up && "
                           "ip link set up1 up"),
                     0);
    put_conf("10.conf",
             "{\"cniVersion\":\"0.4.0\",\"name\":\"mv\",\"type\":\"macvlan\",\"master\":\"up0\","
             "\"ipam\":" IPAM6 "}",
             work);
    attach(net, "pod-a", &result);
    assert_int_equal(result.n_ips, 1);
    assert_string_equal(result.ips[0], "fd00:88::2");
    assert_true(address_is(&result.ifaces[0].addrs[0], "fd00:88::2", 64));
    detach(net, "pod-a");
    assert_clean();
    assert_int_equal(shell("ip link del up0"), 0);
}

/* The whole chain of a usual cluster, with a host port and limits. */
static void test_full_chain(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);
    static const struct net_port ports[] = {
        {.protocol = "tcp", .container_port = 80, .host_port = 8080},
        {.protocol = "udp", .container_port = 53, .host_port = 5353},
        {.protocol = "sctp", .container_port = 99, .host_port = 9999},
    };
    static const struct net_pair limits[] = {
        {"kubernetes.io/ingress-bandwidth", "10M"},
        {"kubernetes.io/egress-bandwidth", "1M"},
    };
    struct net_pod_spec spec = {.id = "pod-a",
                                .ports = ports,
                                .n_ports = ARRAY_SIZE(ports),
                                .annotations = limits,
                                .n_annotations = ARRAY_SIZE(limits)};

    (void)state;
    put_conf("10.conflist",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"bridge\","
             "\"bridge\":\"cni0\",\"isGateway\":true,\"ipMasq\":true,\"ipam\":" IPAM_DUAL "},"
             "{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}},"
             "{\"type\":\"bandwidth\",\"capabilities\":{\"bandwidth\":true}},"
             "{\"type\":\"firewall\"},"
             "{\"type\":\"tuning\",\"mtu\":1300,\"mac\":\"02:00:00:00:88:02\",\"sysctl\":{"
             "\"net.ipv4.conf.eth0.arp_notify\":\"1\"}}]}",
             work);
    attach_as(net, &spec, &result);
    assert_int_equal(result.ifaces[0].mtu, 1300);
    assert_memory_equal(result.ifaces[0].mac, "\x02\x00\x00\x00\x88\x02", NET_MAC_SIZE);
    assert_int_equal(result.n_sysctls, 1);
    assert_string_equal(result.sysctls[0].name, "net.ipv4.conf.eth0.arp_notify");
    assert_int_equal(shell("iptables-save -t nat | grep -q 'dport 8080 .*to-destination "
                           "10.88.0.2:80'"),
                     0);
    assert_int_equal(shell("iptables-save -t nat | grep -q 'udp.*dport 5353 '"), 0);
    assert_int_equal(shell("iptables-save -t nat | grep -q 'sctp.*dport 9999 '"), 0);
    assert_int_equal(shell("ip6tables-save -t nat | grep -q 'fd00:88::2\\]:80'"), 0);
    assert_int_equal(shell("iptables-save -t filter | grep -q 10.88.0.2/32"), 0);
    assert_int_equal(shell("tc qdisc show | grep -q 'tbf.*rate 10Mbit'"), 0);
    assert_int_equal(shell("tc qdisc show | grep -q 'tbf.*rate 1Mbit'"), 0);
    detach(net, "pod-a");
    assert_clean();
}

/* Two configurations: two interfaces, the second with a tap of its own. */
static void test_two_networks(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = NULL;

    (void)state;
    config.max_networks = 2;
    net = fixture_net(&config);
    put_conf("10.conf",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"one\",\"type\":\"bridge\",\"bridge\":\"cni0\","
             "\"isGateway\":true,\"ipam\":" IPAM4 "}",
             work);
    put_conf("20.conf",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"two\",\"type\":\"bridge\",\"bridge\":\"cni1\","
             "\"ipam\":{\"type\":\"host-local\",\"dataDir\":\"%s/leases\",\"ranges\":[[{"
             "\"subnet\":\"172.30.0.0/24\"}]]}}",
             work);
    attach(net, "pod-a", &result);
    assert_int_equal(result.n_ifaces, 2);
    assert_string_equal(result.ifaces[1].name, "eth1");
    assert_int_equal(result.ifaces[0].tap_fd, -1);
    assert_true(result.ifaces[1].tap_fd >= 0);
    assert_true(address_is(&result.ifaces[1].addrs[0], "172.30.0.2", 24));
    /* The pod's address is the first network's. */
    assert_int_equal(result.n_ips, 1);
    assert_string_equal(result.ips[0], "10.88.0.2");
    assert_int_equal(count_leases(), 2);
    detach(net, "pod-a");
    assert_clean();
}

/* The plugins are there and the range is used up: one pod fails, the others keep theirs. */
static void test_no_address_left(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result a = {0}, b = {0}, c = {0};
    cleanup_net struct net *net = fixture_net(&config);
    struct net_pod_spec spec = {.id = "pod-c"};
    cleanup_net_pod struct net_pod *pod = NULL;
    struct err err = {0};

    (void)state;
    put_conf("10.conf",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"small\",\"type\":\"bridge\",\"bridge\":\"cni2\","
             "\"isGateway\":true,\"ipam\":{\"type\":\"host-local\",\"dataDir\":\"%s/leases\","
             "\"ranges\":[[{\"subnet\":\"10.88.0.0/30\"}]]}}",
             work);
    attach(net, "pod-a", &a);
    assert_int_equal(net_pod_open(net, &spec, &pod, &err), 0);
    assert_int_equal(net_pod_attach(pod, clock_deadline(WAIT_MS), &c, &err), -1);
    assert_non_null(strstr(err.msg, "no IP addresses available"));
    assert_int_equal(count_leases(), 1);
    detach(net, "pod-a");
    attach(net, "pod-b", &b);
    assert_string_equal(b.ips[0], "10.88.0.2");
    detach(net, "pod-b");
    assert_clean();
}

/* ---- many pods ---- */

enum { HANDS = 4 };

struct hand {
    struct net *net;
    int number;
    long cycles;
    int64_t plugins_us;
    int64_t own_us;
    struct err err;
    bool failed;
};

/* Off the main thread cmocka's assertions cannot be used. */
static void *cycle(void *arg)
{
    struct hand *h = arg;

    for (long i = 0; i < h->cycles && !h->failed; i++) {
        cleanup_net_result struct net_result result = {0};
        cleanup_net_pod struct net_pod *pod = NULL;
        char id[64];
        const struct net_pod_spec spec = {.id = id};
        (void)snprintf(id, sizeof(id), "pod-%d-%ld", h->number, i);
        h->failed = net_pod_open(h->net, &spec, &pod, &h->err) != 0;
        h->failed = h->failed ||
                    net_pod_attach(pod, clock_deadline(WAIT_MS), &result, &h->err) != 0 ||
                    net_detach(h->net, id, clock_deadline(WAIT_MS), &h->err) != 0;
        h->plugins_us += result.plugins_us;
        h->own_us += result.own_us;
    }
    return NULL;
}

/* Up and down, by several at once, over and over: the same state as before. CYCLES says how often,
 * and then this is the only test. */
static void test_cycles(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net struct net *net = fixture_net(&config);
    const char *wanted = getenv("CYCLES");
    long cycles = wanted == NULL ? 8 : strtol(wanted, NULL, 10);
    struct hand hands[HANDS] = {0};
    pthread_t threads[HANDS];
    int64_t plugins_us = 0, own_us = 0;

    (void)state;
    put_conf("10.conflist",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"bridge\","
             "\"bridge\":\"cni0\",\"isGateway\":true,\"ipMasq\":true,\"ipam\":" IPAM4 "},"
             "{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}},"
             "{\"type\":\"firewall\"}]}",
             work);
    for (int i = 0; i < HANDS; i++) {
        hands[i] = (struct hand){.net = net, .number = i, .cycles = cycles / HANDS};
        assert_int_equal(pthread_create(&threads[i], NULL, cycle, &hands[i]), 0);
    }
    for (int i = 0; i < HANDS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (hands[i].failed)
            fail_msg("%s", hands[i].err.msg);
        plugins_us += hands[i].plugins_us;
        own_us += hands[i].own_us;
    }
    assert_clean();
    print_message("%ld cycles: plugins %lld us, own %lld us each\n", cycles,
                  (long long)(plugins_us / cycles), (long long)(own_us / cycles));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_bridge_dual_stack),
        TEST(test_ptp),
        TEST(test_macvlan_v6),
        TEST(test_full_chain),
        TEST(test_two_networks),
        TEST(test_no_address_left),
        TEST(test_cycles),
    };
    if (access("/usr/lib/cni/bridge", X_OK) != 0) {
        (void)printf("SKIP: needs containernetworking-plugins\n");
        return 0;
    }
    if (!fixture_isolate())
        return 0;
    if (getenv("CYCLES") != NULL)
        cmocka_set_test_filter("test_cycles");
    return cmocka_run_group_tests_name("host/net with real plugins", tests, NULL, NULL);
}
