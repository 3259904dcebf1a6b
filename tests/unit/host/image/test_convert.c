/* SPDX-License-Identifier: Apache-2.0 */
/* Tar to squashfs, in process: what entries become, in which order they may come, and what is
 * refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "common/base/buf.h"
#include "common/base/fd.h"
#include "host/image/convert.h"
#include "host/image/squash_reader.h"
#include "tests/fakes/fake_registry.h"

static const struct convert_options DEFAULTS = {
    .max_bytes = 64 << 20, .max_ratio = 400, .max_entries = 10000, .workers = 1};

static int memory_file(const void *bytes, size_t n)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    if (n > 0)
        assert_int_equal(fd_write_all(fd, bytes, n, NULL), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static int convert_bytes(const void *bytes, size_t n, const struct convert_options *options,
                         int out, struct convert_result *result, struct err *err)
{
    int in = memory_file(bytes, n);
    int rc = convert_layer(in, out, options, result, err);
    (void)close(in);
    return rc;
}

/* ---- a converted layer to look at ---- */

struct layer {
    int fd;
    struct squash_reader *reader;
    struct convert_result result;
};

static struct layer open_bytes(const void *bytes, size_t n, const struct convert_options *options)
{
    struct layer l = {.fd = memory_file(NULL, 0)};
    struct err err = {0};
    struct stat st;
    if (convert_bytes(bytes, n, options, l.fd, &l.result, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(fstat(l.fd, &st), 0);
    assert_int_equal(st.st_size, l.result.image_bytes);
    assert_int_equal(st.st_size % 4096, 0);
    if (squash_reader_open(l.fd, &l.reader, &err) < 0)
        fail_msg("%s", err.msg);
    return l;
}

static struct layer open_layer(const struct fake_entry *entries)
{
    struct fake_bytes tar = fake_tar(entries);
    char *digest = fake_digest(tar.bytes, tar.n);
    char actual[DIGEST_TEXT_SIZE];
    struct layer l = open_bytes(tar.bytes, tar.n, &DEFAULTS);
    digest_format(l.result.diff_id, actual);
    assert_string_equal(actual, digest);
    assert_int_equal(l.result.tar_bytes, tar.n);
    free(tar.bytes);
    free(digest);
    return l;
}

static void close_layer(struct layer *l)
{
    squash_reader_free(l->reader);
    (void)close(l->fd);
}

static struct squash_node *find(struct layer *l, const char *path)
{
    struct squash_node *n = NULL;
    struct err err = {0};
    if (squash_reader_find(l->reader, path, &n, &err) < 0)
        fail_msg("%s: %s", path, err.msg);
    return n;
}

static bool exists(struct layer *l, const char *path)
{
    struct squash_node *n = NULL;
    struct err err = {0};
    int rc = squash_reader_find(l->reader, path, &n, &err);
    squash_node_free(n);
    if (rc < 0)
        assert_int_equal(err.code, ERR_NOT_FOUND);
    return rc == 0;
}

static void check_mode(struct layer *l, const char *path, mode_t mode)
{
    struct squash_node *n = find(l, path);
    if (n->mode != mode)
        fail_msg("%s has mode %o instead of %o", path, n->mode, mode);
    squash_node_free(n);
}

static int append(void *arg, const void *bytes, size_t n, struct err *err)
{
    return buf_append(arg, bytes, n, err);
}

static void check_data(struct layer *l, const char *path, const char *wanted)
{
    struct buf b = BUF_INIT(1 << 20);
    struct squash_node *n = find(l, path);
    assert_true(S_ISREG(n->mode));
    assert_int_equal(n->size, strlen(wanted));
    assert_int_equal(squash_reader_data(l->reader, n, append, &b, NULL), 0);
    if (b.len > 0)
        assert_memory_equal(buf_bytes(&b), wanted, b.len);
    assert_int_equal(b.len, strlen(wanted));
    buf_fini(&b);
    squash_node_free(n);
}

static void check_xattr(struct layer *l, const char *path, const char *name, const char *wanted)
{
    char *value = NULL;
    struct squash_node *n = find(l, path);
    int rc = squash_reader_xattr(l->reader, n, name, &value, NULL, NULL);
    if (wanted == NULL) {
        if (rc == 0)
            fail_msg("%s has %s", path, name);
    } else {
        if (rc < 0)
            fail_msg("%s lacks %s", path, name);
        assert_string_equal(value, wanted);
    }
    free(value);
    squash_node_free(n);
}

static void check_whiteout(struct layer *l, const char *path)
{
    struct squash_node *n = find(l, path);
    assert_true(S_ISCHR(n->mode));
    assert_int_equal(n->rdev, 0);
    squash_node_free(n);
}

#define OPAQUE(l, path)     check_xattr(l, path, "trusted.overlay.opaque", "y")
#define NOT_OPAQUE(l, path) check_xattr(l, path, "trusted.overlay.opaque", NULL)

/* ---- what entries become ---- */

static void test_types(void **state)
{
    static const struct fake_entry entries[] = {
        {"./", 'd', 0700, NULL, 5, 6},
        {"./dir/", 'd', 01777, NULL, 0, 0},
        {"dir/file", 'f', 04755, "content", 1000, 4000000000},
        {"dir/empty", 'f', 0600, ""},
        {"dir/link", 'l', 0777, "../target/of/link"},
        {"dir/char", 'c', 0620, NULL, 0, 5, 4, 300},
        {"dir/block", 'b', 0660, NULL, 0, 6, 259, 70000},
        {"dir/fifo", 'p', 0644, NULL},
        {"/absolute", 'f', 0644, "a"},
        {"a//b/./c/../d", 'f', 0644, "d"},
        {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    struct squash_node *n = find(&l, "dir/file");
    assert_int_equal(n->mode, S_IFREG | 04755);
    assert_int_equal(n->uid, 1000);
    assert_int_equal(n->gid, 4000000000u);
    assert_int_equal(n->mtime, 1000000000);
    squash_node_free(n);
    n = find(&l, "dir/link");
    assert_true(S_ISLNK(n->mode));
    assert_string_equal(n->target, "../target/of/link");
    squash_node_free(n);
    n = find(&l, "dir/char");
    assert_int_equal(n->rdev, (4 << 8) | (300 & 0xff) | ((300 & ~0xff) << 12));
    squash_node_free(n);
    n = find(&l, "dir/block");
    assert_int_equal(n->mode, S_IFBLK | 0660);
    squash_node_free(n);
    n = find(&l, "");
    assert_int_equal(n->uid, 5);
    squash_node_free(n);
    check_mode(&l, "", S_IFDIR | 0700);
    check_mode(&l, "dir", S_IFDIR | 01777);
    check_mode(&l, "dir/fifo", S_IFIFO | 0644);
    check_data(&l, "dir/file", "content");
    check_data(&l, "dir/empty", "");
    check_data(&l, "absolute", "a");
    check_data(&l, "a/b/d", "d");
    assert_false(exists(&l, "a/b/c"));
    check_mode(&l, "a/b", S_IFDIR | 0755);
    close_layer(&l);
}

static void test_empty_layers(void **state)
{
    static const struct fake_entry none[] = {{NULL}};
    (void)state;
    struct layer l = open_layer(none);
    check_mode(&l, "", S_IFDIR | 0755);
    close_layer(&l);
    l = open_bytes("", 0, &DEFAULTS); /* not even the two zero blocks */
    check_mode(&l, "", S_IFDIR | 0755);
    assert_int_equal(l.result.entries, 0);
    close_layer(&l);
}

static void test_whiteouts(void **state)
{
    static const struct fake_entry entries[] = {
        {"d/", 'd', 0755, NULL},           {"d/.wh.gone", 'f', 0644, ""},
        {"o/.wh..wh..opq", 'f', 0644, ""}, {"o/new", 'f', 0644, "n"},
        {"p/new", 'f', 0644, "n"},         {"p/.wh..wh..opq", 'f', 0644, ""},
        {"p/.wh.old", 'f', 0644, ""},      {"q/.wh..wh.plnk", 'f', 0644, ""},
        {".wh.top", 'f', 0644, ""},        {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    check_whiteout(&l, "d/gone");
    check_whiteout(&l, "top");
    check_xattr(&l, "d", "trusted.overlay.origin", "");
    NOT_OPAQUE(&l, "d");
    OPAQUE(&l, "o");
    OPAQUE(&l, "p");
    check_data(&l, "o/new", "n");
    check_data(&l, "p/new", "n");
    assert_false(exists(&l, "p/old"));
    assert_false(exists(&l, "d/.wh.gone"));
    assert_false(exists(&l, "o/.wh..wh..opq"));
    assert_false(exists(&l, "q/.wh..wh.plnk"));
    close_layer(&l);
}

static void test_whiteout_and_namesake(void **state)
{
    static const struct fake_entry before[] = {
        {".wh.dir", 'f', 0644, ""},    {"dir/", 'd', 0755, NULL},
        {"dir/x", 'f', 0644, "x"},     {".wh.file", 'f', 0644, ""},
        {"file", 'f', 0644, "f"},      {".wh.deep", 'f', 0644, ""},
        {"deep/er/x", 'f', 0644, "x"}, {NULL}};
    static const struct fake_entry after[] = {
        {"dir/", 'd', 0755, NULL},   {"dir/x", 'f', 0644, "x"},
        {".wh.dir", 'f', 0644, ""},  {"file", 'f', 0644, "f"},
        {".wh.file", 'f', 0644, ""}, {"deep/er/x", 'f', 0644, "x"},
        {".wh.deep", 'f', 0644, ""}, {NULL}};
    const struct fake_entry *const orders[] = {before, after};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct layer l = open_layer(orders[i]);
        OPAQUE(&l, "dir");
        OPAQUE(&l, "deep");
        check_data(&l, "dir/x", "x");
        check_data(&l, "file", "f");
        check_data(&l, "deep/er/x", "x");
        close_layer(&l);
    }
}

static void test_root_opaque(void **state)
{
    static const struct fake_entry entries[] = {
        {".wh..wh..opq", 'f', 0644, ""}, {"x", 'f', 0644, "x"}, {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    assert_true((l.result.flags & CONVERT_ROOT_OPAQUE) != 0);
    close_layer(&l);
}

static void test_duplicates(void **state)
{
    static const struct fake_entry entries[] = {
        {"f", 'f', 0644, "first"}, {"f", 'f', 0600, "second"},
        {"d/", 'd', 0755, NULL},   {"d/x", 'f', 0644, "x"},
        {"d/", 'd', 0700, NULL},   {"t/", 'd', 0755, NULL},
        {"t/x", 'f', 0644, "x"},   {"t", 'f', 0644, "now a file"},
        {"u", 'l', 0777, "d"},     {"u/", 'd', 0755, NULL},
        {"u/y", 'f', 0644, "y"},   {"v", 'f', 0644, "v"},
        {"v", 'l', 0777, "f"},     {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    check_data(&l, "f", "second");
    check_mode(&l, "f", S_IFREG | 0600);
    check_mode(&l, "d", S_IFDIR | 0700);
    check_data(&l, "d/x", "x");
    NOT_OPAQUE(&l, "d");
    check_data(&l, "t", "now a file");
    check_mode(&l, "u", S_IFDIR | 0755);
    OPAQUE(&l, "u");
    check_data(&l, "u/y", "y");
    assert_false(exists(&l, "d/y"));
    check_mode(&l, "v", S_IFLNK | 0777);
    close_layer(&l);
}

static void test_symlinks_on_the_way(void **state)
{
    static const struct fake_entry entries[] = {
        {"usr/lib/", 'd', 0711, NULL}, {"lib", 'l', 0777, "usr/lib"},
        {"lib/x", 'f', 0644, "x"},     {"abs", 'l', 0777, "/usr/lib"},
        {"abs/y", 'f', 0644, "y"},     {"up", 'l', 0777, "../../../usr"},
        {"up/lib/z", 'f', 0644, "z"},  {"new", 'l', 0777, "fresh/./place"},
        {"new/w", 'f', 0644, "w"},     {NULL}};
    static const struct fake_entry loop[] = {
        {"a", 'l', 0777, "b"}, {"b", 'l', 0777, "a"}, {"a/x", 'f', 0644, "x"}, {NULL}};
    struct err err = {0};
    struct convert_result result;
    (void)state;
    struct layer l = open_layer(entries);
    check_data(&l, "usr/lib/x", "x");
    check_data(&l, "usr/lib/y", "y");
    check_data(&l, "usr/lib/z", "z");
    check_data(&l, "fresh/place/w", "w");
    check_mode(&l, "lib", S_IFLNK | 0777);
    check_mode(&l, "usr/lib", S_IFDIR | 0711);
    close_layer(&l);
    struct fake_bytes tar = fake_tar(loop);
    int out = memory_file(NULL, 0);
    assert_int_equal(convert_bytes(tar.bytes, tar.n, &DEFAULTS, out, &result, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    (void)close(out);
    free(tar.bytes);
}

static void test_hard_links(void **state)
{
    static const struct fake_entry entries[] = {{"z/file", 'f', 0640, "shared", 7, 8},
                                                {"a/link", 'h', 0644, "z/file"},
                                                {"b", 'h', 0644, "./a/link"},
                                                {"dev", 'c', 0600, NULL, 0, 0, 1, 3},
                                                {"dev2", 'h', 0644, "dev"},
                                                {"gone", 'f', 0644, "g"},
                                                {"kept", 'h', 0644, "gone"},
                                                {"gone", 'f', 0644, "other"},
                                                {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    struct squash_node *a = find(&l, "a/link");
    struct squash_node *z = find(&l, "z/file");
    struct squash_node *b = find(&l, "b");
    assert_int_equal(a->number, z->number);
    assert_int_equal(b->number, z->number);
    assert_int_equal(z->nlink, 3);
    assert_int_equal(a->gid, 8);
    squash_node_free(a);
    squash_node_free(z);
    squash_node_free(b);
    check_data(&l, "b", "shared");
    struct squash_node *d = find(&l, "dev2");
    assert_int_equal(d->rdev, (1 << 8) | 3);
    assert_int_equal(d->nlink, 2);
    squash_node_free(d);
    check_data(&l, "kept", "g");
    check_data(&l, "gone", "other");
    assert_int_equal(l.result.flags & CONVERT_LOWER_LINKS, 0);
    close_layer(&l);
}

static void test_lower_marks(void **state)
{
    static const struct fake_entry entries[] = {
        {"deep/er/x", 'f', 0644, "x"}, {"link", 'h', 0644, "usr/bin/below"}, {NULL}};
    static const struct fake_entry complete[] = {
        {"a/", 'd', 0755, NULL}, {"a/x", 'f', 0644, "x"}, {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    assert_true((l.result.flags & CONVERT_IMPLICIT) != 0);
    assert_true((l.result.flags & CONVERT_LOWER_LINKS) != 0);
    check_xattr(&l, "deep/er", "trusted.casemate.implicit", "y");
    check_xattr(&l, "link", "trusted.casemate.link", "usr/bin/below");
    close_layer(&l);
    l = open_layer(complete);
    assert_int_equal(l.result.flags, 0);
    close_layer(&l);
}

static void test_xattrs(void **state)
{
    static const struct fake_entry entries[] = {
        {"u", 'f', 0644, "u", 0, 0, 0, 0, "user.a"},
        {"s", 'f', 0644, "s", 0, 0, 0, 0, "security.capability"},
        {"d/", 'd', 0755, NULL, 0, 0, 0, 0, "user.dir"},
        {"d/.wh..wh..opq", 'f', 0644, ""},
        {"o/", 'd', 0755, NULL, 0, 0, 0, 0, "trusted.overlay.redirect"},
        {"c/", 'd', 0755, NULL, 0, 0, 0, 0, "trusted.casemate.link"},
        {"p", 'f', 0644, "p", 0, 0, 0, 0, "system.posix_acl_access"},
        {NULL}};
    (void)state;
    struct layer l = open_layer(entries);
    check_xattr(&l, "u", "user.a", "v");
    check_xattr(&l, "s", "security.capability", "v");
    check_xattr(&l, "d", "user.dir", "v");
    OPAQUE(&l, "d");
    check_xattr(&l, "o", "trusted.overlay.redirect", NULL);
    check_xattr(&l, "c", "trusted.casemate.link", NULL);
    assert_true(l.result.xattrs_dropped >= 3);
    close_layer(&l);
}

static void test_names(void **state)
{
    char longest[300];
    char deep[3000] = "";
    struct fake_entry entries[] = {{longest, 'f', 0644, "long"},
                                   {"\xc3\xa4\xe2\x82\xac", 'f', 0644, "utf8"},
                                   {"latin\xe4", 'f', 0644, "not utf8"},
                                   {"new\nline", 'f', 0644, "control"},
                                   {deep, 'f', 0644, "deep"},
                                   {"to", 'l', 0777, "\xc3\xa4\xe2\x82\xac"},
                                   {NULL}};
    (void)state;
    memset(longest, 'n', 255);
    longest[255] = '\0';
    for (size_t i = 0; i < 30; i++) {
        size_t at = strlen(deep);
        memset(deep + at, 'a' + (int)(i % 26), 90);
        deep[at + 90] = i < 29 ? '/' : '\0';
        deep[at + 91] = '\0';
    }
    struct layer l = open_layer(entries);
    check_data(&l, longest, "long");
    check_data(&l, "\xc3\xa4\xe2\x82\xac", "utf8");
    check_data(&l, "latin\xe4", "not utf8");
    check_data(&l, "new\nline", "control");
    check_data(&l, deep, "deep");
    struct squash_node *n = find(&l, "to");
    assert_string_equal(n->target, "\xc3\xa4\xe2\x82\xac");
    squash_node_free(n);
    close_layer(&l);
}

/* ---- many and large ---- */

static void test_many_entries(void **state)
{
    enum { COUNT = 3000 };
    struct fake_entry *entries = calloc(COUNT + 1, sizeof(*entries));
    char(*names)[32] = calloc(COUNT, sizeof(*names));
    (void)state;
    for (unsigned i = 0; i < COUNT; i++) { /* in an order that is not sorted */
        (void)snprintf(names[i], sizeof(names[i]), "d/f%04u", i * 7 % COUNT);
        entries[i] = (struct fake_entry){names[i], 'f', 0644, names[i]};
    }
    struct layer l = open_layer(entries);
    check_data(&l, "d/f0000", "d/f0000");
    check_data(&l, "d/f2999", "d/f2999");
    check_data(&l, "d/f1234", "d/f1234");
    assert_int_equal(l.result.entries, COUNT + 1);
    close_layer(&l);
    free(names);
    free(entries);
}

static void check_compression(enum image_compression compression)
{
    struct convert_options options = DEFAULTS;
    size_t n = 500000;
    char *data = malloc(n + 1);
    options.compression = compression;
    for (size_t i = 0; i < n; i++)
        data[i] = (char)('a' + (i * i / 7) % 26);
    data[n] = '\0';
    const struct fake_entry entries[] = {
        {"big", 'f', 0644, data}, {"same", 'f', 0644, data}, {NULL}};
    struct fake_bytes tar = fake_tar(entries);
    struct layer l = open_bytes(tar.bytes, tar.n, &options);
    check_data(&l, "big", data);
    check_data(&l, "same", data);
    assert_true(l.result.image_bytes < n + n / 10); /* the second is stored once */
    close_layer(&l);
    free(tar.bytes);
    free(data);
}

static void test_compressions(void **state)
{
    (void)state;
    check_compression(IMAGE_COMPRESSION_ZSTD);
    check_compression(IMAGE_COMPRESSION_LZ4);
    check_compression(IMAGE_COMPRESSION_NONE);
}

static void test_wire_formats(void **state)
{
    static const struct fake_entry entries[] = {{"f", 'f', 0644, "data"}, {NULL}};
    struct fake_bytes tar = fake_tar(entries);
    struct fake_bytes gz = fake_gzip(tar.bytes, tar.n);
    /* in two members, and an empty one between */
    struct fake_bytes a = fake_gzip(tar.bytes, 700);
    struct fake_bytes e = fake_gzip("", 0);
    struct fake_bytes b = fake_gzip(tar.bytes + 700, tar.n - 700);
    uint8_t *joined = malloc(a.n + e.n + b.n);
    size_t bound = ZSTD_compressBound(tar.n);
    uint8_t *zstd = malloc(2 * bound + 16);
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4};
    (void)state;
    memcpy(joined, a.bytes, a.n);
    memcpy(joined + a.n, e.bytes, e.n);
    memcpy(joined + a.n + e.n, b.bytes, b.n);
    memcpy(zstd, skippable, sizeof(skippable));
    size_t zn = sizeof(skippable);
    zn += ZSTD_compress(zstd + zn, bound, tar.bytes, 700, 1);
    zn += ZSTD_compress(zstd + zn, bound, tar.bytes + 700, tar.n - 700, 1);
    const struct fake_bytes forms[] = {tar, gz, {joined, a.n + e.n + b.n}, {zstd, zn}};
    char *digest = fake_digest(tar.bytes, tar.n);
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        char actual[DIGEST_TEXT_SIZE];
        struct layer l = open_bytes(forms[i].bytes, forms[i].n, &DEFAULTS);
        check_data(&l, "f", "data");
        digest_format(l.result.diff_id, actual);
        assert_string_equal(actual, digest);
        close_layer(&l);
    }
    /* cut short anywhere they are refused; the plain tar only where an entry is cut */
    for (size_t i = 1; i < ARRAY_SIZE(forms); i++) {
        struct err err = {0};
        struct convert_result result;
        int out = memory_file(NULL, 0);
        assert_int_equal(
            convert_bytes(forms[i].bytes, forms[i].n - 5, &DEFAULTS, out, &result, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
        (void)close(out);
    }
    free(digest);
    free(zstd);
    free(joined);
    free(a.bytes);
    free(e.bytes);
    free(b.bytes);
    free(gz.bytes);
    free(tar.bytes);
}

/* A tar with one sparse file: 1 MiB hole, "mid", hole up to `size`. */
static struct fake_bytes sparse_tar(int64_t size)
{
    struct fake_bytes out = {.bytes = malloc(1 << 16)};
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    size_t used = 0;
    assert_int_equal(archive_write_set_format_pax(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(a, out.bytes, 1 << 16, &used), ARCHIVE_OK);
    archive_entry_set_pathname(e, "sparse");
    archive_entry_set_filetype(e, S_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, size);
    archive_entry_sparse_add_entry(e, 1 << 20, 3);
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    /* the writer takes the file as it is, holes included, and leaves the holes out */
    char *zeros = calloc(1, 1 << 20);
    assert_int_equal(archive_write_data(a, zeros, 1 << 20), 1 << 20);
    assert_int_equal(archive_write_data(a, "mid", 3), 3);
    free(zeros);
    archive_entry_free(e);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    out.n = used;
    return out;
}

static void test_sparse(void **state)
{
    struct fake_bytes tar = sparse_tar(10 << 20);
    struct buf b = BUF_INIT(16 << 20);
    struct convert_result result;
    struct err err = {0};
    (void)state;
    struct layer l = open_bytes(tar.bytes, tar.n, &DEFAULTS);
    struct squash_node *n = find(&l, "sparse");
    assert_int_equal(n->size, 10 << 20);
    assert_int_equal(squash_reader_data(l.reader, n, append, &b, NULL), 0);
    assert_int_equal(b.len, 10 << 20);
    assert_memory_equal(buf_bytes(&b) + (1 << 20), "mid", 4);
    assert_true(l.result.image_bytes < 65536);
    squash_node_free(n);
    close_layer(&l);
    buf_fini(&b);
    free(tar.bytes);
    /* a hole costs no input, but it counts */
    tar = sparse_tar(1ll << 60);
    int out = memory_file(NULL, 0);
    assert_int_equal(convert_bytes(tar.bytes, tar.n, &DEFAULTS, out, &result, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    (void)close(out);
    free(tar.bytes);
}

/* ---- what is refused ---- */

static void refuse(const struct fake_entry *entries, enum err_code code, const char *text)
{
    struct err err = {0};
    struct convert_result result = {0};
    struct fake_bytes tar = fake_tar(entries);
    int out = memory_file(NULL, 0);
    if (convert_bytes(tar.bytes, tar.n, &DEFAULTS, out, &result, &err) == 0)
        fail_msg("'%s' was accepted", entries[0].path);
    if (err.code != code || strstr(err.msg, text) == NULL)
        fail_msg("%s: %s", err_code_name(err.code), err.msg);
    assert_int_equal(result.magic, 0);
    (void)close(out);
    free(tar.bytes);
}

static void test_refuses(void **state)
{
    char name[400];
    (void)state;
    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    refuse((struct fake_entry[]){{"../x", 'f', 0644, "x"}, {NULL}}, ERR_PROTOCOL, "climbs out");
    refuse((struct fake_entry[]){{"a/../../x", 'f', 0644, "x"}, {NULL}}, ERR_PROTOCOL,
           "climbs out");
    refuse((struct fake_entry[]){{"/..", 'd', 0755, NULL}, {NULL}}, ERR_PROTOCOL, "climbs out");
    refuse((struct fake_entry[]){{"l", 'h', 0755, "../../etc/passwd"}, {NULL}}, ERR_PROTOCOL,
           "climbs out");
    refuse((struct fake_entry[]){{name, 'f', 0644, "x"}, {NULL}}, ERR_PROTOCOL, "longer than");
    refuse((struct fake_entry[]){{"f", 'f', 0644, "x"}, {"f/x", 'f', 0644, "x"}, {NULL}},
           ERR_PROTOCOL, "below something");
    refuse((struct fake_entry[]){{"d/", 'd', 0755, NULL}, {"l", 'h', 0755, "d"}, {NULL}},
           ERR_PROTOCOL, "hard link to the directory");
    refuse((struct fake_entry[]){{"./", 'f', 0755, "x"}, {NULL}}, ERR_PROTOCOL, "");
    refuse((struct fake_entry[]){{".wh.", 'f', 0755, "x"}, {NULL}}, ERR_PROTOCOL, "names nothing");
    refuse((struct fake_entry[]){{".wh...", 'f', 0755, "x"}, {NULL}}, ERR_PROTOCOL,
           "names nothing");
    refuse((struct fake_entry[]){{"u", 'f', 0755, "x", 1ll << 40}, {NULL}}, ERR_PROTOCOL,
           "out of range");
}

static void refuse_bytes(const void *bytes, size_t n, const struct convert_options *options,
                         enum err_code code)
{
    struct err err = {0};
    struct convert_result result;
    int out = memory_file(NULL, 0);
    if (convert_bytes(bytes, n, options, out, &result, &err) == 0)
        fail_msg("accepted");
    if (err.code != code)
        fail_msg("%s: %s", err_code_name(err.code), err.msg);
    (void)close(out);
}

static void test_garbage(void **state)
{
    char garbage[4096];
    (void)state;
    memset(garbage, 'g', sizeof(garbage));
    refuse_bytes(garbage, sizeof(garbage), &DEFAULTS, ERR_PROTOCOL);
    memcpy(garbage, "\x1f\x8b", 2);
    refuse_bytes(garbage, sizeof(garbage), &DEFAULTS, ERR_PROTOCOL);
    memcpy(garbage, "\x28\xb5\x2f\xfd", 4);
    refuse_bytes(garbage, sizeof(garbage), &DEFAULTS, ERR_PROTOCOL);
    refuse_bytes("<html>", 6, &DEFAULTS, ERR_PROTOCOL);
    refuse_bytes("\x1f", 1, &DEFAULTS, ERR_PROTOCOL);
    refuse_bytes("\x1f\x8b", 2, &DEFAULTS, ERR_PROTOCOL);
}

static void test_limits(void **state)
{
    struct convert_options options = DEFAULTS;
    size_t n = 80 << 20;
    char *zeros = calloc(1, n);
    struct fake_bytes bomb = fake_gzip(zeros, n);
    static const struct fake_entry three[] = {
        {"a", 'f', 0644, "a"}, {"b", 'f', 0644, "b"}, {"c", 'f', 0644, "c"}, {NULL}};
    struct fake_bytes tar = fake_tar(three);
    (void)state;
    options.max_bytes = 1ull << 32;
    options.max_ratio = 100;
    refuse_bytes(bomb.bytes, bomb.n, &options, ERR_EXHAUSTED);
    options.max_ratio = 100000;
    options.max_bytes = 1 << 20;
    refuse_bytes(bomb.bytes, bomb.n, &options, ERR_EXHAUSTED);
    options = DEFAULTS;
    options.max_entries = 2;
    refuse_bytes(tar.bytes, tar.n, &options, ERR_EXHAUSTED);
    options.max_entries = 3;
    struct layer l = open_bytes(tar.bytes, tar.n, &options);
    close_layer(&l);
    free(tar.bytes);
    free(bomb.bytes);
    free(zeros);
}

static void test_full_disk(void **state)
{
    static const struct fake_entry entries[] = {{"a", 'f', 0644, "a"}, {NULL}};
    struct fake_bytes tar = fake_tar(entries);
    struct err err = {0};
    struct convert_result result;
    int in = memory_file(tar.bytes, tar.n);
    int out = memory_file(NULL, 0);
    (void)state;
    assert_int_equal(fcntl(out, F_ADD_SEALS, F_SEAL_GROW), 0); /* nothing can be written */
    assert_int_equal(convert_layer(in, out, &DEFAULTS, &result, &err), -1);
    (void)close(in);
    (void)close(out);
    in = memory_file(tar.bytes, tar.n);
    out = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(out >= 0);
    assert_int_equal(convert_layer(in, out, &DEFAULTS, &result, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    (void)close(in);
    (void)close(out);
    free(tar.bytes);
}

int main(void)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* as convert_main.c does */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_empty_layers),
        cmocka_unit_test(test_whiteouts),
        cmocka_unit_test(test_whiteout_and_namesake),
        cmocka_unit_test(test_root_opaque),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_symlinks_on_the_way),
        cmocka_unit_test(test_hard_links),
        cmocka_unit_test(test_lower_marks),
        cmocka_unit_test(test_xattrs),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_compressions),
        cmocka_unit_test(test_wire_formats),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
