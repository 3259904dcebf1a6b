/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is attached to a pod, as a file: written before a chain is run, so that whatever a crash
 * leaves can be taken back with the very configuration and arguments that made it. Only this file
 * knows the format (JSON, versioned). A record owns what it holds; not shared between threads.
 * Ids are checked before they become file names.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "host/net/cniconf.h"
#include "host/net/net.h"

#define NETRECORD_MAX_BYTES (8u << 20)
#define NETRECORD_ID_MAX    128 /* bytes of a pod's id, without NUL */

struct netrecord_network {
    struct cniconf *conf; /* a reference */
    char ifname[NET_IFNAME_SIZE];
    json_t *result; /* the chain's answer; NULL: it was not finished */
};

struct netrecord {
    char *pod_id;
    char *netns;          /* path */
    char *args;           /* CNI_ARGS */
    json_t *capabilities; /* arguments of capabilities: an object */
    bool detaching;       /* removal was asked for */
    size_t n;
    struct netrecord_network networks[NET_MAX_IFACES];
};

/* Whether it may be a pod's id: [A-Za-z0-9][A-Za-z0-9_.-]*, at most NETRECORD_ID_MAX bytes. */
bool netrecord_id_is_valid(const char *pod_id);

/* Replaces the pod's file in the folder, durably. */
int netrecord_save(int dir_fd, const struct netrecord *record, struct err *err);
/* NOT_FOUND when the pod has none, PROTOCOL when it cannot be read. */
int netrecord_load(int dir_fd, const char *pod_id, struct netrecord *ret_record, struct err *err);
/* The same of a file's text. */
int netrecord_decode(const char *text, size_t n, struct netrecord *ret_record, struct err *err);
/* Removes the pod's file; a missing one is fine. */
int netrecord_delete(int dir_fd, const char *pod_id, struct err *err);
/* Ids of all pods that have a record: a heap array of heap strings. */
int netrecord_list(int dir_fd, char ***ret_ids, size_t *ret_n, struct err *err);
/* Frees what it owns and zeroes it. */
void netrecord_fini(struct netrecord *record);
#define cleanup_netrecord CLEANUP(netrecord_fini)
