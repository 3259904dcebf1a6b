/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics of pods and containers under the names that cAdvisor gave them, which dashboards know;
 * and what the host sees of a pod's machine, which is the pod's cost beyond its containers. A value
 * is a whole number in CRI, so that seconds are rounded down. One table says what there is: the
 * descriptors are it, and every metric is made from a row of it.
 */
#include "host/cri/method.h"
#include "host/cri/usage.h"
#include "host/sandbox/stats.h"

typedef uint64_t (*container_value)(const struct sandbox_container_stats *s);
typedef uint64_t (*pod_value)(const struct sandbox_pod_stats *s);

struct row {
    const char *name;
    const char *help;
    Runtime__V1__MetricType type;
    container_value container; /* NULL: of pods only */
    pod_value pod;             /* NULL: of containers only */
};

#define NS_PER_S 1000000000u

static uint64_t container_cpu(const struct sandbox_container_stats *s)
{
    return s->usage.cpu_ns / NS_PER_S;
}
static uint64_t pod_cpu(const struct sandbox_pod_stats *s)
{
    return s->guest.pod.cpu_ns / NS_PER_S;
}
static uint64_t container_memory(const struct sandbox_container_stats *s)
{
    return s->usage.memory_bytes;
}
static uint64_t pod_memory(const struct sandbox_pod_stats *s)
{
    return s->guest.pod.memory_bytes;
}
static uint64_t container_working_set(const struct sandbox_container_stats *s)
{
    return s->usage.working_set_bytes;
}
static uint64_t pod_working_set(const struct sandbox_pod_stats *s)
{
    return s->guest.pod.working_set_bytes;
}
static uint64_t container_rss(const struct sandbox_container_stats *s)
{
    return s->usage.rss_bytes;
}
static uint64_t pod_rss(const struct sandbox_pod_stats *s)
{
    return s->guest.pod.rss_bytes;
}
static uint64_t container_swap(const struct sandbox_container_stats *s)
{
    return s->usage.swap_bytes;
}
static uint64_t container_limit(const struct sandbox_container_stats *s)
{
    return s->usage.memory_limit_bytes;
}
static uint64_t container_oom(const struct sandbox_container_stats *s)
{
    return s->usage.oom_kills;
}
static uint64_t container_processes(const struct sandbox_container_stats *s)
{
    return s->usage.processes;
}
static uint64_t pod_processes(const struct sandbox_pod_stats *s)
{
    return s->guest.pod.processes;
}
static uint64_t container_fs(const struct sandbox_container_stats *s)
{
    return s->layer_bytes;
}
static uint64_t pod_received(const struct sandbox_pod_stats *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->guest.n_interfaces; i++)
        sum += s->guest.interfaces[i].rx_bytes;
    return sum;
}
static uint64_t pod_sent(const struct sandbox_pod_stats *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->guest.n_interfaces; i++)
        sum += s->guest.interfaces[i].tx_bytes;
    return sum;
}
static uint64_t machine_memory(const struct sandbox_pod_stats *s)
{
    return s->vm_rss_bytes;
}
static uint64_t machine_cpu(const struct sandbox_pod_stats *s)
{
    return s->vm_cpu_ns / NS_PER_S;
}
static uint64_t machine_size(const struct sandbox_pod_stats *s)
{
    return s->guest.vm_memory_bytes;
}

#define COUNTER RUNTIME__V1__METRIC_TYPE__COUNTER
#define GAUGE   RUNTIME__V1__METRIC_TYPE__GAUGE

static const struct row rows[] = {
    {"container_cpu_usage_seconds_total", "CPU time used, whole seconds.", COUNTER, container_cpu,
     pod_cpu},
    {"container_memory_usage_bytes", "Memory used, file pages included.", GAUGE, container_memory,
     pod_memory},
    {"container_memory_working_set_bytes", "Memory used, inactive file pages aside.", GAUGE,
     container_working_set, pod_working_set},
    {"container_memory_rss", "Anonymous memory used.", GAUGE, container_rss, pod_rss},
    {"container_memory_swap", "Swap used.", GAUGE, container_swap, NULL},
    {"container_spec_memory_limit_bytes", "Limit of memory; 0: none.", GAUGE, container_limit,
     NULL},
    {"container_oom_events_total", "Processes killed for want of memory.", COUNTER, container_oom,
     NULL},
    {"container_processes", "Processes.", GAUGE, container_processes, pod_processes},
    {"container_fs_usage_bytes", "Size of the writable layer.", GAUGE, container_fs, NULL},
    {"container_network_receive_bytes_total", "Bytes received.", COUNTER, NULL, pod_received},
    {"container_network_transmit_bytes_total", "Bytes sent.", COUNTER, NULL, pod_sent},
    {"casemate_machine_resident_bytes", "Host memory of the pod's virtual machine.", GAUGE, NULL,
     machine_memory},
    {"casemate_machine_cpu_seconds_total", "Host CPU time of the pod's virtual machine.", COUNTER,
     NULL, machine_cpu},
    {"casemate_machine_memory_bytes", "Memory that the virtual machine has for its guest.", GAUGE,
     NULL, machine_size},
};

static const char *const label_keys[] = {"id", "name", "namespace", "pod"};

static int make_labels(const struct cri_ctx *ctx, const char *const *values, char ***ret_list,
                       size_t *ret_n, struct err *err)
{
    char **list;
    if (cri_array(ctx, ARRAY_SIZE(label_keys), &list, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(label_keys); i++) {
        if (cri_text(ctx, values[i], &list[i], err) < 0)
            return -1;
    }
    *ret_list = list;
    *ret_n = ARRAY_SIZE(label_keys);
    return 0;
}

static int method_descriptors(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    Runtime__V1__ListMetricDescriptorsResponse *m;
    if (cri_make(ctx, &m, runtime__v1__list_metric_descriptors_response__init) < 0 ||
        cri_array(ctx, ARRAY_SIZE(rows), &m->descriptors, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        Runtime__V1__MetricDescriptor *d;
        if (cri_make(ctx, &d, runtime__v1__metric_descriptor__init) < 0 ||
            cri_text(ctx, rows[i].name, &d->name, err) < 0 ||
            cri_text(ctx, rows[i].help, &d->help, err) < 0 ||
            make_labels(ctx, label_keys, &d->label_keys, &d->n_label_keys, err) < 0)
            return -1;
        m->descriptors[m->n_descriptors++] = d;
    }
    *ret_reply = &m->base;
    return 0;
}

static int make_metric(const struct cri_ctx *ctx, const struct row *row, uint64_t value,
                       const char *const *labels, Runtime__V1__Metric **ret, struct err *err)
{
    Runtime__V1__Metric *metric;
    if (cri_make(ctx, &metric, runtime__v1__metric__init) < 0 ||
        cri_text(ctx, row->name, &metric->name, err) < 0 ||
        make_labels(ctx, labels, &metric->label_values, &metric->n_label_values, err) < 0 ||
        cri_uint64(ctx, value, &metric->value, err) < 0)
        return -1;
    metric->metric_type = row->type;
    *ret = metric;
    return 0;
}

static int make_container(const struct cri_ctx *ctx, const struct sandbox_container_stats *s,
                          const Runtime__V1__PodSandboxMetadata *pod,
                          Runtime__V1__ContainerMetrics **ret, struct err *err)
{
    const char *labels[] = {s->info.id, s->info.config->metadata->name, pod->namespace_, pod->name};
    Runtime__V1__ContainerMetrics *m;
    if (cri_make(ctx, &m, runtime__v1__container_metrics__init) < 0 ||
        cri_text(ctx, s->info.id, &m->container_id, err) < 0 ||
        cri_array(ctx, ARRAY_SIZE(rows), &m->metrics, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].container == NULL)
            continue;
        if (make_metric(ctx, &rows[i], rows[i].container(s), labels, &m->metrics[m->n_metrics],
                        err) < 0)
            return -1;
        m->n_metrics++;
    }
    *ret = m;
    return 0;
}

static int make_pod(const struct cri_ctx *ctx, const struct sandbox_pod_stats *s,
                    Runtime__V1__PodSandboxMetrics **ret, struct err *err)
{
    const Runtime__V1__PodSandboxMetadata *pod = s->info.config->metadata;
    const char *labels[] = {s->info.id, "POD", pod->namespace_, pod->name};
    Runtime__V1__PodSandboxMetrics *m;
    if (cri_make(ctx, &m, runtime__v1__pod_sandbox_metrics__init) < 0 ||
        cri_text(ctx, s->info.id, &m->pod_sandbox_id, err) < 0 ||
        cri_array(ctx, ARRAY_SIZE(rows), &m->metrics, err) < 0 ||
        cri_array(ctx, s->n_containers, &m->container_metrics, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        if (rows[i].pod == NULL)
            continue;
        if (make_metric(ctx, &rows[i], rows[i].pod(s), labels, &m->metrics[m->n_metrics], err) < 0)
            return -1;
        m->n_metrics++;
    }
    for (size_t i = 0; i < s->n_containers; i++) {
        if (make_container(ctx, &s->containers[i], pod, &m->container_metrics[i], err) < 0)
            return -1;
        m->n_container_metrics++;
    }
    *ret = m;
    return 0;
}

static void release_list(void *object)
{
    sandbox_stats_list_fini(object);
}

static int method_metrics(struct cri_ctx *ctx, ProtobufCMessage **ret_reply, struct err *err)
{
    struct sandbox_stats_list *list = cri_hold(ctx, sizeof(*list), release_list);
    Runtime__V1__ListPodSandboxMetricsResponse *m;
    if (list == NULL)
        return err_no_memory(err);
    if (sandbox_stats_list(ctx->cri->config.sandboxes, NULL, NULL, ctx->deadline_ms, list, err) <
            0 ||
        cri_make(ctx, &m, runtime__v1__list_pod_sandbox_metrics_response__init) < 0 ||
        cri_array(ctx, list->n, &m->pod_metrics, err) < 0)
        return -1;
    for (size_t i = 0; i < list->n; i++) {
        if (make_pod(ctx, &list->pods[i], &m->pod_metrics[i], err) < 0)
            return -1;
        m->n_pod_metrics++;
    }
    *ret_reply = &m->base;
    return 0;
}

const struct cri_method *cri_metric_methods(void)
{
    static const struct cri_method methods[] = {
        {.name = "ListMetricDescriptors", .fn = method_descriptors},
        {.name = "ListPodSandboxMetrics", .fn = method_metrics},
        {.name = NULL},
    };
    return methods;
}
