/* SPDX-License-Identifier: Apache-2.0 */
/* A card out of sight and back again, in a network namespace of the test's own; a veth stands for
 * it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/net/ifind.h"
#include "agent/net/parking.h"
#include "common/base/cleanup.h"
#include "common/base/netlink.h"

static bool able;

static int setup(void **state)
{
    (void)state;
    able = system("command -v ip >/dev/null 2>&1") == 0 && unshare(CLONE_NEWNET) == 0;
    if (!able) {
        print_message("SKIP: needs ip(8) and the right to make a network namespace\n");
        return 0;
    }
    return system("ip link add eth0 address 02:00:00:00:00:0a type veth peer name far && "
                  "ip link set far up && ip link set eth0 up && "
                  "ip addr add 10.1.2.3/24 dev eth0");
}

static ino_t own_namespace(void)
{
    struct stat st;

    assert_int_equal(stat("/proc/self/ns/net", &st), 0);
    return st.st_ino;
}

static void find_card(struct ifind *card)
{
    cleanup_fd int fd = -1;
    struct err err;

    assert_int_equal(netlink_open(&fd, &err), 0);
    assert_int_equal(ifind_by_name(fd, "eth0", card, &err), 0);
}

static void a_card_goes_and_comes_back(void **state)
{
    struct parking parking;
    ino_t own = own_namespace();
    struct ifind card;
    struct err err;

    (void)state;
    if (!able)
        skip();
    parking_init(&parking);
    for (int i = 0; i < 2; i++) {
        find_card(&card);
        assert_int_equal(parking_put(&parking, &card, &err), 0);
        assert_int_equal(if_nametoindex("eth0"), 0);
        assert_int_not_equal(if_nametoindex("far"), 0);
        assert_int_equal(own_namespace(), own);
        /* Two of them would lose the first. */
        assert_int_equal(parking_put(&parking, &card, &err), -1);
        assert_int_equal(err.code, ERR_BAD_STATE);
        assert_int_equal(parking_take(&parking, &err), 0);
        assert_int_equal(own_namespace(), own);
        find_card(&card);
        assert_int_equal(card.mac[5], 0x0a);
        assert_int_equal(card.flags & IFF_UP, 0);
    }
    assert_int_equal(parking_take(&parking, &err), 0);
    parking_fini(&parking);
}

static void what_is_not_there_stays_so(void **state)
{
    struct parking parking;
    struct ifind nobody = {.ifindex = 12345, .name = "nobody"};
    ino_t own = own_namespace();
    struct err err;

    (void)state;
    if (!able)
        skip();
    parking_init(&parking);
    assert_int_equal(parking_put(&parking, &nobody, &err), -1);
    assert_non_null(strstr(err.msg, "put 'nobody' out of sight"));
    assert_int_equal(own_namespace(), own);
    assert_int_equal(parking_take(&parking, &err), 0);
    parking_fini(&parking);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_card_goes_and_comes_back, setup),
        cmocka_unit_test_setup(what_is_not_there_stays_so, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
