/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate timeline`: what a pod's start consisted of, as the daemon measured it. It is in the
 * verbose status of the pod, as JSON, so that crictl inspectp shows the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <jansson.h>

#include "common/base/text.h"
#include "host/cli/chart.h"
#include "host/cli/cli.h"
#include "host/cli/command.h"
#include "host/cli/conn.h"
#include "host/cli/json.h"
#include "host/cli/text.h"

enum {
    CALL_TIMEOUT_MS = 30000,
    COLUMNS = 100,      /* of what is no terminal */
    COLUMNS_TAKEN = 52, /* by all but the bars */
    CELLS_MIN = 10,
    CELLS_MAX = 100,
};

static const char usage[] =
    "usage: casemate timeline [OPTION]... POD\n"
    "Shows what a pod's start consisted of: each step with its beginning, its end, and what the\n"
    "machine used of the CPU meanwhile. Steps overlap. POD is an id, or the beginning of one that\n"
    "only one pod has.\n"
    "\n"
    "      --svg          print an SVG picture\n"
    "      --json         print the steps as JSON, in microseconds\n"
    "      --socket PATH  the daemon's socket\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0, 1 when there is no such pod, 2 for a wrong command line.\n";

/* The member "timeline" of the JSON text under "info"; a new reference. */
static int take_timeline(const Runtime__V1__PodSandboxStatusResponse *m, json_t **ret_timeline,
                         struct err *err)
{
    for (size_t i = 0; i < m->n_info; i++) {
        if (strcmp(m->info[i]->key, "info") != 0)
            continue;
        json_t *info = json_loads(m->info[i]->value, 0, NULL);
        json_t *timeline = json_incref(json_object_get(info, "timeline"));
        json_decref(info);
        if (timeline == NULL)
            break;
        *ret_timeline = timeline;
        return 0;
    }
    return err_set(err, ERR_PROTOCOL, "the daemon does not tell a timeline: is it an older one?");
}

/* Title: the pod's name, namespace and id; heap. */
static char *make_title(const Runtime__V1__PodSandboxStatus *s)
{
    char id[CLI_SHORT_ID + 1];

    cli_format_id(s->id, id);
    return text_printf("%s (%s) %s", s->metadata == NULL ? "" : s->metadata->name,
                       s->metadata == NULL ? "" : s->metadata->namespace_, id);
}

static int ask(struct cli_conn *conn, const char *wanted, json_t **ret_timeline, char **ret_title,
               struct err *err)
{
    Runtime__V1__PodSandboxStatusRequest q = RUNTIME__V1__POD_SANDBOX_STATUS_REQUEST__INIT;
    struct rpc_reply reply = {0};
    q.pod_sandbox_id = cli_lend(wanted);
    q.verbose = true;
    if (cli_conn_call(conn, CLI_RUNTIME, "PodSandboxStatus", &q.base, CALL_TIMEOUT_MS, &reply,
                      err) < 0) {
        if (err->code == ERR_NOT_FOUND)
            return err_set(err, ERR_NOT_FOUND, "no pod '%s' (see 'casemate ps -a')", wanted);
        return -1;
    }
    const Runtime__V1__PodSandboxStatusResponse *m = (const void *)reply.message;
    int r = m->status == NULL ? err_set(err, ERR_PROTOCOL, "the daemon's answer has no status")
                              : take_timeline(m, ret_timeline, err);
    if (r == 0) {
        cleanup_free char *title = make_title(m->status);
        *ret_title = title == NULL ? NULL : cli_escape(title);
        if (*ret_title == NULL)
            r = err_no_memory(err);
    }
    rpc_reply_fini(&reply);
    return r;
}

/* Cells for the bars. */
static size_t bar_cells(void)
{
    struct winsize size;
    int columns = COLUMNS;

    if (ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        columns = size.ws_col;
    columns -= COLUMNS_TAKEN;
    return (size_t)(columns < CELLS_MIN ? CELLS_MIN : columns > CELLS_MAX ? CELLS_MAX : columns);
}

struct wish {
    bool svg, json;
};

static int show(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    static struct cli_chart chart;
    const struct wish *wish = arg;
    cleanup_free char *title = NULL;
    json_t *timeline = NULL;
    (void)n;
    int r = ask(conn, operands[0], &timeline, &title, err);
    if (r == 0)
        r = wish->json ? cli_json_print(timeline, err) : cli_chart_read(timeline, &chart, err);
    json_decref(timeline);
    if (r < 0 || wish->json)
        return r;
    if (wish->svg) {
        cli_chart_svg(&chart, title, stdout);
    } else {
        printf("%s\n", title);
        cli_chart_print(&chart, bar_cells(), stdout);
    }
    cli_chart_fini(&chart);
    return 0;
}

int cli_timeline_main(int argc, char **argv)
{
    struct wish wish = {0};
    const struct cli_option options[] = {{"svg", '\0', CLI_FLAG, &wish.svg, 0},
                                         {"json", '\0', CLI_FLAG, &wish.json, 0}};
    const struct cli_command command = {.spec = {.usage = usage,
                                                 .options = options,
                                                 .n_options = ARRAY_SIZE(options),
                                                 .min_operands = 1,
                                                 .max_operands = 1},
                                        .fn = show,
                                        .arg = &wish};
    return cli_command_main(&command, argc, argv);
}
