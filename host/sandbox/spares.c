/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A spare goes the way of every pod (pod_bring_up) with an empty
 * configuration, and stops short of READY. Then it warms up: a network is made and taken back, and
 * a container with a program that only exits is made, started, joined by a command and removed.
 * Under emulation that is most of what both cost: their code paths in the guest's kernel and agent
 * are translated once per machine (some 35,000 blocks, a quarter of a second), whoever takes them
 * first. Nothing of it is left in the guest but a removed container's number.
 *
 * The disk for it holds nothing but that program, so that a pod never has a disk in its machine
 * that holds more than its own images and a public file.
 *
 * Making one is nobody's hurry: it is done one after another, by one worker, and not before the
 * calls that bring pods and containers up have been over for a while: a pod that is ready is about
 * to get its containers. It is urgent when there is none left, or when pods come one after another,
 * since there is no calm moment then. The machine is started idle (spawn.h), so that it stands back
 * behind everything that somebody waits for (being niced was not enough: a niced thread still runs
 * its slice to the end, and plugins of a pod's network, dozens of short programs, waited for it
 * each time). That holds among the tasks of the daemon's cgroup. Where the cpu controller is in
 * use, a machine of a pod with a cgroup of its own shares the processor with the daemon's cgroup as
 * a whole, by the weights of both, and a spare takes what its cgroup is due. A spare has its pod's
 * id from birth, since its machine's name, folder and disk are called by it.
 */
#include "host/sandbox/spares.h"

#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

#define WARM_SERIAL "warm"
#define WARM_NAME   "warm"
#define WARM_MS     20000
#define CALM_MS     500  /* after a call, a pod's next one may well be on its way */
#define IN_A_ROW_MS 2000 /* between pods that come one after another */

/* ---- warming up ---- */

static char *unconst(const char *text)
{
    return (char *)(uintptr_t)text;
}

static int attach_program(const struct pod *pod, int64_t deadline_ms,
                          Casemate__Agent__V1__Disk *ret_disk, struct err *err)
{
    cleanup_fd int fd = open(pod->mgr->config.warm_image, O_RDONLY | O_CLOEXEC);
    struct vm_disk disk = {.fd = fd, .read_only = true, .serial = WARM_SERIAL};
    uint32_t lun;

    if (fd < 0)
        return err_set_errno(err, errno, "'%s'", pod->mgr->config.warm_image);
    if (vm_add_disk(pod->vm, &disk, deadline_ms, &lun, err) != 0)
        return -1;
    casemate__agent__v1__disk__init(ret_disk);
    ret_disk->lun = lun;
    if (vm_lun_is_bay(lun))
        ret_disk->serial = unconst(vm_bay_serial(lun));
    ret_disk->read_only = true;
    ret_disk->fs_type = unconst("squashfs");
    return 0;
}

static void on_output(void *arg, bool is_stderr, const uint8_t *bytes, size_t n)
{
    (void)arg;
    (void)is_stderr;
    (void)bytes;
    (void)n;
}

/* The life of one container; what is left after a failure goes with the machine. */
static int live(struct pod *pod, const Casemate__Agent__V1__CreateContainerRequest *request,
                int64_t deadline_ms, struct err *err)
{
    struct guest_process name = {.container_id = request->id, .exec_id = ""};
    Casemate__Agent__V1__Process command = *request->process;
    Casemate__Agent__V1__ExecRequest exec = CASEMATE__AGENT__V1__EXEC_REQUEST__INIT;
    struct guest_run run = {.request = &exec, .on_output = on_output};
    struct guest_user user;
    struct guest_exit exit;
    int64_t started_ns;

    command.n_args = 1;
    exec.container_id = request->id;
    exec.exec_id = unconst(WARM_NAME);
    exec.process = &command;
    if (guest_create_container(pod->guest, request, deadline_ms, &user, err) != 0 ||
        guest_start(pod->guest, request->id, deadline_ms, &started_ns, err) != 0 ||
        guest_run(pod->guest, &run, deadline_ms, &exit, err) != 0 ||
        guest_signal(pod->guest, &name, SIGKILL, true, deadline_ms, err) != 0 ||
        guest_wait(pod->guest, &name, deadline_ms, &exit, err) != 0 ||
        guest_remove(pod->guest, &name, deadline_ms, err) != 0)
        return -1;
    return 0;
}

static ProtobufCBinaryData bytes_of(uint8_t *bytes, size_t n)
{
    return (ProtobufCBinaryData){.data = bytes, .len = n};
}

static ProtobufCBinaryData text_of(char *text)
{
    return bytes_of((uint8_t *)text, strlen(text));
}

/*
 * What a plugin of the usual kind finds for a pod, on an interface that leads nowhere: an address
 * of each family, the networks that they are in, a way out; and the files that tell of it, which
 * the container has that is rehearsed with. The addresses are documentation's (RFC 5737, RFC 3849).
 */
static int rehearse_network(struct pod *pod, struct err *err)
{
    uint8_t mac[] = {0x02, 0, 0, 0, 0, 1};
    uint8_t own[] = {192, 0, 2, 2}, gateway[] = {192, 0, 2, 1}, net[] = {192, 0, 2, 0};
    uint8_t any[4] = {0};
    uint8_t own6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 2};
    uint8_t net6[16] = {0x20, 0x01, 0x0d, 0xb8};
    char resolv_conf[] = "nameserver 192.0.2.1\n", hosts[] = "192.0.2.2\t" WARM_NAME "\n";
    char hostname[] = WARM_NAME "\n";
    Casemate__Agent__V1__NetAddress addrs[5], *addresses[] = {&addrs[0], &addrs[1]};
    Casemate__Agent__V1__NetRoute ways[3], *routes[] = {&ways[0], &ways[1], &ways[2]};
    Casemate__Agent__V1__NetInterface eth = CASEMATE__AGENT__V1__NET_INTERFACE__INIT;
    Casemate__Agent__V1__NetInterface *interfaces[] = {&eth};
    Casemate__Agent__V1__Network network = CASEMATE__AGENT__V1__NETWORK__INIT;

    if (pod->mgr->deps.net == NULL)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(addrs); i++)
        casemate__agent__v1__net_address__init(&addrs[i]);
    addrs[0].address = bytes_of(own, sizeof(own));
    addrs[0].prefix = addrs[2].prefix = 24;
    addrs[1].address = bytes_of(own6, sizeof(own6));
    addrs[1].prefix = addrs[3].prefix = 64;
    addrs[2].address = bytes_of(net, sizeof(net));
    addrs[3].address = bytes_of(net6, sizeof(net6));
    addrs[4].address = bytes_of(any, sizeof(any));
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        casemate__agent__v1__net_route__init(&ways[i]);
        ways[i].dst = &addrs[2 + i];
    }
    ways[0].scope = RT_SCOPE_LINK;
    ways[0].source = bytes_of(own, sizeof(own));
    ways[2].gateway = bytes_of(gateway, sizeof(gateway));
    eth.name = unconst("eth0");
    eth.pci_slot = VM_NIC_FIRST_SLOT;
    eth.mac = bytes_of(mac, sizeof(mac));
    eth.addresses = addresses;
    eth.n_addresses = ARRAY_SIZE(addresses);
    eth.routes = routes;
    eth.n_routes = ARRAY_SIZE(routes);
    network.interfaces = interfaces;
    network.n_interfaces = ARRAY_SIZE(interfaces);
    network.resolv_conf = text_of(resolv_conf);
    network.hosts = text_of(hosts);
    network.hostname = text_of(hostname);
    return guest_rehearse_network(pod->guest, &network, clock_deadline(WARM_MS), err);
}

static int warm_up(struct pod *pod, struct err *err)
{
    static const char *const masked[] = {"/proc/acpi", "/proc/kcore", "/proc/keys"};
    static const char *const read_only[] = {"/proc/bus", "/proc/sys"};
    char *args[] = {unconst("/warm"), unconst("wait")};
    int64_t deadline_ms = clock_deadline(WARM_MS);
    Casemate__Agent__V1__CreateContainerRequest request;
    Casemate__Agent__V1__Capabilities none = CASEMATE__AGENT__V1__CAPABILITIES__INIT;
    Casemate__Agent__V1__Process process = CASEMATE__AGENT__V1__PROCESS__INIT;
    Casemate__Agent__V1__RootFs rootfs = CASEMATE__AGENT__V1__ROOT_FS__INIT;
    Casemate__Agent__V1__User user = CASEMATE__AGENT__V1__USER__INIT;
    Casemate__Agent__V1__Disk disk, *layers[] = {&disk};

    if (rehearse_network(pod, err) != 0 || attach_program(pod, deadline_ms, &disk, err) != 0)
        return -1;
    casemate__agent__v1__create_container_request__init(&request);
    process.args = args;
    process.n_args = ARRAY_SIZE(args);
    process.capabilities = &none;
    process.user = &user;
    rootfs.layers = layers;
    rootfs.n_layers = 1;
    request.id = unconst(WARM_NAME);
    request.process = &process;
    request.rootfs = &rootfs;
    request.masked_paths = (char **)(uintptr_t)masked;
    request.n_masked_paths = ARRAY_SIZE(masked);
    request.readonly_paths = (char **)(uintptr_t)read_only;
    request.n_readonly_paths = ARRAY_SIZE(read_only);
    return live(pod, &request, deadline_ms, err);
}

/* ---- making ---- */

static int make(struct sandbox_manager *mgr, struct pod **ret_pod, struct err *err)
{
    Runtime__V1__PodSandboxConfig nothing = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    struct pod_facts *facts;
    struct pod *pod = NULL;
    char id[SANDBOX_ID_SIZE];
    int result;

    text_random_hex(SANDBOX_ID_LEN / 2, id);
    facts = pod_facts_new(id, clock_realtime_ns(), "", &nothing, err);
    if (facts == NULL)
        return -1;
    result = pod_new(mgr, facts, &pod, err);
    pod_facts_unref(facts);
    if (result != 0)
        return -1;
    pod->spare = true;
    if (pod_bring_up(pod, clock_deadline(mgr->config.boot_timeout_ms), err) != 0 ||
        (*mgr->config.warm_image != '\0' && warm_up(pod, err) != 0)) {
        pod_end_vm(pod, "StartFailed", err->msg);
        pod_unref(pod);
        return -1;
    }
    *ret_pod = pod;
    return 0;
}

/* Whether another one is to be made by the caller, who says so when it is done. */
static bool begin(struct sandbox_manager *mgr)
{
    struct vmm_status status;
    bool wanted;

    /* What is not cloned would boot, for seconds of all that a processor has. And while pods start,
     * even what stands back is in their way: the memory's and the caches'. */
    vmm_get_status(mgr->deps.vmm, &status);
    pthread_mutex_lock(&mgr->mutex);
    wanted = !mgr->closing && mgr->swept && mgr->starting == 0 && !mgr->making_spare &&
             status.templates > 0 && mgr->n_spares < mgr->config.spares;
    if (wanted)
        mgr->making_spare = true;
    pthread_mutex_unlock(&mgr->mutex);
    return wanted;
}

/* Takes the new one into the list, unless it has ended meanwhile. NULL: none was made. */
static void end(struct sandbox_manager *mgr, struct pod *pod)
{
    bool lives;

    pthread_mutex_lock(&mgr->mutex);
    mgr->making_spare = false;
    if (pod != NULL) {
        pthread_mutex_lock(&pod->mutex);
        lives = pod->state == POD_CREATING && !pod->ending;
        pthread_mutex_unlock(&pod->mutex);
        if (lives) {
            TAILQ_INSERT_TAIL(&mgr->spares, pod, entry);
            mgr->n_spares++;
            pod = NULL;
        }
    }
    pthread_mutex_unlock(&mgr->mutex);
    pod_unref(pod);
}

void spares_call_begins(struct sandbox_manager *mgr)
{
    pthread_mutex_lock(&mgr->mutex);
    mgr->calls++;
    pthread_mutex_unlock(&mgr->mutex);
}

void spares_call_ends(struct sandbox_manager *mgr)
{
    pthread_mutex_lock(&mgr->mutex);
    mgr->calls--;
    mgr->calls_ended_ms = clock_monotonic_ms();
    pthread_cond_signal(&mgr->calm_cond);
    pthread_mutex_unlock(&mgr->mutex);
}

/* When it will be calm if no call comes: not before a while after the last one. Mutex held. */
static int64_t calm_at_ms(const struct sandbox_manager *mgr)
{
    return (mgr->calls > 0 ? clock_monotonic_ms() : mgr->calls_ended_ms) + CALM_MS;
}

/* Waits until it is calm, unless this is urgent. False: a pod starts meanwhile, whose end comes
 * back here; or the daemon ends. */
static bool wait_for_calm(struct sandbox_manager *mgr)
{
    int64_t until_ms;
    bool calm;

    pthread_mutex_lock(&mgr->mutex);
    while (!mgr->closing && mgr->starting == 0 && mgr->n_spares > 0 && !mgr->pods_in_a_row &&
           (until_ms = calm_at_ms(mgr)) > clock_monotonic_ms()) {
        const struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                                       .tv_nsec = (long)(until_ms % 1000) * 1000000};
        (void)pthread_cond_timedwait(&mgr->calm_cond, &mgr->mutex, &until);
    }
    calm = !mgr->closing && mgr->starting == 0;
    pthread_mutex_unlock(&mgr->mutex);
    return calm;
}

static void refill(void *arg)
{
    struct sandbox_manager *mgr = arg;
    struct pod *pod;
    struct err err;

    while (begin(mgr)) {
        pod = NULL;
        if (!wait_for_calm(mgr)) {
            end(mgr, NULL);
            return;
        }
        if (make(mgr, &pod, &err) != 0)
            log_event(LOG_WARN, NULL, &err, "no machine is made ahead, going on without");
        end(mgr, pod);
        if (pod == NULL)
            return; /* tried again with the next pod */
        log_info("a machine was made ahead");
    }
}

void spares_refill(struct sandbox_manager *mgr)
{
    if (mgr->config.spares > 0 && mgr->handlers[0].clone)
        manager_defer(mgr, refill, mgr);
}

void spares_on_template(void *mgr)
{
    spares_refill(mgr);
}

/* ---- taking and losing ---- */

struct pod *spares_take(struct sandbox_manager *mgr)
{
    struct pod *pod;

    pthread_mutex_lock(&mgr->mutex);
    mgr->pods_in_a_row = clock_monotonic_ms() - mgr->pod_came_ms < IN_A_ROW_MS;
    mgr->pod_came_ms = clock_monotonic_ms();
    pthread_cond_signal(&mgr->calm_cond);
    pod = TAILQ_FIRST(&mgr->spares);
    if (pod != NULL) {
        TAILQ_REMOVE(&mgr->spares, pod, entry);
        mgr->n_spares--;
    }
    pthread_mutex_unlock(&mgr->mutex);
    return pod;
}

void spares_lose(struct pod *pod)
{
    struct sandbox_manager *mgr = pod->mgr;
    struct pod *other;
    bool listed = false;

    pthread_mutex_lock(&mgr->mutex);
    TAILQ_FOREACH (other, &mgr->spares, entry)
        listed = listed || other == pod;
    if (listed) {
        TAILQ_REMOVE(&mgr->spares, pod, entry);
        mgr->n_spares--;
    }
    pthread_mutex_unlock(&mgr->mutex);
    if (listed)
        pod_unref(pod);
}

void spares_end(struct sandbox_manager *mgr)
{
    struct pod *pod;

    while ((pod = spares_take(mgr)) != NULL) {
        pod_end_vm(pod, "Stopped", "the daemon ends");
        pod_unref(pod);
    }
}
