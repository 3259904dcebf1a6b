/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An easy handle inside a multi handle of its own: curl_easy_perform would notice a cancellation
 * only about once a second, the loop here asks ten times a second. The body callback writes into a
 * pipe that may be full, so it can block for a while; the deadline is then the callback's business.
 *
 * TLS setup is per exchange because one client talks to several peers (registry, token service,
 * blob storage), and only the registry's own entry may relax or change what is trusted.
 */
#include "host/image/http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/clock.h"
#include "common/base/text.h"

enum { POLL_MS = 100, STALL_BYTES_PER_S = 1024, CONNECT_TIMEOUT_MS = 15000 };

struct http_client {
    CURLM *multi;
    CURL *easy;
};

struct exchange {
    const struct http_request *request;
    struct http_response *response;
    uint64_t body_bytes;
    struct err *err;
    bool failed; /* a callback filled err */
    CURL *easy;
};

static pthread_once_t g_once = PTHREAD_ONCE_INIT;
static CURLcode g_init_result;

static void init_once(void)
{
    g_init_result = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int http_global_init(struct err *err)
{
    (void)pthread_once(&g_once, init_once);
    return g_init_result == CURLE_OK ? 0 : err_no_memory(err);
}

int http_client_new(struct http_client **ret_client, struct err *err)
{
    cleanup_http_client struct http_client *c = calloc(1, sizeof(*c));
    if (c == NULL || (c->multi = curl_multi_init()) == NULL || (c->easy = curl_easy_init()) == NULL)
        return err_no_memory(err);
    *ret_client = steal_ptr(&c);
    return 0;
}

void http_client_free(struct http_client *c)
{
    if (c == NULL)
        return;
    curl_easy_cleanup(c->easy);
    (void)curl_multi_cleanup(c->multi);
    free(c);
}

/* ---- headers ---- */

/* Copies the value if the line is the header `name`. Values that do not fit are left out: nothing
 * needs half of one. */
static bool take_header(const char *line, size_t n, const char *name, char *out, size_t out_size)
{
    size_t name_len = strlen(name);
    if (n <= name_len || line[name_len] != ':' || strncasecmp(line, name, name_len) != 0)
        return false;
    const char *p = line + name_len + 1;
    const char *end = line + n;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    size_t len = (size_t)(end - p);
    if (len >= out_size || memchr(p, '\0', len) != NULL)
        return false;
    memcpy(out, p, len);
    out[len] = '\0';
    return true;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    struct http_response *r = x->response;
    char value[64];
    uint64_t number;
    n *= size;
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) { /* a new answer (100 Continue, proxy) */
        r->n_challenges = 0;
        r->content_digest[0] = '\0';
        r->range_start = UINT64_MAX;
    }
    (void)take_header(line, n, "Docker-Content-Digest", r->content_digest,
                      sizeof(r->content_digest));
    if (r->n_challenges < HTTP_MAX_CHALLENGES &&
        take_header(line, n, "WWW-Authenticate", r->challenges[r->n_challenges],
                    HTTP_MAX_CHALLENGE))
        r->n_challenges++;
    if (take_header(line, n, "Content-Range", value, sizeof(value)) &&
        text_has_prefix(value, "bytes ")) {
        value[6 + strcspn(value + 6, "-")] = '\0';
        if (text_parse_u64(value + 6, INT64_MAX, &number) == 0)
            r->range_start = number;
    }
    return n;
}

/* ---- body ---- */

static size_t on_write(char *bytes, size_t size, size_t n, void *arg)
{
    struct exchange *x = arg;
    struct http_response *r = x->response;
    long status = 0;
    n *= size;
    (void)curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    r->status = (int)status;
    if (status < 200 || status > 299) {
        size_t room = HTTP_MAX_ERROR_BODY - r->body_len;
        size_t take = n < room ? n : room;
        memcpy(r->body + r->body_len, bytes, take);
        r->body_len += take;
        /* a long error page is not read to its end */
        return r->body_len == HTTP_MAX_ERROR_BODY ? 0 : n;
    }
    if (n > x->request->max_body - x->body_bytes) {
        x->failed = true;
        (void)err_set(x->err, ERR_PROTOCOL, "the answer is longer than %llu bytes",
                      (unsigned long long)x->request->max_body);
        return 0;
    }
    x->body_bytes += n;
    if (x->request->on_body(x->request->on_body_arg, bytes, n, x->err) != 0) {
        x->failed = true;
        return 0;
    }
    return n;
}

/* ---- the exchange ---- */

static bool is_loopback(const char *url)
{
    const char *host = strstr(url, "://");
    host = host == NULL ? url : host + 3;
    size_t n = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', n);
    if (at != NULL) {
        n -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    size_t name = strcspn(host, ":/?#");
    return text_has_prefix(host, "[::1]") || text_has_prefix(host, "127.") ||
           (name == strlen("localhost") && strncasecmp(host, "localhost", name) == 0);
}

/*
 * libcurl reads https_proxy, all_proxy and no_proxy in either case, but http_proxy in lower case
 * only (HTTP_PROXY is what a CGI program gets from a client's Proxy header; the daemon is none, and
 * the ecosystem's services are configured with it). As there, what is on this machine is never
 * asked of a proxy.
 */
static CURLcode choose_proxy(CURL *e, const char *url)
{
    const char *proxy = getenv("HTTP_PROXY");
    if (is_loopback(url))
        return curl_easy_setopt(e, CURLOPT_PROXY, "");
    if (proxy != NULL && *proxy != '\0' && getenv("http_proxy") == NULL &&
        strncasecmp(url, "http://", 7) == 0)
        return curl_easy_setopt(e, CURLOPT_PROXY, proxy);
    return CURLE_OK;
}

static CURLcode set_up(struct http_client *c, struct exchange *x, const struct http_limits *limits,
                       struct curl_slist *headers)
{
    const struct http_request *q = x->request;
    CURL *e = c->easy;
    CURLcode rc = CURLE_OK;
#define SET(option, value) (rc = rc == CURLE_OK ? curl_easy_setopt(e, (option), (value)) : rc)
    SET(CURLOPT_URL, q->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, x);
    SET(CURLOPT_WRITEFUNCTION, on_write);
    SET(CURLOPT_WRITEDATA, x);
    SET(CURLOPT_BUFFERSIZE, 256L * 1024);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    SET(CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES_PER_S);
    SET(CURLOPT_LOW_SPEED_TIME, (long)limits->stall_s);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_USERAGENT, "casemate/" CASEMATE_VERSION);
    if (rc == CURLE_OK)
        rc = choose_proxy(e, q->url);
    if (q->post_body != NULL)
        SET(CURLOPT_POSTFIELDS, q->post_body);
    if (q->tls != NULL && q->tls->ca_file != NULL)
        SET(CURLOPT_CAINFO, q->tls->ca_file);
    if (q->tls != NULL && q->tls->client_cert_file != NULL) {
        SET(CURLOPT_SSLCERT, q->tls->client_cert_file);
        SET(CURLOPT_SSLKEY,
            q->tls->client_key_file != NULL ? q->tls->client_key_file : q->tls->client_cert_file);
    }
#undef SET
    return rc;
}

/* Runs the transfer to its end, or to the deadline, or until it is cancelled. */
static int drive(struct http_client *c, const struct http_limits *limits, CURLcode *ret_result,
                 struct err *err)
{
    int running = 1;
    for (;;) {
        if (limits->cancelled != NULL && limits->cancelled(limits->arg))
            return err_set(err, ERR_CANCELLED, "cancelled");
        if (clock_poll_timeout(limits->deadline_ms) == 0)
            return err_set(err, ERR_DEADLINE, "deadline exceeded");
        if (curl_multi_perform(c->multi, &running) != CURLM_OK)
            return err_no_memory(err);
        if (running == 0)
            break;
        if (curl_multi_poll(c->multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
            return err_no_memory(err);
    }
    int left;
    const CURLMsg *msg = curl_multi_info_read(c->multi, &left);
    *ret_result = msg == NULL || msg->msg != CURLMSG_DONE ? CURLE_RECV_ERROR : msg->data.result;
    return 0;
}

static int translate(CURLcode rc, const struct exchange *x, const char *detail, struct err *err)
{
    if (x->failed)
        return -1;
    const char *text = detail[0] != '\0' ? detail : curl_easy_strerror(rc);
    switch (rc) {
    case CURLE_OUT_OF_MEMORY:
        return err_no_memory(err);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_set(err, ERR_PROTOCOL, "%s", text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return err_set(err, ERR_DENIED, "TLS: %s", text);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(err, ERR_UNAVAILABLE, "timed out: %s", text);
    default:
        return err_set(err, ERR_UNAVAILABLE, "%s", text);
    }
}

static void read_info(struct http_client *c, struct http_response *r)
{
    long status = 0;
    char *type = NULL;
    char *location = NULL;
    curl_off_t length = -1;
    curl_off_t wait = 0; /* Retry-After in both its forms */
    (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(c->easy, CURLINFO_CONTENT_TYPE, &type);
    (void)curl_easy_getinfo(c->easy, CURLINFO_REDIRECT_URL, &location);
    (void)curl_easy_getinfo(c->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    (void)curl_easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &wait);
    r->retry_after_s = wait <= 0 ? 0 : wait > 3600 ? 3600 : (unsigned)wait;
    r->status = (int)status;
    r->content_length = length < 0 ? UINT64_MAX : (uint64_t)length;
    if (type != NULL && strlen(type) < sizeof(r->content_type))
        memcpy(r->content_type, type, strlen(type) + 1);
    if (location != NULL && strlen(location) < sizeof(r->location))
        memcpy(r->location, location, strlen(location) + 1);
    r->body[r->body_len] = '\0';
}

/*
 * A new easy handle; connections belong to the multi handle and stay. Using one again after
 * curl_easy_reset does not do: libcurl 7.88 refuses some options after a transfer that broke off
 * early.
 */
static int renew(struct http_client *c, struct err *err)
{
    CURL *fresh = curl_easy_init();
    if (fresh == NULL)
        return err_no_memory(err);
    curl_easy_cleanup(c->easy);
    c->easy = fresh;
    return 0;
}

int http_perform(struct http_client *c, const struct http_limits *limits,
                 const struct http_request *request, struct http_response *ret_response,
                 struct err *err)
{
    struct err local = {0};
    char detail[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    memset(ret_response, 0, sizeof(*ret_response));
    ret_response->content_length = UINT64_MAX;
    ret_response->range_start = UINT64_MAX;
    if (renew(c, err) < 0)
        return -1;
    struct exchange x = {.request = request,
                         .response = ret_response,
                         .err = err == NULL ? &local : err,
                         .easy = c->easy};
    for (size_t i = 0; request->headers != NULL && request->headers[i] != NULL; i++) {
        struct curl_slist *more = curl_slist_append(headers, request->headers[i]);
        if (more == NULL) {
            curl_slist_free_all(headers);
            return err_no_memory(err);
        }
        headers = more;
    }
    CURLcode rc = set_up(c, &x, limits, headers);
    if (rc == CURLE_OK)
        rc = curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, detail);
    if (rc == CURLE_OK && curl_multi_add_handle(c->multi, c->easy) != CURLM_OK)
        rc = CURLE_OUT_OF_MEMORY;
    if (rc != CURLE_OK) {
        curl_slist_free_all(headers);
        return err_set(err, ERR_SYSTEM, "set up the transfer: %s", curl_easy_strerror(rc));
    }
    int result = drive(c, limits, &rc, x.err);
    read_info(c, ret_response);
    (void)curl_multi_remove_handle(c->multi, c->easy);
    (void)curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(headers);
    if (result < 0)
        return -1;
    bool long_error = rc == CURLE_WRITE_ERROR && !x.failed && ret_response->status >= 300;
    return rc == CURLE_OK || long_error ? 0 : translate(rc, &x, detail, x.err);
}
