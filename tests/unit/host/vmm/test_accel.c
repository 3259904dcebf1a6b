/* SPDX-License-Identifier: Apache-2.0 */
/* The verdict on KVM: its memory, and the decisions that need no guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/loop/loop.h"
#include "host/vmm/accel.h"
#include "host/vmm/vmm.h"

static void memory_there_and_back(void **state)
{
    struct accel_verdict v = {
        .accel = VMM_ACCEL_TCG, .is_fallback = true, .reason = "because \"it\" hung"};
    struct accel_verdict back;
    char *text = NULL;
    struct err err;

    (void)state;
    assert_int_equal(accel_cache_encode(&v, "key 1", &text, &err), 0);
    memset(&back, 0, sizeof(back));
    assert_int_equal(accel_cache_decode(text, "key 1", &back, &err), 0);
    assert_int_equal(back.accel, v.accel);
    assert_true(back.is_fallback);
    assert_string_equal(back.reason, v.reason);
    assert_int_equal(accel_cache_decode(text, "key 2", &back, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    free(text);
}

static void nonsense_is_no_memory(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"version\": 2, \"key\": \"k\", \"accel\": \"tcg\", \"is_fallback\": true, \"reason\": "
        "\"\"}",
        "{\"version\": 1, \"key\": \"k\", \"accel\": \"auto\", \"is_fallback\": true, \"reason\": "
        "\"\"}",
        "{\"version\": 1, \"key\": \"k\", \"accel\": \"tcg\", \"is_fallback\": 1, \"reason\": "
        "\"\"}",
        "{\"version\": 1, \"key\": 5, \"accel\": \"tcg\", \"is_fallback\": true, \"reason\": \"\"}",
    };
    struct accel_verdict v;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(accel_cache_decode(bad[i], "k", &v, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
    }
}

/* QEMU's version is asked of a program that says any. */
static int try_version(const char *script, struct vmm_status *ret_status, struct err *err)
{
    char dir[] = "/tmp/test-accel-XXXXXX", path[64];
    struct loop *loop = NULL;
    struct vmm *vmm = NULL;

    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/qemu", dir);
    if (script != NULL)
        assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, script, strlen(script), 0700, err),
                         0);
    const struct vmm_config config = {
        .qemu = path, .accel = VMM_ACCEL_TCG, .transport = VMM_TRANSPORT_SERIAL, .run_dir = dir};
    assert_int_equal(loop_new(&loop, err), 0);
    assert_int_equal(vmm_new(&config, loop, &vmm, err), 0);
    int result = vmm_prepare(vmm, clock_deadline(20000), err);
    vmm_get_status(vmm, ret_status);
    if (result == 0)
        assert_int_equal(vmm_prepare(vmm, clock_deadline(20000), err), 0);
    vmm_free(vmm);
    loop_free(loop);
    (void)fd_remove_tree(AT_FDCWD, dir, NULL);
    return result;
}

static void versions_are_told_apart(void **state)
{
    static const struct {
        const char *script;
        int result;
        const char *says;
    } cases[] = {
        {"#!/bin/sh\necho 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)'\n", 0, "7.2.22"},
        {"#!/bin/sh\necho 'QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)'\n", 0, "10.0.2"},
        {"#!/bin/sh\necho 'QEMU emulator version 7.1.0'\n", -1, "too old"},
        {"#!/bin/sh\necho 'QEMU emulator version 5'\n", -1, "not understood"},
        {"#!/bin/sh\necho 'hello'\n", -1, "not understood"},
        {"#!/bin/sh\necho 'a library is missing' >&2\nexit 127\n", -1, "a library is missing"},
        {NULL, -1, "No such file"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vmm_status status;
        struct err err = {0};
        assert_int_equal(try_version(cases[i].script, &status, &err), cases[i].result);
        if (cases[i].result == 0) {
            assert_true(status.prepared);
            assert_string_equal(status.qemu_version, cases[i].says);
            assert_int_equal(status.accel, VMM_ACCEL_TCG);
            assert_false(status.accel_is_fallback);
            assert_string_equal(status.problem, "");
        } else {
            assert_false(status.prepared);
            assert_non_null(strstr(err.msg, cases[i].says));
            assert_string_equal(status.problem, err.msg);
        }
    }
}

static void bad_configurations_are_refused(void **state)
{
    struct loop *loop = NULL;
    struct vmm *vmm = NULL;
    struct err err;

    (void)state;
    assert_int_equal(loop_new(&loop, &err), 0);
    const struct vmm_config bad[] = {
        {.run_dir = NULL},
        {.run_dir = "relative"},
        {.run_dir = "/run", .uid_count = 5},
        {.run_dir = "/run", .uid_base = UINT32_MAX - 2, .uid_count = 5},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(vmm_new(&bad[i], loop, &vmm, &err), -1);
    assert_null(vmm);
    vmm_free(NULL);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_there_and_back),
        cmocka_unit_test(nonsense_is_no_memory),
        cmocka_unit_test(versions_are_told_apart),
        cmocka_unit_test(bad_configurations_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
