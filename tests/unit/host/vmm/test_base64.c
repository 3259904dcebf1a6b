/* SPDX-License-Identifier: Apache-2.0 */
/* RFC 4648 vectors, and what is no base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/vmm/base64.h"

static void decodes(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},
        {"Zg==", "f"},
        {"Zm8=", "fo"},
        {"Zm9v", "foo"},
        {"Zm9vYg==", "foob"},
        {"Zm9vYmE=", "fooba"},
        {"Zm9vYmFy", "foobar"},
        {"AGEA", "?a?"},
        {"/+/+", "\xff\xef\xfe"},
    };
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        char *bytes = NULL;
        assert_int_equal(base64_decode_text(pairs[i][0], &bytes, &err), 0);
        assert_string_equal(bytes, pairs[i][1]);
        free(bytes);
    }
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "Z", "Zg", "Zg=", "Zg=a", "====", "Z===", "Zm9v\n", "Zm 9", "=m9v", "Zg==Zg==", "Zm9\x80"};
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char *bytes = NULL;
        if (base64_decode_text(bad[i], &bytes, &err) == 0)
            fail_msg("'%s' was decoded", bad[i]);
        assert_int_equal(err.code, ERR_PROTOCOL);
        assert_null(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(decodes), cmocka_unit_test(refuses)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
