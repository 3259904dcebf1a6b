/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces made as a message says, in a network namespace of the test's own: veth pairs stand for
 * the VM's cards, and ip(8) says what came of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/net/ifind.h"
#include "agent/net/netstats.h"
#include "agent/net/network.h"
#include "agent/net/netvalid.h"
#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/netlink.h"

#define SOON() clock_deadline(100)

/* ---- messages ------------------------------------------------------------------------------- */

#define MAX_ITEMS 8

/* An interface's message with room for what it points to. */
struct card {
    Casemate__Agent__V1__NetInterface message;
    char name[32];
    uint8_t mac[6];
    Casemate__Agent__V1__NetAddress addresses[MAX_ITEMS], nets[MAX_ITEMS];
    Casemate__Agent__V1__NetRoute routes[MAX_ITEMS];
    Casemate__Agent__V1__NetNeighbour neighbours[MAX_ITEMS];
    uint8_t bytes[64][16];
    size_t n_bytes;
    Casemate__Agent__V1__NetAddress *address_list[MAX_ITEMS];
    Casemate__Agent__V1__NetRoute *route_list[MAX_ITEMS];
    Casemate__Agent__V1__NetNeighbour *neighbour_list[MAX_ITEMS];
};

static void init(struct card *c, const char *name, const uint8_t mac[6])
{
    memset(c, 0, sizeof(*c));
    casemate__agent__v1__net_interface__init(&c->message);
    (void)snprintf(c->name, sizeof(c->name), "%s", name);
    memcpy(c->mac, mac, 6);
    c->message.name = c->name;
    c->message.mac = (ProtobufCBinaryData){.len = 6, .data = c->mac};
    c->message.addresses = c->address_list;
    c->message.routes = c->route_list;
    c->message.neighbours = c->neighbour_list;
}

/* "10.1.2.3" or "fd00::1"; "": no bytes. */
static ProtobufCBinaryData ip(struct card *c, const char *text)
{
    uint8_t *at = c->bytes[c->n_bytes++];

    if (text[0] == '\0')
        return (ProtobufCBinaryData){0};
    if (inet_pton(AF_INET, text, at) == 1)
        return (ProtobufCBinaryData){.len = 4, .data = at};
    assert_int_equal(inet_pton(AF_INET6, text, at), 1);
    return (ProtobufCBinaryData){.len = 16, .data = at};
}

static void address(struct card *c, const char *text, uint32_t prefix)
{
    size_t i = c->message.n_addresses++;

    casemate__agent__v1__net_address__init(&c->addresses[i]);
    c->addresses[i].address = ip(c, text);
    c->addresses[i].prefix = prefix;
    c->address_list[i] = &c->addresses[i];
}

static Casemate__Agent__V1__NetRoute *route(struct card *c, const char *net, uint32_t prefix,
                                            const char *gateway)
{
    size_t i = c->message.n_routes++;
    Casemate__Agent__V1__NetRoute *r = &c->routes[i];

    casemate__agent__v1__net_route__init(r);
    casemate__agent__v1__net_address__init(&c->nets[i]);
    c->nets[i].address = ip(c, net);
    c->nets[i].prefix = prefix;
    r->dst = &c->nets[i];
    r->gateway = ip(c, gateway);
    r->scope = gateway[0] == '\0' && r->dst->address.len == 4 ? 253 : 0;
    c->route_list[i] = r;
    return r;
}

static void neighbour(struct card *c, const char *text, const uint8_t mac[6])
{
    size_t i = c->message.n_neighbours++;
    uint8_t *at = c->bytes[c->n_bytes++];

    casemate__agent__v1__net_neighbour__init(&c->neighbours[i]);
    c->neighbours[i].address = ip(c, text);
    memcpy(at, mac, 6);
    c->neighbours[i].mac = (ProtobufCBinaryData){.len = 6, .data = at};
    c->neighbour_list[i] = &c->neighbours[i];
}

static int apply(struct card *a, struct card *b, struct err *err)
{
    Casemate__Agent__V1__Network network = CASEMATE__AGENT__V1__NETWORK__INIT;
    Casemate__Agent__V1__NetInterface *list[2] = {&a->message, b != NULL ? &b->message : NULL};

    network.interfaces = list;
    network.n_interfaces = b != NULL ? 2 : 1;
    if (netvalid_check(&network, err) < 0)
        return -1;
    return network_apply(&network, NULL, SOON(), err);
}

static void must_apply(struct card *a, struct card *b)
{
    struct err err;

    if (apply(a, b, &err) < 0)
        fail_msg("%s", err.msg);
}

/* ---- the namespace -------------------------------------------------------------------------- */

static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0xa}, mac_b[6] = {2, 0, 0, 0, 0, 0xb},
                     other[6] = {2, 0, 0, 0, 0, 0xc};

static void run(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

static const char *ask(const char *command)
{
    static char text[16384];
    FILE *f = popen(command, "re");

    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    (void)pclose(f);
    return text;
}

static void expect(const char *command, const char *part)
{
    const char *text = ask(command);

    if (strstr(text, part) == NULL)
        fail_msg("%s: no '%s' in:\n%s", command, part, text);
}

static void expect_none(const char *command, const char *part)
{
    const char *text = ask(command);

    if (strstr(text, part) != NULL)
        fail_msg("%s: '%s' in:\n%s", command, part, text);
}

static bool able;

static int setup(void **state)
{
    (void)state;
    able = system("command -v ip >/dev/null 2>&1") == 0 && unshare(CLONE_NEWNET) == 0;
    if (!able) {
        print_message("SKIP: needs ip(8) and the right to make a network namespace\n");
        return 0;
    }
    /* A clone's card has its template's MAC address; here both have names of no use. */
    run("ip link add one address 02:00:00:00:00:0a type veth peer name far1");
    run("ip link add two address 02:00:00:00:00:0b type veth peer name far2");
    run("ip link set far1 up; ip link set far2 up");
    return 0;
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void an_interface_is_made(void **state)
{
    struct card c;

    (void)state;
    if (!able)
        skip();
    init(&c, "eth0", mac_a);
    c.message.mtu = 1400;
    address(&c, "10.1.2.3", 24);
    address(&c, "fd00:1::3", 64);
    route(&c, "0.0.0.0", 0, "10.1.2.1");
    route(&c, "10.1.2.0", 24, "")->source = ip(&c, "10.1.2.3");
    route(&c, "fd00:1::", 64, "");
    route(&c, "::", 0, "fd00:1::1")->metric = 5;
    neighbour(&c, "10.1.2.1", other);
    for (int i = 0; i < 2; i++) {
        must_apply(&c, NULL);
        expect("ip link show eth0", "mtu 1400");
        expect("ip link show eth0", ",UP");
        expect("ip -4 addr show eth0", "inet 10.1.2.3/24 brd 10.1.2.255 scope global");
        expect("ip -6 addr show eth0", "inet6 fd00:1::3/64 scope global nodad");
        expect_none("ip -6 addr show eth0", "tentative");
        expect("ip -4 route", "default via 10.1.2.1 dev eth0");
        expect("ip -4 route", "10.1.2.0/24 dev eth0");
        expect("ip -4 route", "src 10.1.2.3");
        expect("ip -6 route", "fd00:1::/64 dev eth0");
        expect("ip -6 route", "default via fd00:1::1 dev eth0 metric 5");
        expect("ip neigh show dev eth0", "10.1.2.1 lladdr 02:00:00:00:00:0c PERMANENT");
        assert_int_equal(atoi(ask("ip -4 route show dev eth0 | wc -l")), 2);
    }
}

static void what_is_more_is_taken_off(void **state)
{
    struct card c;

    (void)state;
    if (!able)
        skip();
    init(&c, "eth0", mac_a);
    address(&c, "10.1.2.3", 24);
    address(&c, "10.1.9.9", 32);
    must_apply(&c, NULL);
    run("ip addr add 10.7.7.7/24 dev eth0; ip route add 10.8.0.0/16 via 10.7.7.1;"
        "ip -6 addr add fd00:7::7/64 dev eth0 nodad; ip neigh add 10.7.7.2 lladdr "
        "02:00:00:00:00:0d dev eth0 nud permanent");
    init(&c, "eth0", mac_a);
    address(&c, "10.1.2.4", 24);
    route(&c, "10.1.2.0", 24, "");
    must_apply(&c, NULL);
    assert_string_equal(ask("ip -o -4 addr show eth0 | grep -c inet"), "1\n");
    expect("ip -4 addr show eth0", "10.1.2.4/24");
    expect_none("ip -6 addr show eth0", "scope global");
    expect("ip -6 addr show eth0", "fe80::");
    assert_string_equal(ask("ip -4 route show dev eth0 | grep -c ."), "1\n");
    expect_none("ip -6 route show dev eth0", "fd00");
    expect("ip -6 route show dev eth0", "fe80::/64");
    assert_string_equal(ask("ip neigh show dev eth0 nud permanent"), "");
}

/* As some networks have it: nothing but a host route, and a gateway beyond. */
static void a_gateway_may_be_outside_the_subnet(void **state)
{
    struct card c;

    (void)state;
    if (!able)
        skip();
    init(&c, "eth0", mac_a);
    address(&c, "10.1.2.3", 32);
    route(&c, "0.0.0.0", 0, "169.254.1.1");
    route(&c, "169.254.1.1", 32, "");
    route(&c, "10.50.0.0", 16, "192.0.2.1")->onlink = true;
    Casemate__Agent__V1__NetRoute *r = route(&c, "10.51.0.0", 16, "fe80::1");
    r->mtu = 1200;
    r->advmss = 1100;
    must_apply(&c, NULL);
    expect("ip -4 route", "default via 169.254.1.1 dev eth0");
    expect("ip -4 route", "169.254.1.1 dev eth0 scope link");
    expect("ip -4 route", "10.50.0.0/16 via 192.0.2.1 dev eth0 onlink");
    expect("ip -4 route", "10.51.0.0/16 via inet6 fe80::1 dev eth0 mtu 1200 advmss 1100");
    /* One that nothing leads to is refused in words. */
    struct err err;
    route(&c, "10.60.0.0", 16, "192.0.2.9");
    assert_int_equal(apply(&c, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "route to 10.60.0.0/16 via 192.0.2.9"));
}

static void names_change_hands(void **state)
{
    struct card a, b;

    (void)state;
    if (!able)
        skip();
    for (int i = 0; i < 3; i++) {
        init(&a, i % 2 == 0 ? "eth0" : "eth1", mac_a);
        init(&b, i % 2 == 0 ? "eth1" : "eth0", mac_b);
        must_apply(&a, &b);
        expect(i % 2 == 0 ? "ip link show eth0" : "ip link show eth1", "02:00:00:00:00:0a");
        expect(i % 2 == 0 ? "ip link show eth1" : "ip link show eth0", "02:00:00:00:00:0b");
        assert_int_equal(atoi(ask("ip -o link | grep -c ',UP'")) >= 2, 1);
    }
}

static void the_mac_is_set_where_the_place_is_known(void **state)
{
    char dir[] = "/tmp/netslot.XXXXXX";
    struct ifind found;
    struct err err;
    unsigned int slot = 0;
    cleanup_fd int fd = -1;

    (void)state;
    if (!able)
        skip();
    assert_non_null(mkdtemp(dir));
    cleanup_fd int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    run("ip link show two >/dev/null 2>&1 || { ip link set eth1 down; ip link set eth1 name two; "
        "}");
    assert_int_equal(symlinkat("../../devices/pci0000:00/0000:00:10.0/virtio3/net/two", at, "two"),
                     0);
    assert_int_equal(
        symlinkat("../../devices/pci0000:00/0000:00:11.0/0000:01:00.0/virtio9/net/far2", at,
                  "far2"),
        0);
    assert_int_equal(symlinkat("../../devices/virtual/net/far1", at, "far1"), 0);
    assert_int_equal(netlink_open(&fd, &err), 0);
    assert_int_equal(ifind_by_slot(fd, dir, 0x10, &found, &err), 0);
    assert_string_equal(found.name, "two");
    assert_memory_equal(found.mac, mac_b, 6);
    assert_int_equal(ifind_by_slot(fd, dir, 0x11, &found, &err), 0);
    assert_string_equal(found.name, "far2");
    assert_int_equal(ifind_by_slot(fd, dir, 0x12, &found, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(ifind_first(fd, dir, &found, &slot, &err), 0);
    assert_true(slot == 0x10 || slot == 0x11);
    assert_int_equal(unlinkat(at, "two", 0), 0);
    assert_int_equal(unlinkat(at, "far2", 0), 0);
    assert_int_equal(ifind_first(fd, dir, &found, &slot, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
}

/* The way of a clone: made ready at boot, with another's MAC address, and then told who it is. */
static void a_card_made_ready_becomes_the_pods(void **state)
{
    struct network_card card = {.ready = true, .ipv6 = true, .slot = 16, .outside_ns = -1};
    Casemate__Agent__V1__Network network = CASEMATE__AGENT__V1__NETWORK__INIT;
    struct card c;
    Casemate__Agent__V1__NetInterface *list[2] = {&c.message, &c.message};
    struct err err;
    cleanup_fd int fd = -1;

    (void)state;
    if (!able)
        skip();
    run("ip link add card address 02:00:00:00:00:01 type veth peer name farc; ip link set farc up;"
        "ip link set card addrgenmode none; ip link set card up");
    assert_int_equal(netlink_open(&fd, &err), 0);
    assert_int_equal(ifind_by_name(fd, "card", &card.is, &err), 0);
    init(&c, "card", other);
    c.mac[5] = 0x1c;
    c.message.pci_slot = 16;
    c.message.mtu = 1300;
    address(&c, "10.3.0.2", 24);
    address(&c, "fd00:3::2", 64);
    route(&c, "10.3.0.0", 24, "");
    route(&c, "::", 0, "fe80::9");
    network.interfaces = list;
    network.n_interfaces = 1;
    assert_true(network_is_ready(&network, &card));
    if (network_apply(&network, &card, SOON(), &err) < 0)
        fail_msg("%s", err.msg);
    expect("ip link show card", "02:00:00:00:00:1c");
    expect("ip link show card", "mtu 1300");
    expect("ip -d link show card", "addrgenmode eui64");
    expect("ip addr show card", "10.3.0.2/24");
    expect("ip addr show card", "fd00:3::2/64");
    expect("ip addr show card", "fe80::ff:fe00:1c/64 scope link");
    expect_none("ip addr show card", "tentative");
    expect("ip -6 route show dev card", "fe80::/64");
    expect("ip -6 route show dev card", "default via fe80::9");

    /* Everything else takes the long way. */
    network.n_interfaces = 2;
    assert_false(network_is_ready(&network, &card));
    network.n_interfaces = 0;
    assert_true(network_is_ready(&network, &card));
    network.n_interfaces = 1;
    c.message.pci_slot = 17;
    assert_false(network_is_ready(&network, &card));
    c.message.pci_slot = 16;
    card.ready = false;
    assert_false(network_is_ready(&network, &card));
}

static void what_is_not_there_is_waited_for(void **state)
{
    struct card c;
    struct err err;

    (void)state;
    if (!able)
        skip();
    init(&c, "net9", other);
    assert_int_equal(apply(&c, NULL, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "02:00:00:00:00:0c"));

    Casemate__Agent__V1__Network network = CASEMATE__AGENT__V1__NETWORK__INIT;
    Casemate__Agent__V1__NetInterface *list[1] = {&c.message};
    network.interfaces = list;
    network.n_interfaces = 1;
    run("(ip link add late address 02:00:00:00:00:0c type veth peer name far9) &");
    assert_int_equal(network_apply(&network, NULL, clock_deadline(20000), &err), 0);
    expect("ip link show net9", "02:00:00:00:00:0c");
}

static void figures_are_read(void **state)
{
    static struct netstats stats[NETSTATS_MAX];
    struct err err;
    size_t n = 0, found = 0;

    (void)state;
    if (!able)
        skip();
    struct network_card card;
    network_prepare(&card);
    expect("ip addr show lo", "127.0.0.1/8");
    assert_int_equal(netstats_read(stats, &n, &err), 0);
    assert_true(n >= 4);
    for (size_t i = 0; i < n; i++) {
        assert_string_not_equal(stats[i].message.name, "lo");
        /* Something was said when it went up. */
        if (strcmp(stats[i].message.name, "far1") == 0) {
            found++;
            assert_true(stats[i].message.tx_packets > 0 || stats[i].message.rx_packets > 0);
        }
    }
    assert_int_equal(found, 1);
}

static void bad_messages_are_refused(void **state)
{
    static const char *const names[] = {"", "lo", "a b", "a/b", ".", "..", "0123456789abcdef"};
    static uint8_t bytes[NETVALID_MAX_FILE + 1];
    Casemate__Agent__V1__Network network = CASEMATE__AGENT__V1__NETWORK__INIT;
    struct card a, b;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        init(&a, names[i], mac_a);
        assert_int_equal(apply(&a, NULL, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    for (int i = 0; i < 12; i++) {
        init(&a, "eth0", mac_a);
        if (i == 0)
            a.mac[0] = 1;
        else if (i == 1)
            memset(a.mac, 0, 6);
        else if (i == 2)
            a.message.mac.len = 5;
        else if (i == 3)
            a.message.pci_slot = 32;
        else if (i == 4)
            a.message.mtu = 67;
        else if (i == 5)
            address(&a, "10.0.0.1", 33);
        else if (i == 6)
            address(&a, "", 0);
        else if (i == 7)
            route(&a, "fd00::", 64, "10.0.0.1");
        else if (i == 8)
            route(&a, "fd00::", 64, "")->source = ip(&a, "10.0.0.1");
        else if (i == 9)
            route(&a, "fd00::", 64, "")->scope = 256;
        else if (i == 10)
            route(&a, "fd00::", 64, "")->dst = NULL;
        else
            a.message.n_addresses = NETVALID_MAX_ITEMS + 1;
        assert_int_equal(apply(&a, NULL, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    init(&a, "eth0", mac_a);
    init(&b, "eth0", mac_b);
    assert_int_equal(apply(&a, &b, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    network.hosts = (ProtobufCBinaryData){.len = sizeof(bytes), .data = bytes};
    assert_int_equal(netvalid_check(&network, &err), -1);
    network.hosts.len = 1;
    network.n_interfaces = NETVALID_MAX_INTERFACES + 1;
    assert_int_equal(netvalid_check(&network, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_interface_is_made),
        cmocka_unit_test(what_is_more_is_taken_off),
        cmocka_unit_test(a_gateway_may_be_outside_the_subnet),
        cmocka_unit_test(names_change_hands),
        cmocka_unit_test(the_mac_is_set_where_the_place_is_known),
        cmocka_unit_test(a_card_made_ready_becomes_the_pods),
        cmocka_unit_test(what_is_not_there_is_waited_for),
        cmocka_unit_test(figures_are_read),
        cmocka_unit_test(bad_messages_are_refused),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
