/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line is complete before the daemon is asked for anything, so --help and a wrong
 * option need none. A failure is reported once, here; of several operands each one's.
 */
#include "host/cli/command.h"

#include <string.h>

#include "host/cli/conn.h"

enum { OPTIONS = 16 };

static int run(const struct cli_command *command, struct cli_conn *conn, char **operands, int n)
{
    struct err err = {0};
    int code = CLI_OK;

    if (!command->each)
        return command->fn(command->arg, conn, operands, n, &err) < 0 ? cli_fail(&err) : CLI_OK;
    for (int i = 0; i < n; i++)
        if (command->fn(command->arg, conn, operands + i, 1, &err) < 0)
            code = cli_fail(&err);
    return code;
}

int cli_command_main(const struct cli_command *command, int argc, char **argv)
{
    struct cli_option options[OPTIONS];
    struct cli_spec spec = command->spec;
    const char *socket = NULL;
    struct err err = {0};
    int first = 0;

    if (spec.n_options >= OPTIONS) {
        cli_complain("%s has too many options", argv[0]);
        return CLI_FAILED;
    }
    if (spec.n_options > 0)
        memcpy(options, spec.options, spec.n_options * sizeof(*options));
    options[spec.n_options++] = (struct cli_option){"socket", '\0', CLI_TEXT, &socket, 0};
    spec.options = options;
    int code = cli_begin(&spec, argc, argv, CLI_USAGE, &first);
    if (code >= 0)
        return code;
    cleanup_cli_conn struct cli_conn *conn = NULL;
    if (cli_conn_open(cli_socket_path(socket), &conn, &err) < 0)
        return cli_fail(&err);
    code = run(command, conn, argv + first, argc - first);
    int finished = cli_finish_output();
    return code == CLI_OK ? finished : code;
}
