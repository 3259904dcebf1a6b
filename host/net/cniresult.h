/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CNI plugins answer (spec 1.1, "Success" and "Error"; 0.3.0 to 1.0.0 likewise): checked in
 * full before anything of it is used. Only this file knows the keys of results. Pure; nothing is
 * shared.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "host/net/net.h"

#define CNIRESULT_MAX_BYTES   (1u << 20) /* of one answer */
#define CNIRESULT_MAX_ENTRIES 1024       /* interfaces, addresses, routes, each */
#define CNIRESULT_MAX_DNS     64         /* servers, searches, options, each */

struct cniresult_iface {
    char name[NET_IFNAME_SIZE];
    bool in_pod; /* else the host's end */
};

struct cniresult {
    struct cniresult_iface *ifaces;
    size_t n_ifaces;
    char (*ips)[NET_ADDR_TEXT]; /* of the pod, in the plugin's order, without prefix */
    size_t n_ips;
    struct net_dns dns;
};

/* The answer to ADD of a plugin whose configuration has this version. PROTOCOL says what is wrong
 * with it. *ret_doc (one reference; may be NULL) is the document, for prevResult. */
int cniresult_parse(const char *text, size_t n, struct cniresult *ret_result, json_t **ret_doc,
                    struct err *err);
/* The same of a document. */
int cniresult_read(const json_t *doc, struct cniresult *ret_result, struct err *err);
/* Frees what it owns and zeroes it. */
void cniresult_fini(struct cniresult *result);
#define cleanup_cniresult CLEANUP(cniresult_fini)

/* Frees what dns owns and zeroes it. */
void net_dns_fini(struct net_dns *dns);

/* Codes that mean something to a runtime. */
enum {
    CNI_ERROR_UNKNOWN_CONTAINER = 3, /* nothing of it is left: no DEL is needed */
    CNI_ERROR_TRY_AGAIN_LATER = 11,
    CNI_ERROR_PLUGIN_NOT_AVAILABLE = 50, /* STATUS */
    CNI_ERROR_LIMITED_CONNECTIVITY = 51, /* STATUS */
};
/* The words of an error answer: "msg; details" into err (UNAVAILABLE for "try again later" and the
 * two of STATUS, else SYSTEM), its code into *ret_code. Returns false when the text is no such
 * answer. */
bool cniresult_parse_error(const char *text, size_t n, unsigned *ret_code, struct err *err);
