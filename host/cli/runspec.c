/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All messages live in one allocation beside the few strings that have to be made; everything else
 * is lent from the command line. The container gets a pid namespace of its own and what its image
 * says; nothing is asked for that the user did not ask for.
 */
#include "host/cli/runspec.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"

struct cli_run_config {
    char uid[33];
    char made_name[16];
    Runtime__V1__PodSandboxConfig pod;
    Runtime__V1__PodSandboxMetadata metadata;
    Runtime__V1__PodSandboxConfig__LabelsEntry label;
    Runtime__V1__PodSandboxConfig__LabelsEntry *labels[1];
    Runtime__V1__LinuxPodSandboxConfig pod_linux;
    Runtime__V1__LinuxSandboxSecurityContext pod_security;
    Runtime__V1__NamespaceOption namespaces;
    Runtime__V1__PodSandboxFilter filter;
    Runtime__V1__PodSandboxFilter__LabelSelectorEntry selector;
    Runtime__V1__PodSandboxFilter__LabelSelectorEntry *selectors[1];

    Runtime__V1__ContainerConfig container;
    Runtime__V1__ContainerMetadata container_metadata;
    Runtime__V1__ImageSpec image;
    char *command[1];
    Runtime__V1__KeyValue envs[CLI_LIST_MAX];
    Runtime__V1__KeyValue *env_list[CLI_LIST_MAX];
    char *env_names[CLI_LIST_MAX]; /* heap */
    Runtime__V1__LinuxContainerConfig container_linux;
    Runtime__V1__LinuxContainerSecurityContext security;
    Runtime__V1__LinuxContainerResources resources;
    Runtime__V1__Int64Value uid_value;
    Runtime__V1__Int64Value gid_value;
    char *user_name; /* heap */
};

/* ---- checks ---- */

/* A DNS label, because it becomes the hostname. */
static bool valid_name(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > 63 || name[0] == '-' || name[n - 1] == '-')
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static int check_user(const char *user, struct err *err)
{
    const char *colon = strchr(user, ':');
    uint64_t gid;
    if (*user == '\0' || colon == user)
        return err_set(err, ERR_INVALID, "--user: no user is named");
    if (colon != NULL && text_parse_u64(colon + 1, UINT32_MAX - 1, &gid) < 0)
        return err_set(err, ERR_INVALID, "--user: the group '%s' is not a number", colon + 1);
    return 0;
}

static int check_env(const char *variable, struct err *err)
{
    if (*variable == '\0' || *variable == '=')
        return err_set(err, ERR_INVALID, "--env: '%s' has no name", variable);
    /* The value may be a secret: it is not repeated in a message. */
    if (!text_is_utf8(variable, strlen(variable)))
        return err_set(err, ERR_INVALID, "--env: a value is not UTF-8");
    return 0;
}

int cli_run_spec_check(const struct cli_run_spec *spec, struct err *err)
{
    if (*spec->image == '\0')
        return err_set(err, ERR_INVALID, "the image's name is empty");
    if (spec->name != NULL && !valid_name(spec->name))
        return err_set(err, ERR_INVALID,
                       "--name: '%s' is not of lower-case letters, digits and '-' (at most 63)",
                       spec->name);
    if (spec->user != NULL && check_user(spec->user, err) < 0)
        return -1;
    if (spec->workdir != NULL && spec->workdir[0] != '/')
        return err_set(err, ERR_INVALID, "--workdir: '%s' is not an absolute path", spec->workdir);
    for (size_t i = 0; spec->env != NULL && i < spec->env->n; i++) {
        if (check_env(spec->env->items[i], err) < 0)
            return -1;
    }
    for (size_t i = 0; i < spec->n_args; i++) {
        if (!text_is_utf8(spec->args[i], strlen(spec->args[i])))
            return err_set(err, ERR_INVALID, "argument %zu is not UTF-8, which CRI demands", i + 1);
    }
    return 0;
}

/* ---- messages ---- */

static void build_pod(struct cli_run_config *c, const struct cli_run_spec *spec)
{
    static char ns[] = CLI_RUN_NAMESPACE, label[] = CLI_RUN_LABEL;
    char *name = spec->name == NULL ? c->made_name : cli_lend(spec->name);
    runtime__v1__pod_sandbox_metadata__init(&c->metadata);
    c->metadata.name = name;
    c->metadata.uid = c->uid;
    c->metadata.namespace_ = ns;
    runtime__v1__pod_sandbox_config__labels_entry__init(&c->label);
    c->label.key = label;
    c->label.value = c->uid;
    c->labels[0] = &c->label;
    runtime__v1__namespace_option__init(&c->namespaces);
    c->namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    runtime__v1__linux_sandbox_security_context__init(&c->pod_security);
    c->pod_security.namespace_options = &c->namespaces;
    runtime__v1__linux_pod_sandbox_config__init(&c->pod_linux);
    c->pod_linux.security_context = &c->pod_security;
    runtime__v1__pod_sandbox_config__init(&c->pod);
    c->pod.metadata = &c->metadata;
    c->pod.hostname = name;
    c->pod.log_directory = cli_lend(spec->log_dir);
    c->pod.labels = c->labels;
    c->pod.n_labels = 1;
    c->pod.linux = &c->pod_linux;

    runtime__v1__pod_sandbox_filter__label_selector_entry__init(&c->selector);
    c->selector.key = label;
    c->selector.value = c->uid;
    c->selectors[0] = &c->selector;
    runtime__v1__pod_sandbox_filter__init(&c->filter);
    c->filter.label_selector = c->selectors;
    c->filter.n_label_selector = 1;
}

static int build_env(struct cli_run_config *c, const struct cli_list *env, struct err *err)
{
    for (size_t i = 0; env != NULL && i < env->n; i++) {
        const char *variable = env->items[i];
        const char *equals = strchr(variable, '=');
        const char *value = equals == NULL ? getenv(variable) : equals + 1;
        if (value == NULL)
            continue; /* NAME alone, and we have no such variable */
        size_t at = c->container.n_envs;
        c->env_names[at] =
            equals == NULL ? strdup(variable) : strndup(variable, (size_t)(equals - variable));
        if (c->env_names[at] == NULL)
            return err_no_memory(err);
        runtime__v1__key_value__init(&c->envs[at]);
        c->envs[at].key = c->env_names[at];
        c->envs[at].value = cli_lend(value);
        c->env_list[at] = &c->envs[at];
        c->container.n_envs++;
    }
    c->container.envs = c->env_list;
    return 0;
}

static int build_user(struct cli_run_config *c, const char *user, struct err *err)
{
    const char *colon = strchr(user, ':');
    c->user_name = colon == NULL ? strdup(user) : strndup(user, (size_t)(colon - user));
    if (c->user_name == NULL)
        return err_no_memory(err);
    uint64_t number;
    if (text_parse_u64(c->user_name, UINT32_MAX - 1, &number) == 0) {
        runtime__v1__int64_value__init(&c->uid_value);
        c->uid_value.value = (int64_t)number;
        c->security.run_as_user = &c->uid_value;
    } else {
        c->security.run_as_username = c->user_name;
    }
    if (colon != NULL && text_parse_u64(colon + 1, UINT32_MAX - 1, &number) == 0) {
        runtime__v1__int64_value__init(&c->gid_value);
        c->gid_value.value = (int64_t)number;
        c->security.run_as_group = &c->gid_value;
    }
    return 0;
}

static int build_container(struct cli_run_config *c, const struct cli_run_spec *spec,
                           struct err *err)
{
    static char name[] = "run", log[] = CLI_RUN_LOG;
    runtime__v1__container_metadata__init(&c->container_metadata);
    c->container_metadata.name = name;
    runtime__v1__image_spec__init(&c->image);
    c->image.image = cli_lend(spec->image);
    c->image.user_specified_image = cli_lend(spec->image);
    runtime__v1__linux_container_security_context__init(&c->security);
    c->security.namespace_options = &c->namespaces;
    runtime__v1__linux_container_config__init(&c->container_linux);
    c->container_linux.security_context = &c->security;
    runtime__v1__container_config__init(&c->container);
    c->container.metadata = &c->container_metadata;
    c->container.image = &c->image;
    c->container.linux = &c->container_linux;
    c->container.log_path = log;
    c->container.working_dir = cli_lend(spec->workdir);
    if (spec->entrypoint != NULL) {
        c->command[0] = cli_lend(spec->entrypoint);
        c->container.command = c->command;
        c->container.n_command = 1;
    }
    union {
        char *const *in;
        char **out;
    } args = {.in = spec->args};
    c->container.args = args.out;
    c->container.n_args = spec->n_args;
    if (spec->memory_mib > 0) {
        runtime__v1__linux_container_resources__init(&c->resources);
        c->resources.memory_limit_in_bytes = (int64_t)(spec->memory_mib << 20);
        c->container_linux.resources = &c->resources;
        c->pod_linux.resources = &c->resources;
    }
    if (spec->user != NULL && build_user(c, spec->user, err) < 0)
        return -1;
    return build_env(c, spec->env, err);
}

int cli_run_config_new(const struct cli_run_spec *spec, struct cli_run_config **ret_config,
                       struct err *err)
{
    struct cli_run_config *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    char digits[9];
    text_random_hex(16, c->uid);
    text_random_hex(4, digits);
    memcpy(c->made_name, "run-", 4);
    memcpy(c->made_name + 4, digits, sizeof(digits));
    build_pod(c, spec);
    if (build_container(c, spec, err) < 0) {
        cli_run_config_free(c);
        return -1;
    }
    *ret_config = c;
    return 0;
}

void cli_run_config_free(struct cli_run_config *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(c->env_names); i++)
        free(c->env_names[i]);
    free(c->user_name);
    free(c);
}

/* The messages inside an object that is shared as const are lent to requests, which do not change
 * them. */
static struct cli_run_config *lend(const struct cli_run_config *config)
{
    union {
        const struct cli_run_config *in;
        struct cli_run_config *out;
    } u = {.in = config};
    return u.out;
}

Runtime__V1__PodSandboxConfig *cli_run_pod_config(const struct cli_run_config *config)
{
    return &lend(config)->pod;
}

Runtime__V1__ContainerConfig *cli_run_container_config(const struct cli_run_config *config)
{
    return &lend(config)->container;
}

Runtime__V1__PodSandboxFilter *cli_run_filter(const struct cli_run_config *config)
{
    return &lend(config)->filter;
}

/* ---- exit codes ---- */

int cli_run_start_failure(const struct err *err)
{
    /* The errno of the exec comes back in words; the words are strerror's. */
    static const struct {
        const char *words;
        int code;
    } known[] = {
        {"No such file or directory", CLI_RUN_NOT_FOUND},
        {"no such file or directory", CLI_RUN_NOT_FOUND},
        {"not found", CLI_RUN_NOT_FOUND},
        {"Permission denied", CLI_RUN_NOT_EXECUTABLE},
        {"permission denied", CLI_RUN_NOT_EXECUTABLE},
        {"Exec format error", CLI_RUN_NOT_EXECUTABLE},
        {"exec format error", CLI_RUN_NOT_EXECUTABLE},
        {"Is a directory", CLI_RUN_NOT_EXECUTABLE},
    };
    /* Not for lack of a connection, whose socket can be "not found" too. */
    if (err->code == ERR_UNAVAILABLE || err->code == ERR_DEADLINE || err->code == ERR_CANCELLED)
        return CLI_RUN_FAILED;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strstr(err->msg, known[i].words) != NULL)
            return known[i].code;
    }
    return CLI_RUN_FAILED;
}

int cli_run_exit_code(const struct cli_exit_status *status)
{
    static const char *const plain[] = {"", "Completed", "Error"};
    bool says_itself = false;
    for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
        says_itself = says_itself || strcmp(status->reason, plain[i]) == 0;
    if (!says_itself && status->message[0] != '\0')
        cli_complain("the container ended: %s: %s", status->reason, status->message);
    else if (!says_itself)
        cli_complain("the container ended: %s", status->reason);
    /* The machine died and not the container: that is our failure. */
    if (strcmp(status->reason, "VMExited") == 0)
        return CLI_RUN_FAILED;
    return status->exit_code >= 0 && status->exit_code <= 255 ? status->exit_code : CLI_RUN_FAILED;
}
