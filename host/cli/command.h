/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all commands have in common that ask the daemon something: the command line with --socket,
 * the connection, the error or the end of the output, the exit code. One thread.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "host/cli/cli.h"

struct cli_conn;

struct cli_command {
    struct cli_spec spec; /* --help and --socket are added to its options */
    /*
     * Does it; operands are n, as many as spec allows. What it prints on standard output need not
     * be checked.
     */
    int (*fn)(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err);
    void *arg;
    bool
        each; /* fn is called for each operand by itself, for the later ones also after a failure */
};

/*
 * The command's main: reads the command line into the targets of its options, connects, calls fn,
 * and reports what fails. Returns the exit code.
 */
int cli_command_main(const struct cli_command *command, int argc, char **argv);
