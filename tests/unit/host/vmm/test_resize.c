/* SPDX-License-Identifier: Apache-2.0 */
/* When an emulated machine may be given one more vCPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "host/vmm/internal.h"

#define TOTAL "67026944" /* of 64 MiB: 16 regions where there may be two vCPUs */

static void test_room(void **state)
{
    (void)state;
    assert_true(resize_has_region("x\ngen code size       0/" TOTAL "\nTB count 0\n", 1, 2));
    assert_true(resize_has_region("gen code size       56000000/" TOTAL "\n", 1, 2));
    assert_false(resize_has_region("gen code size       59000000/" TOTAL "\n", 1, 2));
    assert_false(resize_has_region("gen code size       67000000/" TOTAL "\n", 1, 2));
    /* Others have begun regions of their own, of 2 MiB where there are many. */
    assert_true(resize_has_region("gen code size       40000000/" TOTAL "\n", 7, 8));
    assert_false(resize_has_region("gen code size       53000000/" TOTAL "\n", 7, 8));
    /* As many regions as vCPUs: the last ones do not fit beside anything. */
    assert_true(resize_has_region("gen code size       3000000/" TOTAL "\n", 1, 64));
    assert_false(resize_has_region("gen code size       3000000/" TOTAL "\n", 62, 64));
}

static void test_strange(void **state)
{
    (void)state;
    assert_true(resize_has_region("", 1, 2));
    assert_true(resize_has_region("gen code size 1 of 2", 1, 2));
    (void)resize_has_region("gen code size 99999999999999999999999/0\n", 240, 240);
    (void)resize_has_region("gen code size 0/0\n", 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_strange),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
