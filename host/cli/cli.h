/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate`, the command for people: its subcommands, and what they share: exit codes, the command
 * line, messages. Everything is asked of the daemon over its CRI socket; this room looks at the
 * host by itself only for `casemate check`. One thread. Results go to standard output, everything
 * else to standard error; what a tenant can name is escaped before it gets to either.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define CLI_DEFAULT_SOCKET "/run/casemate/casemate.sock"

/* Exit codes; docs/casemate.1 has them for people. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    /* of `casemate run`, which else exits with the container's own code */
    CLI_RUN_TIMEOUT = 124,
    CLI_RUN_FAILED = 125,
    CLI_RUN_NOT_EXECUTABLE = 126,
    CLI_RUN_NOT_FOUND = 127,
};

/* ---- the subcommands: argv[0] is the name; the exit code is returned ---- */

/* `casemate check`: what this host can and cannot do. CLI_FAILED when pods cannot run. */
int cli_check_main(int argc, char **argv);
/* `casemate run`: one container to its end, whose exit code is returned. */
int cli_run_main(int argc, char **argv);
/* `casemate ps`: pods and their containers. */
int cli_ps_main(int argc, char **argv);
/* `casemate images`: a table, or JSON. */
int cli_images_main(int argc, char **argv);
/* `casemate pull`: one image, with progress on a terminal. */
int cli_pull_main(int argc, char **argv);
/* `casemate image`: import and rm. */
int cli_image_main(int argc, char **argv);
/* `casemate rmp`: stop and forget pods. */
int cli_rmp_main(int argc, char **argv);
/* `casemate logs`: a container's, which --follow follows until it has ended. */
int cli_logs_main(int argc, char **argv);
/* `casemate timeline`: what a pod's start consisted of. */
int cli_timeline_main(int argc, char **argv);
/* `casemate metrics`: how long starts take, for Prometheus. */
int cli_metrics_main(int argc, char **argv);
/* `casemate version`: CLI_FAILED without a daemon, this command's own version is printed anyway. */
int cli_version_main(int argc, char **argv);

/* ---- the command line ---- */

enum cli_option_kind {
    CLI_FLAG,   /* bool: present */
    CLI_TEXT,   /* const char *: the last one given */
    CLI_NUMBER, /* uint64_t: a whole number of at most `max` */
    CLI_LIST,   /* struct cli_list: every one given, in order */
};

enum { CLI_LIST_MAX = 256 };

struct cli_list {
    const char *items[CLI_LIST_MAX];
    size_t n;
};

struct cli_option {
    const char *name; /* "--name" without its dashes */
    char letter;      /* of the short form; '\0': none */
    enum cli_option_kind kind;
    void *target;
    uint64_t max;
};

/* What a command takes. */
struct cli_spec {
    const char *usage; /* the whole --help text */
    const struct cli_option *options;
    size_t n_options;
    int min_operands;
    int max_operands;     /* -1: any number */
    bool stop_at_operand; /* options after the first operand are somebody else's */
};

/*
 * Reads options into their targets; argv is permuted so that the operands are argv[*ret_first] and
 * after. *ret_help: --help (or -h) was asked for, and nothing else was checked. INVALID.
 */
int cli_parse(const struct cli_spec *spec, int argc, char **argv, int *ret_first, bool *ret_help,
              struct err *err);

/*
 * cli_parse for a command's main: prints the help or the complaint. Returns -1 to go on, else the
 * exit code (usage_code for a wrong command line).
 */
int cli_begin(const struct cli_spec *spec, int argc, char **argv, int usage_code, int *ret_first);

/* The socket: the option's value, else CASEMATE_SOCKET, else the default. */
const char *cli_socket_path(const char *option);

/* ---- messages ---- */

/* "casemate: <text>" on standard error, escaped. */
void cli_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* cli_complain for an error, with what to do about it where its code tells. Returns CLI_FAILED. */
int cli_fail(const struct err *err);

/* Whether all that was printed on standard output got there; complains if not. Returns an exit
 * code. */
int cli_finish_output(void);

/* Protobuf-c's strings are not const; requests only lend theirs. */
static inline char *cli_lend(const char *text)
{
    union {
        const char *in;
        char *out;
    } u = {.in = text == NULL ? "" : text};
    return u.out;
}
