/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The calling thread sleeps until the loop has heard the call's end, which the
 * rpc client promises (answer, deadline or lost connection). A peer that breaks the protocol is not
 * waited for: the sleeper is woken at once, and cancels the call as it does with every other. Once
 * it has, no callback runs any more, and what was the loop's is the sleeper's.
 */
#include <pthread.h>

#include "common/base/clock.h"
#include "host/guest/internal.h"

struct run {
    const struct guest_run *what;
    /* The loop's until the call is cancelled. */
    struct guest_exit exit;
    bool has_exit;
    bool failed; /* err says why; the first failure counts */
    struct err err;
    /* Guarded by the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done;
};

static void fail(struct run *run, const struct err *err)
{
    if (!run->failed)
        run->err = *err;
    run->failed = true;
}

/* The sleeper may go. */
static void wake(struct run *run)
{
    pthread_mutex_lock(&run->mutex);
    run->done = true;
    pthread_cond_signal(&run->cond);
    pthread_mutex_unlock(&run->mutex);
}

static void reject(struct run *run, const struct err *err)
{
    fail(run, err);
    wake(run);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
    const Casemate__Agent__V1__RunEvent *event = (const void *)message;
    struct run *run = arg;
    struct err err;

    if (run->failed)
        return;
    if ((run->has_exit && event->exit != NULL) || event->data.len > GUEST_MAX_CHUNK ||
        (event->stream != CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDOUT &&
         event->stream != CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR)) {
        err_set(&err, ERR_PROTOCOL, "agent: an event out of place (stream %d, %zu bytes)",
                (int)event->stream, event->data.len);
        reject(run, &err);
        return;
    }
    if (event->exit == NULL) {
        run->what->on_output(run->what->arg,
                             event->stream == CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR,
                             event->data.data, event->data.len);
        return;
    }
    if (guest_take_exit(event->exit, &run->exit, &err) != 0)
        reject(run, &err);
    else
        run->has_exit = true;
}

static void on_end(void *arg, const struct err *err)
{
    struct run *run = arg;
    struct err silent;

    /* Out of time with an exit: what others still write is nothing that anybody waits for. */
    if (err != NULL && !(run->has_exit && err->code == ERR_DEADLINE)) {
        fail(run, err);
    } else if (!run->has_exit) {
        err_set(&silent, ERR_PROTOCOL, "agent: the stream ended without an exit");
        fail(run, &silent);
    }
    wake(run);
}

static void await(struct run *run)
{
    pthread_mutex_lock(&run->mutex);
    while (!run->done)
        pthread_cond_wait(&run->cond, &run->mutex);
    pthread_mutex_unlock(&run->mutex);
}

int guest_run(struct guest *guest, const struct guest_run *what, int64_t deadline_ms,
              struct guest_exit *ret_exit, struct err *err)
{
    struct rpc_target target = guest_target("Run");
    struct rpc_client_call *call = NULL;
    struct guest_exec exec;
    struct run run = {
        .what = what,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .cond = PTHREAD_COND_INITIALIZER,
    };
    struct rpc_call_handlers handlers = {
        .on_message = on_message,
        .on_end = on_end,
        .arg = &run,
        .keep = true,
    };

    if (guest_need_feature(guest, GUEST_RUN, err) != 0 ||
        guest_prepare_exec(guest, what->request, &exec, err) != 0)
        return -1;
    exec.request.early_exit = true;
    if (rpc_client_start(guest_client(guest), &target, &exec.request.base, deadline_ms, &handlers,
                         &call, err) != 0)
        return err_prefix(err, "agent Run");
    await(&run);
    rpc_client_cancel(call);
    pthread_cond_destroy(&run.cond);
    pthread_mutex_destroy(&run.mutex);
    if (run.failed) {
        if (err != NULL)
            *err = run.err;
        return -1;
    }
    *ret_exit = run.exit;
    return 0;
}
