/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration file: /etc/casemate/casemate.conf and then casemate.conf.d/ *.conf beside it,
 * in order of name; a later value replaces an earlier one. Only this file knows the keys. Unknown
 * sections and keys, and values that cannot be, are errors with file and line. All strings are
 * owned by the struct. Loaded once, at start; not shared while it changes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "host/image/image.h"
#include "host/net/net.h"
#include "host/vmm/vmm.h"

struct config_registry {
    char *host;
    char **mirrors; /* base URLs in order */
    size_t n_mirrors;
    bool plain_http;
    char *ca_file;
    char *client_cert;
    char *client_key;
};

/* Values of a key that may be there more than once, in order. */
struct config_list {
    char **items;
    size_t n;
};

struct config_handler {
    char *name;
    /* After config_load everything is set: what the section leaves out is [guest]'s and [vmm]'s. */
    char *kernel;
    char *initrd;
    char *machine;
    unsigned memory_mib;
    unsigned vcpus;
    unsigned memory_max_mib; /* 0: the host's */
    unsigned vcpus_max;      /* likewise */
    enum vmm_accel accel;    /* AUTO: the node's */
    bool clone;
    bool has_clone; /* the section says so */
};

struct config {
    /* [casemated] */
    char *socket;    /* CRI socket */
    char *state_dir; /* survives a reboot: records, images, scratch disks */
    char *run_dir;   /* does not: sockets */
    enum log_level log_level;
    unsigned workers; /* handlers that may block at the same time */
    /* [guest] */
    char *kernel;
    char *initrd;
    unsigned memory_mib;
    unsigned memory_max_mib; /* 0: the host's */
    unsigned vcpus_max;      /* likewise */
    unsigned vcpus;
    bool clone; /* "template": machines are clones of one that has booted */
    /* [vmm] */
    char *qemu; /* NULL: found */
    enum vmm_accel accel;
    bool tcg_hardening;
    enum vmm_transport transport;
    bool vhost_net;             /* the host's kernel moves packets where it can */
    unsigned templates_max_mib; /* of the host's memory, all templates together; 0: no bound */
    unsigned uid_base; /* each QEMU runs under a uid of its own out of [uid_base, uid_base +
                          uid_count) */
    unsigned uid_count;
    /* [pod] */
    unsigned spares; /* machines that are made ahead */
    char *warm_image;
    unsigned scratch_mib; /* size of a pod's writable disk (sparse) */
    /* [image] */
    char *converter;
    unsigned converter_uid;
    enum image_compression compression;
    char *auth_file;           /* NULL: none */
    struct config_list pinned; /* references that the kubelet must not collect */
    unsigned parallel_layers;  /* layers of one pull under way at the same time */
    unsigned stall_timeout_s;  /* a transfer below 1 KiB/s for this long has stalled */
    unsigned max_layer_mib;    /* one layer, unpacked; also as a filesystem image */
    unsigned max_layer_ratio;  /* unpacked : as transferred */
    unsigned max_layer_entries;
    unsigned converter_memory_mib;
    /* [network] */
    char *conf_dir;            /* of CNI */
    char *bin_dirs;            /* of CNI's plugins, separated by ':' */
    char *conf_template;       /* for the node's pod CIDR; NULL: none */
    unsigned max_networks;     /* of conf_dir, that each pod gets */
    unsigned plugin_timeout_s; /* of one run of a plugin */
    bool loopback_only;        /* pods without a network are allowed */
    enum net_gc gc;            /* whether plugins collect garbage */
    /* [registry "HOST"] */
    struct config_registry *registries;
    size_t n_registries;
    /* [handler "NAME"], and before them "" and "casemate", which are the defaults */
    struct config_handler *handlers;
    size_t n_handlers;
};

/*
 * Reads path and its .d folder on top of the defaults. A missing file is an error only when
 * must_exist. Release with config_fini, also after a failure.
 */
int config_load(const char *path, bool must_exist, struct config *ret_config, struct err *err);

/* Releases the strings. A zeroed one is fine. */
void config_fini(struct config *config);
#define cleanup_config CLEANUP(config_fini)
