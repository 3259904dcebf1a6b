/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk over the image, parents before children, names in order. Hard links: the first name of
 * an inode is a file, further ones are links to it. An opaque mark comes right behind its
 * directory.
 */
#include "host/image/retar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uthash.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/image/squash_reader.h"
#include "host/image/tree.h"

enum { PATH_SIZE = TREE_MAX_PATH + 2, MAX_DEPTH = TREE_MAX_PATH / 2 };

/* The first name of an inode that has several. */
struct first_name {
    uint32_t number;
    UT_hash_handle hh;
    char path[];
};

struct retar {
    struct squash_reader *reader;
    struct archive *archive;
    struct first_name *names;
    int out_fd;
    uint64_t written;
    uint64_t max_bytes;
    int sys_errno; /* of the write callback; EFBIG for the limit */
    uint32_t entries;
    uint32_t dropped;
    unsigned depth;
    char path[PATH_SIZE];
};

/* What the marks of a node say. */
struct marks {
    bool opaque;
    bool implicit;
    char *link; /* heap */
};

static la_ssize_t write_callback(struct archive *a, void *arg, const void *bytes, size_t n)
{
    struct retar *t = arg;
    const char *p = bytes;
    size_t left = n;
    if (n > t->max_bytes - t->written)
        t->sys_errno = EFBIG;
    while (left > 0 && t->sys_errno == 0) {
        ssize_t done = write(t->out_fd, p, left);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            t->sys_errno = done < 0 ? errno : EIO;
            break;
        }
        p += done;
        left -= (size_t)done;
    }
    if (t->sys_errno != 0) {
        archive_set_error(a, t->sys_errno, "output");
        return -1;
    }
    t->written += n;
    return (la_ssize_t)n;
}

/* The error of a libarchive call that failed. Returns -1. */
static int archive_failure(const struct retar *t, struct err *err)
{
    const char *text = archive_error_string(t->archive);
    if (t->sys_errno == EFBIG)
        return err_set(err, ERR_EXHAUSTED, "the layer's tar would exceed %llu bytes",
                       (unsigned long long)t->max_bytes);
    if (t->sys_errno != 0)
        return err_set_errno(err, t->sys_errno, "write the layer's tar");
    return err_set(err, ERR_SYSTEM, "'%.200s': %.200s", t->path, text == NULL ? "tar" : text);
}

/* ---- entries ---- */

static int take_attribute(void *arg, const char *name, const void *value, size_t size,
                          struct err *err)
{
    (void)err;
    if (!text_has_prefix(name, "trusted.overlay.") && !text_has_prefix(name, "trusted.casemate."))
        archive_entry_xattr_add_entry(arg, name, value, size);
    return 0;
}

static void release_entry(struct archive_entry **e)
{
    archive_entry_free(*e);
}
#define cleanup_entry CLEANUP(release_entry)

/* Writes the header of an entry whose special parts are set. */
static int put_header(struct retar *t, struct archive_entry *e, const char *path,
                      const struct squash_node *n, struct err *err)
{
    archive_entry_set_pathname(e, path);
    archive_entry_set_uid(e, n->uid);
    archive_entry_set_gid(e, n->gid);
    archive_entry_set_mtime(e, n->mtime, 0);
    t->entries++;
    /* ARCHIVE_WARN: a name that is no UTF-8, written as bytes */
    int rc = archive_write_header(t->archive, e);
    return rc == ARCHIVE_OK || rc == ARCHIVE_WARN ? 0 : archive_failure(t, err);
}

/* An empty file beside or in the entry at t->path: how tar spells whiteouts. */
static int put_mark(struct retar *t, const char *path, const struct squash_node *n, struct err *err)
{
    cleanup_entry struct archive_entry *e = archive_entry_new();
    if (e == NULL)
        return err_no_memory(err);
    archive_entry_set_filetype(e, S_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, 0);
    return put_header(t, e, path, n, err);
}

static int put_whiteout(struct retar *t, const struct squash_node *n, struct err *err)
{
    char path[PATH_SIZE + 8];
    const char *slash = strrchr(t->path, '/');
    size_t dir = slash == NULL ? 0 : (size_t)(slash + 1 - t->path);
    (void)snprintf(path, sizeof(path), "%.*s.wh.%s", (int)dir, t->path, t->path + dir);
    return put_mark(t, path, n, err);
}

static int put_link(struct retar *t, const char *target, const struct squash_node *n,
                    struct err *err)
{
    cleanup_entry struct archive_entry *e = archive_entry_new();
    if (e == NULL)
        return err_no_memory(err);
    archive_entry_set_filetype(e, S_IFREG);
    archive_entry_set_perm(e, n->mode & 07777);
    archive_entry_set_hardlink(e, target);
    return put_header(t, e, t->path, n, err);
}

static int put_data(void *arg, const void *bytes, size_t n, struct err *err)
{
    struct retar *t = arg;
    return archive_write_data(t->archive, bytes, n) == (la_ssize_t)n ? 0 : archive_failure(t, err);
}

/* An entry of its own: metadata, attributes, content. */
static int put_node(struct retar *t, const char *path, const struct squash_node *n, struct err *err)
{
    cleanup_entry struct archive_entry *e = archive_entry_new();
    if (e == NULL)
        return err_no_memory(err);
    archive_entry_set_filetype(e, n->mode & S_IFMT);
    archive_entry_set_perm(e, n->mode & 07777);
    if (S_ISREG(n->mode))
        archive_entry_set_size(e, (la_int64_t)n->size);
    if (S_ISLNK(n->mode))
        archive_entry_set_symlink(e, n->target);
    if (S_ISCHR(n->mode) || S_ISBLK(n->mode)) { /* the kernel's new_decode_dev */
        archive_entry_set_rdevmajor(e, (n->rdev & 0xfff00) >> 8);
        archive_entry_set_rdevminor(e, (n->rdev & 0xff) | ((n->rdev >> 12) & 0xfff00));
    }
    if (squash_reader_xattrs(t->reader, n, take_attribute, e, err) != 0 ||
        put_header(t, e, path, n, err) < 0)
        return -1;
    return S_ISREG(n->mode) ? squash_reader_data(t->reader, n, put_data, t, err) : 0;
}

/* ---- the walk ---- */

static void marks_fini(struct marks *m)
{
    free(m->link);
}

static int take_mark(void *arg, const char *name, const void *value, size_t size, struct err *err)
{
    struct marks *m = arg;
    m->opaque = m->opaque || strcmp(name, "trusted.overlay.opaque") == 0;
    m->implicit = m->implicit || strcmp(name, "trusted.casemate.implicit") == 0;
    if (strcmp(name, "trusted.casemate.link") != 0 || m->link != NULL)
        return 0;
    m->link = strndup(value, size);
    return m->link == NULL ? err_no_memory(err) : 0;
}

/* The path under which an inode of several names was written before; NULL: this is the first. */
static int first_name_of(struct retar *t, const struct squash_node *n, const char **ret_path,
                         struct err *err)
{
    struct first_name *f = NULL;
    *ret_path = NULL;
    if (n->nlink < 2 || S_ISDIR(n->mode))
        return 0;
    HASH_FIND(hh, t->names, &n->number, sizeof(n->number), f);
    if (f != NULL) {
        *ret_path = f->path;
        return 0;
    }
    size_t len = strlen(t->path);
    f = calloc(1, sizeof(*f) + len + 1);
    if (f == NULL)
        return err_no_memory(err);
    f->number = n->number;
    memcpy(f->path, t->path, len + 1);
    HASH_ADD(hh, t->names, number, sizeof(f->number), f);
    return 0;
}

static int visit(void *arg, const char *name, const struct squash_node *node, struct err *err);

static int put_directory(struct retar *t, const struct squash_node *n, const struct marks *m,
                         struct err *err)
{
    char mark[PATH_SIZE + 16];
    bool root = t->path[0] == '\0';
    /* A tar seldom has an entry for the root; what every layer takes for granted is left out. */
    bool plain = root && n->mode == (S_IFDIR | 0755) && n->uid == 0 && n->gid == 0;
    if (!m->implicit && !plain && put_node(t, root ? "./" : t->path, n, err) < 0)
        return -1;
    (void)snprintf(mark, sizeof(mark), "%s%s.wh..wh..opq", t->path, root ? "" : "/");
    if (m->opaque && put_mark(t, mark, n, err) < 0)
        return -1;
    if (++t->depth > MAX_DEPTH)
        return err_set(err, ERR_PROTOCOL, "directories are nested too deeply");
    int rc = squash_reader_each(t->reader, n, visit, t, err);
    t->depth--;
    return rc;
}

static int put_entry(struct retar *t, const struct squash_node *n, struct err *err)
{
    CLEANUP(marks_fini) struct marks m = {0};
    const char *first = NULL;
    if (S_ISCHR(n->mode) && n->rdev == 0)
        return put_whiteout(t, n, err);
    if (S_ISSOCK(n->mode)) {
        t->dropped++;
        return 0;
    }
    if (squash_reader_xattrs(t->reader, n, take_mark, &m, err) != 0)
        return -1;
    if (S_ISDIR(n->mode))
        return put_directory(t, n, &m, err);
    if (m.link != NULL)
        return put_link(t, m.link, n, err);
    if (first_name_of(t, n, &first, err) < 0)
        return -1;
    return first != NULL ? put_link(t, first, n, err) : put_node(t, t->path, n, err);
}

static int visit(void *arg, const char *name, const struct squash_node *node, struct err *err)
{
    struct retar *t = arg;
    size_t n = strlen(t->path);
    int len = snprintf(t->path + n, sizeof(t->path) - n, "%s%s", n == 0 ? "" : "/", name);
    if (len < 0 || (size_t)len >= sizeof(t->path) - n)
        return err_set(err, ERR_PROTOCOL, "path longer than %d bytes", TREE_MAX_PATH);
    int rc = put_entry(t, node, err);
    t->path[n] = '\0';
    return rc;
}

static int open_archive(struct retar *t, struct err *err)
{
    t->archive = archive_write_new();
    if (t->archive == NULL)
        return err_no_memory(err);
    if (archive_write_set_format_pax_restricted(t->archive) != ARCHIVE_OK ||
        archive_write_set_format_option(t->archive, "pax", "xattrheader", "SCHILY") != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(t->archive, 256 * 1024) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(t->archive, 1) != ARCHIVE_OK ||
        archive_write_open(t->archive, t, NULL, write_callback, NULL) != ARCHIVE_OK)
        return archive_failure(t, err);
    return 0;
}

static void retar_fini(struct retar *t)
{
    struct first_name *f;
    struct first_name *next;
    HASH_ITER(hh, t->names, f, next)
    {
        HASH_DEL(t->names, f);
        free(f);
    }
    if (t->archive != NULL)
        (void)archive_write_free(t->archive);
    squash_reader_free(t->reader);
}

int retar_layer(int layer, int out_fd, const struct convert_options *options,
                struct convert_result *ret_result, struct err *err)
{
    struct stat st;
    cleanup_squash_node struct squash_node *root = NULL;
    CLEANUP(retar_fini)
    struct retar t = {.out_fd = out_fd, .max_bytes = options->max_bytes};
    if (fstat(layer, &st) < 0)
        return err_set_errno(err, errno, "stat the layer");
    if ((options->confine != NULL && options->confine(err) < 0) || open_archive(&t, err) < 0 ||
        squash_reader_open_sized(layer, (uint64_t)st.st_size, &t.reader, err) < 0 ||
        squash_reader_root(t.reader, &root, err) < 0 || put_entry(&t, root, err) < 0)
        return -1;
    if (archive_write_close(t.archive) != ARCHIVE_OK)
        return archive_failure(&t, err);
    *ret_result = (struct convert_result){.magic = CONVERT_MAGIC,
                                          .tar_bytes = t.written,
                                          .image_bytes = t.written,
                                          .entries = t.entries,
                                          .xattrs_dropped = t.dropped};
    return 0;
}
