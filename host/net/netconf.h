/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of network configurations, read again when it changes. Only this file watches it.
 * Thread-safe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/net/cniconf.h"

struct netconf;

/* The first `want` configurations of the folder, which need not exist yet. own: as in
 * cniconf_load_dir. Both are copied. */
int netconf_new(const char *path, size_t want, const char *own, struct netconf **ret_netconf,
                struct err *err);
/* NULL is fine. */
void netconf_free(struct netconf *netconf);
/* What the folder holds now; cniconf_set_fini. *ret_generation changes when it was read again. */
void netconf_get(struct netconf *netconf, struct cniconf_set *ret_set, uint64_t *ret_generation);
