/* SPDX-License-Identifier: Apache-2.0 */
/* A folder with the files of a cgroup: what is refused before it is written, and in which words. */
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

#include "agent/container/cgcheck.h"
#include "common/base/fd.h"

static char dir[] = "/tmp/test-cgcheck.XXXXXX";
static int base = -1;

static void put(const char *file, const char *text)
{
    struct err err;
    assert_int_equal(fd_write_file_atomic(base, file, text, strlen(text), 0600, &err), 0);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    base = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(base >= 0);
    put("cpuset.cpus.effective", "0-2,4\n");
    put("cpuset.mems.effective", "0\n");
    put("hugetlb.2MB.max", "max\n");
    put("hugetlb.2MB.rsvd.max", "max\n");
    put("hugetlb.2MB.events", "\n");
    return 0;
}

static int tear_down(void **state)
{
    struct err err;
    (void)state;
    assert_int_equal(close(base), 0);
    return fd_remove_tree(AT_FDCWD, dir, &err);
}

static int check(const char *file, const char *value, struct err *err)
{
    Casemate__Agent__V1__Resources r = CASEMATE__AGENT__V1__RESOURCES__INIT;
    Casemate__Agent__V1__CgroupSetting first = CASEMATE__AGENT__V1__CGROUP_SETTING__INIT;
    Casemate__Agent__V1__CgroupSetting s = first, *list[] = {&first, &s};
    char memory[] = "memory.max", max[] = "max", f[64], v[64];

    (void)snprintf(f, sizeof(f), "%s", file);
    (void)snprintf(v, sizeof(v), "%s", value);
    first.file = memory;
    first.value = max;
    s.file = f;
    s.value = v;
    r.cgroup = list;
    r.n_cgroup = 2;
    return cgcheck_settings(base, &r, err);
}

static void refused(const char *file, const char *value, enum err_code code, const char *words)
{
    struct err err;

    assert_int_equal(check(file, value, &err), -1);
    assert_int_equal(err.code, code);
    if (strstr(err.msg, words) == NULL)
        fail_msg("'%s' is not in '%s'", words, err.msg);
}

static void settings(void **state)
{
    struct err err;

    (void)state;
    assert_int_equal(cgcheck_settings(base, NULL, &err), 0);
    assert_int_equal(check("cpuset.cpus", "1-2,4", &err), 0);
    assert_int_equal(check("cpuset.cpus", "", &err), 0);
    assert_int_equal(check("cpuset.mems", "0", &err), 0);
    assert_int_equal(check("hugetlb.2MB.max", "0", &err), 0);
    assert_int_equal(check("hugetlb.2MB.max", "4194304", &err), 0);
    assert_int_equal(check("hugetlb.1GB.max", "0", &err), 0);
    assert_int_equal(check("cpuset.cpus.partition", "member", &err), 0);

    refused("cpuset.cpus", "3", ERR_EXHAUSTED, "cpuset.cpus 3: the guest has 0-2,4");
    refused("cpuset.cpus", "0-7", ERR_EXHAUSTED, "cpuset.cpus 0-7: the guest has 0-2,4");
    refused("cpuset.mems", "0-1", ERR_EXHAUSTED, "cpuset.mems 0-1: the guest has 0");
    refused("cpuset.cpus", "2-1", ERR_INVALID, "cpuset.cpus: '2-1'");
    refused("hugetlb.1GB.max", "1073741824", ERR_UNSUPPORTED,
            "hugetlb.1GB.max 1073741824: the guest has huge pages of 2MB");
    refused("hugetlb.1GB.max", "max", ERR_UNSUPPORTED, "huge pages of 2MB");
    assert_int_equal(unlinkat(base, "hugetlb.2MB.max", 0), 0);
    refused("hugetlb.2MB.max", "4194304", ERR_UNSUPPORTED, "the guest has huge pages of no size");
    assert_int_equal(unlinkat(base, "cpuset.cpus.effective", 0), 0);
    refused("cpuset.cpus", "0", ERR_UNSUPPORTED, "no such controller");
    put("cpuset.cpus.effective", "nonsense");
    refused("cpuset.cpus", "0", ERR_INVALID, "cpuset.cpus.effective");
}

static void moot(void **state)
{
    Casemate__Agent__V1__CgroupSetting s = CASEMATE__AGENT__V1__CGROUP_SETTING__INIT;
    char huge[] = "hugetlb.1GB.max", there[] = "hugetlb.2MB.rsvd.max", other[] = "io.max";
    char none[] = "0", some[] = "1";

    (void)state;
    s.file = huge;
    s.value = none;
    assert_true(cgcheck_is_moot(base, &s));
    s.value = some;
    assert_false(cgcheck_is_moot(base, &s));
    s.value = none;
    s.file = there;
    assert_false(cgcheck_is_moot(base, &s));
    s.file = other;
    assert_false(cgcheck_is_moot(base, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moot),
        cmocka_unit_test(settings),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
