/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log file's promise: whatever instruction the writer is killed at, its successor knows which
 * bytes are in the log, and nothing is there twice. Also rotation, files that leave their folder,
 * and full disks.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/sandbox/crilog.h"
#include "host/sandbox/logfile.h"

struct fixture {
    char dir[64];
    char *checkpoint;
    struct logfile_spec spec;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/test-logfile-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->checkpoint = text_printf("%s/checkpoint", f->dir);
    f->spec = (struct logfile_spec){.dir = f->dir, .path = "c.log", .checkpoint = f->checkpoint};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fd_remove_tree(AT_FDCWD, f->dir, NULL), 0);
    free(f->checkpoint);
    free(f);
    return 0;
}

static struct logfile *open_log(const struct fixture *f, uint64_t offsets[LOGFILE_STREAMS],
                                bool *known)
{
    struct logfile *file = NULL;
    struct err err;

    if (logfile_open(&f->spec, &file, offsets, known, &err) != 0)
        fail_msg("%s", err.msg);
    return file;
}

static char *content(const struct fixture *f, const char *name)
{
    char *path = text_printf("%s/%s", f->dir, name);
    char *text = NULL;
    struct err err;

    if (fd_read_file(AT_FDCWD, path, 64 << 20, &text, NULL, &err) != 0)
        fail_msg("%s", err.msg);
    free(path);
    return text;
}

static void expect_content(const struct fixture *f, const char *name, const char *text)
{
    char *got = content(f, name);

    assert_string_equal(got, text);
    free(got);
}

static void append(struct logfile *file, const char *text, uint64_t out, uint64_t err_offset)
{
    uint64_t offsets[LOGFILE_STREAMS] = {out, err_offset};
    struct err err;

    if (logfile_append(file, text, strlen(text), offsets, &err) != 0)
        fail_msg("%s", err.msg);
}

static void reopening_knows_what_is_there(void **state)
{
    struct fixture *f = *state;
    uint64_t offsets[LOGFILE_STREAMS];
    struct logfile *file;
    bool known;

    f->spec.initial[1] = 5;
    file = open_log(f, offsets, &known);
    assert_false(known);
    assert_int_equal(offsets[0], 0);
    assert_int_equal(offsets[1], 5);
    append(file, "one\n", 4, 5);
    append(file, "two\n", 4, 9);
    logfile_free(file);
    file = open_log(f, offsets, &known);
    assert_true(known);
    assert_int_equal(offsets[0], 4);
    assert_int_equal(offsets[1], 9);
    append(file, "three\n", 10, 9);
    logfile_free(file);
    expect_content(f, "c.log", "one\ntwo\nthree\n");
}

static void mode_and_folders(void **state)
{
    struct fixture *f = *state;
    uint64_t offsets[LOGFILE_STREAMS];
    struct stat st;
    bool known;
    char *path = text_printf("%s/a/b/0.log", f->dir);

    f->spec.path = "a/b/0.log";
    logfile_free(open_log(f, offsets, &known));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    free(path);
}

/* What a writer leaves that was killed between its checkpoint and the end of its write. */
static void half_an_append_is_cut_off(void **state)
{
    struct fixture *f = *state;
    uint64_t offsets[LOGFILE_STREAMS];
    char *path = text_printf("%s/c.log", f->dir);
    bool known;

    for (off_t cut = 0; cut <= 8; cut++) {
        struct logfile *file = open_log(f, offsets, &known);
        char *before;
        struct stat st;

        append(file, "first\n", offsets[0] + 6, 0);
        before = content(f, "c.log");
        append(file, "second!\n", offsets[0] + 14, 0);
        logfile_free(file);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, st.st_size - cut), 0);
        uint64_t base = offsets[0];
        file = open_log(f, offsets, &known);
        if (cut == 0) {
            assert_int_equal(offsets[0], base + 14);
        } else {
            assert_int_equal(offsets[0], base + 6);
            expect_content(f, "c.log", before);
            append(file, "second!\n", offsets[0] + 8, 0);
        }
        free(before);
        logfile_free(file);
    }
    free(path);
}

static void rotated_while_nobody_watched(void **state)
{
    struct fixture *f = *state;
    uint64_t offsets[LOGFILE_STREAMS];
    char *path = text_printf("%s/c.log", f->dir);
    char *rotated = text_printf("%s/c.log.20260101", f->dir);
    struct logfile *file;
    bool known;

    file = open_log(f, offsets, &known);
    append(file, "one\n", 4, 0);
    append(file, "two\n", 8, 0);
    logfile_free(file);
    assert_int_equal(rename(path, rotated), 0);
    assert_int_equal(truncate(rotated, 6), 0); /* as if killed in the second append */
    file = open_log(f, offsets, &known);
    assert_int_equal(offsets[0], 4);
    append(file, "two\n", 8, 0);
    logfile_free(file);
    expect_content(f, "c.log.20260101", "one\n");
    expect_content(f, "c.log", "two\n");
    /* Both files gone: what was announced is taken to have been written. */
    assert_int_equal(unlink(path), 0);
    file = open_log(f, offsets, &known);
    assert_int_equal(offsets[0], 8);
    logfile_free(file);
    free(path);
    free(rotated);
}

static void reopen_goes_on_in_a_new_file(void **state)
{
    struct fixture *f = *state;
    uint64_t offsets[LOGFILE_STREAMS];
    char *path = text_printf("%s/c.log", f->dir);
    char *rotated = text_printf("%s/c.log.1", f->dir);
    struct logfile *file;
    struct err err;
    bool known;

    file = open_log(f, offsets, &known);
    append(file, "one\n", 4, 0);
    assert_int_equal(rename(path, rotated), 0);
    append(file, "two\n", 8, 0);
    assert_int_equal(logfile_reopen(file, &err), 0);
    append(file, "three\n", 14, 0);
    logfile_free(file);
    expect_content(f, "c.log.1", "one\ntwo\n");
    expect_content(f, "c.log", "three\n");
    file = open_log(f, offsets, &known);
    assert_int_equal(offsets[0], 14);
    logfile_free(file);
    free(path);
    free(rotated);
}

static void damaged_checkpoint_counts_as_none(void **state)
{
    struct fixture *f = *state;
    uint64_t offsets[LOGFILE_STREAMS];
    struct logfile *file;
    bool known;
    int fd;

    file = open_log(f, offsets, &known);
    append(file, "one\n", 4, 0);
    logfile_free(file);
    fd = open(f->checkpoint, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, 40), 1);
    close(fd);
    f->spec.initial[0] = 2;
    file = open_log(f, offsets, &known);
    assert_false(known);
    assert_int_equal(offsets[0], 2);
    logfile_free(file);
}

static void expect_invalid(struct fixture *f, const char *path)
{
    uint64_t offsets[LOGFILE_STREAMS];
    struct logfile *file = NULL;
    struct err err;
    bool known;

    f->spec.path = path;
    assert_int_equal(logfile_open(&f->spec, &file, offsets, &known, &err), -1);
    assert_null(file);
    if (err.code != ERR_INVALID && err.code != ERR_SYSTEM && err.code != ERR_EXISTS)
        fail_msg("%s: %s", path, err.msg);
}

static void never_outside_of_its_folder(void **state)
{
    struct fixture *f = *state;
    char *outside = text_printf("%s.outside", f->dir);
    char *link_path = text_printf("%s/link", f->dir);
    char *file_link = text_printf("%s/file.log", f->dir);
    char *fifo = text_printf("%s/fifo.log", f->dir);
    struct stat st;

    assert_int_equal(mkdir(outside, 0700), 0);
    assert_int_equal(symlink(outside, link_path), 0);
    assert_int_equal(symlink("/tmp/casemate-test-must-not-exist", file_link), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    expect_invalid(f, "link/x.log");
    expect_invalid(f, "file.log");
    expect_invalid(f, "fifo.log");
    expect_invalid(f, "../x.log");
    assert_int_equal(stat("/tmp/casemate-test-must-not-exist", &st), -1);
    assert_int_equal(rmdir(outside), 0);
    free(outside);
    free(link_path);
    free(file_link);
    free(fifo);
}

static void full_disk_appends_nothing(void **state)
{
    struct fixture *f = *state;
    static char line[4096];
    uint64_t offsets[LOGFILE_STREAMS] = {0};
    uint64_t kept[LOGFILE_STREAMS];
    struct logfile *file;
    struct stat st;
    struct err err;
    char *path = text_printf("%s/c.log", f->dir);
    bool known;

    if (mount("tmpfs", f->dir, "tmpfs", 0, "size=64k") != 0) {
        (void)fprintf(stdout, "SKIP: full disk: no right to mount a tmpfs\n");
        free(path);
        skip();
    }
    file = open_log(f, kept, &known);
    memset(line, 'x', sizeof(line));
    /* An odd length, so that the last write ends in the middle of a page. */
    for (int i = 0; i < 100; i++) {
        offsets[0] += 3000;
        if (logfile_append(file, line, 3000, offsets, &err) != 0)
            break;
    }
    assert_int_equal(err.code, ERR_EXHAUSTED);
    logfile_get_offsets(file, kept);
    assert_int_equal(kept[0] + 3000, offsets[0]);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, kept[0]);
    logfile_free(file);
    file = open_log(f, kept, &known);
    assert_int_equal(kept[0] + 3000, offsets[0]);
    logfile_free(file);
    assert_int_equal(umount(f->dir), 0);
    free(path);
}

/* ---- killed ---- */

#define TEXT_LEN 20000

/* The container's output: numbered lines of all lengths, the same for every run. */
static size_t make_output(char *text)
{
    size_t n = 0;

    for (unsigned i = 0; n < TEXT_LEN - 200; i++)
        n += (size_t)snprintf(
            text + n, TEXT_LEN - n, "%u:%.*s\n", i, (int)(i * 37 % 120),
            "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
            "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
    return n;
}

/* A writer: resumes where the log is, writes on in chunks of some size until the end. */
static int write_log(const struct fixture *f, const char *text, size_t n, size_t chunk)
{
    static struct crilog log;
    struct buf out = BUF_INIT(1 << 20);
    uint64_t offsets[LOGFILE_STREAMS];
    struct logfile *file = NULL;
    bool known;

    if (logfile_open(&f->spec, &file, offsets, &known, NULL) != 0)
        return 1;
    crilog_init(&log, "stdout", offsets[0]);
    for (size_t at = offsets[0]; at < n; at += chunk) {
        size_t part = n - at < chunk ? n - at : chunk;
        if (crilog_feed(&log, 1, (const uint8_t *)text + at, part, &out, NULL) != 0)
            return 1;
        if (out.len == 0)
            continue;
        offsets[0] = log.offset;
        if (logfile_append(file, buf_bytes(&out), out.len, offsets, NULL) != 0)
            return 1;
        buf_consume(&out, out.len);
    }
    return 0;
}

/* Runs a writer for `steps` stops at system calls (entry and exit count), then kills it. False: it
 * was done. */
static bool killed_after(const struct fixture *f, const char *text, size_t n, unsigned steps)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        (void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        (void)raise(SIGSTOP);
        _exit(write_log(f, text, n, 100 + steps % 1000));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSTOPPED(status))
        fail_msg("the writer does not stop");
    for (unsigned i = 0; i < steps; i++) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return true;
}

/* Strips time, stream and tag off every line and compares what is left with the output. */
static void expect_output(const struct fixture *f, const char *text, size_t n)
{
    char *log = content(f, "c.log");
    size_t at = 0;

    for (char *line = log; *line != '\0';) {
        char *end = strchr(line, '\n');
        char *body = strstr(line, " F ");
        assert_non_null(end);
        assert_non_null(body);
        body += 3;
        assert_true(at + (size_t)(end - body) + 1 <= n);
        assert_memory_equal(text + at, body, (size_t)(end - body) + 1);
        at += (size_t)(end - body) + 1;
        line = end + 1;
    }
    assert_int_equal(at, n);
    free(log);
}

/* Killed at every system call of its life in turn, each successor going on where the last one was.
 */
static void killed_at_every_system_call(void **state)
{
    struct fixture *f = *state;
    static char text[TEXT_LEN];
    size_t n = make_output(text);
    unsigned kills = 0;
    char *path = text_printf("%s/c.log", f->dir);

    for (int round = 0; round < 3; round++) {
        (void)unlink(path);
        (void)unlink(f->checkpoint);
        for (unsigned steps = 1; killed_after(f, text, n, steps + (unsigned)round); steps++)
            kills++;
        expect_output(f, text, n);
    }
    assert_true(kills > 50);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reopening_knows_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(mode_and_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(half_an_append_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(rotated_while_nobody_watched, setup, teardown),
        cmocka_unit_test_setup_teardown(reopen_goes_on_in_a_new_file, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_checkpoint_counts_as_none, setup, teardown),
        cmocka_unit_test_setup_teardown(never_outside_of_its_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk_appends_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_at_every_system_call, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
