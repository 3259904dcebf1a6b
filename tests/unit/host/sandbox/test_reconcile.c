/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon that comes back to pods whose guests do not help: agents are fakes or silent sockets,
 * and the VM is none; its functions that finding a pod again calls are here, and the linker takes
 * them first (Makefile, tests/unit/host/sandbox/test_reconcile).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/sandbox/model.h"
#include "tests/fakes/fake_agent.h"

#define FIRST_PID  1000 /* nobody looks for it */
#define TIMEOUT_MS 1000
#define PODS       100 /* several times as many as the manager has workers */

struct vm {
    int agent_fd;  /* handed out once */
    int silent_fd; /* the end of a guest that says nothing; -1: there is a fake */
    atomic_bool killed;
};

static struct {
    char dir[64];
    struct loop *loop;
    pthread_t thread;
    struct fake_agent *agent;
    struct store *store;
    struct sandbox_manager *mgr;
    struct vm vms[PODS];
    size_t n_vms;
} t;

/* ---- the VM: its record's pid says which ---- */

struct vm *vm_ref(struct vm *vm)
{
    return vm;
}
void vm_unref(struct vm *vm)
{
    (void)vm;
}
int vm_attach(struct vmm *vmm, const struct vm_record *record, int64_t deadline_ms,
              struct vm **ret_vm, struct err *err)
{
    (void)vmm;
    (void)deadline_ms;
    (void)err;
    *ret_vm = &t.vms[record->pid - FIRST_PID];
    return 0;
}
int vm_connect_agent(struct vm *vm, int64_t deadline_ms, int *ret_fd, struct err *err)
{
    (void)deadline_ms;
    (void)err;
    *ret_fd = vm->agent_fd;
    return 0;
}
int vm_list_disks(struct vm *vm, struct vm_disk_info **ret_disks, size_t *ret_n, struct err *err)
{
    (void)vm;
    (void)err;
    *ret_disks = NULL;
    *ret_n = 0;
    return 0;
}
int vm_set_exit_handler(struct vm *vm, vm_exit_fn fn, void *arg, struct err *err)
{
    (void)vm;
    (void)fn;
    (void)arg;
    (void)err;
    return 0;
}
void vm_kill_begin(struct vm *vm)
{
    atomic_store(&vm->killed, true);
}
int vm_kill(struct vm *vm, struct err *err)
{
    (void)err;
    atomic_store(&vm->killed, true);
    return 0;
}

/* ---- the daemon's life ---- */

static void *run_loop(void *arg)
{
    struct err err;

    (void)arg;
    (void)loop_run(t.loop, &err);
    return NULL;
}

static void make_manager(void)
{
    struct sandbox_handler handler = {.name = "",
                                      .kernel = "/k",
                                      .initrd = "/i",
                                      .machine = "q35",
                                      .memory_bytes = 64 << 20,
                                      .vcpus = 1};
    struct sandbox_config config = {.state_dir = t.dir,
                                    .run_dir = t.dir,
                                    .handlers = &handler,
                                    .n_handlers = 1,
                                    .reconnect_timeout_ms = TIMEOUT_MS};
    struct sandbox_deps deps = {.loop = t.loop, .store = t.store};
    struct err err;

    if (sandbox_manager_new(&config, &deps, &t.mgr, &err) != 0)
        fail_msg("%s", err.msg);
}

static int setup(void **state)
{
    static const struct fake_agent_options ordinary = {0};
    cleanup_free char *path = NULL;
    struct err err;

    (void)state;
    memset(&t, 0, sizeof(t));
    log_set_level(LOG_ERROR);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(t.dir, sizeof(t.dir), "/tmp/test-reconcile.XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    path = text_printf("%s/db", t.dir);
    assert_int_equal(loop_new(&t.loop, &err), 0);
    t.agent = fake_agent_new(t.loop, &ordinary);
    assert_int_equal(pthread_create(&t.thread, NULL, run_loop, NULL), 0);
    assert_int_equal(store_open(path, &t.store, &err), 0);
    make_manager();
    return 0;
}

static int teardown(void **state)
{
    struct err err;

    (void)state;
    sandbox_manager_free(t.mgr);
    loop_stop(t.loop);
    assert_int_equal(pthread_join(t.thread, NULL), 0);
    fake_agent_free(t.agent);
    loop_free(t.loop);
    store_close(t.store);
    for (size_t i = 0; i < t.n_vms; i++) {
        if (t.vms[i].silent_fd >= 0)
            close(t.vms[i].silent_fd);
    }
    assert_int_equal(fd_remove_tree(AT_FDCWD, t.dir, &err), 0);
    return 0;
}

static void pod_id(size_t i, char ret_id[SANDBOX_ID_SIZE])
{
    (void)snprintf(ret_id, SANDBOX_ID_SIZE, "%064zx", i + 1);
}

/* The record of a READY pod, whose agent is at this socket. */
static void record_pod(int agent_fd, int silent_fd)
{
    Runtime__V1__PodSandboxConfig config = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__PodSandboxMetadata name = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;
    struct vm_record record = {.id = "x",
                               .pid = FIRST_PID + (pid_t)t.n_vms,
                               .start_ticks = 1,
                               .accel = VMM_ACCEL_TCG,
                               .transport = VMM_TRANSPORT_SERIAL,
                               .qemu_version = "8.2.0",
                               .dir = "/x",
                               .boot_id = "00000000-0000-0000-0000-000000000000"};
    char id[SANDBOX_ID_SIZE];
    struct pod_facts *facts;
    struct pod *pod;
    struct err err;

    pod_id(t.n_vms, id);
    t.vms[t.n_vms].agent_fd = agent_fd;
    t.vms[t.n_vms++].silent_fd = silent_fd;
    name.name = id;
    config.metadata = &name;
    config.log_directory = t.dir;
    facts = pod_facts_new(id, clock_realtime_ns(), "", &config, &err);
    assert_non_null(facts);
    assert_int_equal(pod_new(t.mgr, facts, &pod, &err), 0);
    pod_facts_unref(facts);
    if (vm_record_encode(&record, &pod->vm_record, &err) != 0)
        fail_msg("%s", err.msg);
    pod_set_state(pod, POD_READY);
    if (pod_save(pod, &err) != 0)
        fail_msg("%s", err.msg);
    pod_unref(pod);
}

static int64_t reconcile(void)
{
    int64_t began_ms = clock_monotonic_ms();
    struct err err;

    if (sandbox_manager_reconcile(t.mgr, &err) != 0)
        fail_msg("%s", err.msg);
    return clock_monotonic_ms() - began_ms;
}

static bool is_ready(size_t i)
{
    struct sandbox_info info;
    char id[SANDBOX_ID_SIZE];
    struct err err;
    bool ready;

    pod_id(i, id);
    if (sandbox_status(t.mgr, id, &info, &err) != 0)
        fail_msg("%s", err.msg);
    ready = info.ready;
    sandbox_info_fini(&info);
    return ready;
}

/* ---- what guests do ---- */

static void a_guest_that_never_removes_is_lost(void **state)
{
    (void)state;
    fake_agent_set(t.agent, &(struct fake_agent_options){.made_up = 1000, .never_removes = true});
    record_pod(fake_agent_fd(t.agent), -1);
    assert_true(reconcile() < 5 * TIMEOUT_MS);
    assert_int_equal(fake_agent_removed(t.agent), 1);
    assert_false(is_ready(0));
    assert_true(atomic_load(&t.vms[0].killed));
}

static void only_so_many_unknown_are_removed(void **state)
{
    (void)state;
    fake_agent_set(t.agent, &(struct fake_agent_options){.made_up = 1000});
    record_pod(fake_agent_fd(t.agent), -1);
    (void)reconcile();
    assert_int_equal(fake_agent_removed(t.agent), 256);
    assert_true(is_ready(0));
    assert_false(atomic_load(&t.vms[0].killed));
}

/* All wait at the same time, and the one that answers is not lost for their sake. */
static void silent_guests_do_not_add_up(void **state)
{
    int pair[2];

    (void)state;
    for (size_t i = 0; i < PODS - 1; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        record_pod(pair[0], pair[1]);
    }
    record_pod(fake_agent_fd(t.agent), -1);
    assert_true(reconcile() < 4 * TIMEOUT_MS);
    for (size_t i = 0; i < PODS - 1; i++)
        assert_false(is_ready(i));
    assert_true(is_ready(PODS - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_guest_that_never_removes_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(only_so_many_unknown_are_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(silent_guests_do_not_add_up, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
