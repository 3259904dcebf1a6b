/* SPDX-License-Identifier: Apache-2.0 */
/* The record's text: there and back, and everything that is not one is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/base/cleanup.h"
#include "host/vmm/json.h"
#include "host/vmm/record.h"

static const struct vm_record sample = {
    .id = "0123abc",
    .dir = "/run/casemate/vm/0123abc",
    .pid = 4711,
    .start_ticks = 123456789012345,
    .boot_id = "11111111-2222-3333-4444-555555555555",
    .uid = 3200000001U,
    .accel = VMM_ACCEL_TCG,
    .transport = VMM_TRANSPORT_SERIAL,
    .qemu_version = "7.2.22",
};

static void there_and_back(void **state)
{
    struct vm_record r = sample, back;
    struct err err;

    (void)state;
    for (int vsock = 0; vsock < 2; vsock++) {
        char *text = NULL;
        if (vsock) {
            r.transport = VMM_TRANSPORT_VSOCK;
            r.cid = 4000000000U;
            r.accel = VMM_ACCEL_KVM;
        }
        memset(&back, 0x5a, sizeof(back));
        assert_int_equal(vm_record_encode(&r, &text, &err), 0);
        assert_int_equal(vm_record_decode(text, &back, &err), 0);
        assert_memory_equal(&back, &r, sizeof(r));
        free(text);
    }
}

static json_t *as_json(void)
{
    char *text = NULL;
    struct err err;

    assert_int_equal(vm_record_encode(&sample, &text, &err), 0);
    json_t *root = json_loads(text, 0, NULL);
    free(text);
    return root;
}

static void expect(json_t *root, int result)
{
    struct vm_record r;
    struct err err = {0};
    char *text = json_dumps(root, 0);

    if (vm_record_decode(text, &r, &err) != result)
        fail_msg("%s: %s", text, err.msg);
    if (result < 0)
        assert_int_equal(err.code, ERR_PROTOCOL);
    free(text);
    json_decref(root);
}

static void every_member_is_checked(void **state)
{
    static const char *const members[] = {"version",     "id",      "dir",         "pid",
                                          "start_ticks", "boot_id", "uid",         "cid",
                                          "transport",   "accel",   "qemu_version"};
    const struct {
        const char *name;
        json_t *bad;
    } bad[] = {
        {"version", json_integer(2)},
        {"version", json_string("1")},
        {"pid", json_integer(1)},
        {"pid", json_integer(0)},
        {"pid", json_integer(-5)},
        {"pid", json_integer(INT64_MAX)},
        {"pid", json_real(5.5)},
        {"start_ticks", json_integer(0)},
        {"uid", json_integer(-1)},
        {"uid", json_integer(UINT32_MAX)},
        {"cid", json_integer(3)},            /* with virtio-serial */
        {"transport", json_string("vsock")}, /* without a cid */
        {"transport", json_string("auto")},
        {"accel", json_string("auto")},
        {"accel", json_string("hvf")},
        {"accel", json_null()},
        {"id", json_string("")},
        {"id", json_string("../x")},
        {"id", json_string("a/b")},
        {"id", json_string("a,b")},
        {"id", json_string("-a")},
        {"dir", json_string("relative")},
        {"dir", json_string("")},
        {"boot_id", json_string("11111111-2222-3333-4444-5555555555556")},
    };

    (void)state;
    expect(as_json(), 0);
    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        json_t *root = as_json();
        assert_int_equal(json_object_del(root, members[i]), 0);
        expect(root, -1);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        json_t *root = as_json();
        assert_int_equal(json_object_set_new(root, bad[i].name, bad[i].bad), 0);
        expect(root, -1);
    }
    json_t *root = as_json();
    assert_int_equal(json_object_set_new(root, "from_the_future", json_true()), 0);
    expect(root, 0);
}

static void nonsense_is_refused(void **state)
{
    static const char *const texts[] = {"",  "{}",  "null", "[]", "{\"version\":1,\"version\":1}",
                                        "{", "\xff"};
    struct vm_record r;
    struct err err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_int_equal(vm_record_decode(texts[i], &r, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
    }
    char *big = malloc(VM_RECORD_MAX + 2);
    assert_non_null(big);
    memset(big, ' ', VM_RECORD_MAX + 1);
    big[VM_RECORD_MAX + 1] = '\0';
    assert_int_equal(vm_record_decode(big, &r, &err), -1);
    free(big);
}

static void names_go_both_ways(void **state)
{
    enum vmm_accel accel;
    enum vmm_transport transport;

    (void)state;
    for (int i = VMM_ACCEL_AUTO; i <= VMM_ACCEL_TCG; i++) {
        assert_int_equal(vmm_accel_parse(vmm_accel_name((enum vmm_accel)i), &accel), 0);
        assert_int_equal(accel, i);
    }
    for (int i = VMM_TRANSPORT_AUTO; i <= VMM_TRANSPORT_SERIAL; i++) {
        assert_int_equal(vmm_transport_parse(vmm_transport_name((enum vmm_transport)i), &transport),
                         0);
        assert_int_equal(transport, i);
    }
    assert_int_equal(vmm_accel_parse("KVM", &accel), -1);
    assert_int_equal(vmm_transport_parse("", &transport), -1);
    assert_string_equal(vmm_accel_name((enum vmm_accel)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(every_member_is_checked),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(names_go_both_ways),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
