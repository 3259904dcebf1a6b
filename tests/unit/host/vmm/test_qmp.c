/* SPDX-License-Identifier: Apache-2.0 */
/* The QMP engine, fed by hand: order, exactly-once answers, and what ends a connection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/text.h"
#include "host/vmm/json.h"
#include "host/vmm/qmp.h"

#define GREETING                                                                                   \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 1, \"minor\": 2, \"major\": 7}, \"package\": " \
    "\"\"}, \"capabilities\": []}}\r\n"

struct seen {
    struct qmp *qmp;
    int n_ready, n_events, n_ok, n_failed;
    char event[64];
    json_int_t value;
    struct err err;
    bool submit_in_reply, close_in_event;
};

static void on_ready(void *arg)
{
    ((struct seen *)arg)->n_ready++;
}

static void on_reply(void *arg, json_t *ret, const struct err *err)
{
    struct seen *s = arg;

    if (ret != NULL) {
        s->n_ok++;
        s->value = json_integer_value(json_object_get(ret, "n"));
        assert_null(err);
    } else {
        s->n_failed++;
        s->err = *err;
    }
    if (s->submit_in_reply) {
        struct err e;
        s->submit_in_reply = false;
        assert_int_equal(qmp_submit(s->qmp, "again", NULL, -1, on_reply, s, &e),
                         ret != NULL ? 0 : -1);
    }
}

static void on_event(void *arg, const char *name, const json_t *data)
{
    struct seen *s = arg;
    struct err err;

    s->n_events++;
    (void)snprintf(s->event, sizeof(s->event), "%s", name);
    if (data != NULL)
        s->value = json_integer_value(json_object_get(data, "n"));
    if (s->close_in_event) {
        (void)err_set(&err, ERR_CANCELLED, "enough");
        qmp_close(s->qmp, &err);
    }
}

static struct qmp *make(struct seen *s)
{
    const struct qmp_handlers handlers = {.ready = on_ready, .event = on_event, .arg = s};
    struct qmp *qmp;
    struct err err;

    memset(s, 0, sizeof(*s));
    assert_int_equal(qmp_new(&handlers, &qmp, &err), 0);
    s->qmp = qmp;
    return qmp;
}

static int feed(struct qmp *qmp, const char *text, struct err *err)
{
    return qmp_feed(qmp, text, strlen(text), err);
}

/* Takes everything that is to be sent; the id of the command that it is, 0 for nothing. */
static json_int_t take(struct qmp *qmp, char *ret_command, size_t size)
{
    const void *bytes;
    size_t n;
    int fd;

    qmp_output(qmp, &bytes, &n, &fd);
    if (n == 0)
        return 0;
    cleanup_json json_t *msg = json_loadb(bytes, n, 0, NULL);
    assert_non_null(msg);
    if (ret_command != NULL)
        (void)snprintf(ret_command, size, "%s", json_string_value(json_object_get(msg, "execute")));
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    qmp_sent(qmp, n);
    return id;
}

static void answer(struct qmp *qmp, json_int_t id, const char *what)
{
    cleanup_free char *text = text_printf("{%s, \"id\": %lld}\n", what, (long long)id);
    struct err err;

    if (feed(qmp, text, &err) < 0)
        fail_msg("%s", err.msg);
}

static struct qmp *make_ready(struct seen *s)
{
    struct qmp *qmp = make(s);
    struct err err;

    assert_int_equal(feed(qmp, GREETING, &err), 0);
    answer(qmp, take(qmp, NULL, 0), "\"return\": {}");
    assert_int_equal(s->n_ready, 1);
    return qmp;
}

static void greets_then_negotiates_then_runs(void **state)
{
    struct seen s;
    struct qmp *qmp = make(&s);
    char command[64];
    struct err err;
    int major, minor;

    (void)state;
    assert_int_equal(qmp_version(qmp, &major, &minor, &err), -1);
    assert_int_equal(qmp_submit(qmp, "query-status", NULL, -1, on_reply, &s, &err), 0);
    assert_int_equal(take(qmp, NULL, 0), 0); /* nothing before the greeting */
    for (const char *p = GREETING; *p != '\0'; p++)
        assert_int_equal(qmp_feed(qmp, p, 1, &err), 0);
    assert_int_equal(qmp_version(qmp, &major, &minor, &err), 0);
    assert_int_equal(major * 100 + minor, 702);
    json_int_t id = take(qmp, command, sizeof(command));
    assert_string_equal(command, "qmp_capabilities");
    assert_int_equal(take(qmp, NULL, 0), 0); /* one at a time */
    answer(qmp, id, "\"return\": {}");
    id = take(qmp, command, sizeof(command));
    assert_string_equal(command, "query-status");
    answer(qmp, id, "\"return\": {\"n\": 5}");
    assert_int_equal(s.n_ok, 1);
    assert_int_equal(s.value, 5);
    qmp_free(qmp);
    assert_int_equal(s.n_failed, 0);
}

static void events_come_between(void **state)
{
    struct seen s;
    struct qmp *qmp = make_ready(&s);
    struct err err;

    (void)state;
    assert_int_equal(qmp_submit(qmp, "a", NULL, -1, on_reply, &s, &err), 0);
    json_int_t id = take(qmp, NULL, 0);
    assert_int_equal(
        feed(qmp, "{\"event\": \"STOP\"}\n\r\n{\"event\": \"SHUTDOWN\", \"data\": {\"n\": 3}}\n",
             &err),
        0);
    assert_int_equal(s.n_events, 2);
    assert_string_equal(s.event, "SHUTDOWN");
    assert_int_equal(s.value, 3);
    answer(qmp, id, "\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"no d\\u0007isk\"}");
    assert_int_equal(s.n_failed, 1);
    assert_int_equal(s.err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(s.err.msg, "no d?isk"));
    s.submit_in_reply = true;
    assert_int_equal(qmp_submit(qmp, "b", NULL, -1, on_reply, &s, &err), 0);
    answer(qmp, take(qmp, NULL, 0), "\"return\": 7");
    assert_int_not_equal(take(qmp, NULL, 0), 0);
    qmp_free(qmp);
    assert_int_equal(s.n_failed, 2); /* "again" */
}

static void descriptors_go_with_the_first_byte(void **state)
{
    struct seen s;
    struct qmp *qmp = make_ready(&s);
    int pair[2], fd;
    const void *bytes;
    size_t n;
    struct err err;
    char c;

    (void)state;
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(qmp_submit(qmp, "add-fd", NULL, pair[1], on_reply, &s, &err), 0);
    qmp_output(qmp, &bytes, &n, &fd);
    assert_int_equal(fd, pair[1]);
    qmp_sent(qmp, 1);
    qmp_output(qmp, &bytes, &n, &fd);
    assert_int_equal(fd, -1);
    assert_int_equal(read(pair[0], &c, 1), 0); /* closed: it was the last writer */
    qmp_free(qmp);
    /* Refused: closed as well. */
    assert_int_equal(s.n_failed, 1);
    close(pair[0]);
    qmp = make_ready(&s);
    (void)err_set(&err, ERR_UNAVAILABLE, "closed");
    qmp_close(qmp, &err);
    assert_int_equal(pipe(pair), 0);
    assert_int_equal(qmp_submit(qmp, "add-fd", json_object(), pair[1], on_reply, &s, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(read(pair[0], &c, 1), 0);
    close(pair[0]);
    qmp_free(qmp);
}

static void close_fails_everything_once(void **state)
{
    struct seen s;
    struct qmp *qmp = make_ready(&s);
    struct err err;

    (void)state;
    for (int i = 0; i < QMP_PENDING_MAX; i++)
        assert_int_equal(qmp_submit(qmp, "c", NULL, -1, on_reply, &s, &err), 0);
    assert_int_equal(qmp_submit(qmp, "c", NULL, -1, on_reply, &s, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_not_equal(take(qmp, NULL, 0), 0);
    s.submit_in_reply = true;
    (void)err_set(&err, ERR_UNAVAILABLE, "QEMU died");
    qmp_close(qmp, &err);
    assert_int_equal(s.n_failed, QMP_PENDING_MAX);
    assert_string_equal(s.err.msg, "QEMU died");
    qmp_close(qmp, &err);
    assert_int_equal(feed(qmp, "{\"event\": \"X\"}\n", &err), -1);
    qmp_free(qmp);
    assert_int_equal(s.n_failed, QMP_PENDING_MAX);
    assert_int_equal(s.n_events, 0);
}

static void may_be_closed_by_a_handler(void **state)
{
    struct seen s;
    struct qmp *qmp = make_ready(&s);
    struct err err;

    (void)state;
    assert_int_equal(qmp_submit(qmp, "c", NULL, -1, on_reply, &s, &err), 0);
    s.close_in_event = true;
    assert_int_equal(feed(qmp, "{\"event\": \"A\"}\n{\"event\": \"B\"}\n", &err), 0);
    assert_int_equal(s.n_events, 1);
    assert_int_equal(s.n_failed, 1);
    qmp_free(qmp);
}

static void nonsense_ends_the_connection(void **state)
{
    static const char *const early[] = {
        "hello\n",
        "{}\n",
        "[]\n",
        "{\"QMP\": {}}\n",
        "{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"7\"}}}}\n",
        "{\"return\": {}, \"id\": 1}\n",
        "\"\\ud800\"\n",
    };
    static const char *const late[] = {
        "{\"return\": {}, \"id\": 99}\n",
        "{\"return\": {}}\n",
        "{\"return\": {}, \"id\": \"1\"}\n",
        "{\"error\": \"text\"}\n",
        "{\"event\": 5}\n",
        "{\"event\": \"A\", \"event\": \"B\"}\n",
        "null\n",
        "[{\"event\": \"A\"}]\n",
        "{\"event\": \"\xff\"}\n",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
    };
    struct seen s;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(early); i++) {
        struct qmp *qmp = make(&s);
        assert_int_equal(feed(qmp, early[i], &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
        qmp_free(qmp);
    }
    for (size_t i = 0; i < ARRAY_SIZE(late); i++) {
        struct qmp *qmp = make_ready(&s);
        assert_int_equal(qmp_submit(qmp, "c", NULL, -1, on_reply, &s, &err), 0);
        if (feed(qmp, late[i], &err) == 0)
            fail_msg("accepted: %s", late[i]);
        assert_int_equal(err.code, ERR_PROTOCOL);
        qmp_free(qmp);
        assert_int_equal(s.n_failed, 1);
    }
    /* Refused capabilities. */
    struct qmp *qmp = make(&s);
    assert_int_equal(feed(qmp, GREETING, &err), 0);
    json_int_t id = take(qmp, NULL, 0);
    cleanup_free char *text =
        text_printf("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": %lld}\n",
                    (long long)id);
    assert_int_equal(feed(qmp, text, &err), -1);
    assert_int_equal(s.n_ready, 0);
    qmp_free(qmp);
}

static void length_is_bounded(void **state)
{
    struct seen s;
    struct qmp *qmp = make_ready(&s);
    struct err err;

    (void)state;
    cleanup_free char *blanks = malloc(QMP_LINE_MAX);
    assert_non_null(blanks);
    memset(blanks, ' ', QMP_LINE_MAX);
    assert_int_equal(qmp_feed(qmp, blanks, QMP_LINE_MAX - 64, &err), 0);
    assert_int_equal(feed(qmp, "{\"event\": \"A\"}\n", &err), 0);
    assert_int_equal(s.n_events, 1);
    assert_int_equal(qmp_feed(qmp, blanks, QMP_LINE_MAX, &err), 0);
    assert_int_equal(qmp_feed(qmp, blanks, 64, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    qmp_free(qmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greets_then_negotiates_then_runs),
        cmocka_unit_test(events_come_between),
        cmocka_unit_test(descriptors_go_with_the_first_byte),
        cmocka_unit_test(close_fails_everything_once),
        cmocka_unit_test(may_be_closed_by_a_handler),
        cmocka_unit_test(nonsense_ends_the_connection),
        cmocka_unit_test(length_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
