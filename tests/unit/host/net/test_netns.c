/* SPDX-License-Identifier: Apache-2.0 */
/* host/net/netns: made, entered, found by path, removed for good even where a copy of the mount
 * table holds it; and the caller's thread stays where it is. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/net/netns.h"

static char dir[32];
static char path[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/casemate-test.XXXXXX");
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof(path), "%s/ns", dir);
    return 0;
}

static int teardown(void **state)
{
    struct err err = {0};
    (void)state;
    if (netns_remove(path, &err) != 0)
        print_error("%s\n", err.msg);
    return fd_remove_tree(AT_FDCWD, dir, &err);
}

static ino_t own_namespace(void)
{
    struct stat st;
    assert_int_equal(stat("/proc/thread-self/ns/net", &st), 0);
    return st.st_ino;
}

static int count_interfaces(void *arg, struct err *err)
{
    struct if_nameindex *list = if_nameindex();
    int n = 0;

    (void)err;
    for (const struct if_nameindex *i = list; i != NULL && i->if_index != 0; i++)
        n++;
    if_freenameindex(list);
    *(int *)arg = n;
    return 0;
}

static void test_make_open_enter(void **state)
{
    ino_t before = own_namespace();
    struct err err = {0};
    struct stat st;
    int fd = -1, sock = -1, n = 0;
    struct ifreq ifr = {.ifr_name = "lo"};

    (void)state;
    assert_int_equal(netns_make(path, &err), 0);
    assert_int_equal(own_namespace(), before);
    assert_int_equal(netns_open(path, &fd, &err), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_not_equal(st.st_ino, before);
    assert_int_equal(netns_run(fd, count_interfaces, &n, &err), 0);
    assert_true(n >= 1);
    assert_int_equal(netns_socket(fd, AF_INET, SOCK_DGRAM, 0, &sock, &err), 0);
    assert_int_equal(ioctl(sock, SIOCGIFFLAGS, &ifr), 0);
    assert_true((ifr.ifr_flags & IFF_UP) != 0);
    assert_int_equal(own_namespace(), before);
    (void)close(sock);
    (void)close(fd);
    /* Its name is taken. */
    assert_int_equal(netns_make(path, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(netns_remove(path, &err), 0);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(netns_remove(path, &err), 0);
}

static int fails(void *arg, struct err *err)
{
    (void)arg;
    return err_set(err, ERR_BAD_STATE, "as it was told");
}

static void test_errors(void **state)
{
    struct err err = {0};
    int fd = -1, file;

    (void)state;
    assert_int_equal(netns_open(path, &fd, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    /* A file that a reboot has left. */
    file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(netns_open(path, &fd, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(netns_run(file, fails, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "enter the network namespace"));
    (void)close(file);
    assert_int_equal(netns_remove(path, &err), 0);
    assert_int_equal(netns_make(path, &err), 0);
    assert_int_equal(netns_open(path, &fd, &err), 0);
    assert_int_equal(netns_run(fd, fails, NULL, &err), -1);
    assert_string_equal(err.msg, "as it was told");
    (void)close(fd);
}

/* A child in a copy of our mount table; it ends when its pipe is closed. */
static pid_t start_copy(int *ret_pipe)
{
    int ready[2], hold[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(hold[1]);
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            write(ready[1], "x", 1) != 1)
            _exit(1);
        _exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
    }
    (void)close(ready[1]);
    (void)close(hold[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    *ret_pipe = hold[1];
    return pid;
}

/* Whether the process's mount table still has the path. */
static bool process_sees(pid_t pid, const char *what)
{
    cleanup_free char *mounts = text_printf("/proc/%d/mountinfo", (int)pid);
    cleanup_free char *text = NULL;
    struct err err = {0};

    assert_non_null(mounts);
    assert_int_equal(fd_read_file(AT_FDCWD, mounts, 4 << 20, &text, NULL, &err), 0);
    return strstr(text, what) != NULL;
}

static void test_copies_let_go(void **state)
{
    struct err err = {0};
    int hold = -1, status = 0;
    pid_t pid;

    (void)state;
    assert_int_equal(netns_make(path, &err), 0);
    pid = start_copy(&hold);
    assert_true(process_sees(pid, path));
    assert_int_equal(netns_remove(path, &err), 0);
    assert_false(process_sees(pid, path));
    (void)close(hold);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_make_open_enter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copies_let_go, setup, teardown),
    };
    if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        (void)puts("SKIP: needs root and a mount namespace");
        return 0;
    }
    return cmocka_run_group_tests_name("host/net/netns", tests, NULL, NULL);
}
