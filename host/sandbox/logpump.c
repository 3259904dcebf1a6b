/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Each stream is one ReadOutput call whose chunks go through a crilog and are
 * appended to the file at once: what is not in the file is in the agent. Acknowledgements are
 * batched (64 KiB, or 100 ms after the first byte), one in flight, and only ever name offsets that
 * the file has (write(2) done). A line that has not ended is not acknowledged: a successor reads it
 * again.
 *
 * Anything that goes wrong with the file (full disk, no memory for the lines) is answered in one
 * way: both streams are given up and begun again after a second at the file's offsets. The agent's
 * ring fills meanwhile and the container waits in write(2); nothing is lost and nothing grows.
 *
 * The exit is announced when Wait has answered and both streams said eof, or DRAIN_MS after the
 * answer, whichever is first: a guest that lies about its streams cannot hold a container back.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/loop/loop.h"
#include "host/sandbox/crilog.h"
#include "host/sandbox/logpump.h"

#define ACK_BYTES (64u << 10)
#define ACK_MS    100
#define RETRY_MS  1000
#define DRAIN_MS  10000
#define SLICE     (64u << 10) /* output formatted at once */
#define SLICE_OUT (64u * SLICE)

struct stream {
    struct logpump *pump;
    struct guest_call *call;
    struct crilog log;
    uint64_t dropped_offset; /* without a file: what was read */
    bool ended;
};

struct logpump {
    struct logpump_config config;
    char container_id[GUEST_ID_SIZE];
    char pod_id[GUEST_ID_SIZE];
    struct logfile *file;
    struct stream streams[LOGFILE_STREAMS];
    int n_streams;
    struct guest_call *watch;
    struct guest_call *ack;
    uint64_t acked[LOGFILE_STREAMS]; /* sent to the agent */
    struct loop_source *ack_timer;
    bool ack_armed;
    struct loop_source *retry_timer;
    struct loop_source *drain_timer;
    struct guest_exit exit;
    bool exit_known;
    bool reported;
};

static void begin_streams(struct logpump *pump);

static struct log_ctx ctx_of(const struct logpump *pump)
{
    return (struct log_ctx){.sandbox = pump->pod_id, .container = pump->container_id};
}

static struct guest_process process_of(const struct logpump *pump)
{
    return (struct guest_process){.container_id = pump->container_id, .exec_id = ""};
}

/* What the agent may forget. */
static void safe_offsets(const struct logpump *pump, uint64_t ret_offsets[LOGFILE_STREAMS])
{
    if (pump->file != NULL) {
        logfile_get_offsets(pump->file, ret_offsets);
        return;
    }
    for (int i = 0; i < LOGFILE_STREAMS; i++)
        ret_offsets[i] = pump->streams[i].dropped_offset;
}

static void send_ack(struct logpump *pump);

static void on_acked(void *arg, const struct err *err)
{
    struct logpump *pump = arg;

    guest_call_free(steal_ptr(&pump->ack));
    if (err == NULL)
        return;
    if (err->code != ERR_UNAVAILABLE && err->code != ERR_CANCELLED) {
        struct log_ctx ctx = ctx_of(pump);
        log_event(LOG_WARN, &ctx, err, "output was not acknowledged, ignoring");
    }
}

static void send_ack(struct logpump *pump)
{
    uint64_t safe[LOGFILE_STREAMS];

    safe_offsets(pump, safe);
    if (pump->ack != NULL || memcmp(safe, pump->acked, sizeof(safe)) == 0)
        return;
    const struct guest_ack ack = {.process = process_of(pump),
                                  .stdout_offset = safe[0],
                                  .stderr_offset = safe[1],
                                  .fn = on_acked,
                                  .arg = pump};
    if (guest_ack_output(pump->config.guest, &ack, &pump->ack, NULL) == 0)
        memcpy(pump->acked, safe, sizeof(safe));
}

static void on_ack_timer(void *arg)
{
    struct logpump *pump = arg;

    pump->ack_armed = false;
    send_ack(pump);
}

/* Acknowledges now when there is much, soon when there is little. */
static void ack_later(struct logpump *pump)
{
    uint64_t safe[LOGFILE_STREAMS];
    uint64_t waiting = 0;

    safe_offsets(pump, safe);
    for (int i = 0; i < LOGFILE_STREAMS; i++)
        waiting += safe[i] - pump->acked[i];
    if (waiting >= ACK_BYTES)
        send_ack(pump);
    if (waiting > 0 && !pump->ack_armed) {
        pump->ack_armed = true;
        loop_arm(pump->ack_timer, ACK_MS);
    }
}

/* Gives the streams up for a while; err says why. */
static void stall(struct logpump *pump, const struct err *err)
{
    struct log_ctx ctx = ctx_of(pump);
    uint64_t safe[LOGFILE_STREAMS];

    log_event(LOG_WARN, &ctx, err, "the log cannot be written; trying again in a second");
    safe_offsets(pump, safe);
    for (int i = 0; i < pump->n_streams; i++) {
        struct stream *stream = &pump->streams[i];
        guest_call_free(steal_ptr(&stream->call));
        crilog_init(&stream->log, stream->log.stream, safe[i]);
    }
    loop_arm(pump->retry_timer, RETRY_MS);
}

static void report(struct logpump *pump, const struct guest_exit *exit, const struct err *err)
{
    if (pump->reported)
        return;
    pump->reported = true;
    loop_disarm(pump->drain_timer);
    pump->config.on_exit(pump->config.arg, exit, err);
}

bool logpump_drained(const struct logpump *pump)
{
    for (int i = 0; i < pump->n_streams; i++) {
        if (!pump->streams[i].ended)
            return false;
    }
    return true;
}

static void report_if_done(struct logpump *pump)
{
    if (pump->exit_known && logpump_drained(pump))
        report(pump, &pump->exit, NULL);
}

static void on_drain_timer(void *arg)
{
    struct logpump *pump = arg;
    struct log_ctx ctx = ctx_of(pump);

    log_event(LOG_WARN, &ctx, NULL, "output has not ended %d s after the process, not waiting",
              DRAIN_MS / 1000);
    report(pump, &pump->exit, NULL);
}

static int append(struct logpump *pump, struct buf *out, struct err *err)
{
    uint64_t offsets[LOGFILE_STREAMS];

    if (out->len == 0)
        return 0;
    for (int i = 0; i < LOGFILE_STREAMS; i++)
        offsets[i] = pump->streams[i].log.offset;
    if (logfile_append(pump->file, buf_bytes(out), out->len, offsets, err) != 0)
        return -1;
    buf_consume(out, out->len);
    return 0;
}

/* Brings a chunk into the file, in slices so that one-byte lines do not make it large in memory. */
static int take_chunk(struct stream *stream, const struct guest_chunk *chunk, struct err *err)
{
    cleanup_buf struct buf out = BUF_INIT(SLICE_OUT);
    struct logpump *pump = stream->pump;

    for (size_t done = 0; done < chunk->n;) {
        size_t n = chunk->n - done < SLICE ? chunk->n - done : SLICE;
        if (crilog_feed(&stream->log, chunk->time_ns, chunk->bytes + done, n, &out, err) != 0 ||
            append(pump, &out, err) != 0)
            return -1;
        done += n;
    }
    if (!chunk->eof)
        return 0;
    if (crilog_flush(&stream->log, &out, err) != 0)
        return -1;
    return append(pump, &out, err);
}

static void on_chunk(void *arg, const struct guest_chunk *chunk)
{
    struct stream *stream = arg;
    struct logpump *pump = stream->pump;
    struct err err;

    if (pump->file == NULL) {
        stream->dropped_offset = chunk->offset + chunk->n;
    } else if (take_chunk(stream, chunk, &err) != 0) {
        stall(pump, &err);
        return;
    }
    if (chunk->eof)
        stream->ended = true;
    else
        ack_later(pump);
}

static void on_stream_end(void *arg, const struct err *err)
{
    struct stream *stream = arg;
    struct logpump *pump = stream->pump;

    guest_call_free(steal_ptr(&stream->call));
    if (err != NULL) {
        struct log_ctx ctx = ctx_of(pump);
        /* A lost connection is for the pod to notice; the stream may go on over another one. */
        if (err->code == ERR_UNAVAILABLE || err->code == ERR_CANCELLED)
            return;
        log_event(LOG_WARN, &ctx, err, "%s cannot be read on", stream->log.stream);
        stream->ended = true;
    }
    report_if_done(pump);
}

static void on_watch(void *arg, const struct guest_exit *exit, const struct err *err)
{
    struct logpump *pump = arg;

    guest_call_free(steal_ptr(&pump->watch));
    if (exit == NULL) {
        report(pump, NULL, err);
        return;
    }
    pump->exit = *exit;
    pump->exit_known = true;
    loop_arm(pump->drain_timer, DRAIN_MS);
    report_if_done(pump);
}

static int begin_stream(struct stream *stream, uint64_t offset, bool is_stderr, struct err *err)
{
    struct logpump *pump = stream->pump;
    struct guest_output output = {
        .process = process_of(pump),
        .is_stderr = is_stderr,
        .offset = offset,
        .on_chunk = on_chunk,
        .on_end = on_stream_end,
        .arg = stream,
    };

    crilog_init(&stream->log, is_stderr ? "stderr" : "stdout", offset);
    return guest_read_output(pump->config.guest, &output, &stream->call, err);
}

static void begin_streams(struct logpump *pump)
{
    uint64_t offsets[LOGFILE_STREAMS];
    struct err err;

    safe_offsets(pump, offsets);
    for (int i = 0; i < pump->n_streams; i++) {
        struct stream *stream = &pump->streams[i];
        if (stream->ended || stream->call != NULL)
            continue;
        if (begin_stream(stream, offsets[i], i == 1, &err) == 0)
            continue;
        if (err.code == ERR_UNAVAILABLE)
            return;
        stall(pump, &err);
        return;
    }
}

static void on_retry_timer(void *arg)
{
    begin_streams(arg);
}

int logpump_new(const struct logpump_config *config, struct logpump **ret_pump, struct err *err)
{
    struct logpump *pump = calloc(1, sizeof(*pump));

    if (pump == NULL || strlen(config->container_id) >= sizeof(pump->container_id) ||
        strlen(config->pod_id) >= sizeof(pump->pod_id)) {
        free(pump);
        logfile_free(config->file);
        return pump == NULL ? err_no_memory(err) : err_set(err, ERR_INVALID, "id too long");
    }
    pump->config = *config;
    pump->config.container_id = pump->container_id;
    pump->config.pod_id = pump->pod_id;
    memcpy(pump->container_id, config->container_id, strlen(config->container_id));
    memcpy(pump->pod_id, config->pod_id, strlen(config->pod_id));
    pump->config.guest = guest_ref(config->guest);
    pump->file = config->file;
    pump->n_streams = config->tty ? 1 : LOGFILE_STREAMS;
    for (int i = 0; i < LOGFILE_STREAMS; i++) {
        pump->streams[i].pump = pump;
        pump->streams[i].dropped_offset = config->offsets[i];
        pump->acked[i] = config->offsets[i];
        crilog_init(&pump->streams[i].log, i == 1 ? "stderr" : "stdout", config->offsets[i]);
    }
    *ret_pump = pump;
    return 0;
}

int logpump_begin(struct logpump *pump, struct err *err)
{
    struct loop *loop = pump->config.loop;
    struct guest_process process = process_of(pump);

    if (loop_add_timer(loop, on_ack_timer, pump, &pump->ack_timer, err) != 0 ||
        loop_add_timer(loop, on_retry_timer, pump, &pump->retry_timer, err) != 0 ||
        loop_add_timer(loop, on_drain_timer, pump, &pump->drain_timer, err) != 0)
        return -1;
    if (guest_watch_exit(pump->config.guest, &process, on_watch, pump, &pump->watch, err) != 0)
        return -1;
    begin_streams(pump);
    return 0;
}

int logpump_reopen(struct logpump *pump, struct err *err)
{
    return pump->file == NULL ? 0 : logfile_reopen(pump->file, err);
}

/* Writes unfinished lines: their rest will never come. */
static void flush_tails(struct logpump *pump)
{
    cleanup_buf struct buf out = BUF_INIT(SLICE_OUT);
    struct err err;

    for (int i = 0; i < pump->n_streams; i++) {
        if (crilog_flush(&pump->streams[i].log, &out, &err) != 0 || append(pump, &out, &err) != 0) {
            struct log_ctx ctx = ctx_of(pump);
            log_event(LOG_WARN, &ctx, &err, "the last line is lost, ignoring");
            return;
        }
    }
}

void logpump_free(struct logpump *pump, bool flush)
{
    if (pump == NULL)
        return;
    for (int i = 0; i < LOGFILE_STREAMS; i++)
        guest_call_free(pump->streams[i].call);
    guest_call_free(pump->watch);
    guest_call_free(pump->ack);
    if (flush && pump->file != NULL)
        flush_tails(pump);
    loop_source_free(pump->ack_timer);
    loop_source_free(pump->retry_timer);
    loop_source_free(pump->drain_timer);
    logfile_free(pump->file);
    guest_unref(pump->config.guest);
    free(pump);
}
