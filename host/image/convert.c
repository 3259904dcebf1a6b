/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blob -> input (decompress, hash) -> libarchive (tar headers) -> tree (names) and squash
 * (contents) -> image.
 *
 * libarchive pulls: its read callback asks input for the next bytes, so that the whole conversion
 * is one loop over entries with bounded memory but for the tree. An error of a callback is kept in
 * `struct conversion` and wins over libarchive's own wording of the consequence. What tar may say
 * and an image cannot: ACLs and flags are dropped, as are attributes that squashfs has no name
 * space for; trusted.overlay.* is dropped because it would speak to the guest's overlay in place of
 * a whiteout entry.
 */
#include "host/image/convert.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/image/input.h"
#include "host/image/squash.h"
#include "host/image/tree.h"

struct conversion {
    const struct convert_options *options;
    struct input *input;
    struct tree *tree;
    struct squash *squash;
    struct archive *archive;
    uint64_t file_bytes; /* apparent sizes so far */
    uint32_t xattrs_dropped;
    struct err *err;
    bool failed; /* a callback filled err */
};

static la_ssize_t read_callback(struct archive *a, void *arg, const void **ret_bytes)
{
    struct conversion *c = arg;
    size_t n = 0;
    if (input_next(c->input, ret_bytes, &n, c->err) < 0) {
        c->failed = true;
        archive_set_error(a, EIO, "input");
        return ARCHIVE_FATAL;
    }
    return (la_ssize_t)n;
}

/* The error of a libarchive call that failed. Returns -1. */
static int archive_failure(struct conversion *c)
{
    const char *text = archive_error_string(c->archive);
    if (c->failed)
        return -1;
    if (archive_errno(c->archive) == ENOMEM)
        return err_no_memory(c->err);
    return err_set(c->err, ERR_PROTOCOL, "not a valid layer: %.200s",
                   text == NULL ? "unknown error" : text);
}

static int copy_ids(struct conversion *c, struct archive_entry *e, struct tree_inode *inode)
{
    int64_t uid = archive_entry_uid(e);
    int64_t gid = archive_entry_gid(e);
    int64_t mtime = archive_entry_mtime_is_set(e) ? (int64_t)archive_entry_mtime(e) : 0;
    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return err_set(c->err, ERR_PROTOCOL, "owner of '%.200s' is out of range",
                       archive_entry_pathname(e));
    inode->uid = (uint32_t)uid;
    inode->gid = (uint32_t)gid;
    inode->mtime = mtime < 0 ? 0 : mtime > UINT32_MAX ? UINT32_MAX : (uint32_t)mtime;
    return 0;
}

static bool xattr_is_wanted(const char *name)
{
    if (strlen(name) > TREE_MAX_NAME || text_has_prefix(name, "trusted.overlay.") ||
        text_has_prefix(name, "trusted.casemate."))
        return false;
    return text_has_prefix(name, "user.") || text_has_prefix(name, "security.") ||
           text_has_prefix(name, "trusted.");
}

static int copy_xattrs(struct conversion *c, struct archive_entry *e, struct tree_inode *inode)
{
    const char *name;
    const void *value;
    size_t size;
    archive_entry_xattr_reset(e);
    while (archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
        if (name == NULL || !xattr_is_wanted(name)) {
            c->xattrs_dropped++;
            continue;
        }
        if (tree_add_xattr(inode, name, value, size, c->err) < 0)
            return -1;
    }
    if (archive_entry_acl_count(e, ARCHIVE_ENTRY_ACL_TYPE_ACCESS | ARCHIVE_ENTRY_ACL_TYPE_DEFAULT) >
        0)
        c->xattrs_dropped++;
    return 0;
}

static int copy_device(struct conversion *c, struct archive_entry *e, struct tree_inode *inode)
{
    uint64_t major_no = (uint64_t)archive_entry_rdevmajor(e);
    uint64_t minor_no = (uint64_t)archive_entry_rdevminor(e);
    if (major_no > 0xfff || minor_no > 0xfffff)
        return err_set(c->err, ERR_PROTOCOL, "device number of '%.200s' is out of range",
                       archive_entry_pathname(e));
    /* the kernel's new_encode_dev */
    inode->rdev = (uint32_t)((minor_no & 0xff) | (major_no << 8) | ((minor_no & ~0xffull) << 12));
    return 0;
}

static int copy_target(struct conversion *c, struct archive_entry *e, struct tree_inode *inode)
{
    const char *target = archive_entry_symlink(e);
    if (target == NULL || target[0] == '\0' || strlen(target) > TREE_MAX_PATH)
        return err_set(c->err, ERR_PROTOCOL, "symlink '%.200s' has no valid target",
                       archive_entry_pathname(e));
    inode->target = strdup(target);
    return inode->target == NULL ? err_no_memory(c->err) : 0;
}

/* Counts apparent bytes: a sparse file of exabytes costs no input, but time and block lists. */
static int account(struct conversion *c, uint64_t n)
{
    if (n > c->options->max_bytes - c->file_bytes)
        return err_set(c->err, ERR_EXHAUSTED, "files of the layer exceed %llu bytes",
                       (unsigned long long)c->options->max_bytes);
    c->file_bytes += n;
    return 0;
}

static int copy_content(struct conversion *c, struct archive_entry *e, struct tree_inode *inode)
{
    const void *bytes;
    size_t n;
    la_int64_t offset;
    uint64_t at = 0;
    uint64_t size = archive_entry_size_is_set(e) ? (uint64_t)archive_entry_size(e) : 0;
    if (account(c, size) < 0 || squash_file_begin(c->squash, inode, c->err) < 0)
        return -1;
    for (;;) {
        int rc = archive_read_data_block(c->archive, &bytes, &n, &offset);
        if (rc == ARCHIVE_EOF)
            break;
        if (rc != ARCHIVE_OK)
            return archive_failure(c);
        if ((uint64_t)offset < at || (uint64_t)offset > size || n > size - (uint64_t)offset)
            return err_set(c->err, ERR_PROTOCOL, "sparse map of '%.200s' is damaged",
                           archive_entry_pathname(e));
        if (squash_file_data(c->squash, NULL, (uint64_t)offset - at, c->err) < 0 ||
            (n > 0 && squash_file_data(c->squash, bytes, n, c->err) < 0))
            return -1;
        at = (uint64_t)offset + n;
    }
    if (squash_file_data(c->squash, NULL, size - at, c->err) < 0)
        return -1;
    return squash_file_end(c->squash, c->err);
}

static bool is_whiteout_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return text_has_prefix(slash == NULL ? path : slash + 1, ".wh.");
}

static int convert_entry(struct conversion *c, struct archive_entry *e)
{
    const char *path = archive_entry_pathname(e);
    const char *link = archive_entry_hardlink(e);
    if (path == NULL || path[0] == '\0')
        return err_set(c->err, ERR_PROTOCOL, "an entry has no name");
    if (link != NULL)
        return tree_link(c->tree, path, link, c->err);

    mode_t type = archive_entry_filetype(e);
    if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFCHR &&
        type != S_IFBLK && type != S_IFIFO && type != S_IFSOCK)
        return err_set(c->err, ERR_PROTOCOL, "entry '%.200s' has an unknown type", path);
    /* what a tar says about a symlink's permissions, no file system keeps */
    mode_t perm = type == S_IFLNK ? 0777 : archive_entry_perm(e) & 07777;
    struct tree_inode *inode = tree_make_inode(c->tree, type | perm, c->err);
    if (inode == NULL || copy_ids(c, e, inode) < 0 || copy_xattrs(c, e, inode) < 0)
        return -1;
    if ((type == S_IFCHR || type == S_IFBLK) && copy_device(c, e, inode) < 0)
        return -1;
    if (type == S_IFLNK && copy_target(c, e, inode) < 0)
        return -1;
    if (tree_put(c->tree, path, inode, c->err) < 0)
        return -1;
    if (type == S_IFREG && !is_whiteout_name(path))
        return copy_content(c, e, inode);
    return 0;
}

static int convert_entries(struct conversion *c)
{
    struct archive_entry *e;
    for (;;) {
        int rc = archive_read_next_header(c->archive, &e);
        if (rc == ARCHIVE_EOF)
            return 0;
        /* ARCHIVE_WARN: the entry is usable, a name did not fit the character set or a field was
         * odd */
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
            return archive_failure(c);
        if (convert_entry(c, e) < 0)
            return -1;
    }
}

static int open_archive(struct conversion *c)
{
    c->archive = archive_read_new();
    if (c->archive == NULL)
        return err_no_memory(c->err);
    if (archive_read_support_format_tar(c->archive) != ARCHIVE_OK ||
        archive_read_support_format_empty(c->archive) != ARCHIVE_OK ||
        archive_read_open(c->archive, c, NULL, read_callback, NULL) != ARCHIVE_OK)
        return archive_failure(c);
    return 0;
}

static int note_flags(void *arg, struct tree_node *node)
{
    uint32_t *flags = arg;
    if (node->inode->implicit)
        *flags |= CONVERT_IMPLICIT;
    if (node->inode->lower_link)
        *flags |= CONVERT_LOWER_LINKS;
    return S_ISDIR(node->inode->mode) ? tree_each_child(node, note_flags, flags) : 0;
}

static int run(struct conversion *c, struct convert_result *result)
{
    if (open_archive(c) < 0 || convert_entries(c) < 0)
        return -1;
    if (input_finish(c->input, result->diff_id, &result->tar_bytes, c->err) < 0)
        return -1;
    (void)note_flags(&result->flags, tree_root(c->tree));
    if (tree_root(c->tree)->inode->opaque)
        result->flags |= CONVERT_ROOT_OPAQUE;
    result->entries = (uint32_t)tree_entries(c->tree);
    result->xattrs_dropped = c->xattrs_dropped;
    return squash_finish(c->squash, c->tree, &result->image_bytes, c->err);
}

int convert_layer(int in_fd, int out_fd, const struct convert_options *options,
                  struct convert_result *ret_result, struct err *err)
{
    struct err local = {0};
    struct convert_result result = {.magic = CONVERT_MAGIC};
    struct input_limits limits = {.max_bytes = options->max_bytes, .max_ratio = options->max_ratio};
    struct squash_options out = {.compression = options->compression,
                                 .max_bytes = options->max_bytes,
                                 .workers = options->workers};
    struct conversion c = {.options = options, .err = err == NULL ? &local : err};
    int rc = input_new(in_fd, &limits, &c.input, c.err);
    if (rc == 0)
        rc = tree_new(options->max_entries, &c.tree, c.err);
    if (rc == 0)
        rc = squash_new(out_fd, &out, &c.squash, c.err);
    if (rc == 0 && options->confine != NULL)
        rc = options->confine(c.err);
    if (rc == 0)
        rc = run(&c, &result);
    if (c.archive != NULL)
        (void)archive_read_free(c.archive);
    squash_free(c.squash); /* before the tree: its threads write to the inodes */
    tree_free(c.tree);
    input_free(c.input);
    if (rc == 0)
        *ret_result = result;
    return rc;
}
