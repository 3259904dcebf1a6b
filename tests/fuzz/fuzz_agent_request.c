/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests as the wire brings them, against the validator: the first byte chooses the message, the
 * rest is its encoding. What passes must keep the promises that the rooms behind rely on.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/container/validate.h"
#include "agent/mount/rootfs.h"
#include "agent/net/netvalid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void promises_of_process(const Casemate__Agent__V1__Process *p)
{
    require(p->n_args > 0 && p->args[0][0] != '\0');
    require(p->cwd[0] == '\0' || p->cwd[0] == '/');
    require(p->tty_width < 65536 && p->tty_height < 65536);
    require(p->oom_score_adj >= -1000 && p->oom_score_adj <= 1000);
    require(p->seccomp == NULL || (p->seccomp->filter.len > 0 && p->seccomp->filter.len % 8 == 0 &&
                                   p->seccomp->filter.len <= 8 * 4096));
}

static void promises_of_create(const Casemate__Agent__V1__CreateContainerRequest *r)
{
    require(strchr(r->id, '/') == NULL && r->id[0] != '.' && strlen(r->id) <= VALIDATE_MAX_ID);
    require(r->rootfs->n_layers > 0 && r->rootfs->n_layers <= ROOTFS_MAX_LAYERS);
    for (size_t i = 0; r->resources != NULL && i < r->resources->n_cgroup; i++)
        require(strchr(r->resources->cgroup[i]->file, '/') == NULL &&
                strncmp(r->resources->cgroup[i]->file, "cgroup", 6) != 0);
    for (size_t i = 0; i < r->n_masked_paths; i++)
        require(r->masked_paths[i][0] == '/');
    for (size_t i = 0; i < r->n_devices; i++) {
        require(strncmp(r->devices[i]->path, "/dev/", 5) == 0 &&
                strstr(r->devices[i]->path, "/../") == NULL);
        require(strspn(r->devices[i]->permissions, "rwm") == strlen(r->devices[i]->permissions));
    }
    promises_of_process(r->process);
}

static void promises_of_network(const Casemate__Agent__V1__Network *n)
{
    require(n->n_interfaces <= NETVALID_MAX_INTERFACES && n->hosts.len <= NETVALID_MAX_FILE);
    for (size_t i = 0; i < n->n_interfaces; i++) {
        const Casemate__Agent__V1__NetInterface *c = n->interfaces[i];
        require(c->name[0] != '\0' && strlen(c->name) < 16 && strchr(c->name, '/') == NULL);
        require(c->mac.len == 6 && c->pci_slot < 32);
        for (size_t j = 0; j < c->n_addresses; j++)
            require(c->addresses[j]->prefix <= c->addresses[j]->address.len * 8 &&
                    c->addresses[j]->address.len <= 16);
        for (size_t j = 0; j < c->n_routes; j++)
            require(c->routes[j]->dst != NULL && c->routes[j]->gateway.len <= 16 &&
                    c->routes[j]->source.len <= 16);
        for (size_t j = 0; j < c->n_neighbours; j++)
            require(c->neighbours[j]->mac.len == 6 && c->neighbours[j]->address.len <= 16);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const messages[] = {
        &casemate__agent__v1__create_container_request__descriptor,
        &casemate__agent__v1__exec_request__descriptor,
        &casemate__agent__v1__configure_pod_request__descriptor,
        &casemate__agent__v1__network__descriptor,
    };
    struct err err;
    if (size < 1)
        return 0;
    unsigned which = data[0] % 4;
    ProtobufCMessage *m = protobuf_c_message_unpack(messages[which], NULL, size - 1, data + 1);
    if (m == NULL)
        return 0;
    if (which == 0) {
        const Casemate__Agent__V1__CreateContainerRequest *r = (const void *)m;
        if (validate_create(r, &err) == 0)
            promises_of_create(r);
    } else if (which == 1) {
        const Casemate__Agent__V1__ExecRequest *r = (const void *)m;
        if (validate_exec(r, &err) == 0)
            promises_of_process(r->process);
    } else if (which == 3) {
        const Casemate__Agent__V1__Network *r = (const void *)m;
        if (netvalid_check(r, &err) == 0)
            promises_of_network(r);
    } else {
        const Casemate__Agent__V1__ConfigurePodRequest *r = (const void *)m;
        if (validate_configure(r, &err) == 0)
            require(r->n_sysctls <= VALIDATE_MAX_SYSCTLS && r->entropy.len <= 512);
    }
    protobuf_c_message_free_unpacked(m, NULL);
    return 0;
}
