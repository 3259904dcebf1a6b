/* SPDX-License-Identifier: Apache-2.0 */
/* Everything on one loop in one thread: blocking calls run the loop, streams run it until their
 * end. */
#include "tests/fakes/agent_driver.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/rpc/client.h"

static struct loop *loop;
static struct rpc_client *client;

static void shake_hands(int fd, const char *stale)
{
    char nonce[33], greeting[64], answer[64];
    struct err err;
    int64_t deadline = clock_deadline(DRIVER_TIMEOUT_MS);
    text_random_hex(16, nonce);
    (void)snprintf(greeting, sizeof(greeting), "CASEMATE-LINK/1 %s\n", nonce);
    (void)snprintf(answer, sizeof(answer), "CASEMATE-AGENT/1 %s\n", nonce);
    if (stale != NULL)
        EXPECT(fd_write_all(fd, stale, strlen(stale), &err) == 0, "%s", err.msg);

    size_t matched = 0;
    int64_t next = 0;
    while (matched < strlen(answer)) {
        EXPECT(clock_poll_timeout(deadline) != 0, "no answer to the greeting");
        if (clock_monotonic_ms() >= next) {
            EXPECT(fd_write_all(fd, greeting, strlen(greeting), &err) == 0, "%s", err.msg);
            next = clock_deadline(100);
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, clock_poll_timeout(next)) <= 0)
            continue;
        char c;
        ssize_t n = read(fd, &c, 1);
        EXPECT(n == 1, "the port was closed: %s", strerror(errno));
        if (c == answer[matched])
            matched++;
        else
            matched = c == answer[0] ? 1 : 0;
    }
}

void driver_connect(const char *socket_path, const char *stale)
{
    struct err err;
    int fd = -1;
    int64_t deadline = clock_deadline(DRIVER_TIMEOUT_MS);
    while (fd_connect_unix(socket_path, &fd, &err) < 0) {
        EXPECT(clock_poll_timeout(deadline) != 0, "%s", err.msg);
        (void)poll(NULL, 0, 20);
    }
    shake_hands(fd, stale);
    if (loop == NULL)
        EXPECT(loop_new(&loop, &err) == 0, "%s", err.msg);
    struct rpc_client_config config = {.loop = loop};
    EXPECT(rpc_client_new(&config, fd, &client, &err) == 0, "%s", err.msg);
}

void driver_disconnect(void)
{
    rpc_client_free(client);
    client = NULL;
}

static struct rpc_target target(const char *method)
{
    return (struct rpc_target){
        .descriptor = &casemate__agent__v1__agent__descriptor,
        .service = "casemate.agent.v1.Agent",
        .method = method,
    };
}

int driver_call(const char *method, const ProtobufCMessage *request, void *ret_reply,
                struct err *err)
{
    struct rpc_reply ignored = {0};
    struct rpc_target t = target(method);
    int rc = rpc_client_call(client, &t, request, clock_deadline(DRIVER_TIMEOUT_MS),
                             ret_reply != NULL ? ret_reply : &ignored, err);
    if (ret_reply == NULL)
        rpc_reply_fini(&ignored);
    return rc;
}

static void ignore_message(void *arg, const ProtobufCMessage *message)
{
    (void)arg;
    (void)message;
}

static void note_end(void *arg, const struct err *err)
{
    bool *ended = arg;
    (void)err;
    *ended = true;
}

void driver_fire(const char *method, const ProtobufCMessage *request, unsigned events)
{
    bool ended = false;
    struct rpc_call_handlers handlers = {
        .on_message = ignore_message, .on_end = note_end, .arg = &ended};
    struct rpc_client_call *started;
    struct rpc_target t = target(method);
    struct err err;
    if (rpc_client_start(client, &t, request, clock_deadline(DRIVER_TIMEOUT_MS), &handlers,
                         &started, &err) < 0)
        return;
    for (unsigned i = 0; i < events && !ended; i++)
        EXPECT(loop_run_once(loop, 100, &err) == 0, "%s", err.msg);
    if (!ended)
        rpc_client_cancel(started);
}

struct reading {
    struct buf bytes;
    uint64_t offset;
    size_t want;
    bool eof, ended, failed;
    struct err err;
};

static void on_chunk(void *arg, const ProtobufCMessage *message)
{
    struct reading *r = arg;
    const Casemate__Agent__V1__OutputChunk *chunk = (const void *)message;
    struct err err;
    EXPECT(!r->eof, "a chunk after the end");
    EXPECT(chunk->offset == r->offset, "offset %llu, not %llu", (unsigned long long)chunk->offset,
           (unsigned long long)r->offset);
    EXPECT(chunk->time_ns > 0, "no time");
    if (chunk->data.len > 0)
        EXPECT(buf_append(&r->bytes, chunk->data.data, chunk->data.len, &err) == 0, "%s", err.msg);
    r->offset += chunk->data.len;
    r->eof = chunk->eof;
}

static void on_end(void *arg, const struct err *err)
{
    struct reading *r = arg;
    r->ended = true;
    if (err != NULL) {
        r->failed = true;
        r->err = *err;
    }
}

static char *read_until(const char *container, const char *exec, unsigned stream, uint64_t offset,
                        size_t want, bool ack, size_t *ret_len)
{
    struct reading r = {.bytes = BUF_INIT(64u << 20), .offset = offset, .want = want};
    Casemate__Agent__V1__ReadOutputRequest request = CASEMATE__AGENT__V1__READ_OUTPUT_REQUEST__INIT;
    request.container_id = (char *)(uintptr_t)container;
    request.exec_id = (char *)(uintptr_t)exec;
    request.stream = stream == 0 ? CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDOUT
                                 : CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR;
    request.offset = offset;
    struct rpc_call_handlers handlers = {.on_message = on_chunk, .on_end = on_end, .arg = &r};
    struct rpc_client_call *call;
    struct rpc_target t = target("ReadOutput");
    struct err err;
    int64_t deadline = clock_deadline(DRIVER_TIMEOUT_MS * 3);
    EXPECT(rpc_client_start(client, &t, &request.base, CLOCK_NO_DEADLINE, &handlers, &call, &err) ==
               0,
           "%s", err.msg);
    uint64_t acked = offset;
    while (!r.ended && (want == 0 || r.bytes.len < want)) {
        EXPECT(clock_poll_timeout(deadline) != 0, "the output of %s/%s does not end", container,
               exec);
        EXPECT(loop_run_once(loop, 100, &err) == 0, "%s", err.msg);
        if (ack && r.offset - acked > 32768) {
            acked = r.offset;
            EXPECT(driver_ack(container, exec, stream == 0 ? acked : 0, stream == 1 ? acked : 0,
                              &err) == 0,
                   "%s", err.msg);
        }
    }
    EXPECT(!r.failed, "%s", r.err.msg);
    if (!r.ended)
        rpc_client_cancel(call);
    else
        EXPECT(r.eof, "the stream ended without its end");
    if (ret_len != NULL)
        *ret_len = r.bytes.len;
    char *text = NULL;
    EXPECT(buf_take_string(&r.bytes, &text, &err) == 0, "%s", err.msg);
    return text;
}

char *driver_read(const char *container, const char *exec, unsigned stream, uint64_t offset,
                  bool ack, size_t *ret_len)
{
    return read_until(container, exec, stream, offset, 0, ack, ret_len);
}

char *driver_read_some(const char *container, const char *exec, unsigned stream, uint64_t offset,
                       size_t want, size_t *ret_len)
{
    return read_until(container, exec, stream, offset, want, false, ret_len);
}

struct command {
    struct reading reading;
    Casemate__Agent__V1__ExitStatus status;
    uint64_t stderr_bytes;
};

static void on_event(void *arg, const ProtobufCMessage *message)
{
    struct command *c = arg;
    const Casemate__Agent__V1__RunEvent *event = (const void *)message;
    struct err err;
    EXPECT(!c->reading.eof, "an event after the exit");
    if (event->exit != NULL) {
        c->status = *event->exit;
        c->reading.eof = true;
    } else if (event->stream == CASEMATE__AGENT__V1__OUTPUT_STREAM__OUTPUT_STDERR) {
        c->stderr_bytes += event->data.len;
    } else {
        EXPECT(buf_append(&c->reading.bytes, event->data.data, event->data.len, &err) == 0, "%s",
               err.msg);
    }
}

static void on_command_end(void *arg, const struct err *err)
{
    struct command *c = arg;
    on_end(&c->reading, err);
}

int driver_command(const char *id, const char *exec, struct driver_process *p, int64_t deadline_ms,
                   char **ret_out, Casemate__Agent__V1__ExitStatus *ret_status, struct err *err)
{
    struct command c = {.reading = {.bytes = BUF_INIT(64u << 20)}};
    Casemate__Agent__V1__ExecRequest request = CASEMATE__AGENT__V1__EXEC_REQUEST__INIT;
    struct rpc_call_handlers handlers = {
        .on_message = on_event, .on_end = on_command_end, .arg = &c};
    struct rpc_client_call *call;
    struct rpc_target t = target("Run");
    struct err local;
    request.container_id = (char *)(uintptr_t)id;
    request.exec_id = (char *)(uintptr_t)exec;
    request.process = &p->message;
    EXPECT(rpc_client_start(client, &t, &request.base, deadline_ms, &handlers, &call, &local) == 0,
           "%s", local.msg);
    while (!c.reading.ended)
        EXPECT(loop_run_once(loop, 100, &local) == 0, "%s", local.msg);
    if (c.reading.failed) {
        buf_fini(&c.reading.bytes);
        *err = c.reading.err;
        return -1;
    }
    EXPECT(c.reading.eof, "the stream ended without an exit");
    EXPECT(c.status.stdout_end == c.reading.bytes.len && c.status.stderr_end == c.stderr_bytes,
           "not all output came");
    *ret_status = c.status;
    EXPECT(buf_take_string(&c.reading.bytes, ret_out, &local) == 0, "%s", local.msg);
    return 0;
}

Casemate__Agent__V1__ExitStatus driver_wait(const char *container, const char *exec)
{
    Casemate__Agent__V1__WaitRequest request = CASEMATE__AGENT__V1__WAIT_REQUEST__INIT;
    struct rpc_reply reply = {0};
    struct err err;
    request.container_id = (char *)(uintptr_t)container;
    request.exec_id = (char *)(uintptr_t)exec;
    EXPECT(driver_call("Wait", &request.base, &reply, &err) == 0, "%s", err.msg);
    const Casemate__Agent__V1__WaitReply *r = (const void *)reply.message;
    Casemate__Agent__V1__ExitStatus status = *r->status;
    rpc_reply_fini(&reply);
    return status;
}

void driver_process_init(struct driver_process *p, ...)
{
    static char default_caps[][24] = {
        "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "MKNOD"};
    static char *list[8];
    static char path[] = "PATH=/bin";
    for (size_t i = 0; i < 8; i++)
        list[i] = default_caps[i];
    memset(p, 0, sizeof(*p));
    casemate__agent__v1__process__init(&p->message);
    casemate__agent__v1__capabilities__init(&p->caps);
    casemate__agent__v1__user__init(&p->user);
    p->caps.bounding = p->caps.permitted = p->caps.effective = list;
    p->caps.n_bounding = p->caps.n_permitted = p->caps.n_effective = 8;
    va_list ap;
    va_start(ap, p);
    char *arg;
    while ((arg = va_arg(ap, char *)) != NULL)
        p->args[p->message.n_args++] = arg;
    va_end(ap);
    p->env[0] = path;
    p->message.args = p->args;
    p->message.env = p->env;
    p->message.n_env = 1;
    p->message.capabilities = &p->caps;
    p->message.user = &p->user;
    p->message.no_new_privs = true;
}

int driver_create(const char *id, struct driver_process *p,
                  void (*change)(Casemate__Agent__V1__CreateContainerRequest *r), struct err *err)
{
    static char squashfs[] = "squashfs";
    static char masked[][24] = {"/proc/kcore", "/proc/keys", "/sys/firmware"};
    static char readonly[][24] = {"/proc/sys", "/proc/bus"};
    char *masked_list[] = {masked[0], masked[1], masked[2]};
    char *readonly_list[] = {readonly[0], readonly[1]};
    Casemate__Agent__V1__Disk layers[2];
    Casemate__Agent__V1__Disk *layer_list[] = {&layers[0], &layers[1]};
    Casemate__Agent__V1__RootFs rootfs = CASEMATE__AGENT__V1__ROOT_FS__INIT;
    Casemate__Agent__V1__CreateContainerRequest request =
        CASEMATE__AGENT__V1__CREATE_CONTAINER_REQUEST__INIT;
    for (unsigned i = 0; i < 2; i++) {
        casemate__agent__v1__disk__init(&layers[i]);
        layers[i].lun = i;
        layers[i].read_only = true;
        layers[i].fs_type = squashfs;
    }
    rootfs.layers = layer_list;
    rootfs.n_layers = 2;
    request.id = (char *)(uintptr_t)id;
    request.process = &p->message;
    request.rootfs = &rootfs;
    request.pid_namespace = CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_CONTAINER;
    request.masked_paths = masked_list;
    request.n_masked_paths = 3;
    request.readonly_paths = readonly_list;
    request.n_readonly_paths = 2;
    if (change != NULL)
        change(&request);
    return driver_call("CreateContainer", &request.base, NULL, err);
}

int driver_start(const char *id, struct err *err)
{
    Casemate__Agent__V1__StartContainerRequest request =
        CASEMATE__AGENT__V1__START_CONTAINER_REQUEST__INIT;
    request.id = (char *)(uintptr_t)id;
    return driver_call("StartContainer", &request.base, NULL, err);
}

int driver_exec(const char *id, const char *exec, struct driver_process *p, struct err *err)
{
    Casemate__Agent__V1__ExecRequest request = CASEMATE__AGENT__V1__EXEC_REQUEST__INIT;
    request.container_id = (char *)(uintptr_t)id;
    request.exec_id = (char *)(uintptr_t)exec;
    request.process = &p->message;
    return driver_call("Exec", &request.base, NULL, err);
}

int driver_remove(const char *id, const char *exec, struct err *err)
{
    Casemate__Agent__V1__RemoveRequest request = CASEMATE__AGENT__V1__REMOVE_REQUEST__INIT;
    request.container_id = (char *)(uintptr_t)id;
    request.exec_id = (char *)(uintptr_t)exec;
    return driver_call("Remove", &request.base, NULL, err);
}

int driver_signal(const char *id, const char *exec, unsigned signo, bool all, struct err *err)
{
    Casemate__Agent__V1__SignalRequest request = CASEMATE__AGENT__V1__SIGNAL_REQUEST__INIT;
    request.container_id = (char *)(uintptr_t)id;
    request.exec_id = (char *)(uintptr_t)exec;
    request.signal = signo;
    request.all = all;
    return driver_call("Signal", &request.base, NULL, err);
}

int driver_ack(const char *id, const char *exec, uint64_t out, uint64_t error, struct err *err)
{
    Casemate__Agent__V1__AckOutputRequest request = CASEMATE__AGENT__V1__ACK_OUTPUT_REQUEST__INIT;
    request.container_id = (char *)(uintptr_t)id;
    request.exec_id = (char *)(uintptr_t)exec;
    request.stdout_offset = out;
    request.stderr_offset = error;
    return driver_call("AckOutput", &request.base, NULL, err);
}

char *driver_run(const char *id, const char *script,
                 void (*change)(Casemate__Agent__V1__CreateContainerRequest *r), int *ret_code)
{
    struct driver_process p;
    struct err err;
    driver_process_init(&p, "sh", "-c", script, NULL);
    EXPECT(driver_create(id, &p, change, &err) == 0, "%s", err.msg);
    EXPECT(driver_start(id, &err) == 0, "%s", err.msg);
    char *text = driver_read(id, "", 0, 0, true, NULL);
    Casemate__Agent__V1__ExitStatus status = driver_wait(id, "");
    char *errors = driver_read(id, "", 1, 0, false, NULL);
    if (errors[0] != '\0')
        (void)printf("# %s stderr: %s", id, errors);
    free(errors);
    *ret_code = status.exit_code;
    EXPECT(driver_remove(id, "", &err) == 0, "%s", err.msg);
    return text;
}
