/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's configuration of a pod and a container: the first two bytes say how long the first
 * is, then come both as the wire has them. What the checks let through becomes a request, and that
 * is held against the agent's own checks: what the agent would refuse about who the process is and
 * what it may do, the host must have refused before.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/container/validate.h"
#include "host/image/image.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/crivalid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A profile would be read from this machine's disk. */
static int reads_file(const Runtime__V1__ContainerConfig *config)
{
    const Runtime__V1__LinuxContainerSecurityContext *security =
        config->linux == NULL ? NULL : config->linux->security_context;

    return security != NULL &&
           ((security->seccomp != NULL && *security->seccomp->localhost_ref != '\0') ||
            strncmp(security->seccomp_profile_path, "localhost/", 10) == 0);
}

/* What only the agent judges: paths, files of cgroups, lengths and counts. */
static int is_left_to_agent(const char *message)
{
    static const char *const begins[] = {"masked_paths",  "readonly_paths",
                                         "resources",     "args",
                                         "env",           "cwd",
                                         "pid_target_id", "user.additional_gids: more"};

    for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
        if (strncmp(message, begins[i], strlen(begins[i])) == 0)
            return 1;
    }
    return 0;
}

static void check_request(const Runtime__V1__PodSandboxConfig *pod,
                          const Runtime__V1__ContainerConfig *config)
{
    const struct crispec_disk disks[] = {{.lun = 1}};
    struct image_layer layer = {.fs_type = "squashfs", .diff_id = "sha256:2", .size_bytes = 4096};
    struct image image = {.id = "sha256:1",
                          .user = "",
                          .username = "",
                          .working_dir = "",
                          .stop_signal = "",
                          .layers = &layer,
                          .n_layers = 1};
    struct crispec_input input = {
        .id = "c1", .config = config, .pod = pod, .image = &image, .disks = disks, .hostname = "h"};
    struct crispec *spec = NULL;
    struct err err = {0};

    if (crispec_new(&input, &spec, &err) != 0)
        return;
    if (validate_create(crispec_request(spec), &err) != 0 && !is_left_to_agent(err.msg)) {
        (void)fprintf(stderr, "passed on the host, refused in the guest: %s\n", err.msg);
        abort();
    }
    crispec_free(spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Runtime__V1__PodSandboxConfig *pod = NULL;
    Runtime__V1__ContainerConfig *config = NULL;
    struct err err = {0};
    char unknown[64];
    size_t n;

    if (size < 2)
        return 0;
    n = (size_t)data[0] | (size_t)data[1] << 8;
    data += 2;
    size -= 2;
    n = n < size ? n : size;
    pod = runtime__v1__pod_sandbox_config__unpack(NULL, n, data);
    config = runtime__v1__container_config__unpack(NULL, size - n, data + n);
    if (pod != NULL && config != NULL && !reads_file(config)) {
        (void)crivalid_has_unknown(&pod->base, unknown, sizeof(unknown));
        (void)crivalid_has_unknown(&config->base, unknown, sizeof(unknown));
        if (crivalid_pod(pod, &err) == 0 && crivalid_container(config, pod, &err) == 0)
            check_request(pod, config);
        else if (err.code == ERR_NONE || err.msg[0] == '\0')
            abort();
    }
    if (pod != NULL)
        runtime__v1__pod_sandbox_config__free_unpacked(pod, NULL);
    if (config != NULL)
        runtime__v1__container_config__free_unpacked(config, NULL);
    return 0;
}
