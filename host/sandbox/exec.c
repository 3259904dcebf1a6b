/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The agent runs the process in one call, whose output the loop collects in
 * bounded buffers while a worker waits for the end. Beyond the limit bytes are dropped: the command
 * goes on, as it would with a terminal that scrolls. A command that is out of time is given up,
 * which kills it, and the call fails only when it is gone.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

#define KILL_MS 5000

struct exec {
    struct buf bytes[2]; /* stdout, stderr */
    size_t total;
    bool truncated;
};

/* On the loop. */
static void on_output(void *arg, bool is_stderr, const uint8_t *bytes, size_t n)
{
    struct exec *exec = arg;
    size_t room = SANDBOX_EXEC_MAX_OUTPUT - exec->total;

    if (n > room) {
        exec->truncated = true;
        n = room;
    }
    if (n > 0 && buf_append(&exec->bytes[is_stderr], bytes, n, NULL) != 0) {
        exec->truncated = true;
        return;
    }
    exec->total += n;
}

/* A stream's bytes as the caller's; never NULL. */
static uint8_t *take_bytes(struct buf *buf, size_t *ret_n)
{
    uint8_t *bytes = malloc(buf->len + 1);

    if (bytes == NULL)
        return NULL;
    if (buf->len > 0)
        memcpy(bytes, buf_bytes(buf), buf->len);
    *ret_n = buf->len;
    return bytes;
}

static int take_output(struct exec *exec, const struct guest_exit *exit,
                       struct sandbox_exec_output *ret_output, struct err *err)
{
    struct sandbox_exec_output output = {
        .exit_code = exit->exit_code,
        .truncated = exec->truncated,
    };

    output.out = take_bytes(&exec->bytes[0], &output.out_len);
    output.err_out = take_bytes(&exec->bytes[1], &output.err_len);
    if (output.out == NULL || output.err_out == NULL) {
        sandbox_exec_output_fini(&output);
        return err_no_memory(err);
    }
    *ret_output = output;
    return 0;
}

/* The container's identity and environment with another command. */
static int run(struct exec *exec, const struct pod_use *use, const struct container *c,
               const struct sandbox_exec *spec, struct guest_exit *ret_exit, struct err *err)
{
    Casemate__Agent__V1__ExecRequest request;
    Casemate__Agent__V1__Process process;
    struct guest_run what = {.request = &request, .on_output = on_output, .arg = exec};
    struct guest_process name;
    int64_t deadline_ms = spec->deadline_ms;
    char exec_id[33];

    if (c->facts->process == NULL)
        return err_set(err, ERR_BAD_STATE, "container %s was made by another release",
                       c->facts->id);
    process = *c->facts->process;
    process.args = (char **)(uintptr_t)spec->args;
    process.n_args = spec->n_args;
    process.tty = false;
    process.stdin = false;
    process.stdin_once = false;
    text_random_hex(16, exec_id);
    casemate__agent__v1__exec_request__init(&request);
    request.container_id = c->facts->id;
    request.exec_id = exec_id;
    request.process = &process;
    if (spec->timeout_s > 0 && spec->timeout_s < INT64_MAX / 2000)
        deadline_ms = clock_earlier(deadline_ms, clock_deadline(spec->timeout_s * 1000));
    if (guest_run(use->guest, &what, deadline_ms, ret_exit, err) == 0)
        return 0;
    if (err->code != ERR_DEADLINE)
        return -1;
    name = (struct guest_process){.container_id = c->facts->id, .exec_id = exec_id};
    (void)guest_remove(use->guest, &name, clock_deadline(KILL_MS), NULL);
    return err_set(err, ERR_DEADLINE, "the command was killed: not done after %lld s",
                   (long long)spec->timeout_s);
}

int sandbox_container_exec(struct sandbox_manager *mgr, const struct sandbox_exec *spec,
                           struct sandbox_exec_output *ret_output, struct err *err)
{
    cleanup_container struct container *c = NULL;
    struct pod_use use = {0};
    struct exec exec = {0};
    struct guest_exit exit;
    bool running;
    int result = -1;

    if (spec->n_args == 0 || spec->args[0][0] == '\0')
        return err_set(err, ERR_INVALID, "cmd: missing");
    if (spec->timeout_s < 0)
        return err_set(err, ERR_INVALID, "timeout: negative");
    if (manager_find_container(mgr, spec->container_id, &c, err) != 0)
        return -1;
    pthread_mutex_lock(&c->pod->mutex);
    running = c->state == CTR_RUNNING;
    pthread_mutex_unlock(&c->pod->mutex);
    if (!running)
        return err_set(err, ERR_BAD_STATE, "container %s is not running", c->facts->id);
    if (pod_use_begin(c->pod, &use, err) != 0)
        return -1;
    buf_init(&exec.bytes[0], SANDBOX_EXEC_MAX_OUTPUT);
    buf_init(&exec.bytes[1], SANDBOX_EXEC_MAX_OUTPUT);
    result = run(&exec, &use, c, spec, &exit, err);
    if (result == 0)
        result = take_output(&exec, &exit, ret_output, err);
    buf_fini(&exec.bytes[0]);
    buf_fini(&exec.bytes[1]);
    pod_use_end(&use);
    return result;
}

void sandbox_exec_output_fini(struct sandbox_exec_output *output)
{
    free(output->out);
    free(output->err_out);
    *output = (struct sandbox_exec_output){0};
}
