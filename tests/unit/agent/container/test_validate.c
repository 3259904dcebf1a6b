/* SPDX-License-Identifier: Apache-2.0 */
/* Each rule of the validator: a request that passes, and the same with one thing wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/container/validate.h"
#include "agent/mount/rootfs.h"

struct request {
    Casemate__Agent__V1__CreateContainerRequest create;
    Casemate__Agent__V1__Process process;
    Casemate__Agent__V1__User user;
    Casemate__Agent__V1__Capabilities caps;
    Casemate__Agent__V1__Rlimit rlimit;
    Casemate__Agent__V1__RootFs rootfs;
    Casemate__Agent__V1__Disk disk;
    Casemate__Agent__V1__Resources resources;
    Casemate__Agent__V1__CgroupSetting setting;
    char *args[1];
    char *path[1];
    char *cap[1];
    Casemate__Agent__V1__Rlimit *rlimits[1];
    Casemate__Agent__V1__Disk *disks[200];
    Casemate__Agent__V1__CgroupSetting *settings[1];
    uint32_t gids[1];
};

#define TEXT(s) ((char[]){s})

static void init(struct request *r)
{
    memset(r, 0, sizeof(*r));
    casemate__agent__v1__create_container_request__init(&r->create);
    casemate__agent__v1__process__init(&r->process);
    casemate__agent__v1__user__init(&r->user);
    casemate__agent__v1__capabilities__init(&r->caps);
    casemate__agent__v1__rlimit__init(&r->rlimit);
    casemate__agent__v1__root_fs__init(&r->rootfs);
    casemate__agent__v1__disk__init(&r->disk);
    casemate__agent__v1__resources__init(&r->resources);
    casemate__agent__v1__cgroup_setting__init(&r->setting);
    r->create.id = strdup("c-1_x.y");
    r->create.process = &r->process;
    r->create.rootfs = &r->rootfs;
    r->create.resources = &r->resources;
    r->create.masked_paths = r->path;
    r->create.n_masked_paths = 1;
    r->create.readonly_paths = r->path;
    r->create.n_readonly_paths = 1;
    r->path[0] = strdup("/proc/kcore");
    r->process.args = r->args;
    r->process.n_args = 1;
    r->args[0] = strdup("sh");
    r->process.user = &r->user;
    r->process.capabilities = &r->caps;
    r->process.rlimits = r->rlimits;
    r->process.n_rlimits = 1;
    r->rlimits[0] = &r->rlimit;
    r->rlimit.type = strdup("NOFILE");
    r->rlimit.soft = 1;
    r->rlimit.hard = 2;
    r->user.additional_gids = r->gids;
    r->user.n_additional_gids = 1;
    r->cap[0] = strdup("CHOWN");
    r->caps.bounding = r->caps.permitted = r->caps.effective = r->cap;
    r->caps.n_bounding = r->caps.n_permitted = r->caps.n_effective = 1;
    r->rootfs.layers = r->disks;
    r->rootfs.n_layers = 1;
    for (size_t i = 0; i < 200; i++)
        r->disks[i] = &r->disk;
    r->disk.fs_type = strdup("squashfs");
    r->resources.cgroup = r->settings;
    r->resources.n_cgroup = 1;
    r->settings[0] = &r->setting;
    r->setting.file = strdup("memory.max");
    r->setting.value = strdup("1");
}

static void fini(struct request *r)
{
    free(r->create.id);
    free(r->path[0]);
    free(r->args[0]);
    free(r->rlimit.type);
    free(r->cap[0]);
    free(r->disk.fs_type);
    free(r->setting.file);
    free(r->setting.value);
}

static void set(char **field, const char *text)
{
    free(*field);
    *field = strdup(text);
}

/* Applies one wrong thing; the message must name the field. */
/* "r" in `change` is the request. */
#define REFUSED(change, field)                                                                     \
    do {                                                                                           \
        struct err refused_ = {.code = ERR_NONE};                                                  \
        init(r);                                                                                   \
        change;                                                                                    \
        assert_int_equal(validate_create(&r->create, &refused_), -1);                              \
        assert_int_equal(refused_.code, ERR_INVALID);                                              \
        if (strstr(refused_.msg, field) == NULL)                                                   \
            fail_msg("\"%s\" does not name \"%s\"", refused_.msg, field);                          \
        fini(r);                                                                                   \
    } while (0)

static void test_create(void **state)
{
    struct request request, *r = &request;
    struct err err;
    (void)state;
    init(r);
    if (validate_create(&r->create, &err) < 0)
        fail_msg("%s", err.msg);
    r->create.resources = NULL;
    r->process.capabilities = NULL;
    r->process.user = NULL;
    assert_int_equal(validate_create(&r->create, &err), 0);
    fini(r);

    REFUSED(set(&r->create.id, ""), "id");
    REFUSED(set(&r->create.id, "."), "id");
    REFUSED(set(&r->create.id, "a/b"), "id");
    REFUSED(set(&r->create.id, "caf\xc3\xa9"), "id");
    REFUSED(r->create.process = NULL, "process");
    REFUSED(r->create.rootfs = NULL, "rootfs");
    REFUSED(r->rootfs.n_layers = 0, "rootfs");
    REFUSED(r->rootfs.n_layers = ROOTFS_MAX_LAYERS + 1, "rootfs");
    REFUSED(set(&r->disk.fs_type, "ntfs"), "rootfs");
    REFUSED(r->disk.lun = 16384, "LUN");
    REFUSED(set(&r->path[0], "proc"), "paths");
    REFUSED(set(&r->setting.file, "cgroup.procs"), "resources");
    REFUSED(set(&r->setting.file, "memory.max/../../x"), "resources");
    REFUSED(r->create.pid_namespace = (Casemate__Agent__V1__NamespaceSharing)17, "pid_namespace");
    REFUSED(r->create.pid_namespace = CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_TARGET,
            "pid_target_id");
    REFUSED(r->create.ipc_namespace = (Casemate__Agent__V1__NamespaceSharing)17, "ipc_namespace");
}

static void test_volumes(void **state)
{
    static const char *const wrong[] = {"",     "/",      "data",    "/a/",   "//a",     "/a//b",
                                        "/a/.", "/../a",  "/a/..",   "/proc", "/sys/fs", "/dev",
                                        "/.",   "/dev/x", "/a/../b", "/..",   "a/b"};
    static const char *const right[] = {"/a",       "/a/b",     "/.a/..b/...",
                                        "/process", "/devel/x", "/a b"};
    char *volumes[VALIDATE_MAX_VOLUMES + 1], names[VALIDATE_MAX_VOLUMES + 1][8];
    char long_path[4097];
    struct request request, *r = &request;
    struct err err;

    (void)state;
    for (size_t i = 0; i <= VALIDATE_MAX_VOLUMES; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "/v%zu", i);
        volumes[i] = names[i];
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        volumes[1] = (char *)(uintptr_t)wrong[i];
        REFUSED((r->create.volumes = volumes, r->create.n_volumes = 2), "volumes[1]");
    }
    memset(long_path, 'a', sizeof(long_path) - 1);
    long_path[0] = '/';
    long_path[4096] = '\0';
    volumes[1] = long_path;
    REFUSED((r->create.volumes = volumes, r->create.n_volumes = 2), "volumes[1]");
    volumes[1] = names[0];
    REFUSED((r->create.volumes = volumes, r->create.n_volumes = 2), "twice");
    volumes[1] = names[1];
    REFUSED((r->create.volumes = volumes, r->create.n_volumes = VALIDATE_MAX_VOLUMES + 1), "more");

    init(r);
    r->create.volumes = volumes;
    r->create.n_volumes = VALIDATE_MAX_VOLUMES;
    assert_int_equal(validate_create(&r->create, &err), 0);
    r->create.n_volumes = 1;
    long_path[4095] = '\0';
    volumes[0] = long_path;
    assert_int_equal(validate_create(&r->create, &err), 0);
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        volumes[0] = (char *)(uintptr_t)right[i];
        if (validate_create(&r->create, &err) < 0)
            fail_msg("%s: %s", right[i], err.msg);
    }
    fini(r);
}

static void test_process(void **state)
{
    struct request request, *r = &request;
    (void)state;
    REFUSED(r->process.n_args = 0, "args");
    REFUSED(set(&r->args[0], ""), "args");
    REFUSED(r->process.cwd = TEXT("relative"), "cwd");
    REFUSED(r->process.tty_width = 65536, "tty");
    REFUSED(r->user.uid = UINT32_MAX, "user");
    REFUSED(r->user.gid = UINT32_MAX, "user");
    REFUSED(r->gids[0] = UINT32_MAX, "additional_gids");
    REFUSED(set(&r->cap[0], "CAP_CHOWN"), "capabilities");
    REFUSED(r->caps.n_permitted = 0, "capabilities");
    REFUSED((r->caps.ambient = r->cap, r->caps.n_ambient = 1), "ambient");
    REFUSED(set(&r->rlimit.type, "RLIMIT_NOFILE"), "rlimits");
    REFUSED(r->rlimit.soft = 3, "rlimits");

    static char *many[VALIDATE_MAX_STRINGS + 1];
    char x[] = "x";
    for (size_t i = 0; i <= VALIDATE_MAX_STRINGS; i++)
        many[i] = x;
    REFUSED((r->process.env = many, r->process.n_env = VALIDATE_MAX_STRINGS + 1), "env");
    char *big = calloc(1, 131073);
    memset(big, 'a', 131072);
    REFUSED(set(&r->args[0], big), "args[0]");
    free(big);
}

static void test_exec(void **state)
{
    struct request r;
    struct err err;
    (void)state;
    init(&r);
    Casemate__Agent__V1__ExecRequest e = CASEMATE__AGENT__V1__EXEC_REQUEST__INIT;
    e.process = &r.process;
    e.container_id = TEXT("c");
    assert_int_equal(validate_exec(&e, &err), -1);
    e.exec_id = TEXT("e");
    assert_int_equal(validate_exec(&e, &err), 0);
    e.container_id = TEXT("../c");
    assert_int_equal(validate_exec(&e, &err), -1);
    e.container_id = TEXT("c");
    e.same_capabilities = true;
    assert_int_equal(validate_exec(&e, &err), -1); /* and others */
    r.process.capabilities = NULL;
    assert_int_equal(validate_exec(&e, &err), 0);
    fini(&r);
}

static int configure(const char *hostname, size_t entropy_len, int64_t realtime_ns,
                     const char *sysctl)
{
    uint8_t entropy[600] = {0};
    struct err err;
    Casemate__Agent__V1__Sysctl s = CASEMATE__AGENT__V1__SYSCTL__INIT;
    Casemate__Agent__V1__Sysctl *list[] = {&s};
    Casemate__Agent__V1__ConfigurePodRequest r = CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    char *copies[] = {strdup(hostname), strdup(sysctl)};
    r.pod_id = TEXT("pod");
    r.hostname = copies[0];
    r.entropy = (ProtobufCBinaryData){.len = entropy_len, .data = entropy};
    r.realtime_ns = realtime_ns;
    s.name = copies[1];
    r.sysctls = list;
    r.n_sysctls = 1;
    int rc = validate_configure(&r, &err);
    if (rc < 0)
        assert_int_equal(err.code, ERR_INVALID);
    free(copies[0]);
    free(copies[1]);
    return rc;
}

static void test_configure(void **state)
{
    (void)state;
    assert_int_equal(configure("host-1.example", 32, 1, "net.ipv4.ip_forward"), 0);
    assert_int_equal(configure("", 512, 1, "net/ipv4/conf/eth0.1/rp_filter"), 0);
    assert_int_equal(configure("a b", 32, 1, "a.b"), -1);
    assert_int_equal(configure("h", 31, 1, "a.b"), -1);
    assert_int_equal(configure("h", 513, 1, "a.b"), -1);
    assert_int_equal(configure("h", 32, 0, "a.b"), -1);
    assert_int_equal(configure("h", 32, 1, "../../etc/passwd"), -1);
    assert_int_equal(configure("h", 32, 1, "a..b"), -1);
    assert_int_equal(configure("h", 32, 1, "/a"), -1);
    assert_int_equal(configure("h", 32, 1, ""), -1);
}

static int configure_userns(uint32_t uid, uint32_t n_uids, uint32_t gid, uint32_t n_gids)
{
    uint8_t entropy[32] = {0};
    struct err err;
    Casemate__Agent__V1__IdMapping uids = CASEMATE__AGENT__V1__ID_MAPPING__INIT, gids = uids;
    Casemate__Agent__V1__UserNamespace userns = CASEMATE__AGENT__V1__USER_NAMESPACE__INIT;
    Casemate__Agent__V1__ConfigurePodRequest r = CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    uids.host_id = uid;
    uids.length = n_uids;
    gids.host_id = gid;
    gids.length = n_gids;
    userns.uids = &uids;
    userns.gids = n_gids == 77 ? NULL : &gids; /* 77: not there */
    r.pod_id = TEXT("pod");
    r.entropy = (ProtobufCBinaryData){.len = sizeof(entropy), .data = entropy};
    r.realtime_ns = 1;
    r.user_namespace = &userns;
    int rc = validate_configure(&r, &err);
    if (rc < 0 && (err.code != ERR_INVALID || strstr(err.msg, "user_namespace") == NULL))
        fail_msg("%s: %s", err_code_name(err.code), err.msg);
    return rc;
}

static void test_userns(void **state)
{
    (void)state;
    assert_int_equal(configure_userns(100000, 65536, 1, UINT32_MAX - 1), 0);
    assert_int_equal(configure_userns(UINT32_MAX - 1, 1, 5, 5), 0);
    assert_int_equal(configure_userns(0, 65536, 1, 1), -1);
    assert_int_equal(configure_userns(1, 1, 0, 1), -1);
    assert_int_equal(configure_userns(1, 0, 1, 1), -1);
    assert_int_equal(configure_userns(1, 1, 1, 0), -1);
    assert_int_equal(configure_userns(UINT32_MAX, 1, 1, 1), -1);
    assert_int_equal(configure_userns(UINT32_MAX - 1, 2, 1, 1), -1);
    assert_int_equal(configure_userns(1, 1, 2, UINT32_MAX - 1), -1);
    assert_int_equal(configure_userns(1, 1, 1, 77), -1);
}

static void test_ids(void **state)
{
    char id[130];
    (void)state;
    memset(id, 'a', sizeof(id));
    id[128] = '\0';
    assert_true(validate_id(id));
    id[128] = 'a';
    id[129] = '\0';
    assert_false(validate_id(id));
    assert_false(validate_id(".."));
    assert_true(validate_id("0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),  cmocka_unit_test(test_process),
        cmocka_unit_test(test_exec),    cmocka_unit_test(test_configure),
        cmocka_unit_test(test_ids),     cmocka_unit_test(test_userns),
        cmocka_unit_test(test_volumes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
