/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything lives in one arena. Its limit is above what the network room can find (some thousand
 * routes), and messages beyond the agent's limits are refused by the agent, by name.
 */
#include "host/sandbox/netmsg.h"

#include <string.h>

#include "common/rpc/arena.h"
#include "host/sandbox/podfiles.h"

#define MAX_BYTES (16u << 20)

/* n items of size bytes, zeroed; also a list of pointers. Never NULL for n == 0. */
static void *take(struct netmsg *m, size_t n, size_t size)
{
    void *memory = rpc_arena_alloc(m->arena, n * size + 1);

    if (memory != NULL)
        memset(memory, 0, n * size + 1);
    return memory;
}

static bool put_bytes(struct netmsg *m, ProtobufCBinaryData *field, const void *bytes, size_t n)
{
    field->data = take(m, n, 1);
    field->len = n;
    if (field->data == NULL)
        return false;
    if (n > 0)
        memcpy(field->data, bytes, n);
    return true;
}

static char *put_text(struct netmsg *m, const char *text)
{
    char *copy = take(m, strlen(text) + 1, 1);

    if (copy != NULL)
        memcpy(copy, text, strlen(text) + 1);
    return copy;
}

static Casemate__Agent__V1__NetAddress *put_address(struct netmsg *m, const struct net_addr *addr)
{
    Casemate__Agent__V1__NetAddress *a = take(m, 1, sizeof(*a));

    if (a == NULL)
        return NULL;
    casemate__agent__v1__net_address__init(a);
    a->prefix = addr->prefix;
    return put_bytes(m, &a->address, addr->bytes, addr->len) ? a : NULL;
}

static bool put_addresses(struct netmsg *m, Casemate__Agent__V1__NetInterface *to,
                          const struct net_iface *from)
{
    to->addresses = take(m, from->n_addrs, sizeof(to->addresses[0]));
    if (to->addresses == NULL)
        return false;
    for (size_t i = 0; i < from->n_addrs; i++) {
        to->addresses[i] = put_address(m, &from->addrs[i]);
        if (to->addresses[i] == NULL)
            return false;
    }
    to->n_addresses = from->n_addrs;
    return true;
}

static bool put_routes(struct netmsg *m, Casemate__Agent__V1__NetInterface *to,
                       const struct net_iface *from)
{
    Casemate__Agent__V1__NetRoute *routes = take(m, from->n_routes, sizeof(*routes));

    to->routes = take(m, from->n_routes, sizeof(to->routes[0]));
    if (to->routes == NULL || routes == NULL)
        return false;
    for (size_t i = 0; i < from->n_routes; i++) {
        const struct net_route *r = &from->routes[i];
        casemate__agent__v1__net_route__init(&routes[i]);
        routes[i].dst = put_address(m, &r->dst);
        routes[i].metric = r->metric;
        routes[i].mtu = r->mtu;
        routes[i].advmss = r->advmss;
        routes[i].scope = r->scope;
        routes[i].onlink = r->onlink;
        if (routes[i].dst == NULL ||
            !put_bytes(m, &routes[i].gateway, r->gateway.bytes, r->gateway.len) ||
            !put_bytes(m, &routes[i].source, r->source.bytes, r->source.len))
            return false;
        to->routes[i] = &routes[i];
    }
    to->n_routes = from->n_routes;
    return true;
}

static bool put_neighbours(struct netmsg *m, Casemate__Agent__V1__NetInterface *to,
                           const struct net_iface *from)
{
    Casemate__Agent__V1__NetNeighbour *list = take(m, from->n_neighbours, sizeof(*list));

    to->neighbours = take(m, from->n_neighbours, sizeof(to->neighbours[0]));
    if (to->neighbours == NULL || list == NULL)
        return false;
    for (size_t i = 0; i < from->n_neighbours; i++) {
        const struct net_neighbour *n = &from->neighbours[i];
        casemate__agent__v1__net_neighbour__init(&list[i]);
        if (!put_bytes(m, &list[i].address, n->addr.bytes, n->addr.len) ||
            !put_bytes(m, &list[i].mac, n->mac, sizeof(n->mac)))
            return false;
        to->neighbours[i] = &list[i];
    }
    to->n_neighbours = from->n_neighbours;
    return true;
}

static bool put_interfaces(struct netmsg *m, const struct netmsg_input *input)
{
    const struct net_result *r = input->result;
    Casemate__Agent__V1__NetInterface *list = take(m, r->n_ifaces, sizeof(*list));

    m->message.interfaces = take(m, r->n_ifaces, sizeof(m->message.interfaces[0]));
    if (m->message.interfaces == NULL || list == NULL)
        return false;
    for (size_t i = 0; i < r->n_ifaces; i++) {
        const struct net_iface *from = &r->ifaces[i];
        casemate__agent__v1__net_interface__init(&list[i]);
        list[i].name = put_text(m, from->name);
        list[i].pci_slot = input->slots[i];
        list[i].mtu = from->mtu;
        if (list[i].name == NULL || !put_bytes(m, &list[i].mac, from->mac, sizeof(from->mac)) ||
            !put_addresses(m, &list[i], from) || !put_routes(m, &list[i], from) ||
            !put_neighbours(m, &list[i], from))
            return false;
        m->message.interfaces[i] = &list[i];
    }
    m->message.n_interfaces = r->n_ifaces;
    return true;
}

static bool put_sysctls(struct netmsg *m, const struct net_result *r)
{
    Casemate__Agent__V1__Sysctl *list = take(m, r->n_sysctls, sizeof(*list));

    m->message.sysctls = take(m, r->n_sysctls, sizeof(m->message.sysctls[0]));
    if (m->message.sysctls == NULL || list == NULL)
        return false;
    for (size_t i = 0; i < r->n_sysctls; i++) {
        casemate__agent__v1__sysctl__init(&list[i]);
        list[i].name = put_text(m, r->sysctls[i].name);
        list[i].value = put_text(m, r->sysctls[i].value);
        if (list[i].name == NULL || list[i].value == NULL)
            return false;
        m->message.sysctls[i] = &list[i];
    }
    m->message.n_sysctls = r->n_sysctls;
    return true;
}

static int put_files(struct netmsg *m, const struct netmsg_input *input, struct err *err)
{
    const struct net_result *r = input->result;
    cleanup_free char *resolv_conf = NULL, *hosts = NULL, *hostname = NULL;

    if (podfiles_resolv_conf(input->dns, r != NULL ? &r->dns : NULL, input->host_resolv_conf,
                             &resolv_conf, err) < 0 ||
        podfiles_hosts(input->hostname, r != NULL ? (const char(*)[NET_ADDR_TEXT])r->ips : NULL,
                       r != NULL ? r->n_ips : 0, &hosts, err) < 0 ||
        podfiles_hostname(input->hostname, &hostname, err) < 0)
        return -1;
    if (!put_bytes(m, &m->message.resolv_conf, resolv_conf, strlen(resolv_conf)) ||
        !put_bytes(m, &m->message.hosts, hosts, strlen(hosts)) ||
        !put_bytes(m, &m->message.hostname, hostname, strlen(hostname)))
        return err_no_memory(err);
    return 0;
}

int netmsg_init(struct netmsg *ret_message, const struct netmsg_input *input, struct err *err)
{
    cleanup_netmsg struct netmsg m = {0};

    casemate__agent__v1__network__init(&m.message);
    if (rpc_arena_new(MAX_BYTES, &m.arena, err) < 0 || put_files(&m, input, err) < 0)
        return -1;
    if (input->result != NULL && (!put_interfaces(&m, input) || !put_sysctls(&m, input->result)))
        return err_no_memory(err);
    *ret_message = m;
    m.arena = NULL;
    return 0;
}

void netmsg_fini(struct netmsg *message)
{
    rpc_arena_free(message->arena);
    message->arena = NULL;
}
