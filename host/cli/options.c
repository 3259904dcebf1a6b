/* SPDX-License-Identifier: Apache-2.0 */
/*
 * getopt_long does the splitting; a table says where values go. Its own messages are turned off,
 * because they do not say what to do next, and its permutation is what lets options stand after
 * operands for every command but `run`, whose operands are another program's command line.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/cli/cli.h"

enum { MAX_OPTIONS = 32, FIRST_LONG = 256, HELP = FIRST_LONG + MAX_OPTIONS };

/* getopt's two descriptions of the options, made from the table. */
struct forms {
    struct option longs[MAX_OPTIONS + 2];
    char shorts[2 * MAX_OPTIONS + 8];
};

static void make_forms(const struct cli_spec *spec, struct forms *f)
{
    size_t n = 0;
    if (spec->stop_at_operand)
        f->shorts[n++] = '+';
    f->shorts[n++] = ':'; /* a missing argument is told from an unknown option */
    f->shorts[n++] = 'h';
    for (size_t i = 0; i < spec->n_options; i++) {
        const struct cli_option *o = &spec->options[i];
        int arg = o->kind == CLI_FLAG ? no_argument : required_argument;
        f->longs[i] = (struct option){o->name, arg, NULL, FIRST_LONG + (int)i};
        if (o->letter == '\0')
            continue;
        f->shorts[n++] = o->letter;
        if (arg == required_argument)
            f->shorts[n++] = ':';
    }
    f->longs[spec->n_options] = (struct option){"help", no_argument, NULL, HELP};
}

static const struct cli_option *find_option(const struct cli_spec *spec, int c)
{
    if (c >= FIRST_LONG && (size_t)(c - FIRST_LONG) < spec->n_options)
        return &spec->options[c - FIRST_LONG];
    for (size_t i = 0; i < spec->n_options; i++) {
        if (spec->options[i].letter != '\0' && spec->options[i].letter == c)
            return &spec->options[i];
    }
    return NULL;
}

static int take(const struct cli_option *o, const char *value, struct err *err)
{
    struct cli_list *list = o->target;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->target = true;
        return 0;
    case CLI_TEXT:
        *(const char **)o->target = value;
        return 0;
    case CLI_NUMBER:
        if (text_parse_u64(value, o->max, o->target) == 0)
            return 0;
        return err_set(err, ERR_INVALID, "--%s: '%s' is not a whole number of at most %llu",
                       o->name, value, (unsigned long long)o->max);
    case CLI_LIST:
        if (list->n == CLI_LIST_MAX)
            return err_set(err, ERR_INVALID, "--%s: given more than %d times", o->name,
                           CLI_LIST_MAX);
        list->items[list->n++] = value;
        return 0;
    }
    return err_set(err, ERR_INVALID, "--%s: unknown kind", o->name);
}

static int check_operands(const struct cli_spec *spec, int argc, char **argv, int first,
                          struct err *err)
{
    int n = argc - first;
    if (n < spec->min_operands)
        return err_set(err, ERR_INVALID, "something is missing after '%s'", argv[argc - 1]);
    if (spec->max_operands >= 0 && n > spec->max_operands)
        return err_set(err, ERR_INVALID, "unexpected argument '%s'",
                       argv[first + spec->max_operands]);
    return 0;
}

int cli_parse(const struct cli_spec *spec, int argc, char **argv, int *ret_first, bool *ret_help,
              struct err *err)
{
    struct forms f = {0};
    if (spec->n_options > MAX_OPTIONS)
        return err_set(err, ERR_INVALID, "too many options in the table");
    make_forms(spec, &f);
    optind = 0; /* glibc: start anew, and look at the leading '+' again */
    opterr = 0;
    int c;
    while ((c = getopt_long(argc, argv, f.shorts, f.longs, NULL)) != -1) {
        if (c == HELP || c == 'h') {
            *ret_help = true;
            *ret_first = argc;
            return 0;
        }
        if (c == ':')
            return err_set(err, ERR_INVALID, "'%s' needs a value", argv[optind - 1]);
        const struct cli_option *o = find_option(spec, c);
        if (o == NULL && optopt >= FIRST_LONG)
            return err_set(err, ERR_INVALID, "'%s' takes no value", argv[optind - 1]);
        if (o == NULL && optopt > 0)
            return err_set(err, ERR_INVALID, "unknown option '-%c'", optopt);
        if (o == NULL)
            return err_set(err, ERR_INVALID, "unknown option '%s'", argv[optind - 1]);
        if (take(o, optarg, err) < 0)
            return -1;
    }
    if (check_operands(spec, argc, argv, optind, err) < 0)
        return -1;
    *ret_help = false;
    *ret_first = optind;
    return 0;
}

int cli_begin(const struct cli_spec *spec, int argc, char **argv, int usage_code, int *ret_first)
{
    struct err err = {0};
    bool help = false;
    if (cli_parse(spec, argc, argv, ret_first, &help, &err) < 0) {
        cli_complain("%s: %s (try 'casemate %s --help')", argv[0], err.msg, argv[0]);
        return usage_code;
    }
    if (!help)
        return -1;
    fputs(spec->usage, stdout);
    return cli_finish_output();
}

const char *cli_socket_path(const char *option)
{
    if (option != NULL)
        return option;
    const char *env = getenv("CASEMATE_SOCKET");
    return env != NULL && *env != '\0' ? env : CLI_DEFAULT_SOCKET;
}
