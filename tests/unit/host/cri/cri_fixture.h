/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of host/cri share: a server of its services on a loop that the test's thread runs,
 * a client over a socketpair, and pods and a container for the model (fake_model.h).
 */
#pragma once

#include "tests/unit/host/cri/fake_model.h"

#include <sys/socket.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/loop/loop.h"
#include "common/rpc/client.h"
#include "common/rpc/server.h"
#include "host/cri/cri.h"
#include "proto/control/control.pb-c.h"

#define PATIENCE_MS 20000
#define RUNTIME     (&runtime__v1__runtime_service__descriptor)
#define IMAGES      (&runtime__v1__image_service__descriptor)
#define CONTROL     (&casemate__control__v1__control__descriptor)

static struct fixture {
    struct loop *loop;
    struct rpc_server *server;
    struct rpc_client *client;
    struct cri *cri;
    struct cri_daemon_status status;
    enum rpc_status ended; /* the last call's status, as the server saw it */
    struct rpc_reply reply;
    struct err err;
} fx;

static inline void on_done(void *arg, const char *method, enum rpc_status status,
                           int64_t duration_ns)
{
    (void)arg;
    (void)method;
    (void)duration_ns;
    fx.ended = status;
}

static inline void get_status(void *arg, struct cri_daemon_status *ret)
{
    assert_ptr_equal(arg, &fx);
    *ret = fx.status;
}

static char pod_cidr[64]; /* the last one that the daemon was told */

static inline int set_pod_cidr(void *arg, const char *cidrs, struct err *err)
{
    assert_ptr_equal(arg, &fx);
    if (strcmp(cidrs, "odd") == 0)
        return err_set(err, ERR_INVALID, "no CIDR");
    (void)snprintf(pod_cidr, sizeof(pod_cidr), "%s", cidrs);
    return 0;
}

static inline void must(int r)
{
    if (r < 0)
        fail_msg("%s: %s", err_code_name(fx.err.code), fx.err.msg);
}

static inline int set_up(void **state)
{
    static const struct cri_handler handlers[] = {
        {.name = "", .machine = "q35", .clones = true},
        {.name = "casemate", .machine = "q35", .clones = true},
        {.name = "small", .machine = "other", .accelerator = "kvm"}};
    int fds[2];

    (void)state;
    log_set_level(LOG_ERROR);
    model_reset();
    memset(&fx, 0, sizeof(fx));
    fx.status.network_ready = fx.status.runtime_ready = true;
    must(loop_new(&fx.loop, &fx.err));
    const struct cri_config config = {.sandboxes = (struct sandbox_manager *)&model,
                                      .images = (struct image_service *)&model,
                                      .get_status = get_status,
                                      .get_status_arg = &fx,
                                      .set_pod_cidr = set_pod_cidr,
                                      .set_pod_cidr_arg = &fx,
                                      .handlers = handlers,
                                      .n_handlers = 3};
    must(cri_new(&config, &fx.cri, &fx.err));
    struct rpc_server_config server = {.loop = fx.loop, .on_done = on_done};
    server.services = cri_services(fx.cri, &server.n_services);
    must(rpc_server_new(&server, &fx.server, &fx.err));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    must(rpc_server_add_connection(fx.server, fds[0], NULL, NULL, &fx.err));
    const struct rpc_client_config client = {.loop = fx.loop};
    must(rpc_client_new(&client, fds[1], &fx.client, &fx.err));
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    rpc_reply_fini(&fx.reply);
    rpc_client_free(fx.client);
    rpc_server_free(fx.server);
    cri_free(fx.cri);
    loop_free(fx.loop);
    /* Whatever a reply pointed into was let go of, once. */
    assert_int_equal(model.released, model.given);
    return 0;
}

/* One call; the reply, which lives until the next one, or NULL with the error in fx.err. */
static inline const void *call_by(const ProtobufCServiceDescriptor *service, const char *wire_name,
                                  const char *method, const void *request, int64_t timeout_ms)
{
    const struct rpc_target target = {service, wire_name, method};
    rpc_reply_fini(&fx.reply);
    memset(&fx.reply, 0, sizeof(fx.reply));
    memset(&fx.err, 0, sizeof(fx.err));
    if (rpc_client_call(fx.client, &target, request, clock_deadline(timeout_ms), &fx.reply,
                        &fx.err) < 0)
        return NULL;
    return fx.reply.message;
}

static inline const void *call(const ProtobufCServiceDescriptor *service, const char *method,
                               const void *request)
{
    return call_by(service, NULL, method, request, PATIENCE_MS);
}

static inline void assert_ok(const void *reply)
{
    if (reply == NULL)
        fail_msg("%s: %s", err_code_name(fx.err.code), fx.err.msg);
}

/* A text that a message wants as char *, which nobody writes to. */
static inline char *text(const char *literal)
{
    union {
        const char *in;
        char *out;
    } u = {.in = literal};
    return u.out;
}

/* ---- what the model holds ---- */

static Runtime__V1__PodSandboxConfig pod_config = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
static Runtime__V1__PodSandboxMetadata web_name = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;
static Runtime__V1__PodSandboxConfig__LabelsEntry pod_label =
    RUNTIME__V1__POD_SANDBOX_CONFIG__LABELS_ENTRY__INIT;
static Runtime__V1__PodSandboxConfig__LabelsEntry *pod_labels[] = {&pod_label};
static Runtime__V1__PodSandboxConfig__AnnotationsEntry pod_note =
    RUNTIME__V1__POD_SANDBOX_CONFIG__ANNOTATIONS_ENTRY__INIT;
static Runtime__V1__PodSandboxConfig__AnnotationsEntry *pod_notes[] = {&pod_note};

static const char *const pod_ips[] = {"10.0.0.7", "fd00::7"};

static inline void two_pods(void)
{
    web_name.name = text("web");
    web_name.namespace_ = text("prod");
    web_name.uid = text("u-1");
    web_name.attempt = 3;
    pod_label.key = text("app");
    pod_label.value = text("shop");
    pod_note.key = text("note");
    pod_note.value = text("");
    pod_config.metadata = &web_name;
    pod_config.labels = pod_labels;
    pod_config.n_labels = 1;
    pod_config.annotations = pod_notes;
    pod_config.n_annotations = 1;
    model.pods[0] = (struct sandbox_info){.id = POD_ID,
                                          .ready = true,
                                          .created_ns = 1234567,
                                          .runtime_handler = "casemate",
                                          .config = &pod_config,
                                          .reason = "",
                                          .message = "",
                                          .ips = pod_ips,
                                          .n_ips = 2,
                                          .vm_pid = 4711,
                                          .boot_ms = 70,
                                          .guest_kernel = "6.1.0"};
    model.pods[1] = model.pods[0];
    model.pods[1].id = OTHER_POD;
    model.pods[1].ready = false;
    model.pods[1].runtime_handler = "";
    model.n_pods = 2;
}

static Runtime__V1__ContainerConfig ctr_config = RUNTIME__V1__CONTAINER_CONFIG__INIT;
static Runtime__V1__ContainerMetadata ctr_name = RUNTIME__V1__CONTAINER_METADATA__INIT;
static Runtime__V1__ImageSpec ctr_image = RUNTIME__V1__IMAGE_SPEC__INIT;

static inline void one_container(void)
{
    static const char *const tags[] = {"docker.io/library/busybox:1", NULL};

    ctr_name.name = text("main");
    ctr_name.attempt = 2;
    ctr_image.image = text("busybox");
    ctr_image.user_specified_image = text("busybox:latest");
    ctr_config.metadata = &ctr_name;
    ctr_config.image = &ctr_image;
    model.image = (struct image){
        .id = IMAGE_ID, .repo_tags = {.items = tags, .n = 1}, .username = "", .config_json = "{}"};
    model.container =
        (struct sandbox_container_info){.id = CTR_ID,
                                        .pod_id = POD_ID,
                                        .state = RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED,
                                        .created_ns = 1,
                                        .started_ns = 2,
                                        .finished_ns = 3,
                                        .exit_code = 137,
                                        .reason = "OOMKilled",
                                        .message = "out of memory",
                                        .config = &ctr_config,
                                        .image_id = IMAGE_ID,
                                        .image_ref = "docker.io/library/busybox@sha256:55",
                                        .log_path = "/logs/main.log",
                                        .stop_signal = RUNTIME__V1__SIGNAL__SIGTERM,
                                        .has_user = true,
                                        .uid = 1000,
                                        .gid = 100};
}
