/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libsquashfs's readers over a descriptor. A directory reader holds the state of one open
 * directory, so that each walk makes one of its own; images of this room have few directories to
 * look at (see complete.c), and tests do not care.
 */
#include "host/image/squash_reader.h"

#include <errno.h>
#include <sqfs/compressor.h>
#include <sqfs/data_reader.h>
#include <sqfs/dir.h>
#include <sqfs/dir_reader.h>
#include <sqfs/error.h>
#include <sqfs/id_table.h>
#include <sqfs/inode.h>
#include <sqfs/io.h>
#include <sqfs/super.h>
#include <sqfs/xattr.h>
#include <sqfs/xattr_reader.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 128 * 1024 };

#define NO_XATTR 0xFFFFFFFFu

struct in_file {
    sqfs_file_t base;
    int fd;
    uint64_t size;
};

struct squash_reader {
    struct in_file file;
    sqfs_super_t super;
    sqfs_compressor_t *cmp;
    sqfs_id_table_t *ids;
    sqfs_xattr_reader_t *xattrs; /* NULL: the image has none */
    sqfs_data_reader_t *data;
};

static int in_read_at(sqfs_file_t *base, sqfs_u64 offset, void *buffer, size_t size)
{
    struct in_file *f = container_of(base, struct in_file, base);
    uint8_t *p = buffer;
    while (size > 0) {
        ssize_t n = pread(f->fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? SQFS_ERROR_IO : SQFS_ERROR_OUT_OF_BOUNDS;
        p += n;
        offset += (sqfs_u64)n;
        size -= (size_t)n;
    }
    return 0;
}

static int in_write_at(sqfs_file_t *base, sqfs_u64 offset, const void *buffer, size_t size)
{
    (void)base;
    (void)offset;
    (void)buffer;
    (void)size;
    return SQFS_ERROR_IO;
}

static sqfs_u64 in_get_size(const sqfs_file_t *base)
{
    return ((const struct in_file *)(const void *)base)->size;
}

static int in_truncate(sqfs_file_t *base, sqfs_u64 size)
{
    (void)base;
    (void)size;
    return SQFS_ERROR_IO;
}

static int fail(int sqfs_error, const char *step, struct err *err)
{
    if (sqfs_error == SQFS_ERROR_ALLOC)
        return err_no_memory(err);
    if (sqfs_error == SQFS_ERROR_NO_ENTRY)
        return err_set(err, ERR_NOT_FOUND, "no such entry");
    return err_set(err, ERR_PROTOCOL, "squashfs image: %s: error %d", step, sqfs_error);
}

static int open_tables(struct squash_reader *r, struct err *err)
{
    sqfs_compressor_config_t cfg;
    int rc = sqfs_super_read(&r->super, &r->file.base);
    if (rc == 0)
        rc = sqfs_compressor_config_init(&cfg, r->super.compression_id, r->super.block_size,
                                         SQFS_COMP_FLAG_UNCOMPRESS);
    if (rc == 0)
        rc = sqfs_compressor_create(&cfg, &r->cmp);
    if (rc == 0 && (r->super.flags & SQFS_FLAG_COMPRESSOR_OPTIONS) != 0)
        rc = r->cmp->read_options(r->cmp, &r->file.base);
    if (rc < 0)
        return fail(rc, "super block", err);
    r->ids = sqfs_id_table_create(0);
    r->data = sqfs_data_reader_create(&r->file.base, r->super.block_size, r->cmp, 0);
    if (r->ids == NULL || r->data == NULL)
        return err_no_memory(err);
    rc = sqfs_id_table_read(r->ids, &r->file.base, &r->super, r->cmp);
    if (rc == 0)
        rc = sqfs_data_reader_load_fragment_table(r->data, &r->super);
    if (rc != 0)
        return fail(rc, "tables", err);
    if ((r->super.flags & SQFS_FLAG_NO_XATTRS) != 0)
        return 0;
    r->xattrs = sqfs_xattr_reader_create(0);
    if (r->xattrs == NULL)
        return err_no_memory(err);
    rc = sqfs_xattr_reader_load(r->xattrs, &r->super, &r->file.base, r->cmp);
    return rc == 0 ? 0 : fail(rc, "attributes", err);
}

int squash_reader_open(int fd, struct squash_reader **ret_reader, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "stat an image");
    return squash_reader_open_sized(fd, (uint64_t)st.st_size, ret_reader, err);
}

int squash_reader_open_sized(int fd, uint64_t size, struct squash_reader **ret_reader,
                             struct err *err)
{
    cleanup_squash_reader struct squash_reader *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return err_no_memory(err);
    r->file.fd = fd;
    r->file.size = size;
    r->file.base.read_at = in_read_at;
    r->file.base.write_at = in_write_at;
    r->file.base.get_size = in_get_size;
    r->file.base.truncate = in_truncate;
    if (open_tables(r, err) < 0)
        return -1;
    *ret_reader = steal_ptr(&r);
    return 0;
}

void squash_reader_free(struct squash_reader *r)
{
    if (r == NULL)
        return;
    sqfs_destroy(r->data);
    sqfs_destroy(r->xattrs);
    sqfs_destroy(r->ids);
    sqfs_destroy(r->cmp);
    free(r);
}

/* ---- nodes ---- */

void squash_node_free(struct squash_node *n)
{
    if (n == NULL)
        return;
    sqfs_free(n->inode);
    free(n->target);
    free(n);
}

/* Reads what the type of an inode says. */
static int fill_typed(struct squash_node *n, struct err *err)
{
    const sqfs_inode_generic_t *i = n->inode;
    sqfs_u64 size = 0;
    n->nlink = 1;
    switch (i->base.type) {
    case SQFS_INODE_EXT_FILE:
        n->nlink = i->data.file_ext.nlink;
        __attribute__((fallthrough));
    case SQFS_INODE_FILE:
        (void)sqfs_inode_get_file_size(i, &size);
        n->size = size;
        return 0;
    case SQFS_INODE_DIR:
        n->nlink = i->data.dir.nlink;
        return 0;
    case SQFS_INODE_EXT_DIR:
        n->nlink = i->data.dir_ext.nlink;
        return 0;
    case SQFS_INODE_BDEV:
    case SQFS_INODE_CDEV:
    case SQFS_INODE_EXT_BDEV:
    case SQFS_INODE_EXT_CDEV:
        n->nlink = i->data.dev.nlink;
        n->rdev = i->data.dev.devno;
        return 0;
    case SQFS_INODE_SLINK:
    case SQFS_INODE_EXT_SLINK:
        n->nlink = i->data.slink.nlink;
        n->target = strndup((const char *)i->extra, i->data.slink.target_size);
        return n->target == NULL ? err_no_memory(err) : 0;
    default:
        n->nlink = i->data.ipc.nlink;
        return 0;
    }
}

/* Wraps an inode, which becomes the node's. */
static int make_node(struct squash_reader *r, sqfs_inode_generic_t *inode,
                     struct squash_node **ret_node, struct err *err)
{
    cleanup_squash_node struct squash_node *n = calloc(1, sizeof(*n));
    if (n == NULL) {
        sqfs_free(inode);
        return err_no_memory(err);
    }
    n->inode = inode;
    n->mode = inode->base.mode;
    n->mtime = inode->base.mod_time;
    n->number = inode->base.inode_number;
    int rc = sqfs_id_table_index_to_id(r->ids, inode->base.uid_idx, &n->uid);
    if (rc == 0)
        rc = sqfs_id_table_index_to_id(r->ids, inode->base.gid_idx, &n->gid);
    if (rc != 0)
        return fail(rc, "owner", err);
    if (fill_typed(n, err) < 0)
        return -1;
    *ret_node = steal_ptr(&n);
    return 0;
}

static sqfs_dir_reader_t *new_dir_reader(struct squash_reader *r)
{
    return sqfs_dir_reader_create(&r->super, r->cmp, &r->file.base, 0);
}

int squash_reader_root(struct squash_reader *r, struct squash_node **ret_node, struct err *err)
{
    sqfs_inode_generic_t *inode = NULL;
    sqfs_dir_reader_t *dir = new_dir_reader(r);
    if (dir == NULL)
        return err_no_memory(err);
    int rc = sqfs_dir_reader_get_root_inode(dir, &inode);
    sqfs_destroy(dir);
    return rc == 0 ? make_node(r, inode, ret_node, err) : fail(rc, "root", err);
}

int squash_reader_child(struct squash_reader *r, const struct squash_node *dir, const char *name,
                        struct squash_node **ret_node, struct err *err)
{
    sqfs_inode_generic_t *inode = NULL;
    if (!S_ISDIR(dir->mode))
        return fail(SQFS_ERROR_NO_ENTRY, "", err);
    sqfs_dir_reader_t *reader = new_dir_reader(r);
    if (reader == NULL)
        return err_no_memory(err);
    int rc = sqfs_dir_reader_open_dir(reader, dir->inode, 0);
    if (rc == 0)
        rc = sqfs_dir_reader_find(reader, name);
    if (rc == 0)
        rc = sqfs_dir_reader_get_inode(reader, &inode);
    sqfs_destroy(reader);
    return rc == 0 ? make_node(r, inode, ret_node, err) : fail(rc, "directory", err);
}

int squash_reader_find(struct squash_reader *r, const char *path, struct squash_node **ret_node,
                       struct err *err)
{
    char name[256];
    struct squash_node *node = NULL;
    if (squash_reader_root(r, &node, err) < 0)
        return -1;
    for (const char *p = path + strspn(path, "/"); *p != '\0'; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        struct squash_node *child = NULL;
        if (n >= sizeof(name)) {
            squash_node_free(node);
            return err_set(err, ERR_NOT_FOUND, "no such entry");
        }
        memcpy(name, p, n);
        name[n] = '\0';
        int rc = squash_reader_child(r, node, name, &child, err);
        squash_node_free(node);
        if (rc < 0)
            return -1;
        node = child;
        p += n;
    }
    *ret_node = node;
    return 0;
}

int squash_reader_each(struct squash_reader *r, const struct squash_node *dir,
                       int (*fn)(void *arg, const char *name, const struct squash_node *node,
                                 struct err *err),
                       void *arg, struct err *err)
{
    sqfs_dir_reader_t *reader = new_dir_reader(r);
    if (reader == NULL)
        return err_no_memory(err);
    int result = 0;
    int rc = sqfs_dir_reader_open_dir(reader, dir->inode, 0);
    while (rc == 0 && result == 0) {
        cleanup_squash_node struct squash_node *node = NULL;
        sqfs_dir_entry_t *entry = NULL;
        sqfs_inode_generic_t *inode = NULL;
        rc = sqfs_dir_reader_read(reader, &entry);
        if (rc == 0)
            rc = sqfs_dir_reader_get_inode(reader, &inode);
        if (rc == 0) {
            result = make_node(r, inode, &node, err);
            if (result == 0)
                result = fn(arg, (const char *)entry->name, node, err);
        }
        sqfs_free(entry);
    }
    sqfs_destroy(reader);
    if (result == 0 && rc < 0)
        return fail(rc, "directory", err);
    return result;
}

/* ---- contents and attributes ---- */

int squash_reader_data(struct squash_reader *r, const struct squash_node *node,
                       int (*fn)(void *arg, const void *bytes, size_t n, struct err *err),
                       void *arg, struct err *err)
{
    cleanup_free char *chunk = malloc(CHUNK);
    if (chunk == NULL)
        return err_no_memory(err);
    for (uint64_t at = 0; at < node->size;) {
        uint64_t left = node->size - at;
        sqfs_s32 n = sqfs_data_reader_read(r->data, node->inode, at, chunk,
                                           left < CHUNK ? (sqfs_u32)left : CHUNK);
        if (n <= 0)
            return fail(n < 0 ? n : SQFS_ERROR_CORRUPTED, "file", err);
        if (fn(arg, chunk, (size_t)n, err) != 0)
            return -1;
        at += (uint64_t)n;
    }
    return 0;
}

int squash_reader_xattrs(struct squash_reader *r, const struct squash_node *node,
                         int (*fn)(void *arg, const char *name, const void *value, size_t size,
                                   struct err *err),
                         void *arg, struct err *err)
{
    sqfs_u32 index = NO_XATTR;
    sqfs_xattr_id_t desc;
    int rc = sqfs_inode_get_xattr_index(node->inode, &index);
    if (rc == 0 && (index == NO_XATTR || r->xattrs == NULL))
        return 0;
    if (rc == 0)
        rc = sqfs_xattr_reader_get_desc(r->xattrs, index, &desc);
    if (rc == 0)
        rc = sqfs_xattr_reader_seek_kv(r->xattrs, &desc);
    int result = 0;
    for (sqfs_u32 i = 0; rc == 0 && result == 0 && i < desc.count; i++) {
        sqfs_xattr_entry_t *key = NULL;
        sqfs_xattr_value_t *value = NULL;
        rc = sqfs_xattr_reader_read_key(r->xattrs, &key);
        if (rc == 0)
            rc = sqfs_xattr_reader_read_value(r->xattrs, key, &value);
        if (rc == 0)
            result = fn(arg, (const char *)key->key, value->value, value->size, err);
        sqfs_free(key);
        sqfs_free(value);
    }
    if (result == 0 && rc != 0)
        return fail(rc, "attributes", err);
    return result;
}

struct wanted {
    const char *name;
    char *value;
    size_t size;
};

static int take_wanted(void *arg, const char *name, const void *value, size_t size, struct err *err)
{
    struct wanted *w = arg;
    if (w->value != NULL || strcmp(name, w->name) != 0)
        return 0;
    w->value = calloc(1, size + 1);
    if (w->value == NULL)
        return err_no_memory(err);
    if (size > 0)
        memcpy(w->value, value, size);
    w->size = size;
    return 0;
}

int squash_reader_xattr(struct squash_reader *r, const struct squash_node *node, const char *name,
                        char **ret_value, size_t *ret_size, struct err *err)
{
    struct wanted w = {.name = name};
    if (squash_reader_xattrs(r, node, take_wanted, &w, err) != 0) {
        free(w.value);
        return -1;
    }
    if (w.value == NULL)
        return err_set(err, ERR_NOT_FOUND, "no attribute %s", name);
    *ret_value = w.value;
    if (ret_size != NULL)
        *ret_size = w.size;
    return 0;
}
