/* SPDX-License-Identifier: Apache-2.0 */
/* The counter's speed against what a longer measurement says, and that it does not change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "host/vmm/tsc.h"

static void speed(void **state)
{
    (void)state;
#if defined(__x86_64__)
    struct timespec a, b;
    uint64_t first, second, ns, khz;

    assert_true(tsc_khz() > 100000);
    assert_int_equal(tsc_khz() % 1000, 0);
    assert_int_equal(tsc_khz(), tsc_khz());
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &a);
    first = __rdtsc();
    (void)poll(NULL, 0, 200); /* a length of time is what is measured */
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &b);
    second = __rdtsc();
    ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000u + (uint64_t)b.tv_nsec - (uint64_t)a.tv_nsec;
    khz = (second - first) * 1000000 / ns;
    /* Within what a guest's kernel corrects; being interrupted between the two looks costs more. */
    assert_in_range(tsc_khz(), khz - khz / 20, khz + khz / 20);
#else
    assert_int_equal(tsc_khz(), 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(speed)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
