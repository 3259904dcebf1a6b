/* SPDX-License-Identifier: Apache-2.0 */
/* Export and its way back: what a layout made of our own images means, and what a failure leaves.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "host/image/convert.h"
#include "host/image/manifest.h"
#include "host/image/retar.h"
#include "tests/fakes/fake_registry.h"
#include "tests/fakes/fake_registry_node.h"

static const struct fake_entry LOWER[] = {
    {"bin/", 'd', 0755, NULL},
    {"bin/sh", 'f', 04755, "shell", 7, 8},
    {"bin/ash", 'h', 0, "bin/sh"},
    {"etc/", 'd', 0750, NULL, 5, 5, 0, 0, "user.mark"},
    {"etc/a", 'f', 0644, "a"},
    {"dev/", 'd', 0755, NULL},
    {"dev/null", 'c', 0666, NULL, 0, 0, 1, 3},
    {"dev/sda300", 'b', 0660, NULL, 0, 0, 259, 4000},
    {"run", 'l', 0777, "var/run"},
    {"pipe", 'p', 0600, NULL},
    {NULL},
};
static const struct fake_entry UPPER[] = {
    {"bin/.wh.ash", 'f', 0644, ""}, {"etc/.wh..wh..opq", 'f', 0644, ""}, {"etc/b", 'f', 0644, "b"},
    {"sh2", 'h', 0, "bin/sh"},      {"dev/.wh.null", 'f', 0644, ""},     {NULL},
};

/* ---- one layer ---- */

static int memory_file(const void *bytes, size_t n)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    if (n > 0)
        assert_int_equal(fd_write_all(fd, bytes, n, NULL), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static const struct convert_options OPTIONS = {
    .max_bytes = 64 << 20, .max_ratio = 400, .max_entries = 10000, .workers = 1};

/* A tar's way to an image and back, and its flags; takes the tar over. */
static int round_trip(int tar, uint32_t *ret_flags)
{
    struct err err = {0};
    struct convert_result result;
    struct convert_result again;
    int image = memory_file(NULL, 0);
    int back = memory_file(NULL, 0);
    if (convert_layer(tar, image, &OPTIONS, &result, &err) < 0 ||
        retar_layer(image, back, &OPTIONS, &again, &err) < 0)
        fail_msg("%s", err.msg);
    *ret_flags = result.flags;
    (void)close(tar);
    (void)close(image);
    assert_int_equal(lseek(back, 0, SEEK_SET), 0);
    return back;
}

static bool same_files(int a, int b)
{
    struct stat sa;
    struct stat sb;
    assert_int_equal(fstat(a, &sa), 0);
    assert_int_equal(fstat(b, &sb), 0);
    size_t n = (size_t)sa.st_size;
    char *pa = mmap(NULL, n, PROT_READ, MAP_SHARED, a, 0);
    char *pb = mmap(NULL, n, PROT_READ, MAP_SHARED, b, 0);
    assert_true(pa != MAP_FAILED && pb != MAP_FAILED);
    bool same = sa.st_size == sb.st_size && memcmp(pa, pb, n) == 0;
    (void)munmap(pa, n);
    (void)munmap(pb, n);
    return same;
}

/* What a tar of ours means, it means after another round too, to the byte. */
static void test_fixed_point(void **state)
{
    static const struct fake_entry opaque_root[] = {{".wh..wh..opq", 'f', 0644, ""}, {NULL}};
    static const struct fake_entry root[] = {{"./", 'd', 0700, NULL, 3, 4}, {NULL}};
    static const struct fake_entry none[] = {{NULL}};
    const struct fake_entry *const all[] = {LOWER, UPPER, opaque_root, root, none};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        uint32_t flags[3];
        struct fake_bytes tar = fake_tar(all[i]);
        int first = round_trip(memory_file(tar.bytes, tar.n), &flags[0]);
        int second = round_trip(dup(first), &flags[1]);
        assert_int_equal(flags[0], flags[1]);
        assert_true(same_files(first, second));
        (void)close(first);
        (void)close(second);
        free(tar.bytes);
    }
}

static void test_retar_limits(void **state)
{
    struct err err = {0};
    struct convert_result result;
    struct convert_options small = OPTIONS;
    struct fake_bytes tar = fake_tar(LOWER);
    int in = memory_file(tar.bytes, tar.n);
    int image = memory_file(NULL, 0);
    int out = memory_file(NULL, 0);
    (void)state;
    assert_int_equal(convert_layer(in, image, &OPTIONS, &result, &err), 0);
    small.max_bytes = 1024;
    assert_int_equal(retar_layer(image, out, &small, &result, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(retar_layer(in, out, &OPTIONS, &result, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    (void)close(in);
    (void)close(image);
    (void)close(out);
    free(tar.bytes);
}

/* ---- a whole image ---- */

struct fixture {
    struct fake_registry *registry;
    struct fake_node node;
    struct image_registry entry;
    struct fake_image image;
    char name[128];
    char path[128]; /* of the layout */
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct fake_bytes tars[] = {fake_tar(LOWER), fake_tar(UPPER), fake_tar(LOWER)};
    struct err err = {0};
    f->registry = fake_registry_start();
    f->entry = (struct image_registry){.host = fake_registry_host(f->registry), .plain_http = true};
    f->node.registries = &f->entry;
    f->node.n_registries = 1;
    fake_node_open(&f->node);
    f->image = fake_image_make(tars, 3, manifest_architecture());
    for (size_t i = 0; i < ARRAY_SIZE(tars); i++)
        free(tars[i].bytes);
    (void)snprintf(f->name, sizeof(f->name), "%s/app:1", fake_registry_host(f->registry));
    (void)snprintf(f->path, sizeof(f->path), "%s/layout", f->node.dir);
    fake_registry_serve(f->registry, "app", "1", &f->image);
    if (fake_node_pull(&f->node, f->name, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    fake_registry_stop(f->registry);
    fake_node_close(&f->node);
    fake_image_fini(&f->image);
    free(f);
    return 0;
}

static int export_to(struct fixture *f, const char *path, char **ret_id, struct err *err)
{
    struct image_export_spec spec = {
        .image = f->name, .path = path, .deadline_ms = clock_deadline(20000)};
    return image_export(f->node.svc, &spec, ret_id, err);
}

static void test_there_and_back(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    char *id = NULL;
    char *again = NULL;
    char path[160];
    char **ids = NULL;
    size_t n = 0;
    if (export_to(f, f->path, &id, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_not_equal(id, f->image.config_digest);
    struct image_import_spec spec = {.path = f->path, .deadline_ms = clock_deadline(20000)};
    if (image_import(f->node.svc, &spec, &ids, &n, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(n, 1);
    assert_string_equal(ids[0], id);
    image_ids_free(ids, n);

    struct image *image = NULL;
    assert_int_equal(image_get(f->node.svc, f->name, &image, &err), 0); /* the name moved */
    assert_string_equal(image->id, id);
    assert_int_equal(image->n_layers, 3 + 1); /* and the completing one: sh2 is a link */
    assert_string_equal(image->layers[0].diff_id, image->layers[2].diff_id);
    assert_string_equal(image->cmd.items[0], "/bin/sh");
    assert_string_equal(image->user, "12:34");
    image_unref(image);

    (void)snprintf(path, sizeof(path), "%s-2", f->path);
    assert_int_equal(export_to(f, path, &again, &err), 0);
    assert_string_equal(again, id);
    free(id);
    free(again);
}

static bool cancel_at_once(void *arg)
{
    (void)arg;
    return true;
}

static void test_failures(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct stat st;
    char *id = NULL;
    char path[160];
    assert_int_equal(export_to(f, f->node.dir, &id, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    (void)snprintf(path, sizeof(path), "%s/no/such", f->path);
    assert_int_equal(export_to(f, path, &id, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    struct image_export_spec spec = {.image = "no-such",
                                     .path = f->path,
                                     .deadline_ms = clock_deadline(20000),
                                     .cancelled = cancel_at_once};
    assert_int_equal(image_export(f->node.svc, &spec, &id, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    spec.image = f->name;
    assert_int_equal(image_export(f->node.svc, &spec, &id, &err), -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(lstat(f->path, &st), -1);
    /* nor is anything held: it can be removed, and nothing is left */
    assert_int_equal(image_remove(f->node.svc, f->name, &err), 0);
    assert_int_equal(fake_node_files(&f->node, "layers"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    char *converter = fake_node_converter();
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(test_fixed_point),
        cmocka_unit_test(test_retar_limits),
    };
    const struct CMUnitTest tests[] = {
        TEST(test_there_and_back),
        TEST(test_failures),
    };
    int rc = cmocka_run_group_tests(pure, NULL, NULL);
    if (converter == NULL)
        print_message("SKIP: casemate-convert is not built (make all)\n");
    else
        rc |= cmocka_run_group_tests(tests, NULL, NULL);
    free(converter);
    return rc;
}
