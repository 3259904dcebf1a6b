/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts are walked line by line and never copied: a field is a pointer and a length. A line
 * that is not well-formed is skipped, as libc does; the first match wins. Numbers are decimal and
 * must fit; -1 is no id.
 *
 * What is all digits is never a name, although useradd(8) would allow it: a pod's runAsUser and an
 * image's USER are checked as numbers by those who asked for them (runAsNonRoot), and a line
 * "1000:x:0:0" of the image must not make root of that.
 *
 * A memo is of a file that has the same place, size and times: a change of the file is a change of
 * its ctime, which nobody can set. Two changes within a tick of the clock have the same one, so a
 * file that has changed just now is not noted.
 */
#include "agent/process/userdb.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"

#define MAX_FIELDS    7
#define MAX_NAME      256u
#define SETTLED_AFTER 2 /* seconds without a change after which a file is noted */

struct field {
    const char *text;
    size_t len;
};

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Splits the line at *cursor by colons and moves on; blanks around the line, and a carriage return,
 * are none of it. Returns the number of fields, or -1 at the end of the text. */
static int next_line(const char **cursor, struct field fields[MAX_FIELDS])
{
    const char *line = *cursor;
    if (line == NULL || *line == '\0')
        return -1;
    size_t len = strcspn(line, "\n");
    *cursor = line[len] == '\n' ? line + len + 1 : line + len;

    int n = 0;
    const char *at = line, *end = line + len;
    while (at < end && is_blank(*at))
        at++;
    while (end > at && is_blank(end[-1]))
        end--;
    while (n < MAX_FIELDS) {
        const char *colon = memchr(at, ':', (size_t)(end - at));
        const char *stop = colon != NULL && n < MAX_FIELDS - 1 ? colon : end;
        fields[n++] = (struct field){at, (size_t)(stop - at)};
        if (stop == end)
            break;
        at = stop + 1;
    }
    return n;
}

static bool field_is(struct field f, const char *text, size_t len)
{
    return f.len == len && memcmp(f.text, text, len) == 0;
}

static bool parse_id(const char *text, size_t len, uint32_t *ret_id)
{
    uint64_t v = 0;
    if (len == 0 || len > 10)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(text[i] - '0');
    }
    if (v >= UINT32_MAX)
        return false;
    *ret_id = (uint32_t)v;
    return true;
}

struct passwd_entry {
    struct field name;
    struct field home;
    uint32_t uid;
    uint32_t gid;
};

/* The first entry with this name, or, when name is NULL, with this uid. */
static bool find_passwd(const char *passwd, const char *name, size_t name_len, uint32_t uid,
                        struct passwd_entry *ret_entry)
{
    struct field f[MAX_FIELDS];
    int n;
    while ((n = next_line(&passwd, f)) >= 0) {
        struct passwd_entry e = {.name = f[0]};
        if (n < 4 || f[0].len == 0 || !parse_id(f[2].text, f[2].len, &e.uid) ||
            !parse_id(f[3].text, f[3].len, &e.gid))
            continue;
        if (name != NULL ? !field_is(f[0], name, name_len) : e.uid != uid)
            continue;
        if (n >= 6)
            e.home = f[5];
        *ret_entry = e;
        return true;
    }
    return false;
}

static bool find_group(const char *group, const char *name, size_t name_len, uint32_t *ret_gid)
{
    struct field f[MAX_FIELDS];
    int n;
    while ((n = next_line(&group, f)) >= 0) {
        uint32_t gid;
        if (n >= 3 && f[0].len > 0 && field_is(f[0], name, name_len) &&
            parse_id(f[2].text, f[2].len, &gid)) {
            *ret_gid = gid;
            return true;
        }
    }
    return false;
}

static bool lists_member(struct field members, struct field name)
{
    const char *at = members.text, *end = members.text + members.len;
    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma != NULL ? comma : end;
        if (field_is(name, at, (size_t)(stop - at)))
            return true;
        at = stop + 1;
    }
    return false;
}

int userdb_add_group(struct user *user, gid_t gid, struct err *err)
{
    for (size_t i = 0; i < user->n_groups; i++) {
        if (user->groups[i] == gid)
            return 0;
    }
    if (user->n_groups == USERDB_MAX_GROUPS)
        return err_set(err, ERR_EXHAUSTED, "more than %u supplementary groups", USERDB_MAX_GROUPS);
    user->groups[user->n_groups++] = gid;
    return 0;
}

static int add_memberships(const char *group, struct field name, struct user *user, struct err *err)
{
    struct field f[MAX_FIELDS];
    int n;
    while ((n = next_line(&group, f)) >= 0) {
        uint32_t gid;
        if (n < 4 || !parse_id(f[2].text, f[2].len, &gid) || !lists_member(f[3], name))
            continue;
        if (userdb_add_group(user, gid, err) < 0)
            return -1;
    }
    return 0;
}

static void copy_home(struct field home, char ret_home[USERDB_MAX_HOME])
{
    if (home.len >= USERDB_MAX_HOME || home.len == 0 || home.text[0] != '/')
        return;
    memcpy(ret_home, home.text, home.len);
    ret_home[home.len] = '\0';
}

void userdb_home(const char *passwd, uid_t uid, char ret_home[USERDB_MAX_HOME])
{
    struct passwd_entry e;
    ret_home[0] = '\0';
    if (find_passwd(passwd, NULL, 0, uid, &e))
        copy_home(e.home, ret_home);
}

/* How much of a spec names the user; what is behind a colon names the group. */
static size_t user_length(const char *spec)
{
    return strcspn(spec, ":");
}

static const char *group_of(const char *spec)
{
    const char *colon = strchr(spec, ':');
    return colon != NULL ? colon + 1 : "";
}

static bool is_digits(const char *text, size_t len)
{
    return len > 0 && strspn(text, "0123456789") >= len;
}

/* The user without the group; *ret_name is what passwd calls it, nothing if it does not. */
static int resolve_user(const char *spec, const char *passwd, struct user *user,
                        struct field *ret_name, struct err *err)
{
    size_t len = user_length(spec);
    bool named = len > 0 && !is_digits(spec, len);
    struct passwd_entry e;
    if (len > 0 && !named && !parse_id(spec, len, &user->uid))
        return err_set(err, ERR_NOT_FOUND, "user %.*s: there is no such id", (int)len, spec);
    if (find_passwd(passwd, named ? spec : NULL, len, user->uid, &e)) {
        user->uid = e.uid;
        user->gid = e.gid;
        copy_home(e.home, user->home);
        *ret_name = e.name;
    } else if (named) {
        return err_set(err, ERR_NOT_FOUND, "user \"%.*s\": no such user in /etc/passwd", (int)len,
                       spec);
    }
    return 0;
}

static int resolve_group(const char *spec, const char *group, gid_t *ret_gid, struct err *err)
{
    size_t len = strlen(spec);
    bool found =
        is_digits(spec, len) ? parse_id(spec, len, ret_gid) : find_group(group, spec, len, ret_gid);
    if (!found)
        return err_set(err, ERR_NOT_FOUND, "group \"%s\": no such group in /etc/group", spec);
    return 0;
}

int userdb_resolve(const char *spec, const char *passwd, const char *group, bool memberships,
                   struct user *ret_user, struct err *err)
{
    if (strlen(spec) > MAX_NAME)
        return err_set(err, ERR_INVALID, "user specification longer than %u bytes", MAX_NAME);

    struct user user = {.uid = 0};
    struct field name = {.len = 0};
    const char *group_spec = group_of(spec);
    if (resolve_user(spec, passwd, &user, &name, err) < 0)
        return -1;
    if (*group_spec != '\0' && resolve_group(group_spec, group, &user.gid, err) < 0)
        return -1;
    if (userdb_add_group(&user, user.gid, err) < 0)
        return -1;
    if (memberships && name.len > 0 && add_memberships(group, name, &user, err) < 0)
        return -1;
    *ret_user = user;
    return 0;
}

static int read_file(int root_fd, const char *path, struct scratch *scratch, struct stat *ret_stat,
                     char **ret_text, struct err *err)
{
    /* O_NONBLOCK: a fifo must not hold us. Nothing outside the root is reached, not even through
     * /proc's links. */
    struct open_how how = {
        .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    cleanup_fd int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
    if (fd < 0) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) {
            *ret_text = NULL;
            return 0;
        }
        return err_set_errno(err, errno, "open /%s", path);
    }
    if (fstat(fd, ret_stat) < 0)
        return err_set_errno(err, errno, "stat /%s", path);
    /* Such as the device that hides a masked file. */
    if (!S_ISREG(ret_stat->st_mode)) {
        *ret_text = NULL;
        return 0;
    }
    if (ret_stat->st_size > (off_t)USERDB_MAX_FILE)
        return err_set(err, ERR_INVALID, "/%s of the image is larger than %u bytes", path,
                       USERDB_MAX_FILE);
    size_t size = (size_t)ret_stat->st_size, n;
    char *text = scratch_take(scratch, size + 1);
    if (text == NULL)
        return err_no_memory(err);
    if (fd_read_full(fd, text, size, &n, err) < 0)
        return err_prefix(err, "read /%s", path);
    /* A NUL ends the text for everybody who reads it as a string: the bytes behind one are not
     * looked at. */
    text[n] = '\0';
    *ret_text = text;
    return 0;
}

int userdb_read(int root_fd, const char *name, struct scratch *scratch, char **ret_text,
                struct err *err)
{
    char path[32];
    struct stat st;
    (void)snprintf(path, sizeof(path), "etc/%s", name);
    return read_file(root_fd, path, scratch, &st, ret_text, err);
}

/* What cannot be used is as good as missing to whom nothing must be looked up in it for. */
static int read_if_needed(int root_fd, const char *name, bool needed, struct scratch *scratch,
                          char **ret_text, struct err *err)
{
    struct err unusable;
    if (userdb_read(root_fd, name, scratch, ret_text, &unusable) == 0)
        return 0;
    if (needed) {
        *err = unusable;
        return -1;
    }
    *ret_text = NULL;
    return 0;
}

int userdb_find(int root_fd, const char *spec, bool memberships, struct scratch *scratch,
                struct user *ret_user, struct err *err)
{
    char *passwd = NULL, *group = NULL;
    const char *group_spec = group_of(spec);
    size_t user_len = user_length(spec);
    bool user_named = user_len > 0 && !is_digits(spec, user_len);
    bool group_named = *group_spec != '\0' && !is_digits(group_spec, strlen(group_spec));
    bool lists_user = user_named && memberships;
    if (read_if_needed(root_fd, "passwd", user_named, scratch, &passwd, err) < 0 ||
        read_if_needed(root_fd, "group", group_named || lists_user, scratch, &group, err) < 0)
        return -1;
    return userdb_resolve(spec, passwd, group, memberships, ret_user, err);
}

/* ---- one after another ---- */

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool memo_is_of(const struct userdb_memo *memo, uid_t uid, const struct stat *st)
{
    return atomic_load(&memo->valid) && memo->uid == uid && memo->dev == st->st_dev &&
           memo->ino == st->st_ino && memo->size == st->st_size &&
           same_time(&memo->changed, &st->st_ctim) && same_time(&memo->modified, &st->st_mtim);
}

static bool is_settled(const struct stat *st)
{
    return st->st_ctim.tv_sec + SETTLED_AFTER < clock_realtime_ns() / 1000000000;
}

static void memo_note(struct userdb_memo *memo, uid_t uid, const struct stat *st,
                      const char home[USERDB_MAX_HOME])
{
    atomic_store(&memo->valid, false);
    memo->uid = uid;
    memo->dev = st->st_dev;
    memo->ino = st->st_ino;
    memo->size = st->st_size;
    memo->changed = st->st_ctim;
    memo->modified = st->st_mtim;
    memcpy(memo->home, home, USERDB_MAX_HOME);
    atomic_store(&memo->valid, true);
}

void userdb_find_home(uid_t uid, struct userdb_memo *memo, struct scratch *scratch,
                      char ret_home[USERDB_MAX_HOME])
{
    struct stat st;
    char *passwd = NULL;
    struct err ignored;

    if (memo != NULL && stat("/etc/passwd", &st) == 0 && memo_is_of(memo, uid, &st)) {
        memcpy(ret_home, memo->home, USERDB_MAX_HOME);
        return;
    }
    ret_home[0] = '\0';
    cleanup_fd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || read_file(root, "etc/passwd", scratch, &st, &passwd, &ignored) < 0 ||
        passwd == NULL)
        return;
    userdb_home(passwd, uid, ret_home);
    if (memo != NULL && is_settled(&st))
        memo_note(memo, uid, &st, ret_home);
}
