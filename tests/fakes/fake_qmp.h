/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU that speaks QMP and has no machine: a thread on a socket that greets, keeps descriptors,
 * block nodes, netdevs and devices as QEMU does, and misbehaves on demand. For tests; failures
 * abort.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct fake_qmp;

struct fake_qmp_options {
    const char *fail;    /* this command is refused with class GenericError, "told to fail" */
    const char *silent;  /* this command is done, and never answered */
    bool hold_deletion;  /* DEVICE_DELETED waits for fake_qmp_release */
    bool vanishing;      /* qom-list finds no devices, and DEVICE_DELETED follows for every node */
    bool no_greeting;    /* the first line is not a greeting */
    const char *status;  /* what query-status says; NULL: "running" */
    const char *console; /* what ringbuf-read says, in base64; NULL: it is refused */
};

/* Serves one connection: fd itself, or, with listening, the first one that it accepts. Takes over
 * fd. */
struct fake_qmp *fake_qmp_start(int fd, bool listening, const struct fake_qmp_options *options);
/* Hangs up and waits for the thread. */
void fake_qmp_stop(struct fake_qmp *fake);

/* Makes it have, before anybody connects: a descriptor set (1), also a node (2), also a device with
 * this serial (3). */
void fake_qmp_plant(struct fake_qmp *fake, unsigned int lun, int depth, const char *serial);
/* Makes it have, before anybody connects, so many empty bays, "bay0" and up. */
void fake_qmp_plant_bays(struct fake_qmp *fake, unsigned int n);
/* And for one of them: a descriptor set with this serial (1), also a node over it (2), also in the
 * bay (3). */
void fake_qmp_plant_in_bay(struct fake_qmp *fake, unsigned int bay, unsigned int set, int depth,
                           const char *serial);
/* Makes it have, before anybody connects, a network interface "nicN" (device) or only its netdev
 * "netN". */
void fake_qmp_plant_nic(struct fake_qmp *fake, unsigned int index, bool device);
/* Changes the misbehaviour from now on. */
void fake_qmp_set(struct fake_qmp *fake, const struct fake_qmp_options *options);
/* Sends DEVICE_DELETED for everything that was held. */
void fake_qmp_release(struct fake_qmp *fake);
/* Sends these bytes as they are. */
void fake_qmp_say(struct fake_qmp *fake, const char *bytes, size_t n);
/* Hangs up now. */
void fake_qmp_hang_up(struct fake_qmp *fake);

/* What it has. */
size_t fake_qmp_fdsets(struct fake_qmp *fake);
size_t fake_qmp_nodes(struct fake_qmp *fake);
size_t fake_qmp_devices(struct fake_qmp *fake);
size_t fake_qmp_netdevs(struct fake_qmp *fake);
size_t fake_qmp_named_fds(struct fake_qmp *fake);
/* How often a command came. */
size_t fake_qmp_count(struct fake_qmp *fake, const char *command);
/* Waits until a command has come at least n times. */
void fake_qmp_wait_for(struct fake_qmp *fake, const char *command, size_t n);
