/* SPDX-License-Identifier: Apache-2.0 */
/*
 * describe_tree FOLDER: one line for each entry below it, in byte order of names, with everything
 * that an image can say about it: type and mode, owner, time (not of directories), size and a hash
 * of the content, target, device, attributes, and the first name of the same inode. Static, needs
 * nothing: it runs on the host and as the only program of an image, and the two texts are compared.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

struct entry {
    char *path; /* relative to the folder */
    struct stat st;
};

static struct entry *entries;
static size_t n_entries;

static void die(const char *what, const char *path)
{
    fprintf(stderr, "describe_tree: %s '%s': %s\n", what, path, strerror(errno));
    exit(1);
}

static void collect(int dir, const char *prefix)
{
    DIR *d = fdopendir(dir);
    struct dirent *e;
    if (d == NULL)
        die("open", prefix);
    while (errno = 0, (e = readdir(d)) != NULL) {
        char *path = NULL;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (asprintf(&path, "%s%s%s", prefix, *prefix == '\0' ? "" : "/", e->d_name) < 0)
            die("memory", prefix);
        entries = realloc(entries, (n_entries + 1) * sizeof(*entries));
        if (entries == NULL)
            die("memory", prefix);
        struct entry *at = &entries[n_entries++];
        at->path = path;
        if (fstatat(dir, e->d_name, &at->st, AT_SYMLINK_NOFOLLOW) < 0)
            die("stat", path);
        if (S_ISDIR(at->st.st_mode)) {
            int child = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
            if (child < 0)
                die("open", path);
            collect(child, path);
        }
    }
    if (errno != 0)
        die("read", prefix);
    (void)closedir(d);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static void put_text(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c > ' ' && c < 0x7f && c != '\\')
            putchar(c);
        else
            printf("\\%02x", c);
    }
}

/* An open of the last folder of a path, step by step, since paths may be longer than PATH_MAX. */
static int open_parent(int root, const char *path, const char **ret_name)
{
    int dir = dup(root);
    const char *p = path;
    for (const char *slash; dir >= 0 && (slash = strchr(p, '/')) != NULL; p = slash + 1) {
        char *name = strndup(p, (size_t)(slash - p));
        int next = name == NULL ? -1 : openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        free(name);
        (void)close(dir);
        dir = next;
    }
    *ret_name = p;
    return dir;
}

static void put_content(int dir, const char *name, const char *path)
{
    static unsigned char chunk[1 << 16];
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    ssize_t n;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        die("open", path);
    while ((n = read(fd, chunk, sizeof(chunk))) > 0)
        for (ssize_t i = 0; i < n; i++)
            hash = (hash ^ chunk[i]) * 0x100000001b3u;
    if (n < 0)
        die("read", path);
    (void)close(fd);
    printf(" hash=%016" PRIx64, hash);
}

static void put_target(int dir, const char *name, const char *path)
{
    char target[8192];
    ssize_t n = readlinkat(dir, name, target, sizeof(target));
    if (n < 0)
        die("readlink", path);
    printf(" target=");
    put_text(target, (size_t)n);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_attributes(int dir, const char *name, const char *path)
{
    static char list[65536];
    static char value[65536];
    char *names[256];
    size_t n = 0;
    char file[512];
    /* the l…xattr calls want a path, which may name the folder by its descriptor */
    (void)snprintf(file, sizeof(file), "/proc/self/fd/%d/%s", dir, name);
    ssize_t size = llistxattr(file, list, sizeof(list));
    if (size < 0 && errno != ENOTSUP)
        die("listxattr", path);
    for (char *p = list; size > 0 && p < list + size && n < 256; p += strlen(p) + 1)
        if (strncmp(p, "trusted.overlay.", 16) != 0 && strncmp(p, "trusted.casemate.", 17) != 0 &&
            strcmp(p, "security.selinux") != 0)
            names[n++] = p;
    qsort(names, n, sizeof(names[0]), by_text);
    for (size_t i = 0; i < n; i++) {
        ssize_t got = lgetxattr(file, names[i], value, sizeof(value));
        if (got < 0)
            die("getxattr", path);
        printf(" %s=", names[i]);
        put_text(value, (size_t)got);
    }
}

/* Counts names and not links: an overlay keeps the link count of a lower file whose names are
 * hidden. */
static void put_first_name(size_t i)
{
    const struct stat *st = &entries[i].st;
    size_t first = n_entries;
    size_t names = 0;
    for (size_t k = n_entries; k-- > 0;) {
        if (entries[k].st.st_ino == st->st_ino && entries[k].st.st_dev == st->st_dev) {
            first = k;
            names++;
        }
    }
    if (names > 1) {
        printf(" same=");
        put_text(entries[first].path, strlen(entries[first].path));
    }
}

static void describe(int root, size_t i)
{
    const struct entry *e = &entries[i];
    const struct stat *st = &e->st;
    const char *name;
    int dir = open_parent(root, e->path, &name);
    if (dir < 0)
        die("open the folder of", e->path);
    put_text(e->path, strlen(e->path));
    printf(" %o %u:%u", st->st_mode, st->st_uid, st->st_gid);
    if (!S_ISDIR(st->st_mode))
        printf(" time=%lld", (long long)st->st_mtim.tv_sec);
    if (S_ISREG(st->st_mode)) {
        printf(" size=%lld", (long long)st->st_size);
        put_content(dir, name, e->path);
    }
    if (S_ISLNK(st->st_mode))
        put_target(dir, name, e->path);
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
        printf(" device=%u:%u", major(st->st_rdev), minor(st->st_rdev));
    put_attributes(dir, name, e->path);
    if (!S_ISDIR(st->st_mode) && st->st_nlink > 1)
        put_first_name(i);
    putchar('\n');
    (void)close(dir);
}

int main(int argc, char **argv)
{
    int root = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
    if (root < 0)
        die("open", argc == 2 ? argv[1] : "(usage: describe_tree FOLDER)");
    collect(dup(root), "");
    qsort(entries, n_entries, sizeof(*entries), by_path);
    for (size_t i = 0; i < n_entries; i++)
        describe(root, i);
    printf("%zu entries\n", n_entries);
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
