/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate run`: one container in a VM of its own, as if it were a program started here. The steps
 * are those that a kubelet takes; whatever happens after the pod was asked for, it is removed
 * again, also when the answer was lost (its label finds it). Signals and the time limit arrive on
 * the connection's loop and ask for a stop; the container's end then takes the ordinary way out.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/cli/cli.h"
#include "host/cli/follow.h"
#include "host/cli/runspec.h"
#include "host/cli/transfer.h"

static const char usage[] =
    "usage: casemate run [OPTION]... IMAGE [ARG]...\n"
    "Runs one container in a virtual machine of its own and removes both afterwards. ARGs replace\n"
    "the image's default arguments.\n"
    "\n"
    "      --pull WHEN        always, missing (default) or never\n"
    "  -e, --env NAME=VALUE   set a variable (NAME alone: with our own value); repeatable\n"
    "      --entrypoint PATH  run this instead of the image's entrypoint\n"
    "  -u, --user USER[:GID]  run as this user, by number or by name\n"
    "  -w, --workdir DIR      working directory\n"
    "      --name NAME        name of the pod and its hostname (default run-<random>)\n"
    "      --memory MIB       memory limit of the container\n"
    "      --timeout SECONDS  stop the container after so long (exit status 124)\n"
    "  -q, --quiet            no progress of a pull\n"
    "      --socket PATH      the daemon's socket\n"
    "  -h, --help             print this and exit\n"
    "\n"
    "SIGINT, SIGTERM and SIGHUP stop the container (10 seconds to end); a second one kills it.\n"
    "\n"
    "Exit status: the container's own (128+N after signal N); 124 out of time, 125 casemate's own\n"
    "failure, 126 the command cannot be executed, 127 the command was not found.\n";

enum {
    POD_TIMEOUT_MS = 300000,
    CALL_TIMEOUT_MS = 120000,
    DAEMON_TIMEOUT_MS = 60000,
    STOP_TIMEOUT_MS = 60000,
    GRACE_S = 10,
    MAX_TIMEOUT_S = 10000000,
    MAX_MEMORY_MIB = 1 << 24,
};
#define ROTATE_BYTES (32u << 20)

/* What asks for the container's end. */
enum stop_level { STOP_NOT, STOP_GRACE, STOP_KILL };

struct run {
    struct cli_run_spec spec;
    const char *pull;
    bool quiet;
    struct cli_conn *conn;
    struct loop_source *signals;
    struct loop_source *timer;
    enum stop_level stop;
    enum stop_level sent; /* asked of the daemon already */
    bool stopped;         /* a signal came: stop what is before the container's start */
    bool discard;         /* the second signal: output nobody takes is dropped */
    int signo;            /* the first */
    bool timed_out;
    bool broken_pipe;
    char log_dir[64];
    bool pod_asked;
    char *pod_id;
    char *container_id;
    struct cli_output output;
};

/* Asks the daemon for what run->stop says, if it was not asked for that yet. */
static void send_stop(struct run *run)
{
    if (run->container_id == NULL || run->sent >= run->stop)
        return;
    Runtime__V1__StopContainerRequest q = RUNTIME__V1__STOP_CONTAINER_REQUEST__INIT;
    q.container_id = run->container_id;
    q.timeout = run->stop == STOP_GRACE ? GRACE_S : 0;
    struct err quiet = {0};
    /* While the daemon is away this fails, and on_poll asks again. */
    if (cli_conn_start(run->conn, CLI_RUNTIME, "StopContainer", &q.base, STOP_TIMEOUT_MS, &quiet) ==
        0)
        run->sent = run->stop;
}

static void on_signal(void *arg, int signo)
{
    struct run *run = arg;
    if (run->signo == 0)
        run->signo = signo;
    run->discard = run->stopped;
    run->stop = run->stopped ? STOP_KILL : STOP_GRACE;
    run->stopped = true;
    send_stop(run);
}

static void on_timeout(void *arg)
{
    struct run *run = arg;
    run->timed_out = true;
    if (run->stop == STOP_NOT)
        run->stop = STOP_GRACE;
    run->stopped = true;
    send_stop(run);
}

static void on_poll(void *arg)
{
    struct run *run = arg;
    if (run->output.broken && !run->broken_pipe) {
        run->broken_pipe = true;
        run->stop = run->stop == STOP_NOT ? STOP_GRACE : run->stop;
    }
    /* The call that asked for a stop ended without one: the daemon was restarted. */
    if (run->sent != STOP_NOT && !cli_conn_busy(run->conn))
        run->sent = STOP_NOT;
    send_stop(run);
}

static int check_stopped(const struct run *run, struct err *err)
{
    return run->stopped ? err_set(err, ERR_CANCELLED, "interrupted") : 0;
}

/* Whether the daemon has the image. */
static int image_present(struct run *run, bool *ret_present, struct err *err)
{
    Runtime__V1__ImageSpec image = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__ImageStatusRequest q = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;
    image.image = cli_lend(run->spec.image);
    q.image = &image;
    struct rpc_reply reply = {0};
    if (cli_conn_call(run->conn, CLI_IMAGE, "ImageStatus", &q.base, CALL_TIMEOUT_MS, &reply, err) <
        0)
        return -1;
    *ret_present = ((const Runtime__V1__ImageStatusResponse *)reply.message)->image != NULL;
    rpc_reply_fini(&reply);
    return 0;
}

static int get_image(struct run *run, struct err *err)
{
    bool present = false;
    if (strcmp(run->pull, "always") != 0) {
        if (image_present(run, &present, err) < 0)
            return -1;
        if (present)
            return 0;
        if (strcmp(run->pull, "never") == 0)
            return err_set(err, ERR_NOT_FOUND,
                           "image '%s' is not here: 'casemate pull' or 'casemate image import' it",
                           run->spec.image);
    }
    struct cli_transfer transfer = {
        .quiet = run->quiet, .stop = &run->stopped, .reference = run->spec.image};
    return cli_transfer(run->conn, &transfer, NULL, err);
}

static int make_log_dir(struct run *run, struct err *err)
{
    const char *tmp = getenv("TMPDIR");
    if (tmp == NULL || tmp[0] != '/' || strlen(tmp) > 32)
        tmp = "/tmp";
    char template[sizeof(run->log_dir)];
    (void)snprintf(template, sizeof(template), "%s/casemate-run-XXXXXX", tmp);
    if (mkdtemp(template) == NULL)
        return err_set_errno(err, errno, "make a folder for the log in '%s'", tmp);
    memcpy(run->log_dir, template, sizeof(template));
    run->spec.log_dir = run->log_dir;
    return 0;
}

static int take_text(const char *text, char **ret_copy, struct err *err)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return err_no_memory(err);
    *ret_copy = copy;
    return 0;
}

static int start_pod(struct run *run, const struct cli_run_config *config, struct err *err)
{
    Runtime__V1__RunPodSandboxRequest q = RUNTIME__V1__RUN_POD_SANDBOX_REQUEST__INIT;
    q.config = cli_run_pod_config(config);
    struct rpc_reply reply = {0};
    run->pod_asked = true;
    if (cli_conn_call(run->conn, CLI_RUNTIME, "RunPodSandbox", &q.base, POD_TIMEOUT_MS, &reply,
                      err) < 0)
        return err_prefix(err, "start a virtual machine");
    int r = take_text(((const Runtime__V1__RunPodSandboxResponse *)reply.message)->pod_sandbox_id,
                      &run->pod_id, err);
    rpc_reply_fini(&reply);
    return r;
}

static int create_container(struct run *run, const struct cli_run_config *config, char **ret_id,
                            struct err *err)
{
    Runtime__V1__CreateContainerRequest q = RUNTIME__V1__CREATE_CONTAINER_REQUEST__INIT;
    q.pod_sandbox_id = run->pod_id;
    q.config = cli_run_container_config(config);
    q.sandbox_config = cli_run_pod_config(config);
    struct rpc_reply reply = {0};
    if (cli_conn_call(run->conn, CLI_RUNTIME, "CreateContainer", &q.base, CALL_TIMEOUT_MS, &reply,
                      err) < 0)
        return err_prefix(err, "create the container");
    int r = take_text(((const Runtime__V1__CreateContainerResponse *)reply.message)->container_id,
                      ret_id, err);
    rpc_reply_fini(&reply);
    return r;
}

static int start_container(struct run *run, char *id, int *ret_code, struct err *err)
{
    Runtime__V1__StartContainerRequest q = RUNTIME__V1__START_CONTAINER_REQUEST__INIT;
    q.container_id = id;
    if (cli_conn_tell(run->conn, CLI_RUNTIME, "StartContainer", &q.base, CALL_TIMEOUT_MS, err) == 0)
        return 0;
    *ret_code = cli_run_start_failure(err);
    return -1;
}

static int follow_container(struct run *run, int *ret_code, struct err *err)
{
    cleanup_free char *log_path = text_printf("%s/%s", run->log_dir, CLI_RUN_LOG);
    if (log_path == NULL)
        return err_no_memory(err);
    struct cli_follow follow = {.conn = run->conn,
                                .container_id = run->container_id,
                                .log_path = log_path,
                                .output = &run->output,
                                .rotate_bytes = ROTATE_BYTES,
                                .daemon_timeout_ms = DAEMON_TIMEOUT_MS,
                                .on_poll = on_poll,
                                .arg = run};
    struct cli_exit_status status = {0};
    if (cli_follow(&follow, &status, err) < 0)
        return -1;
    if (run->timed_out)
        *ret_code = CLI_RUN_TIMEOUT;
    else if (run->broken_pipe)
        *ret_code = 128 + SIGPIPE;
    else
        *ret_code = cli_run_exit_code(&status);
    return 0;
}

/* From the image to the container's end; *ret_code is set on failure too. */
static int run_steps(struct run *run, const struct cli_run_config *config, int *ret_code,
                     struct err *err)
{
    *ret_code = CLI_RUN_FAILED;
    if (get_image(run, err) < 0 || check_stopped(run, err) < 0)
        return -1;
    if (start_pod(run, config, err) < 0 || check_stopped(run, err) < 0)
        return -1;
    cleanup_free char *id = NULL;
    if (create_container(run, config, &id, err) < 0 || check_stopped(run, err) < 0 ||
        start_container(run, id, ret_code, err) < 0)
        return -1;
    run->container_id = steal_ptr(&id);
    send_stop(run); /* for a signal that came while it was started */
    return follow_container(run, ret_code, err);
}

/* The id of a pod whose RunPodSandbox was not answered, by its label; stays NULL if there is none.
 */
static int find_pod(struct run *run, const struct cli_run_config *config, struct err *err)
{
    Runtime__V1__ListPodSandboxRequest q = RUNTIME__V1__LIST_POD_SANDBOX_REQUEST__INIT;
    q.filter = cli_run_filter(config);
    struct rpc_reply reply = {0};
    if (cli_conn_call_again(run->conn, CLI_RUNTIME, "ListPodSandbox", &q.base, DAEMON_TIMEOUT_MS,
                            &reply, err) < 0)
        return -1;
    const Runtime__V1__ListPodSandboxResponse *m =
        (const Runtime__V1__ListPodSandboxResponse *)reply.message;
    int r = m->n_items == 0 ? 0 : take_text(m->items[0]->id, &run->pod_id, err);
    rpc_reply_fini(&reply);
    return r;
}

static int remove_pod(struct run *run, const struct cli_run_config *config, struct err *err)
{
    if (run->pod_asked && run->pod_id == NULL && find_pod(run, config, err) < 0)
        return -1;
    if (run->pod_id == NULL)
        return 0;
    Runtime__V1__RemovePodSandboxRequest q = RUNTIME__V1__REMOVE_POD_SANDBOX_REQUEST__INIT;
    q.pod_sandbox_id = run->pod_id;
    struct rpc_reply reply = {0};
    if (cli_conn_call_again(run->conn, CLI_RUNTIME, "RemovePodSandbox", &q.base, DAEMON_TIMEOUT_MS,
                            &reply, err) < 0)
        return -1;
    rpc_reply_fini(&reply);
    return 0;
}

/* Whatever was made goes; what could not be removed is named. */
static void clean_up(struct run *run, const struct cli_run_config *config)
{
    struct err err = {0};
    if (remove_pod(run, config, &err) < 0)
        cli_complain("pod '%s' is left: %s (remove it with 'casemate rmp %s')",
                     run->pod_id == NULL ? run->spec.name : run->pod_id, err.msg,
                     run->pod_id == NULL ? run->spec.name : run->pod_id);
    if (run->log_dir[0] != '\0' && fd_remove_tree(AT_FDCWD, run->log_dir, &err) < 0)
        cli_complain("'%s' is left: %s", run->log_dir, err.msg);
}

static int add_sources(struct run *run, struct err *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, 0};
    struct loop *loop = cli_conn_loop(run->conn);
    if (loop_add_signals(loop, signals, on_signal, run, &run->signals, err) < 0 ||
        loop_add_timer(loop, on_timeout, run, &run->timer, err) < 0)
        return -1;
    if (run->spec.timeout_s > 0)
        loop_arm(run->timer, (int64_t)run->spec.timeout_s * 1000);
    run->output.loop = loop;
    run->output.discard = &run->discard;
    run->output.out_fd = 1;
    run->output.err_fd = 2;
    return 0;
}

static int run_all(struct run *run, const char *socket_path)
{
    struct err err = {0};
    int code = CLI_RUN_FAILED;
    struct cli_run_config *config = NULL;
    if (cli_conn_open(socket_path, &run->conn, &err) < 0) {
        (void)cli_fail(&err);
        return code;
    }
    if (add_sources(run, &err) < 0 || make_log_dir(run, &err) < 0 ||
        cli_run_config_new(&run->spec, &config, &err) < 0 ||
        run_steps(run, config, &code, &err) < 0) {
        if (err.code == ERR_CANCELLED && run->stopped)
            code = run->timed_out ? CLI_RUN_TIMEOUT : 128 + run->signo;
        else
            (void)cli_fail(&err);
    }
    clean_up(run, config);
    cli_run_config_free(config);
    loop_source_free(run->timer);
    loop_source_free(run->signals);
    cli_conn_free(run->conn);
    free(run->pod_id);
    free(run->container_id);
    return code;
}

static bool valid_policy(const char *pull)
{
    return strcmp(pull, "always") == 0 || strcmp(pull, "missing") == 0 ||
           strcmp(pull, "never") == 0;
}

int cli_run_main(int argc, char **argv)
{
    static struct run run = {.pull = "missing"}; /* its buffers are large for a stack */
    static struct cli_list env;
    const char *socket = NULL;
    const struct cli_option options[] = {
        {"pull", '\0', CLI_TEXT, &run.pull, 0},
        {"env", 'e', CLI_LIST, &env, 0},
        {"entrypoint", '\0', CLI_TEXT, &run.spec.entrypoint, 0},
        {"user", 'u', CLI_TEXT, &run.spec.user, 0},
        {"workdir", 'w', CLI_TEXT, &run.spec.workdir, 0},
        {"name", '\0', CLI_TEXT, &run.spec.name, 0},
        {"memory", '\0', CLI_NUMBER, &run.spec.memory_mib, MAX_MEMORY_MIB},
        {"timeout", '\0', CLI_NUMBER, &run.spec.timeout_s, MAX_TIMEOUT_S},
        {"quiet", 'q', CLI_FLAG, &run.quiet, 0},
        {"socket", '\0', CLI_TEXT, &socket, 0},
    };
    const struct cli_spec spec = {.usage = usage,
                                  .options = options,
                                  .n_options = ARRAY_SIZE(options),
                                  .min_operands = 1,
                                  .max_operands = -1,
                                  .stop_at_operand = true};
    int first = 0;
    int code = cli_begin(&spec, argc, argv, CLI_RUN_FAILED, &first);
    if (code >= 0)
        return code;
    struct err err = {0};
    if (!valid_policy(run.pull)) {
        cli_complain("run: --pull: '%s' is none of always, missing, never", run.pull);
        return CLI_RUN_FAILED;
    }
    run.spec.image = argv[first];
    run.spec.args = argv + first + 1;
    run.spec.n_args = (size_t)(argc - first - 1);
    run.spec.env = &env;
    if (cli_run_spec_check(&run.spec, &err) < 0) {
        cli_complain("run: %s (try 'casemate run --help')", err.msg);
        return CLI_RUN_FAILED;
    }
    return run_all(&run, cli_socket_path(socket));
}
