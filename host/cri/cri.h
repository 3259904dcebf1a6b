/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Kubernetes CRI services, v1 and v1alpha2, and casemate's own control service: check the
 * request, call the model (host/sandbox, host/image), make the reply, and translate errors to gRPC
 * status. Only this room knows what a CRI method looks like on the wire. Handlers block: the server
 * must run them on worker threads. No state of its own but the streams of events that are open.
 */
#pragma once

#include <stdbool.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "common/rpc/server.h"

struct sandbox_manager;
struct image_service;
struct cri;

/* Machines that have booted, which others are clones of. */
struct cri_templates {
    uint32_t count;
    uint64_t bytes;     /* of the host's memory that they occupy */
    uint64_t max_bytes; /* that they may occupy; 0: no bound */
    uint32_t refused;   /* kinds of machine that boot because of the bound */
};

/* The daemon's view of itself, for Status and for people; all strings are valid until the next call
 * on the same thread. */
struct cri_daemon_status {
    bool runtime_ready;
    char runtime_message[1024]; /* why not; or what an operator should know (software emulation) */
    bool network_ready;
    char network_message[512];
    char network[256]; /* names of the configurations that the next pod gets */
    char accelerator[16];
    char accelerator_reason[256];
    char qemu_version[64];
    char transport[32];
    char guest_kernel_path[1024];
    struct cri_templates templates;
};

/* A runtime handler, as Status shows it. */
struct cri_handler {
    const char *name;
    const char *machine;
    const char *accelerator; /* NULL: the node's */
    bool clones;             /* its machines are clones of a template */
};

struct cri_config {
    struct sandbox_manager *sandboxes; /* all three outlive the cri */
    struct image_service *images;
    void (*get_status)(void *arg, struct cri_daemon_status *ret_status);
    void *get_status_arg;
    /* The node's pod CIDRs, comma separated, from UpdateRuntimeConfig. */
    int (*set_pod_cidr)(void *arg, const char *cidrs, struct err *err);
    void *set_pod_cidr_arg;
    const struct cri_handler *handlers; /* the one called "" first */
    size_t n_handlers;
};

/* Makes the services; config is copied, its pointers are not followed later than cri_free. */
int cri_new(const struct cri_config *config, struct cri **ret_cri, struct err *err);
/* After the server that uses its services was freed. NULL is fine. */
void cri_free(struct cri *cri);
DEFINE_CLEANUP(cri, struct cri, cri_free)
#define cleanup_cri CLEANUP(cri_cleanup_)

/* Has streams that would go on for ever end, with UNAVAILABLE, and refuses new ones: for a server
 * that is to drain. Any thread; does not block. */
void cri_end_streams(struct cri *cri);

/* The services to give to rpc_server_new: *ret_n of them, valid until cri_free. */
const struct rpc_service *cri_services(const struct cri *cri, size_t *ret_n);
