/* SPDX-License-Identifier: Apache-2.0 */
/* Histograms of phases: which bucket a duration is in, sums, and that phases do not mix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "host/sandbox/phases.h"

static void durations_find_their_bucket(void **state)
{
    struct phase_histogram h[PHASES];
    struct phases p;

    (void)state;
    phases_init(&p);
    phases_add(&p, PHASE_AGENT, -5);
    phases_add(&p, PHASE_AGENT, 1000000);                /* 1 ms: inclusive */
    phases_add(&p, PHASE_AGENT, 1001000);                /* just above */
    phases_add(&p, PHASE_AGENT, INT64_C(30000000000));   /* 30 s */
    phases_add(&p, PHASE_AGENT, INT64_C(3600000000000)); /* an hour */
    phases_copy(&p, h);
    assert_string_equal(h[PHASE_AGENT].name, "agent");
    assert_int_equal(h[PHASE_AGENT].counts[0], 2);
    assert_int_equal(h[PHASE_AGENT].counts[1], 1);
    assert_int_equal(h[PHASE_AGENT].counts[PHASE_BUCKETS - 1], 1);
    assert_int_equal(h[PHASE_AGENT].counts[PHASE_BUCKETS], 1);
    assert_int_equal(h[PHASE_AGENT].sum_us, 1000 + 1001 + 30000000 + INT64_C(3600000000));
    for (size_t i = 0; i < PHASES; i++) {
        assert_non_null(h[i].name);
        if (i != PHASE_AGENT)
            assert_int_equal(h[i].sum_us, 0);
        for (size_t j = 1; j < PHASE_BUCKETS; j++)
            assert_true(h[i].bounds_us[j] > h[i].bounds_us[j - 1]);
    }
    phases_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_find_their_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
