/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A worker starts the process and waits for its end; meanwhile the loop
 * collects both streams into bounded buffers and acknowledges them, so that a command that writes
 * much does not stall on the agent's ring. Beyond the limit bytes are dropped and acknowledged all
 * the same. A command that is out of time is killed and removed, with everything it forked, before
 * the call fails.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

#define ACK_BYTES     (64u << 10)
#define LAST_BYTES_MS 5000 /* after the end of the process, for output that is on its way */
#define KILL_MS       5000
#define START_MS      5000 /* beyond the command's own limit, for the agent to start it */

struct exec_stream {
    struct exec *exec;
    struct guest_call *call;
    struct buf bytes;
    uint64_t offset; /* read so far */
    bool ended;
};

struct exec {
    struct sandbox_manager *mgr;
    struct guest *guest;
    struct guest_process process;
    struct exec_stream streams[2];
    /* the loop's */
    struct guest_call *ack;
    uint64_t acked;
    int result;
    struct err err;
    /* guarded by the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    size_t total;
    bool truncated;
    char exec_id[33];
};

static void on_acked(void *arg, const struct err *err)
{
    struct exec *exec = arg;

    (void)err; /* a lost connection shows where the end is waited for */
    guest_call_free(steal_ptr(&exec->ack));
}

static void ack(struct exec *exec)
{
    uint64_t read = exec->streams[0].offset + exec->streams[1].offset;

    if (exec->ack != NULL || read - exec->acked < ACK_BYTES)
        return;
    if (guest_ack_output(exec->guest, &exec->process, exec->streams[0].offset,
                         exec->streams[1].offset, on_acked, exec, &exec->ack, NULL) == 0)
        exec->acked = read;
}

static void on_chunk(void *arg, const struct guest_chunk *chunk)
{
    struct exec_stream *stream = arg;
    struct exec *exec = stream->exec;
    size_t room, n;

    pthread_mutex_lock(&exec->mutex);
    room = SANDBOX_EXEC_MAX_OUTPUT - exec->total;
    n = chunk->n < room ? chunk->n : room;
    if (n > 0 && buf_append(&stream->bytes, chunk->bytes, n, NULL) != 0)
        n = 0;
    exec->total += n;
    if (n < chunk->n)
        exec->truncated = true;
    pthread_mutex_unlock(&exec->mutex);
    stream->offset = chunk->offset + chunk->n;
    ack(exec);
}

static void on_end(void *arg, const struct err *err)
{
    struct exec_stream *stream = arg;
    struct exec *exec = stream->exec;

    (void)err; /* as above */
    guest_call_free(steal_ptr(&stream->call));
    pthread_mutex_lock(&exec->mutex);
    stream->ended = true;
    pthread_cond_signal(&exec->cond);
    pthread_mutex_unlock(&exec->mutex);
}

static void begin_on_loop(void *arg)
{
    struct exec *exec = arg;

    for (int i = 0; i < 2; i++) {
        struct guest_output output = {
            .process = exec->process,
            .is_stderr = i == 1,
            .on_chunk = on_chunk,
            .on_end = on_end,
            .arg = &exec->streams[i],
        };
        exec->result = guest_read_output(exec->guest, &output, &exec->streams[i].call, &exec->err);
        if (exec->result != 0)
            return;
    }
}

static void end_on_loop(void *arg)
{
    struct exec *exec = arg;

    for (int i = 0; i < 2; i++)
        guest_call_free(steal_ptr(&exec->streams[i].call));
    guest_call_free(steal_ptr(&exec->ack));
}

static void exec_init(struct exec *exec, struct guest *guest, struct container *c)
{
    pthread_condattr_t attr;

    *exec = (struct exec){.mgr = c->pod->mgr, .guest = guest};
    text_random_hex(16, exec->exec_id);
    exec->process.container_id = c->facts->id;
    exec->process.exec_id = exec->exec_id;
    for (int i = 0; i < 2; i++) {
        exec->streams[i].exec = exec;
        buf_init(&exec->streams[i].bytes, SANDBOX_EXEC_MAX_OUTPUT);
    }
    pthread_mutex_init(&exec->mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&exec->cond, &attr);
    pthread_condattr_destroy(&attr);
}

static void exec_fini(struct exec *exec)
{
    for (int i = 0; i < 2; i++)
        buf_fini(&exec->streams[i].bytes);
    pthread_cond_destroy(&exec->cond);
    pthread_mutex_destroy(&exec->mutex);
}

/* The container's identity and environment with another command. */
static int start_process(struct exec *exec, const struct container *c,
                         const struct sandbox_exec *spec, int64_t deadline_ms, struct err *err)
{
    Casemate__Agent__V1__ExecRequest request;
    Casemate__Agent__V1__Process process;

    if (c->facts->process == NULL)
        return err_set(err, ERR_BAD_STATE, "container %s was made by another release",
                       c->facts->id);
    process = *c->facts->process;
    process.args = (char **)(uintptr_t)spec->args;
    process.n_args = spec->n_args;
    process.tty = false;
    process.stdin = false;
    process.stdin_once = false;
    casemate__agent__v1__exec_request__init(&request);
    request.container_id = (char *)(uintptr_t)c->facts->id;
    request.exec_id = exec->exec_id;
    request.process = &process;
    return guest_exec(exec->guest, &request, manager_call_deadline(exec->mgr, deadline_ms), err);
}

/* Out of time: kills it and makes sure that it is gone. */
static void kill_process(struct exec *exec)
{
    int64_t deadline_ms = clock_deadline(KILL_MS);
    struct guest_exit exit;

    if (guest_signal(exec->guest, &exec->process, SIGKILL, false, deadline_ms, NULL) == 0)
        (void)guest_wait(exec->guest, &exec->process, deadline_ms, &exit, NULL);
}

static void await_output(struct exec *exec)
{
    int64_t deadline_ms = clock_deadline(LAST_BYTES_MS);
    struct timespec until = {
        .tv_sec = (time_t)(deadline_ms / 1000),
        .tv_nsec = (long)(deadline_ms % 1000) * 1000000,
    };

    pthread_mutex_lock(&exec->mutex);
    while (!exec->streams[0].ended || !exec->streams[1].ended) {
        if (pthread_cond_timedwait(&exec->cond, &exec->mutex, &until) == ETIMEDOUT)
            break;
    }
    pthread_mutex_unlock(&exec->mutex);
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

    output.out = take_bytes(&exec->streams[0].bytes, &output.out_len);
    output.err_out = take_bytes(&exec->streams[1].bytes, &output.err_len);
    if (output.out == NULL || output.err_out == NULL) {
        sandbox_exec_output_fini(&output);
        return err_no_memory(err);
    }
    *ret_output = output;
    return 0;
}

static int run(struct exec *exec, const struct container *c, const struct sandbox_exec *spec,
               struct sandbox_exec_output *ret_output, struct err *err)
{
    bool limited = spec->timeout_s > 0 && spec->timeout_s < INT64_MAX / 2000;
    int64_t limit_ms = limited ? spec->timeout_s * 1000 : 0;
    int64_t deadline_ms = spec->deadline_ms;
    struct guest_exit exit;
    int result;

    /* The command's time counts from its start, for which a machine that stands still gets no more
     * than a little. */
    if (limited)
        deadline_ms = clock_earlier(deadline_ms, clock_deadline(limit_ms + START_MS));
    if (start_process(exec, c, spec, deadline_ms, err) != 0)
        return -1;
    if (limited)
        deadline_ms = clock_earlier(spec->deadline_ms, clock_deadline(limit_ms));
    manager_on_loop(exec->mgr, begin_on_loop, exec);
    result = exec->result;
    if (result != 0)
        *err = exec->err;
    else
        result = guest_wait(exec->guest, &exec->process, deadline_ms, &exit, err);
    if (result == 0)
        await_output(exec);
    else
        kill_process(exec);
    manager_on_loop(exec->mgr, end_on_loop, exec);
    (void)guest_remove(exec->guest, &exec->process,
                       manager_call_deadline(exec->mgr, CLOCK_NO_DEADLINE), NULL);
    if (result != 0 && err->code == ERR_DEADLINE)
        return err_set(err, ERR_DEADLINE, "the command was killed: not done after %lld s",
                       (long long)spec->timeout_s);
    return result != 0 ? -1 : take_output(exec, &exit, ret_output, err);
}

int sandbox_container_exec(struct sandbox_manager *mgr, const struct sandbox_exec *spec,
                           struct sandbox_exec_output *ret_output, struct err *err)
{
    cleanup_container struct container *c = NULL;
    struct pod_use use = {0};
    struct exec exec;
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
    exec_init(&exec, use.guest, c);
    result = run(&exec, c, spec, ret_output, err);
    exec_fini(&exec);
    pod_use_end(&use);
    return result;
}

void sandbox_exec_output_fini(struct sandbox_exec_output *output)
{
    free(output->out);
    free(output->err_out);
    *output = (struct sandbox_exec_output){0};
}
