/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both forms are read into one: the message SecurityProfile counts when it is there, else the text
 * that CRI had before ("runtime/default", "unconfined", "localhost/<path>"; "" is unconfined, since
 * nothing was asked for).
 */
#include "host/sandbox/criseccomp.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/text.h"
#include "host/sandbox/scdefault.h"
#include "host/sandbox/scprofile.h"

#define FIELD     "linux.security_context.seccomp"
#define OLD_FIELD "linux.security_context.seccomp_profile_path"
#define LOCALHOST "localhost/"

enum kind { KIND_NONE, KIND_DEFAULT, KIND_FILE };

struct wanted {
    enum kind kind;
    const char *path; /* of KIND_FILE */
};

static int wanted_file(const char *field, const char *path, struct wanted *ret_wanted,
                       struct err *err)
{
    if (path[0] != '/')
        return err_set(err, ERR_INVALID, "%s: '%s' is not the absolute path of a profile", field,
                       path);
    *ret_wanted = (struct wanted){.kind = KIND_FILE, .path = path};
    return 0;
}

static int read_fields(const Runtime__V1__LinuxContainerSecurityContext *security,
                       struct wanted *ret_wanted, struct err *err)
{
    const Runtime__V1__SecurityProfile *profile = security->seccomp;
    const char *old = security->seccomp_profile_path;

    *ret_wanted = (struct wanted){.kind = KIND_NONE};
    if (profile != NULL) {
        const char *ref = profile->localhost_ref;
        switch (profile->profile_type) {
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__RuntimeDefault:
            ret_wanted->kind = KIND_DEFAULT;
            return 0;
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Unconfined:
            return 0;
        case RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost:
            if (text_has_prefix(ref, LOCALHOST))
                ref += sizeof(LOCALHOST) - 1;
            return wanted_file(FIELD ".localhost_ref", ref, ret_wanted, err);
        default:
            return err_set(err, ERR_INVALID, FIELD ".profile_type: unknown value %d",
                           (int)profile->profile_type);
        }
    }
    if (*old == '\0' || strcmp(old, "unconfined") == 0)
        return 0;
    if (strcmp(old, "runtime/default") == 0 || strcmp(old, "docker/default") == 0) {
        ret_wanted->kind = KIND_DEFAULT;
        return 0;
    }
    if (text_has_prefix(old, LOCALHOST))
        return wanted_file(OLD_FIELD, old + sizeof(LOCALHOST) - 1, ret_wanted, err);
    return err_set(err, ERR_INVALID, OLD_FIELD ": '%s' is no profile", old);
}

int criseccomp_check(const Runtime__V1__LinuxContainerSecurityContext *security, struct err *err)
{
    struct wanted wanted;

    return security == NULL ? 0 : read_fields(security, &wanted, err);
}

int criseccomp_program(const Runtime__V1__LinuxContainerSecurityContext *security,
                       uint64_t capabilities, struct sysfilter_program *ret_program,
                       struct err *err)
{
    struct wanted wanted = {.kind = KIND_NONE};

    if (security != NULL && !security->privileged && read_fields(security, &wanted, err) != 0)
        return -1;
    switch (wanted.kind) {
    case KIND_DEFAULT:
        return scdefault_program(capabilities, ret_program, err);
    case KIND_FILE:
        if (scprofile_load(wanted.path, capabilities, ret_program, err) != 0)
            return err_prefix(err, FIELD);
        return 0;
    case KIND_NONE:
        break;
    }
    *ret_program = (struct sysfilter_program){0};
    return 0;
}
