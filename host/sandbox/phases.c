/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Counters under one mutex, held for three additions. The bounds reach from a
 * clone under KVM to a boot in software emulation on a loaded host. Timelines are not their source:
 * those keep a bounded number of steps per pod.
 */
#include "host/sandbox/phases.h"

#include <string.h>

static const char *const names[PHASES] = {
    [PHASE_POD] = "pod",
    [PHASE_NETWORK] = "network",
    [PHASE_MACHINE] = "machine",
    [PHASE_AGENT] = "agent",
    [PHASE_CONFIGURATION] = "configuration",
    [PHASE_CREATE] = "create",
    [PHASE_DEVICES] = "devices",
    [PHASE_START] = "start",
};

static const uint64_t bounds_us[PHASE_BUCKETS] = {
    1000,   2500,   5000,    10000,   25000,   50000,    100000,
    250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000,
};

void phases_init(struct phases *p)
{
    memset(p, 0, sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
}

void phases_fini(struct phases *p)
{
    pthread_mutex_destroy(&p->lock);
}

void phases_add(struct phases *p, enum phase phase, int64_t ns)
{
    uint64_t us = ns < 0 ? 0 : (uint64_t)ns / 1000;
    unsigned bucket = 0;

    while (bucket < PHASE_BUCKETS && us > bounds_us[bucket])
        bucket++;
    pthread_mutex_lock(&p->lock);
    p->counts[phase][bucket]++;
    p->sums_us[phase] += us;
    pthread_mutex_unlock(&p->lock);
}

void phases_copy(struct phases *p, struct phase_histogram ret_histograms[PHASES])
{
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < PHASES; i++) {
        struct phase_histogram *h = &ret_histograms[i];
        h->name = names[i];
        memcpy(h->bounds_us, bounds_us, sizeof(bounds_us));
        memcpy(h->counts, p->counts[i], sizeof(h->counts));
        h->sum_us = p->sums_us[i];
    }
    pthread_mutex_unlock(&p->lock);
}
