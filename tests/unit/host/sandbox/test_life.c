/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers of a pod whose agent is a fake: start, exit, stop, commands, resources, statistics;
 * what a guest may not say. There is no VM: its functions that operations call are here, and the
 * linker takes them first (Makefile, tests/unit/host/sandbox/test_life).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/sandbox/model.h"
#include "host/sandbox/podsize.h"
#include "host/sandbox/records.h"
#include "host/sandbox/stats.h"
#include "tests/fakes/fake_agent.h"

#define DEADLINE_MS 20000
#define CTR_ID      "3333333333333333333333333333333333333333333333333333333333333333"
#define POD_ID      "1111111111111111111111111111111111111111111111111111111111111111"

struct vm {
    unsigned resized; /* how often */
    uint32_t mib, vcpus;
    uint32_t most_mib;
    bool gone;
};
struct vm *vm_ref(struct vm *vm)
{
    return vm;
}
void vm_unref(struct vm *vm)
{
    (void)vm;
}

int vm_resize(struct vm *vm, uint32_t memory_mib, uint32_t vcpus, int64_t deadline_ms,
              struct err *err)
{
    (void)deadline_ms;
    if (vm->gone)
        return err_set(err, ERR_UNAVAILABLE, "gone");
    if (memory_mib > vm->most_mib)
        return err_set(err, ERR_EXHAUSTED, "too large");
    vm->resized++;
    vm->mib = memory_mib != 0 ? memory_mib : vm->mib;
    vm->vcpus = vcpus != 0 ? vcpus : vm->vcpus;
    return 0;
}

/* ---- and an image that has no layer ---- */

static struct image the_image = {
    .id = "sha256:0",
    .entrypoint = {.items = (const char *const[]){"/bin/true"}, .n = 1},
    .working_dir = "/",
    .user = "",
    .username = "",
    .stop_signal = ""};

int image_get(struct image_service *svc, const char *name_or_id, struct image **ret_image,
              struct err *err)
{
    (void)svc;
    (void)name_or_id;
    (void)err;
    *ret_image = &the_image;
    return 0;
}
void image_unref(struct image *one)
{
    (void)one;
}
int image_use(struct image_service *svc, const char *image_id, const char *container_id,
              struct err *err)
{
    (void)svc;
    (void)image_id;
    (void)container_id;
    (void)err;
    return 0;
}
void image_release(struct image_service *svc, const char *image_id, const char *container_id)
{
    (void)svc;
    (void)image_id;
    (void)container_id;
}

struct fixture {
    char dir[64];
    struct loop *loop;
    pthread_t thread;
    struct fake_agent *agent;
    struct store *store;
    struct sandbox_manager *mgr;
    struct pod *pod;
    struct container *c;
    struct vm vm;
};

static void *run_loop(void *arg)
{
    struct fixture *f = arg;
    struct err err;
    (void)loop_run(f->loop, &err);
    return NULL;
}

static void make_manager(struct fixture *f)
{
    struct sandbox_handler handler = {.name = "",
                                      .kernel = "/k",
                                      .initrd = "/i",
                                      .machine = "q35",
                                      .memory_bytes = 64 << 20,
                                      .vcpus = 1,
                                      .clone = true};
    struct sandbox_config config = {
        .state_dir = f->dir, .run_dir = f->dir, .handlers = &handler, .n_handlers = 1};
    struct sandbox_deps deps = {.loop = f->loop};
    cleanup_free char *path = text_printf("%s/db", f->dir);
    struct err err;

    assert_int_equal(store_open(path, &f->store, &err), 0);
    deps.store = f->store;
    if (sandbox_manager_new(&config, &deps, &f->mgr, &err) != 0)
        fail_msg("%s", err.msg);
}

static void make_pod(struct fixture *f)
{
    Runtime__V1__PodSandboxConfig config = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__PodSandboxMetadata name = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;
    struct guest_config guest = {.loop = f->loop};
    struct pod_facts *facts;
    struct err err;

    name.name = f->dir;
    config.metadata = &name;
    config.log_directory = f->dir;
    facts = pod_facts_new(POD_ID, clock_realtime_ns(), "", &config, &err);
    assert_non_null(facts);
    assert_int_equal(pod_new(f->mgr, facts, &f->pod, &err), 0);
    pod_facts_unref(facts);
    assert_int_equal(manager_add_pod(f->mgr, f->pod, &err), 0);
    if (guest_connect(&guest, fake_agent_fd(f->agent), clock_deadline(DEADLINE_MS), &f->pod->guest,
                      &err) != 0)
        fail_msg("%s", err.msg);
    f->vm.most_mib = 1024;
    f->pod->vm = &f->vm;
    pod_set_state(f->pod, POD_READY);
}

static void make_container(struct fixture *f)
{
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__ContainerMetadata name = RUNTIME__V1__CONTAINER_METADATA__INIT;
    Runtime__V1__ImageSpec image = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__LinuxContainerConfig linux_ = RUNTIME__V1__LINUX_CONTAINER_CONFIG__INIT;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Casemate__Agent__V1__Process process = CASEMATE__AGENT__V1__PROCESS__INIT;
    char text[] = "c", log[] = "c.log";
    struct container_facts *facts;
    struct err err;

    name.name = image.image = text;
    resources.cpu_shares = 1024;
    resources.cpu_period = 100000;
    resources.memory_limit_in_bytes = 1000000;
    resources.memory_swap_limit_in_bytes = 1500000;
    linux_.resources = &resources;
    config.metadata = &name;
    config.image = &image;
    config.linux = &linux_;
    config.log_path = log;
    facts = container_facts_new(CTR_ID, POD_ID, clock_realtime_ns(), &config, &err);
    assert_non_null(facts);
    facts->image_id = strdup("i");
    facts->image_ref = strdup("i");
    facts->stop_signal = SIGTERM;
    assert_int_equal(container_facts_set_log_path(facts, f->pod->facts->config, &err), 0);
    assert_int_equal(facts_copy_process(&process, &facts->process, &err), 0);
    assert_int_equal(container_new(f->pod, facts, &f->c, &err), 0);
    container_facts_unref(facts);
    container_set_state(f->c, CTR_CREATED);
    (void)container_ref(f->c);
    TAILQ_INSERT_HEAD(&f->pod->containers, f->c, entry);
    fake_agent_add(f->agent, CTR_ID);
}

static int setup(void **state)
{
    static const struct fake_agent_options ordinary = {.output = "hello\n"};
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err;

    assert_non_null(f);
    *state = f;
    log_set_level(LOG_ERROR);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/test-life.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(loop_new(&f->loop, &err), 0);
    f->agent = fake_agent_new(f->loop, &ordinary);
    assert_int_equal(pthread_create(&f->thread, NULL, run_loop, f), 0);
    make_manager(f);
    make_pod(f);
    make_container(f);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err err;

    f->pod->vm = NULL; /* nothing hears of its end */
    container_unref(f->c);
    sandbox_manager_free(f->mgr);
    pod_unref(f->pod);
    loop_stop(f->loop);
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    fake_agent_free(f->agent);
    loop_free(f->loop);
    store_close(f->store);
    assert_int_equal(fd_remove_tree(AT_FDCWD, f->dir, &err), 0);
    free(f);
    return 0;
}

static void start(struct fixture *f)
{
    struct err err;

    if (sandbox_container_start(f->mgr, CTR_ID, clock_deadline(DEADLINE_MS), &err) != 0)
        fail_msg("%s", err.msg);
}

static void await_exit(struct fixture *f)
{
    pthread_mutex_lock(&f->pod->mutex);
    while (f->c->state != CTR_EXITED)
        assert_true(pod_wait(f->pod, clock_deadline(DEADLINE_MS)));
    pthread_mutex_unlock(&f->pod->mutex);
}

static void expect_end(struct fixture *f, int code, const char *reason)
{
    struct sandbox_container_info info;
    struct err err;

    assert_int_equal(sandbox_container_status(f->mgr, CTR_ID, &info, &err), 0);
    assert_int_equal(info.state, RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED);
    assert_int_equal(info.exit_code, code);
    assert_string_equal(info.reason, reason);
    sandbox_container_info_fini(&info);
}

static void set(struct fixture *f, const struct fake_agent_options *options)
{
    fake_agent_set(f->agent, options);
}

/* ---- exits ---- */

static void output_is_logged_before_the_end(void **state)
{
    struct fixture *f = *state;
    cleanup_free char *path = text_printf("%s/c.log", f->dir);
    cleanup_free char *text = NULL;
    struct err err;

    set(f, &(struct fake_agent_options){.output = "hello\n", .ends_at_once = true});
    start(f);
    await_exit(f);
    expect_end(f, 0, "Completed");
    assert_int_equal(fd_read_file(AT_FDCWD, path, 4096, &text, NULL, &err), 0);
    assert_non_null(strstr(text, " stdout F hello\n"));
}

static void reasons_are_true(void **state)
{
    struct fixture *f = *state;

    set(f,
        &(struct fake_agent_options){.ends_at_once = true, .exit_code = 137, .oom_killed = true});
    start(f);
    await_exit(f);
    expect_end(f, 137, "OOMKilled");
}

static void a_survivor_was_not_killed(void **state)
{
    struct fixture *f = *state;

    set(f, &(struct fake_agent_options){.ends_at_once = true, .oom_killed = true});
    start(f);
    await_exit(f);
    expect_end(f, 0, "Completed");
}

static void a_failed_start_is_told_in_words(void **state)
{
    struct fixture *f = *state;
    struct err err;

    set(f, &(struct fake_agent_options){.start_fails = ERR_NOT_FOUND,
                                        .words = "exec /nope: no such file or directory"});
    assert_int_equal(sandbox_container_start(f->mgr, CTR_ID, clock_deadline(DEADLINE_MS), &err),
                     -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.msg, "exec /nope: no such file or directory");
    expect_end(f, 128, "StartError");
    assert_string_equal(f->c->message, "exec /nope: no such file or directory");
}

/* What is not the program's fault is told apart: the guest's, and the host's. */
static void a_container_that_cannot_run(void **state)
{
    struct fixture *f = *state;
    struct err err;

    set(f, &(struct fake_agent_options){.start_fails = ERR_DENIED,
                                        .words = "working directory /x: permission denied"});
    assert_int_equal(sandbox_container_start(f->mgr, CTR_ID, clock_deadline(DEADLINE_MS), &err),
                     -1);
    assert_int_equal(err.code, ERR_DENIED);
    expect_end(f, 128, "ContainerCannotRun");
    assert_string_equal(f->c->message, "working directory /x: permission denied");
}

static void a_container_without_its_log(void **state)
{
    struct fixture *f = *state;
    cleanup_free char *path = text_printf("%s/c.log", f->dir);
    struct err err;

    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(sandbox_container_start(f->mgr, CTR_ID, clock_deadline(DEADLINE_MS), &err),
                     -1);
    expect_end(f, 128, "ContainerCannotRun");
    assert_non_null(strstr(f->c->message, "c.log"));
}

/* ---- events ---- */

static void expect_event(struct fixture *f, const char *id, Runtime__V1__ContainerEventType type,
                         size_t n_containers, Runtime__V1__ContainerState state)
{
    struct sandbox_event event;

    assert_true(sandbox_events_next(f->mgr, &event));
    assert_int_equal(event.type, type);
    assert_string_equal(event.id, id);
    assert_false(event.lost);
    assert_true(event.time_ns > 0);
    assert_string_equal(event.pod.id, POD_ID);
    assert_true(event.pod.ready);
    assert_int_equal(event.containers.n, n_containers);
    if (n_containers > 0) {
        assert_string_equal(event.containers.items[0].id, CTR_ID);
        assert_int_equal(event.containers.items[0].state, state);
    }
    sandbox_event_fini(&event);
}

static void a_life_in_events(void **state)
{
    struct fixture *f = *state;
    struct err err;

    assert_int_equal(sandbox_events_watch(f->mgr, true, &err), 0);
    set(f, &(struct fake_agent_options){.output = "x\n"});
    start(f);
    expect_event(f, CTR_ID, RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STARTED_EVENT, 1,
                 RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING);
    assert_int_equal(sandbox_container_stop(f->mgr, CTR_ID, 0, clock_deadline(DEADLINE_MS), &err),
                     0);
    expect_event(f, CTR_ID, RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STOPPED_EVENT, 1,
                 RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED);
    assert_int_equal(sandbox_events_watch(f->mgr, false, &err), 0);
    pthread_mutex_lock(&f->pod->mutex);
    container_set_state(f->c, CTR_REMOVING);
    container_set_state(f->c,
                        CTR_EXITED); /* a removal that failed is no event, and nobody watches */
    pthread_mutex_unlock(&f->pod->mutex);
    sandbox_events_stop(f->mgr);
    assert_false(sandbox_events_next(f->mgr, &(struct sandbox_event){0}));
}

static void events_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct sandbox_event event;
    struct err err;

    assert_int_equal(sandbox_events_watch(f->mgr, true, &err), 0);
    for (unsigned i = 0; i <= EVENTS_MAX; i++)
        events_add(&f->mgr->events, f->pod, POD_ID,
                   RUNTIME__V1__CONTAINER_EVENT_TYPE__CONTAINER_STARTED_EVENT);
    assert_int_equal(f->mgr->events.n, EVENTS_MAX);
    assert_true(sandbox_events_next(f->mgr, &event));
    assert_true(event.lost);
    sandbox_event_fini(&event);
    /* Said once. The others wait, and go with the manager. */
    assert_true(sandbox_events_next(f->mgr, &event));
    assert_false(event.lost);
    sandbox_event_fini(&event);
}

/* ---- stop ---- */

static void grace_comes_before_the_kill(void **state)
{
    struct fixture *f = *state;
    unsigned signals[FAKE_AGENT_SIGNALS];
    int64_t began_ms;
    struct err err;

    set(f, &(struct fake_agent_options){.ignores_term = true});
    start(f);
    began_ms = clock_monotonic_ms();
    assert_int_equal(sandbox_container_stop(f->mgr, CTR_ID, 1, clock_deadline(DEADLINE_MS), &err),
                     0);
    assert_true(clock_monotonic_ms() - began_ms >= 1000);
    assert_int_equal(fake_agent_signals(f->agent, signals), 2);
    assert_int_equal(signals[0], SIGTERM);
    assert_int_equal(signals[1], SIGKILL);
    expect_end(f, 137, "Error");
}

static void no_grace_is_a_kill_at_once(void **state)
{
    struct fixture *f = *state;
    unsigned signals[FAKE_AGENT_SIGNALS];
    struct err err;

    start(f);
    assert_int_equal(sandbox_container_stop(f->mgr, CTR_ID, 0, clock_deadline(DEADLINE_MS), &err),
                     0);
    assert_int_equal(fake_agent_signals(f->agent, signals), 1);
    assert_int_equal(signals[0], SIGKILL);
    /* Again, and for one that nobody knows: fine. */
    assert_int_equal(sandbox_container_stop(f->mgr, CTR_ID, 0, CLOCK_NO_DEADLINE, &err), 0);
    assert_int_equal(sandbox_container_stop(f->mgr, POD_ID, 0, CLOCK_NO_DEADLINE, &err), 0);
}

/* ---- commands ---- */

static int run(struct fixture *f, int64_t timeout_s, struct sandbox_exec_output *output,
               struct err *err)
{
    char word[] = "true", *args[] = {word};
    struct sandbox_exec spec = {
        .container_id = CTR_ID,
        .args = args,
        .n_args = 1,
        .timeout_s = timeout_s,
        .deadline_ms = clock_deadline(DEADLINE_MS),
    };

    return sandbox_container_exec(f->mgr, &spec, output, err);
}

static void a_command_gives_output_and_code(void **state)
{
    struct fixture *f = *state;
    struct sandbox_exec_output output;
    struct err err;

    assert_int_equal(run(f, 0, &output, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE); /* not running */
    start(f);
    set(f, &(struct fake_agent_options){.output = "out", .exit_code = 3});
    if (run(f, 0, &output, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(output.exit_code, 3);
    assert_int_equal(output.out_len, 3);
    assert_memory_equal(output.out, "out", 3);
    assert_int_equal(output.err_len, 0);
    assert_false(output.truncated);
    sandbox_exec_output_fini(&output);
}

static void a_command_out_of_time_is_removed(void **state)
{
    struct fixture *f = *state;
    struct sandbox_exec_output output;
    struct err err;

    start(f);
    set(f, &(struct fake_agent_options){.command_hangs = true});
    assert_int_equal(run(f, 1, &output, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(fake_agent_removed(f->agent), 1);
}

static void a_command_has_one_exit(void **state)
{
    struct fixture *f = *state;
    struct sandbox_exec_output output;
    struct err err;

    start(f);
    set(f, &(struct fake_agent_options){.two_exits = true});
    assert_int_equal(run(f, 0, &output, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    set(f, &(struct fake_agent_options){.no_exit = true, .output = "x"});
    assert_int_equal(run(f, 0, &output, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    set(f, &(struct fake_agent_options){.exit_code = 300});
    assert_int_equal(run(f, 0, &output, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
}

/* ---- resources ---- */

static int update(struct fixture *f, const Runtime__V1__LinuxContainerResources *resources,
                  struct err *err)
{
    return sandbox_container_update(f->mgr, CTR_ID, resources, clock_deadline(DEADLINE_MS), err);
}

static void expect_limits(struct fixture *f, int64_t memory, int64_t swap, int64_t shares)
{
    struct sandbox_container_info info;
    struct err err;

    assert_int_equal(sandbox_container_status(f->mgr, CTR_ID, &info, &err), 0);
    assert_int_equal(info.resources->memory_limit_in_bytes, memory);
    assert_int_equal(info.resources->memory_swap_limit_in_bytes, swap);
    assert_int_equal(info.resources->cpu_shares, shares);
    sandbox_container_info_fini(&info);
}

static void an_update_changes_what_it_names(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct err err;

    expect_limits(f, 1000000, 1500000, 1024);
    resources.memory_limit_in_bytes = 2000000;
    resources.cpu_quota = 50000;
    if (update(f, &resources, &err) != 0)
        fail_msg("%s", err.msg);
    /* Swap stays half a million; shares are not written again. */
    expect_limits(f, 2000000, 2500000, 1024);
    assert_string_equal(fake_agent_settings(f->agent),
                        "cpu.max=50000 100000 memory.max=2000000 memory.swap.max=500000");
    /* -1 takes a limit away: of memory, that of swap with it. */
    resources.memory_limit_in_bytes = resources.cpu_quota = -1;
    if (update(f, &resources, &err) != 0)
        fail_msg("%s", err.msg);
    expect_limits(f, -1, -1, 1024);
    assert_string_equal(fake_agent_settings(f->agent),
                        "cpu.max=max 100000 memory.max=max memory.swap.max=max");
}

static void swap_does_not_overflow(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct err err;

    f->mgr->handlers[0].memory_max_mib = 300;
    resources.memory_limit_in_bytes = INT64_MAX;
    assert_int_equal(update(f, &resources, &err), 0);
    expect_limits(f, INT64_MAX, INT64_MAX, 1024);
    assert_string_equal(fake_agent_settings(f->agent),
                        "memory.max=9223372036854775807 memory.swap.max=0");
    resources.memory_limit_in_bytes = 2000000;
    assert_int_equal(update(f, &resources, &err), 0);
    expect_limits(f, 2000000, 2000000, 1024);
    resources.memory_swap_limit_in_bytes = -5;
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

/* Also when it came with an update before. */
static void unified_goes_over_the_other_fields(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Runtime__V1__LinuxContainerResources__UnifiedEntry
        weight = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__UNIFIED_ENTRY__INIT,
        pids = weight, *entries[] = {&weight, &pids};
    char weight_key[] = "cpu.weight", weight_value[] = "55", pids_key[] = "pids.max",
         pids_value[] = "9";
    struct err err;

    weight.key = weight_key;
    weight.value = weight_value;
    pids.key = pids_key;
    pids.value = pids_value;
    resources.unified = entries;
    resources.n_unified = 2;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_string_equal(fake_agent_settings(f->agent), "cpu.weight=55 pids.max=9");
    resources.n_unified = 0;
    resources.cpu_shares = 8192;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_string_equal(fake_agent_settings(f->agent), "cpu.weight=313 cpu.weight=55");
    /* What neither names stays unwritten. */
    resources.cpu_shares = 0;
    resources.cpu_quota = 50000;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_string_equal(fake_agent_settings(f->agent), "cpu.max=50000 100000");
}

static void a_refused_update_changes_nothing(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    char cpus[] = "1-0";
    struct err err;

    set(f, &(struct fake_agent_options){.update_fails = ERR_BAD_STATE,
                                        .words = "memory.max 5: 9 bytes are in use"});
    resources.memory_limit_in_bytes = 5;
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    assert_string_equal(err.msg, "memory.max 5: 9 bytes are in use");
    expect_limits(f, 1000000, 1500000, 1024);
    resources.memory_limit_in_bytes = 0;
    resources.cpuset_cpus = cpus;
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "cpuset_cpus"));
    resources.cpuset_cpus = (char *)(uintptr_t)protobuf_c_empty_string;
    resources.oom_score_adj = 5;
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    expect_limits(f, 1000000, 1500000, 1024);
}

/* The shares that the container's record has; 0: no update was stored. */
static uint64_t stored_shares(struct fixture *f)
{
    Runtime__V1__LinuxContainerResources *resources;
    Casemate__State__V1__ContainerRecord *record;
    cleanup_free void *bytes = NULL;
    uint32_t version;
    uint64_t shares;
    struct err err;
    size_t n;

    assert_int_equal(store_get(f->store, "container", CTR_ID, &version, &bytes, &n, &err), 0);
    record = casemate__state__v1__container_record__unpack(NULL, n, bytes);
    assert_non_null(record);
    resources = runtime__v1__linux_container_resources__unpack(NULL, record->resources.len,
                                                               record->resources.data);
    assert_non_null(resources);
    shares = (uint64_t)resources->cpu_shares;
    runtime__v1__linux_container_resources__free_unpacked(resources, NULL);
    casemate__state__v1__container_record__free_unpacked(record, NULL);
    return shares;
}

static void an_update_is_stored(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct err err;

    resources.cpu_shares = 77;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_int_equal(stored_shares(f), 77);
    /* One that the guest refuses is not. */
    set(f, &(struct fake_agent_options){.update_fails = ERR_BAD_STATE, .words = "no"});
    resources.cpu_shares = 78;
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(stored_shares(f), 77);
}

struct late_call {
    struct fixture *f;
    int (*call)(struct fixture *f, struct err *err);
    int result;
    struct err err;
};

static void *call_main(void *arg)
{
    struct late_call *late = arg;

    late->result = late->call(late->f, &late->err);
    return NULL;
}

static int update_shares(struct fixture *f, struct err *err)
{
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;

    resources.cpu_shares = 77;
    return update(f, &resources, err);
}

static int start_it(struct fixture *f, struct err *err)
{
    return sandbox_container_start(f->mgr, CTR_ID, clock_deadline(DEADLINE_MS), err);
}

/* Calls while another one has the container's job slot: none is refused, whichever comes first. */
static void a_call_waits_for_the_one_before(void **state)
{
    struct fixture *f = *state;
    struct late_call calls[] = {{.f = f, .call = update_shares, .result = -1},
                                {.f = f, .call = update_shares, .result = -1},
                                {.f = f, .call = start_it, .result = -1}};
    pthread_t threads[ARRAY_SIZE(calls)];
    int64_t until_ms = clock_deadline(DEADLINE_MS);
    struct err err;

    f->c->busy = true;
    assert_int_equal(sandbox_container_start(f->mgr, CTR_ID, clock_deadline(1), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, call_main, &calls[i]), 0);
    /* Each has the pod's VM in use from its beginning. */
    pthread_mutex_lock(&f->pod->mutex);
    while (f->pod->operations < ARRAY_SIZE(calls) && clock_monotonic_ms() < until_ms) {
        pthread_mutex_unlock(&f->pod->mutex);
        (void)sched_yield();
        pthread_mutex_lock(&f->pod->mutex);
    }
    f->c->busy = false;
    pthread_cond_broadcast(&f->pod->cond);
    pthread_mutex_unlock(&f->pod->mutex);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (calls[i].result != 0)
            fail_msg("call %zu: %s", i, calls[i].err.msg);
    }
}

/* The guest hears nothing of it, nor does the record. */
static void an_update_that_the_machine_refuses(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct err err;

    resources.cpu_shares = 77;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_string_equal(fake_agent_settings(f->agent), "cpu.weight=3");
    resources.cpu_shares = 78;
    resources.memory_limit_in_bytes = 2000ll << 20;
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_string_equal(fake_agent_settings(f->agent), "cpu.weight=3");
    expect_limits(f, 1000000, 1500000, 77);
    assert_int_equal(stored_shares(f), 77);
    assert_int_equal(f->vm.mib, 65);
    /* In a machine that is too small by now, what asks for no more is taken. */
    f->pod->told_mib = 0;
    f->vm.most_mib = 60;
    resources.memory_limit_in_bytes = 900000;
    if (update(f, &resources, &err) != 0)
        fail_msg("%s", err.msg);
    expect_limits(f, 900000, 1400000, 78);
}

/* Who saw an end first may store it when another has forgotten the pod: no record comes back. */
static void what_is_forgotten_is_not_stored_again(void **state)
{
    struct fixture *f = *state;
    cleanup_free void *bytes = NULL;
    uint32_t version;
    struct err err;
    size_t n;

    assert_int_equal(pod_save(f->pod, &err), 0);
    assert_int_equal(container_save(f->c, &err), 0);
    assert_int_equal(container_delete_record(f->c, &err), 0);
    assert_int_equal(container_save(f->c, &err), 0);
    assert_int_equal(store_get(f->store, "container", CTR_ID, &version, &bytes, &n, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(pod_delete_records(f->pod, &err), 0);
    assert_int_equal(pod_save(f->pod, &err), 0);
    assert_int_equal(store_get(f->store, "pod", POD_ID, &version, &bytes, &n, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static int update_pod(struct fixture *f, const Runtime__V1__LinuxContainerResources *resources,
                      struct err *err)
{
    return sandbox_update(f->mgr, POD_ID, NULL, resources, clock_deadline(DEADLINE_MS), err);
}

static void the_machine_follows_the_pod(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct sandbox_info info;
    struct err err;

    /* What the pod's machine was told is not known: it is told. */
    resources.memory_limit_in_bytes = 200 << 20;
    if (update_pod(f, &resources, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(f->vm.mib, 264);
    assert_int_equal(f->vm.vcpus, 1);
    assert_int_equal(f->vm.resized, 1);
    /* Nothing new costs nothing; what is zero stays. */
    resources.memory_limit_in_bytes = 0;
    assert_int_equal(update_pod(f, &resources, &err), 0);
    assert_int_equal(update_pod(f, NULL, &err), 0);
    assert_int_equal(f->vm.resized, 1);
    /* More than the machine can have: as if nobody had asked. */
    resources.memory_limit_in_bytes = 2000 << 20;
    assert_int_equal(update_pod(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(sandbox_status(f->mgr, POD_ID, &info, &err), 0);
    assert_int_equal(info.resources->memory_limit_in_bytes, 200 << 20);
    sandbox_info_fini(&info);
    /* Less: down to what the containers have, not below what the machine booted with. */
    resources.memory_limit_in_bytes = 1;
    assert_int_equal(update_pod(f, &resources, &err), 0);
    assert_int_equal(f->vm.mib, 65);
    /* Valid is what is so for a container, as a whole. */
    resources.memory_limit_in_bytes = -1;
    assert_int_equal(update_pod(f, &resources, &err), 0);
    assert_int_equal(f->vm.mib, 65);
    resources.memory_limit_in_bytes = -5;
    assert_int_equal(update_pod(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    resources.memory_limit_in_bytes = 0;
    resources.memory_swap_limit_in_bytes = 5;
    assert_int_equal(update_pod(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    resources.memory_limit_in_bytes = 5;
    assert_int_equal(update_pod(f, &resources, &err), 0);
}

static void the_configuration_bounds_the_machine(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct err err;

    f->mgr->handlers[0].memory_max_mib = 300;
    f->mgr->handlers[0].vcpus_max = 1;
    resources.memory_limit_in_bytes = INT64_MAX;
    resources.cpu_quota = INT64_MAX;
    if (update_pod(f, &resources, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(f->vm.mib, 300);
    assert_int_equal(f->vm.vcpus, 1);
}

static void the_machine_follows_its_containers(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct err err;

    /* The fixture's container has a megabyte, the pod says nothing. */
    assert_int_equal(podsize_apply(f->pod, &f->vm, clock_deadline(DEADLINE_MS), &err), 0);
    assert_int_equal(f->vm.mib, 65);
    /* A machine that cannot grow is no reason not to create a container; one that is gone is. */
    f->pod->told_mib = 0;
    f->vm.most_mib = 60;
    assert_int_equal(podsize_make_room(f->pod, &f->vm, clock_deadline(DEADLINE_MS), &err), 0);
    f->vm.gone = true;
    assert_int_equal(podsize_make_room(f->pod, &f->vm, clock_deadline(DEADLINE_MS), &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    f->vm.gone = false;
    f->vm.most_mib = 1024;
    resources.memory_limit_in_bytes = 300 << 20;
    resources.cpu_quota = 150000;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_int_equal(f->vm.mib, 364);
    assert_int_equal(f->vm.vcpus, cpus < 2 ? 1 : 2);
    /* The pod's own say is less: the sum counts. */
    resources.memory_limit_in_bytes = 100 << 20;
    assert_int_equal(update_pod(f, &resources, &err), 0);
    assert_int_equal(f->vm.mib, 364);
}

static void the_machine_follows_unified(void **state)
{
    static const struct {
        const char *file, *value;
        uint32_t mib, vcpus; /* with CPUs enough */
    } rows[] = {{"memory.max", "314572800", 364, 1}, {"memory.max", "max", 64, 1},
                {"memory.max", "1", 65, 1},          {"cpu.max", "150000 100000", 65, 2},
                {"cpu.max", "150000", 65, 2},        {"cpu.max", "max", 65, 2}};
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Runtime__V1__LinuxContainerResources__UnifiedEntry
        entry = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__UNIFIED_ENTRY__INIT,
        *entries[] = {&entry};
    bool one = sysconf(_SC_NPROCESSORS_ONLN) < 2;
    struct err err;

    resources.unified = entries;
    resources.n_unified = 1;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        entry.key = (char *)(uintptr_t)rows[i].file;
        entry.value = (char *)(uintptr_t)rows[i].value;
        if (update(f, &resources, &err) != 0)
            fail_msg("%s", err.msg);
        assert_int_equal(f->vm.mib, rows[i].mib);
        assert_int_equal(f->vm.vcpus, one ? 1 : rows[i].vcpus);
    }
}

static int create(struct fixture *f, Runtime__V1__LinuxContainerResources *resources,
                  unsigned attempt, struct err *err)
{
    Runtime__V1__ContainerConfig config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__ContainerMetadata name = RUNTIME__V1__CONTAINER_METADATA__INIT;
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__LinuxContainerConfig linux_ = RUNTIME__V1__LINUX_CONTAINER_CONFIG__INIT;
    char text[] = "new", id[SANDBOX_ID_SIZE];

    name.name = spec.image = text;
    name.attempt = attempt;
    linux_.resources = resources;
    config.metadata = &name;
    config.image = &spec;
    config.linux = &linux_;
    return sandbox_container_create(f->mgr, POD_ID, &config, NULL, clock_deadline(DEADLINE_MS), id,
                                    err);
}

/* The whole way from CreateContainer: the machine grows first, and the agent is asked after it. */
static void a_new_container_makes_the_machine_grow(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct sandbox_container_list list;
    struct err err;

    /* A machine that is gone: nobody asks its agent, and no container is left. */
    f->vm.gone = true;
    resources.memory_limit_in_bytes = 300 << 20;
    assert_int_equal(create(f, &resources, 1, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_int_equal(fake_agent_created(f->agent), 0);
    assert_int_equal(sandbox_container_list(f->mgr, NULL, &list, &err), 0);
    assert_int_equal(list.n, 1); /* the fixture's */
    sandbox_container_list_fini(&list);

    /* 64 for the guest, one megabyte of the fixture's container, 300 of the new one. */
    f->vm.gone = false;
    resources.cpu_quota = 150000;
    if (create(f, &resources, 1, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(f->vm.mib, 365);
    assert_int_equal(f->vm.vcpus, cpus < 2 ? 1 : 2);
    assert_int_equal(f->vm.resized, 1);
    assert_int_equal(fake_agent_created(f->agent), 1);
    assert_string_equal(fake_agent_settings(f->agent),
                        "cpu.max=150000 100000 memory.max=314572800");

    /* One without limits asks for nothing; one that is too large is made all the same. */
    if (create(f, NULL, 2, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(f->vm.resized, 1);
    resources.memory_limit_in_bytes = 2000ll << 20;
    log_set_level(LOG_ERROR);
    if (create(f, &resources, 3, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(f->vm.mib, 365);
    assert_int_equal(fake_agent_created(f->agent), 3);

    /* What the agent refuses leaves nothing, and the next one's machine is not larger for it. */
    set(f, &(struct fake_agent_options){.refusals = 1});
    assert_int_equal(create(f, NULL, 4, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_int_equal(fake_agent_created(f->agent), 4);
    if (create(f, NULL, 4, &err) != 0)
        fail_msg("%s", err.msg);
}

/* Sets name the guest's CPUs: the machine has them first, and the guest a moment later. */
static void cpus_by_number(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    char two[] = "0-1", many[] = "0-1,900";
    struct sandbox_container_info info;
    struct err err;

    if (cpus < 2)
        skip();
    resources.cpuset_cpus = two;
    set(f, &(struct fake_agent_options){.refusals = 2});
    if (create(f, &resources, 1, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(fake_agent_created(f->agent), 3);
    assert_string_equal(fake_agent_settings(f->agent), "cpuset.cpus=0-1");
    assert_int_equal(f->vm.vcpus, 2);

    /* Of a container that runs: the machine grows before the guest is told. */
    f->vm.vcpus = f->pod->told_vcpus = 1;
    set(f, &(struct fake_agent_options){.refusals = 1});
    if (update(f, &resources, &err) != 0)
        fail_msg("%s", err.msg);
    assert_int_equal(f->vm.vcpus, 2);
    assert_int_equal(sandbox_container_status(f->mgr, CTR_ID, &info, &err), 0);
    assert_string_equal(info.resources->cpuset_cpus, two);
    sandbox_container_info_fini(&info);

    /* More than the host has: as many as there may be, and what the guest says, at once. */
    resources.cpuset_cpus = many;
    set(f, &(struct fake_agent_options){.refusals = 1000000});
    assert_int_equal(update(f, &resources, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_string_equal(err.msg, "cpuset.cpus 0-1: the guest has 0");
    assert_int_equal(f->vm.vcpus, cpus);
    assert_int_equal(sandbox_container_status(f->mgr, CTR_ID, &info, &err), 0);
    assert_string_equal(info.resources->cpuset_cpus, two);
    sandbox_container_info_fini(&info);
}

static void limits_of_huge_pages_by_size(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    Runtime__V1__HugepageLimit limit = RUNTIME__V1__HUGEPAGE_LIMIT__INIT, *limits[] = {&limit};
    char two[] = "2MB", one[] = "1GB";
    struct sandbox_container_info info;
    struct err err;

    resources.hugepage_limits = limits;
    resources.n_hugepage_limits = 1;
    limit.page_size = two;
    limit.limit = 4 << 20;
    assert_int_equal(update(f, &resources, &err), 0);
    limit.page_size = one;
    limit.limit = 0;
    assert_int_equal(update(f, &resources, &err), 0);
    assert_string_equal(fake_agent_settings(f->agent), "hugetlb.1GB.max=0");
    assert_int_equal(sandbox_container_status(f->mgr, CTR_ID, &info, &err), 0);
    assert_int_equal(info.resources->n_hugepage_limits, 2);
    assert_string_equal(info.resources->hugepage_limits[1]->page_size, two);
    assert_int_equal(info.resources->hugepage_limits[1]->limit, 4 << 20);
    sandbox_container_info_fini(&info);
}

static void a_pods_update_outlives_the_daemon(void **state)
{
    struct fixture *f = *state;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;
    struct sandbox_manager *mgr = f->mgr;
    struct sandbox_info info;
    struct err err;

    resources.memory_limit_in_bytes = 200 << 20;
    assert_int_equal(update_pod(f, &resources, &err), 0);
    store_close(f->store);
    make_manager(f);
    mgr->deps.store = f->store;
    assert_int_equal(records_load(f->mgr, &err), 0);
    assert_int_equal(sandbox_status(f->mgr, POD_ID, &info, &err), 0);
    assert_int_equal(info.resources->memory_limit_in_bytes, 200 << 20);
    sandbox_info_fini(&info);
    sandbox_manager_free(f->mgr);
    f->mgr = mgr;
}

/* ---- statistics ---- */

static void statistics_are_of_known_containers(void **state)
{
    struct fixture *f = *state;
    struct sandbox_pod_stats pod;
    struct sandbox_stats_list list;
    struct sandbox_container_stats one;
    struct err err;

    set(f, &(struct fake_agent_options){.foreign = POD_ID, .pressure = 1234});
    if (sandbox_stats_pod(f->mgr, POD_ID, clock_deadline(DEADLINE_MS), &pod, &err) != 0)
        fail_msg("%s", err.msg);
    assert_true(pod.known);
    assert_int_equal(pod.n_containers, 1);
    assert_string_equal(pod.containers[0].info.id, CTR_ID);
    assert_int_equal(pod.containers[0].layer_bytes, 77);
    assert_int_equal(pod.guest.pod.memory.some.avg10, 1234);
    assert_false(pod.rate.known);
    sandbox_pod_stats_fini(&pod);
    assert_int_equal(
        sandbox_stats_list(f->mgr, NULL, NULL, clock_deadline(DEADLINE_MS), &list, &err), 0);
    assert_int_equal(list.n, 1);
    sandbox_stats_list_fini(&list);
    assert_int_equal(
        sandbox_stats_container(f->mgr, CTR_ID, clock_deadline(DEADLINE_MS), &one, &err), 0);
    assert_true(one.known);
    assert_int_equal(one.usage.cpu_ns, 1000);
    sandbox_container_stats_fini(&one);
}

static void statistics_of_a_liar_are_none(void **state)
{
    static const struct fake_agent_options lies[] = {
        {.pressure = 10001}, {.no_pod = true}, {.foreign = "../../etc"}};
    struct fixture *f = *state;
    struct sandbox_stats_list list;
    struct sandbox_pod_stats pod;
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        set(f, &lies[i]);
        assert_int_equal(sandbox_stats_pod(f->mgr, POD_ID, clock_deadline(DEADLINE_MS), &pod, &err),
                         -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
        /* A list goes without it. */
        assert_int_equal(
            sandbox_stats_list(f->mgr, NULL, NULL, clock_deadline(DEADLINE_MS), &list, &err), 0);
        assert_int_equal(list.n, 0);
        sandbox_stats_list_fini(&list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(output_is_logged_before_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(reasons_are_true, setup, teardown),
        cmocka_unit_test_setup_teardown(a_survivor_was_not_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_start_is_told_in_words, setup, teardown),
        cmocka_unit_test_setup_teardown(a_container_that_cannot_run, setup, teardown),
        cmocka_unit_test_setup_teardown(a_container_without_its_log, setup, teardown),
        cmocka_unit_test_setup_teardown(a_life_in_events, setup, teardown),
        cmocka_unit_test_setup_teardown(events_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(grace_comes_before_the_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(no_grace_is_a_kill_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_command_gives_output_and_code, setup, teardown),
        cmocka_unit_test_setup_teardown(a_command_out_of_time_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_command_has_one_exit, setup, teardown),
        cmocka_unit_test_setup_teardown(an_update_changes_what_it_names, setup, teardown),
        cmocka_unit_test_setup_teardown(swap_does_not_overflow, setup, teardown),
        cmocka_unit_test_setup_teardown(unified_goes_over_the_other_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_update_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(an_update_is_stored, setup, teardown),
        cmocka_unit_test_setup_teardown(an_update_that_the_machine_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_waits_for_the_one_before, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_forgotten_is_not_stored_again, setup, teardown),
        cmocka_unit_test_setup_teardown(the_machine_follows_the_pod, setup, teardown),
        cmocka_unit_test_setup_teardown(the_configuration_bounds_the_machine, setup, teardown),
        cmocka_unit_test_setup_teardown(the_machine_follows_its_containers, setup, teardown),
        cmocka_unit_test_setup_teardown(the_machine_follows_unified, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_container_makes_the_machine_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(cpus_by_number, setup, teardown),
        cmocka_unit_test_setup_teardown(limits_of_huge_pages_by_size, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pods_update_outlives_the_daemon, setup, teardown),
        cmocka_unit_test_setup_teardown(statistics_are_of_known_containers, setup, teardown),
        cmocka_unit_test_setup_teardown(statistics_of_a_liar_are_none, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
