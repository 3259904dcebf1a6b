/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An image service in a temporary folder for tests: store, service, converter, and what is in its
 * folder. For tests only: what cannot happen ends the process.
 */
#pragma once

#include <stdbool.h>

#include "host/image/image.h"
#include "host/store/store.h"

struct fake_node {
    char dir[64];
    char *converter;
    struct store *store;
    struct image_service *svc;
    struct image_limits limits; /* for the next open */
    const struct image_registry *registries;
    size_t n_registries;
    const char *auth_file;
    const char *const *pinned;
    size_t n_pinned;
};

/* The path of casemate-convert: $CASEMATE_CONVERT, or bin/ of the build folder that this program is
 * in; NULL: not built. */
char *fake_node_converter(void);

/* Makes the folder and opens the service. */
void fake_node_open(struct fake_node *n);
/* Closes and opens the service again, as a restart does. */
void fake_node_reopen(struct fake_node *n);
/* Closes the service and removes the folder. */
void fake_node_close(struct fake_node *n);
/* Files in images/<sub>. */
unsigned fake_node_files(const struct fake_node *n, const char *sub);
/* Pulls with a deadline of 20 s. */
int fake_node_pull(struct fake_node *n, const char *reference, const struct image_auth *auth,
                   struct err *err);
