/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registry authentication without the network: the WWW-Authenticate challenge, the answer of a
 * token service, credentials in their several forms. Pure functions over caller's memory.
 * Credentials are never logged, never part of an error, and wiped when a struct that holds them is
 * released.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/image/image.h"

enum auth_scheme { AUTH_NONE, AUTH_BASIC, AUTH_BEARER };

/* RFC 9110 §11.6.1; the parameters that the Docker token specification uses. */
struct auth_challenge {
    enum auth_scheme scheme;
    char realm[1024];
    char service[256];
    char scope[1024];
};

/* Parses one WWW-Authenticate value; other schemes than Basic and Bearer give AUTH_NONE. PROTOCOL
 * when malformed. */
int auth_parse_challenge(const char *value, struct auth_challenge *ret_challenge, struct err *err);

/* The token in a token service's JSON; heap, free with auth_wipe_free. PROTOCOL. */
int auth_parse_token(const char *json, size_t n, char **ret_token, struct err *err);

/* Credentials for one host. Strings are heap or NULL. */
struct auth_credentials {
    char *username;
    char *password;
    char *identity_token;
    char *registry_token;
};

/* Copies and decodes CRI credentials for a host; those of another server_address are left out.
 * INVALID. */
int auth_from_cri(const struct image_auth *auth, const char *host,
                  struct auth_credentials *ret_credentials, struct err *err);

/* Reads the entry for a host out of a docker config.json's text. No entry: all NULL. PROTOCOL when
 * malformed. */
int auth_from_config(const char *json, size_t n, const char *host,
                     struct auth_credentials *ret_credentials, struct err *err);

/* Wipes and frees; the struct is empty afterwards. */
void auth_credentials_fini(struct auth_credentials *c);
#define cleanup_credentials CLEANUP(auth_credentials_fini)

/* "Basic …" for an Authorization header; heap, free with auth_wipe_free. NULL when out of memory.
 */
char *auth_basic_value(const char *username, const char *password);

/* Wipes and frees a secret string. NULL is fine. */
void auth_wipe_free(char *secret);
