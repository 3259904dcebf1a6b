/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A machine is a fixed frame (sandbox, monitor, accelerator, boot) and a list
 * of devices, each one string; later devices (network, growing memory) are further lines in
 * add_devices. Everything QEMU needs from the host comes as a descriptor, so the process can run as
 * a stranger without rights to any file: the kernel and the initrd are named through /proc/self/fd.
 *
 * Choices that are not obvious:
 * - `-action reboot=shutdown,shutdown=pause`: a guest that powers off, resets or crashes leaves a
 * *paused* QEMU, which still holds the reason and the last console output. The daemon collects both
 * and then ends QEMU, also when the daemon was not running at that moment. The cost, memory held
 * until then, is bounded by the daemon's absence.
 * - the console is an isa-serial port into a ring buffer in QEMU's memory. A file would let a
 * hostile guest fill the disk, and a pipe would stop the guest (or lose everything) while no daemon
 * reads. The ring is bounded, needs no reader and no right, and survives the daemon. No
 * virtconsole: a kernel that panics early never gets that far.
 * - no pvpanic: with panic=-1 the kernel resets at once, and the reason is in the ring.
 * - TCG's translation cache is capped (tb-size): its default is much larger and is paid per
 * machine, as far as it is used. A first container fills 24 MiB; a cache that is full is emptied,
 * and all of it is translated anew (with 32 MiB that happened in a machine's second container, and
 * cost it a quarter of a second).
 * - under TCG the CPU lacks what only costs there: with erms and fsrm kernel and libc copy and
 * clear with `rep movsb` and `rep stosb`, which TCG runs byte by byte (half of all that a
 * container's start ran were the iterations that clear pages), la57 makes each walk of the page
 * tables one level longer, and with pku Linux writes a register each time it goes from a program to
 * the idle task or a thread of its own and back, upon which QEMU forgets all translations of
 * addresses and most of the way to translated code (half as often again as for address spaces).
 * - lsm=: security modules that the guest's agent does not use are hooks on every path (a quarter
 * of an exec); what containers may ask for themselves stays.
 * - under TCG the guest runs without mitigations of processor bugs and without randomised user
 * addresses, unless told otherwise. Emulation is no boundary that either would hold up, and both
 * are dear there: return thunks and the like defeat the chaining of translated code (a second
 * container: 53 ms with, 31 ms without), and QEMU before 8 looks translated code up by virtual
 * address, so that each exec at another address is translated anew (`true`: 29 ms with, 11 ms
 * without). For the same reason it does without SMAP, which gives the kernel two TLBs in QEMU, to
 * be filled one by one after each change of address space (a container's create: 46 ms of
 * processor time with, 37 without), and without the kernel's checks of itself on every allocation,
 * copy and system call (together another twentieth).
 * - under TCG a machine has room for two vCPUs at least. QEMU 7.2 translates the guest's memory
 * barriers to nothing when there can be only one, although its own devices run beside that one: on
 * a busy host a virtqueue's notification was lost now and then, and the network stood still for
 * good.
 * - KASLR stays on; `tsc=reliable no_timer_check` only take a watchdog and a self-test out of the
 * boot.
 * - under TCG the guest is told how fast its time stamp counter runs (tsc.h): on a busy host its
 * own calibration was wrong in two boots of eight, by factors of 5 and 37, and so was its clock.
 * - dummy.numdummies=0: a kernel with that driver built in makes an interface at boot, which all
 * pods would have, with an address that a template gives to all its clones.
 * - init_on_free=0: a clone's pages that were given back come again with its template's content
 * (ramfd.c), not as zeros. Pages are cleared when they are allocated, as everywhere.
 * - one virtio-scsi controller carries all disks (LUNs), because hotplug of a LUN needs no PCI slot
 * and no ACPI.
 * - a disk that is plugged in is 34 SCSI commands, a device tree and a scan for partitions to the
 * guest: 20 ms of a container's create under TCG. So there are bays, drives that a template has
 * found already. What is in one is changed under the guest (bay.c), which sees the same drive of
 * one TiB all the time; hence the size, which no layer reaches, and no medium that is announced.
 * - every machine has one network interface at a fixed place, also without a network: templates and
 * clones must be equal, and plugging one in takes the guest longer than giving it a tap. Offloads
 * (checksums, segmentation) are agreed upon by guest and QEMU at boot and depend on the peer, so a
 * machine without a network has a tap too, which leads nowhere (deadend.h). More interfaces are
 * rare; they come behind root ports, which cost the boot little.
 * - romfile= : nobody boots from the network, and SeaBIOS would run the ROM. queue_reset=off: QEMU
 * offers it when it moves packets itself and not every vhost-net does: a guest gets the same in
 * both ways.
 * - a machine that starts with several vCPUs has as many queues in that interface: the guest takes
 * one for each at boot, so that vCPUs do not wait for each other. With one vCPU nothing is
 * different. vectors: one for each direction of a queue, the configuration and the control queue.
 * - memory beyond what the guest boots with is a virtio-mem device with its own, anonymous memory
 * (reserve=off: nothing is promised before it is plugged). A machine that may never grow has no
 * such device. So a clone, whose first memory is as large as its template's, can be any size.
 * - a template and its clones must be the same machine to the last device, in the same slots: they
 * differ only in where memory comes from and in `-incoming defer`. Kernel and initrd are in a
 * clone's memory already and are not read again: QEMU would keep a copy of them.
 */
#include "host/vmm/cmdline.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "host/vmm/vmm.h"

#define MAX_ARGS 160
#define FDS_TEXT 128 /* bytes of a list of descriptors */

/* Appends formatted strings to argv; remembers the first failure, so that callers need not check
 * each line. */
struct builder {
    struct cmdline cmdline;
    bool failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct builder *b, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    int n;

    va_start(args, fmt);
    n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0 || b->cmdline.n + 1 >= MAX_ARGS) {
        b->failed = true;
        if (n >= 0)
            free(text);
        return;
    }
    b->cmdline.argv[b->cmdline.n++] = text;
    b->cmdline.argv[b->cmdline.n] = NULL;
}

static void add_frame(struct builder *b, const struct cmdline_spec *spec)
{
    add(b, "%s", spec->qemu);
    add(b, "-name");
    add(b, "guest=%s,debug-threads=on", spec->name);
    add(b, "-nodefaults");
    add(b, "-no-user-config");
    add(b, "-display");
    add(b, "none");
    add(b, "-sandbox");
    add(b, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add(b, "-action");
    add(b, "reboot=shutdown,shutdown=pause,panic=pause,watchdog=none");
    add(b, "-msg");
    add(b, "timestamp=off");
    add(b, "-chardev");
    add(b, "socket,id=qmp,fd=%d,server=on,wait=off", spec->fds.qmp);
    add(b, "-mon");
    add(b, "chardev=qmp,mode=control");
}

/* Whether the guest does without what would harden it; see above. */
static bool is_soft(const struct cmdline_spec *spec)
{
    return spec->accel == VMM_ACCEL_TCG && !spec->tcg_hardening;
}

/* Never one under TCG; see above. */
static uint32_t max_vcpus(const struct cmdline_spec *spec)
{
    uint32_t max = spec->accel == VMM_ACCEL_TCG ? 2 : 1;

    if (spec->vcpus > max)
        max = spec->vcpus;
    return spec->vcpus_max > max ? spec->vcpus_max : max;
}

static void add_machine(struct builder *b, const struct cmdline_spec *spec)
{
    add(b, "-machine");
    add(b,
        "%s,hpet=off,usb=off,sata=off,smbus=off,vmport=off,graphics=off,dump-guest-core=off,"
        "mem-merge=off%s",
        spec->machine, spec->memory == CMDLINE_MEMORY_OWN ? "" : ",memory-backend=ram0");
    add(b, "-accel");
    add(b, "%s", spec->accel == VMM_ACCEL_KVM ? "kvm" : "tcg,tb-size=64");
    add(b, "-cpu");
    add(b, "%s%s", spec->accel == VMM_ACCEL_KVM ? "host" : "max,-erms,-fsrm,-la57,-pku",
        is_soft(spec) ? ",-smap" : "");
    add(b, "-smp");
    add(b, "%u,maxcpus=%u", spec->vcpus, max_vcpus(spec));
    add(b, "-rtc");
    add(b, "base=utc,clock=host");
}

uint32_t cmdline_growth_mib(const struct cmdline_spec *spec)
{
    if (spec->memory_max_mib <= spec->memory_mib)
        return 0;
    return (spec->memory_max_mib - spec->memory_mib) / CMDLINE_GROWTH_MIB * CMDLINE_GROWTH_MIB;
}

static void add_memory(struct builder *b, const struct cmdline_spec *spec)
{
    uint32_t growth = cmdline_growth_mib(spec);

    add(b, "-m");
    if (growth > 0)
        add(b, "%uM,maxmem=%uM", spec->memory_mib, spec->memory_mib + growth);
    else
        add(b, "%uM", spec->memory_mib);
    if (spec->memory != CMDLINE_MEMORY_OWN) {
        add(b, "-object");
        add(b, "memory-backend-file,id=ram0,size=%uM,mem-path=/proc/self/fd/%d,share=%s",
            spec->memory_mib, spec->fds.memory,
            spec->memory == CMDLINE_MEMORY_TEMPLATE ? "on" : "off");
    }
    if (growth > 0) {
        add(b, "-object");
        add(b, "memory-backend-ram,id=growth0,size=%uM,reserve=off", growth);
        add(b, "-device");
        add(b, "virtio-mem-pci,id=" CMDLINE_GROWTH_DEVICE
               ",memdev=growth0,requested-size=0,disable-legacy=on");
    }
}

static void add_kernel(struct builder *b, const struct cmdline_spec *spec)
{
    add(b, "-kernel");
    add(b, "/proc/self/fd/%d", spec->fds.kernel);
    if (spec->fds.initrd >= 0) {
        add(b, "-initrd");
        add(b, "/proc/self/fd/%d", spec->fds.initrd);
    }
    char tsc[40] = "";
    if (spec->tsc_khz > 0)
        (void)snprintf(tsc, sizeof(tsc), " tsc_early_khz=%u", spec->tsc_khz);
    add(b, "-append");
    add(b,
        "%squiet panic=-1 tsc=reliable no_timer_check init_on_free=0 random.trust_cpu=on "
        "lsm=landlock,yama audit=0 noautogroup dummy.numdummies=0%s%s%s%s",
        spec->console ? "console=ttyS0 8250.nr_uarts=1 " : "", tsc,
        is_soft(spec) ? " mitigations=off norandmaps init_on_alloc=0 hardened_usercopy=off "
                        "randomize_kstack_offset=off"
                      : "",
        spec->cmdline_extra != NULL && spec->cmdline_extra[0] != '\0' ? " " : "",
        text_or_empty(spec->cmdline_extra));
}

void cmdline_bay_name(uint32_t bay, const char *suffix, char ret_name[CMDLINE_BAY_NAME_SIZE])
{
    (void)snprintf(ret_name, CMDLINE_BAY_NAME_SIZE, "%s%s", vm_bay_serial(VM_DISK_LUNS + bay),
                   suffix);
}

static void add_bays(struct builder *b)
{
    char name[CMDLINE_BAY_NAME_SIZE], empty[CMDLINE_BAY_NAME_SIZE];

    for (uint32_t bay = 0; bay < VM_DISK_BAYS; bay++) {
        cmdline_bay_name(bay, "", name);
        cmdline_bay_name(bay, CMDLINE_BAY_EMPTY, empty);
        add(b, "-blockdev");
        add(b, "null-co,node-name=%s,size=%llu,read-zeroes=on,read-only=on", empty,
            CMDLINE_BAY_BYTES);
        add(b, "-blockdev");
        add(b, "raw,node-name=%s,file=%s,read-only=on", name, empty);
        add(b, "-device");
        add(b,
            "scsi-hd,id=%s,bus=scsi0.0,channel=0,scsi-id=0,lun=%u,drive=%s,serial=%s,device_id=%s,"
            "werror=report,rerror=report",
            name, VM_DISK_LUNS + bay, name, name, name);
    }
}

static void add_devices(struct builder *b, const struct cmdline_spec *spec)
{
    if (spec->console) {
        add(b, "-chardev");
        add(b, "ringbuf,id=console,size=%d", CMDLINE_CONSOLE_BYTES);
        add(b, "-device");
        add(b, "isa-serial,chardev=console");
    }
    add(b, "-device");
    add(b, "virtio-scsi-pci,id=scsi0,disable-legacy=on");
    add_bays(b);
    add(b, "-object");
    add(b, "rng-builtin,id=rng0");
    add(b, "-device");
    add(b, "virtio-rng-pci,rng=rng0,disable-legacy=on");
    add(b, "-device");
    add(b, "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on,disable-legacy=on");
    add(b, "-device");
    add(b, "vmgenid,guid=auto");
    if (spec->transport == VMM_TRANSPORT_VSOCK) {
        add(b, "-device");
        add(b, "vhost-vsock-pci,guest-cid=%u,vhostfd=%d,disable-legacy=on", spec->cid,
            spec->fds.vhost);
    } else {
        add(b, "-chardev");
        add(b, "socket,id=agent,fd=%d,server=on,wait=off", spec->fds.agent);
        add(b, "-device");
        add(b, "virtio-serial-pci,id=serial0,max_ports=2,disable-legacy=on");
        add(b, "-device");
        add(b, "virtserialport,bus=serial0.0,nr=1,chardev=agent,name=" CMDLINE_AGENT_PORT);
    }
}

/* "fd=5", or "fds=5:6:7" for several queues, with a prefix. */
static void list_fds(const char *prefix, int first, uint32_t n, char ret_text[FDS_TEXT])
{
    int used = snprintf(ret_text, FDS_TEXT, "%s%s", prefix, n > 1 ? "fds=" : "fd=");

    for (uint32_t i = 0; i < n && used > 0 && used < FDS_TEXT; i++)
        used += snprintf(ret_text + used, (size_t)(FDS_TEXT - used), "%s%d", i > 0 ? ":" : "",
                         first + (int)i);
}

static void add_network(struct builder *b, const struct cmdline_spec *spec)
{
    const uint8_t *m = spec->mac;
    const uint32_t queues = spec->queues > 1 ? spec->queues : 1;
    char peer[64] = "", taps[FDS_TEXT], vhosts[FDS_TEXT] = "";

    if (spec->fds.tap >= 0) {
        (void)snprintf(peer, sizeof(peer), "netdev=net0,");
        if (queues > 1)
            (void)snprintf(peer, sizeof(peer), "netdev=net0,mq=on,vectors=%u,", 2 * queues + 2);
        list_fds("", spec->fds.tap, queues, taps);
        if (spec->fds.vhost_net >= 0)
            list_fds(",vhost=on,vhost", spec->fds.vhost_net, queues, vhosts);
        add(b, "-netdev");
        add(b, "tap,id=net0,%s%s", taps, vhosts);
    }
    add(b, "-device");
    add(b,
        "virtio-net-pci,id=nic0,%smac=%02x:%02x:%02x:%02x:%02x:%02x,bus=pcie.0,addr=%#x,"
        "disable-legacy=on,queue_reset=off,romfile=",
        peer, m[0], m[1], m[2], m[3], m[4], m[5], CMDLINE_NIC_SLOT(0u));
    for (unsigned int i = 1; i < CMDLINE_NICS; i++) {
        add(b, "-device");
        add(b, "pcie-root-port,id=nicport%u,chassis=%u,bus=pcie.0,addr=%#x", i, i,
            CMDLINE_NIC_SLOT(i));
    }
}

static int check(const struct cmdline_spec *spec, struct err *err)
{
    if (!vm_id_is_valid(spec->name))
        return err_set(err, ERR_INVALID, "machine name '%s' is not usable", spec->name);
    if (strcmp(spec->machine, "q35") != 0)
        return err_set(err, ERR_UNSUPPORTED, "machine type '%s' is not provided (q35 is)",
                       spec->machine);
    if (spec->accel == VMM_ACCEL_AUTO || spec->transport == VMM_TRANSPORT_AUTO)
        return err_set(err, ERR_INVALID, "accelerator and transport must be decided first");
    if (spec->memory_mib < 32 || spec->memory_mib > 1024 * 1024)
        return err_set(err, ERR_INVALID, "%u MiB of memory: 32 to 1048576 are possible",
                       spec->memory_mib);
    if (spec->memory_max_mib > 1024 * 1024)
        return err_set(err, ERR_INVALID, "%u MiB of memory at most: 1048576 are possible",
                       spec->memory_max_mib);
    if (spec->vcpus < 1 || spec->vcpus > 240 || spec->vcpus_max > 240)
        return err_set(err, ERR_INVALID, "%u vCPUs, %u at most: 1 to 240 are possible", spec->vcpus,
                       spec->vcpus_max);
    if (spec->queues > CMDLINE_QUEUES)
        return err_set(err, ERR_INVALID, "%u queues: at most %d are possible", spec->queues,
                       CMDLINE_QUEUES);
    if ((spec->memory != CMDLINE_MEMORY_OWN) != (spec->fds.memory >= 0))
        return err_set(err, ERR_INVALID, "a template's or a clone's memory is a descriptor");
    if (strlen(text_or_empty(spec->cmdline_extra)) > 1024)
        return err_set(err, ERR_INVALID, "kernel command line: more than 1024 bytes were added");
    return 0;
}

int cmdline_build(const struct cmdline_spec *spec, struct cmdline *ret_cmdline, struct err *err)
{
    struct builder b = {0};

    if (check(spec, err) < 0)
        return -1;
    b.cmdline.argv = calloc(MAX_ARGS, sizeof(*b.cmdline.argv));
    if (b.cmdline.argv == NULL)
        return err_no_memory(err);
    add_frame(&b, spec);
    add_machine(&b, spec);
    add_memory(&b, spec);
    if (spec->memory != CMDLINE_MEMORY_CLONE)
        add_kernel(&b, spec);
    add_devices(&b, spec);
    add_network(&b, spec);
    if (spec->memory == CMDLINE_MEMORY_CLONE) {
        add(&b, "-incoming");
        add(&b, "defer");
    }
    if (b.failed) {
        cmdline_fini(&b.cmdline);
        return err_no_memory(err);
    }
    *ret_cmdline = b.cmdline;
    return 0;
}

void cmdline_fini(struct cmdline *cmdline)
{
    for (size_t i = 0; i < cmdline->n; i++)
        free(cmdline->argv[i]);
    free(cmdline->argv);
    *cmdline = (struct cmdline){0};
}
