/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP exchange at a time over libcurl, and only HTTP: no other protocol, no redirects followed
 * (the caller decides what may go where), cancellation and deadline noticed within 100 ms, stalled
 * transfers ended. A client keeps its connections between exchanges and belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define HTTP_MAX_URL        8192
#define HTTP_MAX_CHALLENGES 4
#define HTTP_MAX_CHALLENGE  2048
#define HTTP_MAX_ERROR_BODY 4096 /* bytes kept of a body that is not a 2xx */

/* TLS of one peer; NULL members: the system's CAs, no client certificate. Borrowed for the
 * exchange. */
struct http_tls {
    const char *ca_file;
    const char *client_cert_file;
    const char *client_key_file;
};

/* Receives the body of a 2xx answer piecewise; non-zero (err filled) ends the exchange with that
 * error. */
typedef int (*http_body_fn)(void *arg, const void *bytes, size_t n, struct err *err);

/* What limits every exchange of an operation; embedded by the callers. */
struct http_limits {
    int64_t deadline_ms;
    unsigned stall_s;             /* below 1 KiB/s for this long: UNAVAILABLE */
    bool (*cancelled)(void *arg); /* may be NULL */
    void *arg;
};

struct http_request {
    const char *url;
    const char *const *headers; /* "Name: value", NULL-terminated */
    const char *post_body;      /* NULL: GET; else a POST of a form */
    const struct http_tls *tls;
    http_body_fn on_body;
    void *on_body_arg;
    uint64_t max_body; /* of a 2xx; more is PROTOCOL */
};

struct http_response {
    int status;
    char content_type[256];
    char content_digest[128];                                 /* Docker-Content-Digest */
    char location[HTTP_MAX_URL];                              /* absolute; "" when there is none */
    char challenges[HTTP_MAX_CHALLENGES][HTTP_MAX_CHALLENGE]; /* WWW-Authenticate */
    unsigned n_challenges;
    uint64_t content_length;            /* UINT64_MAX: unknown */
    unsigned retry_after_s;             /* 0: not said */
    uint64_t range_start;               /* of a 206; UINT64_MAX: none */
    char body[HTTP_MAX_ERROR_BODY + 1]; /* beginning of a body that is not a 2xx, NUL-terminated */
    size_t body_len;
};

struct http_client;

/* EXHAUSTED when out of memory. Call http_global_init once before. */
int http_client_new(struct http_client **ret_client, struct err *err);
/* NULL is fine. */
void http_client_free(struct http_client *c);
DEFINE_CLEANUP(http_client, struct http_client, http_client_free)
#define cleanup_http_client CLEANUP(http_client_cleanup_)

/* Initialises libcurl for the process; repeating is fine, thread-safe. */
int http_global_init(struct err *err);

/*
 * Performs the exchange; 0 whatever the status is, as long as there is an answer whose body was
 * complete. UNAVAILABLE: no connection, broken or stalled; DEADLINE; CANCELLED; PROTOCOL; or what
 * on_body said. *ret_response is filled as far as known also on failure.
 */
int http_perform(struct http_client *c, const struct http_limits *limits,
                 const struct http_request *request, struct http_response *ret_response,
                 struct err *err);
