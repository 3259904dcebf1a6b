/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of containers and pods. Figures that a guest did not tell are absent, not zero: the
 * kubelet tells the two apart. Pressure totals are nanoseconds in CRI and microseconds in the
 * kernel.
 */
#include <string.h>

#include "common/base/clock.h"
#include "host/cri/method.h"
#include "host/cri/usage.h"
#include "host/sandbox/stats.h"

static void release_container(void *object)
{
    sandbox_container_stats_fini(object);
}

static void release_pod(void *object)
{
    sandbox_pod_stats_fini(object);
}

static void release_list(void *object)
{
    sandbox_stats_list_fini(object);
}

/* ---- one container ---- */

static int make_attributes(const struct cri_ctx *ctx, const struct sandbox_container_info *info,
                           Runtime__V1__ContainerAttributes **ret, struct err *err)
{
    const Runtime__V1__ContainerConfig *c = info->config;
    Runtime__V1__ContainerAttributes *a;
    if (cri_make(ctx, &a, runtime__v1__container_attributes__init) < 0 ||
        cri_text(ctx, info->id, &a->id, err) < 0 ||
        cri_map(ctx, c->n_labels, c->labels,
                &runtime__v1__container_attributes__labels_entry__descriptor, &a->labels,
                err) < 0 ||
        cri_map(ctx, c->n_annotations, c->annotations,
                &runtime__v1__container_attributes__annotations_entry__descriptor, &a->annotations,
                err) < 0)
        return -1;
    a->metadata = c->metadata;
    a->n_labels = c->n_labels;
    a->n_annotations = c->n_annotations;
    *ret = a;
    return 0;
}

static int make_layer(const struct cri_ctx *ctx, const struct sandbox_container_stats *stats,
                      Runtime__V1__FilesystemUsage **ret, struct err *err)
{
    struct sandbox_fs_info fs;
    Runtime__V1__FilesystemUsage *u;
    if (!stats->has_layer)
        return 0;
    if (sandbox_fs_info(ctx->cri->config.sandboxes, &fs, err) < 0 ||
        cri_make(ctx, &u, runtime__v1__filesystem_usage__init) < 0 ||
        cri_make(ctx, &u->fs_id, runtime__v1__filesystem_identifier__init) < 0 ||
        cri_text(ctx, fs.mountpoint, &u->fs_id->mountpoint, err) < 0 ||
        cri_uint64(ctx, stats->layer_bytes, &u->used_bytes, err) < 0 ||
        cri_uint64(ctx, stats->layer_inodes, &u->inodes_used, err) < 0)
        return -1;
    u->timestamp = stats->time_ns;
    *ret = u;
    return 0;
}

static int make_container(const struct cri_ctx *ctx, const struct sandbox_container_stats *stats,
                          Runtime__V1__ContainerStats **ret, struct err *err)
{
    struct cri_sample sample = {
        .usage = &stats->usage, .rate = stats->rate, .time_ns = stats->time_ns};
    Runtime__V1__ContainerStats *s;
    if (cri_make(ctx, &s, runtime__v1__container_stats__init) < 0 ||
        make_attributes(ctx, &stats->info, &s->attributes, err) < 0)
        return -1;
    *ret = s;
    if (!stats->known)
        return 0;
    if (cri_make_cpu(ctx, &sample, &s->cpu, err) < 0 ||
        cri_make_memory(ctx, &sample, &s->memory, err) < 0 ||
        cri_make_swap(ctx, &sample, &s->swap, err) < 0 ||
        cri_make_io(ctx, &sample, &s->io, err) < 0 ||
        make_layer(ctx, stats, &s->writable_layer, err) < 0)
        return -1;
    return 0;
}

static int method_container_stats(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                  struct err *err)
{
    const Runtime__V1__ContainerStatsRequest *q =
        (const Runtime__V1__ContainerStatsRequest *)ctx->request;
    struct sandbox_container_stats *stats = cri_hold(ctx, sizeof(*stats), release_container);
    Runtime__V1__ContainerStatsResponse *m;
    if (stats == NULL)
        return err_no_memory(err);
    if (sandbox_stats_container(ctx->cri->config.sandboxes, q->container_id, ctx->deadline_ms,
                                stats, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__container_stats_response__init) < 0 ||
        make_container(ctx, stats, &m->stats, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

/* ---- lists ---- */

/* The entries of every map<string, string> have one shape: those of one filter do for another. */
static Runtime__V1__ContainerFilter container_filter(const Runtime__V1__ContainerStatsFilter *from)
{
    Runtime__V1__ContainerFilter filter = RUNTIME__V1__CONTAINER_FILTER__INIT;
    if (from != NULL) {
        filter.id = from->id;
        filter.pod_sandbox_id = from->pod_sandbox_id;
        filter.n_label_selector = from->n_label_selector;
        memcpy(&filter.label_selector, &from->label_selector, sizeof(void *));
    }
    return filter;
}

static int list_stats(struct cri_ctx *ctx, const Runtime__V1__PodSandboxFilter *pods,
                      const Runtime__V1__ContainerFilter *containers,
                      struct sandbox_stats_list **ret_list, struct err *err)
{
    struct sandbox_stats_list *list = cri_hold(ctx, sizeof(*list), release_list);
    if (list == NULL)
        return err_no_memory(err);
    if (sandbox_stats_list(ctx->cri->config.sandboxes, pods, containers, ctx->deadline_ms, list,
                           err) < 0)
        return -1;
    *ret_list = list;
    return 0;
}

static int method_list_container_stats(struct cri_ctx *ctx, ProtobufCMessage **ret_reply,
                                       struct err *err)
{
    const Runtime__V1__ListContainerStatsRequest *q =
        (const Runtime__V1__ListContainerStatsRequest *)ctx->request;
    Runtime__V1__PodSandboxFilter pods = RUNTIME__V1__POD_SANDBOX_FILTER__INIT;
    Runtime__V1__ContainerFilter containers = container_filter(q->filter);
    struct sandbox_stats_list *list;
    Runtime__V1__ListContainerStatsResponse *m;
    size_t n = 0;
    pods.id = containers.pod_sandbox_id;
    if (list_stats(ctx, &pods, &containers, &list, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__list_container_stats_response__init) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++)
        n += list->pods[i].n_containers;
    if (cri_array(ctx, n, &m->stats, err) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++) {
        for (size_t j = 0; j < list->pods[i].n_containers; j++) {
            if (make_container(ctx, &list->pods[i].containers[j], &m->stats[m->n_stats], err) < 0)
                return -1;
            m->n_stats++;
        }
    }
    *ret_reply = &m->base;
    return 0;
}

/* ---- pods ---- */

static int make_pod_attributes(const struct cri_ctx *ctx, const struct sandbox_info *info,
                               Runtime__V1__PodSandboxAttributes **ret, struct err *err)
{
    const Runtime__V1__PodSandboxConfig *c = info->config;
    Runtime__V1__PodSandboxAttributes *a;
    if (cri_make(ctx, &a, runtime__v1__pod_sandbox_attributes__init) < 0 ||
        cri_text(ctx, info->id, &a->id, err) < 0 ||
        cri_map(ctx, c->n_labels, c->labels,
                &runtime__v1__pod_sandbox_attributes__labels_entry__descriptor, &a->labels,
                err) < 0 ||
        cri_map(ctx, c->n_annotations, c->annotations,
                &runtime__v1__pod_sandbox_attributes__annotations_entry__descriptor,
                &a->annotations, err) < 0)
        return -1;
    a->metadata = c->metadata;
    a->n_labels = c->n_labels;
    a->n_annotations = c->n_annotations;
    *ret = a;
    return 0;
}

static int make_interface(const struct cri_ctx *ctx, const struct guest_interface_stats *from,
                          Runtime__V1__NetworkInterfaceUsage **ret, struct err *err)
{
    Runtime__V1__NetworkInterfaceUsage *u;
    if (cri_make(ctx, &u, runtime__v1__network_interface_usage__init) < 0 ||
        cri_text(ctx, from->name, &u->name, err) < 0 ||
        cri_uint64(ctx, from->rx_bytes, &u->rx_bytes, err) < 0 ||
        cri_uint64(ctx, from->rx_errors, &u->rx_errors, err) < 0 ||
        cri_uint64(ctx, from->tx_bytes, &u->tx_bytes, err) < 0 ||
        cri_uint64(ctx, from->tx_errors, &u->tx_errors, err) < 0)
        return -1;
    *ret = u;
    return 0;
}

/* eth0 is the default one, as CNI makes it; without one of that name, the first. */
static int make_network(const struct cri_ctx *ctx, const struct sandbox_pod_stats *stats,
                        Runtime__V1__NetworkUsage **ret, struct err *err)
{
    const struct guest_stats *guest = &stats->guest;
    Runtime__V1__NetworkUsage *u;
    if (cri_make(ctx, &u, runtime__v1__network_usage__init) < 0 ||
        cri_array(ctx, guest->n_interfaces, &u->interfaces, err) < 0)
        return -1;
    u->timestamp = stats->time_ns;
    for (size_t i = 0; i < guest->n_interfaces; i++) {
        if (make_interface(ctx, &guest->interfaces[i], &u->interfaces[i], err) < 0)
            return -1;
        u->n_interfaces++;
        if (i == 0 || strcmp(guest->interfaces[i].name, "eth0") == 0)
            u->default_interface = u->interfaces[i];
    }
    *ret = u;
    return 0;
}

static int make_pod(const struct cri_ctx *ctx, const struct sandbox_pod_stats *stats,
                    Runtime__V1__PodSandboxStats **ret, struct err *err)
{
    struct cri_sample sample = {
        .usage = &stats->guest.pod, .rate = stats->rate, .time_ns = stats->time_ns};
    Runtime__V1__PodSandboxStats *s;
    Runtime__V1__LinuxPodSandboxStats *l;
    if (cri_make(ctx, &s, runtime__v1__pod_sandbox_stats__init) < 0 ||
        make_pod_attributes(ctx, &stats->info, &s->attributes, err) < 0 ||
        cri_make(ctx, &l, runtime__v1__linux_pod_sandbox_stats__init) < 0 ||
        cri_array(ctx, stats->n_containers, &l->containers, err) < 0)
        return -1;
    s->linux = l;
    *ret = s;
    if (!stats->known)
        return 0;
    if (cri_make_cpu(ctx, &sample, &l->cpu, err) < 0 ||
        cri_make_memory(ctx, &sample, &l->memory, err) < 0 ||
        cri_make_io(ctx, &sample, &l->io, err) < 0 ||
        make_network(ctx, stats, &l->network, err) < 0 ||
        cri_make(ctx, &l->process, runtime__v1__process_usage__init) < 0 ||
        cri_uint64(ctx, stats->guest.pod.processes, &l->process->process_count, err) < 0)
        return -1;
    l->process->timestamp = stats->time_ns;
    for (size_t i = 0; i < stats->n_containers; i++) {
        if (make_container(ctx, &stats->containers[i], &l->containers[i], err) < 0)
            return -1;
        l->n_containers++;
    }
    return 0;
}

static int method_pod_stats(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__PodSandboxStatsRequest *q =
        (const Runtime__V1__PodSandboxStatsRequest *)ctx->request;
    struct sandbox_pod_stats *stats = cri_hold(ctx, sizeof(*stats), release_pod);
    Runtime__V1__PodSandboxStatsResponse *m;
    if (stats == NULL)
        return err_no_memory(err);
    if (sandbox_stats_pod(ctx->cri->config.sandboxes, q->pod_sandbox_id, ctx->deadline_ms, stats,
                          err) < 0 ||
        cri_make(ctx, &m, runtime__v1__pod_sandbox_stats_response__init) < 0 ||
        make_pod(ctx, stats, &m->stats, err) < 0)
        return -1;
    *ret_reply = &m->base;
    return 0;
}

static int method_list_pod_stats(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    const Runtime__V1__ListPodSandboxStatsRequest *q =
        (const Runtime__V1__ListPodSandboxStatsRequest *)ctx->request;
    Runtime__V1__PodSandboxFilter pods = RUNTIME__V1__POD_SANDBOX_FILTER__INIT;
    struct sandbox_stats_list *list;
    Runtime__V1__ListPodSandboxStatsResponse *m;
    if (q->filter != NULL) {
        pods.id = q->filter->id;
        pods.n_label_selector = q->filter->n_label_selector;
        memcpy(&pods.label_selector, &q->filter->label_selector, sizeof(void *));
    }
    if (list_stats(ctx, &pods, NULL, &list, err) < 0 ||
        cri_make(ctx, &m, runtime__v1__list_pod_sandbox_stats_response__init) < 0 ||
        cri_array(ctx, list->n, &m->stats, err) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++) {
        if (make_pod(ctx, &list->pods[i], &m->stats[i], err) < 0)
            return -1;
        m->n_stats++;
    }
    *ret_reply = &m->base;
    return 0;
}

const struct cri_method *cri_stats_methods(void)
{
    static const struct cri_method methods[] = {
        {.name = "ContainerStats", .fn = method_container_stats},
        {.name = "ListContainerStats", .fn = method_list_container_stats},
        {.name = "PodSandboxStats", .fn = method_pod_stats},
        {.name = "ListPodSandboxStats", .fn = method_list_pod_stats},
        {.name = NULL},
    };
    return methods;
}
