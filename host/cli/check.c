/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate check`: a table of small functions, each about one thing. They look at the host
 * directly, because the reason for asking is often that the daemon does not start; what only the
 * daemon can know (which accelerator really runs a guest) is asked of it when it is there.
 */
#include "host/cli/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/conn.h"
#include "host/cli/json.h"
#include "host/cli/text.h"

enum { INFO_TIMEOUT_MS = 10000 };

static const char usage[] =
    "usage: casemate check [OPTION]...\n"
    "Says what this host can and cannot do, and what to do about it.\n"
    "\n"
    "      --config FILE  the daemon's configuration (default " CASEMATE_SYSCONFDIR
    "/casemate.conf)\n"
    "      --socket PATH  the daemon's socket (default: as configured)\n"
    "      --json         as JSON\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0 when nothing that is needed is missing, 1 when something is, 2 for a wrong\n"
    "command line or configuration.\n";

static const struct cli_check checks[] = {
    {"privileges", cli_check_privileges},
    {"qemu", cli_check_qemu},
    {"kvm", cli_check_kvm},
    {"transport", cli_check_vsock},
    {"network", cli_check_tun},
    {"cni", cli_check_cni},
    {"cgroups", cli_check_cgroups},
    {"memory", cli_check_memory},
    {"guest", cli_check_guest},
    {"converter", cli_check_converter},
    {"mke2fs", cli_check_mke2fs},
    {"state", cli_check_state_dir},
    {"reflink", cli_check_reflink},
    {"runtime", cli_check_run_dir},
    {"daemon", cli_check_daemon},
    {"templates", cli_check_templates},
};

const struct cli_check *cli_checks(size_t *ret_n)
{
    *ret_n = ARRAY_SIZE(checks);
    return checks;
}

void cli_find(struct cli_finding *f, enum cli_level level, const char *remedy, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    f->level = level;
    (void)vsnprintf(f->text, sizeof(f->text), fmt, args);
    va_end(args);
    (void)snprintf(f->remedy, sizeof(f->remedy), "%s", text_or_empty(remedy));
}

char *cli_check_path(const struct cli_check_env *env, const char *path)
{
    return text_printf("%s%s", env->root, path);
}

/* ---- the daemon's view ---- */

static void copy_text(char *ret, size_t size, const char *text)
{
    (void)snprintf(ret, size, "%s", text);
}

static void ask_daemon(const char *socket_path, struct cli_daemon_view *ret)
{
    struct err err = {0};
    cleanup_cli_conn struct cli_conn *conn = NULL;
    Casemate__Control__V1__InfoRequest q = CASEMATE__CONTROL__V1__INFO_REQUEST__INIT;
    struct rpc_reply reply = {0};
    int r = cli_conn_open(socket_path, &conn, &err);
    ret->running = r == 0;
    if (r < 0 && err.code == ERR_UNAVAILABLE)
        (void)err_set(&err, ERR_UNAVAILABLE, "nobody listens at '%s'", socket_path);
    if (r == 0)
        r = cli_conn_call(conn, CLI_CONTROL, "Info", &q.base, INFO_TIMEOUT_MS, &reply, &err);
    if (r < 0) {
        copy_text(ret->error, sizeof(ret->error), err.msg);
        return;
    }
    const Casemate__Control__V1__InfoReply *m =
        (const Casemate__Control__V1__InfoReply *)reply.message;
    ret->reachable = true;
    copy_text(ret->version, sizeof(ret->version), m->version);
    copy_text(ret->accelerator, sizeof(ret->accelerator), m->accelerator);
    copy_text(ret->accelerator_reason, sizeof(ret->accelerator_reason), m->accelerator_reason);
    copy_text(ret->transport, sizeof(ret->transport), m->transport);
    copy_text(ret->problem, sizeof(ret->problem), m->problem);
    if (m->templates != NULL) {
        ret->templates = m->templates->count;
        ret->templates_refused = m->templates->refused;
        ret->template_bytes = m->templates->bytes;
        ret->template_max_bytes = m->templates->max_bytes;
    }
    rpc_reply_fini(&reply);
}

/* ---- output ---- */

static const char *level_word(enum cli_level level)
{
    static const char *const words[] = {"ok", "warn", "FAIL"};
    return words[level];
}

static void print_finding(const char *name, const struct cli_finding *f, bool colour)
{
    static const char *const colours[] = {"\x1b[32m", "\x1b[33m", "\x1b[1;31m"};
    cleanup_free char *text = cli_escape(f->text);
    cleanup_free char *remedy = cli_escape(f->remedy);
    if (text == NULL || remedy == NULL)
        return;
    printf("%s%-4s%s  %-10s  %s\n", colour ? colours[f->level] : "", level_word(f->level),
           colour ? "\x1b[0m" : "", name, text);
    if (f->level != CLI_CHECK_OK && *remedy != '\0')
        printf("      %-10s  -> %s\n", "", remedy);
}

static int add_json(json_t *list, const char *name, const struct cli_finding *f, struct err *err)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "check", name, "level", level_word(f->level),
                          "text", f->text, "remedy", f->remedy);
    if (o == NULL || json_array_append_new(list, o) < 0)
        return err_no_memory(err);
    return 0;
}

static int run_checks(const struct cli_check_env *env, bool json, int *ret_code, struct err *err)
{
    size_t n = 0, counts[3] = {0};
    const struct cli_check *all = cli_checks(&n);
    json_t *list = json ? json_array() : NULL;
    bool colour = isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == NULL;
    int r = json && list == NULL ? err_no_memory(err) : 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        struct cli_finding f = {0};
        all[i].fn(env, &f);
        counts[f.level]++;
        if (json)
            r = add_json(list, all[i].name, &f, err);
        else
            print_finding(all[i].name, &f, colour);
    }
    if (r == 0 && json)
        r = cli_json_print(list, err);
    else if (r == 0)
        printf("%zu ok, %zu warnings, %zu failures\n", counts[CLI_CHECK_OK], counts[CLI_CHECK_WARN],
               counts[CLI_CHECK_FAIL]);
    json_decref(list);
    *ret_code = counts[CLI_CHECK_FAIL] > 0 ? CLI_FAILED : CLI_OK;
    return r;
}

int cli_check_main(int argc, char **argv)
{
    bool json = false;
    const char *socket = NULL, *config = NULL;
    const struct cli_option options[] = {{"config", '\0', CLI_TEXT, &config, 0},
                                         {"json", '\0', CLI_FLAG, &json, 0},
                                         {"socket", '\0', CLI_TEXT, &socket, 0}};
    const struct cli_spec spec = {
        .usage = usage, .options = options, .n_options = ARRAY_SIZE(options)};
    int first = 0;
    int code = cli_begin(&spec, argc, argv, CLI_USAGE, &first);
    if (code >= 0)
        return code;
    struct err err = {0};
    cleanup_cli_conf struct cli_conf conf = {0};
    if (cli_conf_load(config == NULL ? CASEMATE_SYSCONFDIR "/casemate.conf" : config,
                      config != NULL, &conf, &err) < 0) {
        (void)cli_fail(&err);
        return CLI_USAGE;
    }
    if (socket == NULL && getenv("CASEMATE_SOCKET") == NULL)
        socket = conf.socket;
    struct cli_daemon_view daemon = {0};
    ask_daemon(cli_socket_path(socket), &daemon);
    struct cli_check_env env = {.root = "", .conf = &conf, .daemon = &daemon};
    if (run_checks(&env, json, &code, &err) < 0)
        return cli_fail(&err);
    int finished = cli_finish_output();
    return code == CLI_OK ? finished : code;
}
