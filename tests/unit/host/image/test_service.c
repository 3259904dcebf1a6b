/* SPDX-License-Identifier: Apache-2.0 */
/* Names, removal, uses, restarts and damage: what the catalog keeps and when layers go. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/image/manifest.h"
#include "tests/fakes/fake_registry.h"
#include "tests/fakes/fake_registry_node.h"

struct fixture {
    struct fake_registry *registry;
    struct fake_node node;
    struct image_registry entry;
    struct fake_image one; /* base + a */
    struct fake_image two; /* base + b */
    const char *pinned[1];
    char pinned_name[128];
};

static struct fake_bytes tar_of(const char *path, const char *data)
{
    const struct fake_entry entries[] = {{path, 'f', 0644, data}, {NULL}};
    return fake_tar(entries);
}

static struct fake_image image_of(const char *base, const char *top)
{
    struct fake_bytes tars[] = {tar_of("base", base), tar_of("top", top)};
    struct fake_image image = fake_image_make(tars, 2, manifest_architecture());
    free(tars[0].bytes);
    free(tars[1].bytes);
    return image;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->registry = fake_registry_start();
    f->entry = (struct image_registry){.host = fake_registry_host(f->registry), .plain_http = true};
    f->node.registries = &f->entry;
    f->node.n_registries = 1;
    (void)snprintf(f->pinned_name, sizeof(f->pinned_name), "%s/one:pinned",
                   fake_registry_host(f->registry));
    f->pinned[0] = f->pinned_name;
    f->node.pinned = f->pinned;
    f->node.n_pinned = 1;
    fake_node_open(&f->node);
    f->one = image_of("base", "a");
    f->two = image_of("base", "b");
    fake_registry_serve(f->registry, "one", "1", &f->one);
    fake_registry_serve(f->registry, "one", "also", &f->one);
    fake_registry_serve(f->registry, "one", "pinned", &f->one);
    fake_registry_serve(f->registry, "two", "1", &f->two);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    fake_registry_stop(f->registry);
    fake_node_close(&f->node);
    fake_image_fini(&f->one);
    fake_image_fini(&f->two);
    free(f);
    return 0;
}

static const char *name_of(struct fixture *f, const char *rest)
{
    static char name[2][256];
    static unsigned turn;
    char *out = name[turn++ % 2];
    (void)snprintf(out, sizeof(name[0]), "%s/%s", fake_registry_host(f->registry), rest);
    return out;
}

static void pull(struct fixture *f, const char *rest)
{
    struct err err = {0};
    if (fake_node_pull(&f->node, name_of(f, rest), NULL, &err) < 0)
        fail_msg("%s", err.msg);
}

static struct image *get(struct fixture *f, const char *name)
{
    struct image *image = NULL;
    struct err err = {0};
    if (image_get(f->node.svc, name, &image, &err) < 0)
        fail_msg("%s", err.msg);
    return image;
}

static bool has(struct fixture *f, const char *name)
{
    struct image *image = NULL;
    struct err err = {0};
    int rc = image_get(f->node.svc, name, &image, &err);
    if (rc < 0)
        assert_int_equal(err.code, ERR_NOT_FOUND);
    image_unref(image);
    return rc == 0;
}

static size_t count_images(struct fixture *f)
{
    struct image_list list;
    assert_int_equal(image_list(f->node.svc, &list, NULL), 0);
    size_t n = list.n;
    image_list_fini(&list);
    return n;
}

static void remove_image(struct fixture *f, const char *name)
{
    struct err err = {0};
    if (image_remove(f->node.svc, name, &err) < 0)
        fail_msg("%s", err.msg);
}

static void collect(struct fixture *f)
{
    struct err err = {0};
    if (image_service_collect(f->node.svc, &err) < 0)
        fail_msg("%s", err.msg);
}

#define LAYERS(f) fake_node_files(&(f)->node, "layers")

static void test_names_of_one_image(void **state)
{
    struct fixture *f = *state;
    pull(f, "one:1");
    pull(f, "one:also");
    assert_int_equal(count_images(f), 1);
    struct image *image = get(f, f->one.config_digest);
    assert_int_equal(image->repo_tags.n, 2);
    assert_int_equal(image->repo_digests.n, 1);
    assert_false(image->pinned);
    image_unref(image);
    assert_true(has(f, name_of(f, "one:1")));
    assert_true(has(f, name_of(f, "one:also")));
    assert_true(has(f, f->one.config_digest + 7)); /* without sha256: */
    char prefix[20];
    (void)snprintf(prefix, sizeof(prefix), "%.12s", f->one.config_digest + 7);
    assert_true(has(f, prefix));
    assert_false(has(f, name_of(f, "one:other")));
    assert_false(has(f, "0000000"));
    assert_false(has(f, "no such thing"));
    struct err err = {0};
    struct image *none = NULL;
    assert_int_equal(image_get(f->node.svc, "", &none, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static void test_pinned(void **state)
{
    struct fixture *f = *state;
    pull(f, "one:pinned");
    struct image *image = get(f, f->one.config_digest);
    assert_true(image->pinned);
    image_unref(image);
}

static void test_shared_layers(void **state)
{
    struct fixture *f = *state;
    pull(f, "one:1");
    assert_int_equal(LAYERS(f), 2);
    pull(f, "two:1");
    assert_int_equal(LAYERS(f), 3);
    assert_int_equal(count_images(f), 2);
    remove_image(f, name_of(f, "one:1"));
    assert_int_equal(LAYERS(f), 2);
    assert_false(has(f, f->one.config_digest));
    assert_true(has(f, f->two.config_digest));
    remove_image(f, f->two.config_digest);
    assert_int_equal(LAYERS(f), 0);
    remove_image(f, f->two.config_digest); /* again: fine */
    remove_image(f, "never-seen:1");
}

static void test_removal_takes_all_names(void **state)
{
    struct fixture *f = *state;
    pull(f, "one:1");
    pull(f, "one:also");
    remove_image(f, name_of(f, "one:1"));
    assert_false(has(f, name_of(f, "one:also")));
    assert_int_equal(LAYERS(f), 0);
}

static void test_tag_moves(void **state)
{
    struct fixture *f = *state;
    char path[256];
    pull(f, "one:1");
    pull(f, "one:also");
    struct fake_answer moved = {
        .path = path, .body = f->two.manifest, .n = strlen(f->two.manifest)};
    (void)snprintf(path, sizeof(path), "/v2/moved/manifests/1");
    fake_registry_add(f->registry, &(struct fake_answer){.path = path,
                                                         .body = f->one.manifest,
                                                         .n = strlen(f->one.manifest),
                                                         .times = 1});
    fake_registry_add(f->registry, &moved);
    for (size_t i = 0; i < 2; i++) {
        const struct fake_image *im = i == 0 ? &f->one : &f->two;
        fake_registry_serve(f->registry, "moved", "unused", im);
    }
    pull(f, "moved:1");
    struct image *before = get(f, f->one.config_digest);
    assert_int_equal(before->repo_tags.n, 3);
    pull(f, "moved:1");
    struct image *one = get(f, f->one.config_digest);
    struct image *now = get(f, name_of(f, "moved:1"));
    assert_string_equal(now->id, f->two.config_digest);
    assert_int_equal(one->repo_tags.n, 2);
    assert_int_equal(one->repo_digests.n, 2); /* a digest keeps its meaning */
    assert_int_equal(before->repo_tags.n, 3); /* what was handed out does not change */
    image_unref(before);
    image_unref(one);
    image_unref(now);
    fake_node_reopen(&f->node);
    now = get(f, name_of(f, "moved:1"));
    assert_string_equal(now->id, f->two.config_digest);
    image_unref(now);
}

static void test_removed_while_in_use(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    uint64_t size;
    pull(f, "one:1");
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "container-1", &err), 0);
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "container-1", &err), 0);
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "container-2", &err), 0);
    remove_image(f, name_of(f, "one:1"));
    assert_int_equal(count_images(f), 0);
    assert_false(has(f, name_of(f, "one:1")));
    assert_int_equal(LAYERS(f), 2);
    cleanup_image struct image *image = get(f, f->one.config_digest);
    cleanup_fd int fd = -1;
    assert_int_equal(image_open_layer(f->node.svc, image, 1, &fd, &size, &err), 0);
    assert_int_equal(image->repo_tags.n, 0);

    /* after a restart the containers register again, and only then is collected */
    fake_node_reopen(&f->node);
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "container-2", &err), 0);
    collect(f);
    assert_int_equal(LAYERS(f), 2);
    image_release(f->node.svc, f->one.config_digest, "unknown");
    assert_int_equal(LAYERS(f), 2);
    image_release(f->node.svc, f->one.config_digest, "container-2");
    assert_int_equal(LAYERS(f), 0);
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "container-3", &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void test_removed_in_use_comes_back(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    pull(f, "one:1");
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "c", &err), 0);
    remove_image(f, f->one.config_digest);
    pull(f, "one:also");
    cleanup_image struct image *image = get(f, f->one.config_digest);
    assert_int_equal(image->repo_tags.n, 1);
    assert_string_equal(image->repo_tags.items[0], name_of(f, "one:also"));
    image_release(f->node.svc, f->one.config_digest, "c");
    assert_int_equal(LAYERS(f), 2);
    assert_int_equal(count_images(f), 1);
}

static void test_removed_in_use_and_forgotten(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    pull(f, "one:1");
    assert_int_equal(image_use(f->node.svc, f->one.config_digest, "c", &err), 0);
    remove_image(f, f->one.config_digest);
    fake_node_reopen(&f->node); /* and the container is gone */
    collect(f);
    assert_int_equal(LAYERS(f), 0);
}

static char *layer_path(struct fixture *f, const char *diff_id)
{
    return text_printf("%s/images/layers/%s.squashfs", f->node.dir, diff_id + 7);
}

static void test_damage(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    pull(f, "one:1");
    pull(f, "two:1");
    cleanup_free char *a = layer_path(f, f->one.diff_ids[1]);
    cleanup_free char *stray =
        layer_path(f, "sha256:0123456789012345678901234567890123456789012345678901234567890123");
    cleanup_free char *junk = text_printf("%s/images/layers/junk", f->node.dir);
    cleanup_free char *temporary = text_printf("%s/images/ingest/half", f->node.dir);
    assert_int_equal(unlink(a), 0);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, stray, "x", 1, 0600, &err), 0);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, junk, "x", 1, 0600, &err), 0);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, temporary, "x", 1, 0600, &err), 0);
    fake_node_reopen(&f->node);
    collect(f);
    assert_false(has(f, f->one.config_digest));
    assert_true(has(f, f->two.config_digest));
    assert_int_equal(LAYERS(f), 2);
    assert_int_equal(fake_node_files(&f->node, "ingest"), 0);
    pull(f, "one:1"); /* brings back what was lost */
    assert_int_equal(LAYERS(f), 3);
}

static void test_unreadable_records(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    static const char *const bad[] = {"", "{", "[]", "{\"config\": 1}", "{\"config\": \"{}\"}"};
    pull(f, "two:1");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(store_put(f->node.store, "image", f->one.config_digest, 1, bad[i],
                                   strlen(bad[i]), &err),
                         0);
        assert_int_equal(store_put(f->node.store, "image-layer", f->one.diff_ids[1], 1, bad[i],
                                   strlen(bad[i]), &err),
                         0);
        fake_node_reopen(&f->node);
        assert_int_equal(count_images(f), 1);
    }
    assert_int_equal(store_put(f->node.store, "image", f->one.config_digest, 99, "{}", 2, &err), 0);
    fake_node_reopen(&f->node);
    assert_int_equal(count_images(f), 1);
}

static void test_fs_info(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct image_fs_info empty;
    struct image_fs_info info;
    struct stat st;
    assert_int_equal(image_fs_info(f->node.svc, &empty, &err), 0);
    pull(f, "one:1");
    assert_int_equal(image_fs_info(f->node.svc, &info, &err), 0);
    assert_int_equal(info.inodes, empty.inodes + 2);
    uint64_t files = 0;
    for (size_t i = 0; i < 2; i++) {
        cleanup_free char *path = layer_path(f, f->one.diff_ids[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0400);
        files += (uint64_t)st.st_blocks * 512;
    }
    assert_true(info.used_bytes >= empty.used_bytes + files);
    remove_image(f, f->one.config_digest);
    assert_int_equal(image_fs_info(f->node.svc, &info, &err), 0);
    assert_int_equal(info.inodes, empty.inodes);
}

/* ---- import ---- */

static void write_layout(struct fixture *f, const char *dir, const struct fake_image *im,
                         const char *name)
{
    struct err err = {0};
    const char *digests[8] = {im->config_digest, im->manifest_digest};
    const void *bodies[8] = {im->config, im->manifest};
    size_t sizes[8] = {strlen(im->config), strlen(im->manifest)};
    size_t n = 2;
    (void)f;
    for (size_t i = 0; i < im->n_layers; i++, n++) {
        digests[n] = im->layer_digests[i];
        bodies[n] = im->layers[i].bytes;
        sizes[n] = im->layers[i].n;
    }
    cleanup_free char *blobs = text_printf("%s/blobs/sha256", dir);
    cleanup_free char *index_path = text_printf("%s/index.json", dir);
    cleanup_free char *index = text_printf("{\"schemaVersion\": 2, \"manifests\": [{\"digest\": "
                                           "\"%s\", \"size\": %zu, \"annotations\": "
                                           "{\"org.opencontainers.image.ref.name\": \"%s\"}}]}",
                                           im->manifest_digest, strlen(im->manifest), name);
    assert_int_equal(fd_make_dirs(blobs, 0700, &err), 0);
    for (size_t i = 0; i < n; i++) {
        cleanup_free char *path = text_printf("%s/%s", blobs, digests[i] + 7);
        assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, bodies[i], sizes[i], 0600, &err), 0);
    }
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, index_path, index, strlen(index), 0600, &err),
                     0);
}

static int import(struct fixture *f, const char *path, const char *reference, struct err *err)
{
    char **ids = NULL;
    size_t n = 0;
    struct image_import_spec spec = {
        .path = path, .reference = reference, .deadline_ms = clock_deadline(20000)};
    int rc = image_import(f->node.svc, &spec, &ids, &n, err);
    if (rc == 0)
        assert_int_equal(n, 1);
    image_ids_free(ids, n);
    return rc;
}

static void test_import(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    cleanup_free char *dir = text_printf("%s/layout", f->node.dir);
    write_layout(f, dir, &f->one, "imported:1");
    if (import(f, dir, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    struct image *image = get(f, "imported:1");
    assert_string_equal(image->repo_tags.items[0], "docker.io/library/imported:1");
    assert_int_equal(image->repo_digests.n, 1);
    image_unref(image);
    assert_int_equal(import(f, dir, "host.x/other:2", &err), 0);
    assert_true(has(f, "host.x/other:2"));
    assert_int_equal(count_images(f), 1);
    remove_image(f, "imported:1");
    assert_int_equal(LAYERS(f), 0);
    /* a bare word is no name */
    write_layout(f, dir, &f->one, "latest");
    assert_int_equal(import(f, dir, NULL, &err), 0);
    image = get(f, f->one.config_digest);
    assert_int_equal(image->repo_tags.n, 0);
    image_unref(image);
}

static void test_import_refuses(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    cleanup_free char *dir = text_printf("%s/layout", f->node.dir);
    cleanup_free char *empty = text_printf("%s/empty", f->node.dir);
    cleanup_free char *layer = text_printf("%s/blobs/sha256/%s", dir, f->one.layer_digests[1] + 7);
    write_layout(f, dir, &f->one, "imported:1");
    assert_int_equal(import(f, "/nonexistent", NULL, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(fd_make_dirs(empty, 0700, &err), 0);
    assert_int_equal(import(f, empty, NULL, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(import(f, dir, "Bad Name", &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    /* another blob under the layer's name */
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, layer, f->two.layers[1].bytes,
                                          f->two.layers[1].n, 0600, &err),
                     0);
    assert_int_equal(import(f, dir, NULL, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_int_equal(unlink(layer), 0);
    assert_int_equal(symlink("/etc/passwd", layer), 0); /* stays inside the layout */
    assert_int_equal(import(f, dir, NULL, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(count_images(f), 0);
    assert_int_equal(LAYERS(f), 0);
    assert_int_equal(fake_node_files(&f->node, "ingest"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    char *converter = fake_node_converter();
    if (converter == NULL)
        print_message("SKIP: casemate-convert is not built (make all)\n");
    const struct CMUnitTest tests[] = {
        TEST(test_names_of_one_image),
        TEST(test_pinned),
        TEST(test_shared_layers),
        TEST(test_removal_takes_all_names),
        TEST(test_tag_moves),
        TEST(test_removed_while_in_use),
        TEST(test_removed_in_use_comes_back),
        TEST(test_removed_in_use_and_forgotten),
        TEST(test_damage),
        TEST(test_unreadable_records),
        TEST(test_fs_info),
        TEST(test_import),
        TEST(test_import_refuses),
    };
    int rc = converter == NULL ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
    free(converter);
    return rc;
}
