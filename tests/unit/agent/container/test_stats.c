/* SPDX-License-Identifier: Apache-2.0 */
/* Stats out of files of cgroupfs, as the kernel writes them and as it does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/container/stats.h"
#include "common/base/fd.h"

static void test_pressure(void **state)
{
    Casemate__Agent__V1__Pressure p;
    (void)state;
    assert_true(stats_parse_pressure("some avg10=0.12 avg60=3.40 avg300=100.00 total=123456\n"
                                     "full avg10=0.00 avg60=0.01 avg300=0.99 total=7\n",
                                     &p));
    assert_int_equal(p.some_avg10, 12);
    assert_int_equal(p.some_avg60, 340);
    assert_int_equal(p.some_avg300, 10000);
    assert_int_equal(p.some_total, 123456);
    assert_int_equal(p.full_avg60, 1);
    assert_int_equal(p.full_avg300, 99);
    assert_int_equal(p.full_total, 7);
    assert_true(stats_parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n", &p));
    assert_int_equal(p.full_total, 0);
    assert_false(stats_parse_pressure("", &p));
    assert_false(stats_parse_pressure("some", &p));
    assert_false(stats_parse_pressure("some avg10=0.1 avg60=0.00 avg300=0.00 total=1\n", &p));
    assert_false(stats_parse_pressure("some avg10=x avg60=0.00 avg300=0.00 total=1\n", &p));
    assert_false(stats_parse_pressure("some avg10=101.00 avg60=0.00 avg300=0.00 total=1\n", &p));
}

static void put(int fd, const char *name, const char *text)
{
    struct err err;
    assert_int_equal(fd_write_file_atomic(fd, name, text, strlen(text), 0644, &err), 0);
}

static void test_cgroup(void **state)
{
    char path[] = "/tmp/stats.XXXXXX";
    Casemate__Agent__V1__CgroupStats s;
    struct stats_pressures pressures;
    struct err err;
    (void)state;
    assert_non_null(mkdtemp(path));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    stats_read_cgroup(fd, &s, &pressures);
    assert_int_equal(s.memory_usage_bytes, 0);
    assert_null(s.cpu_pressure);

    put(fd, "cpu.stat", "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n");
    put(fd, "memory.current", "1000000\n");
    put(fd, "memory.max", "max\n");
    put(fd, "memory.swap.max", "4096\n");
    put(fd, "memory.stat",
        "anon 3000\nfile 5000\nfile_mapped 1\ninactive_anon 9\nactive_anon 8\n"
        "inactive_file 400000\npgfault 11\npgmajfault 12\n");
    put(fd, "pids.current", "5\n");
    put(fd, "cpu.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n");
    put(fd, "io.pressure", "nonsense");
    stats_read_cgroup(fd, &s, &pressures);
    assert_int_equal(s.cpu_usage_ns, 1234000);
    assert_int_equal(s.memory_usage_bytes, 1000000);
    assert_int_equal(s.memory_working_set_bytes, 600000);
    assert_int_equal(s.memory_rss_bytes, 3000);
    assert_int_equal(s.memory_page_faults, 11);
    assert_int_equal(s.memory_major_page_faults, 12);
    assert_int_equal(s.memory_limit_bytes, 0);
    assert_int_equal(s.swap_limit_bytes, 4096);
    assert_int_equal(s.processes, 5);
    assert_non_null(s.cpu_pressure);
    assert_int_equal(s.cpu_pressure->some_avg10, 100);
    assert_null(s.io_pressure);

    put(fd, "memory.stat",
        "inactive_file 2000000\n"); /* more than there is: counted at another moment */
    stats_read_cgroup(fd, &s, &pressures);
    assert_int_equal(s.memory_working_set_bytes, 0);
    (void)close(fd);
    assert_int_equal(fd_remove_tree(AT_FDCWD, path, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pressure),
        cmocka_unit_test(test_cgroup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
