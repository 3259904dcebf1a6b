/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GetContainerEvents and the Stream family: what is sent, to whom, how far a client may fall
 * behind, and how a stream ends.
 */
#include "tests/unit/host/cri/cri_fixture.h"

#include "host/cri/events.h"

struct stream {
    struct rpc_client_call *call;
    unsigned messages;
    unsigned bare; /* events without statuses */
    size_t items;  /* of the Stream family, in all */
    char last_id[SANDBOX_ID_SIZE];
    bool ended;
    enum err_code code; /* NONE: OK */
    char words[1024];
};

static void check_event(struct stream *s, const Runtime__V1__ContainerEventResponse *m)
{
    assert_int_equal(m->container_event_type,
                     RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STOPPED_EVENT);
    assert_string_equal(m->container_id, CTR_ID);
    assert_int_equal(m->created_at, 77);
    if (m->pod_sandbox_status == NULL) {
        assert_int_equal(m->n_containers_statuses, 0);
        s->bare++;
        return;
    }
    assert_string_equal(m->pod_sandbox_status->id, POD_ID);
    assert_string_equal(m->pod_sandbox_status->metadata->name, "web");
    assert_string_equal(m->pod_sandbox_status->network->ip, pod_ips[0]);
    assert_int_equal(m->n_containers_statuses, 1);
    assert_string_equal(m->containers_statuses[0]->id, CTR_ID);
    assert_int_equal(m->containers_statuses[0]->exit_code, 137);
    assert_string_equal(m->containers_statuses[0]->reason, "OOMKilled");
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
    struct stream *s = arg;
    s->messages++;
    if (message->descriptor == &runtime__v1__container_event_response__descriptor) {
        check_event(s, (const Runtime__V1__ContainerEventResponse *)message);
    } else if (message->descriptor == &runtime__v1__stream_pod_sandboxes_response__descriptor) {
        const Runtime__V1__StreamPodSandboxesResponse *m =
            (const Runtime__V1__StreamPodSandboxesResponse *)message;
        s->items += m->n_pod_sandboxes;
        (void)snprintf(s->last_id, sizeof(s->last_id), "%s",
                       m->pod_sandboxes[m->n_pod_sandboxes - 1]->id);
    } else {
        const Runtime__V1__StreamContainersResponse *m =
            (const Runtime__V1__StreamContainersResponse *)message;
        assert_ptr_equal(message->descriptor, &runtime__v1__stream_containers_response__descriptor);
        s->items += m->n_containers;
        (void)snprintf(s->last_id, sizeof(s->last_id), "%s", m->containers[0]->id);
    }
}

static void on_end(void *arg, const struct err *err)
{
    struct stream *s = arg;
    s->ended = true;
    s->code = err == NULL ? ERR_NONE : err->code;
    (void)snprintf(s->words, sizeof(s->words), "%s", err == NULL ? "" : err->msg);
}

static void begin(struct stream *s, const char *method, const void *request)
{
    const struct rpc_target target = {RUNTIME, NULL, method};
    const struct rpc_call_handlers handlers = {
        .on_message = on_message, .on_end = on_end, .arg = s};

    *s = (struct stream){0};
    must(rpc_client_start(fx.client, &target, request, CLOCK_NO_DEADLINE, &handlers, &s->call,
                          &fx.err));
}

static void subscribe(struct stream *s)
{
    Runtime__V1__GetEventsRequest q = RUNTIME__V1__GET_EVENTS_REQUEST__INIT;
    begin(s, "GetContainerEvents", &q);
}

#define spin_until(condition)                                                                      \
    do {                                                                                           \
        int64_t give_up_ = clock_deadline(PATIENCE_MS);                                            \
        while (!(condition)) {                                                                     \
            if (clock_monotonic_ms() > give_up_)                                                   \
                fail_msg("no event: %s", #condition);                                              \
            must(loop_run_once(fx.loop, 10, &fx.err));                                             \
        }                                                                                          \
    } while (0)

/* What was sent before has reached the server. */
static void await_server(void)
{
    Runtime__V1__VersionRequest q = RUNTIME__V1__VERSION_REQUEST__INIT;
    assert_ok(call(RUNTIME, "Version", &q));
}

static void test_events(void **state)
{
    struct stream a, b;

    (void)state;
    two_pods();
    one_container();
    assert_false(model_is_watched());
    subscribe(&a);
    spin_until(model_is_watched());
    subscribe(&b);
    assert_ok(
        call(RUNTIME, "Version", &(Runtime__V1__VersionRequest)RUNTIME__V1__VERSION_REQUEST__INIT));
    model_happen(3, false);
    spin_until(a.messages == 3 && b.messages == 3);

    /* One leaves: the other goes on. With the last one the model keeps nothing any more. */
    rpc_client_cancel(a.call);
    model_happen(1, false);
    spin_until(b.messages == 4);
    assert_int_equal(a.messages, 3);
    rpc_client_cancel(b.call);
    spin_until(!model_is_watched());
}

/* A client that does not read: what waits for it is bounded, its stream ends and says why, and the
 * others miss nothing. */
static void test_slow_client(void **state)
{
    enum { ROUNDS = 400 };
    static char long_message[20000];
    struct stream slow, quick;

    (void)state;
    two_pods();
    one_container();
    memset(long_message, 'x', sizeof(long_message) - 1);
    model.container.message = long_message;
    subscribe(&slow);
    subscribe(&quick);
    assert_ok(
        call(RUNTIME, "Version", &(Runtime__V1__VersionRequest)RUNTIME__V1__VERSION_REQUEST__INIT));
    spin_until(model_is_watched());
    rpc_client_pause(slow.call, true);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        model_happen(1, false);
        spin_until(quick.messages == i);
    }
    assert_false(quick.ended);
    assert_int_equal(slow.messages, 0);
    /* 8 MB were sent to the one, and the other has a window full of them and no more. */
    rpc_client_pause(slow.call, false);
    spin_until(slow.ended);
    assert_int_equal(slow.code, ERR_EXHAUSTED);
    assert_non_null(strstr(slow.words, "does not keep up"));
    assert_true(slow.messages > 0);
    assert_true(slow.messages < ROUNDS / 2);
    /* It may begin again. */
    subscribe(&slow);
    assert_ok(
        call(RUNTIME, "Version", &(Runtime__V1__VersionRequest)RUNTIME__V1__VERSION_REQUEST__INIT));
    model_happen(1, false);
    spin_until(slow.messages == 1 && quick.messages == ROUNDS + 1);
    rpc_client_cancel(slow.call);
    rpc_client_cancel(quick.call);
}

/* Statuses that no message can carry: the event goes without them, and the streams go on. */
static void test_untellable_statuses(void **state)
{
    static char huge[17u << 20];
    struct stream s;

    (void)state;
    two_pods();
    one_container();
    subscribe(&s);
    spin_until(model_is_watched());
    model.container.message = "half a character: \xe2\x82";
    model_happen(1, false);
    spin_until(s.ended || s.messages == 1);
    assert_false(s.ended);
    assert_int_equal(s.bare, 1);

    memset(huge, 'x', sizeof(huge) - 1);
    model.container.message = huge;
    model_happen(1, false);
    spin_until(s.ended || s.messages == 2);
    assert_false(s.ended);
    assert_int_equal(s.bare, 2);

    model.container.message = "";
    model_happen(1, false);
    spin_until(s.messages == 3);
    assert_int_equal(s.bare, 2);
    rpc_client_cancel(s.call);
}

static void test_lost_events(void **state)
{
    struct stream s;

    (void)state;
    two_pods();
    one_container();
    subscribe(&s);
    spin_until(model_is_watched());
    model_happen(1, true);
    spin_until(s.ended);
    assert_int_equal(s.code, ERR_EXHAUSTED);
    assert_non_null(strstr(s.words, "events were lost"));
    assert_int_equal(s.messages, 0);
}

static void test_many_clients(void **state)
{
    struct stream all[CRI_EVENTS_MAX_STREAMS], more;

    (void)state;
    two_pods();
    one_container();
    for (unsigned i = 0; i < CRI_EVENTS_MAX_STREAMS; i++)
        subscribe(&all[i]);
    subscribe(&more);
    spin_until(more.ended);
    assert_int_equal(more.code, ERR_EXHAUSTED);
    model_happen(1, false);
    for (unsigned i = 0; i < CRI_EVENTS_MAX_STREAMS; i++)
        spin_until(all[i].messages == 1);
    rpc_client_cancel(all[7].call);
    await_server();
    subscribe(&more);
    await_server();
    model_happen(1, false);
    spin_until(all[0].messages == 2 && more.messages == 1);
    rpc_client_cancel(more.call);
    for (unsigned i = 0; i < CRI_EVENTS_MAX_STREAMS; i++) {
        if (i != 7)
            rpc_client_cancel(all[i].call);
    }
}

/* The daemon ends: so do the streams, and no new one begins. */
static void test_end_of_streams(void **state)
{
    struct stream s, late;

    (void)state;
    subscribe(&s);
    spin_until(model_is_watched());
    cri_end_streams(fx.cri);
    spin_until(s.ended);
    assert_int_equal(s.code, ERR_UNAVAILABLE);
    subscribe(&late);
    spin_until(late.ended);
    assert_int_equal(late.code, ERR_UNAVAILABLE);
}

static void test_list_streams(void **state)
{
    Runtime__V1__StreamPodSandboxesRequest pods = RUNTIME__V1__STREAM_POD_SANDBOXES_REQUEST__INIT;
    Runtime__V1__StreamContainersRequest containers = RUNTIME__V1__STREAM_CONTAINERS_REQUEST__INIT;
    Runtime__V1__ContainerFilter filter = RUNTIME__V1__CONTAINER_FILTER__INIT;
    static char note[300000];
    struct stream s;

    (void)state;
    two_pods();
    one_container();
    begin(&s, "StreamPodSandboxes", &pods);
    spin_until(s.ended);
    assert_int_equal(s.code, ERR_NONE);
    assert_int_equal(s.messages, 1);
    assert_int_equal(s.items, 2);
    assert_string_equal(s.last_id, OTHER_POD);

    /* More than a page each. */
    memset(note, 'x', sizeof(note) - 1);
    char *before = pod_label.value;
    pod_label.value = note;
    begin(&s, "StreamPodSandboxes", &pods);
    spin_until(s.ended);
    pod_label.value = before;
    assert_int_equal(s.code, ERR_NONE);
    assert_int_equal(s.messages, 2);
    assert_int_equal(s.items, 2);

    filter.id = text("abc");
    containers.filter = &filter;
    begin(&s, "StreamContainers", &containers);
    spin_until(s.ended);
    assert_int_equal(s.code, ERR_NONE);
    assert_string_equal(model.id, "abc");
    assert_int_equal(s.items, 1);
    assert_string_equal(s.last_id, CTR_ID);

    model.n_pods = 0;
    begin(&s, "StreamPodSandboxes", &pods);
    spin_until(s.ended);
    assert_int_equal(s.code, ERR_NONE);
    assert_int_equal(s.messages, 0);
    model.failure = ERR_UNAVAILABLE;
    begin(&s, "StreamContainers", &containers);
    spin_until(s.ended);
    assert_int_equal(s.code, ERR_UNAVAILABLE);
    assert_string_equal(s.words, model.words);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_events),       TEST(test_slow_client),
        TEST(test_lost_events),  TEST(test_untellable_statuses),
        TEST(test_many_clients), TEST(test_end_of_streams),
        TEST(test_list_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
