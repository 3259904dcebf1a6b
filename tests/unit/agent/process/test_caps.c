/* SPDX-License-Identifier: Apache-2.0 */
/* Capability names, and what the kernel says after applying sets in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/process/caps.h"
#include "agent/process/limits.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include <fcntl.h>

static void test_names(void **state)
{
    char chown[] = "CHOWN", kill[] = "KILL", last[] = "CHECKPOINT_RESTORE", bad[] = "cap_kill";
    char *good[] = {chown, kill, last};
    char *wrong[] = {chown, bad};
    uint64_t mask = 7;
    struct err err;
    (void)state;
    assert_int_equal(caps_parse(good, 3, &mask, &err), 0);
    assert_true(mask == ((1ull << 0) | (1ull << 5) | (1ull << 40)));
    assert_int_equal(caps_parse(wrong, 2, &mask, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(rlimit_by_name("NOFILE"), 7);
    assert_int_equal(rlimit_by_name("nofile"), -1);
}

static uint64_t status_mask(const char *status, const char *key)
{
    const char *at = strstr(status, key);
    return at == NULL ? UINT64_MAX : strtoull(at + strlen(key), NULL, 16);
}

/* Sets may name what this kernel does not know: the last bit is no capability of any. */
static int child(const struct caps *caps)
{
    const uint64_t unknown = 1ull << 63;
    const struct caps named = {.bounding = caps->bounding | unknown,
                               .permitted = caps->permitted | unknown,
                               .effective = caps->effective | unknown,
                               .inheritable = caps->inheritable | unknown,
                               .ambient = caps->ambient | unknown};
    struct err err;
    cleanup_free char *status = NULL;
    if (caps_prepare(&named, &err) < 0 || setresgid(4321, 4321, 4321) < 0 ||
        setresuid(4321, 4321, 4321) < 0 || caps_apply(&named, &err) < 0)
        return 1;
    if (fd_read_file(AT_FDCWD, "/proc/self/status", 65536, &status, NULL, &err) < 0)
        return 2;
    if (status_mask(status, "CapBnd:") != caps->bounding)
        return 3;
    if (status_mask(status, "CapPrm:") != caps->permitted ||
        status_mask(status, "CapEff:") != caps->effective ||
        status_mask(status, "CapInh:") != caps->inheritable)
        return 4;
    return status_mask(status, "CapAmb:") == caps->ambient ? 0 : 5;
}

static void test_apply(void **state)
{
    static const struct caps sets[] = {
        {0, 0, 0, 0, 0},
        {0x3, 0x3, 0x1, 0, 0},
        {0x421, 0x421, 0x421, 0x400, 0x400},
    };
    (void)state;
    if (geteuid() != 0) {
        (void)printf("SKIP: needs root\n");
        skip();
    }
    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        int status;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            _exit(child(&sets[i]));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_apply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
