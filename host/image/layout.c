/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of a layout are short (blobs/sha256/<64 digits> is 77 bytes), so that they fit the
 * plain ustar header and the tar reader here needs no extensions: it notes name, offset and size of
 * each plain file and skips the rest. Symlinks count too, because old `docker save` archives use
 * them for layers that occur twice; one is followed once. This is done by the daemon itself, hence
 * the restraint: fixed fields, no decompression, bounded count.
 */
#include "host/image/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/text.h"

enum { BLOCK = 512, MAX_FILES = 65536, NAME_SIZE = 256, LINK_SIZE = 101 };

struct tar_file {
    char name[NAME_SIZE];
    char link[LINK_SIZE]; /* target of a symlink or hard link, else "" */
    uint64_t offset;
    uint64_t size;
};

struct layout {
    int fd; /* folder or tar */
    bool is_tar;
    struct tar_file *files;
    size_t n_files;
    size_t capacity;
};

void layout_free(struct layout *l)
{
    if (l == NULL)
        return;
    close_fd(&l->fd);
    free(l->files);
    free(l);
}

/* ---- tar ---- */

/* An octal or base-256 number of n bytes. */
static int parse_number(const uint8_t *p, size_t n, uint64_t *ret)
{
    uint64_t value = 0;
    size_t i = 0;
    if ((p[0] & 0x80) != 0) {
        if (p[0] != 0x80)
            return -1; /* negative or beyond 64 bits */
        for (i = 1; i < n; i++) {
            if (value >> 55 != 0)
                return -1;
            value = value << 8 | p[i];
        }
        *ret = value;
        return 0;
    }
    while (i < n && p[i] == ' ')
        i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(p[i] - '0');
    if (i < n && p[i] != '\0' && p[i] != ' ')
        return -1;
    *ret = value;
    return 0;
}

static bool checksum_fits(const uint8_t block[BLOCK])
{
    uint64_t wanted;
    uint64_t sum = 0;
    if (parse_number(block + 148, 8, &wanted) < 0)
        return false;
    for (size_t i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : block[i];
    return sum == wanted;
}

/* "prefix/name" without a leading "./" or "/". */
static void parse_name(const uint8_t block[BLOCK], char ret_name[NAME_SIZE])
{
    char full[NAME_SIZE + 8];
    const char *p = full;
    bool ustar = memcmp(block + 257, "ustar", 5) == 0 && block[262] == '\0';
    int prefix = ustar ? (int)strnlen((const char *)block + 345, 155) : 0;
    (void)snprintf(full, sizeof(full), "%.*s%s%.*s", prefix, (const char *)block + 345,
                   prefix > 0 ? "/" : "", (int)strnlen((const char *)block, 100),
                   (const char *)block);
    while (text_has_prefix(p, "./"))
        p += 2;
    while (*p == '/')
        p++;
    (void)snprintf(ret_name, NAME_SIZE, "%.*s", NAME_SIZE - 1, p);
}

static int add_file(struct layout *l, const struct tar_file *file, struct err *err)
{
    if (l->n_files == l->capacity) {
        size_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
        if (l->n_files >= MAX_FILES)
            return err_set(err, ERR_EXHAUSTED, "archive holds more than %d files", MAX_FILES);
        struct tar_file *files = reallocarray(l->files, capacity, sizeof(*files));
        if (files == NULL)
            return err_no_memory(err);
        l->files = files;
        l->capacity = capacity;
    }
    l->files[l->n_files++] = *file;
    return 0;
}

static bool is_zero_block(const uint8_t block[BLOCK])
{
    for (size_t i = 0; i < BLOCK; i++)
        if (block[i] != 0)
            return false;
    return true;
}

/* Notes the entry at *offset and moves behind it. */
static int index_entry(struct layout *l, const uint8_t block[BLOCK], uint64_t total,
                       uint64_t *offset, struct err *err)
{
    struct tar_file file = {.offset = *offset + BLOCK};
    char type = (char)block[156];
    if (!checksum_fits(block) || parse_number(block + 124, 12, &file.size) < 0)
        return err_set(err, ERR_PROTOCOL, "not a tar archive");
    if (type == '1' || type == '2' || type == '5')
        file.size = 0;
    if (file.size > total - file.offset)
        return err_set(err, ERR_PROTOCOL, "archive ends early");
    parse_name(block, file.name);
    if (type == '1' || type == '2')
        (void)snprintf(file.link, sizeof(file.link), "%.100s", (const char *)block + 157);
    *offset = file.offset + (file.size + BLOCK - 1) / BLOCK * BLOCK;
    bool plain = type == '0' || type == '\0' || type == '7';
    return plain || file.link[0] != '\0' ? add_file(l, &file, err) : 0;
}

static int index_tar(struct layout *l, struct err *err)
{
    uint8_t block[BLOCK];
    struct stat st;
    uint64_t offset = 0;
    static const uint8_t gzip[] = {0x1f, 0x8b};
    static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    if (fstat(l->fd, &st) < 0)
        return err_set_errno(err, errno, "stat the archive");
    uint64_t total = (uint64_t)st.st_size;
    while (offset + BLOCK <= total) {
        ssize_t n = pread(l->fd, block, BLOCK, (off_t)offset);
        if (n != BLOCK)
            return err_set_errno(err, n < 0 ? errno : EIO, "read the archive");
        if (offset == 0 && (memcmp(block, gzip, 2) == 0 || memcmp(block, zstd, 4) == 0))
            return err_set(err, ERR_UNSUPPORTED,
                           "archive is compressed: unpack it with gunzip or unzstd first");
        if (is_zero_block(block))
            break;
        if (index_entry(l, block, total, &offset, err) < 0)
            return -1;
    }
    return l->n_files > 0 ? 0 : err_set(err, ERR_PROTOCOL, "not a tar archive");
}

int layout_open_tar(int fd, struct layout **ret_layout, struct err *err)
{
    struct layout *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        (void)close(fd);
        return err_no_memory(err);
    }
    l->fd = fd;
    l->is_tar = true;
    if (index_tar(l, err) < 0) {
        layout_free(l);
        return -1;
    }
    *ret_layout = l;
    return 0;
}

int layout_open(const char *path, struct layout **ret_layout, struct err *err)
{
    struct stat st;
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    if (S_ISREG(st.st_mode)) {
        if (layout_open_tar(steal_fd(&fd), ret_layout, err) < 0)
            return err_prefix(err, "'%s'", path);
        return 0;
    }
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_INVALID, "'%s' is neither a folder nor a file", path);
    struct layout *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return err_no_memory(err);
    l->fd = steal_fd(&fd);
    *ret_layout = l;
    return 0;
}

/* ---- finding ---- */

static int find_in_folder(struct layout *l, const char *name, struct layout_file *ret_file,
                          struct err *err)
{
    struct stat st;
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    cleanup_fd int fd = (int)syscall(SYS_openat2, l->fd, name, &how, sizeof(how));
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "%s", name);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_PROTOCOL, "%s is not a plain file", name);
    *ret_file = (struct layout_file){.size = (uint64_t)st.st_size};
    ret_file->fd = steal_fd(&fd);
    return 0;
}

static const struct tar_file *find_entry(const struct layout *l, const char *name)
{
    for (size_t i = l->n_files; i > 0; i--) /* the last of a name counts */
        if (strcmp(l->files[i - 1].name, name) == 0)
            return &l->files[i - 1];
    return NULL;
}

/* What a link points to: its target relative to the root, or with one "../" as docker writes them.
 */
static const struct tar_file *follow_link(const struct layout *l, const struct tar_file *f)
{
    const char *target = f->link;
    while (text_has_prefix(target, "../") || text_has_prefix(target, "./"))
        target = strchr(target, '/') + 1;
    const struct tar_file *found = find_entry(l, target);
    return found != NULL && found->link[0] == '\0' ? found : NULL;
}

static int find_in_tar(struct layout *l, const char *name, struct layout_file *ret_file,
                       struct err *err)
{
    const struct tar_file *f = find_entry(l, name);
    if (f != NULL && f->link[0] != '\0')
        f = follow_link(l, f);
    if (f == NULL)
        return err_set(err, ERR_NOT_FOUND, "%s is missing", name);
    int fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return err_set_errno(err, errno, "duplicate a descriptor");
    *ret_file = (struct layout_file){.fd = fd, .offset = f->offset, .size = f->size};
    return 0;
}

int layout_find(struct layout *l, const char *name, struct layout_file *ret_file, struct err *err)
{
    return l->is_tar ? find_in_tar(l, name, ret_file, err) : find_in_folder(l, name, ret_file, err);
}

int layout_read(struct layout *l, const char *name, size_t max, char **ret_text, size_t *ret_n,
                struct err *err)
{
    struct layout_file f;
    size_t done = 0;
    if (layout_find(l, name, &f, err) < 0)
        return -1;
    cleanup_fd int fd = f.fd;
    if (f.size > max)
        return err_set(err, ERR_PROTOCOL, "%s is larger than %zu bytes", name, max);
    cleanup_free char *text = malloc((size_t)f.size + 1);
    if (text == NULL)
        return err_no_memory(err);
    while (done < f.size) {
        ssize_t n = pread(fd, text + done, (size_t)f.size - done, (off_t)(f.offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set_errno(err, n < 0 ? errno : EIO, "read %s", name);
        done += (size_t)n;
    }
    text[done] = '\0';
    *ret_text = steal_ptr(&text);
    *ret_n = done;
    return 0;
}
