/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp profiles, compiled and then loaded for real: a child puts the program on itself and makes
 * calls; its exit status says what became of them. And what is refused, with the place in the
 * profile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "host/sandbox/criseccomp.h"
#include "host/sandbox/scdefault.h"
#include "host/sandbox/scprofile.h"

#define CAP(n)   (UINT64_C(1) << (n))
#define SIGNALED 1000

/* What a call came to below the program: 0, its errno, or SIGNALED + the signal that killed. */
static int run(const struct sysfilter_program *program, int (*calls)(void))
{
    struct sock_fprog filter = {
        .len = (unsigned short)(program->n_bytes / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)program->bytes,
    };
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGSYS, SIG_DFL); /* cmocka has a handler */
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, program->flags, &filter) != 0)
            _exit(255);
        errno = 0;
        /* Not _exit: what a sanitizer does on the way may be what the filter forbids. */
        (void)syscall(SYS_exit_group, calls() < 0 ? errno : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        return SIGNALED + WTERMSIG(status);
    assert_int_not_equal(WEXITSTATUS(status), 255);
    return WEXITSTATUS(status);
}

static int run_json(const char *json, uint64_t capabilities, int (*calls)(void))
{
    cleanup_sysfilter_program struct sysfilter_program program = {0};
    struct err err;

    if (scprofile_compile(json, strlen(json), capabilities, &program, &err) != 0)
        fail_msg("%s", err.msg);
    return run(&program, calls);
}

static int run_default(uint64_t capabilities, int (*calls)(void))
{
    cleanup_sysfilter_program struct sysfilter_program program = {0};
    struct err err;

    if (scdefault_program(capabilities, &program, &err) != 0)
        fail_msg("%s", err.msg);
    return run(&program, calls);
}

/* ---- calls ---- */

static int call_getppid(void)
{
    return (int)syscall(SYS_getppid);
}
static int call_getpgid(void)
{
    return (int)syscall(SYS_getpgid, 0);
}
static int call_dup_7(void)
{
    (void)dup2(0, 7);
    return (int)syscall(SYS_fcntl, 7, F_GETFD, 0);
}
static int call_dup_8(void)
{
    (void)dup2(0, 8);
    return (int)syscall(SYS_fcntl, 8, F_GETFD, 0);
}
static int call_unshare(void)
{
    return unshare(CLONE_NEWUSER);
}
static int call_clone_user(void)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);

    if (pid == 0)
        _exit(0);
    return (int)pid;
}
static int call_clone_plain(void)
{
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

    if (pid == 0)
        _exit(0);
    return (int)pid;
}
static int call_clone3(void)
{
    return (int)syscall(SYS_clone3, NULL, 0);
}
static int call_future(void)
{
    return (int)syscall(2000);
}
static int call_vsock(void)
{
    return socket(AF_VSOCK, SOCK_STREAM, 0);
}
static int call_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}
static uint64_t family;
/* A type that there is none of: EINVAL from the kernel, before it looks at the family. */
static int call_family(void)
{
    return (int)syscall(SYS_socket, family, -1, 0);
}
static int call_personality(void)
{
    return personality(0xffffffff);
}
static int call_personality_odd(void)
{
    return personality(ADDR_NO_RANDOMIZE);
}
static int call_keyctl(void)
{
    return (int)syscall(SYS_keyctl, 0, 0, 0, 0, 0);
}
static int call_reboot(void)
{
    return (int)syscall(SYS_reboot, 0, 0, 0, NULL); /* wrong magic: EINVAL when it is let through */
}
static int call_bpf(void)
{
    return (int)syscall(SYS_bpf, 9999, NULL, 0);
}

/* ---- the default profile ---- */

static void default_profile(void **state)
{
    const uint64_t admin = CAP(CAP_SYS_ADMIN), boot = CAP(CAP_SYS_BOOT);

    (void)state;
    assert_int_equal(run_default(0, call_getppid), 0);
    assert_int_equal(run_default(0, call_dup_7), 0);
    assert_int_equal(run_default(0, call_unix), 0);
    assert_int_equal(run_default(0, call_vsock), EPERM);
    assert_int_equal(run_default(0, call_personality), 0);
    assert_int_equal(run_default(0, call_personality_odd), EPERM);
    assert_int_equal(run_default(0, call_keyctl), EPERM);
    assert_int_equal(run_default(0, call_future), ENOSYS);
    assert_int_equal(run_default(0, call_unshare), EPERM);
    assert_int_equal(run_default(0, call_clone_user), EPERM);
    assert_int_equal(run_default(0, call_clone_plain), 0);
    assert_int_equal(run_default(0, call_clone3), ENOSYS);
    assert_int_equal(run_default(0, call_reboot), EPERM);
    assert_int_not_equal(run_default(boot, call_reboot), 0);
    assert_int_equal(run_default(admin, call_clone3), EINVAL);
    assert_int_equal(run_default(0, call_bpf), EPERM);
    assert_int_not_equal(run_default(admin, call_bpf), EPERM);
    /* All capabilities make the longest program. */
    assert_int_equal(run_default(~UINT64_C(0), call_getppid), 0);
    /* More sets than are kept. */
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(run_default(CAP(CAP_SYS_BOOT + i), call_getppid), 0);
}

/* What counts is what the kernel makes of the register: its low half. */
static void socket_families(void **state)
{
    static const uint64_t above[] = {0, UINT64_C(1) << 32, UINT64_C(0xffffffff) << 32};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(above); i++) {
        for (uint64_t low = 0; low <= 50; low++) {
            family = above[i] | low;
            assert_int_equal(run_default(0, call_family), low == AF_VSOCK ? EPERM : EINVAL);
        }
        family = above[i] | UINT32_C(0x80000000) | AF_VSOCK; /* another number, and no family */
        assert_int_equal(run_default(0, call_family), EINVAL);
    }
}

/* ---- profiles ---- */

#define RULE(rule) "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[" rule "]}"

static void actions(void **state)
{
    (void)state;
    assert_int_equal(run_json("{\"defaultAction\":\"SCMP_ACT_ALLOW\"}", 0, call_getppid), 0);
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\"}"), 0, call_getppid),
        EPERM);
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":42}"), 0,
                 call_getppid),
        42);
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_KILL\"}"), 0, call_getppid),
        SIGNALED + SIGSYS);
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_KILL_PROCESS\"}"), 0,
                 call_getppid),
        SIGNALED + SIGSYS);
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_TRAP\"}"), 0, call_getppid),
        SIGNALED + SIGSYS);
    /* Without a tracer a traced call is ENOSYS. */
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_TRACE\"}"), 0, call_getppid),
        ENOSYS);
    assert_int_equal(
        run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_LOG\"}"), 0, call_getppid),
        0);
    assert_int_equal(run_json("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":38,"
                              "\"architectures\":[\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_S390X\"],"
                              "\"flags\":[\"SECCOMP_FILTER_FLAG_LOG\"],\"listenerPath\":\"\","
                              "\"syscalls\":[{\"names\":[\"exit_group\",\"a_call_of_tomorrow\"],"
                              "\"action\":\"SCMP_ACT_ALLOW\"}]}",
                              0, call_getppid),
                     ENOSYS);
}

/* Errors by name, as container engines write them; the name counts. */
static void errors_by_name(void **state)
{
    (void)state;
    assert_int_equal(run_json(RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\","
                                   "\"errno\":\"ENOSPC\",\"errnoRet\":1}"),
                              0, call_getppid),
                     ENOSPC);
    assert_int_equal(
        run_json("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrno\":\"EXDEV\",\"syscalls\":[{"
                 "\"names\":[\"exit_group\"],\"action\":\"SCMP_ACT_ALLOW\"}]}",
                 0, call_getppid),
        EXDEV);
}

/* A whole profile of another engine, where there is one: it comes with Debian's skopeo. */
static void foreign_profile(void **state)
{
    static const char path[] = "/usr/share/containers/seccomp.json";
    static const uint64_t sets[] = {0, 0xa80425fb, CAP(CAP_SYS_ADMIN)};

    (void)state;
    if (access(path, R_OK) != 0) {
        print_message("SKIP: there is no %s\n", path);
        skip();
    }
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        cleanup_sysfilter_program struct sysfilter_program program = {0};
        struct err err;
        if (scprofile_load(path, sets[i], &program, &err) != 0)
            fail_msg("%s", err.msg);
        assert_int_equal(run(&program, call_getppid), 0);
        assert_int_equal(run(&program, call_clone_plain), 0);
        assert_int_equal(run(&program, call_future), ENOSYS);
        if (i < 2)
            assert_int_equal(run(&program, call_bpf), EPERM);
    }
}

static void arguments(void **state)
{
    static const char equal[] =
        RULE("{\"names\":[\"fcntl\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":["
             "{\"index\":0,\"value\":7,\"op\":\"SCMP_CMP_EQ\"},"
             "{\"index\":1,\"value\":1,\"op\":\"SCMP_CMP_EQ\"}]}");
    static const char either[] =
        RULE("{\"names\":[\"fcntl\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":["
             "{\"index\":0,\"value\":8,\"op\":\"SCMP_CMP_EQ\"},"
             "{\"index\":0,\"value\":7,\"op\":\"SCMP_CMP_EQ\"}]}");
    static const char masked[] =
        RULE("{\"names\":[\"fcntl\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":["
             "{\"index\":0,\"value\":8,\"valueTwo\":8,\"op\":\"SCMP_CMP_MASKED_EQ\"}]}");
    static const char zero[] =
        RULE("{\"names\":[\"getpgid\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":["
             "{\"index\":0,\"op\":\"SCMP_CMP_EQ\"}]}");
    static const char not_zero[] =
        RULE("{\"names\":[\"getpgid\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":["
             "{\"index\":0,\"op\":\"SCMP_CMP_NE\"}]}");
    static const char greater[] =
        RULE("{\"names\":[\"fcntl\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":["
             "{\"index\":0,\"value\":7,\"op\":\"SCMP_CMP_GT\"}]}");

    (void)state;
    assert_int_equal(run_json(equal, 0, call_dup_7), EPERM);
    assert_int_equal(run_json(equal, 0, call_dup_8), 0);
    assert_int_equal(run_json(either, 0, call_dup_7), EPERM);
    assert_int_equal(run_json(either, 0, call_dup_8), EPERM);
    assert_int_equal(run_json(masked, 0, call_dup_7), 0);
    assert_int_equal(run_json(masked, 0, call_dup_8), EPERM);
    assert_int_equal(run_json(zero, 0, call_getpgid), EPERM);
    assert_int_equal(run_json(not_zero, 0, call_getpgid), 0);
    assert_int_equal(run_json(greater, 0, call_dup_7), 0);
    assert_int_equal(run_json(greater, 0, call_dup_8), EPERM);
}

static void conditions(void **state)
{
    static const char includes[] =
        RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\","
             "\"includes\":{\"caps\":[\"CAP_SYS_BOOT\"],\"minKernel\":\"4.8\"}}");
    static const char excludes[] =
        RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\","
             "\"excludes\":{\"caps\":[\"CAP_SYS_BOOT\",\"CAP_SYS_TIME\"]}}");
    static const char foreign[] = RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\","
                                       "\"includes\":{\"arches\":[\"s390\"]}}");
    static const char tomorrow[] = RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\","
                                        "\"includes\":{\"minKernel\":\"99.1\"}}");

    (void)state;
    assert_int_equal(run_json(includes, 0, call_getppid), 0);
    assert_int_equal(run_json(includes, CAP(CAP_SYS_BOOT), call_getppid), EPERM);
    assert_int_equal(run_json(excludes, 0, call_getppid), EPERM);
    assert_int_equal(run_json(excludes, CAP(CAP_SYS_TIME), call_getppid), 0);
    assert_int_equal(run_json(foreign, 0, call_getppid), 0);
    assert_int_equal(run_json(tomorrow, 0, call_getppid), 0);
    assert_int_equal(run_json(foreign, 0, call_getpgid), 0);
}

static void refused(void **state)
{
    static const struct {
        const char *json, *says;
        enum err_code code;
    } rows[] = {
        {"", "not valid JSON", ERR_INVALID},
        {"[]", "not an object", ERR_INVALID},
        {"{}", "defaultAction", ERR_INVALID},
        {"{\"defaultAction\":\"SCMP_ACT_MAYBE\"}", "unknown action 'SCMP_ACT_MAYBE'", ERR_INVALID},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"defaultAction\":\"SCMP_ACT_KILL\"}",
         "not valid JSON", ERR_INVALID},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerPath\":\"/x\"}", "listenerPath",
         ERR_INVALID},
        {"{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":4096}", "defaultErrnoRet",
         ERR_INVALID},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_ABACUS\"]}",
         "SCMP_ARCH_ABACUS", ERR_INVALID},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"SECCOMP_FILTER_FLAG_"
         "WAIT_KILLABLE_RECV\"]}",
         "WAIT_KILLABLE_RECV", ERR_UNSUPPORTED},
        {"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":{}}", "syscalls", ERR_INVALID},
        {RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_NOTIFY\"}"), "SCMP_ACT_NOTIFY",
         ERR_UNSUPPORTED},
        {RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\",\"errno\":\"EODD\"}"), "EODD",
         ERR_INVALID},
        {RULE("{\"names\":[],\"action\":\"SCMP_ACT_KILL\"}"), "syscalls[0]", ERR_INVALID},
        {RULE("{\"names\":[\"gettpid\"],\"action\":\"SCMP_ACT_KILL\"}"), "gettpid", ERR_INVALID},
        {RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_KILL\",\"arg\":[]}"), "'arg'",
         ERR_INVALID},
        {RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_KILL\",\"args\":[{\"index\":6,"
              "\"value\":1,\"op\":\"SCMP_CMP_EQ\"}]}"),
         "index", ERR_INVALID},
        {RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_KILL\",\"args\":[{\"index\":0,"
              "\"value\":1,\"op\":\"SCMP_CMP_ALMOST\"}]}"),
         "SCMP_CMP_ALMOST", ERR_INVALID},
        {RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_KILL\",\"includes\":{\"caps\":[\"CAP_"
              "FLY\"]}}"),
         "CAP_FLY", ERR_INVALID},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct sysfilter_program program = {.n_bytes = 77};
        struct err err = {0};
        assert_int_equal(scprofile_compile(rows[i].json, strlen(rows[i].json), 0, &program, &err),
                         -1);
        if (err.code != rows[i].code || strstr(err.msg, rows[i].says) == NULL)
            fail_msg("%s: %s: %s", rows[i].json, err_code_name(err.code), err.msg);
        assert_int_equal(program.n_bytes, 77);
    }
}

/* ---- CRI's fields ---- */

struct file {
    char dir[64];
    char path[80];
};

static void write_file(struct file *file, const char *text)
{
    const char *tmp = getenv("TMPDIR");
    FILE *out;

    (void)snprintf(file->dir, sizeof(file->dir), "%.40s/seccomp.XXXXXX",
                   tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(file->dir));
    (void)snprintf(file->path, sizeof(file->path), "%s/p.json", file->dir);
    out = fopen(file->path, "we");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void remove_file(const struct file *file)
{
    assert_int_equal(unlink(file->path), 0);
    assert_int_equal(rmdir(file->dir), 0);
}

static void fields(void **state)
{
    Runtime__V1__LinuxContainerSecurityContext security =
        RUNTIME__V1__LINUX_CONTAINER_SECURITY_CONTEXT__INIT;
    Runtime__V1__SecurityProfile profile = RUNTIME__V1__SECURITY_PROFILE__INIT;
    struct sysfilter_program program = {0};
    char old[128];
    struct file file;
    struct err err;

    (void)state;
    write_file(&file, RULE("{\"names\":[\"getppid\"],\"action\":\"SCMP_ACT_ERRNO\"}"));
    assert_int_equal(criseccomp_program(NULL, 0, &program, &err), 0);
    assert_null(program.bytes);
    security.seccomp = &profile;
    profile.profile_type = RUNTIME__V1__SECURITY_PROFILE__PROFILE_TYPE__Localhost;
    profile.localhost_ref = file.path;
    assert_int_equal(criseccomp_program(&security, 0, &program, &err), 0);
    assert_int_equal(run(&program, call_getppid), EPERM);
    sysfilter_program_fini(&program);
    security.seccomp = NULL;
    (void)snprintf(old, sizeof(old), "localhost/%s", file.path);
    security.seccomp_profile_path = old;
    assert_int_equal(criseccomp_program(&security, 0, &program, &err), 0);
    assert_int_equal(run(&program, call_getppid), EPERM);
    sysfilter_program_fini(&program);
    security.privileged = true;
    assert_int_equal(criseccomp_program(&security, 0, &program, &err), 0);
    assert_null(program.bytes);
    security.privileged = false;

    /* What is there is not a profile. */
    (void)snprintf(old, sizeof(old), "localhost/%s", file.dir);
    assert_int_equal(criseccomp_program(&security, 0, &program, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    (void)snprintf(old, sizeof(old), "localhost/%s.missing", file.path);
    assert_int_equal(criseccomp_program(&security, 0, &program, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    (void)snprintf(old, sizeof(old), "localhost//dev/zero");
    assert_int_equal(criseccomp_program(&security, 0, &program, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    remove_file(&file);
}

static void too_large(void **state)
{
    struct sysfilter_program program = {0};
    char *text = malloc(SCPROFILE_MAX_BYTES + 2);
    struct file file;
    struct err err;

    (void)state;
    assert_non_null(text);
    memset(text, ' ', SCPROFILE_MAX_BYTES + 1);
    text[SCPROFILE_MAX_BYTES + 1] = '\0';
    write_file(&file, text);
    assert_int_equal(scprofile_load(file.path, 0, &program, &err), -1);
    assert_non_null(strstr(err.msg, "larger than"));
    remove_file(&file);
    free(text);
}

/* A rule for each argument value: more instructions than the kernel takes. */
static void too_many_instructions(void **state)
{
    const size_t size = 400000;
    struct sysfilter_program program = {0};
    char *text = malloc(size);
    size_t n = 0;
    struct err err;

    (void)state;
    assert_non_null(text);
    n += (size_t)snprintf(text, size, "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[");
    for (unsigned i = 0; i < 3000; i++)
        n += (size_t)snprintf(text + n, size - n,
                              "%s{\"names\":[\"fcntl\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{"
                              "\"index\":0,\"value\":%llu,\"op\":\"SCMP_CMP_EQ\"}]}",
                              i == 0 ? "" : ",", (unsigned long long)i << 32 | i);
    n += (size_t)snprintf(text + n, size - n, "]}");
    assert_true(n < size);
    assert_int_equal(scprofile_compile(text, n, 0, &program, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "instructions"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_profile),
        cmocka_unit_test(socket_families),
        cmocka_unit_test(actions),
        cmocka_unit_test(errors_by_name),
        cmocka_unit_test(foreign_profile),
        cmocka_unit_test(arguments),
        cmocka_unit_test(conditions),
        cmocka_unit_test(refused),
        cmocka_unit_test(fields),
        cmocka_unit_test(too_large),
        cmocka_unit_test(too_many_instructions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
