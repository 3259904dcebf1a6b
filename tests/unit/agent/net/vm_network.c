/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pod's network in a real VM, without a daemon: vm_network GUEST DIR, where GUEST has vmlinux and
 * initrd.img, and DIR has the disks 0.img and 1.img (layers: busybox, nettool) and 2.img (scratch).
 * tests/integration/test_guest_network.sh makes them, and runs this as root in network, mount and
 * PID namespaces of its own, whose PID 1 is in the node's network namespace.
 *
 * The node: node0 and node1, the far ends of the pod's eth0 (a veth) and net1 (a macvlan), which
 * are made here as CNI plugins would; 192.0.2.1 and 2001:db8::1 are "outside", behind gateways.
 * Prints "ok: what" per expectation that held, and ends with status 1 at the first that did not.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/rpc/client.h"
#include "host/net/netns.h"
#include "host/net/netscan.h"
#include "host/net/tap.h"
#include "host/net/tc.h"
#include "host/sandbox/netmsg.h"
#include "host/vmm/vmm.h"
#include "tests/fakes/agent_driver.h"

#define DEADLINE() clock_deadline(120000)

static const char *guest, *dir;
static char ns_path[256];
static int ns_fd = -1;
static struct vm *vm;

static void ok(const char *what)
{
    (void)printf("ok: %s\n", what);
    (void)fflush(stdout);
}

/* On the node. */
static void sh(const char *command)
{
    EXPECT(system(command) == 0, "%s", command);
}

/* In the pod's namespace on the host. */
static void pod_sh(const char *command)
{
    cleanup_free char *line = text_printf("nsenter --net=%s sh -ec '%s'", ns_path, command);

    EXPECT(line != NULL && system(line) == 0, "%s", command);
}

/* For ping. */
static void with_raw_sockets(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static char raw[] = "NET_RAW", dac[] = "DAC_OVERRIDE";
    static char *list[] = {raw, dac};
    Casemate__Agent__V1__Capabilities *c = r->process->capabilities;

    c->bounding = c->permitted = c->effective = list;
    c->n_bounding = c->n_permitted = c->n_effective = ARRAY_SIZE(list);
}

/* In a container of the VM; its output is the caller's. */
static char *in_guest(const char *script)
{
    static int n;
    char id[16];
    int code = 0;

    (void)snprintf(id, sizeof(id), "c%d", n++);
    char *text = driver_run(id, script, with_raw_sockets, &code);
    EXPECT(code == 0, "%s: status %d: %s", script, code, text);
    return text;
}

static void expect_in_guest(const char *script, const char *part)
{
    cleanup_free char *text = in_guest(script);

    EXPECT(strstr(text, part) != NULL, "%s: no '%s' in: %s", script, part, text);
}

/* ---- the VM --------------------------------------------------------------------------------- */

static void *run_loop(void *arg)
{
    struct err err;

    if (loop_run(arg, &err) < 0)
        abort();
    return NULL;
}

static void tell_up(void *arg)
{
    if (write(*(const int *)arg, "", 1) != 1)
        abort();
}

/* Until the loop runs it is its maker's, who must not block on it. */
static void start_loop(struct loop **ret_loop, pthread_t *ret_thread)
{
    struct err err;
    int up[2];
    char byte;

    EXPECT(loop_new(ret_loop, &err) == 0, "%s", err.msg);
    EXPECT(pipe2(up, O_CLOEXEC) == 0, "pipe");
    EXPECT(pthread_create(ret_thread, NULL, run_loop, *ret_loop) == 0, "thread");
    EXPECT(loop_post(*ret_loop, tell_up, &up[1], &err) == 0, "%s", err.msg);
    EXPECT(read(up[0], &byte, 1) == 1, "pipe");
    (void)close(up[0]);
    (void)close(up[1]);
}

/* Not read-only, or it would be in a bay instead of at the LUN that the driver names. */
static void add_disk(int index)
{
    char path[300], serial[16];
    struct err err;
    uint32_t lun = 99;

    (void)snprintf(path, sizeof(path), "%s/%d.img", dir, index);
    (void)snprintf(serial, sizeof(serial), "disk%d", index);
    cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC);
    EXPECT(fd >= 0, "%s", path);
    const struct vm_disk disk = {.fd = fd, .serial = serial};
    EXPECT(vm_add_disk(vm, &disk, DEADLINE(), &lun, &err) == 0, "%s", err.msg);
    EXPECT(lun == (uint32_t)index, "LUN %u", lun);
}

/* Without a network: that is given to it afterwards, as to a machine that was made ahead. */
static void start_vm(struct vmm *vmm)
{
    char kernel[300], initrd[300], socket[300];
    struct vm_spec spec = {
        .id = "net",
        .dir = dir,
        .kernel = kernel,
        .initrd = initrd,
        .memory_mib = 256,
        .vcpus = 1,
        .console = VM_CONSOLE_RING,
    };
    struct err err;

    (void)snprintf(kernel, sizeof(kernel), "%s/vmlinux", guest);
    (void)snprintf(initrd, sizeof(initrd), "%s/initrd.img", guest);
    EXPECT(vm_start(vmm, &spec, DEADLINE(), &vm, &err) == 0, "%s", err.msg);
    (void)snprintf(socket, sizeof(socket), "%s/agent.sock", dir);
    driver_connect(socket, NULL);
    for (int i = 0; i < 3; i++)
        add_disk(i);
}

/* ---- the network ---------------------------------------------------------------------------- */

static void make_node(void)
{
    struct err err;

    (void)snprintf(ns_path, sizeof(ns_path), "%s/pod.netns", dir);
    EXPECT(netns_make(ns_path, &err) == 0, "%s", err.msg);
    EXPECT(netns_open(ns_path, &ns_fd, &err) == 0, "%s", err.msg);
    pod_sh("ip link add eth0 mtu 1400 type veth peer name node0 mtu 1400 netns 1;"
           "ip link set eth0 up");
    /* A macvlan lets only in what is for its own MAC address and groups. */
    cleanup_free char *macvlan = text_printf(
        "ip link add low1 type veth peer name node1 && ip link set low1 up &&"
        "ip link add link low1 name net1 type macvlan mode bridge && ip link set net1 netns %s",
        ns_path);
    sh(macvlan);
    pod_sh("ip link set net1 up");
    sh("ip link set node0 up; ip link set node1 up;"
       "ip addr add 10.88.0.1/24 dev node0; ip addr add 169.254.7.7/32 dev node0;"
       "ip -6 addr add fd88::1/64 dev node0 nodad; ip addr add 10.89.0.1/24 dev node1;"
       "ip -6 addr add fd89::1/64 dev node1 nodad;"
       "ip addr add 192.0.2.1/32 dev lo; ip -6 addr add 2001:db8::1/128 dev lo");
    /* The first as ptp-like plugins have it: a gateway outside any subnet. */
    pod_sh("ip addr add 10.88.0.5/32 dev eth0; ip -6 addr add fd88::5/64 dev eth0 nodad;"
           "ip route add 169.254.7.7 dev eth0 scope link;"
           "ip route add default via 169.254.7.7 src 10.88.0.5 dev eth0;"
           "ip -6 route add default via fd88::1 dev eth0;"
           "ip addr add 10.89.0.5/24 dev net1; ip -6 addr add fd89::5/64 dev net1 nodad");
    sh("ip route add 10.88.0.5/32 dev node0 2>/dev/null || true");
}

/* What the host tells the agent of the first n interfaces. */
static void make_message(size_t n, const uint32_t *slots, const char *hostname, struct netmsg *ret)
{
    char ips[1][NET_ADDR_TEXT] = {"10.88.0.5"};
    struct net_iface ifaces[2];
    cleanup_netscan struct netscan scan = {0};
    struct err err;

    EXPECT(netscan_read(ns_fd, &scan, &err) == 0, "%s", err.msg);
    ifaces[0] = netscan_find(&scan, "eth0")->iface;
    ifaces[1] = netscan_find(&scan, "net1")->iface;
    struct net_result result = {.ifaces = ifaces, .n_ifaces = n, .ips = ips, .n_ips = 1};
    const struct netmsg_input input = {.result = &result,
                                       .slots = slots,
                                       .hostname = hostname,
                                       .host_resolv_conf = "/nonexistent"};
    EXPECT(netmsg_init(ret, &input, &err) == 0, "%s", err.msg);
}

static void configure_pod(void)
{
    static char ext4[] = "ext4", hostname[] = "netpod", id[] = "pod-1",
                name[] = "net/ipv4/ping_group_range", value[] = "0 2147483647";
    static uint8_t entropy[64];
    const uint32_t slots[] = {VM_NIC_FIRST_SLOT};
    Casemate__Agent__V1__Disk scratch = CASEMATE__AGENT__V1__DISK__INIT;
    Casemate__Agent__V1__Sysctl sysctl = CASEMATE__AGENT__V1__SYSCTL__INIT;
    Casemate__Agent__V1__Sysctl *sysctls[] = {&sysctl};
    Casemate__Agent__V1__ConfigurePodRequest request =
        CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    cleanup_netmsg struct netmsg network = {0};
    struct err err;

    make_message(1, slots, hostname, &network);
    sysctl.name = name;
    sysctl.value = value;
    network.message.sysctls = sysctls;
    network.message.n_sysctls = 1;
    scratch.lun = 2;
    scratch.fs_type = ext4;
    request.pod_id = id;
    request.hostname = hostname;
    request.realtime_ns = clock_realtime_ns();
    request.entropy = (ProtobufCBinaryData){.len = sizeof(entropy), .data = entropy};
    request.scratch = &scratch;
    request.network = &network.message;
    int64_t began_us = clock_monotonic_ns() / 1000;
    EXPECT(driver_call("ConfigurePod", &request.base, NULL, &err) == 0, "%s", err.msg);
    (void)printf("# ConfigurePod with a network: %lld us\n",
                 (long long)(clock_monotonic_ns() / 1000 - began_us));
}

static void configure_network(size_t n, const uint32_t *slots, const char *hostname)
{
    Casemate__Agent__V1__ConfigureNetworkRequest request =
        CASEMATE__AGENT__V1__CONFIGURE_NETWORK_REQUEST__INIT;
    cleanup_netmsg struct netmsg network = {0};
    struct err err;

    make_message(n, slots, hostname, &network);
    request.network = &network.message;
    int64_t began_us = clock_monotonic_ns() / 1000;
    EXPECT(driver_call("ConfigureNetwork", &request.base, NULL, &err) == 0, "%s", err.msg);
    (void)printf("# ConfigureNetwork, %zu interfaces: %lld us\n", n,
                 (long long)(clock_monotonic_ns() / 1000 - began_us));
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void test_first_interface(void)
{
    configure_pod();
    pod_sh("ip link show eth0 | sed -n \"s/.*ether \\([0-9a-f:]*\\).*/\\1/p\" >/tmp/eth0.mac");
    cleanup_free char *mac = NULL;
    struct err err;
    EXPECT(fd_read_file(AT_FDCWD, "/tmp/eth0.mac", 64, &mac, NULL, &err) == 0, "%s", err.msg);
    mac[strcspn(mac, "\n")] = '\0';
    EXPECT(strlen(mac) == 17, "'%s'", mac);
    expect_in_guest("ip link show eth0", mac);
    expect_in_guest("ip link show eth0", "mtu 1400");
    expect_in_guest("ip addr show eth0", "10.88.0.5/32");
    expect_in_guest("ip addr show eth0", "fd88::5/64");
    expect_in_guest("ip addr show lo", "::1/128");
    expect_in_guest("ip route", "default via 169.254.7.7 dev eth0");
    expect_in_guest("cat /proc/sys/net/ipv4/ping_group_range", "2147483647");
    ok("name, MAC, MTU, addresses, routes and sysctls are the guest's");

    sh("ping -c 3 -i 0.2 -W 20 10.88.0.5 >/dev/null");
    sh("ping -c 3 -i 0.2 -W 20 fd88::5 >/dev/null");
    sh("ping -c 1 -W 20 -I 192.0.2.1 10.88.0.5 >/dev/null");
    sh("ping -c 1 -W 20 -M do -s 1372 10.88.0.5 >/dev/null");
    sh("! ping -c 1 -W 1 -M do -s 1373 10.88.0.5 >/dev/null 2>&1");
    ok("the node reaches the guest, IPv4 and IPv6, also in frames as long as the MTU");
    free(in_guest("ping -c 1 -W 20 192.0.2.1"));
    free(in_guest("ping -c 1 -W 20 2001:db8::1"));
    free(in_guest("ping -c 1 -W 20 127.0.0.1 && ping -c 1 -W 20 ::1"));
    ok("the guest reaches what is behind a gateway outside its subnet");
}

static void test_tcp(void)
{
    /* Both sides at once: the guest serves the node, and asks the node's server. */
    sh("nettool serve :: 5001 >/tmp/serve.out & for i in $(seq 100); do grep -q listening "
       "/tmp/serve.out && exit 0; "
       "sleep 0.1; done; exit 1");
    static const char *const modes[] = {"stream", "reverse", "rr"};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        cleanup_free char *v4 = text_printf("nettool %s 192.0.2.1 5001 1", modes[i]);
        cleanup_free char *v6 = text_printf("nettool %s 2001:db8::1 5001 1", modes[i]);
        cleanup_free char *out4 = in_guest(v4), *out6 = in_guest(v6);
        (void)printf("# guest to node, IPv4: %s# guest to node, IPv6: %s", out4, out6);
    }
    ok("TCP from the guest, IPv4 and IPv6");

    struct driver_process p;
    struct err err;
    driver_process_init(&p, "nettool", "serve", "::", "5002", NULL);
    EXPECT(driver_create("server", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("server", &err) == 0, "%s", err.msg);
    size_t len;
    free(driver_read_some("server", "", 0, 0, strlen("listening"), &len));
    sh("for m in stream reverse rr; do echo \"# node to guest, IPv4: $(nettool $m 10.88.0.5 5002 "
       "1)\";"
       "nettool $m fd88::5 5002 1 >/dev/null; done");
    ok("TCP to the guest, IPv4 and IPv6");
    EXPECT(driver_remove("server", "", &err) == 0, "%s", err.msg);
}

static void with_read_only_root(Casemate__Agent__V1__CreateContainerRequest *r)
{
    with_raw_sockets(r);
    r->rootfs->read_only = true;
}

static void test_files(void)
{
    expect_in_guest("cat /etc/hostname; hostname", "netpod\nnetpod\n");
    expect_in_guest("cat /etc/hosts", "10.88.0.5\tnetpod");
    expect_in_guest("ping -c 1 -W 20 netpod", "10.88.0.5");
    /* What one writes the others see; nobody can put another file there. */
    free(in_guest("echo '192.0.2.1 outside' >>/etc/hosts"));
    expect_in_guest("cat /etc/hosts", "192.0.2.1 outside");
    free(in_guest("! mv /etc/hosts /etc/other 2>/dev/null && ! rm /etc/hosts 2>/dev/null"));
    free(in_guest("! dd if=/dev/zero of=/etc/hostname bs=1M count=2 2>/dev/null"));
    int code = -1;
    free(driver_run("fixed",
                    "grep -q netpod /etc/hosts && ! touch /etc/x 2>/dev/null && "
                    "! sh -c 'echo x >>/etc/hosts' 2>/dev/null",
                    with_read_only_root, &code));
    EXPECT(code == 0, "status %d", code);
    ok("hosts and hostname are the pod's, writable (unless the root is not), bounded, in their "
       "place");
}

static void test_second_interface(int tap)
{
    const struct vm_nic nic = {.tap_fds = {tap}, .n_queues = 1, .mac = {2, 0, 0, 0, 0, 2}};
    uint32_t slots[2] = {VM_NIC_FIRST_SLOT, 0};
    struct driver_process p;
    struct err err;

    driver_process_init(&p, "sh", "-c", "while ! grep -q renamed /etc/hosts; do sleep 0.1; done",
                        NULL);
    EXPECT(driver_create("watch", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("watch", &err) == 0, "%s", err.msg);
    int64_t began_ms = clock_monotonic_ms();
    EXPECT(vm_add_nic(vm, &nic, DEADLINE(), &slots[1], &err) == 0, "%s", err.msg);
    EXPECT(slots[1] == VM_NIC_FIRST_SLOT + 1, "slot %u", slots[1]);
    EXPECT(tc_join(ns_fd, "net1", "tap1", &err) == 0, "%s", err.msg);
    configure_network(2, slots, "renamed");
    (void)printf("# second interface plugged in and configured: %lld ms\n",
                 (long long)(clock_monotonic_ms() - began_ms));
    expect_in_guest("ip addr show net1", "10.89.0.5/24");
    sh("ping -c 1 -W 20 10.89.0.5 >/dev/null; ping -c 1 -W 20 fd89::5 >/dev/null");
    free(in_guest("ping -c 1 -W 20 10.89.0.1 && ping -c 1 -W 20 fd89::1"));
    sh("ping -c 1 -W 20 10.88.0.5 >/dev/null");
    EXPECT(driver_wait("watch", "").exit_code == 0, "the old hosts");
    EXPECT(driver_remove("watch", "", &err) == 0, "%s", err.msg);
    ok("a second interface (a macvlan) by hotplug; running containers see the new hosts");
    /* Again, as a daemon that comes back may: nothing changes, nothing is lost. */
    configure_network(2, slots, "renamed");
    sh("ping -c 1 -W 20 10.89.0.5 >/dev/null; ping -c 1 -W 20 fd88::5 >/dev/null");
    ok("the same once more");
}

static void test_figures(void)
{
    Casemate__Agent__V1__StatsRequest request = CASEMATE__AGENT__V1__STATS_REQUEST__INIT;
    struct rpc_reply reply = {0};
    struct err err;
    int seen = 0;

    EXPECT(driver_call("Stats", &request.base, &reply, &err) == 0, "%s", err.msg);
    const Casemate__Agent__V1__StatsReply *r = (const void *)reply.message;
    for (size_t i = 0; i < r->n_interfaces; i++) {
        const Casemate__Agent__V1__NetInterfaceStats *s = r->interfaces[i];
        if (strcmp(s->name, "eth0") == 0 && s->rx_bytes > 1000000 && s->tx_bytes > 1000000 &&
            s->rx_packets > 100 && s->tx_packets > 100)
            seen++;
        if (strcmp(s->name, "net1") == 0 && s->rx_packets > 0)
            seen++;
    }
    EXPECT(seen == 2, "%zu interfaces", r->n_interfaces);
    rpc_reply_fini(&reply);
    ok("figures of the interfaces");
}

int main(int argc, char **argv)
{
    struct loop *loop = NULL;
    struct vmm *vmm = NULL;
    pthread_t thread;
    struct err err;
    int tap1 = -1;

    EXPECT(argc == 3, "usage: vm_network GUEST DIR");
    guest = argv[1];
    dir = argv[2];
    make_node();
    start_loop(&loop, &thread);
    const struct vmm_config config = {
        .accel = VMM_ACCEL_TCG, .transport = VMM_TRANSPORT_SERIAL, .run_dir = dir};
    EXPECT(vmm_new(&config, loop, &vmm, &err) == 0, "%s", err.msg);
    EXPECT(tap_open(ns_fd, "tap1", 1, &tap1, &err) == 0, "%s", err.msg);
    start_vm(vmm);
    EXPECT(vm_join_namespace(vm, ns_fd, "tap0", &err) == 0, "%s", err.msg);
    EXPECT(vm_join_namespace(vm, ns_fd, "tap9", &err) < 0 && err.code == ERR_BAD_STATE, "%s",
           err.msg);
    EXPECT(tc_join(ns_fd, "eth0", "tap0", &err) == 0, "%s", err.msg);

    test_first_interface();
    test_files();
    test_tcp();
    test_second_interface(tap1);
    EXPECT(close(tap1) == 0, "close");
    test_figures();

    driver_disconnect();
    EXPECT(vm_stop(vm, DEADLINE(), &err) == 0, "%s", err.msg);
    pod_sh("! ip link show tap0 2>/dev/null && ! ip link show tap1 2>/dev/null");
    ok("with the VM its taps are gone");
    vm_unref(vm);
    vmm_free(vmm);
    loop_stop(loop);
    (void)pthread_join(thread, NULL);
    loop_free(loop);
    EXPECT(netns_remove(ns_path, &err) == 0, "%s", err.msg);
    return 0;
}
