/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host/cri over a socketpair, with a model that the test puts words into: what a request must have,
 * what the model is then asked, what the reply says, and which status an error becomes.
 */
#include "tests/unit/host/cri/cri_fixture.h"

/* ---- errors and deadlines ---- */

static void test_codes(void **state)
{
    static const struct {
        enum err_code code;
        enum rpc_status status;
    } cases[] = {
        {ERR_INVALID, RPC_INVALID_ARGUMENT},
        {ERR_NOT_FOUND, RPC_NOT_FOUND},
        {ERR_EXISTS, RPC_ALREADY_EXISTS},
        {ERR_BAD_STATE, RPC_FAILED_PRECONDITION},
        {ERR_UNAVAILABLE, RPC_UNAVAILABLE},
        {ERR_DEADLINE, RPC_DEADLINE_EXCEEDED},
        {ERR_EXHAUSTED, RPC_RESOURCE_EXHAUSTED},
        {ERR_DENIED, RPC_PERMISSION_DENIED},
        {ERR_PROTOCOL, RPC_INTERNAL},
        {ERR_UNSUPPORTED, RPC_UNIMPLEMENTED},
        {ERR_CANCELLED, RPC_CANCELLED},
        {ERR_SYSTEM, RPC_UNKNOWN},
    };
    Runtime__V1__StartContainerRequest q = RUNTIME__V1__START_CONTAINER_REQUEST__INIT;

    (void)state;
    q.container_id = text(CTR_ID);
    model.words = "naïve 100 % of it";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        model.failure = cases[i].code;
        assert_null(call(RUNTIME, "StartContainer", &q));
        assert_int_equal(fx.ended, cases[i].status);
        assert_string_equal(fx.err.msg, model.words);
    }
    assert_string_equal(model.id, CTR_ID);
}

/* Every method says what its model said, and lets go of what it held. */
static void test_every_method_fails(void **state)
{
    Runtime__V1__ContainerConfig container = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__ContainerMetadata container_name = RUNTIME__V1__CONTAINER_METADATA__INIT;
    Runtime__V1__PodSandboxConfig pod = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__PodSandboxMetadata pod_name = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;
    Runtime__V1__ImageSpec image = RUNTIME__V1__IMAGE_SPEC__INIT;
    char *args[] = {text("true")};

    (void)state;
    pod.metadata = &pod_name;
    container.metadata = &container_name;
    container.image = &image;
    image.image = text("x");
    model.failure = ERR_BAD_STATE;
#define FAILS(service, Method, type, ...)                                                          \
    do {                                                                                           \
        Runtime__V1__##Method##Request q = RUNTIME__V1__##type##_REQUEST__INIT;                    \
        __VA_ARGS__;                                                                               \
        assert_null(call(service, #Method, &q));                                                   \
        assert_int_equal(fx.ended, RPC_FAILED_PRECONDITION);                                       \
        assert_string_equal(fx.err.msg, model.words);                                              \
    } while (0)
    FAILS(RUNTIME, RunPodSandbox, RUN_POD_SANDBOX, q.config = &pod);
    FAILS(RUNTIME, StopPodSandbox, STOP_POD_SANDBOX, );
    FAILS(RUNTIME, RemovePodSandbox, REMOVE_POD_SANDBOX, );
    FAILS(RUNTIME, UpdatePodSandboxResources, UPDATE_POD_SANDBOX_RESOURCES, );
    FAILS(RUNTIME, PodSandboxStatus, POD_SANDBOX_STATUS, );
    FAILS(RUNTIME, ListPodSandbox, LIST_POD_SANDBOX, );
    FAILS(RUNTIME, CreateContainer, CREATE_CONTAINER, q.config = &container);
    FAILS(RUNTIME, StartContainer, START_CONTAINER, );
    FAILS(RUNTIME, StopContainer, STOP_CONTAINER, );
    FAILS(RUNTIME, RemoveContainer, REMOVE_CONTAINER, );
    FAILS(RUNTIME, ListContainers, LIST_CONTAINERS, );
    FAILS(RUNTIME, ContainerStatus, CONTAINER_STATUS, );
    FAILS(RUNTIME, ExecSync, EXEC_SYNC, q.n_cmd = 1, q.cmd = args);
    FAILS(RUNTIME, ReopenContainerLog, REOPEN_CONTAINER_LOG, );
    FAILS(IMAGES, PullImage, PULL_IMAGE, q.image = &image);
    FAILS(IMAGES, ListImages, LIST_IMAGES, );
    FAILS(IMAGES, ImageStatus, IMAGE_STATUS, q.image = &image);
    FAILS(IMAGES, RemoveImage, REMOVE_IMAGE, q.image = &image);
    FAILS(IMAGES, ImageFsInfo, IMAGE_FS_INFO, );
#undef FAILS
}

static void test_deadline_reaches_the_model(void **state)
{
    Runtime__V1__StopContainerRequest q = RUNTIME__V1__STOP_CONTAINER_REQUEST__INIT;

    (void)state;
    q.container_id = text(CTR_ID);
    q.timeout = 30;
    int64_t before = clock_monotonic_ms();
    assert_ok(call_by(RUNTIME, NULL, "StopContainer", &q, 1000000));
    int64_t after = clock_monotonic_ms();
    assert_int_equal(model.seconds, 30);
    assert_in_range(model.deadline_ms, before + 1000000 - 1000, after + 1000000 + 1000);
}

/* A model that was told of the end of its time by a cancellation has still run out of time. */
static void test_out_of_time(void **state)
{
    Runtime__V1__StartContainerRequest q = RUNTIME__V1__START_CONTAINER_REQUEST__INIT;

    (void)state;
    model.failure = ERR_CANCELLED;
    model.wait_for_deadline = true;
    assert_null(call_by(RUNTIME, NULL, "StartContainer", &q, 50));
    assert_int_equal(fx.err.code, ERR_DEADLINE);
    while (fx.ended == RPC_OK)
        must(loop_run_once(fx.loop, PATIENCE_MS, &fx.err));
    assert_int_equal(fx.ended, RPC_DEADLINE_EXCEEDED);
}

/* ---- what a request must have ---- */

static void refused(const ProtobufCServiceDescriptor *service, const char *method, const void *q,
                    const char *word)
{
    assert_null(call(service, method, q));
    assert_int_equal(fx.ended, RPC_INVALID_ARGUMENT);
    if (strstr(fx.err.msg, word) == NULL)
        fail_msg("%s says '%s', which does not name '%s'", method, fx.err.msg, word);
    assert_int_equal(model.calls, 0);
}

static void test_required_fields(void **state)
{
    Runtime__V1__RunPodSandboxRequest run = RUNTIME__V1__RUN_POD_SANDBOX_REQUEST__INIT;
    Runtime__V1__PodSandboxConfig pod = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__CreateContainerRequest create = RUNTIME__V1__CREATE_CONTAINER_REQUEST__INIT;
    Runtime__V1__ContainerConfig container = RUNTIME__V1__CONTAINER_CONFIG__INIT;
    Runtime__V1__ContainerMetadata name = RUNTIME__V1__CONTAINER_METADATA__INIT;
    Runtime__V1__ImageSpec image = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__ExecSyncRequest exec = RUNTIME__V1__EXEC_SYNC_REQUEST__INIT;
    Runtime__V1__PullImageRequest pull = RUNTIME__V1__PULL_IMAGE_REQUEST__INIT;
    Runtime__V1__RemoveImageRequest rmi = RUNTIME__V1__REMOVE_IMAGE_REQUEST__INIT;
    Runtime__V1__ImageStatusRequest status = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;
    char *args[] = {text("true")};

    (void)state;
    refused(RUNTIME, "RunPodSandbox", &run, "config");
    run.config = &pod;
    refused(RUNTIME, "RunPodSandbox", &run, "metadata");
    refused(RUNTIME, "CreateContainer", &create, "config");
    create.config = &container;
    refused(RUNTIME, "CreateContainer", &create, "metadata");
    container.metadata = &name;
    refused(RUNTIME, "CreateContainer", &create, "image");
    container.image = &image;
    refused(RUNTIME, "CreateContainer", &create, "image");
    refused(RUNTIME, "ExecSync", &exec, "cmd");
    exec.n_cmd = 1;
    exec.cmd = args;
    exec.timeout = -1;
    refused(RUNTIME, "ExecSync", &exec, "timeout");
    refused(IMAGES, "PullImage", &pull, "image");
    pull.image = &image;
    refused(IMAGES, "PullImage", &pull, "image");
    refused(IMAGES, "RemoveImage", &rmi, "image");
    rmi.image = &image;
    refused(IMAGES, "RemoveImage", &rmi, "image");
    refused(IMAGES, "ImageStatus", &status, "image");
    status.image = &image;
    refused(IMAGES, "ImageStatus", &status, "image");
}

static void test_no_network(void **state)
{
    Runtime__V1__RunPodSandboxRequest q = RUNTIME__V1__RUN_POD_SANDBOX_REQUEST__INIT;
    Runtime__V1__PodSandboxConfig pod = RUNTIME__V1__POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__PodSandboxMetadata name = RUNTIME__V1__POD_SANDBOX_METADATA__INIT;

    (void)state;
    fx.status.network_ready = false;
    (void)snprintf(fx.status.network_message, sizeof(fx.status.network_message), "no plugin");
    q.config = &pod;
    pod.metadata = &name;
    assert_null(call(RUNTIME, "RunPodSandbox", &q));
    assert_int_equal(fx.ended, RPC_UNAVAILABLE);
    assert_non_null(strstr(fx.err.msg, "no plugin"));
    assert_int_equal(model.calls, 0);
}

static void test_unknown_methods(void **state)
{
    Runtime__V1__CheckpointContainerRequest q = RUNTIME__V1__CHECKPOINT_CONTAINER_REQUEST__INIT;

    (void)state;
    assert_null(call(RUNTIME, "CheckpointContainer", &q));
    assert_int_equal(fx.err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(fx.err.msg, "CheckpointContainer"));
}

/* ---- pods ---- */

static void test_run_pod(void **state)
{
    Runtime__V1__RunPodSandboxRequest q = RUNTIME__V1__RUN_POD_SANDBOX_REQUEST__INIT;

    (void)state;
    two_pods();
    q.config = &pod_config;
    q.runtime_handler = text("small");
    const Runtime__V1__RunPodSandboxResponse *m = call(RUNTIME, "RunPodSandbox", &q);
    assert_ok(m);
    assert_string_equal(m->pod_sandbox_id, POD_ID);
    assert_string_equal(model.id, "web");
    assert_string_equal(model.text, "small");
}

static void test_stop_and_remove_pod(void **state)
{
    Runtime__V1__StopPodSandboxRequest stop = RUNTIME__V1__STOP_POD_SANDBOX_REQUEST__INIT;
    Runtime__V1__RemovePodSandboxRequest rm = RUNTIME__V1__REMOVE_POD_SANDBOX_REQUEST__INIT;

    (void)state;
    stop.pod_sandbox_id = rm.pod_sandbox_id = text(POD_ID);
    assert_ok(call(RUNTIME, "StopPodSandbox", &stop));
    assert_string_equal(model.name, "sandbox_stop");
    assert_string_equal(model.id, POD_ID);
    assert_ok(call(RUNTIME, "RemovePodSandbox", &rm));
    assert_string_equal(model.name, "sandbox_remove");
    assert_string_equal(model.id, POD_ID);
}

static void test_update_pod(void **state)
{
    Runtime__V1__UpdatePodSandboxResourcesRequest q =
        RUNTIME__V1__UPDATE_POD_SANDBOX_RESOURCES_REQUEST__INIT;
    Runtime__V1__LinuxContainerResources resources = RUNTIME__V1__LINUX_CONTAINER_RESOURCES__INIT;

    (void)state;
    q.pod_sandbox_id = text(POD_ID);
    assert_ok(call(RUNTIME, "UpdatePodSandboxResources", &q));
    assert_int_equal(model.bytes, -1);
    resources.memory_limit_in_bytes = 1 << 30;
    q.resources = &resources;
    assert_ok(call(RUNTIME, "UpdatePodSandboxResources", &q));
    assert_string_equal(model.name, "sandbox_update");
    assert_string_equal(model.id, POD_ID);
    assert_int_equal(model.bytes, 1 << 30);
}

static void test_pod_status(void **state)
{
    Runtime__V1__PodSandboxStatusRequest q = RUNTIME__V1__POD_SANDBOX_STATUS_REQUEST__INIT;

    (void)state;
    two_pods();
    q.pod_sandbox_id = text("1111");
    const Runtime__V1__PodSandboxStatusResponse *m = call(RUNTIME, "PodSandboxStatus", &q);
    assert_ok(m);
    assert_string_equal(model.id, "1111");
    assert_string_equal(m->status->id, POD_ID);
    assert_string_equal(m->status->metadata->name, "web");
    assert_string_equal(m->status->metadata->namespace_, "prod");
    assert_string_equal(m->status->metadata->uid, "u-1");
    assert_int_equal(m->status->metadata->attempt, 3);
    assert_int_equal(m->status->state, RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY);
    assert_int_equal(m->status->created_at, 1234567);
    assert_string_equal(m->status->runtime_handler, "casemate");
    assert_string_equal(m->status->network->ip, "10.0.0.7");
    assert_int_equal(m->status->network->n_additional_ips, 1);
    assert_string_equal(m->status->network->additional_ips[0]->ip, "fd00::7");
    assert_int_equal(m->status->n_labels, 1);
    assert_string_equal(m->status->labels[0]->key, "app");
    assert_string_equal(m->status->labels[0]->value, "shop");
    assert_int_equal(m->status->n_annotations, 1);
    assert_string_equal(m->status->annotations[0]->value, "");
    assert_non_null(m->status->linux->namespaces->options);
    assert_true(m->timestamp > 0);
    assert_int_equal(m->n_info, 0);

    q.verbose = true;
    m = call(RUNTIME, "PodSandboxStatus", &q);
    assert_ok(m);
    assert_int_equal(m->n_info, 1);
    assert_non_null(strstr(m->info[0]->value, "4711"));
    assert_non_null(strstr(m->info[0]->value, "\"timeline\":[{\"step\":\"machine\",\"from\":10,"
                                              "\"to\":250,\"machineCpu\":-1}]"));
}

/* The namespaces are those that were asked for. */
static void test_pod_namespaces(void **state)
{
    Runtime__V1__PodSandboxStatusRequest q = RUNTIME__V1__POD_SANDBOX_STATUS_REQUEST__INIT;
    Runtime__V1__LinuxPodSandboxConfig linux_ = RUNTIME__V1__LINUX_POD_SANDBOX_CONFIG__INIT;
    Runtime__V1__LinuxSandboxSecurityContext security =
        RUNTIME__V1__LINUX_SANDBOX_SECURITY_CONTEXT__INIT;
    Runtime__V1__NamespaceOption options = RUNTIME__V1__NAMESPACE_OPTION__INIT;

    (void)state;
    two_pods();
    options.pid = RUNTIME__V1__NAMESPACE_MODE__CONTAINER;
    security.namespace_options = &options;
    linux_.security_context = &security;
    pod_config.linux = &linux_;
    const Runtime__V1__PodSandboxStatusResponse *m = call(RUNTIME, "PodSandboxStatus", &q);
    pod_config.linux = NULL;
    assert_ok(m);
    assert_int_equal(m->status->linux->namespaces->options->pid,
                     RUNTIME__V1__NAMESPACE_MODE__CONTAINER);
}

static void test_list_pods(void **state)
{
    Runtime__V1__ListPodSandboxRequest q = RUNTIME__V1__LIST_POD_SANDBOX_REQUEST__INIT;
    Runtime__V1__PodSandboxFilter filter = RUNTIME__V1__POD_SANDBOX_FILTER__INIT;

    (void)state;
    two_pods();
    filter.id = text("abc");
    q.filter = &filter;
    const Runtime__V1__ListPodSandboxResponse *m = call(RUNTIME, "ListPodSandbox", &q);
    assert_ok(m);
    assert_string_equal(model.id, "abc");
    assert_int_equal(m->n_items, 2);
    assert_string_equal(m->items[0]->id, POD_ID);
    assert_int_equal(m->items[0]->state, RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_READY);
    assert_string_equal(m->items[1]->id, OTHER_POD);
    assert_int_equal(m->items[1]->state, RUNTIME__V1__POD_SANDBOX_STATE__SANDBOX_NOTREADY);
    assert_string_equal(m->items[1]->runtime_handler, "");
    assert_string_equal(m->items[1]->metadata->name, "web");
    assert_string_equal(m->items[1]->labels[0]->value, "shop");
    model.n_pods = 0;
    m = call(RUNTIME, "ListPodSandbox", &q);
    assert_ok(m);
    assert_int_equal(m->n_items, 0);
}

/* ---- containers ---- */

static void test_container_life(void **state)
{
    Runtime__V1__CreateContainerRequest create = RUNTIME__V1__CREATE_CONTAINER_REQUEST__INIT;
    Runtime__V1__RemoveContainerRequest rm = RUNTIME__V1__REMOVE_CONTAINER_REQUEST__INIT;
    Runtime__V1__ReopenContainerLogRequest reopen = RUNTIME__V1__REOPEN_CONTAINER_LOG_REQUEST__INIT;

    (void)state;
    one_container();
    create.pod_sandbox_id = text(POD_ID);
    create.config = &ctr_config;
    const Runtime__V1__CreateContainerResponse *m = call(RUNTIME, "CreateContainer", &create);
    assert_ok(m);
    assert_string_equal(m->container_id, CTR_ID);
    assert_string_equal(model.id, POD_ID);
    assert_string_equal(model.text, "main");
    rm.container_id = reopen.container_id = text(CTR_ID);
    assert_ok(call(RUNTIME, "ReopenContainerLog", &reopen));
    assert_string_equal(model.name, "sandbox_container_reopen_log");
    assert_ok(call(RUNTIME, "RemoveContainer", &rm));
    assert_string_equal(model.name, "sandbox_container_remove");
    assert_string_equal(model.id, CTR_ID);
}

static void test_container_status(void **state)
{
    Runtime__V1__ContainerStatusRequest q = RUNTIME__V1__CONTAINER_STATUS_REQUEST__INIT;

    (void)state;
    one_container();
    q.container_id = text(CTR_ID);
    const Runtime__V1__ContainerStatusResponse *m = call(RUNTIME, "ContainerStatus", &q);
    assert_ok(m);
    const Runtime__V1__ContainerStatus *s = m->status;
    assert_string_equal(s->id, CTR_ID);
    assert_string_equal(s->metadata->name, "main");
    assert_int_equal(s->metadata->attempt, 2);
    assert_int_equal(s->state, RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED);
    assert_int_equal(s->created_at, 1);
    assert_int_equal(s->started_at, 2);
    assert_int_equal(s->finished_at, 3);
    assert_int_equal(s->exit_code, 137);
    assert_string_equal(s->reason, "OOMKilled");
    assert_string_equal(s->message, "out of memory");
    assert_string_equal(s->log_path, "/logs/main.log");
    assert_string_equal(s->image_ref, "docker.io/library/busybox@sha256:55");
    assert_string_equal(s->image_id, IMAGE_ID);
    /* The image's own name, not the client's short one. */
    assert_string_equal(s->image->image, "docker.io/library/busybox:1");
    assert_string_equal(s->image->user_specified_image, "busybox:latest");
    assert_int_equal(s->user->linux->uid, 1000);
    assert_int_equal(s->user->linux->gid, 100);
    assert_int_equal(s->stop_signal, RUNTIME__V1__SIGNAL__SIGTERM);

    /* An image that was removed meanwhile is called what the client called it. */
    model.image_missing = true;
    m = call(RUNTIME, "ContainerStatus", &q);
    assert_ok(m);
    assert_string_equal(m->status->image->image, "busybox");
}

static void test_list_containers(void **state)
{
    Runtime__V1__ListContainersRequest q = RUNTIME__V1__LIST_CONTAINERS_REQUEST__INIT;

    (void)state;
    one_container();
    const Runtime__V1__ListContainersResponse *m = call(RUNTIME, "ListContainers", &q);
    assert_ok(m);
    assert_int_equal(m->n_containers, 1);
    assert_string_equal(m->containers[0]->id, CTR_ID);
    assert_string_equal(m->containers[0]->pod_sandbox_id, POD_ID);
    assert_string_equal(m->containers[0]->metadata->name, "main");
    assert_string_equal(m->containers[0]->image->image, "busybox");
    assert_string_equal(m->containers[0]->image_id, IMAGE_ID);
    assert_int_equal(m->containers[0]->state, RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED);
}

/* Output is bytes, whatever they are. */
static void test_exec(void **state)
{
    static uint8_t out[] = {0, 0xff, '\n', 'x'};
    static uint8_t err_out[] = {'e'};
    Runtime__V1__ExecSyncRequest q = RUNTIME__V1__EXEC_SYNC_REQUEST__INIT;
    char *args[] = {text("sh"), text("-c"), text("exit 3")};

    (void)state;
    model.output = (struct sandbox_exec_output){
        .out = out, .out_len = 4, .err_out = err_out, .err_len = 1, .exit_code = 3};
    q.container_id = text(CTR_ID);
    q.cmd = args;
    q.n_cmd = 3;
    q.timeout = 9;
    const Runtime__V1__ExecSyncResponse *m = call(RUNTIME, "ExecSync", &q);
    assert_ok(m);
    assert_int_equal(m->stdout.len, 4);
    assert_memory_equal(m->stdout.data, out, 4);
    assert_int_equal(m->stderr.len, 1);
    assert_int_equal(m->exit_code, 3);
    assert_int_equal(model.seconds, 9);
    assert_string_equal(model.text, "exit 3");
}

/* ---- the runtime itself ---- */

static void test_version(void **state)
{
    Runtime__V1__VersionRequest q = RUNTIME__V1__VERSION_REQUEST__INIT;

    (void)state;
    const Runtime__V1__VersionResponse *m = call(RUNTIME, "Version", &q);
    assert_ok(m);
    assert_string_equal(m->version, "0.1.0");
    assert_string_equal(m->runtime_name, "casemate");
    assert_string_equal(m->runtime_version, CASEMATE_VERSION);
    assert_string_equal(m->runtime_api_version, "v1");
    m = call_by(RUNTIME, "runtime.v1alpha2.RuntimeService", "Version", &q, PATIENCE_MS);
    assert_ok(m);
    assert_string_equal(m->runtime_api_version, "v1alpha2");
}

static const Runtime__V1__RuntimeCondition *condition(const Runtime__V1__StatusResponse *m,
                                                      const char *type)
{
    for (size_t i = 0; i < m->status->n_conditions; i++) {
        if (strcmp(m->status->conditions[i]->type, type) == 0)
            return m->status->conditions[i];
    }
    fail_msg("there is no condition %s", type);
    return NULL;
}

static void test_status(void **state)
{
    Runtime__V1__StatusRequest q = RUNTIME__V1__STATUS_REQUEST__INIT;

    (void)state;
    const Runtime__V1__StatusResponse *m = call(RUNTIME, "Status", &q);
    assert_ok(m);
    assert_true(condition(m, "RuntimeReady")->status);
    assert_true(condition(m, "NetworkReady")->status);
    assert_int_equal(m->n_info, 0);
    assert_int_equal(m->n_runtime_handlers, 3);
    assert_string_equal(m->runtime_handlers[0]->name, "");
    assert_string_equal(m->runtime_handlers[1]->name, "casemate");
    assert_string_equal(m->runtime_handlers[2]->name, "small");
    for (size_t i = 0; i < m->n_runtime_handlers; i++) {
        assert_true(m->runtime_handlers[i]->features->user_namespaces);
        assert_false(m->runtime_handlers[i]->features->recursive_read_only_mounts);
    }

    fx.status.runtime_ready = fx.status.network_ready = false;
    (void)snprintf(fx.status.runtime_message, sizeof(fx.status.runtime_message), "no QEMU");
    (void)snprintf(fx.status.network_message, sizeof(fx.status.network_message), "no plugin");
    (void)snprintf(fx.status.accelerator, sizeof(fx.status.accelerator), "tcg");
    q.verbose = true;
    m = call(RUNTIME, "Status", &q);
    assert_ok(m);
    assert_false(condition(m, "RuntimeReady")->status);
    assert_string_equal(condition(m, "RuntimeReady")->message, "no QEMU");
    assert_string_not_equal(condition(m, "RuntimeReady")->reason, "");
    assert_false(condition(m, "NetworkReady")->status);
    assert_string_equal(condition(m, "NetworkReady")->message, "no plugin");
    assert_true(m->n_info >= 1);
    assert_non_null(strstr(m->info[0]->value, "\"tcg\""));
    assert_non_null(strstr(m->info[0]->value, "{\"name\":\"casemate\",\"machine\":\"q35\","
                                              "\"template\":true,\"accelerator\":\"tcg\"}"));
    assert_non_null(strstr(m->info[0]->value, "{\"name\":\"small\",\"machine\":\"other\","
                                              "\"template\":false,\"accelerator\":\"kvm\"}"));
}

static void test_runtime_config(void **state)
{
    Runtime__V1__RuntimeConfigRequest q = RUNTIME__V1__RUNTIME_CONFIG_REQUEST__INIT;

    (void)state;
    const Runtime__V1__RuntimeConfigResponse *m = call(RUNTIME, "RuntimeConfig", &q);
    assert_ok(m);
    assert_int_equal(m->linux->cgroup_driver, RUNTIME__V1__CGROUP_DRIVER__CGROUPFS);
}

/* ---- images ---- */

static void test_update_runtime_config(void **state)
{
    Runtime__V1__UpdateRuntimeConfigRequest q = RUNTIME__V1__UPDATE_RUNTIME_CONFIG_REQUEST__INIT;
    Runtime__V1__RuntimeConfig config = RUNTIME__V1__RUNTIME_CONFIG__INIT;
    Runtime__V1__NetworkConfig network = RUNTIME__V1__NETWORK_CONFIG__INIT;

    (void)state;
    /* The kubelet may have nothing to say. */
    assert_ok(call(RUNTIME, "UpdateRuntimeConfig", &q));
    q.runtime_config = &config;
    assert_ok(call(RUNTIME, "UpdateRuntimeConfig", &q));
    config.network_config = &network;
    assert_ok(call(RUNTIME, "UpdateRuntimeConfig", &q));
    assert_string_equal(pod_cidr, "");
    network.pod_cidr = text("10.1.0.0/16,fd00::/64");
    assert_ok(call(RUNTIME, "UpdateRuntimeConfig", &q));
    assert_string_equal(pod_cidr, "10.1.0.0/16,fd00::/64");
    network.pod_cidr = text("odd");
    assert_null(call(RUNTIME, "UpdateRuntimeConfig", &q));
    assert_int_equal(fx.ended, RPC_INVALID_ARGUMENT);
}

static void test_image_status(void **state)
{
    static const char *const digests[] = {"docker.io/library/busybox@sha256:55", NULL};
    Runtime__V1__ImageStatusRequest q = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;

    (void)state;
    one_container();
    model.image.repo_digests = (struct image_strings){.items = digests, .n = 1};
    model.image.size_bytes = 12345;
    model.image.pinned = true;
    model.image.has_uid = true;
    model.image.uid = 65534;
    model.image.config_json = "{\"os\":\"linux\"}";
    spec.image = text("busybox");
    q.image = &spec;
    q.verbose = true;
    const Runtime__V1__ImageStatusResponse *m = call(IMAGES, "ImageStatus", &q);
    assert_ok(m);
    assert_string_equal(m->image->id, IMAGE_ID);
    assert_int_equal(m->image->n_repo_tags, 1);
    assert_string_equal(m->image->repo_tags[0], "docker.io/library/busybox:1");
    assert_string_equal(m->image->repo_digests[0], "docker.io/library/busybox@sha256:55");
    assert_int_equal(m->image->size, 12345);
    assert_true(m->image->pinned);
    assert_int_equal(m->image->uid->value, 65534);
    assert_int_equal(m->n_info, 1);
    assert_string_equal(m->info[0]->value, "{\"os\":\"linux\"}");

    /* "If the image is not present, returns a response with ImageStatusResponse.Image set to nil."
     */
    model.image_missing = true;
    m = call(IMAGES, "ImageStatus", &q);
    assert_ok(m);
    assert_null(m->image);
}

static void test_list_images(void **state)
{
    Runtime__V1__ListImagesRequest q = RUNTIME__V1__LIST_IMAGES_REQUEST__INIT;
    Runtime__V1__ImageFilter filter = RUNTIME__V1__IMAGE_FILTER__INIT;
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;

    (void)state;
    one_container();
    const Runtime__V1__ListImagesResponse *m = call(IMAGES, "ListImages", &q);
    assert_ok(m);
    assert_int_equal(m->n_images, 2);
    assert_string_equal(m->images[1]->id, IMAGE_ID);
    spec.image = text("busybox");
    filter.image = &spec;
    q.filter = &filter;
    m = call(IMAGES, "ListImages", &q);
    assert_ok(m);
    assert_string_equal(model.id, "busybox");
    assert_int_equal(m->n_images, 1);
    model.image_missing = true;
    m = call(IMAGES, "ListImages", &q);
    assert_ok(m);
    assert_int_equal(m->n_images, 0);
}

static void test_pull_image(void **state)
{
    Runtime__V1__PullImageRequest q = RUNTIME__V1__PULL_IMAGE_REQUEST__INIT;
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;
    Runtime__V1__AuthConfig auth = RUNTIME__V1__AUTH_CONFIG__INIT;

    (void)state;
    spec.image = text("registry.test/x:1");
    q.image = &spec;
    const Runtime__V1__PullImageResponse *m = call(IMAGES, "PullImage", &q);
    assert_ok(m);
    assert_string_equal(m->image_ref, IMAGE_ID);
    assert_string_equal(model.id, "registry.test/x:1");
    assert_false(model.has_auth);
    /* What is empty is absent. */
    auth.username = text("me");
    q.auth = &auth;
    assert_ok(call(IMAGES, "PullImage", &q));
    assert_true(model.has_auth);
    assert_non_null(model.auth.username);
    assert_null(model.auth.password);
    assert_null(model.auth.identity_token);
}

static void test_remove_image_and_usage(void **state)
{
    Runtime__V1__RemoveImageRequest rm = RUNTIME__V1__REMOVE_IMAGE_REQUEST__INIT;
    Runtime__V1__ImageFsInfoRequest q = RUNTIME__V1__IMAGE_FS_INFO_REQUEST__INIT;
    Runtime__V1__ImageSpec spec = RUNTIME__V1__IMAGE_SPEC__INIT;

    (void)state;
    spec.image = text("x");
    rm.image = &spec;
    assert_ok(call(IMAGES, "RemoveImage", &rm));
    assert_string_equal(model.id, "x");
    const Runtime__V1__ImageFsInfoResponse *m = call(IMAGES, "ImageFsInfo", &q);
    assert_ok(m);
    assert_int_equal(m->n_image_filesystems, 1);
    assert_string_equal(m->image_filesystems[0]->fs_id->mountpoint, "/state/images");
    assert_int_equal(m->image_filesystems[0]->used_bytes->value, 222);
    assert_int_equal(m->image_filesystems[0]->inodes_used->value, 22);
    assert_true(m->image_filesystems[0]->timestamp > 0);
    assert_string_equal(m->container_filesystems[0]->fs_id->mountpoint, "/state/pods");
    assert_int_equal(m->container_filesystems[0]->used_bytes->value, 111);
}

/* ---- casemate's own service ---- */

struct stream {
    int messages;
    int64_t bytes_done; /* of the first */
    size_t n_ids;       /* in the last */
    bool ended;
    enum err_code code;
};

static void on_progress(void *arg, const ProtobufCMessage *message)
{
    const Casemate__Control__V1__ImageProgress *p =
        (const Casemate__Control__V1__ImageProgress *)message;
    struct stream *s = arg;
    if (s->messages++ == 0)
        s->bytes_done = (int64_t)p->bytes_done;
    s->n_ids = p->n_image_ids;
}

static void on_stream_end(void *arg, const struct err *err)
{
    struct stream *s = arg;
    s->ended = true;
    s->code = err == NULL ? ERR_NONE : err->code;
    if (err != NULL)
        fx.err = *err;
}

static struct stream stream(const char *method, const void *request)
{
    const struct rpc_target target = {CONTROL, NULL, method};
    struct stream s = {0};
    const struct rpc_call_handlers handlers = {
        .on_message = on_progress, .on_end = on_stream_end, .arg = &s};
    struct rpc_client_call *c;
    int64_t give_up = clock_deadline(PATIENCE_MS);

    must(rpc_client_start(fx.client, &target, request, give_up, &handlers, &c, &fx.err));
    while (!s.ended)
        must(loop_run_once(fx.loop, clock_poll_timeout(give_up), &fx.err));
    return s;
}

static void test_control_images(void **state)
{
    Casemate__Control__V1__ImportImageRequest import =
        CASEMATE__CONTROL__V1__IMPORT_IMAGE_REQUEST__INIT;
    Casemate__Control__V1__PullImageRequest pull = CASEMATE__CONTROL__V1__PULL_IMAGE_REQUEST__INIT;

    (void)state;
    import.path = text("layout");
    struct stream s = stream("ImportImage", &import);
    assert_int_equal(s.code, ERR_INVALID);
    assert_int_equal(model.calls, 0);
    import.path = text("/tmp/layout");
    s = stream("ImportImage", &import);
    assert_int_equal(s.code, ERR_NONE);
    assert_int_equal(s.messages, 2);
    assert_int_equal(s.bytes_done, 7);
    assert_int_equal(s.n_ids, 2);
    assert_string_equal(model.id, "/tmp/layout");

    pull.reference = text("x:1");
    s = stream("PullImage", &pull);
    assert_int_equal(s.code, ERR_NONE);
    assert_int_equal(s.messages, 2);
    assert_int_equal(s.n_ids, 1);
    assert_false(model.has_auth);
    pull.username = text("me");
    model.failure = ERR_DENIED;
    s = stream("PullImage", &pull);
    assert_int_equal(s.code, ERR_DENIED);
    assert_string_equal(fx.err.msg, model.words);
    assert_true(model.has_auth);
}

static void test_control_info(void **state)
{
    Casemate__Control__V1__InfoRequest q = CASEMATE__CONTROL__V1__INFO_REQUEST__INIT;

    (void)state;
    (void)snprintf(fx.status.accelerator, sizeof(fx.status.accelerator), "kvm");
    (void)snprintf(fx.status.runtime_message, sizeof(fx.status.runtime_message), "a remark");
    const Casemate__Control__V1__InfoReply *m = call(CONTROL, "Info", &q);
    assert_ok(m);
    assert_string_equal(m->version, CASEMATE_VERSION);
    assert_string_equal(m->accelerator, "kvm");
    assert_string_equal(m->problem, "");
    fx.status.runtime_ready = false;
    m = call(CONTROL, "Info", &q);
    assert_ok(m);
    assert_string_equal(m->problem, "a remark");
}

static void test_control_metrics(void **state)
{
    Casemate__Control__V1__MetricsRequest q = CASEMATE__CONTROL__V1__METRICS_REQUEST__INIT;

    (void)state;
    const Casemate__Control__V1__MetricsReply *m = call(CONTROL, "Metrics", &q);
    assert_ok(m);
    assert_int_equal(m->n_start_phases, PHASES);
    assert_string_equal(m->start_phases[PHASE_POD]->name, "pod");
    assert_int_equal(m->start_phases[PHASE_POD]->n_counts, PHASE_BUCKETS + 1);
    assert_int_equal(m->start_phases[PHASE_POD]->counts[PHASE_BUCKETS], 5);
    assert_int_equal(m->start_phases[PHASE_START]->bounds_us[0], 1000);
    assert_int_equal(m->start_phases[PHASE_START]->sum_us, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_codes),
        TEST(test_every_method_fails),
        TEST(test_deadline_reaches_the_model),
        TEST(test_out_of_time),
        TEST(test_required_fields),
        TEST(test_no_network),
        TEST(test_unknown_methods),
        TEST(test_run_pod),
        TEST(test_stop_and_remove_pod),
        TEST(test_update_pod),
        TEST(test_pod_status),
        TEST(test_pod_namespaces),
        TEST(test_list_pods),
        TEST(test_container_life),
        TEST(test_container_status),
        TEST(test_list_containers),
        TEST(test_exec),
        TEST(test_version),
        TEST(test_status),
        TEST(test_runtime_config),
        TEST(test_update_runtime_config),
        TEST(test_image_status),
        TEST(test_list_images),
        TEST(test_pull_image),
        TEST(test_remove_image_and_usage),
        TEST(test_control_images),
        TEST(test_control_info),
        TEST(test_control_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
