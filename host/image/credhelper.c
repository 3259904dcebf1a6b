/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol: `docker-credential-NAME get`, the server's name on stdin, a JSON object with
 * Username and Secret on stdout. A helper that knows nothing prints "credentials not found in
 * native keychain" and exits with 1. The user name "<token>" marks the secret as an identity token.
 * Docker Hub is asked for by the address that `docker login` files it under.
 */
#include "host/image/credhelper.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/spawn.h"
#include "common/base/text.h"

#define HUB_ADDRESS  "https://index.docker.io/v1/"
#define NOT_FOUND    "credentials not found"
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { MAX_ANSWER = 256 * 1024, TIMEOUT_MS = 10000 };

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return n > 0 && n <= CREDHELPER_MAX_NAME && s[n] == '\0';
}

/* The name under which config.json and helpers file a host. */
static const char *server_of(const char *host)
{
    return strcmp(host, "docker.io") == 0 ? HUB_ADDRESS : host;
}

int credhelper_find(const char *json, size_t n, const char *host,
                    char ret_name[CREDHELPER_MAX_NAME + 1], struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(json, n, 0, &why);
    if (root == NULL)
        return err_set(err, ERR_PROTOCOL, "line %d: %s", why.line, why.text);
    const json_t *helpers = json_object_get(root, "credHelpers");
    const char *name = json_string_value(json_object_get(helpers, host));
    if (name == NULL)
        name = json_string_value(json_object_get(helpers, server_of(host)));
    if (name == NULL)
        name = text_or_empty(json_string_value(json_object_get(root, "credsStore")));
    int rc = 0;
    if (name[0] != '\0' && !is_name(name))
        rc = err_set(err, ERR_PROTOCOL, "credential helper '%.100s' is not a program's name", name);
    else
        (void)snprintf(ret_name, CREDHELPER_MAX_NAME + 1, "%s", name);
    json_decref(root);
    return rc;
}

static int copy_secret(const char *text, char **ret_copy, struct err *err)
{
    *ret_copy = strdup(text);
    return *ret_copy == NULL ? err_no_memory(err) : 0;
}

int credhelper_parse(const char *json, size_t n, struct auth_credentials *ret_credentials,
                     struct err *err)
{
    struct auth_credentials c = {0};
    json_error_t why;
    json_t *root = json_loadb(json, n, 0, &why);
    const char *user = json_string_value(json_object_get(root, "Username"));
    const char *secret = json_string_value(json_object_get(root, "Secret"));
    int rc;
    if (user == NULL || secret == NULL)
        rc = err_set(err, ERR_PROTOCOL, "the answer has no Username and Secret");
    else if (strcmp(user, "<token>") == 0)
        rc = copy_secret(secret, &c.identity_token, err);
    else if ((rc = copy_secret(user, &c.username, err)) == 0)
        rc = copy_secret(secret, &c.password, err);
    json_decref(root);
    if (rc < 0)
        auth_credentials_fini(&c);
    else
        *ret_credentials = c;
    return rc;
}

/* The first program of that name in PATH; heap, NULL when there is none. */
static char *find_program(const char *name)
{
    const char *path = getenv("PATH");
    if (path == NULL || *path == '\0')
        path = DEFAULT_PATH;
    for (const char *p = path; *p != '\0'; p += strspn(p, ":")) {
        size_t n = strcspn(p, ":");
        char *file = text_printf("%.*s/docker-credential-%s", (int)n, p, name);
        if (file != NULL && file[0] == '/' && access(file, X_OK) == 0)
            return file;
        free(file);
        p += n;
    }
    return NULL;
}

/* What the helper said, judged. */
static int judge(const struct spawn_output *out, struct auth_credentials *ret_credentials,
                 struct err *err)
{
    if (out->status == 0)
        return credhelper_parse(out->out, out->out_len, ret_credentials, err);
    if (strstr(out->out, NOT_FOUND) != NULL || strstr(out->err_text, NOT_FOUND) != NULL)
        return 0;
    const char *text = out->err_text[0] != '\0' ? out->err_text : out->out;
    return err_set(err, ERR_DENIED, "exit status %d: %.*s", out->status, (int)strcspn(text, "\r\n"),
                   text_is_utf8(text, strlen(text)) ? text : "");
}

int credhelper_get(const char *name, const char *host, int64_t deadline_ms,
                   struct auth_credentials *ret_credentials, struct err *err)
{
    struct spawn_output out = {0};
    struct auth_credentials c = {0};
    cleanup_free char *program = find_program(name);
    if (program == NULL)
        return err_set(err, ERR_DENIED, "docker-credential-%s is not in PATH", name);
    const char *const argv[] = {program, "get", NULL};
    const struct spawn_spec spec = {.path = program,
                                    .argv = argv,
                                    .envp = (const char *const *)environ,
                                    .new_session = true,
                                    .die_with_parent = true};
    int64_t until = clock_earlier(clock_deadline(TIMEOUT_MS), deadline_ms);
    int rc = spawn_run(&spec, server_of(host), MAX_ANSWER, until, &out, err);
    if (rc == 0)
        rc = judge(&out, &c, err);
    if (out.out != NULL)
        explicit_bzero(out.out, out.out_len);
    free(out.out);
    free(out.err_text);
    if (rc < 0)
        return err_prefix(err, "docker-credential-%s", name);
    *ret_credentials = c;
    return 0;
}
