/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fakes/fake_registry_node.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"

enum { PULL_MS = 20000, NOBODY = 65534 };

static void require(bool ok, const char *what, const struct err *err)
{
    if (!ok) {
        fprintf(stderr, "%s: %s\n", what, err == NULL ? "" : err->msg);
        abort();
    }
}

char *fake_node_converter(void)
{
    char self[4096];
    const char *given = getenv("CASEMATE_CONVERT");
    if (given != NULL)
        return strdup(given);
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    require(n > 0, "readlink", NULL);
    self[n] = '\0';
    char *tests = strstr(self, "/tests/unit/");
    if (tests == NULL)
        return NULL;
    *tests = '\0';
    char *path = text_printf("%s/bin/casemate-convert", self);
    if (path != NULL && access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static void open_service(struct fake_node *n)
{
    struct err err = {0};
    char *db = text_printf("%s/records.db", n->dir);
    char *root = text_printf("%s/images", n->dir);
    struct image_config config = {.root = root,
                                  .converter = n->converter,
                                  .converter_uid = NOBODY,
                                  .converter_gid = NOBODY,
                                  .registries = n->registries,
                                  .n_registries = n->n_registries,
                                  .pinned = n->pinned,
                                  .n_pinned = n->n_pinned,
                                  .auth_file = n->auth_file,
                                  .limits = n->limits};
    require(store_open(db, &n->store, &err) == 0, "store_open", &err);
    require(image_service_open(&config, n->store, &n->svc, &err) == 0, "image_service_open", &err);
    free(db);
    free(root);
}

static void close_service(struct fake_node *n)
{
    image_service_free(n->svc);
    store_close(n->store);
    n->svc = NULL;
    n->store = NULL;
}

void fake_node_open(struct fake_node *n)
{
    log_set_level(LOG_ERROR);
    (void)snprintf(n->dir, sizeof(n->dir), "/tmp/casemate-test.XXXXXX");
    require(mkdtemp(n->dir) != NULL, "mkdtemp", NULL);
    n->converter = fake_node_converter();
    require(n->converter != NULL, "casemate-convert is missing", NULL);
    if (n->limits.stall_s == 0)
        n->limits.stall_s = 1;
    open_service(n);
}

void fake_node_reopen(struct fake_node *n)
{
    close_service(n);
    open_service(n);
}

void fake_node_close(struct fake_node *n)
{
    struct err err = {0};
    close_service(n);
    require(fd_remove_tree(AT_FDCWD, n->dir, &err) == 0, "remove", &err);
    free(n->converter);
}

unsigned fake_node_files(const struct fake_node *n, const char *sub)
{
    unsigned count = 0;
    struct dirent *d;
    char *path = text_printf("%s/images/%s", n->dir, sub);
    DIR *dir = opendir(path);
    require(dir != NULL, "opendir", NULL);
    while ((d = readdir(dir)) != NULL)
        if (d->d_name[0] != '.')
            count++;
    (void)closedir(dir);
    free(path);
    return count;
}

int fake_node_pull(struct fake_node *n, const char *reference, const struct image_auth *auth,
                   struct err *err)
{
    char *id = NULL;
    struct image_pull_spec spec = {
        .reference = reference, .auth = auth, .deadline_ms = clock_deadline(PULL_MS)};
    int rc = image_pull(n->svc, &spec, &id, err);
    free(id);
    return rc;
}
