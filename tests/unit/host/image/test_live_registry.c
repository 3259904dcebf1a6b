/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The image service against a registry that somebody else runs: a command line for
 * tests/integration/test_image_*.sh (see usage), and, started without arguments as a unit test, a
 * named skip.
 *
 *   test_live_registry ROOT COMMAND…
 *     pull REF | import PATH [REF] | get NAME | list | remove NAME | collect | fsinfo
 * Environment: CONVERTER (path), REGISTRY (host that is plain http), MIRROR (base URL for
 * docker.io), AUTH (user:password), IDENTITY (refresh token), AUTH_FILE (config.json), CA (PEM for
 * REGISTRY over https), CLIENT (file with certificate and key for it), TIMEOUT_MS, COMPRESSION.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/image/image.h"
#include "host/store/store.h"

static void print_image(const struct image *i)
{
    printf("id %s\n", i->id);
    for (size_t k = 0; k < i->repo_tags.n; k++)
        printf("tag %s\n", i->repo_tags.items[k]);
    for (size_t k = 0; k < i->repo_digests.n; k++)
        printf("digest %s\n", i->repo_digests.items[k]);
    printf("size %llu\n", (unsigned long long)i->size_bytes);
    for (size_t k = 0; k < i->n_layers; k++)
        printf("layer %s\n", i->layers[k].path);
    for (size_t k = 0; k < i->env.n; k++)
        printf("env %s\n", i->env.items[k]);
    for (size_t k = 0; k < i->cmd.n; k++)
        printf("cmd %s\n", i->cmd.items[k]);
}

static int get_one(struct image_service *svc, const char *name, struct err *err)
{
    cleanup_image struct image *image = NULL;
    if (image_get(svc, name, &image, err) < 0)
        return -1;
    print_image(image);
    return 0;
}

static int do_list(struct image_service *svc, struct err *err)
{
    struct image_list list;
    if (image_list(svc, &list, err) < 0)
        return -1;
    for (size_t i = 0; i < list.n; i++)
        print_image(list.items[i]);
    image_list_fini(&list);
    return 0;
}

static int64_t deadline(void)
{
    const char *text = getenv("TIMEOUT_MS");
    uint64_t ms = 120000;
    if (text != NULL)
        (void)text_parse_u64(text, 3600000, &ms);
    return clock_deadline((int64_t)ms);
}

static int do_pull(struct image_service *svc, const char *reference, struct err *err)
{
    char user[256] = "";
    const char *auth_text = getenv("AUTH");
    struct image_auth auth = {0};
    if (auth_text != NULL) {
        (void)snprintf(user, sizeof(user), "%s", auth_text);
        char *colon = strchr(user, ':');
        if (colon == NULL)
            return err_set(err, ERR_INVALID, "AUTH has no colon");
        *colon = '\0';
        auth.username = user;
        auth.password = colon + 1;
    }
    auth.identity_token = getenv("IDENTITY");
    bool has_auth = auth_text != NULL || auth.identity_token != NULL;
    struct image_pull_spec spec = {
        .reference = reference, .auth = has_auth ? &auth : NULL, .deadline_ms = deadline()};
    char *id = NULL;
    if (image_pull(svc, &spec, &id, err) < 0)
        return -1;
    printf("%s\n", id);
    free(id);
    return 0;
}

static int do_import(struct image_service *svc, const char *path, const char *reference,
                     struct err *err)
{
    struct image_import_spec spec = {
        .path = path, .reference = reference, .deadline_ms = deadline()};
    char **ids = NULL;
    size_t n = 0;
    if (image_import(svc, &spec, &ids, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        printf("%s\n", ids[i]);
    image_ids_free(ids, n);
    return 0;
}

static int run(struct image_service *svc, int argc, char **argv, struct err *err)
{
    const char *what = argv[0];
    const char *arg = argc > 1 ? argv[1] : "";
    struct image_fs_info info;
    if (strcmp(what, "pull") == 0)
        return do_pull(svc, arg, err);
    if (strcmp(what, "import") == 0)
        return do_import(svc, arg, argc > 2 ? argv[2] : NULL, err);
    if (strcmp(what, "get") == 0)
        return get_one(svc, arg, err);
    if (strcmp(what, "list") == 0)
        return do_list(svc, err);
    if (strcmp(what, "remove") == 0)
        return image_remove(svc, arg, err);
    if (strcmp(what, "collect") == 0)
        return image_service_collect(svc, err);
    if (strcmp(what, "fsinfo") == 0) {
        if (image_fs_info(svc, &info, err) < 0)
            return -1;
        printf("%llu %llu %s\n", (unsigned long long)info.used_bytes,
               (unsigned long long)info.inodes, info.mountpoint);
        return 0;
    }
    return err_set(err, ERR_INVALID, "unknown command '%s'", what);
}

static int command_line(int argc, char **argv)
{
    struct err err = {0};
    cleanup_store struct store *store = NULL;
    struct image_service *svc = NULL;
    cleanup_free char *db = text_printf("%s/records.db", argv[1]);
    cleanup_free char *root = text_printf("%s/images", argv[1]);
    const char *mirror = getenv("MIRROR");
    const char *host = getenv("REGISTRY");
    const char *mirrors[] = {mirror};
    const struct image_registry registries[] = {
        {.host = host == NULL ? "none" : host,
         .plain_http = getenv("CA") == NULL,
         .ca_file = getenv("CA"),
         .client_cert_file = getenv("CLIENT")},
        {.host = "docker.io", .mirrors = mirrors, .n_mirrors = mirror == NULL ? 0 : 1},
    };
    enum image_compression compression = IMAGE_COMPRESSION_ZSTD;
    if (getenv("COMPRESSION") != NULL)
        (void)image_compression_parse(getenv("COMPRESSION"), &compression);
    struct image_config config = {.root = root,
                                  .converter = getenv("CONVERTER"),
                                  .converter_uid = 65534,
                                  .converter_gid = 65534,
                                  .compression = compression,
                                  .registries = registries,
                                  .n_registries = ARRAY_SIZE(registries),
                                  .auth_file = getenv("AUTH_FILE"),
                                  .limits = {.stall_s = 3}};
    int rc = fd_make_dirs(argv[1], 0700, &err);
    if (rc == 0)
        rc = store_open(db, &store, &err);
    if (rc == 0)
        rc = image_service_open(&config, store, &svc, &err);
    if (rc == 0)
        rc = run(svc, argc - 2, argv + 2, &err);
    image_service_free(svc);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", err_code_name(err.code), err.msg);
    return rc < 0 ? 1 : 0;
}

static void test_needs_a_registry(void **state)
{
    (void)state;
    print_message("SKIP: needs a registry, see tests/integration/test_image_registry.sh\n");
    skip();
}

int main(int argc, char **argv)
{
    if (argc > 2)
        return command_line(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_needs_a_registry)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
