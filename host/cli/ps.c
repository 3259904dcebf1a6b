/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate ps` and `casemate rmp`. One row a container, beside its pod; a pod without containers
 * has a row of its own. ListContainers does not tell exit codes, so that each exited container that
 * is shown costs one call more.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/command.h"
#include "host/cli/conn.h"
#include "host/cli/json.h"
#include "host/cli/text.h"

enum { CALL_TIMEOUT_MS = 30000, REMOVE_TIMEOUT_MS = 120000 };

static const char ps_usage[] =
    "usage: casemate ps [OPTION]...\n"
    "Lists the pods that are ready, with their containers.\n"
    "\n"
    "  -a, --all          also pods and containers that have ended\n"
    "      --json         as JSON\n"
    "      --socket PATH  the daemon's socket\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0, 1 when the daemon does not answer, 2 for a wrong command line.\n";

static const char rmp_usage[] =
    "usage: casemate rmp [OPTION]... POD...\n"
    "Stops pods, with their containers, and removes them. A POD is an id, the beginning of one "
    "that\n"
    "only one pod has, or a name.\n"
    "\n"
    "      --socket PATH  the daemon's socket\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Exit status: 0, 1 when a pod could not be removed, 2 for a wrong command line.\n";

static const char *const container_states[] = {"created", "running", "exited", "unknown"};

static const char *container_state(const Runtime__V1__Container *c)
{
    size_t state = (size_t)c->state;
    return state < ARRAY_SIZE(container_states) ? container_states[state] : "unknown";
}

struct listing {
    struct cli_conn *conn;
    bool all;
    bool as_json;
    struct rpc_reply pods_reply;
    struct rpc_reply containers_reply;
    const Runtime__V1__ListPodSandboxResponse *pods;
    const Runtime__V1__ListContainersResponse *containers;
    struct cli_table *table;
    json_t *json;
    int64_t now_ns;
};

static bool is_ready(const Runtime__V1__PodSandbox *pod)
{
    return pod->state == RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY;
}

static bool is_exited(const Runtime__V1__Container *c)
{
    return c->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
}

static int fetch(struct listing *l, struct err *err)
{
    Runtime__V1__ListPodSandboxRequest pods = RUNTIME__V1__LIST_POD_SANDBOX_REQUEST__INIT;
    Runtime__V1__ListContainersRequest containers = RUNTIME__V1__LIST_CONTAINERS_REQUEST__INIT;
    /* Containers first: one that is made in between then has its pod in the list. */
    if (cli_conn_call(l->conn, CLI_RUNTIME, "ListContainers", &containers.base, CALL_TIMEOUT_MS,
                      &l->containers_reply, err) < 0 ||
        cli_conn_call(l->conn, CLI_RUNTIME, "ListPodSandbox", &pods.base, CALL_TIMEOUT_MS,
                      &l->pods_reply, err) < 0)
        return -1;
    l->containers = (const Runtime__V1__ListContainersResponse *)l->containers_reply.message;
    l->pods = (const Runtime__V1__ListPodSandboxResponse *)l->pods_reply.message;
    l->now_ns = clock_realtime_ns();
    return 0;
}

/* The exit code of an exited container; false: it is gone, or cannot be asked. */
static bool get_exit_code(const struct listing *l, const char *id, int *ret_code)
{
    Runtime__V1__ContainerStatusRequest q = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;
    q.container_id = cli_lend(id);
    struct rpc_reply reply = {0};
    struct err quiet = {0};
    if (cli_conn_call(l->conn, CLI_RUNTIME, "ContainerStatus", &q.base, CALL_TIMEOUT_MS, &reply,
                      &quiet) < 0)
        return false;
    const Runtime__V1__ContainerStatus *s =
        ((const Runtime__V1__ContainerStatusResponse *)reply.message)->status;
    bool known = s != NULL && s->state == RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED;
    if (known)
        *ret_code = s->exit_code;
    rpc_reply_fini(&reply);
    return known;
}

static const char *pod_name(const Runtime__V1__PodSandbox *p)
{
    return p->metadata == NULL ? "" : p->metadata->name;
}

static const char *pod_namespace(const Runtime__V1__PodSandbox *p)
{
    return p->metadata == NULL ? "" : p->metadata->namespace_;
}

static int add_pod_row(struct listing *l, const Runtime__V1__PodSandbox *p, struct err *err)
{
    char id[CLI_SHORT_ID + 1], age[CLI_QUANTITY_SIZE];
    cli_format_id(p->id, id);
    cli_format_age(l->now_ns - p->created_at, age);
    const char *state = is_ready(p) ? "ready" : "not ready";
    const char *cells[] = {id, pod_name(p), pod_namespace(p), NULL, NULL, NULL, state, age, NULL};
    return cli_table_add(l->table, cells, err);
}

static int add_container_row(struct listing *l, const Runtime__V1__PodSandbox *p,
                             const Runtime__V1__Container *c, struct err *err)
{
    char pod_id[CLI_SHORT_ID + 1], id[CLI_SHORT_ID + 1], age[CLI_QUANTITY_SIZE];
    char code_text[16] = "";
    int code = 0;
    cli_format_id(c->pod_sandbox_id, pod_id);
    cli_format_id(c->id, id);
    cli_format_age(l->now_ns - c->created_at, age);
    if (is_exited(c) && get_exit_code(l, c->id, &code))
        (void)snprintf(code_text, sizeof(code_text), "%d", code);
    const char *cells[] = {pod_id,
                           p == NULL ? "" : pod_name(p),
                           p == NULL ? "" : pod_namespace(p),
                           id,
                           c->metadata == NULL ? "" : c->metadata->name,
                           c->image == NULL ? c->image_ref : c->image->image,
                           container_state(c),
                           age,
                           code_text};
    return cli_table_add(l->table, cells, err);
}

static int add_pod_json(struct listing *l, const Runtime__V1__PodSandbox *p,
                        json_t **ret_containers, struct err *err)
{
    json_t *containers = json_array();
    json_t *pod =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:o}", "id", p->id, "name", pod_name(p), "namespace",
                  pod_namespace(p), "state", is_ready(p) ? "ready" : "notready", "createdAt",
                  (json_int_t)p->created_at, "containers", containers);
    if (pod == NULL || json_array_append_new(l->json, pod) < 0)
        return err_no_memory(err);
    *ret_containers = containers;
    return 0;
}

static int add_container_json(const struct listing *l, json_t *list,
                              const Runtime__V1__Container *c, struct err *err)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "id", c->id, "name",
                          c->metadata == NULL ? "" : c->metadata->name, "image",
                          c->image == NULL ? c->image_ref : c->image->image, "imageId", c->image_id,
                          "state", container_state(c), "createdAt", (json_int_t)c->created_at);
    int code = 0;
    bool known = is_exited(c) && get_exit_code(l, c->id, &code);
    if (o == NULL || (known && json_object_set_new(o, "exitCode", json_integer(code)) < 0) ||
        json_array_append_new(list, o) < 0)
        return err_no_memory(err);
    return 0;
}

/* One pod and its containers. */
static int add_pod(struct listing *l, const Runtime__V1__PodSandbox *p, struct err *err)
{
    json_t *list = NULL;
    if (l->json != NULL && add_pod_json(l, p, &list, err) < 0)
        return -1;
    size_t shown = 0;
    for (size_t i = 0; i < l->containers->n_containers; i++) {
        const Runtime__V1__Container *c = l->containers->containers[i];
        if (strcmp(c->pod_sandbox_id, p->id) != 0 || (is_exited(c) && !l->all))
            continue;
        shown++;
        int r =
            l->json != NULL ? add_container_json(l, list, c, err) : add_container_row(l, p, c, err);
        if (r < 0)
            return -1;
    }
    return shown == 0 && l->json == NULL ? add_pod_row(l, p, err) : 0;
}

static int list_all(struct listing *l, bool json, struct err *err)
{
    static const char *const heads[] = {"POD ID", "POD",   "NAMESPACE", "CONTAINER", "NAME",
                                        "IMAGE",  "STATE", "AGE",       "EXIT"};
    if (fetch(l, err) < 0)
        return -1;
    if (json && (l->json = json_array()) == NULL)
        return err_no_memory(err);
    if (!json && cli_table_new(heads, ARRAY_SIZE(heads), &l->table, err) < 0)
        return -1;
    for (size_t i = 0; i < l->pods->n_items; i++) {
        if ((l->all || is_ready(l->pods->items[i])) && add_pod(l, l->pods->items[i], err) < 0)
            return -1;
    }
    if (json)
        return cli_json_print(l->json, err);
    cli_table_print(l->table, stdout);
    return 0;
}

static int ps(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    struct listing *l = arg;
    (void)operands;
    (void)n;
    l->conn = conn;
    int r = list_all(l, l->as_json, err);
    json_decref(l->json);
    cli_table_free(l->table);
    rpc_reply_fini(&l->pods_reply);
    rpc_reply_fini(&l->containers_reply);
    return r;
}

int cli_ps_main(int argc, char **argv)
{
    struct listing l = {0};
    const struct cli_option options[] = {{"all", 'a', CLI_FLAG, &l.all, 0},
                                         {"json", '\0', CLI_FLAG, &l.as_json, 0}};
    const struct cli_command command = {
        .spec = {.usage = ps_usage, .options = options, .n_options = ARRAY_SIZE(options)},
        .fn = ps,
        .arg = &l};
    return cli_command_main(&command, argc, argv);
}

/* ---- rmp ---- */

/* The full id of the one pod that `wanted` stands for, by id prefix or by name; heap. */
static int find_pod(struct cli_conn *conn, const char *wanted, char **ret_id, struct err *err)
{
    Runtime__V1__ListPodSandboxRequest q = RUNTIME__V1__LIST_POD_SANDBOX_REQUEST__INIT;
    struct rpc_reply reply = {0};
    if (cli_conn_call(conn, CLI_RUNTIME, "ListPodSandbox", &q.base, CALL_TIMEOUT_MS, &reply, err) <
        0)
        return -1;
    const Runtime__V1__ListPodSandboxResponse *m =
        (const Runtime__V1__ListPodSandboxResponse *)reply.message;
    const char *found = NULL;
    size_t n = 0;
    for (size_t i = 0; i < m->n_items; i++) {
        const Runtime__V1__PodSandbox *p = m->items[i];
        if (!text_has_prefix(p->id, wanted) && strcmp(pod_name(p), wanted) != 0)
            continue;
        found = p->id;
        n++;
    }
    int r = 0;
    if (n == 0)
        r = err_set(err, ERR_NOT_FOUND, "no pod '%s' (see 'casemate ps -a')", wanted);
    else if (n > 1)
        r = err_set(err, ERR_INVALID, "'%s' stands for %zu pods: name more of the id", wanted, n);
    else if ((*ret_id = strdup(found)) == NULL)
        r = err_no_memory(err);
    rpc_reply_fini(&reply);
    return r;
}

static int remove_one(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    const char *wanted = operands[0];
    (void)arg;
    (void)n;
    cleanup_free char *id = NULL;
    if (*wanted == '\0')
        return err_set(err, ERR_INVALID, "a pod's name is empty");
    if (find_pod(conn, wanted, &id, err) < 0)
        return -1;
    Runtime__V1__RemovePodSandboxRequest q = RUNTIME__V1__REMOVE_POD_SANDBOX_REQUEST__INIT;
    q.pod_sandbox_id = id;
    if (cli_conn_tell(conn, CLI_RUNTIME, "RemovePodSandbox", &q.base, REMOVE_TIMEOUT_MS, err) < 0)
        return err_prefix(err, "remove pod '%s'", wanted);
    puts(id);
    return 0;
}

int cli_rmp_main(int argc, char **argv)
{
    const struct cli_command command = {
        .spec = {.usage = rmp_usage, .min_operands = 1, .max_operands = -1},
        .fn = remove_one,
        .each = true};
    return cli_command_main(&command, argc, argv);
}
