/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bearer wins over Basic when both are offered. Credentials travel to the token service only if it
 * is spoken to at least as safely as the registry: an https registry cannot send them to an http
 * realm. Redirects of a token service are not followed; nobody needs them, and they would carry
 * credentials along.
 */
#include "host/image/registry_token.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/text.h"

enum { MAX_TOKEN_ANSWER = 256 * 1024, MAX_FORM = 64 * 1024 };

void token_error_text(const char *body, size_t n, char *ret_text, size_t size)
{
    json_error_t why;
    json_t *root = json_loadb(body, n, 0, &why);
    const json_t *first = json_array_get(json_object_get(root, "errors"), 0);
    const char *message = json_string_value(json_object_get(first, "message"));
    const char *code = json_string_value(json_object_get(first, "code"));
    if (message == NULL)
        message = json_string_value(json_object_get(root, "details"));
    (void)snprintf(ret_text, size, "%s", text_or_empty(message != NULL ? message : code));
    json_decref(root);
}

static int collect(void *arg, const void *bytes, size_t n, struct err *err)
{
    return buf_append(arg, bytes, n, err);
}

/* Appends "<separator>key=<escaped value>". */
static int add_parameter(struct buf *b, const char *separator, const char *key, const char *value,
                         struct err *err)
{
    char *escaped = curl_easy_escape(NULL, value, (int)strlen(value));
    if (escaped == NULL)
        return err_no_memory(err);
    int rc = buf_printf(b, err, "%s%s=%s", separator, key, escaped);
    explicit_bzero(escaped, strlen(escaped));
    curl_free(escaped);
    return rc;
}

static int make_url(const struct token_spec *spec, const struct auth_challenge *c, char **ret_url,
                    struct err *err)
{
    cleanup_buf struct buf b = BUF_INIT(HTTP_MAX_URL);
    char scope[512];
    (void)snprintf(scope, sizeof(scope), "repository:%s:pull", spec->repository);
    const char *separator = strchr(c->realm, '?') == NULL ? "?" : "&";
    if (buf_printf(&b, err, "%s", c->realm) < 0)
        return -1;
    if (c->service[0] != '\0') {
        if (add_parameter(&b, separator, "service", c->service, err) < 0)
            return -1;
        separator = "&";
    }
    if (add_parameter(&b, separator, "scope", c->scope[0] != '\0' ? c->scope : scope, err) < 0)
        return -1;
    return buf_take_string(&b, ret_url, err);
}

static int make_form(const struct token_spec *spec, const struct auth_challenge *c, char **ret_form,
                     struct err *err)
{
    struct buf b = BUF_INIT(MAX_FORM);
    int rc = buf_printf(&b, err, "grant_type=refresh_token&client_id=casemate");
    if (rc == 0)
        rc = add_parameter(&b, "&", "service", c->service, err);
    if (rc == 0)
        rc = add_parameter(&b, "&", "scope", c->scope, err);
    if (rc == 0)
        rc = add_parameter(&b, "&", "refresh_token", spec->credentials->identity_token, err);
    if (rc == 0)
        rc = buf_take_string(&b, ret_form, err);
    buf_fini(&b);
    return rc;
}

static bool is_below(const char *url, const char *base)
{
    return text_has_prefix(url, base) && strchr("/?#", url[strlen(base)]) != NULL;
}

/* Sends the token request; the answer's body in *answer. */
static int request_token(struct http_client *client, const struct token_spec *spec,
                         const struct auth_challenge *c, struct buf *answer,
                         struct http_response *resp, struct err *err)
{
    const struct auth_credentials *cred = spec->credentials;
    /* A service elsewhere may be certified by the same authority, but our own certificate is for
     * the registry. */
    struct http_tls ca_only = {.ca_file = spec->tls->ca_file};
    const struct http_tls *tls = is_below(c->realm, spec->endpoint) ? spec->tls : &ca_only;
    const char *headers[2] = {NULL};
    cleanup_free char *url = NULL;
    char *form = NULL;
    char *line = NULL;
    int rc;
    if (cred->identity_token != NULL) {
        rc = make_form(spec, c, &form, err);
    } else {
        rc = make_url(spec, c, &url, err);
        if (rc == 0 && cred->username != NULL) {
            char *value = auth_basic_value(cred->username, cred->password);
            line = value == NULL ? NULL : text_printf("Authorization: %s", value);
            auth_wipe_free(value);
            rc = line == NULL ? err_no_memory(err) : 0;
            headers[0] = line;
        }
    }
    if (rc == 0) {
        struct http_request q = {.url = url != NULL ? url : c->realm,
                                 .headers = headers,
                                 .post_body = form,
                                 .tls = tls,
                                 .on_body = collect,
                                 .on_body_arg = answer,
                                 .max_body = MAX_TOKEN_ANSWER};
        rc = http_perform(client, spec->limits, &q, resp, err);
    }
    auth_wipe_free(line);
    auth_wipe_free(form);
    return rc;
}

static int obtain_bearer(struct http_client *client, const struct token_spec *spec,
                         const struct auth_challenge *c, char **ret_value, struct err *err)
{
    struct buf answer = BUF_INIT(MAX_TOKEN_ANSWER);
    char *token = NULL;
    cleanup_free struct http_response *resp = malloc(sizeof(*resp));
    if (resp == NULL)
        return err_no_memory(err);
    bool https_only = text_has_prefix(spec->endpoint, "https://");
    if (!text_has_prefix(c->realm, "https://") &&
        (https_only || !text_has_prefix(c->realm, "http://")))
        return err_set(err, ERR_PROTOCOL, "token service '%.200s' is not reached over https",
                       c->realm);
    int rc = request_token(client, spec, c, &answer, resp, err);
    if (rc == 0 && resp->status != 200) {
        char text[256];
        token_error_text(resp->body, resp->body_len, text, sizeof(text));
        enum err_code code =
            resp->status == 429 || resp->status >= 500 ? ERR_UNAVAILABLE : ERR_DENIED;
        rc = err_set(err, code, "HTTP status %d%s%s", resp->status, text[0] == '\0' ? "" : ": ",
                     text);
    }
    if (rc == 0)
        rc = auth_parse_token((const char *)buf_bytes(&answer), answer.len, &token, err);
    if (answer.data != NULL)
        explicit_bzero(answer.data, answer.capacity);
    buf_fini(&answer);
    if (rc < 0)
        return err_prefix(err, "token service '%.200s'", c->realm);
    *ret_value = text_printf("Bearer %s", token);
    auth_wipe_free(token);
    return *ret_value == NULL ? err_no_memory(err) : 0;
}

int token_obtain(struct http_client *client, const struct token_spec *spec,
                 const struct http_response *resp, char **ret_value, struct err *err)
{
    struct auth_challenge c = {0};
    bool basic = false;
    for (unsigned i = 0; i < resp->n_challenges; i++) {
        if (auth_parse_challenge(resp->challenges[i], &c, err) < 0)
            return -1;
        if (c.scheme == AUTH_BEARER)
            return obtain_bearer(client, spec, &c, ret_value, err);
        basic = basic || c.scheme == AUTH_BASIC;
    }
    if (!basic)
        return err_set(err, ERR_DENIED, "the registry wants credentials of an unknown kind");
    if (spec->credentials->username == NULL)
        return err_set(err, ERR_DENIED, "the registry wants credentials");
    *ret_value = auth_basic_value(spec->credentials->username, spec->credentials->password);
    return *ret_value == NULL ? err_no_memory(err) : 0;
}
