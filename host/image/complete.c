/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The converter left marks (trusted.casemate.*, see squash.c) where a layer
 * needs those below. All layers are walked for marks; a mark counts only where its entry is what
 * the guest's overlay will show, so each is first looked up from the top. Looking up follows
 * overlayfs: whiteouts, opaque directories and anything that is no directory hide what is below.
 *
 *   implicit directory   gets the metadata of the nearest layer below that describes it
 *   hard link            becomes a copy of its target; where the target itself is still visible, it
 *                        goes along as another name of the same inode, as link(2) in an overlay
 *                        would have done it
 *
 * Whatever is put into the completing layer brings its parents, with the metadata that they have to
 * show, because a directory of the uppermost layer decides.
 */
#include "host/image/complete.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uthash.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/image/squash.h"
#include "host/image/squash_reader.h"
#include "host/image/tree.h"

#define MARK_IMPLICIT "trusted.casemate.implicit"
#define MARK_LINK     "trusted.casemate.link"
#define MARK_OPAQUE   "trusted.overlay.opaque"

enum { MAX_LINKS = 40, PATH_SIZE = TREE_MAX_PATH + 1, MAX_DEPTH = TREE_MAX_PATH / 2 };

/* An inode of a layer that was copied: further names link to the copy. */
struct copied {
    struct {
        uint64_t layer;
        uint64_t number;
    } key;
    struct tree_inode *inode;
    UT_hash_handle hh;
};

struct completion {
    struct squash_reader **readers;
    size_t n;
    struct tree *tree;
    struct squash *squash;
    struct copied *copies;
    char path[PATH_SIZE]; /* of the entry at hand in the walk over a layer */
    unsigned depth;
    bool found; /* something was put into the tree */
};

/* An entry in one of the layers. */
struct place {
    size_t layer;
    struct squash_node *node;
};

static void place_fini(struct place *p)
{
    squash_node_free(p->node);
}
#define cleanup_place CLEANUP(place_fini)

/* ---- marks ---- */

/* Whether a node carries an attribute; its value in *ret_value when that is not NULL. */
static int get_mark(struct completion *c, const struct place *p, const char *name, bool *ret_has,
                    char **ret_value, struct err *err)
{
    struct err local = {0};
    cleanup_free char *value = NULL;
    if (squash_reader_xattr(c->readers[p->layer], p->node, name, &value, NULL, &local) == 0) {
        *ret_has = true;
        if (ret_value != NULL)
            *ret_value = steal_ptr(&value);
        return 0;
    }
    *ret_has = false;
    if (local.code == ERR_NOT_FOUND)
        return 0;
    if (err != NULL)
        *err = local;
    return -1;
}

static bool is_whiteout(const struct squash_node *n)
{
    return S_ISCHR(n->mode) && n->rdev == 0;
}

/* ---- looking up as the overlay does ---- */

enum found {
    FOUND,
    ABSENT, /* nothing here: lower layers show */
    HIDDEN, /* nothing here, and nothing below shows */
};

/*
 * Looks a path up in one layer. FOUND fills ret_place; *ret_ends: lower layers have no part in it,
 * because a directory above it is opaque here.
 */
static int look_in(struct completion *c, size_t layer, const char *path, enum found *ret_found,
                   struct place *ret_place, bool *ret_ends, struct err *err)
{
    char name[TREE_MAX_NAME + 1];
    struct squash_reader *r = c->readers[layer];
    cleanup_place struct place at = {.layer = layer};
    bool opaque = false;
    *ret_found = HIDDEN;
    if (squash_reader_root(r, &at.node, err) < 0)
        return -1;
    for (const char *p = path + strspn(path, "/"); *p != '\0'; p += strspn(p, "/")) {
        struct squash_node *child = NULL;
        struct err why = {0};
        bool here = false;
        size_t n = strcspn(p, "/");
        if (!S_ISDIR(at.node->mode) || n > TREE_MAX_NAME)
            return 0;
        if (get_mark(c, &at, MARK_OPAQUE, &here, NULL, err) < 0)
            return -1;
        opaque = opaque || here;
        memcpy(name, p, n);
        name[n] = '\0';
        if (squash_reader_child(r, at.node, name, &child, &why) < 0) {
            if (why.code != ERR_NOT_FOUND) {
                *err = why;
                return -1;
            }
            *ret_found = opaque ? HIDDEN : ABSENT;
            return 0;
        }
        squash_node_free(at.node);
        at.node = child;
        if (is_whiteout(child))
            return 0;
        p += n;
    }
    *ret_found = FOUND;
    *ret_ends = opaque;
    ret_place->layer = layer;
    ret_place->node = steal_ptr(&at.node);
    return 0;
}

/* What the layers below `top` show at a path. NULL node: nothing. */
static int look_up(struct completion *c, size_t top, const char *path, struct place *ret_place,
                   struct err *err)
{
    bool ends;
    enum found found = ABSENT;
    ret_place->node = NULL;
    for (size_t i = top; found == ABSENT && i > 0; i--)
        if (look_in(c, i - 1, path, &found, ret_place, &ends, err) < 0)
            return -1;
    return 0;
}

/* The directory whose metadata a visible directory is to have: the nearest that is described. NULL
 * node: none is. */
static int look_up_described(struct completion *c, const char *path, struct place *ret_place,
                             struct err *err)
{
    ret_place->node = NULL;
    for (size_t i = c->n; i > 0; i--) {
        cleanup_place struct place p = {0};
        enum found found;
        bool ends = false;
        bool implicit = false;
        if (look_in(c, i - 1, path, &found, &p, &ends, err) < 0)
            return -1;
        if (found == HIDDEN || (found == FOUND && !S_ISDIR(p.node->mode)))
            return 0;
        if (found == ABSENT)
            continue;
        if (get_mark(c, &p, MARK_IMPLICIT, &implicit, NULL, err) < 0)
            return -1;
        if (!implicit) {
            *ret_place = p;
            p.node = NULL;
            return 0;
        }
        if (ends)
            return 0;
    }
    return 0;
}

/*
 * Follows the symlinks among the directories of a path, as the layers below `top` have them. The
 * result has no links but perhaps its last component.
 */
static int resolve(struct completion *c, size_t top, const char *path, char ret_path[PATH_SIZE],
                   struct err *err)
{
    char left[2 * PATH_SIZE];
    char next[2 * PATH_SIZE];
    size_t out = 0;
    unsigned links = 0;
    (void)snprintf(left, sizeof(left), "%s", path);
    ret_path[0] = '\0';
    for (const char *p = left; *(p += strspn(p, "/")) != '\0';) {
        size_t n = strcspn(p, "/");
        const char *rest = p + n + strspn(p + n, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            while (out > 0 && ret_path[--out] != '/')
                ;
            ret_path[out] = '\0';
        } else if (!(n == 1 && p[0] == '.')) {
            cleanup_place struct place at = {0};
            if (out + n + 2 > PATH_SIZE)
                return err_set(err, ERR_PROTOCOL, "path of a hard link is too long");
            size_t before = out;
            if (out > 0)
                ret_path[out++] = '/';
            memcpy(ret_path + out, p, n);
            out += n;
            ret_path[out] = '\0';
            if (*rest != '\0' && look_up(c, top, ret_path, &at, err) < 0)
                return -1;
            if (at.node != NULL && S_ISLNK(at.node->mode)) {
                if (++links > MAX_LINKS)
                    return err_set(err, ERR_PROTOCOL, "too many symlinks in '%.200s'", path);
                int len = snprintf(next, sizeof(next), "%s/%s", at.node->target, rest);
                if (len < 0 || (size_t)len >= sizeof(next))
                    return err_set(err, ERR_PROTOCOL, "path of a hard link is too long");
                out = at.node->target[0] == '/' ? 0 : before;
                ret_path[out] = '\0';
                memcpy(left, next, (size_t)len + 1);
                p = left;
                continue;
            }
        }
        p = rest;
    }
    return 0;
}

/* ---- copying ---- */

struct attribute_copy {
    struct tree_inode *inode;
};

static int copy_attribute(void *arg, const char *name, const void *value, size_t size,
                          struct err *err)
{
    struct attribute_copy *a = arg;
    if (text_has_prefix(name, "trusted.overlay.") || text_has_prefix(name, "trusted.casemate."))
        return 0;
    return tree_add_xattr(a->inode, name, value, size, err);
}

static int copy_metadata(struct completion *c, const struct place *from, struct tree_inode **ret,
                         struct err *err)
{
    struct squash_node *n = from->node;
    struct tree_inode *inode = tree_make_inode(c->tree, n->mode, err);
    if (inode == NULL)
        return -1;
    inode->uid = n->uid;
    inode->gid = n->gid;
    inode->mtime = n->mtime;
    inode->rdev = n->rdev;
    if (n->target != NULL && (inode->target = strdup(n->target)) == NULL)
        return err_no_memory(err);
    struct attribute_copy a = {.inode = inode};
    if (squash_reader_xattrs(c->readers[from->layer], n, copy_attribute, &a, err) != 0)
        return -1;
    *ret = inode;
    return 0;
}

static int copy_bytes(void *arg, const void *bytes, size_t n, struct err *err)
{
    struct completion *c = arg;
    return squash_file_data(c->squash, bytes, n, err);
}

/* The copy of an entry that is no directory; made at its first use. */
static int copy_leaf(struct completion *c, const struct place *from, struct tree_inode **ret,
                     struct err *err)
{
    struct copied *known = NULL;
    struct copied probe = {.key = {from->layer, from->node->number}};
    HASH_FIND(hh, c->copies, &probe.key, sizeof(probe.key), known);
    if (known != NULL) {
        *ret = known->inode;
        return 0;
    }
    cleanup_free struct copied *copy = calloc(1, sizeof(*copy));
    if (copy == NULL)
        return err_no_memory(err);
    copy->key = probe.key;
    if (copy_metadata(c, from, &copy->inode, err) < 0)
        return -1;
    if (S_ISREG(from->node->mode) &&
        (squash_file_begin(c->squash, copy->inode, err) < 0 ||
         squash_reader_data(c->readers[from->layer], from->node, copy_bytes, c, err) < 0 ||
         squash_file_end(c->squash, err) < 0))
        return -1;
    *ret = copy->inode;
    HASH_ADD(hh, c->copies, key, sizeof(copy->key), copy);
    copy = NULL;
    return 0;
}

/* Puts a directory that shows, with the metadata that it has to have. */
static int put_directory(struct completion *c, const char *path, struct err *err)
{
    cleanup_place struct place p = {0};
    struct tree_inode *inode = NULL;
    if (look_up_described(c, path, &p, err) < 0)
        return -1;
    if (p.node == NULL) { /* nobody describes it: what every layer takes for granted */
        inode = tree_make_inode(c->tree, S_IFDIR | 0755, err);
        if (inode == NULL)
            return -1;
    } else if (copy_metadata(c, &p, &inode, err) < 0) {
        return -1;
    }
    c->found = true;
    return tree_put(c->tree, path, inode, err);
}

/* The directories that lead to a path. */
static int put_parents(struct completion *c, const char *path, struct err *err)
{
    char part[PATH_SIZE];
    if (put_directory(c, "", err) < 0)
        return -1;
    for (const char *p = strchr(path, '/'); p != NULL; p = strchr(p + 1, '/')) {
        (void)snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
        if (put_directory(c, part, err) < 0)
            return -1;
    }
    return 0;
}

static int put_leaf(struct completion *c, const char *path, struct tree_inode *inode,
                    struct err *err)
{
    c->found = true;
    return put_parents(c, path, err) < 0 ? -1 : tree_put(c->tree, path, inode, err);
}

/* ---- what the marks ask for ---- */

static bool same_metadata(const struct squash_node *a, const struct squash_node *b)
{
    return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid;
}

static int has_attribute(void *arg, const char *name, const void *value, size_t size,
                         struct err *err)
{
    bool *has = arg;
    (void)value;
    (void)size;
    (void)err;
    *has = *has || !(text_has_prefix(name, "trusted.overlay.") ||
                     text_has_prefix(name, "trusted.casemate."));
    return 0;
}

static int complete_directory(struct completion *c, size_t layer, struct err *err)
{
    cleanup_place struct place shown = {0};
    cleanup_place struct place described = {0};
    bool attributes = false;
    if (look_up(c, c->n, c->path, &shown, err) < 0)
        return -1;
    if (shown.node == NULL || shown.layer != layer)
        return 0; /* an upper layer decides */
    if (look_up_described(c, c->path, &described, err) < 0)
        return -1;
    if (described.node == NULL)
        return 0;
    if (squash_reader_xattrs(c->readers[described.layer], described.node, has_attribute,
                             &attributes, err) != 0)
        return -1;
    if (!attributes && same_metadata(shown.node, described.node))
        return 0;
    return put_parents(c, c->path, err) < 0 ? -1 : put_directory(c, c->path, err);
}

/* What a hard link of `layer` to `target` means, through links of lower layers if need be. */
static int find_target(struct completion *c, size_t layer, const char *target,
                       char ret_path[PATH_SIZE], struct place *ret_place, struct err *err)
{
    cleanup_free char *wanted = strdup(target);
    while (wanted != NULL) {
        cleanup_place struct place p = {0};
        char *further = NULL;
        bool link = false;
        if (resolve(c, layer + 1, wanted, ret_path, err) < 0 ||
            look_up(c, layer, ret_path, &p, err) < 0)
            return -1;
        if (p.node == NULL || S_ISDIR(p.node->mode))
            return err_set(err, ERR_PROTOCOL, "hard link '%.200s' to '%.200s', which is no file",
                           c->path, target);
        if (get_mark(c, &p, MARK_LINK, &link, &further, err) < 0)
            return -1;
        if (!link) {
            *ret_place = p;
            p.node = NULL;
            return 0;
        }
        layer = p.layer; /* smaller each time, so that this ends */
        free(wanted);
        wanted = further;
    }
    return err_no_memory(err);
}

static int complete_link(struct completion *c, size_t layer, const char *target, struct err *err)
{
    char target_path[PATH_SIZE];
    cleanup_place struct place shown = {0};
    cleanup_place struct place from = {0};
    cleanup_place struct place there = {0};
    struct tree_inode *inode = NULL;
    if (find_target(c, layer, target, target_path, &from, err) < 0 ||
        look_up(c, c->n, c->path, &shown, err) < 0)
        return -1;
    if (shown.node == NULL || shown.layer != layer)
        return 0; /* an upper layer removed or replaced it */
    if (copy_leaf(c, &from, &inode, err) < 0 || put_leaf(c, c->path, inode, err) < 0 ||
        look_up(c, c->n, target_path, &there, err) < 0)
        return -1;
    bool shows =
        there.node != NULL && there.layer == from.layer && there.node->number == from.node->number;
    return shows ? put_leaf(c, target_path, inode, err) : 0;
}

struct visit {
    struct completion *c;
    size_t layer;
};

static int visit(void *arg, const char *name, const struct squash_node *node, struct err *err);

static int visit_directory(struct completion *c, size_t layer, const struct squash_node *dir,
                           struct err *err)
{
    struct visit v = {c, layer};
    if (++c->depth > MAX_DEPTH)
        return err_set(err, ERR_PROTOCOL, "directories are nested too deeply");
    int rc = squash_reader_each(c->readers[layer], dir, visit, &v, err);
    c->depth--;
    return rc;
}

static int visit_entry(struct completion *c, const struct place *p, struct err *err)
{
    cleanup_free char *target = NULL;
    bool marked = false;
    if (S_ISREG(p->node->mode)) {
        if (get_mark(c, p, MARK_LINK, &marked, &target, err) < 0)
            return -1;
        return marked ? complete_link(c, p->layer, target, err) : 0;
    }
    if (!S_ISDIR(p->node->mode))
        return 0;
    if (get_mark(c, p, MARK_IMPLICIT, &marked, NULL, err) < 0 ||
        (marked && complete_directory(c, p->layer, err) < 0))
        return -1;
    return visit_directory(c, p->layer, p->node, err);
}

static int visit(void *arg, const char *name, const struct squash_node *node, struct err *err)
{
    const struct visit *v = arg;
    struct completion *c = v->c;
    size_t n = strlen(c->path);
    struct squash_node copy = *node;
    const struct place p = {v->layer, &copy};
    int len = snprintf(c->path + n, sizeof(c->path) - n, "%s%s", n == 0 ? "" : "/", name);
    if (len < 0 || (size_t)len >= sizeof(c->path) - n)
        return err_set(err, ERR_PROTOCOL, "path longer than %d bytes", TREE_MAX_PATH);
    int rc = visit_entry(c, &p, err);
    c->path[n] = '\0';
    return rc;
}

/* ---- all of it ---- */

static int visit_layers(struct completion *c, struct err *err)
{
    for (size_t i = 0; i < c->n; i++) {
        cleanup_squash_node struct squash_node *root = NULL;
        if (squash_reader_root(c->readers[i], &root, err) < 0 ||
            visit_directory(c, i, root, err) != 0)
            return -1;
    }
    return 0;
}

static int open_readers(struct completion *c, const int *layers, const uint64_t *sizes,
                        struct err *err)
{
    for (size_t i = 0; i < c->n; i++)
        if (squash_reader_open_sized(layers[i], sizes[i], &c->readers[i], err) < 0)
            return err_prefix(err, "layer %zu", i);
    return 0;
}

static int stat_layers(const int *layers, size_t n, uint64_t *sizes, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (fstat(layers[i], &st) < 0)
            return err_set_errno(err, errno, "stat layer %zu", i);
        sizes[i] = (uint64_t)st.st_size;
    }
    return 0;
}

static void completion_fini(struct completion *c)
{
    struct copied *copy;
    struct copied *next;
    squash_free(c->squash);
    tree_free(c->tree);
    HASH_ITER(hh, c->copies, copy, next)
    {
        HASH_DEL(c->copies, copy);
        free(copy);
    }
    for (size_t i = 0; c->readers != NULL && i < c->n; i++)
        squash_reader_free(c->readers[i]);
    free(c->readers);
}
#define cleanup_completion CLEANUP(completion_fini)

int complete_layers(const int *layers, size_t n, int out_fd, const struct convert_options *options,
                    struct convert_result *ret_result, struct err *err)
{
    struct err local = {0};
    cleanup_completion struct completion c = {.n = n};
    cleanup_free uint64_t *sizes = calloc(n + 1, sizeof(*sizes));
    const struct squash_options out = {.compression = options->compression,
                                       .max_bytes = options->max_bytes,
                                       .workers = options->workers};
    struct convert_result result = {.magic = CONVERT_MAGIC};
    err = err == NULL ? &local : err;
    c.readers = calloc(n + 1, sizeof(struct squash_reader *));
    if (c.readers == NULL || sizes == NULL)
        return err_no_memory(err);
    if (stat_layers(layers, n, sizes, err) < 0 ||
        tree_new(options->max_entries, &c.tree, err) < 0 ||
        squash_new(out_fd, &out, &c.squash, err) < 0 ||
        (options->confine != NULL && options->confine(err) < 0) ||
        open_readers(&c, layers, sizes, err) < 0 || visit_layers(&c, err) < 0)
        return -1;
    if (c.found) {
        if (squash_finish(c.squash, c.tree, &result.image_bytes, err) < 0)
            return -1;
    } else if (ftruncate(out_fd, 0) < 0) {
        return err_set_errno(err, errno, "empty the image");
    }
    result.entries = (uint32_t)tree_entries(c.tree);
    *ret_result = result;
    return 0;
}
