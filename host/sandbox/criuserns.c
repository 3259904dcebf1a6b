/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is refused is what other runtimes refuse: more than one mapping, modes without a meaning, a
 * container that differs from its pod. And one thing more: a mapping onto the guest's root, which
 * would make the namespace none.
 */
#include "host/sandbox/criuserns.h"

#include <stdbool.h>

typedef Runtime__V1__LinuxContainerSecurityContext container_security;
typedef Runtime__V1__LinuxSandboxSecurityContext pod_security;

static int check_mapping(Runtime__V1__IDMapping *const *list, size_t n, const char *where,
                         const char *field, struct err *err)
{
    if (n != 1)
        return err_set(err, ERR_INVALID, "%s.userns_options.%s: %zu mappings, not one", where,
                       field, n);
    if (list[0]->container_id != 0)
        return err_set(err, ERR_INVALID,
                       "%s.userns_options.%s: the container's 0 is not mapped, the first is %u",
                       where, field, list[0]->container_id);
    if (list[0]->length == 0)
        return err_set(err, ERR_INVALID, "%s.userns_options.%s: the length is 0", where, field);
    if (list[0]->host_id == 0)
        return err_set(err, ERR_INVALID, "%s.userns_options.%s: onto root itself", where, field);
    if (list[0]->length > UINT32_MAX - list[0]->host_id)
        return err_set(err, ERR_INVALID, "%s.userns_options.%s: beyond the last id", where, field);
    return 0;
}

int criuserns_check(const Runtime__V1__NamespaceOption *option, const char *where, struct err *err)
{
    const Runtime__V1__UserNamespace *userns = option == NULL ? NULL : option->userns_options;

    if (userns == NULL)
        return 0;
    if (userns->mode == RUNTIME__V1__NAMESPACE_MODE__NODE) {
        if (userns->n_uids > 0 || userns->n_gids > 0)
            return err_set(err, ERR_INVALID, "%s.userns_options: mode NODE has no mappings", where);
        return 0;
    }
    if (userns->mode != RUNTIME__V1__NAMESPACE_MODE__POD)
        return err_set(err, ERR_INVALID, "%s.userns_options.mode: must be POD or NODE", where);
    if (option->pid == RUNTIME__V1__NAMESPACE_MODE__NODE)
        return err_set(err, ERR_INVALID, "%s: pid NODE and a user namespace exclude each other",
                       where);
    if (check_mapping(userns->uids, userns->n_uids, where, "uids", err) != 0)
        return -1;
    return check_mapping(userns->gids, userns->n_gids, where, "gids", err);
}

const Runtime__V1__UserNamespace *criuserns_of(const Runtime__V1__NamespaceOption *option)
{
    if (option == NULL || option->userns_options == NULL ||
        option->userns_options->mode != RUNTIME__V1__NAMESPACE_MODE__POD)
        return NULL;
    return option->userns_options;
}

static bool same_mapping(const Runtime__V1__IDMapping *a, const Runtime__V1__IDMapping *b)
{
    return a->host_id == b->host_id && a->length == b->length;
}

static bool same(const Runtime__V1__UserNamespace *a, const Runtime__V1__UserNamespace *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return same_mapping(a->uids[0], b->uids[0]) && same_mapping(a->gids[0], b->gids[0]);
}

static int check_id(int64_t id, const Runtime__V1__IDMapping *mapping, const char *field,
                    struct err *err)
{
    if (id < (int64_t)mapping->length)
        return 0;
    return err_set(err, ERR_INVALID,
                   "linux.security_context.%s: %lld is not in the pod's user namespace", field,
                   (long long)id);
}

int criuserns_check_container(const container_security *container, const pod_security *pod,
                              struct err *err)
{
    const Runtime__V1__UserNamespace *userns =
        criuserns_of(pod == NULL ? NULL : pod->namespace_options);

    if (!same(userns, criuserns_of(container == NULL ? NULL : container->namespace_options)))
        return err_set(err, ERR_INVALID,
                       "linux.security_context.namespace_options.userns_options: not as the pod's");
    if (userns == NULL)
        return 0;
    if (container->run_as_user != NULL &&
        check_id(container->run_as_user->value, userns->uids[0], "run_as_user", err) != 0)
        return -1;
    if (container->run_as_group != NULL &&
        check_id(container->run_as_group->value, userns->gids[0], "run_as_group", err) != 0)
        return -1;
    for (size_t i = 0; i < container->n_supplemental_groups; i++) {
        if (check_id(container->supplemental_groups[i], userns->gids[0], "supplemental_groups",
                     err) != 0)
            return -1;
    }
    return 0;
}
