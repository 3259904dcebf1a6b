/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The challenge parser walks the header once: scheme, then name=value pairs, values plain or quoted
 * with backslash escapes. Unknown parameters are skipped, a value that does not fit is an error
 * rather than cut short, because half a realm is another realm.
 */
#include "host/image/auth.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"

/* ---- challenge ---- */

static const char *skip_blanks(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == ',')
        p++;
    return p;
}

/* One value, plain or quoted, into out. The place behind it, or NULL when it is malformed or too
 * long. */
static const char *take_value(const char *p, char *out, size_t size)
{
    size_t n = 0;
    bool quoted = *p == '"';
    if (quoted)
        p++;
    for (;; p++) {
        if (quoted ? *p == '"' : (*p == '\0' || *p == ',' || *p == ' ' || *p == '\t'))
            break;
        if (quoted && *p == '\\')
            p++;
        if (*p == '\0' || n + 1 >= size)
            return NULL;
        out[n++] = *p;
    }
    out[n] = '\0';
    return quoted ? p + 1 : p;
}

int auth_parse_challenge(const char *value, struct auth_challenge *ret_challenge, struct err *err)
{
    struct auth_challenge c = {0};
    char name[32];
    char other[2048];
    const char *p = skip_blanks(value);
    size_t n = strcspn(p, " \t,=");
    if (n == 6 && strncasecmp(p, "Bearer", n) == 0)
        c.scheme = AUTH_BEARER;
    else if (n == 5 && strncasecmp(p, "Basic", n) == 0)
        c.scheme = AUTH_BASIC;
    p += n;
    while (c.scheme != AUTH_NONE && *(p = skip_blanks(p)) != '\0') {
        n = strcspn(p, "=, \t\"");
        if (p[n] != '=')
            break; /* the next challenge in the same header */
        if (n == 0 || n >= sizeof(name))
            return err_set(err, ERR_PROTOCOL, "malformed WWW-Authenticate header");
        memcpy(name, p, n);
        name[n] = '\0';
        p += n + 1;
        if (strcasecmp(name, "realm") == 0)
            p = take_value(p, c.realm, sizeof(c.realm));
        else if (strcasecmp(name, "service") == 0)
            p = take_value(p, c.service, sizeof(c.service));
        else if (strcasecmp(name, "scope") == 0)
            p = take_value(p, c.scope, sizeof(c.scope));
        else
            p = take_value(p, other, sizeof(other));
        if (p == NULL)
            return err_set(err, ERR_PROTOCOL, "malformed WWW-Authenticate header");
    }
    if (c.scheme == AUTH_BEARER && c.realm[0] == '\0')
        return err_set(err, ERR_PROTOCOL, "WWW-Authenticate header names no realm");
    *ret_challenge = c;
    return 0;
}

/* ---- token ---- */

static bool is_token_text(const char *s)
{
    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++)
        if (*s <= ' ' || *s > '~') /* it goes into a header line */
            return false;
    return true;
}

int auth_parse_token(const char *json, size_t n, char **ret_token, struct err *err)
{
    json_error_t why;
    json_t *root = json_loadb(json, n, 0, &why);
    const char *token = json_string_value(json_object_get(root, "token"));
    if (token == NULL || token[0] == '\0')
        token = json_string_value(json_object_get(root, "access_token"));
    char *copy = token != NULL && is_token_text(token) ? strdup(token) : NULL;
    bool usable = token != NULL && is_token_text(token);
    json_decref(root);
    if (!usable)
        return err_set(err, ERR_PROTOCOL, "the token service's answer holds no token");
    if (copy == NULL)
        return err_no_memory(err);
    *ret_token = copy;
    return 0;
}

/* ---- credentials ---- */

void auth_wipe_free(char *secret)
{
    if (secret == NULL)
        return;
    explicit_bzero(secret, strlen(secret));
    free(secret);
}

void auth_credentials_fini(struct auth_credentials *c)
{
    auth_wipe_free(c->username);
    auth_wipe_free(c->password);
    auth_wipe_free(c->identity_token);
    auth_wipe_free(c->registry_token);
    *c = (struct auth_credentials){0};
}

static int copy_text(const char *text, char **ret_copy, struct err *err)
{
    if (text == NULL || text[0] == '\0')
        return 0;
    char *copy = strdup(text);
    if (copy == NULL)
        return err_no_memory(err);
    auth_wipe_free(*ret_copy);
    *ret_copy = copy;
    return 0;
}

/* base64("user:password") into c. */
static int decode_pair(const char *encoded, struct auth_credentials *c, struct err *err)
{
    size_t n = strlen(encoded);
    if (n == 0)
        return 0;
    if (n > 65536 || n % 4 != 0)
        return err_set(err, ERR_INVALID, "credentials are not valid base64");
    char *raw = calloc(1, n / 4 * 3 + 1);
    if (raw == NULL)
        return err_no_memory(err);
    int len = EVP_DecodeBlock((unsigned char *)raw, (const unsigned char *)encoded, (int)n);
    char *colon = len < 0 ? NULL : strchr(raw, ':');
    int rc;
    if (colon == NULL) {
        rc = err_set(err, ERR_INVALID, "credentials are not base64 of name:password");
    } else {
        *colon = '\0';
        rc = copy_text(raw, &c->username, err);
        if (rc == 0)
            rc = copy_text(colon + 1, &c->password, err);
    }
    explicit_bzero(raw, n / 4 * 3 + 1);
    free(raw);
    return rc;
}

/* The host part of "https://host/v1/" or "host". */
static bool names_host(const char *address, const char *host)
{
    const char *p = strstr(address, "://");
    p = p == NULL ? address : p + 3;
    size_t n = strcspn(p, "/");
    if (n == strlen("index.docker.io") && strncmp(p, "index.docker.io", n) == 0)
        return strcmp(host, "docker.io") == 0;
    return n == strlen(host) && strncmp(p, host, n) == 0;
}

int auth_from_cri(const struct image_auth *auth, const char *host,
                  struct auth_credentials *ret_credentials, struct err *err)
{
    struct auth_credentials c = {0};
    *ret_credentials = c;
    if (auth == NULL)
        return 0;
    if (auth->server_address != NULL && auth->server_address[0] != '\0' &&
        !names_host(auth->server_address, host))
        return 0;
    if ((auth->auth != NULL && decode_pair(auth->auth, &c, err) < 0) ||
        copy_text(auth->username, &c.username, err) < 0 ||
        copy_text(auth->password, &c.password, err) < 0 ||
        copy_text(auth->identity_token, &c.identity_token, err) < 0 ||
        copy_text(auth->registry_token, &c.registry_token, err) < 0) {
        auth_credentials_fini(&c);
        return -1;
    }
    *ret_credentials = c;
    return 0;
}

int auth_from_config(const char *json, size_t n, const char *host,
                     struct auth_credentials *ret_credentials, struct err *err)
{
    struct auth_credentials c = {0};
    json_error_t why;
    json_t *root = json_loadb(json, n, 0, &why);
    const char *address;
    json_t *entry;
    int rc = root == NULL ? err_set(err, ERR_PROTOCOL, "line %d: %s", why.line, why.text) : 0;
    *ret_credentials = c;
    json_object_foreach(json_object_get(root, "auths"), address, entry)
    {
        if (rc < 0 || !names_host(address, host))
            continue;
        const char *pair = json_string_value(json_object_get(entry, "auth"));
        if ((pair != NULL && decode_pair(pair, &c, err) < 0) ||
            copy_text(json_string_value(json_object_get(entry, "username")), &c.username, err) <
                0 ||
            copy_text(json_string_value(json_object_get(entry, "password")), &c.password, err) <
                0 ||
            copy_text(json_string_value(json_object_get(entry, "identitytoken")), &c.identity_token,
                      err) < 0 ||
            copy_text(json_string_value(json_object_get(entry, "registrytoken")), &c.registry_token,
                      err) < 0)
            rc = -1;
    }
    json_decref(root);
    if (rc < 0)
        auth_credentials_fini(&c);
    else
        *ret_credentials = c;
    return rc;
}

char *auth_basic_value(const char *username, const char *password)
{
    char *pair = text_printf("%s:%s", text_or_empty(username), text_or_empty(password));
    if (pair == NULL)
        return NULL;
    size_t n = strlen(pair);
    char *value = calloc(1, 6 + (n + 2) / 3 * 4 + 1);
    if (value != NULL) {
        memcpy(value, "Basic ", 6);
        (void)EVP_EncodeBlock((unsigned char *)value + 6, (const unsigned char *)pair, (int)n);
    }
    auth_wipe_free(pair);
    return value;
}
