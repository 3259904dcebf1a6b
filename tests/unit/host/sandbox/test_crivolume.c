/* SPDX-License-Identifier: Apache-2.0 */
/* The places of an image's volumes: what a stranger may have written, and what becomes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <limits.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/sandbox/crivolume.h"

static void paths(void **state)
{
    static const struct {
        const char *name, *expected;
    } rows[] = {
        {"/data", "/data"},
        {"/a/b/c", "/a/b/c"},
        {"/data/", "/data"},
        {"//a///b//", "/a/b"},
        {"data", "/data"},
        {"./data/.", "/data"},
        {"/a/../b", "/b"},
        {"/a/b/../../../../c", "/c"},
        {"../../etc", "/etc"},
        {"/a/..b/...", "/a/..b/..."},
        {"/process", "/process"},
        {"/device/x", "/device/x"},
        {"/a b\n", "/a b\n"},
        /* left out */
        {"", ""},
        {"/", ""},
        {".", ""},
        {"/..", ""},
        {"/a/..", ""},
        {"/proc", ""},
        {"/proc/sys/kernel", ""},
        {"/x/../proc/1", ""},
        {"/sys/fs/cgroup", ""},
        {"sys", ""},
        {"/dev/", ""},
        {"/dev/shm", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char path[64];
        struct err err;
        assert_int_equal(crivolume_path(rows[i].name, path, &err), 0);
        assert_string_equal(path, rows[i].expected);
    }
}

static void long_paths(void **state)
{
    char name[PATH_MAX + 1], path[PATH_MAX + 2] = "untouched";
    struct err err;

    (void)state;
    memset(name, 'a', sizeof(name));
    name[PATH_MAX - 1] = '\0';
    assert_int_equal(crivolume_path(name, path, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_string_equal(path, "untouched");
    name[PATH_MAX - 2] = '\0';
    assert_int_equal(crivolume_path(name, path, &err), 0);
    assert_int_equal(strlen(path), PATH_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(long_paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
