/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's command line, and the list of modules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/init/options.h"

static enum log_level level(const char *command_line)
{
    struct options o;
    options_parse(command_line, &o);
    return o.log_level;
}

static void test_command_line(void **state)
{
    (void)state;
    assert_int_equal(level(""), LOG_INFO);
    assert_int_equal(level("quiet casemate.log=debug panic=-1\n"), LOG_DEBUG);
    assert_int_equal(level("casemate.log=warn"), LOG_WARN);
    assert_int_equal(level("xcasemate.log=warn"), LOG_INFO);
    assert_int_equal(level("casemate.log="), LOG_INFO);
    assert_int_equal(level("casemate.log=nonsense casemate.log=aaaaaaaaaaaaaaaaaaaaaaaaa"),
                     LOG_INFO);
    assert_int_equal(level("casemate.log=warn casemate.log=error"), LOG_ERROR);
}

static void test_modules(void **state)
{
    char text[] = "/modules/a.ko\n\n# comment\nrelative.ko\n/modules/b.ko";
    char *cursor = text;
    (void)state;
    assert_string_equal(options_next_module(&cursor), "/modules/a.ko");
    assert_string_equal(options_next_module(&cursor), "/modules/b.ko");
    assert_null(options_next_module(&cursor));
    assert_null(options_next_module(&cursor));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_modules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
