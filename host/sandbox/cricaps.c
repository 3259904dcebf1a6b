/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Start from the default set (all when privileged); ALL in either list
 * replaces it; then single names are added, then dropped. Ambient names join every set, because the
 * kernel keeps ambient within permitted and inheritable.
 */
#include <string.h>
#include <strings.h>

#include "common/base/capname.h"
#include "common/base/cleanup.h"
#include "host/sandbox/cricaps.h"

/* What containerd gives a container that asks for nothing. */
static const char *const defaults[] = {
    "CHOWN",  "DAC_OVERRIDE", "FSETID",  "FOWNER",           "MKNOD",      "NET_RAW", "SETGID",
    "SETUID", "SETFCAP",      "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL",    "AUDIT_WRITE",
};

#define ALL ((UINT64_C(1) << CAPNAME_COUNT) - 1)

int cricaps_number(const char *name)
{
    if (strncasecmp(name, "CAP_", 4) == 0)
        name += 4;
    for (int i = 0; i < CAPNAME_COUNT; i++) {
        if (strcasecmp(name, capname_get((unsigned)i)) == 0)
            return i;
    }
    return -1;
}

static bool is_all(const char *name)
{
    return strcasecmp(name, "ALL") == 0;
}

/* The mask of a list, ALL left out; *ret_all: it was there. */
static int mask_of(char *const *list, size_t n, const char *field, uint64_t *ret_mask,
                   bool *ret_all, struct err *err)
{
    uint64_t mask = 0;
    bool all = false;

    for (size_t i = 0; i < n; i++) {
        int number = cricaps_number(list[i]);
        if (is_all(list[i])) {
            all = true;
            continue;
        }
        if (number < 0)
            return err_set(err, ERR_INVALID, "linux.security_context.capabilities.%s: unknown '%s'",
                           field, list[i]);
        mask |= UINT64_C(1) << number;
    }
    *ret_mask = mask;
    *ret_all = all;
    return 0;
}

int cricaps_resolve(const Runtime__V1__Capability *request, bool privileged, uint64_t *ret_mask,
                    uint64_t *ret_ambient, struct err *err)
{
    uint64_t mask = 0, add = 0, drop = 0, ambient = 0;
    bool add_all = false, drop_all = false, ambient_all = false;

    for (size_t i = 0; i < ARRAY_SIZE(defaults); i++)
        mask |= UINT64_C(1) << cricaps_number(defaults[i]);
    if (request != NULL &&
        (mask_of(request->add_capabilities, request->n_add_capabilities, "add_capabilities", &add,
                 &add_all, err) != 0 ||
         mask_of(request->drop_capabilities, request->n_drop_capabilities, "drop_capabilities",
                 &drop, &drop_all, err) != 0 ||
         mask_of(request->add_ambient_capabilities, request->n_add_ambient_capabilities,
                 "add_ambient_capabilities", &ambient, &ambient_all, err) != 0))
        return -1;
    if (ambient_all)
        ambient = ALL;
    if (privileged) {
        *ret_mask = ALL;
        *ret_ambient = ambient;
        return 0;
    }
    if (add_all)
        mask = ALL;
    if (drop_all)
        mask = 0;
    mask = ((mask | add) & ~drop) | ambient;
    *ret_mask = mask;
    *ret_ambient = ambient;
    return 0;
}
