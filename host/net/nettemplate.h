/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network configuration out of a template and the node's pod CIDRs. In the template
 * {{.PodCIDR}} is the first CIDR, {{.PodCIDRRanges}} the "ranges" of host-local for all of them,
 * {{.Routes}} a list with a default route for each family among them (lists as JSON). Only this
 * file knows these words. Pure.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"

#define NETTEMPLATE_MAX_CIDRS 8

/* cidrs: comma separated. INVALID when a CIDR is none, or the template has other words in {{}}, or
 * what comes out is no network configuration. Heap text. */
int nettemplate_render(const char *template_, const char *cidrs, char **ret_text, struct err *err);
