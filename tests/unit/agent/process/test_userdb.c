/* SPDX-License-Identifier: Apache-2.0 */
/* Users by name and number, out of texts that images bring along. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/process/userdb.h"
#include "common/base/fd.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "broken\n"
                             "bad:x:notanumber:1:::\n"
                             "huge:x:4294967295:1:::\n"
                             "alice:x:1000:100:Alice:/home/alice:/bin/sh\n"
                             "relative:x:77:78::relative:\n"
                             "alice:x:2000:200::/second:\n"
                             "last:x:5:6::/l:/bin/sh";
static const char group[] =
    "root:x:0:\nusers:x:100:\nwheel:x:10:root,alice\nali:x:11:alicex,xalice\n"
    "docker:x:12:bob,alice,carol\nsame:x:10:alice\n:x:9:alice\n";

static struct user resolve(const char *spec)
{
    struct user u;
    struct err err;
    if (userdb_resolve(spec, passwd, group, true, &u, &err) < 0)
        fail_msg("%s: %s", spec, err.msg);
    return u;
}

static void test_resolve(void **state)
{
    (void)state;
    struct user u = resolve("alice");
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 100);
    assert_string_equal(u.home, "/home/alice");
    assert_int_equal(u.n_groups, 4);
    assert_int_equal(u.groups[0], 100); /* its own first */
    assert_int_equal(u.groups[1], 10);
    assert_int_equal(u.groups[2], 12);
    assert_int_equal(u.groups[3], 9);

    u = resolve("1000");
    assert_int_equal(u.gid, 100);
    assert_int_equal(u.n_groups, 4);

    /* CRI's policy Merge: with a group of its own as well. */
    u = resolve("alice:wheel");
    assert_int_equal(u.gid, 10);
    assert_int_equal(u.n_groups, 3);

    u = resolve("4321:8765");
    assert_int_equal(u.uid, 4321);
    assert_int_equal(u.gid, 8765);
    assert_string_equal(u.home, "");

    u = resolve("4321");
    assert_int_equal(u.gid, 0);

    u = resolve("relative");
    assert_int_equal(u.uid, 77);
    assert_string_equal(u.home, ""); /* not absolute */

    u = resolve("last");
    assert_int_equal(u.uid, 5);

    u = resolve(":wheel");
    assert_int_equal(u.uid, 0);
    assert_int_equal(u.gid, 10);
}

/* Whoever asked for a number, and checked that it is not root's, gets it. */
static void test_digits_are_a_number(void **state)
{
    static const char hostile_passwd[] = "1000:x:0:0::/root:/\n99999999999:x:0:0::/root:/\n"
                                         "4294967295:x:0:0::/root:/\nu:x:2000:7::/u:/\n";
    static const char hostile_group[] = "1000:x:0:\n4294967295:x:0:\nmany:x:8:1000,u\n";
    static const char *const refused[] = {"99999999999", "4294967295", "u:4294967295"};
    struct user u;
    struct err err;

    (void)state;
    assert_int_equal(userdb_resolve("1000:1000", hostile_passwd, hostile_group, true, &u, &err), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 1000);
    assert_int_equal(u.n_groups, 1);
    assert_string_equal(u.home, "");

    /* The number's own entry says the rest. */
    assert_int_equal(userdb_resolve("2000", hostile_passwd, hostile_group, true, &u, &err), 0);
    assert_int_equal(u.uid, 2000);
    assert_int_equal(u.gid, 7);
    assert_int_equal(u.n_groups, 2);
    assert_int_equal(u.groups[1], 8);
    assert_string_equal(u.home, "/u");

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_int_equal(userdb_resolve(refused[i], hostile_passwd, hostile_group, true, &u, &err),
                         -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
    }
}

static void test_strict(void **state)
{
    struct user u;
    struct err err;

    (void)state;
    assert_int_equal(userdb_resolve("alice", passwd, group, false, &u, &err), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 100);
    assert_int_equal(u.n_groups, 1);
    assert_int_equal(u.groups[0], 100);
}

static void test_refused(void **state)
{
    static const char *const specs[] = {"nobody",       "huge", "bad",           "4294967295",
                                        "99999999999",  "-1",   "alice:nogroup", "alice:4294967295",
                                        "alice:wheel:x"};
    (void)state;
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        struct user u = {.uid = 42};
        struct err err;
        assert_int_equal(userdb_resolve(specs[i], passwd, group, true, &u, &err), -1);
        assert_int_equal(err.code, ERR_NOT_FOUND);
        assert_int_equal(u.uid, 42);
    }
    struct user u;
    struct err err;
    assert_int_equal(userdb_resolve("alice", NULL, NULL, true, &u, &err), -1);
    assert_int_equal(userdb_resolve("5", NULL, NULL, true, &u, &err), 0);
    assert_int_equal(u.uid, 5);
}

/* Files that were written elsewhere. */
static void test_blanks(void **state)
{
    struct user u;
    struct err err;
    (void)state;
    assert_int_equal(userdb_resolve("u:g", " u:x:5:6::/u:/bin/sh\r\n\tv:x:7:8::/v\r\n",
                                    "\r\ng:x:6:\r\n  h:x:9:v,u\r\ni:x:10:u \n", true, &u, &err),
                     0);
    assert_int_equal(u.uid, 5);
    assert_int_equal(u.n_groups, 3);
    assert_int_equal(u.groups[1], 9);
    assert_int_equal(u.groups[2], 10);
    assert_int_equal(
        userdb_resolve("v", " u:x:5:6::/u:/bin/sh\r\n\tv:x:7:8::/v\r\n", "", true, &u, &err), 0);
    assert_string_equal(u.home, "/v");
}

static void test_many_groups(void **state)
{
    struct user u;
    struct err err;
    (void)state;
    char *text = calloc(1, 100000);
    size_t len = 0;
    for (unsigned i = 0; i < USERDB_MAX_GROUPS + 1; i++)
        len += (size_t)snprintf(text + len, 100000 - len, "g%u:x:%u:alice\n", i, i + 5);
    assert_int_equal(userdb_resolve("alice", passwd, text, true, &u, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    free(text);
}

static void test_home(void **state)
{
    char home[USERDB_MAX_HOME];
    (void)state;
    userdb_home(passwd, 1000, home);
    assert_string_equal(home, "/home/alice");
    userdb_home(NULL, 1000, home);
    assert_string_equal(home, "");
}

struct root {
    char memory[64]; /* for texts */
    char path[32];
    int fd;
};

static int setup_root(void **state)
{
    struct root *r = calloc(1, sizeof(*r));
    memcpy(r->path, "/tmp/userdb.XXXXXX", sizeof("/tmp/userdb.XXXXXX"));
    if (mkdtemp(r->path) == NULL)
        return -1;
    r->fd = open(r->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    *state = r;
    return mkdirat(r->fd, "etc", 0755);
}

static int teardown_root(void **state)
{
    struct root *r = *state;
    struct err err;
    (void)close(r->fd);
    int rc = fd_remove_tree(AT_FDCWD, r->path, &err);
    free(r);
    return rc;
}

static void write_file(int dir, const char *path, const char *text)
{
    int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static int read_file(struct root *r, const char *name, char **ret_text, struct err *err)
{
    struct scratch scratch = {.at = r->memory, .left = sizeof(r->memory)};
    return userdb_read(r->fd, name, &scratch, ret_text, err);
}

/* What a hostile image may put in the place of a file. None of it may hang, be followed outside, or
 * be read whole. */
static void test_read(void **state)
{
    struct root *r = *state;
    char *text = (char *)r;
    struct err err;
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_null(text);

    write_file(r->fd, "etc/passwd", "x:y");
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_string_equal(text, "x:y");

    /* More than there is room for. */
    char line[sizeof(r->memory) + 1];
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    write_file(r->fd, "etc/passwd", line);
    assert_int_equal(read_file(r, "passwd", &text, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);

    assert_int_equal(unlinkat(r->fd, "etc/passwd", 0), 0);
    assert_int_equal(mkfifoat(r->fd, "etc/passwd", 0644), 0);
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_null(text);

    assert_int_equal(unlinkat(r->fd, "etc/passwd", 0), 0);
    assert_int_equal(symlinkat("/etc/hostname", r->fd, "etc/passwd"), 0); /* exists outside only */
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_null(text);

    assert_int_equal(unlinkat(r->fd, "etc/passwd", 0), 0);
    assert_int_equal(symlinkat("../../../../sub/p", r->fd, "etc/passwd"), 0);
    assert_int_equal(mkdirat(r->fd, "sub", 0755), 0);
    write_file(r->fd, "sub/p", "inside");
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_string_equal(text, "inside");

    assert_int_equal(unlinkat(r->fd, "etc/passwd", 0), 0);
    assert_int_equal(symlinkat("passwd", r->fd, "etc/passwd"), 0); /* a loop */
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_null(text);

    assert_int_equal(unlinkat(r->fd, "etc/passwd", 0), 0);
    assert_int_equal(mkdirat(r->fd, "etc/passwd", 0755), 0);
    text = (char *)r;
    assert_int_equal(read_file(r, "passwd", &text, &err), 0);
    assert_null(text);

    int fd = openat(r->fd, "etc/group", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1ll << 30), 0);
    (void)close(fd);
    assert_int_equal(read_file(r, "group", &text, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static int find(struct root *r, const char *spec, bool memberships, struct user *ret_user)
{
    struct scratch scratch = {.at = r->memory, .left = sizeof(r->memory)};
    struct err err;
    return userdb_find(r->fd, spec, memberships, &scratch, ret_user, &err);
}

static void make_large(int dir, const char *path)
{
    int fd = openat(dir, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, USERDB_MAX_FILE + 1), 0);
    (void)close(fd);
}

/* Who goes by number does not depend on files that cannot be used. */
static void test_unusable_files(void **state)
{
    struct root *r = *state;
    struct user u;
    make_large(r->fd, "etc/passwd");
    write_file(r->fd, "etc/group", "g:x:9:u\n");
    assert_int_equal(find(r, "1000", true, &u), 0);
    assert_int_equal(u.uid, 1000);
    assert_int_equal(u.gid, 0);
    assert_int_equal(find(r, "1000:g", true, &u), 0);
    assert_int_equal(u.gid, 9);
    assert_int_equal(find(r, ":g", true, &u), 0);
    assert_int_equal(find(r, "u", true, &u), -1);

    make_large(r->fd, "etc/group");
    assert_int_equal(find(r, "1000:7", true, &u), 0);
    assert_int_equal(u.gid, 7);
    assert_int_equal(find(r, "1000:g", true, &u), -1);

    assert_int_equal(unlinkat(r->fd, "etc/passwd", 0), 0);
    write_file(r->fd, "etc/passwd", "u:x:5:6::/u:\n");
    assert_int_equal(find(r, "5", true, &u), 0);
    assert_int_equal(u.gid, 6);
    assert_int_equal(find(r, "u", true, &u), -1); /* in which groups? */
    assert_int_equal(find(r, "u", false, &u), 0);
}

/* In a child whose root the folder is. */
static int find_homes(void)
{
    static char memory[1u << 16];
    static struct userdb_memo memo;
    const struct timespec settled = {.tv_sec = 3, .tv_nsec = 100000000};
    struct timespec times[2];
    char home[USERDB_MAX_HOME];
    struct stat st;
#define FIND(uid, expected)                                                                        \
    do {                                                                                           \
        struct scratch scratch = {.at = memory, .left = sizeof(memory)};                           \
        userdb_find_home(uid, &memo, &scratch, home);                                              \
        if (strcmp(home, expected) != 0)                                                           \
            return __LINE__ & 0xff;                                                                \
    } while (0)

    FIND(0, "");
    write_file(AT_FDCWD, "/etc/passwd", "u:x:7:7::/a:\n");
    FIND(7, "/a");
    if (memo.valid)
        return 1; /* it may still change within the same tick */
    (void)nanosleep(&settled, NULL);
    FIND(7, "/a");
    if (!memo.valid)
        return 2;
    memcpy(memo.home, "/m", 3);
    FIND(7, "/m"); /* not read again */
    FIND(8, "");   /* somebody else */
    FIND(7, "/a");

    /* Another text of the same size, with the same time. */
    if (stat("/etc/passwd", &st) < 0)
        return 3;
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    write_file(AT_FDCWD, "/etc/passwd", "u:x:7:7::/b:\n");
    if (utimensat(AT_FDCWD, "/etc/passwd", times, 0) < 0)
        return 4;
    FIND(7, "/b");
    if (unlink("/etc/passwd") < 0)
        return 5;
    FIND(7, "");
    return 0;
#undef FIND
}

static void test_memo(void **state)
{
    struct root *r = *state;
    int status;

    if (geteuid() != 0) {
        (void)printf("SKIP: needs root\n");
        skip();
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fchdir(r->fd) < 0 || chroot(".") < 0 ? 200 : find_homes());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_digits_are_a_number),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_blanks),
        cmocka_unit_test(test_many_groups),
        cmocka_unit_test(test_home),
        cmocka_unit_test_setup_teardown(test_read, setup_root, teardown_root),
        cmocka_unit_test_setup_teardown(test_unusable_files, setup_root, teardown_root),
        cmocka_unit_test_setup_teardown(test_memo, setup_root, teardown_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
