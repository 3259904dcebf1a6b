/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is needed to find a running machine again after a restart of the daemon, and its text form
 * for a store: versioned JSON of at most VM_RECORD_MAX bytes. Pure functions; no ownership beyond
 * the text. Any thread. Units in names.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/err.h"

enum vmm_accel { VMM_ACCEL_AUTO, VMM_ACCEL_KVM, VMM_ACCEL_TCG };
enum vmm_transport { VMM_TRANSPORT_AUTO, VMM_TRANSPORT_VSOCK, VMM_TRANSPORT_SERIAL };

#define VM_ID_SIZE    72          /* bytes, NUL included */
#define VM_RECORD_MAX (16 * 1024) /* bytes of text */

struct vm_record {
    char id[VM_ID_SIZE];
    char dir[PATH_MAX]; /* the machine's folder: "qmp.sock" and "agent.sock" are in it */
    pid_t pid;
    uint64_t start_ticks; /* field 22 of /proc/PID/stat: tells a reused pid from the machine */
    char boot_id[37]; /* the host's boot: after another one, pids and start times mean nothing */
    uid_t uid;        /* that QEMU runs as */
    enum vmm_accel accel;         /* KVM or TCG */
    enum vmm_transport transport; /* VSOCK or SERIAL */
    uint32_t cid;                 /* vsock context id; 0 with SERIAL */
    char qemu_version[64];
    bool cloned; /* of a template; else it booted */
};

/* Whether id may name a machine: 1 to VM_ID_SIZE - 1 bytes of [A-Za-z0-9_.-], not starting with '-'
 * or '.'. */
bool vm_id_is_valid(const char *id);

/* JSON text on the heap; free it. */
int vm_record_encode(const struct vm_record *record, char **ret_text, struct err *err);

/* PROTOCOL when text is not a record of a version that is understood, or a field is out of its
 * range. */
int vm_record_decode(const char *text, struct vm_record *ret_record, struct err *err);

/* "auto", "kvm", "tcg". Never NULL. */
const char *vmm_accel_name(enum vmm_accel accel);
/* Parses such a name. Returns 0, or -1 for any other text. */
int vmm_accel_parse(const char *text, enum vmm_accel *ret_accel);

/* "auto", "vsock", "virtio-serial". Never NULL. */
const char *vmm_transport_name(enum vmm_transport transport);
/* Parses such a name. Returns 0, or -1 for any other text. */
int vmm_transport_parse(const char *text, enum vmm_transport *ret_transport);
