/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One connection, one table, one mutex. SQLite's own locks keep other
 * processes out (locking_mode=EXCLUSIVE: taken with the first statement, released by the kernel
 * when the process dies, and no shared-memory file is needed), the mutex keeps other threads out
 * for as long as a call, or a transaction, lasts. WAL with synchronous=FULL syncs the log at each
 * commit, so one put is one fsync.
 *
 * A transaction belongs to a thread: `tx_owner` is written only with the mutex held, and a thread
 * that finds itself there holds it already. When SQLite undoes a transaction on its own (disk full,
 * I/O error) the connection silently falls back to one transaction a statement; `tx_dead` makes
 * every later call of that transaction fail, so that its second half is never stored without its
 * first.
 *
 * The schema's number is user_version, application_id says that the file is ours at all. Migrations
 * are a table of statements: entry i brings version i to i+1, all in one transaction.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <sqlite3.h>

#include "common/base/fd.h"
#include "host/store/store.h"

#define APPLICATION_ID 0x43534d54 /* "CSMT" */

static const char *const migrations[] = {
    "CREATE TABLE record(kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,"
    " bytes BLOB NOT NULL, PRIMARY KEY(kind, id))",
};
#define SCHEMA_VERSION ((int)ARRAY_SIZE(migrations))

enum statement {
    STMT_PUT,
    STMT_GET,
    STMT_DELETE,
    STMT_EACH,
    STMT_BEGIN,
    STMT_COMMIT,
    STMT_ROLLBACK,
    STMT_COUNT,
};

static const char *const statement_sql[STMT_COUNT] = {
    [STMT_PUT] = "INSERT INTO record(kind, id, version, bytes) VALUES(?1, ?2, ?3, ?4)"
                 " ON CONFLICT(kind, id) DO UPDATE SET version = ?3, bytes = ?4",
    [STMT_GET] = "SELECT version, bytes FROM record WHERE kind = ?1 AND id = ?2",
    [STMT_DELETE] = "DELETE FROM record WHERE kind = ?1 AND id = ?2",
    [STMT_EACH] = "SELECT id, version, bytes FROM record WHERE kind = ?1 ORDER BY id",
    [STMT_BEGIN] = "BEGIN IMMEDIATE",
    [STMT_COMMIT] = "COMMIT",
    [STMT_ROLLBACK] = "ROLLBACK",
};

struct store {
    pthread_mutex_t mutex; /* guards everything below; held for the length of a transaction */
    sqlite3 *db;
    sqlite3_stmt *stmts[STMT_COUNT];
    char *path;
    _Atomic(pthread_t) tx_owner; /* meaningful while in_tx */
    atomic_bool in_tx;
    bool tx_dead; /* SQLite gave the transaction up on its own */
};

/* What SQLite's result means for a caller. */
static int store_error(const struct store *store, int rc, const char *what, struct err *err)
{
    int sys_errno = sqlite3_system_errno(store->db);

    switch (rc & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return err_set(
            err, ERR_PROTOCOL,
            "state database '%s' is damaged (%s: %s): stop the daemon, move the file and "
            "its '-wal' away and start again; pods that only it knew will be cleared",
            store->path, what, sqlite3_errmsg(store->db));
    case SQLITE_FULL:
        return err_set(err, ERR_EXHAUSTED, "state database '%s': %s: disk full", store->path, what);
    case SQLITE_NOMEM:
        return err_no_memory(err);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(err, ERR_BAD_STATE, "state database '%s' is in use by another process",
                       store->path);
    default:
        break;
    }
    if (sys_errno != 0)
        return err_set_errno(err, sys_errno, "state database '%s': %s: %s", store->path, what,
                             sqlite3_errmsg(store->db));
    return err_set(err, ERR_SYSTEM, "state database '%s': %s: %s", store->path, what,
                   sqlite3_errmsg(store->db));
}

static bool in_own_tx(struct store *store)
{
    return atomic_load(&store->in_tx) &&
           pthread_equal(atomic_load(&store->tx_owner), pthread_self());
}

static int store_lock(struct store *store, struct err *err)
{
    if (!in_own_tx(store)) {
        pthread_mutex_lock(&store->mutex);
        return 0;
    }
    if (store->tx_dead)
        return err_set(err, ERR_BAD_STATE, "state database '%s': the transaction has failed",
                       store->path);
    return 0;
}

static void store_unlock(struct store *store)
{
    if (!in_own_tx(store)) {
        pthread_mutex_unlock(&store->mutex);
        return;
    }
    if (sqlite3_get_autocommit(store->db))
        store->tx_dead = true;
}

static int exec_sql(struct store *store, const char *sql, struct err *err)
{
    int rc = sqlite3_exec(store->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : store_error(store, rc, sql, err);
}

/* A pragma's single integer. */
static int query_int(struct store *store, const char *sql, int *ret_value, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(store->db, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW) {
        int result = store_error(store, rc, sql, err);
        sqlite3_finalize(stmt);
        return result;
    }
    *ret_value = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    return 0;
}

/* PROTOCOL when SQLite's own check of the file finds damage. */
static int check_integrity(struct store *store, struct err *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(store->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    int result = 0;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW) {
        result = store_error(store, rc, "check", err);
    } else {
        const unsigned char *text = sqlite3_column_text(stmt, 0);
        if (text == NULL || strcmp((const char *)text, "ok") != 0)
            result = err_set(err, ERR_PROTOCOL,
                             "state database '%s' is damaged (%s): stop the daemon, move the file "
                             "and its '-wal' away and start again; pods that only it knew will be "
                             "cleared",
                             store->path, text == NULL ? "no answer" : (const char *)text);
    }
    sqlite3_finalize(stmt);
    return result;
}

static int run_migrations(struct store *store, int from, struct err *err)
{
    char sql[64];

    if (exec_sql(store, "BEGIN IMMEDIATE", err) != 0)
        return -1;
    for (int i = from; i < SCHEMA_VERSION; i++) {
        if (exec_sql(store, migrations[i], err) != 0)
            goto undo;
    }
    (void)sqlite3_snprintf((int)sizeof(sql), sql, "PRAGMA user_version = %d", SCHEMA_VERSION);
    if (exec_sql(store, sql, err) != 0)
        goto undo;
    (void)sqlite3_snprintf((int)sizeof(sql), sql, "PRAGMA application_id = %d", APPLICATION_ID);
    if (exec_sql(store, sql, err) != 0)
        goto undo;
    if (exec_sql(store, "COMMIT", err) != 0)
        goto undo;
    return 0;
undo:
    (void)sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}

static int prepare_schema(struct store *store, struct err *err)
{
    int version, application, objects;

    if (query_int(store, "PRAGMA user_version", &version, err) != 0 ||
        query_int(store, "PRAGMA application_id", &application, err) != 0 ||
        query_int(store, "SELECT count(*) FROM sqlite_master", &objects, err) != 0)
        return -1;
    if (application != APPLICATION_ID && (application != 0 || version != 0 || objects != 0))
        return err_set(err, ERR_PROTOCOL,
                       "'%s' is an SQLite database of another program: give the daemon a state "
                       "folder of its own",
                       store->path);
    if (version < 0 || version > SCHEMA_VERSION)
        return err_set(
            err, ERR_UNSUPPORTED,
            "state database '%s' has schema %d, this release knows up to %d: run the newer "
            "release that wrote it",
            store->path, version, SCHEMA_VERSION);
    return version == SCHEMA_VERSION ? 0 : run_migrations(store, version, err);
}

static int prepare_statements(struct store *store, struct err *err)
{
    for (int i = 0; i < STMT_COUNT; i++) {
        int rc = sqlite3_prepare_v3(store->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &store->stmts[i], NULL);
        if (rc != SQLITE_OK)
            return store_error(store, rc, "prepare", err);
    }
    return 0;
}

static int open_database(struct store *store, struct err *err)
{
    static const char *const pragmas[] = {
        "PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",       "PRAGMA trusted_schema = OFF",
        "PRAGMA cell_size_check = ON",
    };
    cleanup_fd int fd = open(store->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc;

    if (fd < 0)
        return err_set_errno(err, errno, "state database '%s'", store->path);
    close_fd(&fd);
    rc = sqlite3_open_v2(store->path, &store->db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, NULL);
    if (store->db == NULL)
        return err_no_memory(err);
    if (rc != SQLITE_OK)
        return store_error(store, rc, "open", err);
    (void)sqlite3_extended_result_codes(store->db, 1);
    for (size_t i = 0; i < ARRAY_SIZE(pragmas); i++) {
        if (exec_sql(store, pragmas[i], err) != 0)
            return -1;
    }
    if (check_integrity(store, err) != 0 || prepare_schema(store, err) != 0)
        return -1;
    return prepare_statements(store, err);
}

int store_open(const char *path, struct store **ret_store, struct err *err)
{
    cleanup_store struct store *store = calloc(1, sizeof(*store));

    if (store == NULL)
        return err_no_memory(err);
    pthread_mutex_init(&store->mutex, NULL);
    store->path = strdup(path);
    if (store->path == NULL)
        return err_no_memory(err);
    if (open_database(store, err) != 0)
        return -1;
    *ret_store = steal_ptr(&store);
    return 0;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    store_rollback(store);
    for (int i = 0; i < STMT_COUNT; i++)
        sqlite3_finalize(store->stmts[i]);
    sqlite3_close(store->db);
    pthread_mutex_destroy(&store->mutex);
    free(store->path);
    free(store);
}

static int check_name(const char *what, const char *name, struct err *err)
{
    if (name == NULL || name[0] == '\0' || strlen(name) > STORE_MAX_NAME)
        return err_set(err, ERR_INVALID, "record %s must have 1 to %d bytes", what, STORE_MAX_NAME);
    return 0;
}

static void bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    (void)sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}

static void reset(sqlite3_stmt *stmt)
{
    (void)sqlite3_reset(stmt);
    (void)sqlite3_clear_bindings(stmt);
}

int store_put(struct store *store, const char *kind, const char *id, uint32_t version,
              const void *bytes, size_t n, struct err *err)
{
    sqlite3_stmt *stmt = store->stmts[STMT_PUT];
    int rc, result = 0;

    if (check_name("kind", kind, err) != 0 || check_name("id", id, err) != 0)
        return -1;
    if (n > STORE_MAX_RECORD)
        return err_set(err, ERR_INVALID, "record %s '%s' has %zu bytes, more than %u", kind, id, n,
                       STORE_MAX_RECORD);
    if (store_lock(store, err) != 0)
        return -1;
    bind_text(stmt, 1, kind);
    bind_text(stmt, 2, id);
    (void)sqlite3_bind_int64(stmt, 3, version);
    /* A NULL pointer would bind SQL's NULL; an empty blob needs some address. */
    (void)sqlite3_bind_blob(stmt, 4, n == 0 ? "" : bytes, (int)n, SQLITE_STATIC);
    rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE)
        result = store_error(store, rc, "put", err);
    reset(stmt);
    store_unlock(store);
    return result;
}

/* A heap copy of a blob column, with a spare byte so that an empty one has an address too. */
static void *copy_blob(sqlite3_stmt *stmt, int column, size_t *ret_n)
{
    const void *blob = sqlite3_column_blob(stmt, column);
    size_t n = (size_t)sqlite3_column_bytes(stmt, column);
    void *copy = malloc(n + 1);

    if (copy == NULL)
        return NULL;
    if (n > 0)
        memcpy(copy, blob, n);
    *ret_n = n;
    return copy;
}

int store_get(struct store *store, const char *kind, const char *id, uint32_t *ret_version,
              void **ret_bytes, size_t *ret_n, struct err *err)
{
    sqlite3_stmt *stmt = store->stmts[STMT_GET];
    void *copy;
    size_t n = 0;
    int rc, result = 0;

    if (check_name("kind", kind, err) != 0 || check_name("id", id, err) != 0)
        return -1;
    if (store_lock(store, err) != 0)
        return -1;
    bind_text(stmt, 1, kind);
    bind_text(stmt, 2, id);
    rc = sqlite3_step(stmt);
    if (rc == SQLITE_DONE) {
        result = err_set(err, ERR_NOT_FOUND, "no record %s '%s'", kind, id);
    } else if (rc != SQLITE_ROW) {
        result = store_error(store, rc, "get", err);
    } else if ((copy = copy_blob(stmt, 1, &n)) == NULL) {
        result = err_no_memory(err);
    } else {
        *ret_version = (uint32_t)sqlite3_column_int64(stmt, 0);
        *ret_bytes = copy;
        *ret_n = n;
    }
    reset(stmt);
    store_unlock(store);
    return result;
}

int store_delete(struct store *store, const char *kind, const char *id, struct err *err)
{
    sqlite3_stmt *stmt = store->stmts[STMT_DELETE];
    int rc, result = 0;

    if (check_name("kind", kind, err) != 0 || check_name("id", id, err) != 0)
        return -1;
    if (store_lock(store, err) != 0)
        return -1;
    bind_text(stmt, 1, kind);
    bind_text(stmt, 2, id);
    rc = sqlite3_step(stmt);
    if (rc != SQLITE_DONE)
        result = store_error(store, rc, "delete", err);
    reset(stmt);
    store_unlock(store);
    return result;
}

struct row {
    char *id;
    uint32_t version;
    void *bytes;
    size_t n;
};

struct rows {
    struct row *items;
    size_t n;
};

static void rows_fini(struct rows *rows)
{
    for (size_t i = 0; i < rows->n; i++) {
        free(rows->items[i].id);
        free(rows->items[i].bytes);
    }
    free(rows->items);
}

static int rows_add(struct rows *rows, sqlite3_stmt *stmt, struct err *err)
{
    struct row row = {.version = (uint32_t)sqlite3_column_int64(stmt, 1)};
    const unsigned char *id = sqlite3_column_text(stmt, 0);

    if ((rows->n & (rows->n + 1)) == 0) { /* full at 0, 1, 3, 7, …: double */
        void *grown = reallocarray(rows->items, 2 * rows->n + 1, sizeof(*rows->items));
        if (grown == NULL)
            return err_no_memory(err);
        rows->items = grown;
    }
    row.id = id == NULL ? NULL : strdup((const char *)id);
    row.bytes = copy_blob(stmt, 2, &row.n);
    if (row.id == NULL || row.bytes == NULL) {
        free(row.id);
        free(row.bytes);
        return err_no_memory(err);
    }
    rows->items[rows->n++] = row;
    return 0;
}

static int load_rows(struct store *store, const char *kind, struct rows *rows, struct err *err)
{
    sqlite3_stmt *stmt = store->stmts[STMT_EACH];
    int rc, result = 0;

    if (store_lock(store, err) != 0)
        return -1;
    bind_text(stmt, 1, kind);
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        result = rows_add(rows, stmt, err);
        if (result != 0)
            break;
    }
    if (result == 0 && rc != SQLITE_DONE)
        result = store_error(store, rc, "each", err);
    reset(stmt);
    store_unlock(store);
    return result;
}

int store_each(struct store *store, const char *kind, store_each_fn fn, void *arg, struct err *err)
{
    CLEANUP(rows_fini) struct rows rows = {0};

    if (check_name("kind", kind, err) != 0 || load_rows(store, kind, &rows, err) != 0)
        return -1;
    for (size_t i = 0; i < rows.n; i++) {
        const struct row *row = &rows.items[i];
        if (fn(arg, row->id, row->version, row->bytes, row->n, err) != 0)
            return -1;
    }
    return 0;
}

/* Runs one of the statements without parameters. */
static int step_once(struct store *store, enum statement which, struct err *err)
{
    int rc = sqlite3_step(store->stmts[which]);
    int result = rc == SQLITE_DONE ? 0 : store_error(store, rc, statement_sql[which], err);

    (void)sqlite3_reset(store->stmts[which]);
    return result;
}

int store_begin(struct store *store, struct err *err)
{
    if (in_own_tx(store))
        return err_set(err, ERR_BAD_STATE, "this thread is in a transaction already");
    pthread_mutex_lock(&store->mutex);
    if (step_once(store, STMT_BEGIN, err) != 0) {
        pthread_mutex_unlock(&store->mutex);
        return -1;
    }
    store->tx_dead = false;
    atomic_store(&store->tx_owner, pthread_self());
    atomic_store(&store->in_tx, true);
    return 0;
}

/* Undoes what is left of the transaction and lets the other threads in. */
static void end_tx(struct store *store)
{
    if (!sqlite3_get_autocommit(store->db))
        (void)step_once(store, STMT_ROLLBACK, NULL);
    atomic_store(&store->in_tx, false);
    pthread_mutex_unlock(&store->mutex);
}

int store_commit(struct store *store, struct err *err)
{
    int result;

    if (!in_own_tx(store))
        return err_set(err, ERR_BAD_STATE, "this thread is in no transaction");
    if (store->tx_dead)
        result = err_set(err, ERR_BAD_STATE, "state database '%s': the transaction has failed",
                         store->path);
    else
        result = step_once(store, STMT_COMMIT, err);
    end_tx(store);
    return result;
}

void store_rollback(struct store *store)
{
    if (in_own_tx(store))
        end_tx(store);
}
