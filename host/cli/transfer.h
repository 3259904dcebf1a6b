/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting an image into the daemon, from a registry or from a file, with progress on standard
 * error. Shared by `pull`, `image import` and `run`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "host/cli/conn.h"

/* The images that came. */
struct cli_image_ids {
    char **items; /* heap */
    size_t n;
};
/* Frees and zeroes it. A zeroed one is fine. */
void cli_image_ids_fini(struct cli_image_ids *ids);

enum cli_transfer_kind { CLI_PULL, CLI_IMPORT, CLI_EXPORT };

struct cli_transfer {
    enum cli_transfer_kind kind;
    bool quiet;            /* no progress */
    const bool *stop;      /* may be NULL; see struct cli_stream */
    const char *reference; /* pull, export: what; import: the name to give, or NULL */
    const char *path;      /* import, export: absolute */
};

/* Runs it to its end; ret_ids may be NULL. */
int cli_transfer(struct cli_conn *conn, const struct cli_transfer *transfer,
                 struct cli_image_ids *ret_ids, struct err *err);
