/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store as its owners see it: what was put is there, also after a process was killed in the
 * middle of putting; damaged, foreign and newer files are refused in words; a full disk changes
 * nothing.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>
#include <sqlite3.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/store/store.h"

struct fixture {
    char dir[64];
    char *path;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/test-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->path = text_printf("%s/casemate.db", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fd_remove_tree(AT_FDCWD, f->dir, NULL), 0);
    free(f->path);
    free(f);
    return 0;
}

static struct store *open_store(const struct fixture *f)
{
    struct store *store = NULL;
    struct err err;

    if (store_open(f->path, &store, &err) != 0)
        fail_msg("%s", err.msg);
    return store;
}

static void expect_record(struct store *store, const char *kind, const char *id, uint32_t version,
                          const char *text)
{
    void *bytes = NULL;
    uint32_t got_version = 0;
    size_t n = 0;
    struct err err;

    if (store_get(store, kind, id, &got_version, &bytes, &n, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(got_version, version);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(bytes, text, n);
    free(bytes);
}

static void expect_missing(struct store *store, const char *kind, const char *id)
{
    void *bytes = NULL;
    uint32_t version;
    size_t n;
    struct err err;

    assert_int_equal(store_get(store, kind, id, &version, &bytes, &n, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_null(bytes);
}

static void test_put_get_delete(void **state)
{
    struct store *store = open_store(*state);
    struct err err;

    assert_int_equal(store_put(store, "pod", "a", 1, "one", 3, &err), 0);
    assert_int_equal(store_put(store, "pod", "b", 2, "", 0, &err), 0);
    assert_int_equal(store_put(store, "image", "a", 3, "other", 5, &err), 0);
    expect_record(store, "pod", "a", 1, "one");
    expect_record(store, "pod", "b", 2, "");
    expect_record(store, "image", "a", 3, "other");
    assert_int_equal(store_put(store, "pod", "a", 4, "two", 3, &err), 0);
    expect_record(store, "pod", "a", 4, "two");
    assert_int_equal(store_delete(store, "pod", "a", &err), 0);
    assert_int_equal(store_delete(store, "pod", "a", &err), 0);
    expect_missing(store, "pod", "a");
    expect_record(store, "image", "a", 3, "other");
    store_close(store);

    store = open_store(*state);
    expect_missing(store, "pod", "a");
    expect_record(store, "image", "a", 3, "other");
    store_close(store);
}

static void test_names_and_sizes(void **state)
{
    struct store *store = open_store(*state);
    char longest[STORE_MAX_NAME + 2];
    struct err err;

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(store_put(store, "pod", longest, 1, "", 0, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(store_put(store, "", "a", 1, "", 0, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    longest[STORE_MAX_NAME] = '\0';
    assert_int_equal(store_put(store, "pod", longest, 1, "", 0, &err), 0);
    expect_record(store, "pod", longest, 1, "");
    assert_int_equal(store_put(store, "pod", "big", 1, longest, STORE_MAX_RECORD + 1u, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    store_close(store);
}

struct walk {
    struct store *store;
    char seen[64];
    bool fail;
};

static int visit(void *arg, const char *id, uint32_t version, const void *bytes, size_t n,
                 struct err *err)
{
    struct walk *walk = arg;

    assert_int_equal(version, 7);
    assert_memory_equal(bytes, id, n);
    (void)strncat(walk->seen, id, sizeof(walk->seen) - strlen(walk->seen) - 1);
    if (walk->fail)
        return err_set(err, ERR_CANCELLED, "enough");
    /* A walk sees what was there when it began, and may change what is there. */
    assert_int_equal(store_put(walk->store, "pod", "zz", 7, "zz", 2, err), 0);
    return store_delete(walk->store, "pod", "c", err);
}

static void test_each(void **state)
{
    struct store *store = open_store(*state);
    struct walk walk = {.store = store};
    struct err err;

    for (const char *id = "cab"; *id != '\0'; id++) {
        char name[2] = {*id, '\0'};
        assert_int_equal(store_put(store, "pod", name, 7, name, 1, &err), 0);
    }
    assert_int_equal(store_put(store, "other", "x", 7, "x", 1, &err), 0);
    assert_int_equal(store_each(store, "pod", visit, &walk, &err), 0);
    assert_string_equal(walk.seen, "abc");
    expect_missing(store, "pod", "c");
    walk = (struct walk){.store = store, .fail = true};
    assert_int_equal(store_each(store, "pod", visit, &walk, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_string_equal(walk.seen, "a");
    store_close(store);
}

static void test_transaction(void **state)
{
    struct store *store = open_store(*state);
    struct err err;

    assert_int_equal(store_begin(store, &err), 0);
    assert_int_equal(store_begin(store, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    assert_int_equal(store_put(store, "pod", "a", 1, "x", 1, &err), 0);
    expect_record(store, "pod", "a", 1, "x");
    store_rollback(store);
    expect_missing(store, "pod", "a");
    assert_int_equal(store_begin(store, &err), 0);
    assert_int_equal(store_put(store, "pod", "a", 1, "x", 1, &err), 0);
    assert_int_equal(store_put(store, "pod", "b", 1, "y", 1, &err), 0);
    assert_int_equal(store_commit(store, &err), 0);
    assert_int_equal(store_commit(store, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    store_close(store);
    store = open_store(*state);
    expect_record(store, "pod", "b", 1, "y");
    store_close(store);
}

struct adder {
    struct store *store;
    int number;
};

/* Reads, adds one and writes back in a transaction: lost updates would show. */
static void *add_many(void *arg)
{
    struct adder *adder = arg;

    for (int i = 0; i < 50; i++) {
        void *bytes = NULL;
        uint32_t version;
        size_t n;
        int value = 0;
        assert_int_equal(store_begin(adder->store, NULL), 0);
        if (store_get(adder->store, "n", "n", &version, &bytes, &n, NULL) == 0)
            memcpy(&value, bytes, sizeof(value));
        free(bytes);
        value++;
        assert_int_equal(store_put(adder->store, "n", "n", 1, &value, sizeof(value), NULL), 0);
        assert_int_equal(store_commit(adder->store, NULL), 0);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct store *store = open_store(*state);
    struct adder adder = {.store = store};
    pthread_t threads[4];
    void *bytes = NULL;
    uint32_t version;
    size_t n;
    int value;

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, &adder), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(store_get(store, "n", "n", &version, &bytes, &n, NULL), 0);
    memcpy(&value, bytes, sizeof(value));
    assert_int_equal(value, 200);
    free(bytes);
    store_close(store);
}

static void test_second_process(void **state)
{
    struct fixture *f = *state;
    struct store *store = open_store(f);
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct store *other = NULL;
        struct err err;
        _exit(store_open(f->path, &other, &err) == -1 && err.code == ERR_BAD_STATE ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    store_close(store);
}

/* A child puts a, b, c, … and says each number after the put; killed at some point, all it said is
 * there. */
static void test_killed(void **state)
{
    struct fixture *f = *state;

    for (int round = 0; round < 10; round++) {
        int said[2], last = -1, number;
        pid_t pid;
        struct store *store;
        char id[32];

        assert_int_equal(pipe(said), 0);
        pid = fork();
        if (pid == 0) {
            struct store *own = NULL;
            if (store_open(f->path, &own, NULL) != 0)
                _exit(1);
            for (number = 0;; number++) {
                (void)snprintf(id, sizeof(id), "%d-%d", round, number);
                if (store_begin(own, NULL) != 0 || store_put(own, "k", id, 1, id, 3, NULL) != 0 ||
                    store_put(own, "twin", id, 1, id, 3, NULL) != 0 || store_commit(own, NULL) != 0)
                    _exit(1);
                if (write(said[1], &number, sizeof(number)) != (ssize_t)sizeof(number))
                    _exit(1);
            }
        }
        close(said[1]);
        for (int i = 0; i < 3 + round && read(said[0], &number, sizeof(number)) > 0; i++)
            last = number;
        kill(pid, SIGKILL);
        while (read(said[0], &number, sizeof(number)) > 0)
            last = number;
        close(said[0]);
        waitpid(pid, NULL, 0);
        assert_true(last >= 0);
        store = open_store(f);
        for (number = 0; number <= last + 1; number++) {
            void *bytes = NULL;
            uint32_t version;
            size_t n;
            bool one, two;
            (void)snprintf(id, sizeof(id), "%d-%d", round, number);
            one = store_get(store, "k", id, &version, &bytes, &n, NULL) == 0;
            free(bytes);
            bytes = NULL;
            two = store_get(store, "twin", id, &version, &bytes, &n, NULL) == 0;
            free(bytes);
            assert_int_equal(one, two);
            assert_true(one || number > last);
        }
        store_close(store);
    }
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void expect_refused(const struct fixture *f, enum err_code code, const char *word)
{
    struct store *store = NULL;
    struct err err;

    assert_int_equal(store_open(f->path, &store, &err), -1);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.msg, f->path));
    assert_non_null(strstr(err.msg, word));
    assert_null(store);
}

static void test_newer_schema(void **state)
{
    store_close(open_store(*state));
    run_sql(((struct fixture *)*state)->path, "PRAGMA user_version = 99");
    expect_refused(*state, ERR_UNSUPPORTED, "99");
}

static void test_foreign_database(void **state)
{
    run_sql(((struct fixture *)*state)->path, "CREATE TABLE t(x)");
    expect_refused(*state, ERR_PROTOCOL, "another program");
}

static void test_damaged(void **state)
{
    struct fixture *f = *state;
    struct store *store = open_store(f);
    uint8_t junk[4096];
    struct stat st;
    int fd;

    for (int i = 0; i < 64; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "%d", i);
        assert_int_equal(store_put(store, "k", id, 1, junk, sizeof(junk), NULL), 0);
    }
    store_close(store);
    memset(junk, 0x5a, sizeof(junk));
    fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 65536);
    for (off_t at = 4096; at < st.st_size; at += 4096)
        assert_int_equal(pwrite(fd, junk, 2048, at), 2048);
    close(fd);
    expect_refused(f, ERR_PROTOCOL, "move the file");

    assert_int_equal(truncate(f->path, 0), 0);
    fd = open(f->path, O_RDWR | O_CLOEXEC);
    assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
    close(fd);
    expect_refused(f, ERR_PROTOCOL, "move the file");
}

static void test_no_folder(void **state)
{
    struct fixture *f = *state;
    struct store *store = NULL;
    struct err err;
    char *path = text_printf("%s/missing/x.db", f->dir);

    assert_int_equal(store_open(path, &store, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    free(path);
}

static void test_disk_full(void **state)
{
    struct fixture *f = *state;
    static uint8_t big[64 << 10];
    struct store *store;
    struct err err;
    int stored = 0;
    char id[16];

    if (mount("tmpfs", f->dir, "tmpfs", 0, "size=1m") != 0) {
        (void)fprintf(stdout, "SKIP: disk full: no right to mount a tmpfs\n");
        skip();
    }
    store = open_store(f);
    for (;; stored++) {
        (void)snprintf(id, sizeof(id), "%d", stored);
        if (store_put(store, "k", id, 1, big, sizeof(big), &err) != 0)
            break;
        assert_true(stored < 100);
    }
    assert_int_equal(err.code, ERR_EXHAUSTED);
    expect_missing(store, "k", id);
    /* A transaction that meets the end of the disk is undone whole. */
    assert_int_equal(store_begin(store, &err), 0);
    int r = store_put(store, "small", "a", 1, "a", 1, &err);
    for (int i = 0; r == 0 && i < 100; i++) {
        (void)snprintf(id, sizeof(id), "huge%d", i);
        r = store_put(store, "k", id, 1, big, sizeof(big), &err);
    }
    assert_int_equal(r, -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    if (store_commit(store, &err) == 0)
        fail_msg("a failed transaction was committed");
    expect_missing(store, "small", "a");
    store_close(store);
    store = open_store(f);
    for (int i = 0; i < stored; i++) {
        void *bytes = NULL;
        uint32_t version;
        size_t n = 0;
        (void)snprintf(id, sizeof(id), "%d", i);
        assert_int_equal(store_get(store, "k", id, &version, &bytes, &n, &err), 0);
        assert_int_equal(n, sizeof(big));
        free(bytes);
    }
    store_close(store);
    assert_int_equal(umount(f->dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_put_get_delete, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_and_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transaction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_second_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_schema, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_database, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
