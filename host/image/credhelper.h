/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Docker credential helpers: programs named docker-credential-NAME that config.json's credHelpers
 * and credsStore speak of (docker/docker-credential-helpers, "get" only). They are the
 * administrator's own, so they run as the daemon does, with its environment; what they say is
 * bounded and parsed here. Stateless, blocking, thread-safe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/image/auth.h"

#define CREDHELPER_MAX_NAME 64

/* The helper that a config.json's text names for a host; "" when it names none. PROTOCOL when the
 * text or the name is malformed. */
int credhelper_find(const char *json, size_t n, const char *host,
                    char ret_name[CREDHELPER_MAX_NAME + 1], struct err *err);

/*
 * Asks a helper for the credentials of a host, at most until the deadline (10 s at the most). A
 * helper that knows none for this host: success, with nothing filled. DENIED when it fails or
 * cannot be found in PATH, PROTOCOL when its answer is malformed.
 */
int credhelper_get(const char *name, const char *host, int64_t deadline_ms,
                   struct auth_credentials *ret_credentials, struct err *err);

/* The credentials in a helper's answer. PROTOCOL. */
int credhelper_parse(const char *json, size_t n, struct auth_credentials *ret_credentials,
                     struct err *err);
