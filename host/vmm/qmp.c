/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. QMP is lines of JSON: a greeting, then for each command one reply with the
 * command's "id", and events in between. The engine moves through
 *
 *   GREETING     nothing may be sent; the first line must be the greeting
 *   NEGOTIATING  qmp_capabilities is in flight; the queue waits behind it
 *   READY        at most one command is in flight; the rest waits in order
 *   CLOSED       nothing is sent, fed or queued any more
 *
 * One command at a time is not only the simplest thing to reason about: QEMU keeps the descriptors
 * of one sendmsg until the command that wants them runs, and drops them when further ones arrive,
 * so that pipelined add-fd would lose some. It also means that the undo of a command may be queued
 * while the command itself is unanswered.
 *
 * QEMU is a peer that a guest may have taken over: lines, nesting and queue are bounded, a reply
 * must carry the id of the command in flight, and anything unexpected ends the connection instead
 * of being guessed at. jansson rejects duplicate keys here, so that "the" member of an object is
 * well defined.
 */
#include "host/vmm/qmp.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/base/buf.h"
#include "common/base/cleanup.h"
#include "host/vmm/json.h"

#define SLICE                                                                                      \
    ((size_t)4096) /* bytes fed at a time, so that the input never holds much more than one        \
                      message */

enum state { GREETING, NEGOTIATING, READY, CLOSED };

struct command {
    STAILQ_ENTRY(command) next;
    char *text; /* the line to send, '\n' included */
    size_t text_len;
    size_t sent;
    uint64_t id;
    int fd; /* -1, or sent with the first byte */
    qmp_reply_fn fn;
    void *arg;
};
STAILQ_HEAD(command_list, command);

struct qmp {
    enum state state;
    struct qmp_handlers handlers;
    struct buf input;
    size_t scanned;            /* bytes of input known to hold no line end */
    struct command_list queue; /* the first one is in flight once a byte of it was sent */
    size_t n_queued;
    uint64_t last_id;
    int major, minor;
    struct err closed_with;
};

static void command_free(struct command *c)
{
    close_fd(&c->fd);
    free(c->text);
    free(c);
}

int qmp_new(const struct qmp_handlers *handlers, struct qmp **ret_qmp, struct err *err)
{
    struct qmp *qmp = calloc(1, sizeof(*qmp));

    if (qmp == NULL)
        return err_no_memory(err);
    qmp->handlers = *handlers;
    buf_init(&qmp->input, QMP_LINE_MAX + SLICE);
    STAILQ_INIT(&qmp->queue);
    *ret_qmp = qmp;
    return 0;
}

void qmp_close(struct qmp *qmp, const struct err *why)
{
    struct command_list queue = STAILQ_HEAD_INITIALIZER(queue);
    struct command *c;

    if (qmp->state == CLOSED)
        return;
    qmp->state = CLOSED;
    qmp->closed_with = *why;
    /* Callbacks may submit, which fails now, and see an empty queue. */
    STAILQ_CONCAT(&queue, &qmp->queue);
    qmp->n_queued = 0;
    buf_fini(&qmp->input);
    qmp->scanned = 0;
    while ((c = STAILQ_FIRST(&queue)) != NULL) {
        STAILQ_REMOVE_HEAD(&queue, next);
        if (c->fn != NULL)
            c->fn(c->arg, NULL, &qmp->closed_with);
        command_free(c);
    }
}

void qmp_free(struct qmp *qmp)
{
    struct err why;

    if (qmp == NULL)
        return;
    (void)err_set(&why, ERR_CANCELLED, "QMP: connection was given up");
    qmp_close(qmp, &why);
    buf_fini(&qmp->input);
    free(qmp);
}

/* Makes the command's line; consumes neither args nor fd. */
static struct command *command_new(uint64_t id, const char *name, json_t *args, qmp_reply_fn fn,
                                   void *arg)
{
    struct command *c = calloc(1, sizeof(*c));
    cleanup_json json_t *root = json_pack("{s:s, s:I}", "execute", name, "id", (json_int_t)id);
    cleanup_free char *text = NULL;

    if (c == NULL)
        return NULL;
    c->fd = -1;
    if (root == NULL || (args != NULL && json_object_set(root, "arguments", args) < 0))
        goto fail;
    text = json_dumps(root, JSON_COMPACT);
    if (text == NULL)
        goto fail;
    c->text_len = strlen(text) + 1;
    c->text = malloc(c->text_len);
    if (c->text == NULL)
        goto fail;
    memcpy(c->text, text, c->text_len - 1);
    c->text[c->text_len - 1] = '\n';
    c->id = id;
    c->fn = fn;
    c->arg = arg;
    return c;
fail:
    command_free(c);
    return NULL;
}

int qmp_submit(struct qmp *qmp, const char *command, json_t *args, int fd, qmp_reply_fn fn,
               void *arg, struct err *err)
{
    cleanup_json json_t *owned_args = args;
    cleanup_fd int owned_fd = fd;
    struct command *c;

    if (qmp->state == CLOSED) {
        if (err != NULL)
            *err = qmp->closed_with;
        return -1;
    }
    if (qmp->n_queued >= QMP_PENDING_MAX)
        return err_set(err, ERR_EXHAUSTED, "QMP %s: %d commands are waiting already", command,
                       QMP_PENDING_MAX);
    c = command_new(++qmp->last_id, command, owned_args, fn, arg);
    if (c == NULL)
        return err_no_memory(err);
    c->fd = steal_fd(&owned_fd);
    STAILQ_INSERT_TAIL(&qmp->queue, c, next);
    qmp->n_queued++;
    return 0;
}

void qmp_output(struct qmp *qmp, const void **ret_bytes, size_t *ret_n, int *ret_fd)
{
    struct command *c = STAILQ_FIRST(&qmp->queue);

    *ret_bytes = NULL;
    *ret_n = 0;
    *ret_fd = -1;
    if (c == NULL || (qmp->state != READY && qmp->state != NEGOTIATING))
        return;
    *ret_bytes = c->text + c->sent;
    *ret_n = c->text_len - c->sent;
    if (c->sent == 0)
        *ret_fd = c->fd;
}

void qmp_sent(struct qmp *qmp, size_t n)
{
    struct command *c = STAILQ_FIRST(&qmp->queue);

    if (c == NULL || n == 0)
        return;
    close_fd(&c->fd);
    c->sent += n < c->text_len - c->sent ? n : c->text_len - c->sent;
}

int qmp_version(const struct qmp *qmp, int *ret_major, int *ret_minor, struct err *err)
{
    if (qmp->major == 0)
        return err_set(err, ERR_BAD_STATE, "QMP: no greeting yet");
    *ret_major = qmp->major;
    *ret_minor = qmp->minor;
    return 0;
}

static void negotiated(void *arg, json_t *ret, const struct err *err)
{
    struct qmp *qmp = arg;

    (void)err; /* a refusal leaves the state, and handle_reply ends the connection */
    if (ret == NULL || qmp->state != NEGOTIATING)
        return;
    qmp->state = READY;
    if (qmp->handlers.ready != NULL)
        qmp->handlers.ready(qmp->handlers.arg);
}

static int handle_greeting(struct qmp *qmp, const json_t *msg, struct err *err)
{
    const json_t *version = json_object_get(json_object_get(msg, "QMP"), "version");
    const json_t *number = json_object_get(version, "qemu");
    const json_t *major = json_object_get(number, "major");
    const json_t *minor = json_object_get(number, "minor");

    if (!json_is_integer(major) || json_integer_value(major) < 1 ||
        json_integer_value(major) > 9999 || !json_is_integer(minor) ||
        json_integer_value(minor) < 0 || json_integer_value(minor) > 9999)
        return err_set(err, ERR_PROTOCOL, "QMP: the peer did not greet as QEMU does");
    struct command *c = command_new(++qmp->last_id, "qmp_capabilities", NULL, negotiated, qmp);
    if (c == NULL)
        return err_no_memory(err);
    qmp->major = (int)json_integer_value(major);
    qmp->minor = (int)json_integer_value(minor);
    qmp->state = NEGOTIATING;
    STAILQ_INSERT_HEAD(&qmp->queue, c, next);
    qmp->n_queued++;
    return 0;
}

static void set_qemu_error(const json_t *error, struct err *err)
{
    const char *class = json_string_value(json_object_get(error, "class"));
    const char *desc = json_string_value(json_object_get(error, "desc"));
    enum err_code code = ERR_SYSTEM;

    if (class != NULL && strcmp(class, "DeviceNotFound") == 0)
        code = ERR_NOT_FOUND;
    else if (class != NULL && strcmp(class, "CommandNotFound") == 0)
        code = ERR_UNSUPPORTED;
    (void)err_set(err, code, "QEMU: %.800s",
                  desc != NULL ? desc : "an error without a description");
}

static int handle_reply(struct qmp *qmp, const json_t *msg, struct err *err)
{
    json_t *ret = json_object_get(msg, "return");
    const json_t *error = json_object_get(msg, "error");
    const json_t *id = json_object_get(msg, "id");
    struct command *c = STAILQ_FIRST(&qmp->queue);
    struct err refusal = {0};

    if (c == NULL || c->sent != c->text_len || !json_is_integer(id) ||
        (uint64_t)json_integer_value(id) != c->id)
        return err_set(err, ERR_PROTOCOL, "QMP: a reply to nothing that was asked");
    STAILQ_REMOVE_HEAD(&qmp->queue, next);
    qmp->n_queued--;
    if (ret == NULL)
        set_qemu_error(error, &refusal);
    if (c->fn != NULL)
        c->fn(c->arg, ret, ret == NULL ? &refusal : NULL);
    command_free(c);
    if (qmp->state == NEGOTIATING)
        return err_set(err, ERR_PROTOCOL, "QMP: capabilities were refused: %s", refusal.msg);
    return 0;
}

static int handle_message(struct qmp *qmp, const json_t *msg, struct err *err)
{
    const char *event = json_string_value(json_object_get(msg, "event"));

    if (!json_is_object(msg))
        return err_set(err, ERR_PROTOCOL, "QMP: a message that is not an object");
    if (qmp->state == GREETING)
        return handle_greeting(qmp, msg, err);
    if (event != NULL) {
        const json_t *data = json_object_get(msg, "data");
        if (qmp->handlers.event != NULL)
            qmp->handlers.event(qmp->handlers.arg, event, json_is_object(data) ? data : NULL);
        return 0;
    }
    if (json_object_get(msg, "return") != NULL || json_is_object(json_object_get(msg, "error")))
        return handle_reply(qmp, msg, err);
    return err_set(err, ERR_PROTOCOL, "QMP: a message that is neither reply nor event");
}

/* jansson recurses up to 2048 levels; QEMU never needs more than a few. */
static bool too_deep(const char *text, size_t n)
{
    bool in_string = false;
    int depth = 0;

    for (size_t i = 0; i < n; i++) {
        char ch = text[i];
        if (in_string && ch == '\\')
            i++;
        else if (ch == '"')
            in_string = !in_string;
        else if (!in_string && (ch == '{' || ch == '['))
            depth++;
        else if (!in_string && (ch == '}' || ch == ']'))
            depth--;
        if (depth > QMP_DEPTH_MAX)
            return true;
    }
    return false;
}

static int handle_line(struct qmp *qmp, const char *line, size_t n, struct err *err)
{
    json_error_t json_err;

    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' '))
        n--;
    if (n == 0)
        return 0;
    if (too_deep(line, n))
        return err_set(err, ERR_PROTOCOL, "QMP: JSON nested deeper than %d", QMP_DEPTH_MAX);
    cleanup_json json_t *msg = json_loadb(line, n, JSON_REJECT_DUPLICATES, &json_err);
    if (msg == NULL)
        return err_set(err, ERR_PROTOCOL, "QMP: not JSON: %s", json_err.text);
    return handle_message(qmp, msg, err);
}

/* Handles the whole lines of the input; a handler may close the engine, which drops the input. */
static int handle_lines(struct qmp *qmp, struct err *err)
{
    while (qmp->state != CLOSED && qmp->scanned < qmp->input.len) {
        const char *text = (const char *)buf_bytes(&qmp->input);
        const char *end = memchr(text + qmp->scanned, '\n', qmp->input.len - qmp->scanned);
        if (end == NULL) {
            qmp->scanned = qmp->input.len;
            break;
        }
        size_t n = (size_t)(end - text);
        if (handle_line(qmp, text, n, err) < 0)
            return -1;
        if (qmp->state == CLOSED)
            break;
        buf_consume(&qmp->input, n + 1);
        qmp->scanned = 0;
    }
    return 0;
}

int qmp_feed(struct qmp *qmp, const void *bytes, size_t n, struct err *err)
{
    const uint8_t *p = bytes;

    if (qmp->state == CLOSED) {
        if (err != NULL)
            *err = qmp->closed_with;
        return -1;
    }
    while (n > 0 && qmp->state != CLOSED) {
        size_t slice = n < SLICE ? n : SLICE;
        if (buf_append(&qmp->input, p, slice, err) < 0 || handle_lines(qmp, err) < 0)
            return -1;
        if (qmp->input.len > QMP_LINE_MAX)
            return err_set(err, ERR_PROTOCOL, "QMP: a message longer than %d bytes", QMP_LINE_MAX);
        p += slice;
        n -= slice;
    }
    return 0;
}
