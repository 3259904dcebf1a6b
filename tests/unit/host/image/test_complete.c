/* SPDX-License-Identifier: Apache-2.0 */
/* What completes a stack of layers, as text: one line for each entry of the completing image. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/fd.h"
#include "host/image/complete.h"
#include "host/image/squash_reader.h"
#include "tests/fakes/fake_registry.h"

enum { MAX_LAYERS = 8 };

static const struct convert_options OPTIONS = {
    .max_bytes = 64 << 20, .max_ratio = 400, .max_entries = 10000, .workers = 1};

static int memory_file(const void *bytes, size_t n)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    if (n > 0)
        assert_int_equal(fd_write_all(fd, bytes, n, NULL), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static int make_layer(const struct fake_entry *entries)
{
    struct err err = {0};
    struct convert_result result;
    struct fake_bytes tar = fake_tar(entries);
    int in = memory_file(tar.bytes, tar.n);
    int out = memory_file(NULL, 0);
    if (convert_layer(in, out, &OPTIONS, &result, &err) < 0)
        fail_msg("%s", err.msg);
    (void)close(in);
    free(tar.bytes);
    return out;
}

/* Completes the layers, lowest first, up to a NULL. */
static int complete(const struct fake_entry *const *stack, int *ret_fd,
                    struct convert_result *ret_result, struct err *err)
{
    int layers[MAX_LAYERS];
    size_t n = 0;
    *ret_fd = memory_file(NULL, 0);
    for (; stack[n] != NULL; n++)
        layers[n] = make_layer(stack[n]);
    int rc = complete_layers(layers, n, *ret_fd, &OPTIONS, ret_result, err);
    while (n > 0)
        (void)close(layers[--n]);
    return rc;
}

/* ---- the completing image as text ---- */

struct dump {
    struct squash_reader *reader;
    struct buf text;
    char path[512];
};

static int add_data(void *arg, const void *bytes, size_t n, struct err *err)
{
    return buf_append(arg, bytes, n, err);
}

static int add_xattr(void *arg, const char *name, const void *value, size_t size, struct err *err)
{
    (void)value;
    (void)size;
    return buf_printf(arg, err, " %s", name);
}

static int dump_node(void *arg, const char *name, const struct squash_node *node, struct err *err)
{
    struct dump *d = arg;
    size_t n = strlen(d->path);
    (void)snprintf(d->path + n, sizeof(d->path) - n, "%s%s", n == 0 ? "" : "/", name);
    assert_int_equal(buf_printf(&d->text, err, "%s %o %u:%u x%u", d->path, node->mode & 07777,
                                node->uid, node->gid, S_ISDIR(node->mode) ? 1 : node->nlink),
                     0);
    if (S_ISREG(node->mode)) {
        assert_int_equal(buf_printf(&d->text, err, " ="), 0);
        assert_int_equal(squash_reader_data(d->reader, node, add_data, &d->text, err), 0);
    }
    if (node->target != NULL)
        assert_int_equal(buf_printf(&d->text, err, " ->%s", node->target), 0);
    assert_int_equal(squash_reader_xattrs(d->reader, node, add_xattr, &d->text, err), 0);
    assert_int_equal(buf_printf(&d->text, err, "\n"), 0);
    if (S_ISDIR(node->mode))
        assert_int_equal(squash_reader_each(d->reader, node, dump_node, d, err), 0);
    d->path[n] = '\0';
    return 0;
}

static void check(const struct fake_entry *const *stack, const char *wanted)
{
    struct err err = {0};
    struct convert_result result;
    struct stat st;
    int fd;
    if (complete(stack, &fd, &result, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, result.image_bytes);
    if (*wanted == '\0') {
        assert_int_equal(result.image_bytes, 0);
    } else {
        struct dump d = {.text = BUF_INIT(1 << 20)};
        struct squash_node *root = NULL;
        char *text = NULL;
        assert_true(result.image_bytes > 0);
        assert_int_equal(squash_reader_open(fd, &d.reader, &err), 0);
        assert_int_equal(squash_reader_root(d.reader, &root, &err), 0);
        assert_int_equal(squash_reader_each(d.reader, root, dump_node, &d, &err), 0);
        assert_int_equal(buf_take_string(&d.text, &text, &err), 0);
        assert_string_equal(text, wanted);
        free(text);
        squash_node_free(root);
        squash_reader_free(d.reader);
    }
    (void)close(fd);
}

static void check_fails(const struct fake_entry *const *stack, const char *message)
{
    struct err err = {0};
    struct convert_result result;
    int fd;
    assert_int_equal(complete(stack, &fd, &result, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    if (strstr(err.msg, message) == NULL)
        fail_msg("%s", err.msg);
    (void)close(fd);
}

#define STACK(...) ((const struct fake_entry *const[]){__VA_ARGS__, NULL})

static const struct fake_entry BASE[] = {
    {"tmp/", 'd', 01777, NULL},
    {"srv/", 'd', 0750, NULL, 5, 6, 0, 0, "user.mark"},
    {"srv/data/", 'd', 0755, NULL},
    {"bin/", 'd', 0755, NULL},
    {"bin/tool", 'f', 04755, "tool", 7, 8},
    {"bin/alias", 'h', 0, "bin/tool"},
    {"lib", 'l', 0777, "usr/lib"},
    {"usr/", 'd', 0755, NULL},
    {"usr/lib/", 'd', 0711, NULL},
    {"usr/lib/x", 'f', 0644, "x"},
    {"usr/lib/sym", 'l', 0777, "x"},
    {NULL},
};

/* ---- directories ---- */

static void test_nothing_to_do(void **state)
{
    static const struct fake_entry upper[] = {{"bin/new", 'f', 0755, "n"}, {NULL}};
    static const struct fake_entry described[] = {
        {"tmp/", 'd', 0700, NULL}, {"tmp/f", 'f', 0644, "f"}, {NULL}};
    (void)state;
    check(STACK(BASE, upper), ""); /* bin is root's and 0755 */
    check(STACK(BASE, described), "");
    check(STACK(upper), "");
}

static void test_directories(void **state)
{
    static const struct fake_entry upper[] = {
        {"tmp/f", 'f', 0644, "f"}, {"srv/data/f", 'f', 0644, "f"}, {NULL}};
    static const struct fake_entry again[] = {{"tmp/g", 'f', 0644, "g"}, {NULL}};
    static const struct fake_entry described[] = {{"tmp/", 'd', 0711, NULL}, {NULL}};
    static const struct fake_entry removed[] = {{".wh.tmp", 'f', 0644, ""}, {NULL}};
    static const struct fake_entry replaced[] = {{"tmp", 'l', 0777, "var/tmp"}, {NULL}};
    static const char srv[] = "srv 750 5:6 x1 user.mark\n";
    char wanted[256];
    (void)state;
    (void)snprintf(wanted, sizeof(wanted), "%stmp 1777 0:0 x1\n", srv);
    check(STACK(BASE, upper), wanted);
    check(STACK(BASE, upper, again), wanted);
    check(STACK(BASE, upper, described), srv);
    check(STACK(BASE, upper, removed), srv);
    check(STACK(BASE, upper, replaced), srv);
    /* below a whiteout there is nothing to take the metadata of */
    check(STACK(BASE, removed, again), "");
}

static void test_opaque_directories(void **state)
{
    static const struct fake_entry emptied[] = {
        {"srv/.wh..wh..opq", 'f', 0644, ""}, {"srv/data/f", 'f', 0644, "f"}, {NULL}};
    static const struct fake_entry root[] = {
        {".wh..wh..opq", 'f', 0644, ""}, {"srv/f", 'f', 0644, "f"}, {NULL}};
    (void)state;
    /* srv lost its content, not its mode; srv/data is a new one */
    check(STACK(BASE, emptied), "srv 750 5:6 x1 user.mark\n");
    check(STACK(BASE, root), "");
}

/* ---- hard links ---- */

static void test_links(void **state)
{
    static const struct fake_entry upper[] = {{"bin/new", 'h', 0, "bin/tool"},
                                              {"newer", 'h', 0, "bin/new"},
                                              {"sym2", 'h', 0, "usr/lib/sym"},
                                              {NULL}};
    static const struct fake_entry hidden[] = {
        {"bin/.wh.tool", 'f', 0644, ""}, {".wh.sym2", 'f', 0644, ""}, {NULL}};
    (void)state;
    /* the target goes along as another name; the lower layer's other name stays what it is */
    check(STACK(BASE, upper), "bin 755 0:0 x1\n"
                              "bin/new 4755 7:8 x3 =tool\n"
                              "bin/tool 4755 7:8 x3 =tool\n"
                              "newer 4755 7:8 x3 =tool\n"
                              "sym2 777 0:0 x2 ->x\n"
                              "usr 755 0:0 x1\n"
                              "usr/lib 711 0:0 x1\n"
                              "usr/lib/sym 777 0:0 x2 ->x\n");
    check(STACK(BASE, upper, hidden), "bin 755 0:0 x1\n"
                                      "bin/new 4755 7:8 x2 =tool\n"
                                      "newer 4755 7:8 x2 =tool\n");
}

static void test_links_of_links(void **state)
{
    static const struct fake_entry second[] = {{"a", 'h', 0, "usr/lib/x"}, {NULL}};
    static const struct fake_entry third[] = {
        {"b", 'h', 0, "a"}, {".wh.usr", 'f', 0644, ""}, {NULL}};
    (void)state;
    check(STACK(BASE, second, third), "a 644 0:0 x2 =x\n"
                                      "b 644 0:0 x2 =x\n");
}

static void test_links_through_symlinks(void **state)
{
    static const struct fake_entry upper[] = {{"y", 'h', 0, "lib/x"}, {NULL}};
    (void)state;
    check(STACK(BASE, upper), "usr 755 0:0 x1\n"
                              "usr/lib 711 0:0 x1\n"
                              "usr/lib/x 644 0:0 x2 =x\n"
                              "y 644 0:0 x2 =x\n");
}

static void test_links_to_nowhere(void **state)
{
    static const struct fake_entry missing[] = {{"y", 'h', 0, "no/such"}, {NULL}};
    static const struct fake_entry directory[] = {{"y", 'h', 0, "tmp"}, {NULL}};
    static const struct fake_entry removed[] = {{".wh.bin", 'f', 0644, ""}, {NULL}};
    static const struct fake_entry late[] = {{"y", 'h', 0, "bin/tool"}, {NULL}};
    static const struct fake_entry loop[] = {
        {"l1", 'l', 0777, "l2"}, {"l2", 'l', 0777, "l1"}, {NULL}};
    static const struct fake_entry looping[] = {{"y", 'h', 0, "l1/x"}, {NULL}};
    (void)state;
    check_fails(STACK(BASE, missing), "hard link 'y' to 'no/such', which is no file");
    check_fails(STACK(missing), "which is no file");
    check_fails(STACK(BASE, directory), "which is no file");
    check_fails(STACK(BASE, removed, late), "which is no file");
    check_fails(STACK(loop, looping), "too many symlinks");
}

static void test_garbage(void **state)
{
    struct err err = {0};
    struct convert_result result;
    int layer = memory_file("hsqs and nothing more", 21);
    int out = memory_file(NULL, 0);
    (void)state;
    assert_int_equal(complete_layers(&layer, 1, out, &OPTIONS, &result, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    (void)close(layer);
    (void)close(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_to_do),      cmocka_unit_test(test_directories),
        cmocka_unit_test(test_opaque_directories), cmocka_unit_test(test_links),
        cmocka_unit_test(test_links_of_links),     cmocka_unit_test(test_links_through_symlinks),
        cmocka_unit_test(test_links_to_nowhere),   cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
