/* SPDX-License-Identifier: Apache-2.0 */
/* The one system call that is answered in QEMU's stead, seen from a process that lives under the
 * filter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/vmm/ramfd.h"
#include "host/vmm/template_file.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static int make_file(const char *name)
{
    struct err err;
    int fd;

    assert_int_equal(template_file_new(name, 8192, &fd, &err), 0);
    assert_int_equal(pwrite(fd, "abc", 3, 0), 3);
    return fd;
}

/* The child's checks, by number; 0: all is as it should be. */
static int under_the_filter(int sealed, int disk)
{
    struct sock_filter instructions[RAMFD_FILTER_SIZE];
    struct sock_fprog filter = {.filter = instructions};
    struct stat before, after;
    char text[3];

    filter.len = ramfd_filter(sealed, instructions);
    if (filter.len == 0)
        return 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        return 1;
    /* "Done", and it was not. */
    if (fallocate(sealed, PUNCH, 0, 4096) != 0 || pread(sealed, text, 3, 0) != 3 || text[0] != 'a')
        return 2;
    /* Any other mode is refused by the seal as ever. */
    if (fallocate(sealed, 0, 0, 16384) == 0 || errno != EPERM)
        return 3;
    /* Any other file is punched. */
    if (fstat(disk, &before) < 0 || fallocate(disk, PUNCH, 0, 4096) != 0 || fstat(disk, &after) < 0)
        return 4;
    if (pread(disk, text, 3, 0) != 3 || text[0] != 0 || after.st_blocks >= before.st_blocks)
        return 5;
    return 0;
}

static void only_holes_in_one_file_are_pretended(void **state)
{
    int sealed = make_file("sealed"), disk = make_file("disk"), status;
    struct err err;

    (void)state;
    assert_int_equal(template_file_seal(sealed, &err), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(under_the_filter(sealed, disk));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(sealed);
    close(disk);
}

static void a_files_other_descriptor_is_found(void **state)
{
    char path[64];
    int fd = make_file("memory"), other = make_file("other");

    (void)state;
    assert_int_equal(ramfd_find(getpid(), fd, fd), -1);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    assert_true(again >= 0);
    assert_int_equal(ramfd_find(getpid(), fd, fd), again);
    assert_true(ramfd_is(getpid(), again, fd));
    assert_false(ramfd_is(getpid(), other, fd));
    assert_false(ramfd_is(getpid(), 4000, fd));
    close(again);
    close(fd);
    close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_holes_in_one_file_are_pretended),
        cmocka_unit_test(a_files_other_descriptor_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
