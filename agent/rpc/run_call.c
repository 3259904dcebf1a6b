/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything is decided by `step`, which is called whenever anything about the process or the
 * call's queue has changed: it sends what the rings hold as far as the queue has room, forgets what
 * it has sent, and when the process is settled and both rings are empty sends the exit. A command
 * without output costs one message each way. A command that leaves others behind, who hold its
 * output open, has its exit told at once if the request wants that.
 *
 * However the call ends, the process is removed with it; one that still runs is killed by that. The
 * call's request goes with the call, too: a child that lodges (process/lodging.h) reads it until it
 * execs, and is waited for.
 */
#include "agent/rpc/run_call.h"

#include <stdbool.h>
#include <stdlib.h>

#include "common/rpc/server.h"
#include "agent/container/container.h"
#include "agent/container/validate.h"
#include "agent/process/process.h"
#include "proto/agent/agent.pb-c.h"

#define EVENT_BYTES (32u << 10)  /* of output, a message */
#define QUEUE_BYTES (128u << 10) /* of encoded output, a call */

struct run {
    struct process_watch watch;
    struct containers *containers;
    struct rpc_call *call;
    struct process *process;
    bool told; /* the exit is sent */
    bool cancelled;
};

static void on_removed(void *arg)
{
    (void)arg;
}

/* The process goes with the call, which the caller ends next: its request names the process. */
static void let_go(struct run *run)
{
    const Casemate__Agent__V1__ExecRequest *r = (const void *)rpc_call_request(run->call);
    struct err ignored;
    /* Out of memory, the process stays until its container goes. */
    (void)container_remove(run->containers, r->container_id, r->exec_id, on_removed, NULL,
                           &ignored);
    process_unwatch(run->process, &run->watch);
    process_unref(run->process);
}

static bool send_output(struct run *run, unsigned stream)
{
    const struct ring *ring = &run->process->out[stream].ring;
    struct ring_span span;
    struct err err;
    while (rpc_call_queued(run->call) < QUEUE_BYTES &&
           ring_read(ring, ring->start, EVENT_BYTES, &span)) {
        union {
            const uint8_t *in;
            uint8_t *out;
        } data = {.in = span.data};
        Casemate__Agent__V1__RunEvent event = CASEMATE__AGENT__V1__RUN_EVENT__INIT;
        event.stream = stream == 0 ? CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDOUT
                                   : CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR;
        event.data = (ProtobufCBinaryData){.len = span.len, .data = data.out};
        if (rpc_call_send(run->call, &event.base, &err) < 0)
            return false; /* nobody listens: on_cancel follows */
        process_ack(run->process, stream, span.offset + span.len);
    }
    return ring->start == ring->end;
}

static void send_exit(struct run *run)
{
    const struct process *p = run->process;
    Casemate__Agent__V1__RunEvent event = CASEMATE__AGENT__V1__RUN_EVENT__INIT;
    Casemate__Agent__V1__ExitStatus status = CASEMATE__AGENT__V1__EXIT_STATUS__INIT;
    struct err err;
    status.exit_code = p->status.exit_code;
    status.signal = (uint32_t)p->status.signal;
    status.oom_killed = p->status.oom_killed;
    status.started_ns = p->status.started_ns;
    status.finished_ns = p->status.finished_ns;
    status.stdout_end = p->out[0].ring.end;
    status.stderr_end = p->out[1].ring.end;
    event.exit = &status;
    (void)rpc_call_send(run->call, &event.base, &err);
}

static void step(void *arg)
{
    struct run *run = arg;
    struct process *p = run->process;
    if (run->cancelled) {
        if (p->lodges)
            return;
        let_go(run);
        rpc_call_finish(run->call, RPC_CANCELLED, "the caller gave up");
        free(run);
        return;
    }
    if (p->failed) {
        struct err err;
        if (p->failure != NULL)
            err = *p->failure;
        else
            (void)err_no_memory(&err);
        let_go(run);
        rpc_call_fail(run->call, &err);
        free(run);
        return;
    }
    const Casemate__Agent__V1__ExecRequest *r = (const void *)rpc_call_request(run->call);
    bool all_sent = send_output(run, 0);
    all_sent = send_output(run, 1) && all_sent;
    bool is_over = p->settled && (all_sent || p->gone);
    if (!run->told && (is_over || (p->state == PROCESS_ENDED && r->early_exit))) {
        send_exit(run);
        run->told = true;
    }
    if (!p->gone && !is_over)
        return;
    bool gone = !run->told;
    let_go(run);
    rpc_call_finish(run->call, gone ? RPC_NOT_FOUND : RPC_OK,
                    gone ? "the container was removed" : "");
    free(run);
}

static void on_cancel(void *arg)
{
    struct run *run = arg;
    run->cancelled = true;
    process_kill(run->process);
    step(run);
}

void run_call_begin(struct rpc_call *call, struct containers *containers)
{
    const Casemate__Agent__V1__ExecRequest *r = (const void *)rpc_call_request(call);
    struct process *process;
    struct err err;
    struct run *run = calloc(1, sizeof(*run));
    if (run == NULL) {
        (void)err_no_memory(&err);
        rpc_call_fail(call, &err);
        return;
    }
    if (validate_exec(r, &err) < 0 || container_exec(containers, r, true, &process, &err) < 0) {
        free(run);
        rpc_call_fail(call, &err);
        return;
    }
    *run = (struct run){
        .watch = {.fn = step, .arg = run},
        .containers = containers,
        .call = call,
        .process = process_ref(process),
    };
    process_watch(process, &run->watch);
    rpc_call_on_cancel(call, on_cancel, run);
    rpc_call_on_drain(call, QUEUE_BYTES / 2, step, run);
}
