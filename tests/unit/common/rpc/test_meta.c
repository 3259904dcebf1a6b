/* SPDX-License-Identifier: Apache-2.0 */
/* Timeouts, percent encoding, content types, numbers, and the tables of status codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/text.h"
#include "common/rpc/meta.h"
#include "common/rpc/rpc.h"

static void test_timeout_parse(void **state)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
    } cases[] = {
        {"1H", 3600000},    {"2M", 120000}, {"3S", 3000},
        {"4m", 4},          {"5u", 1},      {"1000u", 1},
        {"1001u", 2},       {"1n", 1},      {"99999999H", 99999999LL * 3600000},
        {"0m", 0},          {"", -1},       {"m", -1},
        {"1", -1},          {"1s", -1},     {"-1m", -1},
        {"123456789m", -1}, {"1 m", -1},    {"1mm", -1},
        {"+1m", -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t ms = -1;
        int r = rpc_timeout_parse(cases[i].text, strlen(cases[i].text), &ms);
        assert_int_equal(r, cases[i].ms < 0 ? -1 : 0);
        assert_int_equal(ms, cases[i].ms);
    }
}

static void test_timeout_format(void **state)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {-5, "0m"},
        {0, "0m"},
        {1, "1m"},
        {99999999, "99999999m"},
        {100000000, "100000S"},
        {100000001, "100001S"},
        {100000000000, "1666667M"},
        {6000000000000, "1666667H"},
        {INT64_MAX, "99999999H"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[RPC_TIMEOUT_SIZE];
        rpc_timeout_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void test_percent(void **state)
{
    char enc[256], dec[256];
    const char *text = "100% of \"it\"\n – ü \x7f";
    (void)state;
    rpc_percent_encode(text, enc, sizeof(enc));
    assert_string_equal(enc, "100%25 of \"it\"%0A %E2%80%93 %C3%BC %7F");
    rpc_percent_decode(enc, strlen(enc), dec, sizeof(dec));
    assert_string_equal(dec, text);

    /* Cut between characters, never inside an escape or a multi-byte character. */
    for (size_t size = 1; size < strlen(enc) + 2; size++) {
        rpc_percent_encode(text, enc, size);
        assert_true(strlen(enc) < size);
        rpc_percent_decode(enc, strlen(enc), dec, sizeof(dec));
        assert_true(strncmp(dec, text, strlen(dec)) == 0);
        assert_true(text_is_utf8(dec, strlen(dec)));
    }
}

static void test_percent_hostile(void **state)
{
    char dec[16];
    (void)state;
    rpc_percent_decode("%", 1, dec, sizeof(dec));
    assert_string_equal(dec, "%");
    rpc_percent_decode("%4", 2, dec, sizeof(dec));
    assert_string_equal(dec, "%4");
    rpc_percent_decode("%zz%41", 6, dec, sizeof(dec));
    assert_string_equal(dec, "%zzA");
    rpc_percent_decode("a%00b", 5, dec, sizeof(dec));
    assert_string_equal(dec, "a?b");
    rpc_percent_decode("%ff%C3", 6, dec, sizeof(dec));
    assert_string_equal(dec, "??");
    rpc_percent_decode("0123456789abcdefgh", 18, dec, sizeof(dec));
    assert_string_equal(dec, "0123456789abcde");
    /* A character cut by the end of the buffer leaves no half of it. */
    rpc_percent_decode("0123456789abcd\xc3\xbc", 16, dec, sizeof(dec));
    assert_string_equal(dec, "0123456789abcd?");
}

static void test_content_type(void **state)
{
    (void)state;
#define IS(text) rpc_is_grpc_content(text, strlen(text))
    assert_true(IS("application/grpc"));
    assert_true(IS("application/grpc+proto"));
    assert_true(IS("application/grpc;charset=utf-8"));
    assert_false(IS("application/grpc+json"));
    assert_false(IS("application/grpcx"));
    assert_false(IS("application/json"));
    assert_false(IS("application/grp"));
    assert_false(IS(""));
#undef IS
}

static void test_number(void **state)
{
    uint32_t n = 7;
    (void)state;
    assert_int_equal(rpc_number_parse("0", 1, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(rpc_number_parse("999999999", 9, &n), 0);
    assert_int_equal(n, 999999999);
    assert_int_equal(rpc_number_parse("9999999999", 10, &n), -1);
    assert_int_equal(rpc_number_parse("", 0, &n), -1);
    assert_int_equal(rpc_number_parse("1a", 2, &n), -1);
    assert_int_equal(n, 999999999);
}

static void test_status(void **state)
{
    (void)state;
    /* What we send for a code comes back as that code. */
    for (int c = ERR_NONE; c <= ERR_SYSTEM; c++) {
        enum rpc_status s = rpc_status_from_err((enum err_code)c);
        assert_int_equal(rpc_status_to_err(s), c);
    }
    assert_int_equal(rpc_status_to_err(17), ERR_PROTOCOL);
    assert_int_equal(rpc_status_to_err(UINT32_MAX), ERR_PROTOCOL);
    assert_string_equal(rpc_status_name(RPC_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_string_equal(rpc_status_name(99), "STATUS_?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeout_parse), cmocka_unit_test(test_timeout_format),
        cmocka_unit_test(test_percent),       cmocka_unit_test(test_percent_hostile),
        cmocka_unit_test(test_content_type),  cmocka_unit_test(test_number),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
