/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to a 401: a Basic value out of credentials, or a token from the service that the
 * challenge names (Docker registry token specification; refresh tokens by its OAuth2 form).
 * Stateless; the caller caches.
 */
#pragma once

#include "common/base/err.h"
#include "host/image/auth.h"
#include "host/image/http.h"

struct token_spec {
    const struct auth_credentials *credentials;
    const char *repository;
    const char *endpoint; /* base URL of the registry that asks */
    const struct http_tls *tls;
    const struct http_limits *limits;
};

/* An Authorization value for the challenges of a 401; heap, free with auth_wipe_free. DENIED when
 * there is none. */
int token_obtain(struct http_client *client, const struct token_spec *spec,
                 const struct http_response *resp, char **ret_value, struct err *err);

/* What a registry's JSON error body says, for people, bounded; "" when it says nothing. */
void token_error_text(const char *body, size_t n, char *ret_text, size_t size);
