/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer becomes visible by rename(2) after fsync(2) of its content, and the rename is made
 * durable by fsync of the folder, so that a file with a layer's name is always whole. Everything is
 * relative to descriptors of the two folders.
 */
#include "host/image/content.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/text.h"

#define LAYER_SUFFIX ".squashfs"

struct content {
    char *root;
    int root_fd;
    int layers_fd;
    int ingest_fd;
};

static int open_folder(const char *root, const char *name, int *ret_fd, struct err *err)
{
    cleanup_free char *path = text_printf("%s/%s", root, name);
    if (path == NULL)
        return err_no_memory(err);
    if (fd_make_dirs(path, 0700, err) < 0)
        return -1;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    *ret_fd = fd;
    return 0;
}

int content_open(const char *root, struct content **ret_content, struct err *err)
{
    cleanup_content struct content *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    c->root_fd = c->layers_fd = c->ingest_fd = -1;
    c->root = strdup(root);
    if (c->root == NULL)
        return err_no_memory(err);
    if (open_folder(root, ".", &c->root_fd, err) < 0 ||
        open_folder(root, "layers", &c->layers_fd, err) < 0 ||
        open_folder(root, "ingest", &c->ingest_fd, err) < 0)
        return -1;
    *ret_content = steal_ptr(&c);
    return 0;
}

void content_free(struct content *c)
{
    if (c == NULL)
        return;
    close_fd(&c->root_fd);
    close_fd(&c->layers_fd);
    close_fd(&c->ingest_fd);
    free(c->root);
    free(c);
}

const char *content_root(const struct content *c)
{
    return c->root;
}

static void layer_name(const char *diff_id, char ret_name[CONTENT_NAME_SIZE])
{
    (void)snprintf(ret_name, CONTENT_NAME_SIZE, "%s%s", digest_hex(diff_id), LAYER_SUFFIX);
}

char *content_layer_path(const struct content *c, const char *diff_id)
{
    char name[CONTENT_NAME_SIZE];
    layer_name(diff_id, name);
    return text_printf("%s/layers/%s", c->root, name);
}

int content_ingest(struct content *c, char ret_name[CONTENT_NAME_SIZE], int *ret_fd,
                   struct err *err)
{
    text_random_hex(16, ret_name);
    int fd = openat(c->ingest_fd, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "make a file in '%s/ingest'", c->root);
    *ret_fd = fd;
    return 0;
}

void content_discard(struct content *c, const char *name)
{
    (void)unlinkat(c->ingest_fd, name, 0);
}

int content_commit(struct content *c, const char *name, int fd, const char *diff_id,
                   struct err *err)
{
    char layer[CONTENT_NAME_SIZE];
    layer_name(diff_id, layer);
    if (fchmod(fd, 0400) < 0 || fsync(fd) < 0)
        return err_set_errno(err, errno, "sync a layer");
    if (renameat(c->ingest_fd, name, c->layers_fd, layer) < 0)
        return err_set_errno(err, errno, "rename a layer");
    if (fsync(c->layers_fd) < 0)
        return err_set_errno(err, errno, "sync '%s/layers'", c->root);
    return 0;
}

int content_open_layer(struct content *c, const char *diff_id, int *ret_fd, uint64_t *ret_size,
                       struct err *err)
{
    char name[CONTENT_NAME_SIZE];
    struct stat st;
    layer_name(diff_id, name);
    cleanup_fd int fd = openat(c->layers_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "open layer %s", diff_id);
    if (ret_size != NULL)
        *ret_size = (uint64_t)st.st_size;
    *ret_fd = steal_fd(&fd);
    return 0;
}

int content_stat_layer(struct content *c, const char *diff_id, uint64_t *ret_size, struct err *err)
{
    char name[CONTENT_NAME_SIZE];
    struct stat st;
    layer_name(diff_id, name);
    if (fstatat(c->layers_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set_errno(err, errno, "layer %s", diff_id);
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

int content_remove_layer(struct content *c, const char *diff_id, struct err *err)
{
    char name[CONTENT_NAME_SIZE];
    layer_name(diff_id, name);
    if (unlinkat(c->layers_fd, name, 0) < 0 && errno != ENOENT)
        return err_set_errno(err, errno, "remove layer %s", diff_id);
    return 0;
}

/* Walks a folder of plain files; fn gets each name. */
static int each_name(int dir_fd, int (*fn)(void *arg, const char *name, struct err *err), void *arg,
                     struct err *err)
{
    int rc = 0;
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        rc = err_set_errno(err, errno, "read an image folder");
        close_fd(&fd);
        return rc;
    }
    struct dirent *d;
    while (rc == 0 && (d = readdir(dir)) != NULL)
        if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
            rc = fn(arg, d->d_name, err);
    (void)closedir(dir);
    return rc;
}

static int remove_ingest(void *arg, const char *name, struct err *err)
{
    struct content *c = arg;
    return fd_remove_tree(c->ingest_fd, name, err);
}

int content_clean_ingest(struct content *c, struct err *err)
{
    return each_name(c->ingest_fd, remove_ingest, c, err);
}

struct layer_walk {
    struct content *content;
    int (*fn)(void *arg, const char *diff_id, struct err *err);
    void *arg;
};

static int visit_layer(void *arg, const char *name, struct err *err)
{
    struct layer_walk *w = arg;
    char diff_id[DIGEST_TEXT_SIZE];
    size_t n = strlen(name);
    size_t hex = 2 * (size_t)DIGEST_BYTES;
    if (n == hex + strlen(LAYER_SUFFIX) && strcmp(name + hex, LAYER_SUFFIX) == 0) {
        (void)snprintf(diff_id, sizeof(diff_id), "sha256:%.64s", name);
        if (digest_is_valid(diff_id))
            return w->fn(w->arg, diff_id, err);
    }
    return fd_remove_tree(w->content->layers_fd, name, err);
}

int content_each_layer(struct content *c,
                       int (*fn)(void *arg, const char *diff_id, struct err *err), void *arg,
                       struct err *err)
{
    struct layer_walk w = {.content = c, .fn = fn, .arg = arg};
    return each_name(c->layers_fd, visit_layer, &w, err);
}

struct usage {
    int dir_fd;
    uint64_t bytes;
    uint64_t inodes;
};

static int add_usage(void *arg, const char *name, struct err *err)
{
    struct usage *u = arg;
    struct stat st;
    if (fstatat(u->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : err_set_errno(err, errno, "stat an image file");
    u->bytes += (uint64_t)st.st_blocks * 512;
    u->inodes++;
    return 0;
}

int content_usage(struct content *c, uint64_t *ret_bytes, uint64_t *ret_inodes, struct err *err)
{
    const int folders[] = {c->layers_fd, c->ingest_fd};
    struct usage u = {.dir_fd = c->root_fd};
    if (each_name(c->root_fd, add_usage, &u, err) < 0 || add_usage(&u, ".", err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        u.dir_fd = folders[i];
        if (each_name(folders[i], add_usage, &u, err) < 0)
            return -1;
    }
    *ret_bytes = u.bytes;
    *ret_inodes = u.inodes;
    return 0;
}
