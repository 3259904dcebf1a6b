/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-net: what counts as the device, and that nothing is left open of a failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "host/vmm/vhostnet.h"
#include "host/vmm/vmm.h"

static unsigned open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void is_asked_what_it_can_do(void **state)
{
    struct err err;

    (void)state;
    assert_false(vhostnet_usable("/nonexistent/vhost-net", &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    /* A node that opens and is something else. */
    assert_false(vhostnet_usable("/dev/null", &err));
    assert_non_null(strstr(err.msg, "/dev/null does not speak vhost"));
    if (access(VHOSTNET_DEVICE, R_OK | W_OK) == 0)
        assert_true(vhostnet_usable(VHOSTNET_DEVICE, &err));
}

static void is_opened_for_each_queue(void **state)
{
    int fds[3] = {-1, -1, -1};
    struct err err;
    unsigned before = open_files();

    (void)state;
    assert_int_equal(vhostnet_open("/dev/null", 3, fds, &err), 0);
    assert_int_equal(open_files(), before + 3);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
        close_fd(&fds[i]);
    }
    assert_int_equal(vhostnet_open("/nonexistent/vhost-net", 3, fds, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(open_files(), before);
}

static void queues_are_as_many_as_vcpus(void **state)
{
    (void)state;
    assert_int_equal(vm_nic_queues(0), 1);
    assert_int_equal(vm_nic_queues(1), 1);
    assert_int_equal(vm_nic_queues(2), 2);
    assert_int_equal(vm_nic_queues(VM_NIC_QUEUES), VM_NIC_QUEUES);
    assert_int_equal(vm_nic_queues(240), VM_NIC_QUEUES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_asked_what_it_can_do),
        cmocka_unit_test(is_opened_for_each_queue),
        cmocka_unit_test(queues_are_as_many_as_vcpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
