/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's command line: what must be there, what must not, and what cannot be expressed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "host/vmm/cmdline.h"
#include "host/vmm/vmm.h"

static struct cmdline_spec sample(void)
{
    return (struct cmdline_spec){
        .qemu = "/usr/bin/qemu-system-x86_64",
        .qemu_major = 7,
        .qemu_minor = 2,
        .name = "pod-1",
        .machine = "q35",
        .accel = VMM_ACCEL_TCG,
        .transport = VMM_TRANSPORT_SERIAL,
        .memory_mib = 256,
        .vcpus = 2,
        .console = true,
        .cmdline_extra = "casemate.x=1",
        .fds = {.qmp = 3,
                .agent = 4,
                .vhost = -1,
                .kernel = 6,
                .initrd = 7,
                .memory = -1,
                .tap = 8,
                .vhost_net = -1},
        .mac = {2, 0, 0, 0xab, 0, 1},
    };
}

/* The argument behind option, the n-th time it comes; NULL when there is none. */
static const char *value_of(const struct cmdline *c, const char *option, int n)
{
    for (size_t i = 0; i + 1 < c->n; i++)
        if (strcmp(c->argv[i], option) == 0 && n-- == 0)
            return c->argv[i + 1];
    return NULL;
}

static bool has_value(const struct cmdline *c, const char *option, const char *part)
{
    const char *value;

    for (int n = 0; (value = value_of(c, option, n)) != NULL; n++)
        if (strstr(value, part) != NULL)
            return true;
    return false;
}

static void build(const struct cmdline_spec *spec, struct cmdline *c)
{
    struct err err;

    if (cmdline_build(spec, c, &err) < 0)
        fail_msg("%s", err.msg);
    assert_null(c->argv[c->n]);
}

static void is_confined_and_complete(void **state)
{
    struct cmdline_spec spec = sample();
    cleanup_cmdline struct cmdline c = {0};

    (void)state;
    build(&spec, &c);
    assert_string_equal(c.argv[0], spec.qemu);
    assert_string_equal(value_of(&c, "-name", 0), "guest=pod-1,debug-threads=on");
    assert_string_equal(value_of(&c, "-sandbox", 0),
                        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    assert_string_equal(value_of(&c, "-display", 0), "none");
    assert_true(has_value(&c, "-chardev", "socket,id=qmp,fd=3,server=on,wait=off"));
    assert_true(has_value(&c, "-chardev", "socket,id=agent,fd=4,server=on,wait=off"));
    assert_true(has_value(&c, "-device", "name=org.casemate.agent.0"));
    assert_true(has_value(&c, "-device", "virtio-scsi-pci,id=scsi0"));
    assert_true(has_value(&c, "-device", "free-page-reporting=on"));
    assert_true(has_value(&c, "-device", "vmgenid"));
    assert_true(has_value(&c, "-device", "virtio-rng-pci"));
    for (uint32_t bay = 0; bay < VM_DISK_BAYS; bay++) {
        char device[64], node[64];
        (void)snprintf(device, sizeof(device), "lun=%u,drive=bay%u,", VM_DISK_LUNS + bay, bay);
        (void)snprintf(node, sizeof(node), "raw,node-name=bay%u,file=bay%u-empty", bay, bay);
        assert_true(has_value(&c, "-device", device));
        assert_true(has_value(&c, "-blockdev", node));
    }
    assert_string_equal(value_of(&c, "-kernel", 0), "/proc/self/fd/6");
    assert_string_equal(value_of(&c, "-initrd", 0), "/proc/self/fd/7");
    assert_true(has_value(&c, "-append", "panic=-1"));
    assert_true(has_value(&c, "-append", " casemate.x=1"));
    assert_false(has_value(&c, "-append", "nokaslr"));
    assert_string_equal(value_of(&c, "-m", 0), "256M");
    assert_string_equal(value_of(&c, "-smp", 0), "2,maxcpus=2");
    assert_true(has_value(&c, "-accel", "tcg,tb-size="));
    assert_string_equal(value_of(&c, "-cpu", 0), "max,-erms,-fsrm,-la57,-pku,-smap");
    bool nodefaults = false, no_user_config = false;
    for (size_t i = 0; i < c.n; i++) {
        nodefaults = nodefaults || strcmp(c.argv[i], "-nodefaults") == 0;
        no_user_config = no_user_config || strcmp(c.argv[i], "-no-user-config") == 0;
        /* No file of the host is named: everything comes as a descriptor. */
        if (i > 0 && c.argv[i][0] == '/')
            assert_non_null(strstr(c.argv[i], "/proc/self/fd/"));
        assert_null(strstr(c.argv[i], "logfile"));
    }
    assert_true(nodefaults && no_user_config);
}

/* Or QEMU 7.2 leaves the guest's memory barriers out. */
static void an_emulated_machine_has_room_for_a_second_vcpu(void **state)
{
    struct cmdline_spec spec = sample();
    cleanup_cmdline struct cmdline tcg = {0}, kvm = {0}, large = {0};

    (void)state;
    spec.vcpus = 1;
    spec.vcpus_max = 0;
    spec.accel = VMM_ACCEL_TCG;
    build(&spec, &tcg);
    assert_string_equal(value_of(&tcg, "-smp", 0), "1,maxcpus=2");
    spec.accel = VMM_ACCEL_KVM;
    build(&spec, &kvm);
    assert_string_equal(value_of(&kvm, "-smp", 0), "1,maxcpus=1");
    spec.vcpus_max = 4;
    build(&spec, &large);
    assert_string_equal(value_of(&large, "-smp", 0), "1,maxcpus=4");
}

static void hardens_the_guest_unless_it_is_emulated(void **state)
{
    struct cmdline_spec spec = sample();
    cleanup_cmdline struct cmdline soft = {0}, hard = {0}, kvm = {0};

    (void)state;
    spec.accel = VMM_ACCEL_TCG;
    build(&spec, &soft);
    assert_true(has_value(&soft, "-append", " mitigations=off norandmaps"));
    spec.tcg_hardening = true;
    build(&spec, &hard);
    assert_false(has_value(&hard, "-append", "mitigations"));
    assert_false(has_value(&hard, "-append", "norandmaps"));
    assert_false(has_value(&hard, "-append", "init_on_alloc"));
    assert_string_equal(value_of(&hard, "-cpu", 0), "max,-erms,-fsrm,-la57,-pku");
    spec.tcg_hardening = false;
    spec.accel = VMM_ACCEL_KVM;
    build(&spec, &kvm);
    assert_false(has_value(&kvm, "-append", "mitigations"));
    assert_false(has_value(&kvm, "-append", "norandmaps"));
    assert_false(has_value(&kvm, "-append", "init_on_alloc"));
    assert_string_equal(value_of(&kvm, "-cpu", 0), "host");
}

/* Templates and clones only fit when what is plugged where does not depend on the peer. */
static void has_one_interface_at_its_place(void **state)
{
    static const char device[] =
        "mac=02:00:00:ab:00:01,bus=pcie.0,addr=0x10,disable-legacy=on,queue_reset=off,romfile=";
    struct cmdline_spec spec = sample();
    cleanup_cmdline struct cmdline tap = {0}, vhost = {0}, alone = {0};

    (void)state;
    build(&spec, &tap);
    assert_true(has_value(&tap, "-device", device));
    assert_true(has_value(&tap, "-device", "virtio-net-pci,id=nic0,netdev=net0,"));
    assert_string_equal(value_of(&tap, "-netdev", 0), "tap,id=net0,fd=8");
    assert_true(has_value(&tap, "-device", "pcie-root-port,id=nicport3,chassis=3"));
    spec.fds.vhost_net = 9;
    build(&spec, &vhost);
    assert_true(has_value(&vhost, "-device", device));
    assert_string_equal(value_of(&vhost, "-netdev", 0), "tap,id=net0,fd=8,vhost=on,vhostfd=9");
    spec.fds.tap = -1;
    build(&spec, &alone);
    assert_true(has_value(&alone, "-device", device));
    assert_null(value_of(&alone, "-netdev", 0));
}

/* With one vCPU nothing is different; templates and clones have the same queues (same spec). */
static void has_a_queue_for_each_vcpu(void **state)
{
    struct cmdline_spec spec = sample();
    cleanup_cmdline struct cmdline one = {0}, several = {0}, vhost = {0}, alone = {0}, none = {0};
    struct err err;

    (void)state;
    spec.queues = 1;
    build(&spec, &one);
    assert_string_equal(value_of(&one, "-netdev", 0), "tap,id=net0,fd=8");
    assert_false(has_value(&one, "-device", "mq=on"));
    spec.queues = 3;
    build(&spec, &several);
    assert_string_equal(value_of(&several, "-netdev", 0), "tap,id=net0,fds=8:9:10");
    assert_true(has_value(&several, "-device",
                          "virtio-net-pci,id=nic0,netdev=net0,mq=on,vectors=8,mac=02:00:00:ab"));
    spec.fds.vhost_net = 16;
    build(&spec, &vhost);
    assert_string_equal(value_of(&vhost, "-netdev", 0),
                        "tap,id=net0,fds=8:9:10,vhost=on,vhostfds=16:17:18");
    spec.fds.tap = -1;
    build(&spec, &alone);
    assert_null(value_of(&alone, "-netdev", 0));
    assert_false(has_value(&alone, "-device", "mq=on"));
    spec.fds.tap = 8;
    spec.queues = CMDLINE_QUEUES + 1;
    assert_int_equal(cmdline_build(&spec, &none, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static void varies_with_what_is_asked(void **state)
{
    struct cmdline_spec spec = sample();
    cleanup_cmdline struct cmdline kvm = {0}, quiet = {0};

    (void)state;
    spec.accel = VMM_ACCEL_KVM;
    spec.transport = VMM_TRANSPORT_VSOCK;
    spec.cid = 77777;
    spec.fds.vhost = 5;
    build(&spec, &kvm);
    assert_string_equal(value_of(&kvm, "-accel", 0), "kvm");
    assert_string_equal(value_of(&kvm, "-cpu", 0), "host");
    assert_true(has_value(&kvm, "-device", "vhost-vsock-pci,guest-cid=77777,vhostfd=5"));
    assert_false(has_value(&kvm, "-device", "virtserialport"));
    assert_false(has_value(&kvm, "-chardev", "id=agent"));

    spec = sample();
    spec.console = false;
    spec.cmdline_extra = NULL;
    spec.fds.initrd = -1;
    build(&spec, &quiet);
    assert_false(has_value(&quiet, "-chardev", "ringbuf"));
    assert_false(has_value(&quiet, "-append", "console="));
    assert_null(value_of(&quiet, "-initrd", 0));
    assert_int_not_equal(value_of(&quiet, "-append", 0)[0], ' ');
}

static void refuses_what_cannot_be(void **state)
{
    char longer[1100];
    struct cmdline c = {0};
    struct err err;

    (void)state;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    for (int i = 0; i < 9; i++) {
        struct cmdline_spec spec = sample();
        if (i == 0)
            spec.name = "a,process=b";
        else if (i == 1)
            spec.name = "";
        else if (i == 2)
            spec.machine = "microvm";
        else if (i == 3)
            spec.accel = VMM_ACCEL_AUTO;
        else if (i == 4)
            spec.transport = VMM_TRANSPORT_AUTO;
        else if (i == 5)
            spec.memory_mib = 1;
        else if (i == 6)
            spec.vcpus = 0;
        else if (i == 7)
            spec.vcpus = 10000;
        else
            spec.cmdline_extra = longer;
        assert_int_equal(cmdline_build(&spec, &c, &err), -1);
        assert_true(err.code == ERR_INVALID || err.code == ERR_UNSUPPORTED);
        assert_null(c.argv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_confined_and_complete),
        cmocka_unit_test(has_one_interface_at_its_place),
        cmocka_unit_test(has_a_queue_for_each_vcpu),
        cmocka_unit_test(an_emulated_machine_has_room_for_a_second_vcpu),
        cmocka_unit_test(hardens_the_guest_unless_it_is_emulated),
        cmocka_unit_test(varies_with_what_is_asked),
        cmocka_unit_test(refuses_what_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
