/* SPDX-License-Identifier: Apache-2.0 */
/* The converter as a process: what it may do, and what becomes of us when it dies. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/image/confine.h"
#include "host/image/converter.h"
#include "tests/fakes/fake_registry.h"
#include "tests/fakes/fake_registry_node.h"

enum { NOBODY = 65534, WAIT_MS = 20000 };

static char *g_program;

/* ---- a converter that waits for its input ---- */

struct running {
    struct converter *converter;
    int out;
    pid_t pid;
    char *status; /* /proc/PID/status once it is confined */
};

static char *read_proc(pid_t pid, const char *name)
{
    char path[64];
    char *text = NULL;
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return fd_read_file(AT_FDCWD, path, 1 << 16, &text, NULL, NULL) < 0 ? NULL : text;
}

/* The value of a "Name:\tvalue" line; heap, "" when there is none. */
static char *status_field(const char *status, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = status; line != NULL && *line != '\0';
         line = strchr(line, '\n') == NULL ? NULL : strchr(line, '\n') + 1)
        if (strncmp(line, name, n) == 0 && line[n] == ':')
            return strndup(line + n + 1 + strspn(line + n + 1, " \t"),
                           strcspn(line + n + 1 + strspn(line + n + 1, " \t"), "\n"));
    return strdup("");
}

static bool is_our_converter(pid_t pid)
{
    char *status = read_proc(pid, "status");
    char *parent = status_field(status, "PPid");
    char *name = status_field(status, "Name");
    bool is = atoi(parent) == getpid() && strcmp(name, "casemate-conver") == 0;
    free(status);
    free(parent);
    free(name);
    return is;
}

static pid_t find_converter(void)
{
    pid_t found = -1;
    DIR *proc = opendir("/proc");
    struct dirent *e;
    assert_non_null(proc);
    while (found < 0 && (e = readdir(proc)) != NULL)
        if (atoi(e->d_name) > 0 && is_our_converter(atoi(e->d_name)))
            found = atoi(e->d_name);
    (void)closedir(proc);
    return found;
}

/* Until the filter is in force: then it is about to read. */
static void wait_confined(struct running *r)
{
    int64_t deadline = clock_deadline(WAIT_MS);
    for (;;) {
        char *mode;
        r->pid = r->pid > 0 ? r->pid : find_converter();
        free(r->status);
        r->status = r->pid > 0 ? read_proc(r->pid, "status") : NULL;
        mode = status_field(r->status, "Seccomp");
        bool confined = strcmp(mode, "2") == 0;
        free(mode);
        if (confined)
            return;
        if (clock_poll_timeout(deadline) == 0)
            fail_msg("no confined converter: %s", r->status == NULL ? "no process" : r->status);
        (void)poll(NULL, 0, 5);
    }
}

static struct running start(uint64_t max_bytes)
{
    struct err err = {0};
    struct running r = {.out = memfd_create("image", MFD_CLOEXEC), .pid = -1};
    const struct converter_spec spec = {.path = g_program,
                                        .uid = NOBODY,
                                        .gid = NOBODY,
                                        .max_bytes = max_bytes,
                                        .max_ratio = 50,
                                        .max_entries = 1000,
                                        .memory_bytes = 256 << 20,
                                        .workers = 1,
                                        .out_fd = r.out,
                                        .limits = {.deadline_ms = clock_deadline(WAIT_MS)}};
    assert_true(r.out >= 0);
    if (converter_start(&spec, &r.converter, &err) < 0)
        fail_msg("%s", err.msg);
    return r;
}

static void stop(struct running *r)
{
    converter_free(r->converter);
    (void)close(r->out);
    free(r->status);
}

/* ---- tests ---- */

static void check_field(const struct running *r, const char *name, const char *wanted)
{
    char *value = status_field(r->status, name);
    if (strcmp(value, wanted) != 0)
        fail_msg("%s is '%s' instead of '%s'", name, value, wanted);
    free(value);
}

static void check_namespace(const struct running *r, const char *name)
{
    char path[64];
    char ours[64] = "";
    char theirs[64] = "";
    (void)snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    assert_true(readlink(path, ours, sizeof(ours) - 1) > 0);
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)r->pid, name);
    assert_true(readlink(path, theirs, sizeof(theirs) - 1) > 0);
    if (strcmp(ours, theirs) == 0)
        fail_msg("it shares our %s namespace", name);
}

static void check_limit(const char *limits, const char *name, const char *wanted)
{
    const char *line = strstr(limits, name);
    assert_non_null(line);
    line += strlen(name) + strspn(line + strlen(name), " ");
    if (strncmp(line, wanted, strlen(wanted)) != 0 || line[strlen(wanted)] != ' ')
        fail_msg("limit '%s' is %.20s", name, line);
}

/* An own identity without rights, nothing of ours to reach, and nothing open but what it was given.
 */
static void test_confinement(void **state)
{
    char path[64];
    unsigned n_fds = 0;
    struct dirent *e;
    (void)state;
    if (geteuid() != 0) {
        print_message("SKIP: needs root\n");
        skip();
    }
    struct running r = start(1 << 20);
    wait_confined(&r);
    check_field(&r, "Uid", "65534\t65534\t65534\t65534");
    check_field(&r, "Gid", "65534\t65534\t65534\t65534");
    check_field(&r, "Groups", "");
    check_field(&r, "CapEff", "0000000000000000");
    check_field(&r, "CapPrm", "0000000000000000");
    check_field(&r, "CapInh", "0000000000000000");
    check_field(&r, "CapAmb", "0000000000000000");
    check_field(&r, "NoNewPrivs", "1");
    check_namespace(&r, "net");
    check_namespace(&r, "mnt");
    check_namespace(&r, "ipc");
    check_namespace(&r, "uts");
    char *limits = read_proc(r.pid, "limits");
    check_limit(limits, "Max file size", "1048576");
    check_limit(limits, "Max address space", "268435456");
    check_limit(limits, "Max open files", "16");
    check_limit(limits, "Max cpu time", "1800");
    check_limit(limits, "Max core file size", "0");
    free(limits);
    char *environment = read_proc(r.pid, "environ");
    assert_string_equal(environment, "");
    free(environment);
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)r.pid);
    DIR *fds = opendir(path);
    assert_non_null(fds);
    while ((e = readdir(fds)) != NULL)
        if (e->d_name[0] != '.' && (++n_fds, atoi(e->d_name) > CONVERT_FD_OUT))
            fail_msg("descriptor %s is open", e->d_name);
    (void)closedir(fds);
    assert_int_equal(n_fds, 4); /* input, result, /dev/null, image */
    stop(&r);
}

/* By the call itself: a sanitizer's exit makes others, which the filter forbids. */
static void end(int status)
{
    (void)syscall(SYS_exit_group, status);
}

/* What its code could be made to do, it may not. Each call in a process of its own. */
static int try_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}
static int try_exec(void)
{
    return execl("/bin/true", "true", (char *)NULL);
}
static int try_fork(void)
{
    return fork();
}
static int try_kill(void)
{
    return kill(getppid(), 0);
}
static int try_dup(void)
{
    return dup(0);
}
static int try_open(void)
{
    int fd = open("/etc/passwd", O_RDONLY);
    if (fd < 0 && errno == EACCES)
        end(3); /* libraries look for files: an error, not death */
    return fd;
}

static int status_of(int (*attempt)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        struct err err;
        if (confine_syscalls(&err) < 0)
            _exit(9);
        (void)attempt();
        end(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_forbidden_calls(void **state)
{
    int (*const deadly[])(void) = {try_socket, try_exec, try_fork, try_kill, try_dup};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++) {
        int status = status_of(deadly[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
            fail_msg("attempt %zu: status %x", i, (unsigned)status);
    }
    int status = status_of(try_open);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
}

static int feed_and_finish(struct running *r, const void *bytes, size_t n, struct err *err)
{
    struct convert_result result;
    return converter_feed(r->converter, bytes, n, err) < 0
               ? -1
               : converter_finish(r->converter, &result, err);
}

/* A crash is this layer's failure, and nothing else's. */
static void test_crash(void **state)
{
    static const struct fake_entry entries[] = {{"f", 'f', 0644, "f"}, {NULL}};
    struct fake_bytes tar = fake_tar(entries);
    struct err err = {0};
    (void)state;
    struct running doomed = start(1 << 20);
    struct running other = start(1 << 20);
    wait_confined(&doomed);
    assert_int_equal(kill(doomed.pid, SIGSEGV), 0);
    struct running *dead = &doomed;
    struct running *alive = &other;
    /* the first that was found need not be the first that was started */
    if (feed_and_finish(&doomed, tar.bytes, tar.n, &err) == 0) {
        dead = &other;
        alive = &doomed;
        assert_int_equal(feed_and_finish(dead, tar.bytes, tar.n, &err), -1);
    } else {
        struct err fine = {0};
        if (feed_and_finish(alive, tar.bytes, tar.n, &fine) < 0)
            fail_msg("%s", fine.msg);
    }
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_non_null(strstr(err.msg, "killed by signal 11"));
    stop(&doomed);
    stop(&other);
    free(tar.bytes);
}

static void test_bomb(void **state)
{
    size_t n = 100 << 20;
    char *zeros = calloc(1, n);
    struct fake_bytes bomb = fake_gzip(zeros, n);
    struct err err = {0};
    (void)state;
    /* A tar of zeros ends at once for its reader, but its digest covers all of it. */
    struct running r = start(1ull << 30);
    assert_int_equal(feed_and_finish(&r, bomb.bytes, bomb.n, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_non_null(strstr(err.msg, "decompression bomb"));
    stop(&r);
    r = start(1 << 20);
    assert_int_equal(feed_and_finish(&r, bomb.bytes, bomb.n, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    stop(&r);
    free(bomb.bytes);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_confinement),
        cmocka_unit_test(test_forbidden_calls),
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_bomb),
    };
    g_program = fake_node_converter();
    if (g_program == NULL) {
        print_message("SKIP: casemate-convert is not built (make all)\n");
        return 0;
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(g_program);
    return rc;
}
