/* SPDX-License-Identifier: Apache-2.0 */
/* `casemate metrics`: how long starts take, and what templates occupy, for Prometheus. */
#include <stdio.h>

#include "host/cli/cli.h"
#include "host/cli/command.h"
#include "host/cli/conn.h"
#include "host/cli/exposition.h"

enum { CALL_TIMEOUT_MS = 30000 };

static const char usage[] =
    "usage: casemate metrics [OPTION]...\n"
    "Prints in the text format of Prometheus how long the phases of starts took since the daemon\n"
    "began: the pod as a whole, its network, machine, agent and configuration, and creating a\n"
    "container, its devices and its start; and what the templates of machines occupy now. For the\n"
    "textfile collector of node_exporter, say.\n"
    "\n"
    "      --socket PATH  the daemon's socket\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0, 1 when the daemon does not answer, 2 for a wrong command line.\n";

static int print_metrics(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    Casemate__Control__V1__MetricsRequest q = CASEMATE__CONTROL__V1__METRICS_REQUEST__INIT;
    struct rpc_reply reply = {0};
    (void)arg;
    (void)operands;
    (void)n;
    if (cli_conn_call(conn, CLI_CONTROL, "Metrics", &q.base, CALL_TIMEOUT_MS, &reply, err) < 0)
        return -1;
    int r = cli_exposition_print((const Casemate__Control__V1__MetricsReply *)reply.message, stdout,
                                 err);
    rpc_reply_fini(&reply);
    return r;
}

int cli_metrics_main(int argc, char **argv)
{
    const struct cli_command command = {.spec = {.usage = usage}, .fn = print_metrics};
    return cli_command_main(&command, argc, argv);
}
