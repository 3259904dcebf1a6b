/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder with the files of a cgroup, of which one refuses everything. Unlike the kernel's they
 * keep the end of a longer text, so values have one length here.
 */
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

#include "agent/container/cgrevert.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"

#define DEVICE_A "8:0 rbps=1 wbps=2 riops=3 wiops=4\n"
#define DEVICE_B "8:16 rbps=5 wbps=6 riops=7 wiops=8\n"

struct pair {
    const char *file, *value;
};

static char dir[] = "/tmp/test-cgrevert.XXXXXX";
static int base = -1;

static void put(const char *file, const char *text)
{
    struct err err;
    assert_int_equal(fd_write_file_atomic(base, file, text, strlen(text), 0600, &err), 0);
}

static void expect(const char *file, const char *text)
{
    cleanup_free char *is = NULL;
    struct err err;
    assert_int_equal(fd_read_file(base, file, 4096, &is, NULL, &err), 0);
    is[strcspn(is, "\n")] = '\0';
    assert_string_equal(is, text);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    base = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(base >= 0);
    put("memory.max", "111\n");
    put("cpu.max", "max 100000\n");
    put("io.max", DEVICE_B DEVICE_A);
    put("io.weight", "default 100\n");
    assert_int_equal(symlinkat("/dev/full", base, "pids.max"), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct err err;
    (void)state;
    assert_int_equal(close(base), 0);
    return fd_remove_tree(AT_FDCWD, dir, &err);
}

static int apply(const struct pair *pairs, size_t n, struct err *err)
{
    Casemate__Agent__V1__Resources r = CASEMATE__AGENT__V1__RESOURCES__INIT;
    Casemate__Agent__V1__CgroupSetting settings[8], *list[8];

    assert_true(n <= ARRAY_SIZE(settings));
    for (size_t i = 0; i < n; i++) {
        casemate__agent__v1__cgroup_setting__init(&settings[i]);
        settings[i].file = (char *)(uintptr_t)pairs[i].file;
        settings[i].value = (char *)(uintptr_t)pairs[i].value;
        list[i] = &settings[i];
    }
    r.cgroup = list;
    r.n_cgroup = n;
    return cgrevert_apply(base, &r, err);
}

static void what_is_taken_stays(void **state)
{
    static const struct pair pairs[] = {{"memory.max", "222"}, {"cpu.max", "50000 1000"}};
    struct err err;

    (void)state;
    assert_int_equal(cgrevert_apply(base, NULL, &err), 0);
    assert_int_equal(apply(pairs, ARRAY_SIZE(pairs), &err), 0);
    expect("memory.max", "222");
    expect("cpu.max", "50000 1000");
}

static void a_refusal_puts_all_back(void **state)
{
    static const struct pair pairs[] = {{"memory.max", "333"},
                                        {"cpu.max", "70000 1000"},
                                        {"memory.max", "444"},
                                        {"pids.max", "garbage"}};
    struct err err;

    (void)state;
    put("memory.max", "111\n");
    put("cpu.max", "max 100000\n");
    assert_int_equal(apply(pairs, ARRAY_SIZE(pairs), &err), -1);
    assert_non_null(strstr(err.msg, "cgroup setting pids.max"));
    expect("memory.max", "111");
    expect("cpu.max", "max 100000");
}

static void a_missing_file_is_found_first(void **state)
{
    static const struct pair pairs[] = {{"memory.max", "555"}, {"memory.nope", "1"}};
    struct err err;

    (void)state;
    put("memory.max", "111\n");
    assert_int_equal(apply(pairs, ARRAY_SIZE(pairs), &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    expect("memory.max", "111");
}

/* The kernel takes one line; here the file begins with the one that was written last. */
static void lines_are_put_back_by_their_key(void **state)
{
    static const struct pair known[] = {{"io.max", "8:0 rbps=9"}, {"pids.max", "garbage"}};
    static const struct pair unknown[] = {{"io.max", "8:32 rbps=9"}, {"pids.max", "garbage"}};
    static const struct pair number[] = {{"io.weight", "200"}, {"pids.max", "garbage"}};
    struct err err;

    (void)state;
    assert_int_equal(apply(known, ARRAY_SIZE(known), &err), -1);
    expect("io.max", "8:0 rbps=1 wbps=2 riops=3 wiops=48"); /* the rest of DEVICE_B's line */
    put("io.max", DEVICE_B);
    assert_int_equal(apply(unknown, ARRAY_SIZE(unknown), &err), -1);
    expect("io.max", "8:32 rbps=max wbps=max riops=max wiops=max");
    assert_int_equal(apply(number, ARRAY_SIZE(number), &err), -1);
    expect("io.weight", "default 100");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken_stays),
        cmocka_unit_test(a_refusal_puts_all_back),
        cmocka_unit_test(a_missing_file_is_found_first),
        cmocka_unit_test(lines_are_put_back_by_their_key),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
