/* SPDX-License-Identifier: Apache-2.0 */
/* host/cli/options: kinds, permutation, stop at the operand, every complaint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "host/cli/cli.h"

struct values {
    bool flag;
    const char *text;
    uint64_t number;
    struct cli_list list;
};

struct result {
    int r;
    int first;
    bool help;
    struct err err;
    struct values v;
};

static char *words[16];
static int n_words;

/* argv from one line, parsed by a table with an option of each kind. */
static struct result parse(const char *line, int min, int max, bool stop)
{
    static char copy[256];
    static struct result res;
    res = (struct result){0};
    n_words = 0;
    assert_true(strlen(line) < sizeof(copy));
    memcpy(copy, line, strlen(line) + 1);
    for (char *save = NULL, *w = strtok_r(copy, " ", &save); w != NULL;
         w = strtok_r(NULL, " ", &save))
        words[n_words++] = w;
    words[n_words] = NULL;
    const struct cli_option options[] = {
        {"all", 'a', CLI_FLAG, &res.v.flag, 0},
        {"text", '\0', CLI_TEXT, &res.v.text, 0},
        {"number", 'n', CLI_NUMBER, &res.v.number, 100},
        {"list", 'l', CLI_LIST, &res.v.list, 0},
    };
    const struct cli_spec spec = {.usage = "usage\n",
                                  .options = options,
                                  .n_options = ARRAY_SIZE(options),
                                  .min_operands = min,
                                  .max_operands = max,
                                  .stop_at_operand = stop};
    res.r = cli_parse(&spec, n_words, words, &res.first, &res.help, &res.err);
    return res;
}

static void it_reads_every_kind(void **state)
{
    (void)state;
    struct result r = parse("x --all --text=a -n 7 -l one --list two --text b", 0, 0, false);
    assert_int_equal(r.r, 0);
    assert_true(r.v.flag);
    assert_string_equal(r.v.text, "b");
    assert_int_equal(r.v.number, 7);
    assert_int_equal(r.v.list.n, 2);
    assert_string_equal(r.v.list.items[0], "one");
    assert_string_equal(r.v.list.items[1], "two");
    assert_int_equal(r.first, n_words);
}

static void options_may_follow_operands(void **state)
{
    (void)state;
    struct result r = parse("x pod --all", 1, 1, false);
    assert_int_equal(r.r, 0);
    assert_true(r.v.flag);
    assert_string_equal(words[r.first], "pod");
    r = parse("x -- --all", 1, 1, false);
    assert_int_equal(r.r, 0);
    assert_false(r.v.flag);
    assert_string_equal(words[r.first], "--all");
}

static void another_programs_options_are_left_alone(void **state)
{
    (void)state;
    struct result r = parse("run -a image sh -c --list -h", 1, -1, true);
    assert_int_equal(r.r, 0);
    assert_false(r.help);
    assert_true(r.v.flag);
    assert_int_equal(r.v.list.n, 0);
    assert_string_equal(words[r.first], "image");
    assert_string_equal(words[r.first + 3], "--list");
}

static void help_comes_before_complaints(void **state)
{
    (void)state;
    assert_true(parse("x --help", 2, 2, false).help);
    assert_true(parse("x -h", 2, 2, false).help);
    assert_int_equal(parse("x --help", 2, 2, false).r, 0);
}

static void assert_complains(const char *line, int min, int max, const char *words_in_message)
{
    struct result r = parse(line, min, max, false);
    assert_int_equal(r.r, -1);
    assert_int_equal(r.err.code, ERR_INVALID);
    if (strstr(r.err.msg, words_in_message) == NULL)
        fail_msg("'%s' lacks '%s'", r.err.msg, words_in_message);
}

static void it_complains_by_name(void **state)
{
    (void)state;
    assert_complains("x --bogus", 0, 0, "unknown option '--bogus'");
    assert_complains("x -z", 0, 0, "unknown option '-z'");
    assert_complains("x --text", 0, 0, "'--text' needs a value");
    assert_complains("x -n", 0, 0, "'-n' needs a value");
    assert_complains("x --all=1", 0, 0, "'--all=1' takes no value");
    assert_complains("x --number 101", 0, 0,
                     "--number: '101' is not a whole number of at most 100");
    assert_complains("x --number -1", 0, 0, "--number: '-1'");
    assert_complains("x --number 1k", 0, 0, "--number: '1k'");
    assert_complains("x one two", 0, 1, "unexpected argument 'two'");
    assert_complains("x", 1, 1, "missing after 'x'");
}

static void a_list_is_bounded(void **state)
{
    (void)state;
    static struct cli_list list;
    static char *argv[2 * CLI_LIST_MAX + 4];
    static char name[] = "x", option[] = "-l", value[] = "v";
    const struct cli_option options[] = {{"list", 'l', CLI_LIST, &list, 0}};
    const struct cli_spec spec = {.options = options, .n_options = 1};
    int argc = 0, first;
    bool help;
    struct err err = {0};
    argv[argc++] = name;
    for (int i = 0; i < CLI_LIST_MAX; i++) {
        argv[argc++] = option;
        argv[argc++] = value;
    }
    assert_int_equal(cli_parse(&spec, argc, argv, &first, &help, &err), 0);
    assert_int_equal(list.n, CLI_LIST_MAX);
    list.n = 0;
    argv[argc++] = option;
    argv[argc++] = value;
    assert_int_equal(cli_parse(&spec, argc, argv, &first, &help, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static void the_socket_is_option_then_environment_then_default(void **state)
{
    (void)state;
    assert_int_equal(setenv("CASEMATE_SOCKET", "/e", 1), 0);
    assert_string_equal(cli_socket_path("/o"), "/o");
    assert_string_equal(cli_socket_path(NULL), "/e");
    assert_int_equal(setenv("CASEMATE_SOCKET", "", 1), 0);
    assert_string_equal(cli_socket_path(NULL), CLI_DEFAULT_SOCKET);
    assert_int_equal(unsetenv("CASEMATE_SOCKET"), 0);
    assert_string_equal(cli_socket_path(NULL), CLI_DEFAULT_SOCKET);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reads_every_kind),
        cmocka_unit_test(options_may_follow_operands),
        cmocka_unit_test(another_programs_options_are_left_alone),
        cmocka_unit_test(help_comes_before_complaints),
        cmocka_unit_test(it_complains_by_name),
        cmocka_unit_test(a_list_is_bounded),
        cmocka_unit_test(the_socket_is_option_then_environment_then_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
