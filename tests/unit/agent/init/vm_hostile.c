/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile host against an agent in a VM (tests/integration/test_agent_asan.sh): messages that are
 * nearly right, with containers that exist, calls given up half way, sessions that break off. After
 * each storm the agent must answer and must still be able to do its work.
 */
#include <signal.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/rpc/client.h"
#include "tests/fakes/agent_driver.h"
#include "tests/fakes/random_message.h"

#define STORMS        8
#define PER_STORM     250
#define EVENTS        4u
#define CONTAINER     "c" /* one of the texts of random_message.c */
#define FINAL_MESSAGE "still here"

static const char *socket_path;
static char exec_id[] = "e", container_id[] = CONTAINER;
static ProtobufCMessage *create_template;

/* Keeps a copy of the request as a model for others. */
static void keep_request(Casemate__Agent__V1__CreateContainerRequest *r)
{
    if (create_template == NULL)
        create_template = random_variation(&r->base);
}

static void configure(void)
{
    static uint8_t entropy[64];
    static char ext4[] = "ext4", hostname[] = "guest-pod", pod[] = "pod-1";
    Casemate__Agent__V1__Disk scratch = CASEMATE__AGENT__V1__DISK__INIT;
    Casemate__Agent__V1__ConfigurePodRequest request =
        CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    struct err err;
    scratch.lun = 2;
    scratch.fs_type = ext4;
    request.pod_id = pod;
    request.hostname = hostname;
    request.realtime_ns = clock_realtime_ns();
    request.entropy = (ProtobufCBinaryData){.len = sizeof(entropy), .data = entropy};
    request.scratch = &scratch;
    EXPECT(driver_call("ConfigurePod", &request.base, NULL, &err) == 0, "%s", err.msg);
}

/* The container that the storm is about; what is left of an earlier one goes first. */
static void make_container(void)
{
    struct driver_process p;
    struct err err;
    EXPECT(driver_remove(CONTAINER, "", &err) == 0, "%s", err.msg);
    driver_process_init(&p, "sh", "-c", "while :; do echo line; cat; sleep 1; done", NULL);
    p.message.stdin = true;
    EXPECT(driver_create(CONTAINER, &p, keep_request, &err) == 0, "%s", err.msg);
    EXPECT(driver_start(CONTAINER, &err) == 0, "%s", err.msg);
}

/* A call that a good host could make. */
static void send_variation(unsigned which)
{
    struct driver_process p;
    Casemate__Agent__V1__ExecRequest exec = CASEMATE__AGENT__V1__EXEC_REQUEST__INIT;
    Casemate__Agent__V1__WriteStdinRequest input = CASEMATE__AGENT__V1__WRITE_STDIN_REQUEST__INIT;
    Casemate__Agent__V1__ReadOutputRequest read = CASEMATE__AGENT__V1__READ_OUTPUT_REQUEST__INIT;
    Casemate__Agent__V1__SignalRequest kill_ = CASEMATE__AGENT__V1__SIGNAL_REQUEST__INIT;
    static uint8_t bytes[300];
    const ProtobufCMessage *model = NULL;
    const char *method = "";
    switch (which) {
    case 0:
        method = "CreateContainer";
        model = create_template;
        break;
    case 1:
        driver_process_init(&p, "sh", "-c", "echo out; cat; exit 3", NULL);
        p.message.tty = random_below(2) == 0;
        p.message.stdin = random_below(2) == 0;
        exec.container_id = container_id;
        exec.exec_id = exec_id;
        exec.process = &p.message;
        method = "Exec";
        model = &exec.base;
        break;
    case 2:
        input.container_id = container_id;
        input.data = (ProtobufCBinaryData){.len = sizeof(bytes), .data = bytes};
        input.offset = random_below(400);
        method = "WriteStdin";
        model = &input.base;
        break;
    case 3:
        read.container_id = container_id;
        method = "ReadOutput";
        model = &read.base;
        break;
    default:
        kill_.container_id = container_id;
        kill_.exec_id = exec_id;
        kill_.signal = 9;
        method = "Signal";
        model = &kill_.base;
        break;
    }
    ProtobufCMessage *request = random_variation(model);
    driver_fire(method, request, random_below(EVENTS));
    protobuf_c_message_free_unpacked(request, NULL);
}

static void send_nonsense(void)
{
    const ProtobufCServiceDescriptor *d = &casemate__agent__v1__agent__descriptor;
    const ProtobufCMethodDescriptor *m = &d->methods[random_below(d->n_methods)];
    ProtobufCMessage *request = random_message(m->input);
    if (strcmp(m->name, "Shutdown") != 0)
        driver_fire(m->name, request, random_below(EVENTS));
    protobuf_c_message_free_unpacked(request, NULL);
}

static void storm(void)
{
    for (int i = 0; i < PER_STORM; i++) {
        if (random_below(3) == 0)
            send_nonsense();
        else
            send_variation(random_below(5));
        if (random_below(100) == 0) {
            driver_disconnect();
            driver_connect(socket_path, random_below(2) == 0 ? "CASEMATE-LINK/1 stale" : NULL);
        }
    }
}

/* Everything that the storm has left is removed: also what is still being made. */
static void clear(void)
{
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    struct rpc_reply reply = {0};
    struct err err;
    EXPECT(driver_call("List", &list.base, &reply, &err) == 0, "%s", err.msg);
    const Casemate__Agent__V1__ListReply *r = (const void *)reply.message;
    for (size_t i = 0; i < r->n_processes; i++) {
        if (*r->processes[i]->exec_id == '\0')
            EXPECT(driver_remove(r->processes[i]->container_id, "", &err) == 0, "%s", err.msg);
    }
    rpc_reply_fini(&reply);
    EXPECT(driver_call("List", &list.base, &reply, &err) == 0, "%s", err.msg);
    EXPECT(((const Casemate__Agent__V1__ListReply *)reply.message)->n_processes == 0,
           "processes are left");
    rpc_reply_fini(&reply);
}

int main(int argc, char **argv)
{
    Casemate__Agent__V1__ShutdownRequest request = CASEMATE__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    struct err err;
    int code;
    EXPECT(argc == 2, "usage: vm_hostile SOCKET");
    socket_path = argv[1];
    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(400);
    driver_connect(socket_path, NULL);
    configure();
    for (int i = 0; i < STORMS; i++) {
        make_container();
        storm();
        clear();
        (void)printf("ok: storm %d is over\n", i + 1);
    }
    char *text = driver_run("last", "echo " FINAL_MESSAGE, NULL, &code);
    EXPECT(code == 0 && strstr(text, FINAL_MESSAGE) != NULL, "exit code %d: %s", code, text);
    free(text);
    protobuf_c_message_free_unpacked(create_template, NULL);
    EXPECT(driver_call("Shutdown", &request.base, NULL, &err) == 0, "%s", err.msg);
    (void)printf("ok: the agent has survived %d messages\n", STORMS * PER_STORM);
    driver_disconnect();
    return 0;
}
