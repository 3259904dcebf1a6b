/* SPDX-License-Identifier: Apache-2.0 */
/* Reaching the agent: attempts are repeated while it may still come, and end with the machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "host/vmm/link.h"
#include "host/vmm/transport.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/test-transport-XXXXXX");
    return mkdtemp(dir) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    return fd_remove_tree(AT_FDCWD, dir, NULL);
}

/* An agent that drops `drops` connections before it answers one; then says "hello". */
struct agent {
    int listen_fd;
    int drops;
    int n;
};

static void answer(int fd)
{
    char line[LINK_PREAMBLE_SIZE], echo[128];
    struct err err;
    size_t got;

    if (fd_read_full(fd, line, sizeof(line), &got, &err) < 0 || got < sizeof(line))
        return;
    int n = snprintf(echo, sizeof(echo), LINK_ECHO "%.*s\nhello", LINK_NONCE_DIGITS,
                     line + strlen(LINK_PREAMBLE));
    (void)fd_write_all(fd, echo, (size_t)n, &err);
}

static void *run_agent(void *arg)
{
    struct agent *a = arg;

    for (;;) {
        int fd = accept4(a->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return NULL;
        bool last = a->n++ == a->drops;
        if (last)
            answer(fd);
        close(fd);
        if (last)
            return NULL;
    }
}

static void expect_hello(int fd)
{
    char text[16] = "";

    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    assert_int_not_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    assert_int_equal(read(fd, text, sizeof(text) - 1), 5);
    assert_string_equal(text, "hello");
    close(fd);
}

static void serial_is_tried_again_after_a_hang_up(void **state)
{
    const struct transport_target target = {.kind = VMM_TRANSPORT_SERIAL, .dir = dir};
    struct agent a = {.drops = 3};
    pthread_t thread;
    struct err err;
    char path[128];
    int fd = -1;

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/" TRANSPORT_AGENT_SOCKET, dir);
    assert_int_equal(fd_listen_unix(path, 0600, &a.listen_fd, &err), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_agent, &a), 0);
    if (transport_connect(&target, -1, clock_deadline(20000), &fd, &err) < 0)
        fail_msg("%s", err.msg);
    pthread_join(thread, NULL);
    assert_int_equal(a.n, 4);
    expect_hello(fd);
    close(a.listen_fd);
}

static void serial_without_a_machine_fails_at_once(void **state)
{
    const struct transport_target target = {.kind = VMM_TRANSPORT_SERIAL, .dir = dir};
    struct err err;
    int fd = -1;

    (void)state;
    int64_t before = clock_monotonic_ms();
    assert_int_equal(transport_connect(&target, -1, clock_deadline(20000), &fd, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_true(clock_monotonic_ms() - before < 5000);
    assert_int_equal(fd, -1);
}

static void a_silent_agent_ends_at_the_deadline_or_with_the_machine(void **state)
{
    const struct transport_target target = {.kind = VMM_TRANSPORT_SERIAL, .dir = dir};
    struct err err;
    char path[128];
    int fd = -1, listen_fd, end[2];

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/" TRANSPORT_AGENT_SOCKET, dir);
    assert_int_equal(fd_listen_unix(path, 0600, &listen_fd, &err), 0);
    assert_int_equal(transport_connect(&target, -1, clock_deadline(200), &fd, &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(pipe2(end, O_CLOEXEC), 0);
    close(end[1]);
    int64_t before = clock_monotonic_ms();
    assert_int_equal(transport_connect(&target, end[0], clock_deadline(20000), &fd, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_true(clock_monotonic_ms() - before < 5000);
    close(end[0]);
    close(listen_fd);
}

static void context_ids_are_for_machines(void **state)
{
    (void)state;
    uint32_t first = transport_random_cid();
    bool differs = false;
    for (int i = 0; i < 1000; i++) {
        uint32_t cid = transport_random_cid();
        assert_true(cid >= 1024 && cid < 0x80000000U);
        differs = differs || cid != first;
    }
    assert_true(differs);
}

/* The same over vsock, with this host itself as the machine (VMADDR_CID_LOCAL), where that exists.
 */
static void vsock_is_tried_again_until_somebody_listens(void **state)
{
    const struct transport_target target = {.kind = VMM_TRANSPORT_VSOCK, .cid = VMADDR_CID_LOCAL};
    const struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = TRANSPORT_VSOCK_PORT};
    int listen_fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct agent a = {.listen_fd = listen_fd, .drops = 1};
    pthread_t thread;
    struct err err;
    int fd = -1;

    (void)state;
    if (listen_fd < 0 || bind(listen_fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
        print_message("SKIP: no vsock loopback on this host (module vsock_loopback)\n");
        if (listen_fd >= 0)
            close(listen_fd);
        skip();
    }
    /* Bound and not listening yet: refused, so the deadline decides. */
    assert_int_equal(transport_connect(&target, -1, clock_deadline(200), &fd, &err), -1);
    assert_true(err.code == ERR_UNAVAILABLE || err.code == ERR_DEADLINE);
    assert_int_equal(listen(listen_fd, 8), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_agent, &a), 0);
    if (transport_connect(&target, -1, clock_deadline(20000), &fd, &err) < 0)
        fail_msg("%s", err.msg);
    pthread_join(thread, NULL);
    expect_hello(fd);
    close(listen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(serial_is_tried_again_after_a_hang_up, setup, teardown),
        cmocka_unit_test_setup_teardown(serial_without_a_machine_fails_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_silent_agent_ends_at_the_deadline_or_with_the_machine,
                                        setup, teardown),
        cmocka_unit_test(context_ids_are_for_machines),
        cmocka_unit_test(vsock_is_tried_again_until_somebody_listens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
