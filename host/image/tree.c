/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tar gives entries in any order and squashfs wants children before parents, so that the names and
 * metadata of a layer are collected first. A directory's children form a red-black tree (tsearch):
 * sorted for the writer and, unlike a hash table, without a worst case that a hostile archive could
 * choose.
 *
 * Names. A path is cleaned lexically ("a/./b", "a//b", "a/../b"; a leading "/" is dropped); what
 * would climb above the root is refused. A symlink of this layer in the middle of a path is
 * followed within the root, as tar and containerd do (images with "lib -> usr/lib" depend on it).
 *
 * Overlay semantics. A whiteout speaks of the lower layers only, whichever of it and its namesake
 * comes first (OCI image-spec 1.1, layer.md): whiteout + directory is an opaque directory, whiteout
 * + file is the file. A directory that takes the place of something else in the same layer is
 * opaque too, because applied in order the other thing had removed the lower directory.
 */
#include "host/image/tree.h"

#include <search.h>
#include <sqfs/predef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_META   ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

enum { MAX_LINKS = 40, WALK_SIZE = 4 * (TREE_MAX_PATH + 1) };

struct tree {
    struct tree_node *root;
    struct tree_node *probe; /* a nameable node to search with */
    struct tree_inode *inodes;
    uint64_t entries;
    uint64_t max_entries;
    char path[TREE_MAX_PATH + 1]; /* cleaned path of the entry at hand */
    char walk[WALK_SIZE];         /* what is left to walk, symlinks substituted */
    char next[WALK_SIZE];
};

/* ---- nodes ---- */

static int compare_nodes(const void *a, const void *b)
{
    return strcmp(((const struct tree_node *)a)->name, ((const struct tree_node *)b)->name);
}

static struct tree_node *find_child(struct tree *t, struct tree_node *dir, const char *name)
{
    size_t n = strlen(name);
    if (n > TREE_MAX_NAME)
        return NULL;
    memcpy(t->probe->name, name, n + 1);
    struct tree_node **found = tfind(t->probe, &dir->children, compare_nodes);
    return found == NULL ? NULL : *found;
}

static void free_node(void *p)
{
    struct tree_node *node = p;
    node->inode->nlink--;
    tdestroy(node->children, free_node);
    free(node);
}

static void drop_children(struct tree_node *node)
{
    tdestroy(node->children, free_node);
    node->children = NULL;
    node->n_children = 0;
}

static void set_inode(struct tree_node *node, struct tree_inode *inode)
{
    inode->nlink++;
    if (node->inode != NULL)
        node->inode->nlink--;
    node->inode = inode;
}

static int add_child(struct tree *t, struct tree_node *dir, const char *name,
                     struct tree_inode *inode, struct tree_node **ret_node, struct err *err)
{
    size_t n = strlen(name);
    if (n > TREE_MAX_NAME)
        return err_set(err, ERR_PROTOCOL, "name longer than %d bytes in '%.80s…'", TREE_MAX_NAME,
                       t->path);
    if (t->entries >= t->max_entries)
        return err_set(err, ERR_EXHAUSTED, "more than %llu entries",
                       (unsigned long long)t->max_entries);
    struct tree_node *node = calloc(1, sizeof(*node) + n + 1);
    if (node == NULL)
        return err_no_memory(err);
    memcpy(node->name, name, n + 1);
    node->parent = dir;
    if (tsearch(node, &dir->children, compare_nodes) == NULL) {
        free(node);
        return err_no_memory(err);
    }
    set_inode(node, inode);
    dir->n_children++;
    t->entries++;
    if (ret_node != NULL)
        *ret_node = node;
    return 0;
}

struct tree_inode *tree_make_inode(struct tree *t, mode_t mode, struct err *err)
{
    struct tree_inode *inode = calloc(1, sizeof(*inode));
    if (inode == NULL) {
        (void)err_no_memory(err);
        return NULL;
    }
    inode->mode = mode;
    inode->next = t->inodes;
    t->inodes = inode;
    return inode;
}

static struct tree_inode *make_implicit(struct tree *t, struct err *err)
{
    struct tree_inode *inode = tree_make_inode(t, S_IFDIR | 0755, err);
    if (inode != NULL)
        inode->implicit = true;
    return inode;
}

int tree_new(uint64_t max_entries, struct tree **ret_tree, struct err *err)
{
    cleanup_tree struct tree *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return err_no_memory(err);
    t->max_entries = max_entries;
    t->probe = calloc(1, sizeof(*t->probe) + TREE_MAX_NAME + 1);
    t->root = calloc(1, sizeof(*t->root) + 1);
    if (t->probe == NULL || t->root == NULL)
        return err_no_memory(err);
    struct tree_inode *inode = make_implicit(t, err);
    if (inode == NULL)
        return -1;
    inode->implicit = false; /* the root's metadata are those of the container's upper layer */
    t->root->parent = t->root;
    set_inode(t->root, inode);
    *ret_tree = steal_ptr(&t);
    return 0;
}

static void free_inode(struct tree_inode *inode)
{
    while (inode->xattrs != NULL) {
        struct tree_xattr *x = inode->xattrs;
        inode->xattrs = x->next;
        free(x->name);
        free(x->value);
        free(x);
    }
    sqfs_free(inode->file);
    free(inode->target);
    free(inode);
}

void tree_free(struct tree *t)
{
    if (t == NULL)
        return;
    if (t->root != NULL) {
        drop_children(t->root);
        free(t->root);
    }
    free(t->probe);
    while (t->inodes != NULL) {
        struct tree_inode *inode = t->inodes;
        t->inodes = inode->next;
        free_inode(inode);
    }
    free(t);
}

struct tree_node *tree_root(struct tree *t)
{
    return t->root;
}

uint64_t tree_entries(const struct tree *t)
{
    return t->entries;
}

/* ---- attributes ---- */

int tree_add_xattr(struct tree_inode *inode, const char *name, const void *value, size_t size,
                   struct err *err)
{
    size_t total = strlen(name) + size;
    struct tree_xattr *same = NULL;
    for (struct tree_xattr *x = inode->xattrs; x != NULL; x = x->next) {
        if (strcmp(x->name, name) == 0)
            same = x;
        else
            total += strlen(x->name) + x->size;
    }
    if (total > TREE_MAX_XATTRS)
        return err_set(err, ERR_PROTOCOL, "extended attributes of an entry exceed %d bytes",
                       TREE_MAX_XATTRS);
    cleanup_free void *copy = malloc(size + 1);
    if (copy == NULL)
        return err_no_memory(err);
    if (size > 0)
        memcpy(copy, value, size);
    if (same == NULL) {
        same = calloc(1, sizeof(*same));
        if (same == NULL || (same->name = strdup(name)) == NULL) {
            free(same);
            return err_no_memory(err);
        }
        same->next = inode->xattrs;
        inode->xattrs = same;
    }
    free(same->value);
    same->value = steal_ptr(&copy);
    same->size = size;
    return 0;
}

/* ---- paths ---- */

/* Copies path to t->path: no leading slash, no "." and "..", single slashes. "" is the root. */
static int clean_path(struct tree *t, const char *path, struct err *err)
{
    size_t out = 0;
    const char *p = path;
    for (;;) {
        while (*p == '/')
            p++;
        size_t n = strcspn(p, "/");
        if (n == 0)
            break;
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            if (out == 0)
                return err_set(err, ERR_PROTOCOL, "entry '%.200s' climbs out of the root", path);
            while (out > 0 && t->path[out - 1] != '/')
                out--;
            if (out > 0)
                out--;
        } else if (!(n == 1 && p[0] == '.')) {
            if (out + n + 1 > TREE_MAX_PATH)
                return err_set(err, ERR_PROTOCOL, "path longer than %d bytes: '%.80s…'",
                               TREE_MAX_PATH, path);
            if (out > 0)
                t->path[out++] = '/';
            memcpy(t->path + out, p, n);
            out += n;
        }
        p += n;
    }
    t->path[out] = '\0';
    return 0;
}

/* Puts a symlink's target in front of what is left to walk. */
static int substitute(struct tree *t, const char *target, const char *rest, struct err *err)
{
    int n = snprintf(t->next, sizeof(t->next), "%s/%s", target, rest);
    if (n < 0 || (size_t)n >= sizeof(t->next))
        return err_set(err, ERR_PROTOCOL, "symlinks make '%.80s' too long", t->path);
    memcpy(t->walk, t->next, (size_t)n + 1);
    return 0;
}

/* The child of dir that a path goes through: made when missing, opened up when it is a whiteout. */
static int enter_child(struct tree *t, struct tree_node *dir, const char *name, bool create,
                       struct tree_node **ret_child, struct err *err)
{
    struct tree_node *child = find_child(t, dir, name);
    if (child != NULL && !child->inode->whiteout) {
        *ret_child = child;
        return 0;
    }
    if (!create) {
        *ret_child = NULL;
        return 0;
    }
    struct tree_inode *inode = make_implicit(t, err);
    if (inode == NULL)
        return -1;
    if (child == NULL)
        return add_child(t, dir, name, inode, ret_child, err);
    inode->opaque = true;
    inode->implicit = false; /* nothing below shows through: there is no metadata to inherit */
    set_inode(child, inode);
    *ret_child = child;
    return 0;
}

/* The directory at path (cleaned, n bytes of t->path); NULL when it is missing and not to be
 * created. */
static int walk_to(struct tree *t, size_t n, bool create, struct tree_node **ret_dir,
                   struct err *err)
{
    struct tree_node *cur = t->root;
    unsigned links = 0;
    memcpy(t->walk, t->path, n);
    t->walk[n] = '\0';
    char *p = t->walk;
    for (;;) {
        while (*p == '/')
            p++;
        if (*p == '\0')
            break;
        char *rest = p + strcspn(p, "/");
        if (*rest == '/')
            *rest++ = '\0';
        if (strcmp(p, ".") == 0 || strcmp(p, "..") == 0) { /* only out of a symlink */
            if (p[1] == '.')
                cur = cur->parent;
            p = rest;
            continue;
        }
        struct tree_node *child;
        if (enter_child(t, cur, p, create, &child, err) < 0)
            return -1;
        if (child == NULL) {
            *ret_dir = NULL;
            return 0;
        }
        if (S_ISLNK(child->inode->mode)) {
            const char *target = child->inode->target;
            if (++links > MAX_LINKS)
                return err_set(err, ERR_PROTOCOL, "too many symlinks in '%.200s'", t->path);
            if (substitute(t, target, rest, err) < 0)
                return -1;
            if (target[0] == '/')
                cur = t->root;
            p = t->walk;
            continue;
        }
        if (!S_ISDIR(child->inode->mode))
            return err_set(err, ERR_PROTOCOL,
                           "entry '%.200s' lies below something that is no directory", t->path);
        cur = child;
        p = rest;
    }
    *ret_dir = cur;
    return 0;
}

/* Splits t->path: the directory's length and the last component. */
static const char *last_component(const struct tree *t, size_t *ret_dir_len)
{
    const char *slash = strrchr(t->path, '/');
    *ret_dir_len = slash == NULL ? 0 : (size_t)(slash - t->path);
    return slash == NULL ? t->path : slash + 1;
}

/* ---- entries ---- */

static int put_whiteout(struct tree *t, struct tree_node *dir, const char *name, struct err *err)
{
    if (strcmp(name, WHITEOUT_OPAQUE) == 0) {
        dir->inode->opaque = true;
        return 0;
    }
    if (strncmp(name, WHITEOUT_META, strlen(WHITEOUT_META)) == 0) /* aufs housekeeping */
        return 0;
    name += strlen(WHITEOUT_PREFIX);
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(err, ERR_PROTOCOL, "whiteout '%.200s' names nothing", t->path);
    struct tree_node *node = find_child(t, dir, name);
    if (node != NULL) {
        if (S_ISDIR(node->inode->mode))
            node->inode->opaque = true;
        return 0;
    }
    struct tree_inode *inode = tree_make_inode(t, S_IFCHR, err);
    if (inode == NULL)
        return -1;
    inode->whiteout = true;
    return add_child(t, dir, name, inode, NULL, err);
}

static int put_node(struct tree *t, struct tree_node *dir, const char *name,
                    struct tree_inode *inode, struct err *err)
{
    struct tree_node *node = find_child(t, dir, name);
    if (node == NULL)
        return add_child(t, dir, name, inode, NULL, err);
    if (node->inode == inode)
        return 0;
    if (S_ISDIR(inode->mode)) {
        bool was_dir = S_ISDIR(node->inode->mode);
        inode->opaque = was_dir ? node->inode->opaque : true;
    } else {
        drop_children(node);
    }
    set_inode(node, inode);
    return 0;
}

static int put_root(struct tree *t, struct tree_inode *inode, struct err *err)
{
    if (!S_ISDIR(inode->mode))
        return err_set(err, ERR_PROTOCOL, "the root entry is no directory");
    inode->opaque = t->root->inode->opaque;
    set_inode(t->root, inode);
    return 0;
}

int tree_put(struct tree *t, const char *path, struct tree_inode *inode, struct err *err)
{
    size_t dir_len;
    struct tree_node *dir;
    if (clean_path(t, path, err) < 0)
        return -1;
    if (t->path[0] == '\0')
        return put_root(t, inode, err);
    const char *name = last_component(t, &dir_len);
    if (walk_to(t, dir_len, true, &dir, err) < 0)
        return -1;
    if (strncmp(name, WHITEOUT_PREFIX, strlen(WHITEOUT_PREFIX)) == 0)
        return put_whiteout(t, dir, name, err);
    return put_node(t, dir, name, inode, err);
}

/* The inode that a hard link's target means: of this layer, or a mark that it is to be found below.
 */
static struct tree_inode *link_target(struct tree *t, const char *target, struct err *err)
{
    size_t dir_len;
    struct tree_node *dir;
    if (clean_path(t, target, err) < 0)
        return NULL;
    const char *name = last_component(t, &dir_len);
    if (walk_to(t, dir_len, false, &dir, err) < 0)
        return NULL;
    struct tree_node *node =
        dir == NULL ? NULL : (t->path[0] == '\0' ? t->root : find_child(t, dir, name));
    if (node != NULL && !node->inode->whiteout) {
        if (!S_ISDIR(node->inode->mode))
            return node->inode;
        (void)err_set(err, ERR_PROTOCOL, "hard link to the directory '%.200s'", t->path);
        return NULL;
    }
    struct tree_inode *inode = tree_make_inode(t, S_IFREG, err);
    if (inode == NULL)
        return NULL;
    inode->lower_link = true;
    inode->target = strdup(t->path);
    if (inode->target == NULL)
        (void)err_no_memory(err);
    return inode->target == NULL ? NULL : inode;
}

int tree_link(struct tree *t, const char *path, const char *target, struct err *err)
{
    struct tree_inode *inode = link_target(t, target, err);
    return inode == NULL ? -1 : tree_put(t, path, inode, err);
}

struct child_walk {
    int (*fn)(void *arg, struct tree_node *child);
    void *arg;
    bool skip_whiteouts;
    int rc;
};

static void visit_child(const void *nodep, VISIT which, void *closure)
{
    struct child_walk *w = closure;
    if ((which != postorder && which != leaf) || w->rc != 0)
        return;
    struct tree_node *child = *(struct tree_node *const *)nodep;
    if (w->skip_whiteouts && child->inode->whiteout)
        return;
    w->rc = w->fn(w->arg, child);
}

int tree_each_child(struct tree_node *dir, int (*fn)(void *arg, struct tree_node *child), void *arg)
{
    struct child_walk w = {.fn = fn, .arg = arg, .skip_whiteouts = dir->inode->opaque};
    twalk_r(dir->children, visit_child, &w);
    return w.rc;
}
