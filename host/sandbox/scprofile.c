/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The document is walked once and each rule goes straight into a filter. What
 * a rule says about the kernel's version ("minKernel") is compared with the oldest kernel that a
 * guest is built with; architectures are compared with this machine's, which the guest has too.
 *
 * Refused by name: SCMP_ACT_NOTIFY and the listener's fields, since nobody on the host may answer
 * for a call in the guest. Unknown fields are refused as well: a misspelt "args" must not turn into
 * a rule without conditions.
 */
#include "host/sandbox/scprofile.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "host/sandbox/cricaps.h"

#define OLDEST_GUEST_KERNEL 6001 /* 6.1, as major * 1000 + minor */
#define DEFAULT_ERRNO       EPERM
#define MAX_ERRNO           4095 /* MAX_ERRNO of Linux */
#define MAX_NAME            64

#if defined(__x86_64__)
static const char *const own_archs[] = {"amd64", "x32", "x86"};
#else
static const char *const own_archs[] = {"arm64", "arm"};
#endif

struct context {
    struct sysfilter *filter;
    uint64_t capabilities;
};

static void release_json(json_t **j)
{
    json_decref(*j);
}
#define cleanup_json CLEANUP(release_json)

/* ---- small readers: each refuses what has another type ---- */

/* Written out, yet as good as absent: so do the engines' tools with fields that they do not use. */
static bool is_empty(const json_t *value)
{
    return json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0);
}

static int only_fields(const json_t *object, const char *const *fields, const char *where,
                       struct err *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return err_set(err, ERR_INVALID, "%s: not an object", where);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool known = false;
        for (size_t i = 0; fields[i] != NULL && !known; i++)
            known = strcmp(fields[i], key) == 0;
        if (!known && !is_empty(value))
            return err_set(err, ERR_INVALID, "%s: the field '%.64s' is not provided", where, key);
    }
    return 0;
}

/* A list of strings or nothing; *ret_list NULL when it is absent. */
static int strings_at(const json_t *object, const char *key, const char *where,
                      const json_t **ret_list, struct err *err)
{
    const json_t *list = json_object_get(object, key);

    *ret_list = NULL;
    if (list == NULL || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return err_set(err, ERR_INVALID, "%s: '%s' is not a list", where, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text == NULL || *text == '\0' || strlen(text) > MAX_NAME)
            return err_set(err, ERR_INVALID, "%s: '%s' does not hold names", where, key);
    }
    *ret_list = list;
    return 0;
}

static int number_at(const json_t *object, const char *key, const char *where, bool required,
                     uint64_t max, uint64_t *ret_value, struct err *err)
{
    const json_t *value = json_object_get(object, key);

    if (!required && (value == NULL || json_is_null(value)))
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max)
        return err_set(err, ERR_INVALID, "%s: '%s' is not a number up to %llu", where, key,
                       (unsigned long long)max);
    *ret_value = (uint64_t)json_integer_value(value);
    return 0;
}

/* ---- actions ---- */

/* Names of an action and of what goes with it, for a rule and for the profile. */
struct action_keys {
    const char *action;
    const char *number; /* the errno */
    const char *name;   /* the same by name, which counts when both are there */
};

static const struct action_keys rule_keys = {"action", "errnoRet", "errno"};
static const struct action_keys default_keys = {"defaultAction", "defaultErrnoRet", "defaultErrno"};

static int errno_at(const json_t *object, const struct action_keys *keys, const char *where,
                    uint64_t *ret_number, struct err *err)
{
    const char *name = json_string_value(json_object_get(object, keys->name));

    if (number_at(object, keys->number, where, false, MAX_ERRNO, ret_number, err) != 0)
        return -1;
    if (name == NULL || *name == '\0')
        return 0;
    for (int i = 1; i <= MAX_ERRNO; i++) {
        const char *known = strerrorname_np(i);
        if (known != NULL && strcmp(known, name) == 0) {
            *ret_number = (uint64_t)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "%s: unknown error '%.64s'", where, name);
}

/* The action with its errno; EPERM when none is given. */
static int action_at(const json_t *object, const struct action_keys *keys, const char *where,
                     sysfilter_action *ret_action, struct err *err)
{
    static const struct {
        const char *name;
        uint32_t action;
        bool takes_errno;
    } actions[] = {
        {"SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD, false},
        {"SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD, false},
        {"SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS, false},
        {"SCMP_ACT_TRAP", SECCOMP_RET_TRAP, false},
        {"SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO, true},
        {"SCMP_ACT_TRACE", SECCOMP_RET_TRACE, true},
        {"SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW, false},
        {"SCMP_ACT_LOG", SECCOMP_RET_LOG, false},
    };
    const char *name = json_string_value(json_object_get(object, keys->action));
    uint64_t number = DEFAULT_ERRNO;

    if (name == NULL)
        return err_set(err, ERR_INVALID, "%s: '%s' is missing", where, keys->action);
    if (strcmp(name, "SCMP_ACT_NOTIFY") == 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: SCMP_ACT_NOTIFY is not provided: nobody on the host may answer calls "
                       "of a guest",
                       where);
    if (errno_at(object, keys, where, &number, err) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (strcmp(actions[i].name, name) != 0)
            continue;
        *ret_action = actions[i].action | (actions[i].takes_errno ? (uint32_t)number : 0);
        return 0;
    }
    return err_set(err, ERR_INVALID, "%s: unknown action '%.64s'", where, name);
}

/* ---- rules ---- */

static int parse_arg(const json_t *object, const char *where, struct sysfilter_arg *ret_arg,
                     struct err *err)
{
    static const char *const fields[] = {"index", "value", "valueTwo", "op", NULL};
    static const struct {
        const char *name;
        enum sysfilter_compare op;
    } ops[] = {
        {"SCMP_CMP_NE", SYSFILTER_NE},
        {"SCMP_CMP_LT", SYSFILTER_LT},
        {"SCMP_CMP_LE", SYSFILTER_LE},
        {"SCMP_CMP_EQ", SYSFILTER_EQ},
        {"SCMP_CMP_GE", SYSFILTER_GE},
        {"SCMP_CMP_GT", SYSFILTER_GT},
        {"SCMP_CMP_MASKED_EQ", SYSFILTER_MASKED_EQ},
    };
    const char *name;
    uint64_t index = 0;

    *ret_arg = (struct sysfilter_arg){0};
    if (only_fields(object, fields, where, err) != 0 ||
        number_at(object, "index", where, true, SYSFILTER_MAX_ARGS - 1, &index, err) != 0 ||
        number_at(object, "value", where, false, INT64_MAX, &ret_arg->value, err) != 0 ||
        number_at(object, "valueTwo", where, false, INT64_MAX, &ret_arg->value_two, err) != 0)
        return -1;
    ret_arg->index = (unsigned)index;
    name = json_string_value(json_object_get(object, "op"));
    for (size_t i = 0; name != NULL && i < ARRAY_SIZE(ops); i++) {
        if (strcmp(ops[i].name, name) == 0) {
            ret_arg->op = ops[i].op;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "%s: '%.64s' is no comparison", where,
                   name == NULL ? "" : name);
}

static int parse_args(const json_t *rule, const char *where,
                      struct sysfilter_arg ret_args[SYSFILTER_MAX_ARGS], size_t *ret_n,
                      struct err *err)
{
    const json_t *list = json_object_get(rule, "args");
    size_t n = json_array_size(list);

    *ret_n = 0;
    if (list == NULL || json_is_null(list))
        return 0;
    if (!json_is_array(list) || n > SYSFILTER_MAX_ARGS)
        return err_set(err, ERR_INVALID, "%s: 'args' is not a list of up to %d", where,
                       SYSFILTER_MAX_ARGS);
    for (size_t i = 0; i < n; i++) {
        if (parse_arg(json_array_get(list, i), where, &ret_args[i], err) != 0)
            return -1;
    }
    *ret_n = n;
    return 0;
}

static int has_capability(const struct context *c, const char *name, const char *where,
                          bool *ret_has, struct err *err)
{
    int number = cricaps_number(name);

    if (number < 0)
        return err_set(err, ERR_INVALID, "%s: unknown capability '%.64s'", where, name);
    *ret_has = (c->capabilities >> number & 1) != 0;
    return 0;
}

static bool is_own_arch(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(own_archs); i++) {
        if (strcmp(own_archs[i], name) == 0)
            return true;
    }
    return false;
}

/* How many of the condition's capabilities and architectures hold, and of how many. */
struct tally {
    size_t caps, caps_held;
    size_t archs, archs_held;
    bool has_kernel, kernel_held;
};

static int count_condition(const struct context *c, const json_t *condition, const char *where,
                           struct tally *ret_tally, struct err *err)
{
    static const char *const fields[] = {"caps", "arches", "minKernel", NULL};
    const json_t *caps, *archs, *kernel;
    struct tally t = {0};

    if (only_fields(condition, fields, where, err) != 0 ||
        strings_at(condition, "caps", where, &caps, err) != 0 ||
        strings_at(condition, "arches", where, &archs, err) != 0)
        return -1;
    t.caps = json_array_size(caps);
    t.archs = json_array_size(archs);
    for (size_t i = 0; i < t.caps; i++) {
        bool held = false;
        if (has_capability(c, json_string_value(json_array_get(caps, i)), where, &held, err) != 0)
            return -1;
        t.caps_held += held ? 1 : 0;
    }
    for (size_t i = 0; i < t.archs; i++)
        t.archs_held += is_own_arch(json_string_value(json_array_get(archs, i))) ? 1 : 0;
    kernel = json_object_get(condition, "minKernel");
    if (json_is_string(kernel)) {
        unsigned major, minor;
        if (sscanf(json_string_value(kernel), "%3u.%3u", &major, &minor) != 2)
            return err_set(err, ERR_INVALID, "%s: 'minKernel' is no version", where);
        t.has_kernel = true;
        t.kernel_held = major * 1000 + minor <= OLDEST_GUEST_KERNEL;
    }
    *ret_tally = t;
    return 0;
}

/* Whether a rule applies: every capability and one architecture of `includes`, none of `excludes`.
 */
static int applies(const struct context *c, const json_t *rule, const char *where,
                   bool *ret_applies, struct err *err)
{
    const json_t *includes = json_object_get(rule, "includes");
    const json_t *excludes = json_object_get(rule, "excludes");
    struct tally t = {0};

    *ret_applies = true;
    if (includes != NULL && !json_is_null(includes)) {
        if (count_condition(c, includes, where, &t, err) != 0)
            return -1;
        *ret_applies = t.caps_held == t.caps && (t.archs == 0 || t.archs_held > 0) &&
                       (!t.has_kernel || t.kernel_held);
    }
    if (excludes != NULL && !json_is_null(excludes)) {
        if (count_condition(c, excludes, where, &t, err) != 0)
            return -1;
        *ret_applies = *ret_applies && t.caps_held == 0 && t.archs_held == 0 && !t.kernel_held;
    }
    return 0;
}

static int parse_rule(const struct context *c, const json_t *rule, const char *where,
                      struct err *err)
{
    static const char *const fields[] = {"name", "names",   "action",   "errnoRet", "errno",
                                         "args", "comment", "includes", "excludes", NULL};
    struct sysfilter_arg args[SYSFILTER_MAX_ARGS];
    const char *one = json_string_value(json_object_get(rule, "name"));
    sysfilter_action action = 0;
    const json_t *names;
    size_t n_args;
    bool wanted;

    if (only_fields(rule, fields, where, err) != 0 ||
        strings_at(rule, "names", where, &names, err) != 0 ||
        action_at(rule, &rule_keys, where, &action, err) != 0 ||
        parse_args(rule, where, args, &n_args, err) != 0 ||
        applies(c, rule, where, &wanted, err) != 0)
        return -1;
    if (one == NULL && json_array_size(names) == 0)
        return err_set(err, ERR_INVALID, "%s: 'names' is empty", where);
    if (!wanted)
        return 0;
    if (one != NULL && *one != '\0' &&
        sysfilter_add(c->filter, one, action, args, n_args, err) != 0)
        return err_prefix(err, "%s", where);
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (sysfilter_add(c->filter, json_string_value(json_array_get(names, i)), action, args,
                          n_args, err) != 0)
            return err_prefix(err, "%s", where);
    }
    return 0;
}

/* ---- the document ---- */

static int parse_flags(const json_t *root, struct sysfilter *filter, struct err *err)
{
    const json_t *list;
    uint32_t flags = 0;

    if (strings_at(root, "flags", "profile", &list, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *flag = json_string_value(json_array_get(list, i));
        if (strcmp(flag, "SECCOMP_FILTER_FLAG_LOG") == 0)
            flags |= SECCOMP_FILTER_FLAG_LOG;
        else if (strcmp(flag, "SECCOMP_FILTER_FLAG_SPEC_ALLOW") == 0)
            flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        /* TSYNC is about a process's other threads, and it has none before its exec. */
        else if (strcmp(flag, "SECCOMP_FILTER_FLAG_TSYNC") != 0)
            return err_set(err, ERR_UNSUPPORTED, "profile: the flag %.64s is not provided", flag);
    }
    sysfilter_set_flags(filter, flags);
    return 0;
}

static int parse_archs(const json_t *root, struct sysfilter *filter, struct err *err)
{
    const json_t *list = json_object_get(root, "archMap");
    const json_t *names;

    if (strings_at(root, "architectures", "profile", &names, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (sysfilter_add_arch(filter, json_string_value(json_array_get(names, i)), err) != 0)
            return -1;
    }
    /* The engines' form: per native architecture what comes along. */
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
#if defined(__x86_64__)
        const char *native = "SCMP_ARCH_X86_64";
#else
        const char *native = "SCMP_ARCH_AARCH64";
#endif
        const char *name = json_string_value(json_object_get(entry, "architecture"));
        if (name == NULL || strcmp(name, native) != 0)
            continue;
        if (strings_at(entry, "subArchitectures", "archMap", &names, err) != 0)
            return -1;
        for (size_t j = 0; j < json_array_size(names); j++) {
            if (sysfilter_add_arch(filter, json_string_value(json_array_get(names, j)), err) != 0)
                return -1;
        }
    }
    return 0;
}

static int compile(const json_t *root, uint64_t capabilities, struct sysfilter_program *ret_program,
                   struct err *err)
{
    static const char *const fields[] = {"defaultAction", "defaultErrnoRet", "defaultErrno",
                                         "architectures", "archMap",         "flags",
                                         "syscalls",      "comment",         NULL};
    cleanup_sysfilter struct sysfilter *filter = NULL;
    const json_t *rules = json_object_get(root, "syscalls");
    struct context c = {.capabilities = capabilities};
    sysfilter_action fallback = 0;

    if (only_fields(root, fields, "profile", err) != 0 ||
        action_at(root, &default_keys, "profile", &fallback, err) != 0)
        return -1;
    if (rules != NULL && !json_is_null(rules) && !json_is_array(rules))
        return err_set(err, ERR_INVALID, "profile: 'syscalls' is not a list");
    if (sysfilter_new(fallback, &filter, err) != 0 || parse_flags(root, filter, err) != 0 ||
        parse_archs(root, filter, err) != 0)
        return -1;
    c.filter = filter;
    for (size_t i = 0; i < json_array_size(rules); i++) {
        char where[32];
        (void)snprintf(where, sizeof(where), "syscalls[%zu]", i);
        if (parse_rule(&c, json_array_get(rules, i), where, err) != 0)
            return -1;
    }
    return sysfilter_finish(filter, ret_program, err);
}

int scprofile_compile(const char *json, size_t n, uint64_t capabilities,
                      struct sysfilter_program *ret_program, struct err *err)
{
    cleanup_json json_t *root = NULL;
    json_error_t why;

    if (n > SCPROFILE_MAX_BYTES)
        return err_set(err, ERR_INVALID, "larger than %u bytes", SCPROFILE_MAX_BYTES);
    root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL && json_error_code(&why) == json_error_out_of_memory)
        return err_no_memory(err);
    if (root == NULL)
        return err_set(err, ERR_INVALID, "not valid JSON (line %d: %s)", why.line, why.text);
    return compile(root, capabilities, ret_program, err);
}

int scprofile_load(const char *path, uint64_t capabilities, struct sysfilter_program *ret_program,
                   struct err *err)
{
    cleanup_free char *text = NULL;
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    size_t n = 0;
    ssize_t got;

    if (fd < 0 || fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "seccomp profile %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "seccomp profile %s: not a regular file", path);
    text = malloc(SCPROFILE_MAX_BYTES + 1);
    if (text == NULL)
        return err_no_memory(err);
    while (n <= SCPROFILE_MAX_BYTES &&
           (got = read(fd, text + n, SCPROFILE_MAX_BYTES + 1 - n)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set_errno(err, errno, "seccomp profile %s", path);
        n += (size_t)got;
    }
    if (scprofile_compile(text, n, capabilities, ret_program, err) != 0)
        return err_prefix(err, "seccomp profile %s", path);
    return 0;
}
