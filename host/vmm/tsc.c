/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two readings of counter and clock, some time apart. A reading is the counter between two looks at
 * the clock; of several the one with the least between them counts, so that being interrupted does
 * no harm. The error is some 10 ppm, the rounding at most 0.05 %; the guest's kernel
 * makes it exact within a second of its own (it accepts corrections of up to 1 %).
 */
#include "host/vmm/tsc.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "common/base/clock.h"

#define APART_NS 20000000
#define TRIES    16

#if defined(__x86_64__)
#include <x86intrin.h>

struct reading {
    int64_t ns;
    uint64_t ticks;
};

static int64_t raw_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (int64_t)now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

static struct reading read_both(void)
{
    struct reading best = {0};
    int64_t least = INT64_MAX;

    for (int i = 0; i < TRIES; i++) {
        int64_t before = raw_ns();
        uint64_t ticks = __rdtsc();
        int64_t after = raw_ns();
        if (after - before < least) {
            least = after - before;
            best = (struct reading){.ns = before + least / 2, .ticks = ticks};
        }
    }
    return best;
}

static uint32_t measure(void)
{
    const struct timespec apart = {.tv_nsec = APART_NS};
    struct reading first = read_both(), second;
    uint64_t khz;

    (void)nanosleep(&apart, NULL);
    second = read_both();
    if (second.ns <= first.ns || second.ticks <= first.ticks)
        return 0;
    khz = (second.ticks - first.ticks) * 1000000 / (uint64_t)(second.ns - first.ns);
    /* No processor that runs this is slower or faster. */
    if (khz < 100000 || khz > 20000000)
        return 0;
    return (uint32_t)((khz + 500) / 1000 * 1000);
}
#else
static uint32_t measure(void)
{
    return 0;
}
#endif

static uint32_t measured;

static void measure_once(void)
{
    measured = measure();
}

uint32_t tsc_khz(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, measure_once);
    return measured;
}
