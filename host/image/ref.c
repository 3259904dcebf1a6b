/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar of github.com/distribution/reference, matched by hand from left to right:
 *
 *   reference := [domain "/"] path [":" tag] ["@" digest]
 *   domain    := component *("." component) [":" digits]  |  "[" hex-and-colons "]" [":" digits]
 *   path      := part *("/" part),  part := alnum+ *(separator alnum+),  separator := "_" | "__" |
 * "." | "-"+ tag       := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
 *
 * Whether the first component is a domain is decided before the grammar: it has a dot, a colon or
 * an upper-case letter, or is "localhost"; else the domain is docker.io.
 */
#include "host/image/ref.h"

#include <stdio.h>
#include <string.h>

#include "common/base/text.h"

#define DEFAULT_DOMAIN "docker.io"
#define DEFAULT_TAG    "latest"

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_lower(c) || is_upper(c) || is_digit(c);
}

/* Whether s (n bytes) is ":" and digits, or nothing. */
static bool port_is_valid(const char *s, size_t n)
{
    if (n == 0)
        return true;
    if (s[0] != ':' || n < 2)
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_digit(s[i]))
            return false;
    return true;
}

static bool domain_is_valid(const char *s, size_t n)
{
    size_t i = 0;
    if (n > 0 && s[0] == '[') {
        for (i = 1; i < n && s[i] != ']'; i++)
            if (!is_digit(s[i]) && s[i] != ':' && !(s[i] >= 'a' && s[i] <= 'f') &&
                !(s[i] >= 'A' && s[i] <= 'F'))
                return false;
        return i > 1 && i < n && port_is_valid(s + i + 1, n - i - 1);
    }
    size_t start = 0;
    for (i = 0; i <= n; i++) {
        if (i < n && s[i] != '.' && s[i] != ':') {
            if (!is_alnum(s[i]) && s[i] != '-')
                return false;
            continue;
        }
        if (i == start || s[start] == '-' || s[i - 1] == '-')
            return false;
        if (i < n && s[i] == ':')
            break;
        start = i + 1;
    }
    return i >= n || port_is_valid(s + i, n - i);
}

/* Length of the separator at s: "." or "_" or "__" or any number of "-"; 0 when there is none. */
static size_t separator_length(const char *s, size_t n)
{
    size_t i = 0;
    if (n == 0)
        return 0;
    if (s[0] == '.')
        return 1;
    if (s[0] == '_')
        return n > 1 && s[1] == '_' ? 2 : 1;
    while (i < n && s[i] == '-')
        i++;
    return i;
}

static bool path_is_valid(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t start = i;
        while (i < n && (is_lower(s[i]) || is_digit(s[i])))
            i++;
        if (i == start)
            return false;
        if (i == n)
            return true;
        size_t sep = s[i] == '/' ? 1 : separator_length(s + i, n - i);
        if (sep == 0)
            return false;
        i += sep;
    }
    return false; /* empty, or a separator at the end */
}

static bool tag_is_valid(const char *s, size_t n)
{
    if (n == 0 || n > REF_MAX_TAG || !(is_alnum(s[0]) || s[0] == '_'))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return false;
    return true;
}

static bool first_is_domain(const char *s, size_t n)
{
    if (n == strlen("localhost") && memcmp(s, "localhost", n) == 0)
        return true;
    for (size_t i = 0; i < n; i++)
        if (s[i] == '.' || s[i] == ':' || is_upper(s[i]))
            return true;
    return false;
}

static int parse_digest(const char *text, struct ref *r, struct err *err)
{
    if (digest_is_valid(text)) {
        memcpy(r->digest, text, strlen(text) + 1);
        return 0;
    }
    if ((text_has_prefix(text, "sha512:") && text_is_hex(text + 7, 128)) ||
        (text_has_prefix(text, "sha384:") && text_is_hex(text + 7, 96)))
        return err_set(err, ERR_UNSUPPORTED, "digest algorithm of '%s': only sha256", text);
    return err_set(err, ERR_INVALID, "invalid digest '%s'", text);
}

/* Domain and path out of the n bytes of a name without tag and digest. */
static int parse_name(const char *text, size_t n, struct ref *r, struct err *err)
{
    const char *slash = memchr(text, '/', n);
    size_t domain_len = slash == NULL ? 0 : (size_t)(slash - text);
    const char *path = text;
    size_t path_len = n;
    const char *library = "";

    if (slash != NULL && first_is_domain(text, domain_len)) {
        if (domain_len > REF_MAX_NAME || !domain_is_valid(text, domain_len))
            return err_set(err, ERR_INVALID, "invalid registry name");
        memcpy(r->domain, text, domain_len);
        path = slash + 1;
        path_len = n - domain_len - 1;
        if (strcmp(r->domain, "index.docker.io") == 0)
            memcpy(r->domain, DEFAULT_DOMAIN, sizeof(DEFAULT_DOMAIN));
    } else {
        memcpy(r->domain, DEFAULT_DOMAIN, sizeof(DEFAULT_DOMAIN));
    }
    if (strcmp(r->domain, DEFAULT_DOMAIN) == 0 && memchr(path, '/', path_len) == NULL)
        library = "library/";
    for (size_t i = 0; i < path_len; i++)
        if (is_upper(path[i]))
            return err_set(err, ERR_INVALID, "repository name must be lowercase");
    if (!path_is_valid(path, path_len))
        return err_set(err, ERR_INVALID, "invalid repository name");
    if (strlen(library) + path_len > REF_MAX_NAME)
        return err_set(err, ERR_INVALID, "repository name longer than %d characters", REF_MAX_NAME);
    (void)snprintf(r->path, sizeof(r->path), "%s%.*s", library, (int)path_len, path);
    return 0;
}

static int parse(const char *text, struct ref *r, struct err *err)
{
    size_t n = strlen(text);
    if (n == 0)
        return err_set(err, ERR_INVALID, "empty");
    if (n > REF_TEXT_SIZE)
        return err_set(err, ERR_INVALID, "longer than %d characters", REF_TEXT_SIZE);
    if (text_is_hex(text, 64))
        return err_set(err, ERR_INVALID, "64 hexadecimal digits are an id, not a name");

    const char *at = memchr(text, '@', n);
    if (at != NULL) {
        if (parse_digest(at + 1, r, err) < 0)
            return -1;
        n = (size_t)(at - text);
    }
    const char *last_slash = memrchr(text, '/', n);
    const char *rest = last_slash == NULL ? text : last_slash;
    const char *colon = memchr(rest, ':', n - (size_t)(rest - text));
    if (colon != NULL) {
        size_t tag_len = n - (size_t)(colon + 1 - text);
        if (!tag_is_valid(colon + 1, tag_len))
            return err_set(err, ERR_INVALID, "invalid tag");
        memcpy(r->tag, colon + 1, tag_len);
        n = (size_t)(colon - text);
    }
    if (parse_name(text, n, r, err) < 0)
        return -1;
    if (r->digest[0] != '\0')
        memset(r->tag, 0, sizeof(r->tag));
    else if (r->tag[0] == '\0')
        memcpy(r->tag, DEFAULT_TAG, sizeof(DEFAULT_TAG));
    return 0;
}

int ref_parse(const char *text, struct ref *ret_ref, struct err *err)
{
    struct ref r = {0};
    if (parse(text, &r, err) < 0)
        return err_prefix(err, "image reference '%s'", text);
    *ret_ref = r;
    return 0;
}

void ref_format_name(const struct ref *ref, char ret_text[REF_TEXT_SIZE])
{
    (void)snprintf(ret_text, REF_TEXT_SIZE, "%s/%s", ref->domain, ref->path);
}

void ref_format(const struct ref *ref, char ret_text[REF_TEXT_SIZE])
{
    if (ref->digest[0] != '\0')
        ref_format_digest(ref, ref->digest, ret_text);
    else
        (void)snprintf(ret_text, REF_TEXT_SIZE, "%s/%s:%s", ref->domain, ref->path, ref->tag);
}

void ref_format_digest(const struct ref *ref, const char *digest, char ret_text[REF_TEXT_SIZE])
{
    (void)snprintf(ret_text, REF_TEXT_SIZE, "%s/%s@%s", ref->domain, ref->path, digest);
}
