/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. What a client said is kept as its message, decoded once from a copy of its
 * bytes and never changed: snapshots point into it and hold a reference, so a list of hundreds
 * copies nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "host/sandbox/model.h"

/* A deep copy of a message, through its encoding. */
static int copy_message(const ProtobufCMessage *message, ProtobufCMessage **ret_copy,
                        struct err *err)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    cleanup_free uint8_t *bytes = malloc(n + 1);
    ProtobufCMessage *copy;

    if (bytes == NULL)
        return err_no_memory(err);
    protobuf_c_message_pack(message, bytes);
    copy = protobuf_c_message_unpack(message->descriptor, NULL, n, bytes);
    if (copy == NULL)
        return err_no_memory(err);
    *ret_copy = copy;
    return 0;
}

struct pod_facts *pod_facts_new(const char *id, int64_t created_ns, const char *runtime_handler,
                                const Runtime__V1__PodSandboxConfig *config, struct err *err)
{
    struct pod_facts *facts = calloc(1, sizeof(*facts));
    ProtobufCMessage *copy = NULL;

    if (facts == NULL) {
        err_no_memory(err);
        return NULL;
    }
    atomic_init(&facts->refs, 1);
    (void)memccpy(facts->id, id, '\0', SANDBOX_ID_SIZE - 1);
    facts->created_ns = created_ns;
    facts->runtime_handler = strdup(text_or_empty(runtime_handler));
    if (facts->runtime_handler == NULL || copy_message(&config->base, &copy, err) != 0) {
        err_no_memory(err);
        pod_facts_unref(facts);
        return NULL;
    }
    facts->config = (Runtime__V1__PodSandboxConfig *)copy;
    return facts;
}

struct pod_facts *pod_facts_ref(struct pod_facts *facts)
{
    atomic_fetch_add(&facts->refs, 1);
    return facts;
}

void pod_facts_unref(struct pod_facts *facts)
{
    if (facts == NULL || atomic_fetch_sub(&facts->refs, 1) != 1)
        return;
    if (facts->config != NULL)
        runtime__v1__pod_sandbox_config__free_unpacked(facts->config, NULL);
    free(facts->runtime_handler);
    free(facts);
}

struct container_facts *container_facts_new(const char *id, const char *pod_id, int64_t created_ns,
                                            const Runtime__V1__ContainerConfig *config,
                                            struct err *err)
{
    struct container_facts *facts = calloc(1, sizeof(*facts));
    ProtobufCMessage *copy = NULL;

    if (facts == NULL) {
        err_no_memory(err);
        return NULL;
    }
    atomic_init(&facts->refs, 1);
    (void)memccpy(facts->id, id, '\0', SANDBOX_ID_SIZE - 1);
    (void)memccpy(facts->pod_id, pod_id, '\0', SANDBOX_ID_SIZE - 1);
    facts->created_ns = created_ns;
    if (copy_message(&config->base, &copy, err) != 0) {
        container_facts_unref(facts);
        return NULL;
    }
    facts->config = (Runtime__V1__ContainerConfig *)copy;
    return facts;
}

struct container_facts *container_facts_ref(struct container_facts *facts)
{
    atomic_fetch_add(&facts->refs, 1);
    return facts;
}

void container_facts_unref(struct container_facts *facts)
{
    if (facts == NULL || atomic_fetch_sub(&facts->refs, 1) != 1)
        return;
    if (facts->config != NULL)
        runtime__v1__container_config__free_unpacked(facts->config, NULL);
    if (facts->process != NULL)
        casemate__agent__v1__process__free_unpacked(facts->process, NULL);
    for (size_t i = 0; i < facts->n_disks; i++)
        free(facts->disks[i]);
    free(facts->disks);
    free(facts->image_id);
    free(facts->image_ref);
    free(facts->log_path);
    free(facts);
}

struct container_limits *container_limits_new(const Runtime__V1__LinuxContainerResources *message,
                                              struct err *err)
{
    struct container_limits *limits = calloc(1, sizeof(*limits));
    ProtobufCMessage *copy = NULL;

    if (limits == NULL) {
        err_no_memory(err);
        return NULL;
    }
    if (copy_message(&message->base, &copy, err) != 0) {
        free(limits);
        return NULL;
    }
    atomic_init(&limits->refs, 1);
    limits->message = (Runtime__V1__LinuxContainerResources *)copy;
    return limits;
}

struct container_limits *container_limits_ref(struct container_limits *limits)
{
    if (limits != NULL)
        atomic_fetch_add(&limits->refs, 1);
    return limits;
}

void container_limits_unref(struct container_limits *limits)
{
    if (limits == NULL || atomic_fetch_sub(&limits->refs, 1) != 1)
        return;
    runtime__v1__linux_container_resources__free_unpacked(limits->message, NULL);
    free(limits);
}

int facts_copy_process(const Casemate__Agent__V1__Process *process,
                       Casemate__Agent__V1__Process **ret_copy, struct err *err)
{
    ProtobufCMessage *copy = NULL;

    if (copy_message(&process->base, &copy, err) != 0)
        return -1;
    *ret_copy = (Casemate__Agent__V1__Process *)copy;
    return 0;
}

int container_facts_set_log_path(struct container_facts *facts,
                                 const Runtime__V1__PodSandboxConfig *pod, struct err *err)
{
    const char *dir = pod->log_directory;
    const char *path = facts->config->log_path;
    char *joined;

    if (*dir == '\0' || *path == '\0')
        joined = strdup("");
    else
        joined = text_printf("%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", path);
    if (joined == NULL)
        return err_no_memory(err);
    facts->log_path = joined;
    return 0;
}
