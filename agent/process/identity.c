/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The change goes the one way that works: limits (need root), bounding set (needs CAP_SETPCAP),
 * groups, gid, uid, then capabilities, no_new_privs and the seccomp filter. Nothing here can be
 * undone by the process afterwards.
 */
#include "agent/process/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "agent/process/caps.h"
#include "agent/process/limits.h"

int identity_find(const Casemate__Agent__V1__Process *process, struct userdb_memo *memo,
                  struct scratch *scratch, struct user *ret_user, struct err *err)
{
    const Casemate__Agent__V1__User *wanted = process->user;
    if (wanted != NULL && wanted->name[0] != '\0') {
        cleanup_fd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
            return err_set_errno(err, errno, "open /");
        if (userdb_find(root, wanted->name, !wanted->strict_groups, scratch, ret_user, err) < 0)
            return -1;
    } else {
        ret_user->uid = wanted != NULL ? wanted->uid : 0;
        ret_user->gid = wanted != NULL ? wanted->gid : 0;
        ret_user->n_groups = 0;
        userdb_find_home(ret_user->uid, memo, scratch, ret_user->home);
        if (userdb_add_group(ret_user, ret_user->gid, err) < 0)
            return -1;
    }
    for (size_t i = 0; wanted != NULL && i < wanted->n_additional_gids; i++) {
        if (userdb_add_group(ret_user, wanted->additional_gids[i], err) < 0)
            return -1;
    }
    return 0;
}

static int set_limits(const Casemate__Agent__V1__Process *process, struct err *err)
{
    for (size_t i = 0; i < process->n_rlimits; i++) {
        const Casemate__Agent__V1__Rlimit *r = process->rlimits[i];
        int resource = rlimit_by_name(r->type);
        struct rlimit limit = {.rlim_cur = r->soft, .rlim_max = r->hard};
        if (resource < 0 || setrlimit((__rlimit_resource_t)resource, &limit) < 0)
            return err_set_errno(err, resource < 0 ? EINVAL : errno, "set limit %s", r->type);
    }
    return 0;
}

static int load_filter(const Casemate__Agent__V1__Seccomp *seccomp, struct err *err)
{
    union {
        uint8_t *bytes;
        struct sock_filter *instructions;
    } code = {.bytes = seccomp->filter.data};
    struct sock_fprog program = {
        .len = (unsigned short)(seccomp->filter.len / sizeof(struct sock_filter)),
        .filter = code.instructions,
    };
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, seccomp->flags, &program) < 0)
        return err_set_errno(err, errno, "load the seccomp filter");
    return 0;
}

/*
 * Capabilities, no_new_privs and the filter. A filter wants no_new_privs or CAP_SYS_ADMIN: with the
 * former it is loaded last, without it while everything is still permitted.
 */
static int restrict_self(const Casemate__Agent__V1__Process *process, const struct caps *caps,
                         struct err *err)
{
    bool early = process->seccomp != NULL && !process->no_new_privs;
    if (early && (caps_raise(err) < 0 || load_filter(process->seccomp, err) < 0))
        return -1;
    if (caps_apply(caps, err) < 0)
        return -1;
    if (process->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_set_errno(err, errno, "set no_new_privs");
    if (process->seccomp != NULL && !early && load_filter(process->seccomp, err) < 0)
        return -1;
    return 0;
}

int identity_become(const Casemate__Agent__V1__Process *process, const struct caps *caps,
                    const struct user *user, struct err *err)
{
    if (set_limits(process, err) < 0 || caps_prepare(caps, err) < 0)
        return -1;
    /* The library's functions would change every thread of the process that it takes this for. */
    if (syscall(SYS_setgroups, user->n_groups, user->groups) < 0)
        return err_set_errno(err, errno, "set supplementary groups");
    if (syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0)
        return err_set_errno(err, errno, "set group %u", user->gid);
    if (syscall(SYS_setresuid, user->uid, user->uid, user->uid) < 0)
        return err_set_errno(err, errno, "set user %u", user->uid);
    return restrict_self(process, caps, err);
}
