/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The request's nested messages are made in one arena (a list of blocks, freed
 * together); strings that exist are pointed to. Rules, each with its source:
 * - command and args over entrypoint and cmd: CRI's comments on ContainerConfig (a command drops
 * the image's cmd);
 * - environment: a default PATH, TERM with a terminal, HOSTNAME, then the image's, then CRI's, a
 * later value taking the place of an earlier one (containerd);
 * - user: run_as_user or run_as_username, with run_as_group after a colon, else the image's,
 * resolved in the container's own files by the agent (OCI image-spec 1.1, config "User");
 * - CPU shares to weight and the other conversions from cgroup v1's values: the formulas of the OCI
 * runtimes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/capname.h"
#include "common/base/text.h"
#include "host/image/image.h"
#include "host/sandbox/cricaps.h"
#include "host/sandbox/criseccomp.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/crivolume.h"

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MAX_SETTINGS 8 /* of our own; `unified` comes on top */

typedef Runtime__V1__ContainerConfig container_config;
typedef Runtime__V1__LinuxContainerSecurityContext container_security;
typedef Runtime__V1__LinuxContainerResources container_resources;

struct block {
    struct block *next;
    max_align_t bytes[];
};

struct crispec {
    struct block *blocks;
    Casemate__Agent__V1__CreateContainerRequest request;
    Casemate__Agent__V1__Process process;
    Casemate__Agent__V1__User user;
    Casemate__Agent__V1__Capabilities capabilities;
    Casemate__Agent__V1__RootFs rootfs;
    Casemate__Agent__V1__Resources resources;
    bool plain_cgroups;
    Casemate__Agent__V1__Seccomp seccomp;
    struct sysfilter_program filter; /* what seccomp points to */
};

/* Zeroed memory of the spec, or NULL. */
static void *spec_alloc(struct crispec *spec, size_t n, size_t size)
{
    struct block *block;
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes) ||
        __builtin_add_overflow(bytes, sizeof(*block), &bytes))
        return NULL;
    block = calloc(1, bytes);
    if (block == NULL)
        return NULL;
    block->next = spec->blocks;
    spec->blocks = block;
    return block->bytes;
}

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* "a<sep>b" in the spec's memory, or NULL, also when a or b is. */
static char *spec_join(struct crispec *spec, const char *a, char sep, const char *b)
{
    size_t n, m;
    char *joined;

    if (a == NULL || b == NULL)
        return NULL;
    n = strlen(a);
    m = strlen(b);
    joined = spec_alloc(spec, n + m + 2, 1);
    if (joined == NULL)
        return NULL;
    memcpy(joined, a, n);
    joined[n] = sep;
    memcpy(joined + n + 1, b, m);
    return joined;
}

static const container_security *security_of(const container_config *config)
{
    return config->linux == NULL ? NULL : config->linux->security_context;
}

static int build_args(struct crispec *spec, const container_config *config,
                      const struct image *image, struct err *err)
{
    Casemate__Agent__V1__Process *process = &spec->process;
    bool own_command = config->n_command > 0;
    size_t n_first = own_command ? config->n_command : image->entrypoint.n;
    bool image_cmd = !own_command && config->n_args == 0;
    size_t n_rest = image_cmd ? image->cmd.n : config->n_args;
    char **args;
    size_t n = 0;

    if (!own_command && n_first == 1 && *image->entrypoint.items[0] == '\0')
        n_first = 0;
    if (n_first + n_rest == 0)
        return err_set(err, ERR_INVALID, "no command: neither the request nor the image names one");
    args = spec_alloc(spec, n_first + n_rest, sizeof(char *));
    if (args == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n_first; i++)
        args[n++] = own_command ? config->command[i] : unconst(image->entrypoint.items[i]);
    for (size_t i = 0; i < n_rest; i++)
        args[n++] = image_cmd ? unconst(image->cmd.items[i]) : config->args[i];
    if (args[0][0] == '\0')
        return err_set(err, ERR_INVALID, "the command is empty");
    process->args = args;
    process->n_args = n;
    return 0;
}

/* Adds "NAME=value". The array has room. */
static void put_env(Casemate__Agent__V1__Process *process, const char *entry)
{
    process->env[process->n_env++] = unconst(entry);
}

static int compare_names(const char *a, const char *b)
{
    size_t a_len = strcspn(a, "="), b_len = strcspn(b, "=");
    int r = memcmp(a, b, a_len < b_len ? a_len : b_len);

    return r != 0 ? r : (a_len > b_len) - (a_len < b_len);
}

/* Places of one array, by the names that are there, then from front to back. */
static int compare_places(const void *a, const void *b)
{
    char *const *x = *(char **const *)a;
    char *const *y = *(char **const *)b;
    int r = compare_names(*x, *y);

    return r != 0 ? r : (x > y) - (x < y);
}

/*
 * Of the values of one name the last is kept, in the first one's place. The names are sorted for
 * it: there are seven for each service of a namespace.
 */
static int merge_env(struct crispec *spec, Casemate__Agent__V1__Process *process, struct err *err)
{
    char ***places = spec_alloc(spec, process->n_env, sizeof(*places));
    size_t n = 0;

    if (places == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < process->n_env; i++)
        places[i] = &process->env[i];
    qsort(places, process->n_env, sizeof(*places), compare_places);
    for (size_t first = 0, next; first < process->n_env; first = next) {
        for (next = first + 1; next < process->n_env; next++) {
            if (compare_names(*places[first], *places[next]) != 0)
                break;
        }
        *places[first] = *places[next - 1];
        for (size_t i = first + 1; i < next; i++)
            *places[i] = NULL;
    }
    for (size_t i = 0; i < process->n_env; i++) {
        if (process->env[i] != NULL)
            process->env[n++] = process->env[i];
    }
    process->n_env = n;
    return 0;
}

static int build_env(struct crispec *spec, const struct crispec_input *input, struct err *err)
{
    Casemate__Agent__V1__Process *process = &spec->process;
    const container_config *config = input->config;
    const struct image *image = input->image;
    char *entry;

    process->env = spec_alloc(spec, 3 + image->env.n + config->n_envs, sizeof(char *));
    if (process->env == NULL)
        return err_no_memory(err);
    put_env(process, DEFAULT_PATH);
    if (config->tty)
        put_env(process, "TERM=xterm");
    entry = spec_join(spec, "HOSTNAME", '=', text_or_empty(input->hostname));
    if (entry == NULL)
        return err_no_memory(err);
    put_env(process, entry);
    for (size_t i = 0; i < image->env.n; i++)
        put_env(process, image->env.items[i]);
    for (size_t i = 0; i < config->n_envs; i++) {
        entry = spec_join(spec, config->envs[i]->key, '=', config->envs[i]->value);
        if (entry == NULL)
            return err_no_memory(err);
        put_env(process, entry);
    }
    return merge_env(spec, process, err);
}

static int build_cwd(struct crispec *spec, const container_config *config,
                     const struct image *image, struct err *err)
{
    const char *cwd = *config->working_dir != '\0' ? config->working_dir : image->working_dir;

    if (*cwd == '\0')
        cwd = "/";
    if (*cwd != '/')
        cwd = spec_join(spec, "", '/', cwd);
    if (cwd == NULL)
        return err_no_memory(err);
    spec->process.cwd = unconst(cwd);
    return 0;
}

/* A decimal number in the spec's memory, or NULL. */
static char *spec_number(struct crispec *spec, int64_t value)
{
    char *text = spec_alloc(spec, 24, 1);

    if (text != NULL)
        (void)snprintf(text, 24, "%lld", (long long)value);
    return text;
}

/* "user" or "user:group" as the agent resolves it. */
static int build_user_name(struct crispec *spec, const container_security *security,
                           const struct image *image, struct err *err)
{
    const char *name = image->user;

    if (security != NULL && security->run_as_user != NULL)
        name = spec_number(spec, security->run_as_user->value);
    else if (security != NULL && *security->run_as_username != '\0')
        name = security->run_as_username;
    if (name != NULL && security != NULL && security->run_as_group != NULL) {
        char *group = spec_number(spec, security->run_as_group->value);
        name = group == NULL ? NULL : spec_join(spec, name, ':', group);
    }
    if (name == NULL)
        return err_no_memory(err);
    /* uid 0 by number too: its groups in the image's /etc/group are its own as well. */
    spec->user.name = unconst(*name == '\0' ? "0" : name);
    return 0;
}

static int build_user(struct crispec *spec, const container_config *config,
                      const struct image *image, struct err *err)
{
    const container_security *security = security_of(config);
    Casemate__Agent__V1__User *user = &spec->user;

    casemate__agent__v1__user__init(user);
    spec->process.user = user;
    if (build_user_name(spec, security, image, err) != 0)
        return -1;
    user->strict_groups = security != NULL && security->supplemental_groups_policy ==
                                                  RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict;
    if (security == NULL || security->n_supplemental_groups == 0)
        return 0;
    user->additional_gids = spec_alloc(spec, security->n_supplemental_groups, sizeof(uint32_t));
    if (user->additional_gids == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < security->n_supplemental_groups; i++)
        user->additional_gids[user->n_additional_gids++] =
            (uint32_t)security->supplemental_groups[i];
    return 0;
}

/* The names of a mask; *ret_n of them. */
static char **name_list(struct crispec *spec, uint64_t mask, size_t *ret_n)
{
    char **list = spec_alloc(spec, CAPNAME_COUNT, sizeof(char *));
    size_t n = 0;

    for (unsigned i = 0; list != NULL && i < CAPNAME_COUNT; i++) {
        if ((mask >> i & 1) != 0)
            list[n++] = unconst(capname_get(i));
    }
    *ret_n = n;
    return list;
}

static int build_seccomp(struct crispec *spec, const container_security *security, uint64_t mask,
                         struct err *err)
{
    Casemate__Agent__V1__Seccomp *seccomp = &spec->seccomp;

    if (criseccomp_program(security, mask, &spec->filter, err) != 0)
        return -1;
    if (spec->filter.bytes == NULL)
        return 0;
    casemate__agent__v1__seccomp__init(seccomp);
    seccomp->filter.data = spec->filter.bytes;
    seccomp->filter.len = spec->filter.n_bytes;
    seccomp->flags = spec->filter.flags;
    spec->process.seccomp = seccomp;
    return 0;
}

static int build_capabilities(struct crispec *spec, const container_config *config, struct err *err)
{
    const container_security *security = security_of(config);
    Casemate__Agent__V1__Capabilities *caps = &spec->capabilities;
    uint64_t mask = 0, ambient = 0;
    char **list, **ambient_list;
    size_t n = 0, n_ambient = 0;

    if (cricaps_resolve(security == NULL ? NULL : security->capabilities,
                        security != NULL && security->privileged, &mask, &ambient, err) != 0)
        return -1;
    list = name_list(spec, mask, &n);
    ambient_list = name_list(spec, ambient, &n_ambient);
    if (list == NULL || ambient_list == NULL)
        return err_no_memory(err);
    casemate__agent__v1__capabilities__init(caps);
    caps->bounding = caps->permitted = caps->effective = list;
    caps->n_bounding = caps->n_permitted = caps->n_effective = n;
    caps->inheritable = caps->ambient = ambient_list;
    caps->n_inheritable = caps->n_ambient = n_ambient;
    spec->process.capabilities = caps;
    return build_seccomp(spec, security, mask, err);
}

static int build_process(struct crispec *spec, const struct crispec_input *input, struct err *err)
{
    const container_config *config = input->config;
    const container_security *security = security_of(config);
    Casemate__Agent__V1__Process *process = &spec->process;

    casemate__agent__v1__process__init(process);
    process->tty = config->tty;
    process->stdin = config->stdin;
    process->stdin_once = config->stdin_once;
    process->no_new_privs = security != NULL && security->no_new_privs;
    if (config->linux != NULL && config->linux->resources != NULL)
        process->oom_score_adj = (int32_t)config->linux->resources->oom_score_adj;
    if (build_args(spec, config, input->image, err) != 0 || build_env(spec, input, err) != 0 ||
        build_cwd(spec, config, input->image, err) != 0 ||
        build_user(spec, config, input->image, err) != 0 ||
        build_capabilities(spec, config, err) != 0)
        return -1;
    spec->request.process = process;
    return 0;
}

/* The image's layers, each file system once: of a layer that is there twice the upper place counts.
 */
static int build_rootfs(struct crispec *spec, const struct crispec_input *input, struct err *err)
{
    const struct image *image = input->image;
    const container_security *security = security_of(input->config);
    Casemate__Agent__V1__RootFs *rootfs = &spec->rootfs;
    Casemate__Agent__V1__Disk *disks;

    casemate__agent__v1__root_fs__init(rootfs);
    rootfs->read_only = security != NULL && security->readonly_rootfs;
    disks = spec_alloc(spec, image->n_layers, sizeof(*disks));
    rootfs->layers = spec_alloc(spec, image->n_layers, sizeof(Casemate__Agent__V1__Disk *));
    if (disks == NULL || rootfs->layers == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < image->n_layers; i++) {
        bool again = false;
        for (size_t j = i + 1; j < image->n_layers && !again; j++)
            again = input->disks[j].lun == input->disks[i].lun;
        if (again)
            continue;
        casemate__agent__v1__disk__init(&disks[i]);
        disks[i].lun = input->disks[i].lun;
        disks[i].serial = unconst(text_or_empty(input->disks[i].serial));
        disks[i].size_bytes = input->disks[i].size_bytes;
        disks[i].read_only = true;
        disks[i].fs_type = unconst(image->layers[i].fs_type);
        rootfs->layers[rootfs->n_layers++] = &disks[i];
    }
    spec->request.rootfs = rootfs;
    return 0;
}

static int add_setting(struct crispec *spec, const char *file, const char *value, struct err *err)
{
    Casemate__Agent__V1__CgroupSetting *setting = spec_alloc(spec, 1, sizeof(*setting));

    if (setting == NULL || value == NULL)
        return err_no_memory(err);
    casemate__agent__v1__cgroup_setting__init(setting);
    setting->file = unconst(file);
    setting->value = unconst(value);
    spec->resources.cgroup[spec->resources.n_cgroup++] = setting;
    return 0;
}

/* cgroup v1 shares 2..262144 onto v2's weight 1..10000. */
static int64_t weight_of_shares(int64_t shares)
{
    if (shares < 2)
        shares = 2;
    if (shares > 262144)
        shares = 262144;
    return 1 + (shares - 2) * 9999 / 262142;
}

static int add_cpu(struct crispec *spec, const container_resources *from, struct err *err)
{
    int64_t period = from->cpu_period > 0 ? from->cpu_period : 100000;

    if (from->cpu_shares > 0 &&
        add_setting(spec, "cpu.weight", spec_number(spec, weight_of_shares(from->cpu_shares)),
                    err) != 0)
        return -1;
    if (from->cpu_quota > 0) {
        const char *quota = spec_number(spec, from->cpu_quota);
        const char *of = spec_number(spec, period);
        if (quota == NULL || of == NULL)
            return err_no_memory(err);
        return add_setting(spec, "cpu.max", spec_join(spec, quota, ' ', of), err);
    }
    if (from->cpu_quota < 0 || from->cpu_period > 0)
        return add_setting(spec, "cpu.max", spec_join(spec, "max", ' ', spec_number(spec, period)),
                           err);
    return 0;
}

static int add_memory(struct crispec *spec, const container_resources *from, struct err *err)
{
    int64_t swap = from->memory_swap_limit_in_bytes;

    if (from->memory_limit_in_bytes > 0 &&
        add_setting(spec, "memory.max", spec_number(spec, from->memory_limit_in_bytes), err) != 0)
        return -1;
    if (from->memory_limit_in_bytes < 0 && add_setting(spec, "memory.max", "max", err) != 0)
        return -1;
    if (swap < 0)
        return add_setting(spec, "memory.swap.max", "max", err);
    if (swap > 0 && from->memory_limit_in_bytes > 0)
        return add_setting(spec, "memory.swap.max",
                           spec_number(spec, swap - from->memory_limit_in_bytes), err);
    return 0;
}

/* A limit of 0 too: an update may take huge pages away. */
static int add_sets(struct crispec *spec, const container_resources *from, struct err *err)
{
    if (*from->cpuset_cpus != '\0' && add_setting(spec, "cpuset.cpus", from->cpuset_cpus, err) != 0)
        return -1;
    if (*from->cpuset_mems != '\0' && add_setting(spec, "cpuset.mems", from->cpuset_mems, err) != 0)
        return -1;
    for (size_t i = 0; i < from->n_hugepage_limits; i++) {
        const Runtime__V1__HugepageLimit *limit = from->hugepage_limits[i];
        if (limit->limit == 0 && spec->plain_cgroups)
            continue;
        if (add_setting(
                spec,
                spec_join(spec, spec_join(spec, "hugetlb", '.', limit->page_size), '.', "max"),
                spec_number(spec, limit->limit > INT64_MAX ? INT64_MAX : (int64_t)limit->limit),
                err) != 0)
            return -1;
    }
    return 0;
}

static int build_resources(struct crispec *spec, const container_resources *from, struct err *err)
{
    Casemate__Agent__V1__Resources *to = &spec->resources;

    casemate__agent__v1__resources__init(to);
    spec->request.resources = to;
    if (from == NULL)
        return 0;
    to->cgroup = spec_alloc(spec, MAX_SETTINGS + from->n_hugepage_limits + from->n_unified,
                            sizeof(Casemate__Agent__V1__CgroupSetting *));
    if (to->cgroup == NULL)
        return err_no_memory(err);
    if (add_cpu(spec, from, err) != 0 || add_memory(spec, from, err) != 0 ||
        add_sets(spec, from, err) != 0)
        return -1;
    for (size_t i = 0; i < from->n_unified; i++) {
        if (add_setting(spec, from->unified[i]->key, from->unified[i]->value, err) != 0)
            return -1;
    }
    return 0;
}

/* Each is one that crivalid has let through: the guest's own of the same name. */
static int build_devices(struct crispec *spec, const container_config *config, struct err *err)
{
    Casemate__Agent__V1__CreateContainerRequest *request = &spec->request;
    Casemate__Agent__V1__Device *devices = spec_alloc(spec, config->n_devices, sizeof(*devices));

    request->devices = spec_alloc(spec, config->n_devices, sizeof(Casemate__Agent__V1__Device *));
    if (devices == NULL || request->devices == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < config->n_devices; i++) {
        const Runtime__V1__Device *from = config->devices[i];
        const char *permissions = *from->permissions == '\0' ? "rwm" : from->permissions;
        casemate__agent__v1__device__init(&devices[i]);
        devices[i].path = *from->container_path == '\0' ? from->host_path : from->container_path;
        devices[i].guest_path = from->host_path;
        devices[i].permissions = unconst(permissions);
        request->devices[i] = &devices[i];
    }
    request->n_devices = config->n_devices;
    return 0;
}

/* The image's. CRI's mounts, which would go over them, are refused. */
static int build_volumes(struct crispec *spec, const struct image *image, struct err *err)
{
    Casemate__Agent__V1__CreateContainerRequest *request = &spec->request;

    request->volumes = spec_alloc(spec, CRIVOLUME_MAX, sizeof(char *));
    if (request->volumes == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < image->volumes.n; i++) {
        char *path = spec_alloc(spec, strlen(image->volumes.items[i]) + 2, 1);
        bool again = false;
        if (path == NULL)
            return err_no_memory(err);
        if (crivolume_path(image->volumes.items[i], path, err) != 0)
            return -1;
        for (size_t j = 0; j < request->n_volumes && !again; j++)
            again = strcmp(path, request->volumes[j]) == 0;
        if (again || *path == '\0')
            continue;
        if (request->n_volumes == CRIVOLUME_MAX)
            return err_set(err, ERR_INVALID, "image: more than %u volumes", CRIVOLUME_MAX);
        request->volumes[request->n_volumes++] = path;
    }
    return 0;
}

static Casemate__Agent__V1__NamespaceSharing sharing_of(Runtime__V1__NamespaceMode mode)
{
    switch (mode) {
    case RUNTIME__V1__NAMESPACE_MODE__CONTAINER:
        return CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER;
    case RUNTIME__V1__NAMESPACE_MODE__NODE:
        return CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_NODE;
    case RUNTIME__V1__NAMESPACE_MODE__TARGET:
        return CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_TARGET;
    default:
        return CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_POD;
    }
}

static void build_isolation(struct crispec *spec, const struct crispec_input *input)
{
    const container_security *security = security_of(input->config);
    const Runtime__V1__NamespaceOption *option;
    Casemate__Agent__V1__CreateContainerRequest *request = &spec->request;

    if (security == NULL)
        return;
    request->privileged = security->privileged;
    if (!security->privileged) {
        request->masked_paths = security->masked_paths;
        request->n_masked_paths = security->n_masked_paths;
        request->readonly_paths = security->readonly_paths;
        request->n_readonly_paths = security->n_readonly_paths;
    }
    option = security->namespace_options;
    if (option == NULL)
        return;
    request->pid_namespace = sharing_of(option->pid);
    request->ipc_namespace = sharing_of(option->ipc);
    if (input->pid_target_id != NULL)
        request->pid_target_id = unconst(input->pid_target_id);
}

int crispec_new(const struct crispec_input *input, struct crispec **ret_spec, struct err *err)
{
    cleanup_crispec struct crispec *spec = calloc(1, sizeof(*spec));

    if (spec == NULL)
        return err_no_memory(err);
    spec->plain_cgroups = input->plain_cgroups;
    casemate__agent__v1__create_container_request__init(&spec->request);
    spec->request.id = unconst(input->id);
    if (build_process(spec, input, err) != 0 ||
        (input->disks != NULL && build_rootfs(spec, input, err) != 0) ||
        build_resources(spec, input->config->linux == NULL ? NULL : input->config->linux->resources,
                        err) != 0 ||
        build_devices(spec, input->config, err) != 0 ||
        (!input->no_volumes && build_volumes(spec, input->image, err) != 0))
        return -1;
    build_isolation(spec, input);
    *ret_spec = steal_ptr(&spec);
    return 0;
}

int crispec_new_resources(const Runtime__V1__LinuxContainerResources *resources, bool plain_cgroups,
                          struct crispec **ret_spec, struct err *err)
{
    cleanup_crispec struct crispec *spec = calloc(1, sizeof(*spec));

    if (spec == NULL)
        return err_no_memory(err);
    spec->plain_cgroups = plain_cgroups;
    casemate__agent__v1__create_container_request__init(&spec->request);
    if (build_resources(spec, resources, err) != 0)
        return -1;
    *ret_spec = steal_ptr(&spec);
    return 0;
}

void crispec_free(struct crispec *spec)
{
    if (spec == NULL)
        return;
    while (spec->blocks != NULL) {
        struct block *next = spec->blocks->next;
        free(spec->blocks);
        spec->blocks = next;
    }
    sysfilter_program_fini(&spec->filter);
    free(spec);
}

const Casemate__Agent__V1__CreateContainerRequest *crispec_request(const struct crispec *spec)
{
    return &spec->request;
}
