/* SPDX-License-Identifier: Apache-2.0 */
/* The table is as long as the kernel's header has it, and names are where their numbers are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/capability.h>

#include "common/base/capname.h"

static void names_are_at_their_numbers(void **state)
{
    (void)state;
    assert_int_equal(capname_number("CHOWN"), CAP_CHOWN);
    assert_int_equal(capname_number("NET_ADMIN"), CAP_NET_ADMIN);
    assert_int_equal(capname_number("SYS_ADMIN"), CAP_SYS_ADMIN);
    assert_int_equal(capname_number("MKNOD"), CAP_MKNOD);
    assert_int_equal(capname_number("SYSLOG"), CAP_SYSLOG);
    assert_int_equal(capname_number("CHECKPOINT_RESTORE"), CAP_CHECKPOINT_RESTORE);
    assert_int_equal(CAPNAME_COUNT, CAP_CHECKPOINT_RESTORE + 1);
    for (int i = 0; i < CAPNAME_COUNT; i++)
        assert_int_equal(capname_number(capname_get((unsigned)i)), i);
}

static void others_are_refused(void **state)
{
    (void)state;
    assert_null(capname_get(CAPNAME_COUNT));
    assert_null(capname_get(UINT32_MAX));
    assert_int_equal(capname_number("CAP_CHOWN"), -1);
    assert_int_equal(capname_number("chown"), -1);
    assert_int_equal(capname_number(""), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_at_their_numbers),
        cmocka_unit_test(others_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
