/* SPDX-License-Identifier: Apache-2.0 */
/* Pulls from a scripted registry: what works, and everything a registry can do wrong. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/image/digest.h"
#include "host/image/manifest.h"
#include "tests/fakes/fake_registry.h"
#include "tests/fakes/fake_registry_node.h"

#define BLOB(i) (blob_path(f, f->image.layer_digests[i]))

struct fixture {
    struct fake_registry *registry;
    struct fake_node node;
    struct image_registry entry;
    struct fake_image image; /* two layers */
    char name[128];          /* host/app:1 */
    char path[256];
};

static const struct fake_entry LOWER[] = {{"bin/", 'd', 0755, NULL},
                                          {"bin/sh", 'f', 0755, "shell"},
                                          {"etc/", 'd', 0755, NULL},
                                          {"etc/a", 'f', 0644, "a"},
                                          {NULL}};
static const struct fake_entry UPPER[] = {
    {"etc/", 'd', 0755, NULL}, {"etc/.wh.a", 'f', 0644, NULL}, {"etc/b", 'f', 0644, "b"}, {NULL}};

static struct fake_image make_image(const char *architecture)
{
    struct fake_bytes tars[] = {fake_tar(LOWER), fake_tar(UPPER)};
    struct fake_image image = fake_image_make(tars, 2, architecture);
    free(tars[0].bytes);
    free(tars[1].bytes);
    return image;
}

static const char *blob_path(struct fixture *f, const char *digest)
{
    (void)snprintf(f->path, sizeof(f->path), "/v2/app/blobs/%s", digest);
    return f->path;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    f->registry = fake_registry_start();
    f->entry = (struct image_registry){.host = fake_registry_host(f->registry), .plain_http = true};
    f->node.registries = &f->entry;
    f->node.n_registries = 1;
    fake_node_open(&f->node);
    f->image = make_image(manifest_architecture());
    (void)snprintf(f->name, sizeof(f->name), "%s/app:1", fake_registry_host(f->registry));
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

static void assert_nothing(struct fixture *f)
{
    struct image_list list;
    struct err err = {0};
    assert_int_equal(image_list(f->node.svc, &list, &err), 0);
    assert_int_equal(list.n, 0);
    image_list_fini(&list);
    assert_int_equal(fake_node_files(&f->node, "layers"), 0);
    assert_int_equal(fake_node_files(&f->node, "ingest"), 0);
}

static void expect_failure(struct fixture *f, enum err_code code, const char *text)
{
    struct err err = {0};
    if (fake_node_pull(&f->node, f->name, NULL, &err) == 0)
        fail_msg("the pull succeeded");
    if (err.code != code || (text != NULL && strstr(err.msg, text) == NULL))
        fail_msg("%s: %s", err_code_name(err.code), err.msg);
    assert_nothing(f);
}

static void expect_success(struct fixture *f)
{
    struct err err = {0};
    cleanup_image struct image *image = NULL;
    if (fake_node_pull(&f->node, f->name, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(image_get(f->node.svc, f->name, &image, &err), 0);
    assert_string_equal(image->id, f->image.config_digest);
    assert_int_equal(image->n_layers, 2);
    assert_int_equal(fake_node_files(&f->node, "layers"), 2);
    assert_int_equal(fake_node_files(&f->node, "ingest"), 0);
}

static void add(struct fixture *f, const char *path, struct fake_answer a)
{
    a.path = path;
    fake_registry_add(f->registry, &a);
}

/* ---- what works ---- */

static void test_pull(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    cleanup_image struct image *image = NULL;
    char text[256];
    uint64_t size;
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_success(f);
    assert_int_equal(image_get(f->node.svc, f->image.config_digest, &image, &err), 0);
    assert_int_equal(image->repo_tags.n, 1);
    assert_string_equal(image->repo_tags.items[0], f->name);
    (void)snprintf(text, sizeof(text), "%s/app@%s", fake_registry_host(f->registry),
                   f->image.manifest_digest);
    assert_int_equal(image->repo_digests.n, 1);
    assert_string_equal(image->repo_digests.items[0], text);
    assert_true(image->has_uid);
    assert_int_equal(image->uid, 12);
    assert_string_equal(image->user, "12:34");
    assert_string_equal(image->cmd.items[0], "/bin/sh");
    assert_string_equal(image->env.items[0], "A=b");
    for (size_t i = 0; i < 2; i++) {
        cleanup_fd int fd = -1;
        char magic[4];
        assert_string_equal(image->layers[i].diff_id, f->image.diff_ids[i]);
        assert_int_equal(image_open_layer(f->node.svc, image, i, &fd, &size, &err), 0);
        assert_int_equal(size, image->layers[i].size_bytes);
        assert_int_equal(pread(fd, magic, 4, 0), 4);
        assert_memory_equal(magic, "hsqs", 4);
    }
    /* once more: nothing but the manifest and the config is fetched */
    unsigned before = fake_registry_count(f->registry, BLOB(0));
    expect_success(f);
    assert_int_equal(fake_registry_count(f->registry, BLOB(0)), before);
    /* and all of it is there after a restart */
    fake_node_reopen(&f->node);
    assert_int_equal(image_service_collect(f->node.svc, &err), 0);
    image_unref(image);
    image = NULL;
    assert_int_equal(image_get(f->node.svc, f->name, &image, &err), 0);
    assert_int_equal(fake_node_files(&f->node, "layers"), 2);
}

static void test_by_digest(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    cleanup_image struct image *image = NULL;
    fake_registry_serve(f->registry, "app", "1", &f->image);
    (void)snprintf(f->name, sizeof(f->name), "%s/app:ignored@%s", fake_registry_host(f->registry),
                   f->image.manifest_digest);
    expect_success(f);
    assert_int_equal(image_get(f->node.svc, f->name, &image, &err), 0);
    assert_int_equal(image->repo_tags.n, 0);
    assert_int_equal(image->repo_digests.n, 1);
}

static void test_index(void **state)
{
    struct fixture *f = *state;
    char *index = text_printf("{\"schemaVersion\": 2, \"manifests\": ["
                              "{\"digest\": \"sha256:%064d\", \"size\": 3, \"platform\": {\"os\": "
                              "\"linux\", \"architecture\": \"s390x\"}},"
                              "{\"digest\": \"%s\", \"size\": %zu, \"platform\": {\"os\": "
                              "\"linux\", \"architecture\": \"%s\"}}]}",
                              0, f->image.manifest_digest, strlen(f->image.manifest),
                              manifest_architecture());
    fake_registry_serve(f->registry, "app", "other", &f->image);
    add(f, "/v2/app/manifests/1", (struct fake_answer){.body = index, .n = strlen(index)});
    expect_success(f);
    free(index);
}

static void test_mirror_falls_back(void **state)
{
    struct fixture *f = *state;
    struct fake_registry *mirror = fake_registry_start();
    char url[128];
    char dead[] = "http://127.0.0.1:1/";
    const char *mirrors[] = {dead, url};
    (void)snprintf(url, sizeof(url), "http://%s", fake_registry_host(mirror));
    f->entry.mirrors = mirrors;
    f->entry.n_mirrors = 2;
    fake_node_reopen(&f->node);
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_success(f); /* the mirrors have nothing */
    assert_int_equal(fake_registry_count(mirror, "/v2/app/manifests/1"), 1);
    struct err err = {0};
    assert_int_equal(image_remove(f->node.svc, f->name, &err), 0);
    assert_nothing(f);
    fake_registry_serve(mirror, "app", "1", &f->image);
    unsigned before = fake_registry_count(f->registry, NULL);
    expect_success(f); /* and now everything */
    assert_int_equal(fake_registry_count(f->registry, NULL), before);
    f->entry.mirrors = NULL;
    f->entry.n_mirrors = 0;
    fake_registry_stop(mirror);
}

static void test_resumes(void **state)
{
    struct fixture *f = *state;
    struct fake_answer a = {
        .body = f->image.layers[0].bytes, .n = f->image.layers[0].n, .times = 2};
    a.mode = FAKE_CUT;
    add(f, BLOB(0), a);
    a.mode = FAKE_NO_RANGE;
    add(f, BLOB(0), a);
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_success(f);
    assert_int_equal(fake_registry_count(f->registry, BLOB(0)), 3);
}

static void test_retries_500(void **state)
{
    struct fixture *f = *state;
    add(f, "/v2/app/manifests/1", (struct fake_answer){.status = 503, .times = 1});
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 429, .times = 1, .headers = "Retry-After: 1\r\n"});
    add(f, BLOB(1), (struct fake_answer){.status = 500, .times = 2});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_success(f);
}

static void test_retry_after(void **state)
{
    struct fixture *f = *state;
    char date[64];
    char header[128];
    time_t then = time(NULL) + 2;
    struct tm tm;
    assert_true(strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&then, &tm)) >
                0);
    (void)snprintf(header, sizeof(header), "Retry-After: %s\r\n", date);
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 429, .times = 1, .headers = header});
    add(f, BLOB(1),
        (struct fake_answer){.status = 503, .times = 1, .headers = "Retry-After: 1\r\n"});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    int64_t start = clock_monotonic_ms();
    expect_success(f);
    assert_true(clock_monotonic_ms() - start >= 1900); /* the date has whole seconds: 1 to 2, + 1 */
}

static void test_retries_broken_connections(void **state)
{
    struct fixture *f = *state;
    add(f, "/v2/app/manifests/1", (struct fake_answer){.mode = FAKE_DROP, .times = 2});
    add(f, BLOB(0), (struct fake_answer){.mode = FAKE_DROP, .times = 2});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_success(f);
}

/* ---- what does not ---- */

static void test_no_such_tag(void **state)
{
    struct fixture *f = *state;
    static const char body[] =
        "{\"errors\": [{\"code\": \"MANIFEST_UNKNOWN\", \"message\": \"unknown\"}]}";
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 404, .body = body, .n = strlen(body)});
    expect_failure(f, ERR_NOT_FOUND, "unknown");
}

static void test_nobody_listens(void **state)
{
    struct fixture *f = *state;
    f->entry.host = "127.0.0.1:1";
    fake_node_reopen(&f->node);
    (void)snprintf(f->name, sizeof(f->name), "127.0.0.1:1/app:1");
    expect_failure(f, ERR_UNAVAILABLE, NULL);
}

static void test_html(void **state)
{
    struct fixture *f = *state;
    static const char body[] = "<html><body>captive portal</body></html>";
    add(f, "/v2/app/manifests/1", (struct fake_answer){.body = body, .n = strlen(body)});
    expect_failure(f, ERR_PROTOCOL, "not valid JSON");
}

static void test_huge_manifest(void **state)
{
    struct fixture *f = *state;
    add(f, "/v2/app/manifests/1", (struct fake_answer){.mode = FAKE_ENDLESS});
    expect_failure(f, ERR_PROTOCOL, "longer than");
}

static void test_wrong_manifest_digest(void **state)
{
    struct fixture *f = *state;
    char header[160];
    (void)snprintf(header, sizeof(header), "Docker-Content-Digest: sha256:%064d\r\n", 1);
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){
            .body = f->image.manifest, .n = strlen(f->image.manifest), .headers = header});
    expect_failure(f, ERR_PROTOCOL, "digest");
}

static void test_wrong_blob(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes = malloc(f->image.layers[0].n);
    memcpy(bytes, f->image.layers[0].bytes, f->image.layers[0].n);
    bytes[4] ^= 1; /* gzip's time field: it still unpacks */
    add(f, BLOB(0), (struct fake_answer){.body = bytes, .n = f->image.layers[0].n});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_PROTOCOL, "digest");
    free(bytes);
}

static void test_wrong_diff_id(void **state)
{
    struct fixture *f = *state;
    char *at = strstr(f->image.config, f->image.diff_ids[1]);
    char *old = f->image.config_digest;
    memset(at + 7, '0', 64);
    f->image.config_digest = fake_digest(f->image.config, strlen(f->image.config));
    memcpy(strstr(f->image.manifest, old), f->image.config_digest, strlen(old));
    free(old);
    free(f->image.manifest_digest);
    f->image.manifest_digest = fake_digest(f->image.manifest, strlen(f->image.manifest));
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_PROTOCOL, "unpacks to");
}

static void test_endless_blob(void **state)
{
    struct fixture *f = *state;
    add(f, BLOB(1), (struct fake_answer){.mode = FAKE_ENDLESS});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_PROTOCOL, NULL);
}

static void test_truncated_blob(void **state)
{
    struct fixture *f = *state;
    add(f, BLOB(1),
        (struct fake_answer){.body = f->image.layers[1].bytes, .n = f->image.layers[1].n / 2});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_UNAVAILABLE, "ends after");
}

static void test_stalled_blob(void **state)
{
    struct fixture *f = *state;
    add(f, BLOB(1),
        (struct fake_answer){
            .body = f->image.layers[1].bytes, .n = f->image.layers[1].n, .mode = FAKE_STALL});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    int64_t start = clock_monotonic_ms();
    expect_failure(f, ERR_UNAVAILABLE, NULL);
    assert_true(clock_monotonic_ms() - start < 15000);
}

static void test_slow_loris(void **state)
{
    struct fixture *f = *state;
    add(f, BLOB(1),
        (struct fake_answer){
            .body = f->image.layers[1].bytes, .n = f->image.layers[1].n, .mode = FAKE_TRICKLE});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    int64_t start = clock_monotonic_ms();
    expect_failure(f, ERR_UNAVAILABLE, NULL);
    assert_true(clock_monotonic_ms() - start < 18000);
}

static void test_hanging_registry(void **state)
{
    struct fixture *f = *state;
    add(f, "/v2/app/manifests/1", (struct fake_answer){.mode = FAKE_HANG});
    int64_t start = clock_monotonic_ms();
    expect_failure(f, ERR_UNAVAILABLE, NULL);
    assert_true(clock_monotonic_ms() - start < 15000);
}

static void test_redirect_loop(void **state)
{
    struct fixture *f = *state;
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 307, .headers = "Location: /v2/app/manifests/1\r\n"});
    expect_failure(f, ERR_PROTOCOL, "redirects");
}

static void test_redirect_to_file(void **state)
{
    struct fixture *f = *state;
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 307, .headers = "Location: file:///etc/passwd\r\n"});
    expect_failure(f, ERR_PROTOCOL, NULL);
}

static void test_unauthorized_loop(void **state)
{
    struct fixture *f = *state;
    char realm[256];
    static const char token[] = "{\"token\": \"t\"}";
    (void)snprintf(realm, sizeof(realm), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                   fake_registry_host(f->registry));
    add(f, "/v2/app/manifests/1", (struct fake_answer){.status = 401, .headers = realm});
    add(f, "/token", (struct fake_answer){.body = token, .n = strlen(token)});
    expect_failure(f, ERR_DENIED, "401");
    assert_int_equal(fake_registry_count(f->registry, "/token"), 1);
}

static void test_other_architecture(void **state)
{
    struct fixture *f = *state;
    fake_image_fini(&f->image);
    f->image = make_image("s390x");
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_UNSUPPORTED, "s390x");
}

static void test_climbing_layer(void **state)
{
    struct fixture *f = *state;
    static const struct fake_entry evil[] = {{"../../etc/passwd", 'f', 0644, "x"}, {NULL}};
    struct fake_bytes tar = fake_tar(evil);
    fake_image_fini(&f->image);
    f->image = fake_image_make(&tar, 1, manifest_architecture());
    free(tar.bytes);
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_PROTOCOL, "climbs out of the root");
}

/* ---- layers that need each other ---- */

static void serve_layers(struct fixture *f, const struct fake_entry *lower,
                         const struct fake_entry *upper)
{
    struct fake_bytes tars[] = {fake_tar(lower), fake_tar(upper)};
    fake_image_fini(&f->image);
    f->image = fake_image_make(tars, 2, manifest_architecture());
    free(tars[0].bytes);
    free(tars[1].bytes);
    fake_registry_serve(f->registry, "app", "1", &f->image);
}

static void test_completes_layers(void **state)
{
    static const struct fake_entry linking[] = {{"sh", 'h', 0, "bin/sh"}, {NULL}};
    struct fixture *f = *state;
    struct err err = {0};
    struct image *image = NULL;
    char id[DIGEST_TEXT_SIZE];
    serve_layers(f, LOWER, linking);
    for (int round = 0; round < 3; round++) { /* pulled, pulled again, after a restart */
        if (round == 2) {
            fake_node_reopen(&f->node);
            assert_int_equal(image_service_collect(f->node.svc, &err), 0);
        } else if (fake_node_pull(&f->node, f->name, NULL, &err) < 0) {
            fail_msg("%s", err.msg);
        }
        assert_int_equal(image_get(f->node.svc, f->name, &image, &err), 0);
        assert_int_equal(image->n_layers, 3);
        if (round == 0)
            (void)snprintf(id, sizeof(id), "%s", image->layers[2].diff_id);
        assert_string_equal(image->layers[2].diff_id, id);
        assert_int_equal(fake_node_files(&f->node, "layers"), 3);
        image_unref(image);
    }
    assert_int_equal(image_remove(f->node.svc, f->name, &err), 0);
    assert_nothing(f);
}

static void test_needs_no_completion(void **state)
{
    static const struct fake_entry implicit[] = {{"etc/c", 'f', 0644, "c"}, {NULL}};
    struct fixture *f = *state;
    serve_layers(f, LOWER, implicit);
    expect_success(f); /* two layers: etc is as it would be without being described */
    expect_success(f);
}

static void test_links_to_nothing(void **state)
{
    static const struct fake_entry linking[] = {{"sh", 'h', 0, "bin/no"}, {NULL}};
    struct fixture *f = *state;
    serve_layers(f, LOWER, linking);
    expect_failure(f, ERR_PROTOCOL, "hard link 'sh' to 'bin/no', which is no file");
}

/* ---- authentication ---- */

static void add_token_service(struct fixture *f, const char *want)
{
    char realm[256];
    static const char token[] = "{\"token\": \"sesame\"}";
    (void)snprintf(realm, sizeof(realm),
                   "WWW-Authenticate: Bearer realm=\"http://%s/token\",service=\"s\"\r\n",
                   fake_registry_host(f->registry));
    add(f, "/token",
        (struct fake_answer){.body = token, .n = strlen(token), .want_authorization = want});
    add(f, "/token", (struct fake_answer){.status = 401});
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.body = f->image.manifest,
                             .n = strlen(f->image.manifest),
                             .want_authorization = "Bearer sesame"});
    add(f, "/v2/app/manifests/1", (struct fake_answer){.status = 401, .headers = realm});
    fake_registry_serve(f->registry, "app", "1", &f->image);
}

static void test_anonymous_token(void **state)
{
    struct fixture *f = *state;
    add_token_service(f, "");
    expect_success(f);
}

static void test_token_with_password(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct image_auth auth = {.username = "user", .password = "pass:word"};
    add_token_service(f, "Basic dXNlcjpwYXNzOndvcmQ=");
    expect_failure(f, ERR_DENIED, "token service");
    assert_int_equal(fake_node_pull(&f->node, f->name, &auth, &err), 0);
}

static void test_basic(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct image_auth auth = {.auth = "dXNlcjpwYXNzOndvcmQ="};
    struct image_auth wrong = {.username = "user", .password = "wrong"};
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.body = f->image.manifest,
                             .n = strlen(f->image.manifest),
                             .want_authorization = "Basic dXNlcjpwYXNzOndvcmQ="});
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 401, .headers = "WWW-Authenticate: Basic realm=\"r\"\r\n"});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_DENIED, "wants credentials");
    assert_int_equal(fake_node_pull(&f->node, f->name, &wrong, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_null(strstr(err.msg, "wrong"));
    assert_int_equal(fake_node_pull(&f->node, f->name, &auth, &err), 0);
}

static void write_file(const char *dir, const char *name, mode_t mode, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* config.json names a helper, the helper prints `answer`; the registry wants Basic user:pass:word.
 */
static void use_helper(struct fixture *f, const char *script, char auth_file[256])
{
    char config[512];
    write_file(f->node.dir, "docker-credential-test", 0755, script);
    (void)snprintf(config, sizeof(config),
                   "{\"auths\": {\"%s\": {}}, \"credHelpers\": {\"%s\": \"test\"}}", f->entry.host,
                   f->entry.host);
    write_file(f->node.dir, "config.json", 0600, config);
    (void)snprintf(auth_file, 256, "%s/config.json", f->node.dir);
    f->node.auth_file = auth_file;
    fake_node_reopen(&f->node);
}

static void test_credential_helper(void **state)
{
    struct fixture *f = *state;
    char auth_file[256];
    char script[512];
    char *old_path = strdup(getenv("PATH"));
    char *path = text_printf("%s:%s", f->node.dir, old_path);
    assert_int_equal(setenv("PATH", path, 1), 0);
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.body = f->image.manifest,
                             .n = strlen(f->image.manifest),
                             .want_authorization = "Basic dXNlcjpwYXNzOndvcmQ="});
    add(f, "/v2/app/manifests/1",
        (struct fake_answer){.status = 401, .headers = "WWW-Authenticate: Basic realm=\"r\"\r\n"});
    fake_registry_serve(f->registry, "app", "1", &f->image);

    use_helper(f, "#!/bin/sh\necho credentials not found in native keychain\nexit 1\n", auth_file);
    expect_failure(f, ERR_DENIED, "wants credentials");
    use_helper(f, "#!/bin/sh\necho the vault is sealed >&2\nexit 3\n", auth_file);
    expect_failure(f, ERR_DENIED, "docker-credential-test: exit status 3: the vault is sealed");
    use_helper(f, "#!/bin/sh\necho nonsense\n", auth_file);
    expect_failure(f, ERR_PROTOCOL, "no Username");
    (void)snprintf(script, sizeof(script),
                   "#!/bin/sh\n[ \"$1\" = get ] && read -r host; [ \"$host\" = %s ] || exit 9\n"
                   "echo '{\"ServerURL\": \"x\", \"Username\": \"user\", \"Secret\": "
                   "\"pass:word\"}'\n",
                   f->entry.host);
    use_helper(f, script, auth_file);
    expect_success(f);
    assert_int_equal(setenv("PATH", old_path, 1), 0);
    free(path);
    free(old_path);
}

static void test_redirect_drops_authorization(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    struct image_auth auth = {.registry_token = "secret"};
    struct fake_registry *storage = fake_registry_start();
    char location[512];
    (void)snprintf(location, sizeof(location), "Location: http://%s%s\r\n",
                   fake_registry_host(storage), BLOB(0));
    add(f, BLOB(0), (struct fake_answer){.status = 307, .headers = location});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    fake_registry_serve(storage, "app", "1", &f->image);
    assert_int_equal(fake_node_pull(&f->node, f->name, &auth, &err), 0);
    assert_true(fake_registry_saw_authorization(f->registry, "Bearer secret"));
    assert_int_equal(fake_registry_count(storage, BLOB(0)), 1);
    assert_false(fake_registry_saw_authorization(storage, "Bearer secret"));
    fake_registry_stop(storage);
}

/* ---- cancelling and sharing ---- */

struct background {
    struct fixture *f;
    atomic_bool cancel;
    struct err err;
    int rc;
    pthread_t thread;
};

static bool is_cancelled(void *arg)
{
    struct background *b = arg;
    return atomic_load(&b->cancel);
}

static void *pull_in_background(void *arg)
{
    struct background *b = arg;
    char *id = NULL;
    struct image_pull_spec spec = {.reference = b->f->name,
                                   .deadline_ms = clock_deadline(20000),
                                   .cancelled = is_cancelled,
                                   .arg = b};
    b->rc = image_pull(b->f->node.svc, &spec, &id, &b->err);
    free(id);
    return NULL;
}

static void test_cancel(void **state)
{
    struct fixture *f = *state;
    struct background b = {.f = f};
    add(f, BLOB(0), (struct fake_answer){.mode = FAKE_HANG});
    fake_registry_serve(f->registry, "app", "1", &f->image);
    assert_int_equal(pthread_create(&b.thread, NULL, pull_in_background, &b), 0);
    fake_registry_wait(f->registry, BLOB(0), 1);
    int64_t start = clock_monotonic_ms();
    atomic_store(&b.cancel, true);
    assert_int_equal(pthread_join(b.thread, NULL), 0);
    assert_true(clock_monotonic_ms() - start <
                800); /* before the stall detection would say something */
    assert_int_equal(b.rc, -1);
    assert_int_equal(b.err.code, ERR_CANCELLED);
    assert_nothing(f);
}

static void test_shared_transfer(void **state)
{
    struct fixture *f = *state;
    struct background b[4];
    fake_registry_serve(f->registry, "app", "1", &f->image);
    for (size_t i = 0; i < ARRAY_SIZE(b); i++) {
        b[i] = (struct background){.f = f};
        assert_int_equal(pthread_create(&b[i].thread, NULL, pull_in_background, &b[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(b); i++) {
        assert_int_equal(pthread_join(b[i].thread, NULL), 0);
        if (b[i].rc != 0)
            fail_msg("%s", b[i].err.msg);
    }
    assert_int_equal(fake_registry_count(f->registry, BLOB(0)), 1);
    assert_int_equal(fake_registry_count(f->registry, BLOB(1)), 1);
}

static void test_limits(void **state)
{
    struct fixture *f = *state;
    f->node.limits.layer_entries = 2;
    fake_node_reopen(&f->node);
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_EXHAUSTED, "more than 2 entries");
    f->node.limits.layer_entries = 0;
    f->node.limits.layer_bytes = 2048;
    fake_node_reopen(&f->node);
    expect_failure(f, ERR_EXHAUSTED, NULL);
}

static void test_missing_converter(void **state)
{
    struct fixture *f = *state;
    free(f->node.converter);
    f->node.converter = strdup("/nonexistent/casemate-convert");
    fake_node_reopen(&f->node);
    fake_registry_serve(f->registry, "app", "1", &f->image);
    expect_failure(f, ERR_NOT_FOUND, "layer converter");
    /* a program that answers nothing */
    free(f->node.converter);
    f->node.converter = strdup("/bin/true");
    fake_node_reopen(&f->node);
    expect_failure(f, ERR_SYSTEM, "layer converter");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    char *converter = fake_node_converter();
    if (converter == NULL)
        print_message("SKIP: casemate-convert is not built (make all)\n");
    const struct CMUnitTest tests[] = {
        TEST(test_pull),
        TEST(test_by_digest),
        TEST(test_index),
        TEST(test_mirror_falls_back),
        TEST(test_resumes),
        TEST(test_retries_500),
        TEST(test_retry_after),
        TEST(test_retries_broken_connections),
        TEST(test_no_such_tag),
        TEST(test_nobody_listens),
        TEST(test_html),
        TEST(test_huge_manifest),
        TEST(test_wrong_manifest_digest),
        TEST(test_wrong_blob),
        TEST(test_wrong_diff_id),
        TEST(test_endless_blob),
        TEST(test_truncated_blob),
        TEST(test_stalled_blob),
        TEST(test_slow_loris),
        TEST(test_hanging_registry),
        TEST(test_redirect_loop),
        TEST(test_redirect_to_file),
        TEST(test_unauthorized_loop),
        TEST(test_other_architecture),
        TEST(test_climbing_layer),
        TEST(test_completes_layers),
        TEST(test_needs_no_completion),
        TEST(test_links_to_nothing),
        TEST(test_anonymous_token),
        TEST(test_token_with_password),
        TEST(test_basic),
        TEST(test_credential_helper),
        TEST(test_redirect_drops_authorization),
        TEST(test_cancel),
        TEST(test_shared_transfer),
        TEST(test_limits),
        TEST(test_missing_converter),
    };
    int rc = converter == NULL ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
    free(converter);
    return rc;
}
