/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of numbers: what is one, what it holds, and what is in what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/base/numset.h"

static struct numset parse(const char *text)
{
    struct numset set;
    struct err err;

    if (numset_parse(text, &set, &err) != 0)
        fail_msg("'%s': %s", text, err.msg);
    return set;
}

static void lists(void **state)
{
    struct numset set = parse("0-2,5");

    (void)state;
    assert_int_equal(set.words[0], 0x27);
    assert_int_equal(numset_end(&set), 6);
    set = parse("5,2-2,0-1,1\n");
    assert_int_equal(set.words[0], 0x27);
    set = parse("63-64,1023");
    assert_int_equal(set.words[0], (uint64_t)1 << 63);
    assert_int_equal(set.words[1], 1);
    assert_int_equal(numset_end(&set), 1024);
    set = parse("007");
    assert_int_equal(numset_end(&set), 8);
    set = parse("");
    assert_int_equal(numset_end(&set), 0);
    set = parse("\n");
    assert_int_equal(numset_end(&set), 0);
}

static void what_is_none(void **state)
{
    static const char *const bad[] = {"-1",
                                      "1-",
                                      "2-1",
                                      ",",
                                      "1,",
                                      ",1",
                                      "1,,2",
                                      "1 ",
                                      " 1",
                                      "a",
                                      "0x1",
                                      "0-3:2",
                                      "1024",
                                      "0-1024",
                                      "all",
                                      "1-2-3",
                                      "99999999999999999999",
                                      "1\n\n",
                                      "1,\n"};
    struct numset set;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(&set, 0xaa, sizeof(set));
        if (numset_parse(bad[i], &set, &err) == 0)
            fail_msg("'%s' was taken", bad[i]);
        assert_int_equal(err.code, ERR_INVALID);
        assert_int_equal(set.words[0], 0xaaaaaaaaaaaaaaaaull); /* as it was */
    }
}

static void subsets(void **state)
{
    struct numset some = parse("1,900"), more = parse("0-2,900"), none = parse("");

    (void)state;
    assert_true(numset_is_subset(&some, &more));
    assert_true(numset_is_subset(&some, &some));
    assert_true(numset_is_subset(&none, &some));
    assert_false(numset_is_subset(&more, &some));
    assert_false(numset_is_subset(&some, &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(what_is_none),
        cmocka_unit_test(subsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
