/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Server and client over a socketpair, on one loop and one thread: the shapes of calls, errors, deadlines, cancellation,
 * limits, back-pressure, shutdown.
 */
#include <stdio.h>

#include "tests/unit/common/rpc/rpc_fixture.h"

static void test_unary(void **state)
{
    struct fixture f;
    (void)state;
    fixture_start(&f, &(struct fixture_options){ 0 });
    expect_echo(&f, "hello");
    expect_echo(&f, "");
    assert_int_equal(f.dones, 2);
    assert_int_equal(f.last_status, RPC_OK);
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
