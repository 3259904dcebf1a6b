/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lengths, families and ranges are settled here, so that what makes kernel messages of them need
 * not ask again. What only the kernel can judge (a gateway that nothing leads to) is left to it.
 */
#include "agent/net/netvalid.h"

#include <ctype.h>
#include <net/if.h>
#include <string.h>

#include "agent/container/validate.h"

#define MIN_MTU 68u
#define MAX_MTU 65535u

static const uint8_t nobody[6];

/* As the kernel has it: no slash, no space, not a directory's name. */
static bool is_name(const char *name)
{
    const size_t n = strlen(name);

    if (n == 0 || n >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        strcmp(name, "lo") == 0)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (name[i] == '/' || name[i] == ':' || name[i] == '%' || !isgraph((unsigned char)name[i]))
            return false;
    }
    return true;
}

static bool is_mac(const ProtobufCBinaryData *mac)
{
    return mac->len == sizeof(nobody) && (mac->data[0] & 1) == 0 &&
           memcmp(mac->data, nobody, sizeof(nobody)) != 0;
}

static bool is_ip(const ProtobufCBinaryData *address)
{
    return address->len == 4 || address->len == 16;
}

static bool is_prefix(const Casemate__Agent__V1__NetAddress *address)
{
    return address != NULL && is_ip(&address->address) &&
           address->prefix <= address->address.len * 8;
}

static int check_route(const Casemate__Agent__V1__NetRoute *route, struct err *err)
{
    if (!is_prefix(route->dst))
        return err_set(err, ERR_INVALID, "dst: no address with a prefix");
    if (route->gateway.len > 0 && !is_ip(&route->gateway))
        return err_set(err, ERR_INVALID, "gateway: no address");
    if (route->gateway.len == 4 && route->dst->address.len == 16)
        return err_set(err, ERR_INVALID, "gateway: IPv4 cannot be one for IPv6");
    if (route->source.len > 0 && route->source.len != route->dst->address.len)
        return err_set(err, ERR_INVALID, "source: no address of dst's family");
    if (route->scope > UINT8_MAX)
        return err_set(err, ERR_INVALID, "scope: above 255");
    return 0;
}

static int check_items(const Casemate__Agent__V1__NetInterface *i, struct err *err)
{
    if (i->n_addresses > NETVALID_MAX_ITEMS || i->n_routes > NETVALID_MAX_ITEMS ||
        i->n_neighbours > NETVALID_MAX_ITEMS)
        return err_set(err, ERR_INVALID, "more than %u addresses, routes or neighbours",
                       NETVALID_MAX_ITEMS);
    for (size_t n = 0; n < i->n_addresses; n++) {
        if (!is_prefix(i->addresses[n]))
            return err_set(err, ERR_INVALID, "addresses[%zu]: no address with a prefix", n);
    }
    for (size_t n = 0; n < i->n_routes; n++) {
        if (check_route(i->routes[n], err) < 0)
            return err_prefix(err, "routes[%zu]", n);
    }
    for (size_t n = 0; n < i->n_neighbours; n++) {
        if (!is_ip(&i->neighbours[n]->address) || i->neighbours[n]->mac.len != sizeof(nobody))
            return err_set(err, ERR_INVALID, "neighbours[%zu]: no address with a MAC address", n);
    }
    return 0;
}

static int check_interface(const Casemate__Agent__V1__NetInterface *i, struct err *err)
{
    if (!is_name(i->name))
        return err_set(err, ERR_INVALID, "'%.32s' is no name for an interface", i->name);
    if (!is_mac(&i->mac))
        return err_set(err, ERR_INVALID, "mac: not one of a single station");
    if (i->pci_slot > 31)
        return err_set(err, ERR_INVALID, "pci_slot: above 31");
    if (i->mtu != 0 && (i->mtu < MIN_MTU || i->mtu > MAX_MTU))
        return err_set(err, ERR_INVALID, "mtu: not %u to %u", MIN_MTU, MAX_MTU);
    return check_items(i, err);
}

int netvalid_check(const Casemate__Agent__V1__Network *network, struct err *err)
{
    if (network->n_interfaces > NETVALID_MAX_INTERFACES)
        return err_set(err, ERR_INVALID, "network: more than %u interfaces",
                       NETVALID_MAX_INTERFACES);
    for (size_t i = 0; i < network->n_interfaces; i++) {
        const Casemate__Agent__V1__NetInterface *a = network->interfaces[i];
        if (check_interface(a, err) < 0)
            return err_prefix(err, "network: interfaces[%zu]", i);
        for (size_t j = 0; j < i; j++) {
            const Casemate__Agent__V1__NetInterface *b = network->interfaces[j];
            if (strcmp(a->name, b->name) == 0 || (a->pci_slot != 0 && a->pci_slot == b->pci_slot))
                return err_set(err, ERR_INVALID, "network: interfaces %zu and %zu are one", j, i);
        }
    }
    if (network->resolv_conf.len > NETVALID_MAX_FILE || network->hosts.len > NETVALID_MAX_FILE ||
        network->hostname.len > NETVALID_MAX_FILE)
        return err_set(err, ERR_INVALID, "network: a file of more than %u bytes",
                       NETVALID_MAX_FILE);
    return validate_sysctls(network->sysctls, network->n_sysctls, err);
}
