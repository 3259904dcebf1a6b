/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of the image: super block, data and fragment blocks (as the contents stream by), inode
 * table, directory table, fragment table, export table, ids, attributes. The inode table is written
 * in two passes over the tree: first everything that is no directory, so that a hard link never
 * needs the location of an inode that is not written yet, then the directories, children before
 * parents. Inode numbers are given out in a pass before both, because a directory's inode names its
 * parent's number.
 *
 * Overlay marks of the tree become attributes here: trusted.overlay.opaque, and an empty
 * trusted.overlay.origin on directories with whiteouts, without which a whiteout that has nothing
 * below shows as a device. Attributes of the same kind that came with the tar are dropped by the
 * caller. trusted.casemate.* marks what the layers below must complete (see docs/images.md).
 */
#include "host/image/squash.h"

#include <errno.h>
#include <limits.h>
#include <sqfs/block.h>
#include <sqfs/block_processor.h>
#include <sqfs/block_writer.h>
#include <sqfs/compressor.h>
#include <sqfs/dir_writer.h>
#include <sqfs/error.h>
#include <sqfs/frag_table.h>
#include <sqfs/id_table.h>
#include <sqfs/inode.h>
#include <sqfs/io.h>
#include <sqfs/meta_writer.h>
#include <sqfs/super.h>
#include <sqfs/xattr.h>
#include <sqfs/xattr_writer.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * BLOCK_SIZE: a mounted squashfs keeps several blocks' worth of buffers in the guest's kernel, for
 * each layer, and a page that is missing costs the decompression of a whole block. docs/images.md
 * has the measurement.
 */
enum { BLOCK_SIZE = 32 * 1024, BACKLOG_PER_WORKER = 32, PADDING = 4096 };

#define NO_XATTR 0xFFFFFFFFu

/* sqfs_file_t over the inherited descriptor; remembers why it failed, libsquashfs only says "I/O".
 */
struct out_file {
    sqfs_file_t base;
    int fd;
    uint64_t size;
    uint64_t max;
    int sys_errno; /* of the first failure; EFBIG for the limit */
};

struct squash {
    struct out_file *file;
    sqfs_super_t super;
    sqfs_compressor_t *cmp;
    sqfs_compressor_t *uncmp;
    sqfs_block_writer_t *blocks;
    sqfs_frag_table_t *frags;
    sqfs_block_processor_t *proc;
    sqfs_id_table_t *ids;
    sqfs_xattr_writer_t *xattrs;
    sqfs_meta_writer_t *inode_meta;
    sqfs_meta_writer_t *dir_meta;
    sqfs_dir_writer_t *dirs;
    sqfs_u32 block_flags;
    uint32_t n_inodes;
    bool finished; /* the block processor holds no blocks */
};

/* ---- the output ---- */

static int out_read_at(sqfs_file_t *base, sqfs_u64 offset, void *buffer, size_t size)
{
    struct out_file *f = container_of(base, struct out_file, base);
    uint8_t *p = buffer;
    while (size > 0) {
        ssize_t n = pread(f->fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (f->sys_errno == 0)
                f->sys_errno = n < 0 ? errno : EIO;
            return SQFS_ERROR_IO;
        }
        p += n;
        offset += (sqfs_u64)n;
        size -= (size_t)n;
    }
    return 0;
}

static int out_write_at(sqfs_file_t *base, sqfs_u64 offset, const void *buffer, size_t size)
{
    struct out_file *f = container_of(base, struct out_file, base);
    const uint8_t *p = buffer;
    if (offset > f->max || size > f->max - offset) {
        f->sys_errno = EFBIG;
        return SQFS_ERROR_IO;
    }
    while (size > 0) {
        ssize_t n = pwrite(f->fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (f->sys_errno == 0)
                f->sys_errno = n < 0 ? errno : EIO;
            return SQFS_ERROR_IO;
        }
        p += n;
        offset += (sqfs_u64)n;
        size -= (size_t)n;
    }
    if (offset > f->size)
        f->size = offset;
    return 0;
}

static sqfs_u64 out_get_size(const sqfs_file_t *base)
{
    return ((const struct out_file *)(const void *)base)->size;
}

static int out_truncate(sqfs_file_t *base, sqfs_u64 size)
{
    struct out_file *f = container_of(base, struct out_file, base);
    if (size > f->max || ftruncate(f->fd, (off_t)size) < 0) {
        if (f->sys_errno == 0)
            f->sys_errno = size > f->max ? EFBIG : errno;
        return SQFS_ERROR_IO;
    }
    f->size = size;
    return 0;
}

static void out_destroy(sqfs_object_t *base)
{
    free(base);
}

static struct out_file *out_new(int fd, uint64_t max)
{
    struct out_file *f = calloc(1, sizeof(*f));
    if (f == NULL)
        return NULL;
    f->base.base.destroy = out_destroy;
    f->base.read_at = out_read_at;
    f->base.write_at = out_write_at;
    f->base.get_size = out_get_size;
    f->base.truncate = out_truncate;
    f->fd = fd;
    f->max = max;
    return f;
}

/* Translates a libsquashfs error. Returns -1. */
static int fail(const struct squash *s, int sqfs_error, const char *step, struct err *err)
{
    if (sqfs_error == SQFS_ERROR_ALLOC)
        return err_no_memory(err);
    if (sqfs_error == SQFS_ERROR_IO && s->file->sys_errno == EFBIG)
        return err_set(err, ERR_EXHAUSTED, "the layer's image would exceed %llu bytes",
                       (unsigned long long)s->file->max);
    if (sqfs_error == SQFS_ERROR_IO && s->file->sys_errno != 0)
        return err_set_errno(err, s->file->sys_errno, "write the layer's image");
    return err_set(err, ERR_UNSUPPORTED, "squashfs: %s: error %d", step, sqfs_error);
}

/* ---- compressors ---- */

/*
 * libsquashfs 1.2's lz4 hands out blocks that grew (9 bytes for an id table of 8), which neither
 * the kernel nor unsquashfs reads back. This compressor stands before the real one and says "does
 * not shrink" for those.
 */
struct shrinker {
    sqfs_compressor_t base;
    sqfs_compressor_t *real;
};

static const sqfs_compressor_t *real_of(const sqfs_compressor_t *base)
{
    return ((const struct shrinker *)(const void *)base)->real;
}

static void shrinker_config(const sqfs_compressor_t *base, sqfs_compressor_config_t *cfg)
{
    real_of(base)->get_configuration(real_of(base), cfg);
}

static int shrinker_write(sqfs_compressor_t *base, sqfs_file_t *file)
{
    sqfs_compressor_t *real = container_of(base, struct shrinker, base)->real;
    return real->write_options(real, file);
}

static int shrinker_read(sqfs_compressor_t *base, sqfs_file_t *file)
{
    sqfs_compressor_t *real = container_of(base, struct shrinker, base)->real;
    return real->read_options(real, file);
}

static sqfs_s32 shrinker_block(sqfs_compressor_t *base, const sqfs_u8 *in, sqfs_u32 size,
                               sqfs_u8 *out, sqfs_u32 out_size)
{
    sqfs_compressor_t *real = container_of(base, struct shrinker, base)->real;
    sqfs_s32 n = real->do_block(real, in, size, out, out_size);
    return n > 0 && (sqfs_u32)n >= size ? 0 : n;
}

static sqfs_compressor_t *shrinker_new(sqfs_compressor_t *real);

static void shrinker_destroy(sqfs_object_t *base)
{
    struct shrinker *s = (struct shrinker *)(void *)base;
    sqfs_destroy(s->real);
    free(s);
}

static sqfs_object_t *shrinker_copy(const sqfs_object_t *base)
{
    sqfs_compressor_t *real = sqfs_copy(((const struct shrinker *)(const void *)base)->real);
    sqfs_compressor_t *copy = real == NULL ? NULL : shrinker_new(real);
    return copy == NULL ? NULL : &copy->base;
}

/* Takes the real compressor over, also when it fails. */
static sqfs_compressor_t *shrinker_new(sqfs_compressor_t *real)
{
    struct shrinker *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        sqfs_destroy(real);
        return NULL;
    }
    s->real = real;
    s->base.base.destroy = shrinker_destroy;
    s->base.base.copy = shrinker_copy;
    s->base.get_configuration = shrinker_config;
    s->base.write_options = shrinker_write;
    s->base.read_options = shrinker_read;
    s->base.do_block = shrinker_block;
    return &s->base;
}

/* ---- setup ---- */

static int make_compressors(struct squash *s, enum image_compression compression, struct err *err)
{
    SQFS_COMPRESSOR id = compression == IMAGE_COMPRESSION_LZ4 ? SQFS_COMP_LZ4 : SQFS_COMP_ZSTD;
    sqfs_compressor_config_t cfg;
    int rc = sqfs_compressor_config_init(&cfg, id, BLOCK_SIZE, 0);
    if (id == SQFS_COMP_ZSTD)
        cfg.level = SQFS_ZSTD_MIN_LEVEL;
    sqfs_compressor_t *real = NULL;
    if (rc == 0)
        rc = sqfs_compressor_create(&cfg, &real);
    if (rc == 0 && (s->cmp = shrinker_new(real)) == NULL)
        rc = SQFS_ERROR_ALLOC;
    cfg.flags |= SQFS_COMP_FLAG_UNCOMPRESS;
    if (rc == 0)
        rc = sqfs_compressor_create(&cfg, &s->uncmp);
    if (rc != 0)
        return fail(s, rc, "compressor", err);
    if (compression == IMAGE_COMPRESSION_NONE)
        s->block_flags = SQFS_BLK_DONT_COMPRESS;

    rc = sqfs_super_init(&s->super, BLOCK_SIZE, 0, id);
    if (rc == 0)
        rc = sqfs_super_write(&s->super, &s->file->base);
    if (rc != 0)
        return fail(s, rc, "super block", err);
    rc = s->cmp->write_options(s->cmp, &s->file->base);
    if (rc < 0)
        return fail(s, rc, "compressor options", err);
    if (rc > 0)
        s->super.flags |= SQFS_FLAG_COMPRESSOR_OPTIONS;
    return 0;
}

static int make_parts(struct squash *s, unsigned workers, struct err *err)
{
    s->blocks = sqfs_block_writer_create(&s->file->base, SQFS_DEVBLK_SIZE, 0);
    s->frags = sqfs_frag_table_create(0);
    s->ids = sqfs_id_table_create(0);
    s->xattrs = sqfs_xattr_writer_create(0);
    s->inode_meta = sqfs_meta_writer_create(&s->file->base, s->cmp, 0);
    s->dir_meta = sqfs_meta_writer_create(&s->file->base, s->cmp, SQFS_META_WRITER_KEEP_IN_MEMORY);
    if (s->blocks == NULL || s->frags == NULL || s->ids == NULL || s->xattrs == NULL ||
        s->inode_meta == NULL || s->dir_meta == NULL)
        return err_no_memory(err);
    s->dirs = sqfs_dir_writer_create(s->dir_meta, SQFS_DIR_WRITER_CREATE_EXPORT_TABLE);
    if (s->dirs == NULL)
        return err_no_memory(err);
    sqfs_block_processor_desc_t desc = {
        .size = sizeof(desc),
        .max_block_size = BLOCK_SIZE,
        .num_workers = workers,
        .max_backlog = workers * BACKLOG_PER_WORKER,
        .cmp = s->cmp,
        .wr = s->blocks,
        .tbl = s->frags,
        .file = &s->file->base,
        .uncmp = s->uncmp,
    };
    int rc = sqfs_block_processor_create_ex(&desc, &s->proc);
    return rc == 0 ? 0 : fail(s, rc, "block processor", err);
}

int squash_new(int out_fd, const struct squash_options *options, struct squash **ret_squash,
               struct err *err)
{
    cleanup_squash struct squash *s = calloc(1, sizeof(*s));
    if (s == NULL || (s->file = out_new(out_fd, options->max_bytes)) == NULL)
        return err_no_memory(err);
    if (make_compressors(s, options->compression, err) < 0 ||
        make_parts(s, options->workers, err) < 0)
        return -1;
    *ret_squash = steal_ptr(&s);
    return 0;
}

static void destroy(void *object)
{
    if (object != NULL)
        sqfs_destroy(object);
}

void squash_free(struct squash *s)
{
    if (s == NULL)
        return;
    if (s->proc != NULL && !s->finished) {
        /* a conversion that failed: libsquashfs loses blocks that are under way when it is
         * destroyed */
        (void)sqfs_block_processor_end_file(s->proc);
        (void)sqfs_block_processor_finish(s->proc);
    }
    destroy(s->proc);
    destroy(s->dirs);
    destroy(s->dir_meta);
    destroy(s->inode_meta);
    destroy(s->xattrs);
    destroy(s->ids);
    destroy(s->frags);
    destroy(s->blocks);
    destroy(s->uncmp);
    destroy(s->cmp);
    free(s->file);
    free(s);
}

/* ---- contents ---- */

int squash_file_begin(struct squash *s, struct tree_inode *inode, struct err *err)
{
    int rc = sqfs_block_processor_begin_file(s->proc, &inode->file, NULL, s->block_flags);
    return rc == 0 ? 0 : fail(s, rc, "begin a file", err);
}

int squash_file_data(struct squash *s, const void *bytes, uint64_t n, struct err *err)
{
    static const uint8_t zeros[BLOCK_SIZE];
    while (n > 0) {
        uint64_t chunk = bytes == NULL && n > sizeof(zeros) ? sizeof(zeros) : n;
        int rc = sqfs_block_processor_append(s->proc, bytes == NULL ? zeros : bytes, chunk);
        if (rc != 0)
            return fail(s, rc, "write a file", err);
        n -= chunk;
    }
    return 0;
}

int squash_file_end(struct squash *s, struct err *err)
{
    int rc = sqfs_block_processor_end_file(s->proc);
    return rc == 0 ? 0 : fail(s, rc, "end a file", err);
}

/* ---- inodes ---- */

static int find_whiteout(void *arg, struct tree_node *child)
{
    (void)arg;
    return child->inode->whiteout ? 1 : 0;
}

static int add_attribute(struct squash *s, const char *name, const void *value, size_t size)
{
    return sqfs_xattr_writer_add(s->xattrs, name, value, size);
}

/* Attributes of one inode, overlay marks included. */
static int write_xattrs(struct squash *s, struct tree_node *node, uint32_t *ret_index)
{
    const struct tree_inode *inode = node->inode;
    bool dir = S_ISDIR(inode->mode);
    bool origin = dir && !inode->opaque && tree_each_child(node, find_whiteout, NULL) != 0;
    *ret_index = NO_XATTR;
    if (inode->xattrs == NULL && !(dir && (inode->opaque || inode->implicit)) && !origin &&
        !inode->lower_link)
        return 0;
    int rc = sqfs_xattr_writer_begin(s->xattrs, 0);
    for (const struct tree_xattr *x = inode->xattrs; rc == 0 && x != NULL; x = x->next)
        rc = add_attribute(s, x->name, x->value, x->size);
    if (rc == 0 && dir && inode->opaque)
        rc = add_attribute(s, "trusted.overlay.opaque", "y", 1);
    if (rc == 0 && origin)
        rc = add_attribute(s, "trusted.overlay.origin", "", 0);
    if (rc == 0 && dir && inode->implicit)
        rc = add_attribute(s, "trusted.casemate.implicit", "y", 1);
    if (rc == 0 && inode->lower_link)
        rc = add_attribute(s, "trusted.casemate.link", inode->target, strlen(inode->target));
    return rc == 0 ? sqfs_xattr_writer_end(s->xattrs, ret_index) : rc;
}

static int fill_inode(struct squash *s, sqfs_inode_generic_t *out, const struct tree_inode *inode)
{
    out->base.mode = (sqfs_u16)inode->mode;
    out->base.mod_time = inode->mtime;
    out->base.inode_number = inode->number;
    int rc = sqfs_id_table_id_to_index(s->ids, inode->uid, &out->base.uid_idx);
    if (rc == 0)
        rc = sqfs_id_table_id_to_index(s->ids, inode->gid, &out->base.gid_idx);
    return rc;
}

/* A fresh inode of everything but directories and regular files with content. */
static sqfs_inode_generic_t *make_special(const struct tree_inode *inode)
{
    size_t extra = S_ISLNK(inode->mode) ? strlen(inode->target) : 0;
    sqfs_inode_generic_t *out = calloc(1, sizeof(*out) + extra + 1);
    if (out == NULL)
        return NULL;
    if (S_ISLNK(inode->mode)) {
        out->base.type = SQFS_INODE_SLINK;
        out->data.slink.nlink = inode->nlink;
        out->data.slink.target_size = (sqfs_u32)extra;
        memcpy(out->extra, inode->target, extra);
        out->payload_bytes_used = out->payload_bytes_available = (sqfs_u32)extra;
    } else if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
        out->base.type = S_ISCHR(inode->mode) ? SQFS_INODE_CDEV : SQFS_INODE_BDEV;
        out->data.dev.nlink = inode->nlink;
        out->data.dev.devno = inode->rdev;
    } else if (S_ISREG(inode->mode)) {
        out->base.type = SQFS_INODE_FILE;
        out->data.file.fragment_index = 0xFFFFFFFFu;
        out->data.file.fragment_offset = 0xFFFFFFFFu;
    } else {
        out->base.type = S_ISFIFO(inode->mode) ? SQFS_INODE_FIFO : SQFS_INODE_SOCKET;
        out->data.ipc.nlink = inode->nlink;
    }
    return out;
}

static uint64_t next_location(const struct squash *s)
{
    sqfs_u64 block;
    sqfs_u32 offset;
    sqfs_meta_writer_get_position(s->inode_meta, &block, &offset);
    return (block << 16) | offset;
}

static int emit_leaf(struct squash *s, struct tree_node *node)
{
    struct tree_inode *inode = node->inode;
    uint32_t xattr = NO_XATTR;
    int rc = 0;
    cleanup_free sqfs_inode_generic_t *made = NULL;
    sqfs_inode_generic_t *out = inode->file;
    if (out == NULL)
        out = made = make_special(inode);
    if (out == NULL)
        return SQFS_ERROR_ALLOC;
    if (S_ISREG(inode->mode) && inode->nlink > 1) {
        rc = sqfs_inode_make_extended(out);
        if (rc == 0)
            out->data.file_ext.nlink = inode->nlink;
    }
    if (rc == 0)
        rc = write_xattrs(s, node, &xattr);
    if (rc == 0 && xattr != NO_XATTR)
        rc = sqfs_inode_set_xattr_index(out, xattr);
    if (rc == 0)
        rc = fill_inode(s, out, inode);
    inode->location = next_location(s);
    return rc == 0 ? sqfs_meta_writer_write_inode(s->inode_meta, out) : rc;
}

/* ---- passes over the tree; each returns a libsquashfs error ---- */

static int number_pass(void *arg, struct tree_node *node)
{
    struct squash *s = arg;
    if (node->inode->number == 0)
        node->inode->number = ++s->n_inodes;
    return S_ISDIR(node->inode->mode) ? tree_each_child(node, number_pass, s) : 0;
}

static int leaf_pass(void *arg, struct tree_node *node)
{
    struct squash *s = arg;
    if (S_ISDIR(node->inode->mode))
        return tree_each_child(node, leaf_pass, s);
    return node->inode->location == UINT64_MAX ? emit_leaf(s, node) : 0;
}

static int unplace_pass(void *arg, struct tree_node *node)
{
    node->inode->location = UINT64_MAX;
    return S_ISDIR(node->inode->mode) ? tree_each_child(node, unplace_pass, arg) : 0;
}

static int add_entry(void *arg, struct tree_node *child)
{
    struct squash *s = arg;
    return sqfs_dir_writer_add_entry(s->dirs, child->name, child->inode->number,
                                     child->inode->location, (sqfs_u16)child->inode->mode);
}

static int count_dir(void *arg, struct tree_node *child)
{
    uint32_t *n = arg;
    if (S_ISDIR(child->inode->mode))
        (*n)++;
    return 0;
}

static int emit_dir(struct squash *s, struct tree_node *dir)
{
    uint32_t xattr = NO_XATTR;
    uint32_t nlink = 2;
    bool root = dir->parent == dir;
    int rc = sqfs_dir_writer_begin(s->dirs, 0);
    if (rc == 0)
        rc = tree_each_child(dir, add_entry, s);
    if (rc == 0)
        rc = sqfs_dir_writer_end(s->dirs);
    if (rc == 0)
        rc = write_xattrs(s, dir, &xattr);
    if (rc != 0)
        return rc;
    cleanup_free sqfs_inode_generic_t *out = sqfs_dir_writer_create_inode(
        s->dirs, 0, xattr, root ? s->n_inodes + 1 : dir->parent->inode->number);
    if (out == NULL)
        return SQFS_ERROR_ALLOC;
    (void)tree_each_child(dir, count_dir, &nlink);
    if (out->base.type == SQFS_INODE_DIR)
        out->data.dir.nlink = nlink;
    else
        out->data.dir_ext.nlink = nlink;
    rc = fill_inode(s, out, dir->inode);
    dir->inode->location = next_location(s);
    return rc == 0 ? sqfs_meta_writer_write_inode(s->inode_meta, out) : rc;
}

static int dir_pass(void *arg, struct tree_node *node)
{
    struct squash *s = arg;
    if (!S_ISDIR(node->inode->mode))
        return 0;
    int rc = tree_each_child(node, dir_pass, s);
    return rc == 0 ? emit_dir(s, node) : rc;
}

/* ---- the end ---- */

static int write_tables(struct squash *s, struct tree_node *root, const char **ret_step)
{
    *ret_step = "inode table";
    s->super.inode_table_start = s->file->size;
    (void)unplace_pass(s, root);
    (void)number_pass(s, root);
    int rc = leaf_pass(s, root);
    if (rc == 0)
        rc = dir_pass(s, root);
    if (rc == 0)
        rc = sqfs_meta_writer_flush(s->inode_meta);
    if (rc != 0)
        return rc;
    *ret_step = "directory table";
    s->super.root_inode_ref = root->inode->location;
    s->super.inode_count = s->n_inodes;
    s->super.directory_table_start = s->file->size;
    rc = sqfs_meta_writer_flush(s->dir_meta);
    if (rc == 0)
        rc = sqfs_meta_write_write_to_file(s->dir_meta);
    if (rc != 0)
        return rc;
    *ret_step = "fragment table";
    rc = sqfs_frag_table_write(s->frags, &s->file->base, &s->super, s->cmp);
    if (rc != 0)
        return rc;
    *ret_step = "export table";
    rc = sqfs_dir_writer_write_export_table(s->dirs, &s->file->base, s->cmp, root->inode->number,
                                            root->inode->location, &s->super);
    if (rc != 0)
        return rc;
    *ret_step = "id table";
    rc = sqfs_id_table_write(s->ids, &s->file->base, &s->super, s->cmp);
    if (rc != 0)
        return rc;
    *ret_step = "attribute table";
    return sqfs_xattr_writer_flush(s->xattrs, &s->file->base, &s->super, s->cmp);
}

int squash_finish(struct squash *s, struct tree *tree, uint64_t *ret_bytes, struct err *err)
{
    const char *step = "data blocks";
    int rc = sqfs_block_processor_finish(s->proc);
    s->finished = true;
    if (rc == 0)
        rc = write_tables(s, tree_root(tree), &step);
    if (rc != 0)
        return fail(s, rc, step, err);
    s->super.bytes_used = s->file->size;
    s->super.modification_time = 0;
    rc = sqfs_super_write(&s->super, &s->file->base);
    uint64_t padded = (s->file->size + PADDING - 1) / PADDING * PADDING;
    if (rc == 0 && padded > s->file->size)
        rc = out_truncate(&s->file->base, padded);
    if (rc != 0)
        return fail(s, rc, "super block", err);
    *ret_bytes = padded;
    return 0;
}
