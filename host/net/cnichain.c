/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The configuration that a plugin sees is its own object, with the network's
 * name and version put in, the arguments of those capabilities that it declares ("runtimeConfig"),
 * and the answer so far ("prevResult"). A plugin that exits with anything but 0 must have printed
 * an error object; when it has not, its exit status and the end of its stderr are the words. A
 * plugin whose parent thread dies is killed: after a crash the next daemon's DEL shall not meet an
 * ADD that still runs.
 */
#include "host/net/cnichain.h"

#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/cleanup.h"
#include "common/base/spawn.h"
#include "common/base/text.h"

#define PATH_OF_PLUGINS "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum { MAX_FIRST_WORDS = 300, MAX_LAST_WORDS = 300 }; /* of a failed plugin's stderr */

/* ---- one plugin ---- */

static int find_program(const struct cnichain_env *env, const char *type, char **ret_path,
                        struct err *err)
{
    for (size_t i = 0; i < env->n_bin_dirs; i++) {
        char *path = text_printf("%s/%s", env->bin_dirs[i], type);
        if (path == NULL)
            return err_no_memory(err);
        if (access(path, X_OK) == 0) {
            *ret_path = path;
            return 0;
        }
        free(path);
    }
    return err_set(err, ERR_UNAVAILABLE, "plugin '%s' is not in %s%s", type,
                   env->n_bin_dirs == 0 ? "any folder" : env->bin_dirs[0],
                   env->n_bin_dirs > 1 ? " or the folders after it" : "");
}

static char *join(const char *const *list, size_t n)
{
    char *all = strdup("");

    for (size_t i = 0; all != NULL && i < n; i++) {
        char *more = text_printf("%s%s%s", all, i == 0 ? "" : ":", list[i]);
        free(all);
        all = more;
    }
    return all;
}

static void free_environment(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++)
        free(list[i]);
    free(list);
}

/* What one run of a plugin needs beside its configuration. */
struct run {
    const struct cnichain_env *env;
    const struct cnichain_call *call;
    const char *command;
    int64_t deadline_ms;
};

/* What it said. */
struct answer {
    char *out; /* heap */
    size_t n;
    unsigned code; /* of CNI's errors; 0: none of them */
};

/* NULL-terminated, its texts on the heap; free with free_environment. NULL when out of memory. */
static char **make_environment(const struct run *run)
{
    const struct cnichain_call *call = run->call;
    const struct {
        const char *name;
        const char *value; /* NULL: is not set for this command */
    } all[] = {
        {"CNI_COMMAND", run->command}, {"CNI_CONTAINERID", call->container_id},
        {"CNI_NETNS", call->netns},    {"CNI_IFNAME", call->ifname},
        {"CNI_ARGS", call->args},
    };
    char **list = calloc(ARRAY_SIZE(all) + 3, sizeof(char *));
    cleanup_free char *path = join(run->env->bin_dirs, run->env->n_bin_dirs);
    size_t n = 0;

    if (list == NULL || path == NULL)
        goto fail;
    list[n++] = strdup(PATH_OF_PLUGINS);
    list[n++] = text_printf("CNI_PATH=%s", path);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (all[i].value == NULL)
            continue;
        if (list[n - 1] == NULL)
            goto fail;
        list[n++] = text_printf("%s=%s", all[i].name, all[i].value);
    }
    if (list[n - 1] != NULL)
        return list;
fail:
    free_environment(list);
    return NULL;
}

/* What a plugin that failed has said. *ret_code 0: nothing that CNI knows. */
static int plugin_failed(const struct spawn_output *output, unsigned *ret_code, struct err *err)
{
    size_t n;

    if (cniresult_parse_error(output->out, output->out_len, ret_code, err))
        return -1;
    *ret_code = 0;
    if (*output->err_text == '\0')
        return err_set(err, ERR_SYSTEM, "exit status %d without a word", output->status);
    n = strlen(output->err_text);
    if (n <= MAX_FIRST_WORDS + MAX_LAST_WORDS)
        return err_set(err, ERR_SYSTEM, "exit status %d: %s", output->status, output->err_text);
    return err_set(err, ERR_SYSTEM, "exit status %d: %.*s ... %s", output->status, MAX_FIRST_WORDS,
                   output->err_text, output->err_text + n - MAX_LAST_WORDS);
}

static int run_program(const struct run *run, const char *program, const char *input,
                       struct spawn_output *ret_output, struct err *err)
{
    const char *const argv[] = {program, NULL};
    char **environment = make_environment(run);
    struct spawn_spec spec = {
        .path = program,
        .argv = argv,
        .envp = (const char *const *)environment,
        .new_session = true,
        .die_with_parent = true,
    };
    int result;

    if (environment == NULL)
        return err_no_memory(err);
    result = spawn_run(&spec, input, CNIRESULT_MAX_BYTES,
                       clock_earlier(run->deadline_ms, clock_deadline(run->env->timeout_ms)),
                       ret_output, err);
    free_environment(environment);
    return result;
}

/* Runs one plugin with its whole configuration as input. */
static int run_plugin(const struct run *run, const char *type, const char *input,
                      struct answer *answer, struct err *err)
{
    cleanup_free char *program = NULL;
    struct spawn_output output = {0};
    int result = 0;

    if (find_program(run->env, type, &program, err) != 0 ||
        run_program(run, program, input, &output, err) != 0)
        return -1;
    answer->out = output.out;
    answer->n = output.out_len;
    if (output.status != 0)
        result = plugin_failed(&output, &answer->code, err);
    free(output.err_text);
    return result;
}

/* ---- its configuration ---- */

static int put(json_t *object, const char *key, json_t *value, struct err *err)
{
    return json_object_set_new(object, key, value) == 0 ? 0 : err_no_memory(err);
}

static int put_capabilities(json_t *config, const json_t *plugin, const json_t *all,
                            struct err *err)
{
    json_t *runtime = json_object();
    const char *key;
    json_t *value;

    if (runtime == NULL)
        return err_no_memory(err);
    json_object_foreach((json_t *)(uintptr_t)all, key, value)
    {
        if (cniconf_plugin_wants(plugin, key) && json_object_set(runtime, key, value) != 0) {
            json_decref(runtime);
            return err_no_memory(err);
        }
    }
    if (json_object_size(runtime) == 0) {
        json_decref(runtime);
        return 0;
    }
    return put(config, "runtimeConfig", runtime, err);
}

/* A plugin's stdin: heap text. Its own configuration and, unless NULL, `value` under `key`. */
static int make_input(const struct cnichain_call *call, const json_t *plugin, const char *key,
                      json_t *value, char **ret_text, struct err *err)
{
    const struct cniconf *conf = call->conf;
    json_t *config = json_copy((json_t *)(uintptr_t)plugin);
    int result = -1;

    if (config == NULL)
        return err_no_memory(err);
    (void)json_object_del(config, "cniVersions");
    (void)json_object_del(config, "disableCheck");
    (void)json_object_del(config, "disableGC");
    (void)json_object_del(config, "capabilities");
    if (put(config, "name", json_string(conf->name), err) == 0 &&
        put(config, "cniVersion", json_string(cni_version_name(conf->version)), err) == 0 &&
        put_capabilities(config, plugin, call->capabilities, err) == 0 &&
        (value == NULL || put(config, key, json_incref(value), err) == 0)) {
        *ret_text = json_dumps(config, JSON_COMPACT);
        result = *ret_text == NULL ? err_no_memory(err) : 0;
    }
    json_decref(config);
    return result;
}

/* ---- the chain ---- */

/* One plugin of the chain; *answer is filled after a failure too, its text the caller's. */
static int call_plugin(const struct run *run, const json_t *plugin, const char *key, json_t *value,
                       struct answer *answer, struct err *err)
{
    const char *type = cniconf_plugin_type(plugin);
    cleanup_free char *input = NULL;

    *answer = (struct answer){0};
    if (make_input(run->call, plugin, key, value, &input, err) != 0 ||
        run_plugin(run, type, input, answer, err) != 0)
        return err_prefix(err, "network '%s': plugin '%s' (%s)", run->call->conf->name, type,
                          run->command);
    return 0;
}

/* ADD of one plugin: *doc and *result become its answer. */
static int add_plugin(const struct run *run, const json_t *plugin, json_t **doc,
                      struct cniresult *result, struct err *err)
{
    struct answer answer;
    json_t *next = NULL;
    int r = call_plugin(run, plugin, "prevResult", *doc, &answer, err);

    if (r == 0) {
        cniresult_fini(result);
        r = cniresult_parse(answer.out, answer.n, result, &next, err);
        if (r != 0)
            err_prefix(err, "network '%s': plugin '%s' (ADD)", run->call->conf->name,
                       cniconf_plugin_type(plugin));
    }
    free(answer.out);
    if (r != 0)
        return -1;
    json_decref(*doc);
    *doc = next;
    return 0;
}

int cnichain_add(const struct cnichain_env *env, const struct cnichain_call *call,
                 int64_t deadline_ms, struct cniresult *ret_result, json_t **ret_doc,
                 struct err *err)
{
    const struct run run = {env, call, "ADD", deadline_ms};
    struct cniresult result = {0};
    json_t *doc = NULL;

    for (size_t i = 0; i < call->conf->n_plugins; i++) {
        if (add_plugin(&run, call->conf->plugins[i], &doc, &result, err) != 0) {
            cniresult_fini(&result);
            json_decref(doc);
            return -1;
        }
    }
    *ret_result = result;
    *ret_doc = doc;
    return 0;
}

/* prevResult of DEL and CHECK came with 0.4.0. */
static json_t *previous(const struct cnichain_call *call)
{
    return call->conf->version >= CNI_0_4_0 ? call->result : NULL;
}

/* Keeps the first error of several. */
static int keep_first(int result, const struct err *why, struct err *err)
{
    if (result == 0 && err != NULL)
        *err = *why;
    return -1;
}

int cnichain_del(const struct cnichain_env *env, const struct cnichain_call *call,
                 int64_t deadline_ms, struct err *err)
{
    const struct run run = {env, call, "DEL", deadline_ms};
    int result = 0;

    for (size_t i = call->conf->n_plugins; i-- > 0;) {
        struct answer answer;
        struct err why = {0};
        if (call_plugin(&run, call->conf->plugins[i], "prevResult", previous(call), &answer,
                        &why) != 0 &&
            answer.code != CNI_ERROR_UNKNOWN_CONTAINER)
            result = keep_first(result, &why, err);
        free(answer.out);
    }
    return result;
}

int cnichain_check(const struct cnichain_env *env, const struct cnichain_call *call,
                   int64_t deadline_ms, struct err *err)
{
    const struct run run = {env, call, "CHECK", deadline_ms};
    int result = 0;

    if (call->conf->version < CNI_0_4_0 || call->conf->disable_check || call->result == NULL)
        return 0;
    for (size_t i = 0; i < call->conf->n_plugins && result == 0; i++) {
        struct answer answer;
        result =
            call_plugin(&run, call->conf->plugins[i], "prevResult", call->result, &answer, err);
        free(answer.out);
    }
    if (result != 0 && err != NULL && err->code == ERR_SYSTEM)
        err->code = ERR_BAD_STATE;
    return result;
}

int cnichain_status(const struct cnichain_env *env, const struct cniconf *conf, int64_t deadline_ms,
                    struct err *err)
{
    const struct cnichain_call call = {.conf = conf};
    const struct run run = {env, &call, "STATUS", deadline_ms};
    int result = 0;

    for (size_t i = 0; i < conf->n_plugins && result == 0; i++) {
        cleanup_free char *program = NULL;
        struct answer answer = {0};
        result = find_program(env, cniconf_plugin_type(conf->plugins[i]), &program, err);
        if (result != 0)
            err_prefix(err, "network '%s'", conf->name);
        else if (conf->version >= CNI_1_1_0)
            result = call_plugin(&run, conf->plugins[i], NULL, NULL, &answer, err);
        free(answer.out);
    }
    return result;
}

bool cnichain_has_gc(const struct cniconf *conf)
{
    return conf->version >= CNI_1_1_0 && !conf->disable_gc;
}

int cnichain_gc(const struct cnichain_env *env, const struct cniconf *conf, json_t *attachments,
                int64_t deadline_ms, struct err *err)
{
    const struct cnichain_call call = {.conf = conf};
    const struct run run = {env, &call, "GC", deadline_ms};
    int result = 0;

    if (!cnichain_has_gc(conf))
        return 0;
    for (size_t i = 0; i < conf->n_plugins; i++) {
        struct answer answer;
        struct err why = {0};
        if (call_plugin(&run, conf->plugins[i], "cni.dev/valid-attachments", attachments, &answer,
                        &why) != 0)
            result = keep_first(result, &why, err);
        free(answer.out);
    }
    return result;
}
