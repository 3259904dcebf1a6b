/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's command line as data: what a machine is made of, and a pure function from that to argv.
 * Knows the options of QEMU 7.2 to 10. Opens nothing: files and sockets are numbers of descriptors
 * that QEMU will have. The argv owns its strings. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"
#include "host/vmm/record.h"

/* Descriptor numbers in QEMU; -1: not there. */
struct cmdline_fds {
    int qmp;    /* listening unix socket of the monitor */
    int agent;  /* listening unix socket behind the agent's virtio-serial port */
    int vhost;  /* /dev/vhost-vsock */
    int kernel; /* read by path /proc/self/fd/N; a clone has none */
    int initrd;
    int tap;       /* the first queue of the network interface that every machine has, and the
                      others behind it; -1: it has no peer */
    int vhost_net; /* /dev/vhost-net, for the same ones */
    int memory;    /* the file that is a template's memory, or that a clone's memory is a copy of */
};

/* Where the machine's memory at boot comes from. */
enum cmdline_memory {
    CMDLINE_MEMORY_OWN,      /* QEMU's own: cold boot, never to be cloned */
    CMDLINE_MEMORY_TEMPLATE, /* the file fds.memory itself: cold boot, to be saved as a template */
    CMDLINE_MEMORY_CLONE,    /* a private copy on write of fds.memory; QEMU waits for the state */
};

struct cmdline_spec {
    const char *qemu; /* argv[0] */
    int qemu_major;   /* version, for options that changed */
    int qemu_minor;
    const char *name;    /* shown by ps and found again by vmm_kill_stray */
    const char *machine; /* "q35" */
    enum vmm_accel accel;
    bool tcg_hardening; /* as in struct vmm_config */
    enum vmm_transport transport;
    uint32_t cid;
    enum cmdline_memory memory;
    uint32_t memory_mib;
    uint32_t memory_max_mib; /* growth by virtio-mem in steps of CMDLINE_GROWTH_MIB; 0: none */
    uint32_t vcpus;
    uint32_t vcpus_max;        /* growth by hotplug; 0: none */
    bool console;              /* guest console into a ring in QEMU */
    const char *cmdline_extra; /* for the guest's kernel */
    uint32_t tsc_khz;          /* of the guest's time stamp counter; 0: it finds out */
    uint8_t mac[6];            /* that the network interface starts with */
    uint32_t queues;           /* of the network interface, each a pair; 0: 1 */
    struct cmdline_fds fds;
};

struct cmdline {
    char **argv; /* NULL-terminated */
    size_t n;
};

/* By how much the machine can grow: whole steps. */
uint32_t cmdline_growth_mib(const struct cmdline_spec *spec);

/* Builds the command line. INVALID when a value cannot be expressed (a comma in the name, no
 * memory, ...). */
int cmdline_build(const struct cmdline_spec *spec, struct cmdline *ret_cmdline, struct err *err);

/* Releases what cmdline_build made; an empty one is fine. */
void cmdline_fini(struct cmdline *cmdline);

static inline void cleanup_cmdline_(struct cmdline *cmdline)
{
    cmdline_fini(cmdline);
}
#define cleanup_cmdline CLEANUP(cleanup_cmdline_)

#define CMDLINE_CONSOLE_BYTES (64 * 1024) /* of the guest console's ring */
#define CMDLINE_GROWTH_MIB    128         /* what a Linux guest adds and removes memory in */
#define CMDLINE_GROWTH_DEVICE "growth"
#define CMDLINE_AGENT_PORT    "org.casemate.agent.0"

/*
 * Bays are "bay0" and up: a device and its node, over the node "bay0-empty" of which all that is
 * read is zeros. The drive's size is constant, whatever is in it.
 */
#define CMDLINE_BAY_NAME_SIZE 16
#define CMDLINE_BAY_BYTES     (1ull << 40)
void cmdline_bay_name(uint32_t bay, const char *suffix, char ret_name[CMDLINE_BAY_NAME_SIZE]);
#define CMDLINE_BAY_EMPTY "-empty"

/*
 * Network interfaces are "nic0" on the root bus, and "nic1" to "nic3", plugged in later behind root
 * ports "nicport1" to "nicport3". The guest finds each by the device number on bus 0 of itself or
 * of its port.
 */
#define CMDLINE_NICS            4
#define CMDLINE_QUEUES          8 /* of the first one, at most */
#define CMDLINE_NIC_SLOT(index) (0x10u + (index))
