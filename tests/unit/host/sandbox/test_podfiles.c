/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of a pod's files, and the message that carries them and the interfaces to the agent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "host/sandbox/netmsg.h"
#include "host/sandbox/podfiles.h"

static char host_file[] = "/tmp/resolv.conf.XXXXXX";

static int setup(void **state)
{
    static const char text[] = "nameserver 192.0.2.53\n";
    int fd = mkstemp(host_file);

    (void)state;
    if (fd < 0 || write(fd, text, sizeof(text) - 1) != (ssize_t)sizeof(text) - 1)
        return -1;
    return close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(host_file);
}

static void resolver_is_whose_word_counts(void **state)
{
    char one[] = "192.0.2.1", two[] = "2001:db8::1", a[] = "a.example", b[] = "b.example",
         o[] = "ndots:5", bad[] = "x y";
    char *servers[] = {one, two}, *searches[] = {a, b}, *options[] = {o};
    Runtime__V1__DNSConfig dns = RUNTIME__V1__DNSCONFIG__INIT;
    struct net_dns net = {0};
    struct err err;
    char *text = NULL;

    (void)state;
    /* Nobody says anything: the host's. */
    assert_int_equal(podfiles_resolv_conf(&dns, &net, host_file, &text, &err), 0);
    assert_string_equal(text, "nameserver 192.0.2.53\n");
    free(text);
    assert_int_equal(podfiles_resolv_conf(NULL, NULL, "/nonexistent", &text, &err), 0);
    assert_string_equal(text, "");
    free(text);

    net = (struct net_dns){.servers = servers, .n_servers = 1, .domain = b};
    assert_int_equal(podfiles_resolv_conf(NULL, &net, host_file, &text, &err), 0);
    assert_string_equal(text, "domain b.example\nnameserver 192.0.2.1\n");
    free(text);
    net.searches = searches;
    net.n_searches = 1;
    assert_int_equal(podfiles_resolv_conf(NULL, &net, host_file, &text, &err), 0);
    assert_string_equal(text, "search a.example\nnameserver 192.0.2.1\n");
    free(text);

    dns.servers = servers;
    dns.n_servers = 2;
    dns.searches = searches;
    dns.n_searches = 2;
    dns.options = options;
    dns.n_options = 1;
    assert_int_equal(podfiles_resolv_conf(&dns, &net, host_file, &text, &err), 0);
    assert_string_equal(text, "search a.example b.example\nnameserver 192.0.2.1\n"
                              "nameserver 2001:db8::1\noptions ndots:5\n");
    free(text);
    assert_int_equal(podfiles_check_dns(&dns, &err), 0);
    assert_int_equal(podfiles_check_dns(NULL, &err), 0);
    options[0] = bad;
    assert_int_equal(podfiles_check_dns(&dns, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "dns_config"));
    assert_int_equal(podfiles_resolv_conf(&dns, &net, host_file, &text, &err), -1);
}

static void hosts_name_the_pod(void **state)
{
    const char ips[2][NET_ADDR_TEXT] = {"10.1.2.3", "2001:db8::9"};
    struct err err;
    char *text = NULL;

    (void)state;
    assert_int_equal(podfiles_hosts("web", ips, 2, &text, &err), 0);
    assert_non_null(strstr(text, "127.0.0.1\tlocalhost\n"));
    assert_non_null(strstr(text, "\n10.1.2.3\tweb\n2001:db8::9\tweb\n"));
    assert_null(strstr(text, "127.0.1.1"));
    free(text);
    assert_int_equal(podfiles_hosts("web", NULL, 0, &text, &err), 0);
    assert_non_null(strstr(text, "\n127.0.1.1\tweb\n"));
    free(text);
    assert_int_equal(podfiles_hostname("web", &text, &err), 0);
    assert_string_equal(text, "web\n");
    free(text);
}

static void the_message_carries_all(void **state)
{
    struct net_addr addr = {.bytes = {10, 1, 2, 3}, .len = 4, .prefix = 24};
    struct net_route routes[2] = {
        {.dst = {.bytes = {10, 1, 2, 0}, .len = 4, .prefix = 24},
         .source = {.bytes = {10, 1, 2, 3}, .len = 4, .prefix = 32},
         .scope = 253},
        {.dst = {.len = 4},
         .gateway = {.bytes = {0xfe, 0x80, [15] = 1}, .len = 16, .prefix = 128},
         .metric = 7,
         .mtu = 1300,
         .advmss = 1200,
         .onlink = true},
    };
    struct net_neighbour neighbour = {.addr = {.bytes = {10, 1, 2, 1}, .len = 4, .prefix = 32},
                                      .mac = {2, 1, 1, 1, 1, 1}};
    struct net_iface iface = {.name = "eth0",
                              .mac = {2, 9, 9, 9, 9, 9},
                              .mtu = 1400,
                              .tap_fd = -1,
                              .addrs = &addr,
                              .n_addrs = 1,
                              .routes = routes,
                              .n_routes = 2,
                              .neighbours = &neighbour,
                              .n_neighbours = 1};
    char name[] = "net.ipv4.conf.eth0.arp_filter", value[] = "1";
    struct net_sysctl sysctl = {.name = name, .value = value};
    char ips[1][NET_ADDR_TEXT] = {"10.1.2.3"};
    struct net_result result = {.ifaces = &iface,
                                .n_ifaces = 1,
                                .ips = ips,
                                .n_ips = 1,
                                .sysctls = &sysctl,
                                .n_sysctls = 1};
    const uint32_t slots[] = {16};
    const struct netmsg_input input = {
        .result = &result, .slots = slots, .hostname = "web", .host_resolv_conf = host_file};
    cleanup_netmsg struct netmsg m = {0}, alone = {0};
    struct err err;

    (void)state;
    assert_int_equal(netmsg_init(&m, &input, &err), 0);
    assert_int_equal(m.message.n_interfaces, 1);
    const Casemate__Agent__V1__NetInterface *i = m.message.interfaces[0];
    assert_string_equal(i->name, "eth0");
    assert_int_equal(i->pci_slot, 16);
    assert_int_equal(i->mtu, 1400);
    assert_memory_equal(i->mac.data, iface.mac, 6);
    assert_int_equal(i->n_addresses, 1);
    assert_int_equal(i->addresses[0]->prefix, 24);
    assert_int_equal(i->addresses[0]->address.len, 4);
    assert_int_equal(i->n_routes, 2);
    assert_int_equal(i->routes[0]->gateway.len, 0);
    assert_int_equal(i->routes[0]->source.len, 4);
    assert_int_equal(i->routes[0]->scope, 253);
    assert_int_equal(i->routes[1]->dst->prefix, 0);
    assert_int_equal(i->routes[1]->dst->address.len, 4);
    assert_int_equal(i->routes[1]->gateway.len, 16);
    assert_int_equal(i->routes[1]->metric, 7);
    assert_int_equal(i->routes[1]->mtu, 1300);
    assert_int_equal(i->routes[1]->advmss, 1200);
    assert_true(i->routes[1]->onlink);
    assert_int_equal(i->n_neighbours, 1);
    assert_memory_equal(i->neighbours[0]->mac.data, neighbour.mac, 6);
    assert_int_equal(m.message.n_sysctls, 1);
    assert_string_equal(m.message.sysctls[0]->name, name);
    assert_memory_equal(m.message.hostname.data, "web\n", 4);
    assert_int_equal(m.message.resolv_conf.len, strlen("nameserver 192.0.2.53\n"));
    assert_true(casemate__agent__v1__network__get_packed_size(&m.message) > 100);

    const struct netmsg_input none = {.hostname = "web", .host_resolv_conf = host_file};
    assert_int_equal(netmsg_init(&alone, &none, &err), 0);
    assert_int_equal(alone.message.n_interfaces, 0);
    assert_true(alone.message.hosts.len > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolver_is_whose_word_counts),
        cmocka_unit_test(hosts_name_the_pod),
        cmocka_unit_test(the_message_carries_all),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
