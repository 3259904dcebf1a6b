/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network configurations as CNI has them (spec 1.1, "Network configuration format"): one plugin
 * (.conf, .json) or a chain (.conflist), read from text or a folder. Only this file knows their
 * keys. Pure but for cniconf_load_dir. A configuration is shared by reference and does not change;
 * the references may be taken and given back on any thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define CNICONF_MAX_BYTES   (1u << 20) /* of one file */
#define CNICONF_MAX_PLUGINS 32         /* of one chain */
#define CNICONF_MAX_NAME    200        /* bytes of a network's name */
#define CNICONF_MAX_FILES   256        /* looked at in a folder */

/* Versions of the protocol, oldest first. */
enum cni_version { CNI_0_3_0, CNI_0_3_1, CNI_0_4_0, CNI_1_0_0, CNI_1_1_0 };
/* "1.0.0" and so on. Never NULL. */
const char *cni_version_name(enum cni_version version);
/* Returns 0, or -1 when this release does not speak it. */
int cni_version_parse(const char *text, enum cni_version *ret_version);

struct cniconf {
    const json_t *root; /* the file's; name and plugins are in it */
    const char *name;
    enum cni_version version; /* the highest offered that we speak */
    bool disable_check;
    bool disable_gc;
    size_t n_plugins;
    json_t *plugins[CNICONF_MAX_PLUGINS]; /* objects with a valid "type" */
};

/* Parses n bytes; a single plugin becomes a chain of one. INVALID says what is wrong. */
int cniconf_parse(const char *text, size_t n, struct cniconf **ret_conf, struct err *err);
/* One reference more; returns conf. */
struct cniconf *cniconf_ref(struct cniconf *conf);
/* One less: the last one frees it. NULL is fine. */
void cniconf_unref(struct cniconf *conf);
DEFINE_CLEANUP(cniconf, struct cniconf, cniconf_unref)
#define cleanup_cniconf CLEANUP(cniconf_cleanup_)

/* The chain as cniconf_parse takes it again: heap text. */
int cniconf_text(const struct cniconf *conf, char **ret_text, struct err *err);

/* A plugin's "type": its program's name. */
const char *cniconf_plugin_type(const json_t *plugin);
/* Whether the plugin declares the capability ("portMappings", …). */
bool cniconf_plugin_wants(const json_t *plugin, const char *capability);

struct cniconf_set {
    struct cniconf *confs[CNICONF_MAX_FILES]; /* in order of file name, as far as wanted */
    size_t n;
    bool others;       /* there is a configuration file beside the one called `own` */
    char problem[512]; /* why there is none, or why files were passed over; "" if all is well */
};
/*
 * The first `want` good configurations of the folder. A bad file is passed over and said to be in
 * ->problem. A missing folder holds none. own: a file name, or NULL.
 */
void cniconf_load_dir(const char *path, size_t want, const char *own, struct cniconf_set *ret_set);
/* Lets go of its configurations; an empty one is fine. */
void cniconf_set_fini(struct cniconf_set *set);
