/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long the phases of starts have taken since the daemon began: one histogram per phase, of
 * fixed size. Only what succeeded is counted, and no machine that is made ahead. Thread-safe.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

enum phase {
    PHASE_POD,           /* RunPodSandbox as a whole */
    PHASE_NETWORK,       /* the CNI plugins */
    PHASE_MACHINE,       /* clone or boot of the machine, or taking one that was made ahead */
    PHASE_AGENT,         /* until the agent has answered */
    PHASE_CONFIGURATION, /* the guest is made the pod's */
    PHASE_CREATE,        /* CreateContainer as a whole */
    PHASE_DEVICES,       /* attaching the disks of a container's image */
    PHASE_START,         /* StartContainer as a whole */
};
#define PHASES        8
#define PHASE_BUCKETS 14 /* with bounds; one more has what is longer */

struct phase_histogram {
    const char *name;                   /* static */
    uint64_t bounds_us[PHASE_BUCKETS];  /* of each bucket, inclusive, ascending */
    uint64_t counts[PHASE_BUCKETS + 1]; /* of each bucket alone */
    uint64_t sum_us;
};

struct phases {
    pthread_mutex_t lock; /* for what follows */
    uint64_t counts[PHASES][PHASE_BUCKETS + 1];
    uint64_t sums_us[PHASES];
};

/* All counts are 0. */
void phases_init(struct phases *p);
/* Nobody may count any more. */
void phases_fini(struct phases *p);

/* It took so long; negative counts as nothing. */
void phases_add(struct phases *p, enum phase phase, int64_t ns);

/* A copy of all, by phase. */
void phases_copy(struct phases *p, struct phase_histogram ret_histograms[PHASES]);
