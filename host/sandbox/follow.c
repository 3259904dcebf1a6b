/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A pump lives on the loop; everything here that touches one goes there. What
 * the loop hears (an exit) goes the other way as a job for a worker, which records it. A pump that
 * has brought all output into the log is freed with the exit; one whose output has not ended goes
 * on until the container is removed.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

char *container_checkpoint_path(const struct container *c)
{
    return text_printf("%s/%s", c->pod->mgr->logs_run_dir, c->facts->id);
}

/* ---- exits ---- */

/* A time of the guest's clock that the rest of what is known allows; else now. */
static int64_t believable_end(const struct container *c, int64_t finished_ns)
{
    int64_t now_ns = clock_realtime_ns();

    return finished_ns >= c->started_ns && finished_ns <= now_ns ? finished_ns : now_ns;
}

void container_mark_exited(struct container *c, int exit_code, int64_t finished_ns,
                           const char *reason, const char *message)
{
    struct log_ctx ctx = {.sandbox = c->facts->pod_id, .container = c->facts->id};
    struct pod *pod = c->pod;
    struct err err;

    pthread_mutex_lock(&pod->mutex);
    if (c->state == CTR_EXITED || c->state == CTR_REMOVING) {
        pthread_mutex_unlock(&pod->mutex);
        return;
    }
    c->exit_code = exit_code;
    c->finished_ns = believable_end(c, finished_ns);
    set_text(&c->reason, reason);
    set_text(&c->message, message);
    container_set_state(c, CTR_EXITED);
    pthread_mutex_unlock(&pod->mutex);
    log_event(LOG_INFO, &ctx, NULL, "container exited with %d (%s)", exit_code, reason);
    if (container_save(c, &err) != 0)
        log_event(LOG_ERROR, &ctx, &err, "the exit of a container is not recorded");
}

struct exit_job {
    struct container *c;
    bool known;
    struct guest_exit exit;
    struct err err;
};

static const char *reason_of(const struct guest_exit *exit)
{
    /* A process that survived the death of a child, and ended well, was not killed. */
    if (exit->oom_killed && exit->exit_code != 0)
        return "OOMKilled";
    return exit->exit_code == 0 ? "Completed" : "Error";
}

/* On the loop: frees a pump that has nothing more to do. */
static void drop_drained(void *arg)
{
    struct container *c = arg;

    if (c->pump != NULL && logpump_drained(c->pump))
        logpump_free(steal_ptr(&c->pump), false);
}

static void exit_job_run(void *arg)
{
    struct exit_job *job = arg;
    struct container *c = job->c;

    manager_on_loop(c->pod->mgr, drop_drained, c);
    if (job->known)
        container_mark_exited(c, job->exit.exit_code, job->exit.finished_ns, reason_of(&job->exit),
                              "");
    else
        container_mark_exited(c, 255, clock_realtime_ns(), "Unknown", job->err.msg);
    container_unref(c);
    free(job);
}

static void on_exit_known(void *arg, const struct guest_exit *exit, const struct err *err)
{
    struct container *c = arg;
    struct exit_job *job;

    /* A lost connection is the pod's affair: it ends the VM, or a successor reconnects. */
    if (exit == NULL && (err->code == ERR_UNAVAILABLE || err->code == ERR_CANCELLED))
        return;
    job = calloc(1, sizeof(*job));
    if (job == NULL) {
        struct log_ctx ctx = {.sandbox = c->facts->pod_id, .container = c->facts->id};
        log_event(LOG_ERROR, &ctx, NULL, "no memory to record the exit of a container");
        return;
    }
    job->c = container_ref(c);
    job->known = exit != NULL;
    if (exit != NULL)
        job->exit = *exit;
    else
        job->err = *err;
    manager_defer(c->pod->mgr, exit_job_run, job);
}

/* ---- following ---- */

int container_prepare_log(struct container *c, struct guest *guest, const uint64_t acked[2],
                          struct logpump **ret_pump, struct err *err)
{
    const Runtime__V1__ContainerConfig *config = c->facts->config;
    cleanup_free char *checkpoint = container_checkpoint_path(c);
    struct logfile_spec spec = {
        .dir = c->pod->facts->config->log_directory,
        .path = config->log_path,
        .checkpoint = checkpoint,
    };
    struct logpump_config pump = {
        .loop = c->pod->mgr->deps.loop,
        .guest = guest,
        .container_id = c->facts->id,
        .pod_id = c->facts->pod_id,
        .tty = config->tty,
        .on_exit = on_exit_known,
        .arg = c,
    };
    bool known = false;

    if (checkpoint == NULL)
        return err_no_memory(err);
    memcpy(pump.offsets, acked, sizeof(pump.offsets));
    memcpy(spec.initial, acked, sizeof(spec.initial));
    if (*c->facts->log_path != '\0') {
        if (logfile_open(&spec, &pump.file, pump.offsets, &known, err) != 0)
            return -1;
        for (int i = 0; i < LOGFILE_STREAMS; i++) {
            /* Acknowledged bytes are gone from the agent, whatever an old checkpoint says. */
            if (pump.offsets[i] < acked[i])
                pump.offsets[i] = acked[i];
        }
    }
    return logpump_new(&pump, ret_pump, err);
}

struct follow_errand {
    struct container *c;
    struct logpump *pump;
    int result;
    struct err err;
};

static void begin_on_loop(void *arg)
{
    struct follow_errand *errand = arg;

    errand->result = logpump_begin(errand->pump, &errand->err);
    if (errand->result == 0)
        errand->c->pump = errand->pump;
    else
        logpump_free(errand->pump, false);
}

int container_follow(struct container *c, struct logpump *pump, struct err *err)
{
    struct follow_errand errand = {.c = c, .pump = pump};

    manager_on_loop(c->pod->mgr, begin_on_loop, &errand);
    if (errand.result != 0)
        *err = errand.err;
    return errand.result;
}

struct unfollow_errand {
    struct container *c;
    bool flush;
};

static void unfollow_on_loop(void *arg)
{
    struct unfollow_errand *errand = arg;

    if (errand->c->pump != NULL)
        logpump_free(steal_ptr(&errand->c->pump), errand->flush);
}

void container_unfollow(struct container *c, bool flush)
{
    struct unfollow_errand errand = {.c = c, .flush = flush};

    manager_on_loop(c->pod->mgr, unfollow_on_loop, &errand);
}

struct reopen_errand {
    struct container *c;
    int result;
    struct err err;
};

static void reopen_on_loop(void *arg)
{
    struct reopen_errand *errand = arg;

    if (errand->c->pump == NULL)
        errand->result =
            err_set(&errand->err, ERR_BAD_STATE, "container %s has exited", errand->c->facts->id);
    else
        errand->result = logpump_reopen(errand->c->pump, &errand->err);
}

int sandbox_container_reopen_log(struct sandbox_manager *mgr, const char *id, struct err *err)
{
    cleanup_container struct container *c = NULL;
    struct reopen_errand errand = {0};
    bool running;

    if (manager_find_container(mgr, id, &c, err) != 0)
        return -1;
    pthread_mutex_lock(&c->pod->mutex);
    running = c->state == CTR_RUNNING;
    pthread_mutex_unlock(&c->pod->mutex);
    if (!running)
        return err_set(err, ERR_BAD_STATE, "container %s is not running", c->facts->id);
    errand.c = c;
    manager_on_loop(mgr, reopen_on_loop, &errand);
    if (errand.result != 0)
        *err = errand.err;
    return errand.result;
}
