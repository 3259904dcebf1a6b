/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a CRI container and an image become for the agent: command and environment by the OCI rules,
 * user, capabilities, cgroup values, signals. Tables, one row a rule.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/base/capname.h"
#include "host/image/image.h"
#include "host/sandbox/cricaps.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/crivolume.h"

#define MAX_WORDS 16

/* Words of a row: "a b" -> {"a", "b", NULL}; '_' stands for the empty word. */
struct words {
    char text[256];
    char *items[MAX_WORDS];
    size_t n;
};

static void split(struct words *words, const char *text)
{
    char *save = NULL;

    *words = (struct words){0};
    (void)snprintf(words->text, sizeof(words->text), "%s", text);
    for (char *word = strtok_r(words->text, " ", &save); word != NULL;
         word = strtok_r(NULL, " ", &save)) {
        assert_true(words->n < MAX_WORDS - 1);
        if (strcmp(word, "_") == 0)
            *word = '\0';
        words->items[words->n++] = word;
    }
}

static struct image_strings strings_of(const struct words *words)
{
    return (struct image_strings){.items = (const char *const *)words->items, .n = words->n};
}

static void expect_words(char *const *items, size_t n, const char *expected)
{
    cleanup_buf struct buf joined = BUF_INIT(4096);
    char *text = NULL;

    for (size_t i = 0; i < n; i++)
        assert_int_equal(buf_printf(&joined, NULL, "%s%s", i == 0 ? "" : " ", items[i]), 0);
    assert_int_equal(buf_take_string(&joined, &text, NULL), 0);
    assert_string_equal(text, expected);
    free(text);
}

/* A request's pieces, all empty. */
struct setup {
    Runtime__V1__ContainerConfig config;
    Runtime__V1__LinuxContainerConfig linux_;
    Runtime__V1__LinuxContainerSecurityContext security;
    Runtime__V1__LinuxContainerResources resources;
    Runtime__V1__NamespaceOption namespaces;
    Runtime__V1__PodSandboxConfig pod;
    struct image image;
    struct image_layer layers[4];
    struct crispec_disk disks[4];
};

static void set_up(struct setup *s)
{
    *s = (struct setup){0};
    runtime__v1__container_config__init(&s->config);
    runtime__v1__linux_container_config__init(&s->linux_);
    runtime__v1__linux_container_security_context__init(&s->security);
    runtime__v1__linux_container_resources__init(&s->resources);
    runtime__v1__namespace_option__init(&s->namespaces);
    runtime__v1__pod_sandbox_config__init(&s->pod);
    s->config.linux = &s->linux_;
    s->linux_.security_context = &s->security;
    s->linux_.resources = &s->resources;
    s->image = (struct image){
        .id = "sha256:1",
        .user = "",
        .username = "",
        .working_dir = "",
        .stop_signal = "",
        .layers = s->layers,
    };
}

static struct crispec *build(struct setup *s)
{
    struct crispec_input input = {
        .id = "c1",
        .config = &s->config,
        .pod = &s->pod,
        .image = &s->image,
        .disks = s->disks,
        .hostname = "host",
    };
    struct crispec *spec = NULL;
    struct err err;

    if (crispec_new(&input, &spec, &err) != 0)
        fail_msg("%s", err.msg);
    return spec;
}

static void commands(void **state)
{
    static const struct {
        const char *entrypoint, *cmd, *command, *args, *expected;
    } rows[] = {
        {"/e x", "c d", "", "", "/e x c d"}, {"/e x", "c d", "", "a", "/e x a"},
        {"/e x", "c d", "/r", "", "/r"},     {"/e x", "c d", "/r", "a b", "/r a b"},
        {"", "c d", "", "", "c d"},          {"", "c d", "", "a", "a"},
        {"_", "c d", "", "", "c d"},         {"", "", "/r", "", "/r"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct words entrypoint, cmd, command, args;
        struct crispec *spec;
        struct setup s;

        set_up(&s);
        split(&entrypoint, rows[i].entrypoint);
        split(&cmd, rows[i].cmd);
        split(&command, rows[i].command);
        split(&args, rows[i].args);
        s.image.entrypoint = strings_of(&entrypoint);
        s.image.cmd = strings_of(&cmd);
        s.config.command = command.items;
        s.config.n_command = command.n;
        s.config.args = args.items;
        s.config.n_args = args.n;
        spec = build(&s);
        expect_words(crispec_request(spec)->process->args, crispec_request(spec)->process->n_args,
                     rows[i].expected);
        crispec_free(spec);
    }
}

static void no_command(void **state)
{
    static const char *const commands[] = {"", "_"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct crispec_input input = {.id = "c"};
        struct crispec *spec = NULL;
        struct words command;
        struct setup s;
        struct err err;

        set_up(&s);
        split(&command, commands[i]);
        s.config.command = command.items;
        s.config.n_command = command.n;
        input.config = &s.config;
        input.pod = &s.pod;
        input.image = &s.image;
        assert_int_equal(crispec_new(&input, &spec, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_null(spec);
    }
}

static void environment(void **state)
{
    struct words env, cmd;
    Runtime__V1__KeyValue a, b;
    Runtime__V1__KeyValue *list[] = {&a, &b};
    const Casemate__Agent__V1__Process *process;
    struct crispec *spec;
    char key_a[] = "A", value_a[] = "cri", key_b[] = "B", value_b[] = "x=y";
    struct setup s;

    (void)state;
    set_up(&s);
    split(&cmd, "sh");
    split(&env, "PATH=/bin A=image AB=2");
    runtime__v1__key_value__init(&a);
    runtime__v1__key_value__init(&b);
    s.image.cmd = strings_of(&cmd);
    s.image.env = strings_of(&env);
    a.key = key_a;
    a.value = value_a;
    b.key = key_b;
    b.value = value_b;
    s.config.envs = list;
    s.config.n_envs = 2;
    spec = build(&s);
    process = crispec_request(spec)->process;
    expect_words(process->env, process->n_env, "PATH=/bin HOSTNAME=host A=cri AB=2 B=x=y");
    crispec_free(spec);

    split(&env, "A=1 B A=2 AB= B=3 A=4 HOSTNAME=image B-=5");
    s.image.env = strings_of(&env);
    spec = build(&s);
    process = crispec_request(spec)->process;
    expect_words(process->env, process->n_env,
                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=image "
                 "A=cri B=x=y AB= B-=5");
    crispec_free(spec);

    s.image.env.n = 0;
    s.config.n_envs = 0;
    s.config.tty = true;
    spec = build(&s);
    process = crispec_request(spec)->process;
    expect_words(process->env, process->n_env,
                 "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=xterm "
                 "HOSTNAME=host");
    assert_true(process->tty);
    crispec_free(spec);
}

static void working_directory(void **state)
{
    static const struct {
        const char *image, *cri, *expected;
    } rows[] = {{"", "", "/"}, {"/i", "", "/i"}, {"/i", "/c", "/c"}, {"i/j", "", "/i/j"}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct words cmd;
        struct crispec *spec;
        struct setup s;
        char dir[16];

        set_up(&s);
        split(&cmd, "sh");
        s.image.cmd = strings_of(&cmd);
        s.image.working_dir = rows[i].image;
        (void)snprintf(dir, sizeof(dir), "%s", rows[i].cri);
        s.config.working_dir = dir;
        spec = build(&s);
        assert_string_equal(crispec_request(spec)->process->cwd, rows[i].expected);
        crispec_free(spec);
    }
}

static void users(void **state)
{
    static const struct {
        const char *image;
        int64_t uid, gid; /* -1: not given */
        const char *username;
        const char *expected;
    } rows[] = {
        {"", -1, -1, "", "0"},
        {"www:adm", -1, -1, "", "www:adm"},
        {"5:6", -1, -1, "", "5:6"},
        {"5", -1, -1, "", "5"},
        {"www", 1000, -1, "", "1000"},
        {"www", 1000, 2000, "", "1000:2000"},
        {"5:6", -1, -1, "nobody", "nobody"},
        {"5:6", -1, 7, "nobody", "nobody:7"},
        {"5:6", 0, 0, "", "0:0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        Runtime__V1__Int64Value uid = RUNTIME__V1__INT64_VALUE__INIT, gid = uid;
        int64_t groups[] = {10, 20};
        const Casemate__Agent__V1__User *user;
        struct crispec *spec;
        struct words cmd;
        struct setup s;
        char name[16];

        set_up(&s);
        split(&cmd, "sh");
        s.image.cmd = strings_of(&cmd);
        s.image.user = rows[i].image;
        uid.value = rows[i].uid;
        gid.value = rows[i].gid;
        s.security.run_as_user = rows[i].uid < 0 ? NULL : &uid;
        s.security.run_as_group = rows[i].gid < 0 ? NULL : &gid;
        (void)snprintf(name, sizeof(name), "%s", rows[i].username);
        s.security.run_as_username = name;
        s.security.supplemental_groups = groups;
        s.security.n_supplemental_groups = 2;
        spec = build(&s);
        user = crispec_request(spec)->process->user;
        assert_string_equal(user->name, rows[i].expected);
        assert_int_equal(user->n_additional_gids, 2);
        assert_int_equal(user->additional_gids[1], 20);
        assert_false(user->strict_groups);
        crispec_free(spec);
        s.security.supplemental_groups_policy = RUNTIME__V1__SUPPLEMENTAL_GROUPS_POLICY__Strict;
        spec = build(&s);
        assert_true(crispec_request(spec)->process->user->strict_groups);
        assert_string_equal(crispec_request(spec)->process->user->name, rows[i].expected);
        crispec_free(spec);
    }
}

static void restrictions(void **state)
{
    Runtime__V1__SecurityProfile profile = RUNTIME__V1__SECURITY_PROFILE__INIT;
    char null_path[] = "/dev/null", other_path[] = "/dev/other", permissions[] = "r";
    Runtime__V1__Device devices[2] = {RUNTIME__V1__DEVICE__INIT, RUNTIME__V1__DEVICE__INIT};
    Runtime__V1__Device *list[] = {&devices[0], &devices[1]};
    const Casemate__Agent__V1__CreateContainerRequest *request;
    struct crispec *spec;
    struct words cmd;
    struct setup s;

    (void)state;
    set_up(&s);
    split(&cmd, "sh");
    s.image.cmd = strings_of(&cmd);
    spec = build(&s);
    assert_null(crispec_request(spec)->process->seccomp);
    assert_int_equal(crispec_request(spec)->process->oom_score_adj, 0);
    assert_int_equal(crispec_request(spec)->n_devices, 0);
    crispec_free(spec);

    s.security.seccomp = &profile; /* RuntimeDefault */
    s.security.no_new_privs = true;
    s.resources.oom_score_adj = -998;
    devices[0].host_path = devices[0].container_path = null_path;
    devices[0].permissions = permissions;
    devices[1].host_path = null_path;
    devices[1].container_path = other_path;
    s.config.devices = list;
    s.config.n_devices = 2;
    spec = build(&s);
    request = crispec_request(spec);
    assert_non_null(request->process->seccomp);
    assert_true(request->process->seccomp->filter.len > 8);
    assert_int_equal(request->process->oom_score_adj, -998);
    assert_true(request->process->no_new_privs);
    assert_int_equal(request->n_devices, 2);
    assert_string_equal(request->devices[0]->path, "/dev/null");
    assert_string_equal(request->devices[0]->permissions, "r");
    assert_string_equal(request->devices[1]->path, "/dev/other");
    assert_string_equal(request->devices[1]->guest_path, "/dev/null");
    assert_string_equal(request->devices[1]->permissions, "rwm");
    crispec_free(spec);

    s.security.privileged = true;
    spec = build(&s);
    assert_null(crispec_request(spec)->process->seccomp);
    crispec_free(spec);
}

static void capabilities(void **state)
{
    const uint64_t all = (UINT64_C(1) << CAPNAME_COUNT) - 1;
    const uint64_t net_admin = UINT64_C(1) << 12, net_raw = UINT64_C(1) << 13;
    const uint64_t usual = 0xa80425fb; /* containerd's, as /proc/self/status shows it */
    const struct {
        const char *add, *drop, *ambient;
        bool privileged;
        uint64_t expected, expected_ambient;
    } rows[] = {
        {"", "", "", false, usual, 0},
        {"NET_ADMIN", "", "", false, usual | net_admin, 0},
        {"cap_net_admin", "", "", false, usual | net_admin, 0},
        {"", "NET_RAW", "", false, usual & ~net_raw, 0},
        {"ALL", "", "", false, all, 0},
        {"ALL", "NET_RAW", "", false, all & ~net_raw, 0},
        {"NET_ADMIN", "ALL", "", false, net_admin, 0},
        {"ALL", "ALL", "", false, 0, 0},
        {"", "ALL", "NET_RAW", false, net_raw, net_raw},
        {"", "ALL", "", true, all, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        Runtime__V1__Capability request = RUNTIME__V1__CAPABILITY__INIT;
        struct words add, drop, ambient;
        uint64_t mask = 0, got_ambient = 0;
        struct err err;

        split(&add, rows[i].add);
        split(&drop, rows[i].drop);
        split(&ambient, rows[i].ambient);
        request.add_capabilities = add.items;
        request.n_add_capabilities = add.n;
        request.drop_capabilities = drop.items;
        request.n_drop_capabilities = drop.n;
        request.add_ambient_capabilities = ambient.items;
        request.n_add_ambient_capabilities = ambient.n;
        assert_int_equal(cricaps_resolve(&request, rows[i].privileged, &mask, &got_ambient, &err),
                         0);
        assert_int_equal(mask, rows[i].expected);
        assert_int_equal(got_ambient, rows[i].expected_ambient);
    }
}

static void unknown_capability(void **state)
{
    Runtime__V1__Capability request = RUNTIME__V1__CAPABILITY__INIT;
    struct words drop;
    uint64_t mask, ambient;
    struct err err;

    (void)state;
    split(&drop, "NET_RAW MAGIC");
    request.drop_capabilities = drop.items;
    request.n_drop_capabilities = drop.n;
    assert_int_equal(cricaps_resolve(&request, false, &mask, &ambient, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "drop_capabilities: unknown 'MAGIC'"));
}

static void resources(void **state)
{
    static const struct {
        int64_t shares, quota, period, memory, swap;
        const char *expected;
    } rows[] = {
        {0, 0, 0, 0, 0, ""},
        {2, 0, 0, 0, 0, "cpu.weight=1;"},
        {1024, 0, 0, 0, 0, "cpu.weight=39;"},
        {262144, 0, 0, 0, 0, "cpu.weight=10000;"},
        {999999, 0, 0, 0, 0, "cpu.weight=10000;"},
        {0, 50000, 0, 0, 0, "cpu.max=50000 100000;"},
        {0, 50000, 20000, 0, 0, "cpu.max=50000 20000;"},
        {0, -1, 20000, 0, 0, "cpu.max=max 20000;"},
        {0, -1, 0, 0, 0, "cpu.max=max 100000;"},
        {0, 0, 0, -1, 0, "memory.max=max;"},
        {0, 0, 0, 100, 0, "memory.max=100;"},
        {0, 0, 0, 100, 100, "memory.max=100;memory.swap.max=0;"},
        {0, 0, 0, 100, 150, "memory.max=100;memory.swap.max=50;"},
        {0, 0, 0, 100, -1, "memory.max=100;memory.swap.max=max;"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const Casemate__Agent__V1__Resources *got;
        cleanup_buf struct buf text = BUF_INIT(1024);
        struct crispec *spec;
        struct words cmd;
        char *joined = NULL;
        struct setup s;

        set_up(&s);
        split(&cmd, "sh");
        s.image.cmd = strings_of(&cmd);
        s.resources.cpu_shares = rows[i].shares;
        s.resources.cpu_quota = rows[i].quota;
        s.resources.cpu_period = rows[i].period;
        s.resources.memory_limit_in_bytes = rows[i].memory;
        s.resources.memory_swap_limit_in_bytes = rows[i].swap;
        spec = build(&s);
        got = crispec_request(spec)->resources;
        for (size_t j = 0; j < got->n_cgroup; j++)
            assert_int_equal(
                buf_printf(&text, NULL, "%s=%s;", got->cgroup[j]->file, got->cgroup[j]->value), 0);
        assert_int_equal(buf_take_string(&text, &joined, NULL), 0);
        assert_string_equal(joined, rows[i].expected);
        free(joined);
        crispec_free(spec);
    }
}

/* Sets and huge pages, before what `unified` says over them; limits of 0 not to an older agent. */
static void sets(void **state)
{
    Runtime__V1__HugepageLimit small = RUNTIME__V1__HUGEPAGE_LIMIT__INIT, large = small;
    Runtime__V1__HugepageLimit *limits[] = {&small, &large};
    Runtime__V1__LinuxContainerResources__UnifiedEntry entry =
        RUNTIME__V1__LINUX_CONTAINER_RESOURCES__UNIFIED_ENTRY__INIT;
    Runtime__V1__LinuxContainerResources__UnifiedEntry *entries[] = {&entry};
    Runtime__V1__LinuxContainerResources r = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    char cpus[] = "1-2", mems[] = "0", two[] = "2MB", one[] = "1GB";
    char key[] = "cpuset.cpus", value[] = "0";

    (void)state;
    r.cpuset_cpus = cpus;
    r.cpuset_mems = mems;
    small.page_size = two;
    small.limit = 4194304;
    large.page_size = one;
    r.hugepage_limits = limits;
    r.n_hugepage_limits = 2;
    entry.key = key;
    entry.value = value;
    r.unified = entries;
    r.n_unified = 1;
    for (int plain = 0; plain < 2; plain++) {
        const Casemate__Agent__V1__Resources *got;
        cleanup_buf struct buf text = BUF_INIT(1024);
        cleanup_crispec struct crispec *spec = NULL;
        cleanup_free char *joined = NULL;
        struct err err;

        assert_int_equal(crispec_new_resources(&r, plain, &spec, &err), 0);
        got = crispec_request(spec)->resources;
        for (size_t j = 0; j < got->n_cgroup; j++)
            assert_int_equal(
                buf_printf(&text, NULL, "%s=%s;", got->cgroup[j]->file, got->cgroup[j]->value), 0);
        assert_int_equal(buf_take_string(&text, &joined, NULL), 0);
        assert_string_equal(joined, plain ? "cpuset.cpus=1-2;cpuset.mems=0;hugetlb.2MB.max=4194304;"
                                            "cpuset.cpus=0;"
                                          : "cpuset.cpus=1-2;cpuset.mems=0;hugetlb.2MB.max=4194304;"
                                            "hugetlb.1GB.max=0;cpuset.cpus=0;");
    }
}

static void layers(void **state)
{
    const Casemate__Agent__V1__RootFs *rootfs;
    struct crispec *spec;
    struct words cmd;
    struct setup s;

    (void)state;
    set_up(&s);
    split(&cmd, "sh");
    s.image.cmd = strings_of(&cmd);
    s.image.n_layers = 4;
    for (uint32_t i = 0; i < 4; i++)
        s.layers[i] = (struct image_layer){.fs_type = "squashfs", .size_bytes = 100 + i};
    /* The lowest and the third are the same layer: its upper place decides. */
    s.disks[0].lun = 7;
    s.disks[1].lun = 3;
    s.disks[2].lun = 7;
    s.disks[2].serial = "seven";
    s.disks[2].size_bytes = 102;
    s.disks[3].lun = 1;
    s.security.readonly_rootfs = true;
    spec = build(&s);
    rootfs = crispec_request(spec)->rootfs;
    assert_true(rootfs->read_only);
    assert_int_equal(rootfs->n_layers, 3);
    assert_int_equal(rootfs->layers[0]->lun, 3);
    assert_int_equal(rootfs->layers[1]->lun, 7);
    assert_int_equal(rootfs->layers[1]->size_bytes, 102);
    assert_string_equal(rootfs->layers[1]->serial, "seven");
    assert_string_equal(rootfs->layers[2]->serial, "");
    assert_int_equal(rootfs->layers[2]->lun, 1);
    assert_true(rootfs->layers[2]->read_only);
    crispec_free(spec);
}

static void isolation(void **state)
{
    struct words cmd, masked;
    const Casemate__Agent__V1__CreateContainerRequest *request;
    struct crispec *spec;
    struct setup s;

    (void)state;
    set_up(&s);
    split(&cmd, "sh");
    split(&masked, "/proc/kcore /proc/keys");
    s.image.cmd = strings_of(&cmd);
    s.security.masked_paths = s.security.readonly_paths = masked.items;
    s.security.n_masked_paths = s.security.n_readonly_paths = masked.n;
    s.security.namespace_options = &s.namespaces;
    s.security.no_new_privs = true;
    s.namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    spec = build(&s);
    request = crispec_request(spec);
    assert_int_equal(request->n_masked_paths, 2);
    assert_int_equal(request->n_readonly_paths, 2);
    assert_true(request->process->no_new_privs);
    assert_int_equal(request->pid_namespace,
                     CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER);
    crispec_free(spec);
    s.security.privileged = true;
    s.namespaces.pid = RUNTIME__V1__NAMESPACE_MODE__NODE;
    spec = build(&s);
    request = crispec_request(spec);
    assert_true(request->privileged);
    assert_int_equal(request->n_masked_paths, 0);
    assert_int_equal(request->n_readonly_paths, 0);
    assert_int_equal(request->pid_namespace,
                     CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_NODE);
    crispec_free(spec);
}

static void volumes(void **state)
{
    struct crispec_input input = {.id = "c1", .hostname = "host"};
    const char *many[CRIVOLUME_MAX + 2];
    char names[CRIVOLUME_MAX + 1][8];
    const Casemate__Agent__V1__CreateContainerRequest *request;
    struct crispec *spec = NULL;
    struct words words, command;
    struct setup s;
    struct err err;

    (void)state;
    set_up(&s);
    split(&command, "/r");
    s.config.command = command.items;
    s.config.n_command = command.n;
    split(&words, "/b /a/../b a / /proc/x /b/ /sys/fs/cgroup /b/c");
    s.image.volumes = strings_of(&words);
    spec = build(&s);
    request = crispec_request(spec);
    expect_words(request->volumes, request->n_volumes, "/b /a /b/c");
    crispec_free(spec);

    for (size_t i = 0; i <= CRIVOLUME_MAX; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "/v%zu", i);
        many[i] = names[i];
    }
    many[CRIVOLUME_MAX + 1] = "/v0"; /* again: counts once */
    s.image.volumes = (struct image_strings){.items = many + 1, .n = CRIVOLUME_MAX};
    spec = build(&s);
    assert_int_equal(crispec_request(spec)->n_volumes, CRIVOLUME_MAX);
    crispec_free(spec);
    input.config = &s.config;
    input.pod = &s.pod;
    input.image = &s.image;
    s.image.volumes = (struct image_strings){.items = many, .n = CRIVOLUME_MAX + 2};
    assert_int_equal(crispec_new(&input, &spec, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    /* Of an agent that does not know what they are nothing is asked. */
    input.no_volumes = true;
    assert_int_equal(crispec_new(&input, &spec, &err), 0);
    assert_int_equal(crispec_request(spec)->n_volumes, 0);
    crispec_free(spec);
}

static void stop_signals(void **state)
{
    static const struct {
        int cri;
        const char *image;
        unsigned expected;
    } rows[] = {
        {0, "", SIGTERM},
        {0, "SIGQUIT", SIGQUIT},
        {0, "quit", SIGQUIT},
        {0, "9", SIGKILL},
        {0, "SIGRTMIN+3", 37},
        {0, "RTMAX-14", 50},
        {0, "SIGRTMIN", 34},
        {0, "nonsense", SIGTERM},
        {0, "65", SIGTERM},
        {0, "SIGRTMIN+99", SIGTERM},
        {RUNTIME__V1__SIGNAL__SIGINT, "SIGQUIT", SIGINT},
        {RUNTIME__V1__SIGNAL__SIGABRT, "", SIGABRT},
        {RUNTIME__V1__SIGNAL__SIGXFSZ, "", SIGXFSZ},
        {RUNTIME__V1__SIGNAL__SIGRTMIN, "", 34},
        {RUNTIME__V1__SIGNAL__SIGRTMINPLUS15, "", 49},
        {RUNTIME__V1__SIGNAL__SIGRTMAXMINUS14, "", 50},
        {RUNTIME__V1__SIGNAL__SIGRTMAX, "", 64},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        Runtime__V1__ContainerConfig config;

        runtime__v1__container_config__init(&config);
        config.stop_signal = (Runtime__V1__Signal)rows[i].cri;
        assert_int_equal(crispec_stop_signal(&config, rows[i].image), rows[i].expected);
    }
    /* And back: each of CRI's numbers names the same signal again. */
    for (int cri = 1; cri <= RUNTIME__V1__SIGNAL__SIGRTMAX; cri++) {
        Runtime__V1__ContainerConfig config;
        unsigned signo;

        runtime__v1__container_config__init(&config);
        config.stop_signal = (Runtime__V1__Signal)cri;
        signo = crispec_stop_signal(&config, "");
        config.stop_signal = crispec_cri_signal(signo);
        assert_int_equal(crispec_stop_signal(&config, ""), signo);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands),     cmocka_unit_test(no_command),
        cmocka_unit_test(environment),  cmocka_unit_test(working_directory),
        cmocka_unit_test(users),        cmocka_unit_test(restrictions),
        cmocka_unit_test(capabilities), cmocka_unit_test(unknown_capability),
        cmocka_unit_test(resources),    cmocka_unit_test(sets),
        cmocka_unit_test(layers),       cmocka_unit_test(isolation),
        cmocka_unit_test(stop_signals), cmocka_unit_test(volumes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
