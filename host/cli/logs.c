/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate logs`: what a container wrote, from its CRI log, standard output and standard error
 * each to its own. The log is the kubelet's (or whoever made the container): it is only read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/command.h"
#include "host/cli/conn.h"
#include "host/cli/follow.h"
#include "host/cli/output.h"

enum { CALL_TIMEOUT_MS = 30000, DAEMON_TIMEOUT_MS = 60000, READ_AT_ONCE = 1 << 20 };

static const char usage[] =
    "usage: casemate logs [OPTION]... CONTAINER\n"
    "Prints what a container has written. CONTAINER is an id, or the beginning of one that only "
    "one\n"
    "container has.\n"
    "\n"
    "  -f, --follow       go on until the container has exited\n"
    "  -t, --timestamps   with the time at which each line was written\n"
    "      --socket PATH  the daemon's socket\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0, 1 when there is no such log, 2 for a wrong command line.\n";

/* Where the container's log is, and the container's full id; both heap. */
static int find_log(struct cli_conn *conn, const char *wanted, char **ret_id, char **ret_path,
                    struct err *err)
{
    Runtime__V1__ContainerStatusRequest q = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;
    q.container_id = cli_lend(wanted);
    struct rpc_reply reply = {0};
    if (cli_conn_call(conn, CLI_RUNTIME, "ContainerStatus", &q.base, CALL_TIMEOUT_MS, &reply, err) <
        0) {
        if (err->code == ERR_NOT_FOUND)
            return err_set(err, ERR_NOT_FOUND, "no container '%s' (see 'casemate ps -a')", wanted);
        return -1;
    }
    const Runtime__V1__ContainerStatus *s =
        ((const Runtime__V1__ContainerStatusResponse *)reply.message)->status;
    cleanup_free char *id = NULL, *path = NULL;
    int r = 0;
    if (s == NULL)
        r = err_set(err, ERR_PROTOCOL, "the daemon's answer has no status");
    else if (*s->log_path == '\0')
        r = err_set(err, ERR_NOT_FOUND, "container '%s' was made without a log", wanted);
    else if ((id = strdup(s->id)) == NULL || (path = strdup(s->log_path)) == NULL)
        r = err_no_memory(err);
    rpc_reply_fini(&reply);
    if (r < 0)
        return -1;
    *ret_id = steal_ptr(&id);
    *ret_path = steal_ptr(&path);
    return 0;
}

static int print_log(const char *path, struct cli_output *output, struct err *err)
{
    cleanup_cli_log_file struct cli_log_file *log = NULL;
    if (cli_log_file_new(path, &log, err) < 0)
        return -1;
    bool more = true;
    while (more && !output->broken) {
        if (cli_log_file_read(log, READ_AT_ONCE, cli_output_piece, output, &more, err) < 0 ||
            cli_output_flush(output, err) < 0)
            return -1;
    }
    uint64_t bad = cli_log_file_bad_lines(log);
    if (bad > 0)
        cli_complain("%llu lines of the log were no log lines and were left out",
                     (unsigned long long)bad);
    return 0;
}

static int follow_log(struct cli_conn *conn, const char *id, const char *path,
                      struct cli_output *output, struct err *err)
{
    struct cli_follow follow = {.conn = conn,
                                .container_id = id,
                                .log_path = path,
                                .output = output,
                                .daemon_timeout_ms = DAEMON_TIMEOUT_MS};
    struct cli_exit_status status = {0};
    if (cli_follow(&follow, &status, err) == 0)
        return 0;
    /* Removed meanwhile: that is an end too, and its log has been printed. */
    return err->code == ERR_NOT_FOUND ? 0 : -1;
}

struct wish {
    struct cli_output *output;
    bool follow;
};

static int logs(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    const struct wish *wish = arg;
    cleanup_free char *id = NULL, *path = NULL;
    (void)n;
    if (find_log(conn, operands[0], &id, &path, err) < 0)
        return -1;
    return wish->follow ? follow_log(conn, id, path, wish->output, err)
                        : print_log(path, wish->output, err);
}

int cli_logs_main(int argc, char **argv)
{
    static struct cli_output output = {.out_fd = 1, .err_fd = 2};
    struct wish wish = {.output = &output};
    const struct cli_option options[] = {{"follow", 'f', CLI_FLAG, &wish.follow, 0},
                                         {"timestamps", 't', CLI_FLAG, &output.timestamps, 0}};
    const struct cli_command command = {.spec = {.usage = usage,
                                                 .options = options,
                                                 .n_options = ARRAY_SIZE(options),
                                                 .min_operands = 1,
                                                 .max_operands = 1},
                                        .fn = logs,
                                        .arg = &wish};
    return cli_command_main(&command, argc, argv);
}
