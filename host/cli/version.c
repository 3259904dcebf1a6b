/* SPDX-License-Identifier: Apache-2.0 */
/* `casemate version`: this command, the daemon, and what the daemon runs its machines with. */
#include <stdio.h>

#include "host/cli/cli.h"
#include "host/cli/conn.h"
#include "host/cli/json.h"
#include "host/cli/text.h"

enum { CALL_TIMEOUT_MS = 30000 };

static const char usage[] =
    "usage: casemate version [OPTION]...\n"
    "Prints the versions of this command, of the daemon and of what its machines run on.\n"
    "\n"
    "      --json         as JSON\n"
    "      --socket PATH  the daemon's socket\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0, 1 when the daemon does not answer, 2 for a wrong command line.\n";

static void print_line(const char *name, const char *value, const char *detail)
{
    cleanup_free char *v = cli_escape(value);
    cleanup_free char *d = cli_escape(detail);
    if (v == NULL || d == NULL)
        return;
    if (*d == '\0')
        printf("%-13s %s\n", name, *v == '\0' ? "-" : v);
    else
        printf("%-13s %s (%s)\n", name, v, d);
}

static int print_json(const Casemate__Control__V1__InfoReply *info, struct err *err)
{
    json_t *o = json_pack("{s:s}", "client", CASEMATE_VERSION);
    if (info != NULL && o != NULL) {
        json_t *d = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "version", info->version,
                              "accelerator", info->accelerator, "acceleratorReason",
                              info->accelerator_reason, "qemu", info->qemu_version, "transport",
                              info->transport, "guestKernel", info->guest_kernel_path, "problem",
                              info->problem);
        if (d == NULL || json_object_set_new(o, "daemon", d) < 0) {
            json_decref(o);
            o = NULL;
        }
    }
    int r = o == NULL ? err_no_memory(err) : cli_json_print(o, err);
    json_decref(o);
    return r;
}

static void print_daemon(const Casemate__Control__V1__InfoReply *info)
{
    print_line("casemated", info->version, "");
    print_line("QEMU", info->qemu_version, "");
    print_line("accelerator", info->accelerator, info->accelerator_reason);
    print_line("transport", info->transport, "");
    print_line("guest kernel", info->guest_kernel_path, "");
    if (*info->problem != '\0')
        print_line("problem", info->problem, "");
}

int cli_version_main(int argc, char **argv)
{
    bool json = false;
    const char *socket = NULL;
    const struct cli_option options[] = {{"json", '\0', CLI_FLAG, &json, 0},
                                         {"socket", '\0', CLI_TEXT, &socket, 0}};
    const struct cli_spec spec = {
        .usage = usage, .options = options, .n_options = ARRAY_SIZE(options)};
    int first = 0;
    int code = cli_begin(&spec, argc, argv, CLI_USAGE, &first);
    if (code >= 0)
        return code;
    struct err err = {0}, failed = {0};
    cleanup_cli_conn struct cli_conn *conn = NULL;
    struct rpc_reply reply = {0};
    Casemate__Control__V1__InfoRequest q = CASEMATE__CONTROL__V1__INFO_REQUEST__INIT;
    if (!json)
        print_line("casemate", CASEMATE_VERSION, "");
    int r = cli_conn_open(cli_socket_path(socket), &conn, &err);
    if (r == 0)
        r = cli_conn_call(conn, CLI_CONTROL, "Info", &q.base, CALL_TIMEOUT_MS, &reply, &err);
    const Casemate__Control__V1__InfoReply *info =
        r == 0 ? (const Casemate__Control__V1__InfoReply *)reply.message : NULL;
    if (json && print_json(info, &failed) < 0)
        (void)cli_fail(&failed);
    else if (!json && info != NULL)
        print_daemon(info);
    rpc_reply_fini(&reply);
    if (r < 0) {
        (void)fflush(stdout);
        return cli_fail(&err);
    }
    return cli_finish_output();
}
