/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capset(2) directly: the library's objects would be the only thing that it is linked for. The
 * order matters: the bounding set needs CAP_SETPCAP and goes first; then the user changes with
 * permitted kept (PR_SET_KEEPCAPS, which ends with exec); then the three sets; ambient last, since
 * it must lie within permitted and inheritable.
 *
 * An older kernel has fewer capabilities than the table, a newer one more. Which ones it has is not
 * asked, that would be one call for each: capset drops what it does not know, and prctl answers
 * EINVAL.
 */
#include "agent/process/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/capname.h"

int caps_parse(char *const *list, size_t n, uint64_t *ret_mask, struct err *err)
{
    uint64_t mask = 0;
    for (size_t i = 0; i < n; i++) {
        int number = capname_number(list[i]);
        if (number < 0)
            return err_set(err, ERR_INVALID, "unknown capability \"%.64s\"", list[i]);
        mask |= 1ull << number;
    }
    *ret_mask = mask;
    return 0;
}

int caps_read(const Casemate__Agent__V1__Capabilities *m, struct caps *ret_caps, struct err *err)
{
    *ret_caps = (struct caps){0};
    if (m == NULL)
        return 0;
    if (caps_parse(m->bounding, m->n_bounding, &ret_caps->bounding, err) < 0 ||
        caps_parse(m->permitted, m->n_permitted, &ret_caps->permitted, err) < 0 ||
        caps_parse(m->effective, m->n_effective, &ret_caps->effective, err) < 0 ||
        caps_parse(m->inheritable, m->n_inheritable, &ret_caps->inheritable, err) < 0 ||
        caps_parse(m->ambient, m->n_ambient, &ret_caps->ambient, err) < 0)
        return err_prefix(err, "capabilities");
    return 0;
}

int caps_prepare(const struct caps *caps, struct err *err)
{
    for (unsigned long i = 0; i < 64; i++) {
        if ((caps->bounding & (1ull << i)) != 0 || prctl(PR_CAPBSET_DROP, i, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL)
            break; /* the kernel knows neither this one nor any after it */
        return err_set_errno(err, errno, "drop capability %lu from the bounding set", i);
    }
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return err_set_errno(err, errno, "keep capabilities");
    return 0;
}

static void split(uint64_t mask, __u32 *ret_low, __u32 *ret_high)
{
    *ret_low = (__u32)(mask & 0xffffffffu);
    *ret_high = (__u32)(mask >> 32);
}

int caps_raise(struct err *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &header, data) < 0)
        return err_set_errno(err, errno, "get capabilities");
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    if (syscall(SYS_capset, &header, data) < 0)
        return err_set_errno(err, errno, "set capabilities");
    return 0;
}

int caps_apply(const struct caps *caps, struct err *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    split(caps->permitted, &data[0].permitted, &data[1].permitted);
    split(caps->effective, &data[0].effective, &data[1].effective);
    split(caps->inheritable, &data[0].inheritable, &data[1].inheritable);
    if (syscall(SYS_capset, &header, data) < 0)
        return err_set_errno(err, errno, "set capabilities");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return err_set_errno(err, errno, "clear ambient capabilities");
    for (unsigned long i = 0; i < 64; i++) {
        if ((caps->ambient & (1ull << i)) == 0)
            continue;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0 && errno != EINVAL)
            return err_set_errno(err, errno, "raise ambient capability %lu", i);
    }
    return 0;
}
