/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The reply is translated on the loop, where it comes: its message is gone
 * afterwards. Whoever waits is woken by the call's end, which the rpc client promises.
 */
#include "host/guest/stats.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "host/guest/internal.h"

#define WHOLE 10000 /* hundredths of a percent */

struct guest_stats_call {
    struct rpc_client_call *rpc;
    /* The loop's until done. */
    struct guest_stats stats;
    bool answered;
    bool failed;
    struct err err;
    /* Guarded by the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool done;
};

void guest_stats_fini(struct guest_stats *stats)
{
    free(stats->containers);
    free(stats->interfaces);
    *stats = (struct guest_stats){0};
}

static int take_pressure(const Casemate__Agent__V1__Pressure *from, struct guest_pressure *to,
                         struct err *err)
{
    if (from == NULL)
        return 0;
    if (from->some_avg10 > WHOLE || from->some_avg60 > WHOLE || from->some_avg300 > WHOLE ||
        from->full_avg10 > WHOLE || from->full_avg60 > WHOLE || from->full_avg300 > WHOLE)
        return err_set(err, ERR_PROTOCOL, "agent: a pressure above 100 %%");
    *to = (struct guest_pressure){
        .known = true,
        .some = {from->some_avg10, from->some_avg60, from->some_avg300, from->some_total},
        .full = {from->full_avg10, from->full_avg60, from->full_avg300, from->full_total},
    };
    return 0;
}

static int take_usage(const Casemate__Agent__V1__CgroupStats *from, struct guest_usage *to,
                      struct err *err)
{
    if (from == NULL)
        return err_set(err, ERR_PROTOCOL, "agent: statistics without a cgroup");
    *to = (struct guest_usage){
        .cpu_ns = from->cpu_usage_ns,
        .memory_bytes = from->memory_usage_bytes,
        .working_set_bytes = from->memory_working_set_bytes,
        .rss_bytes = from->memory_rss_bytes,
        .page_faults = from->memory_page_faults,
        .major_page_faults = from->memory_major_page_faults,
        .memory_limit_bytes = from->memory_limit_bytes,
        .swap_bytes = from->swap_usage_bytes,
        .swap_limit_bytes = from->swap_limit_bytes,
        .processes = from->processes,
        .oom_kills = from->oom_kills,
    };
    if (take_pressure(from->cpu_pressure, &to->cpu, err) != 0 ||
        take_pressure(from->memory_pressure, &to->memory, err) != 0 ||
        take_pressure(from->io_pressure, &to->io, err) != 0)
        return -1;
    return 0;
}

static int take_container(const Casemate__Agent__V1__ContainerStats *from,
                          struct guest_container_stats *to, struct err *err)
{
    size_t n = strlen(from->container_id);

    if (n == 0 || n >= sizeof(to->container_id) || !text_is_hex(from->container_id, n))
        return err_set(err, ERR_PROTOCOL, "agent: statistics of an unknown container");
    memcpy(to->container_id, from->container_id, n + 1);
    to->time_ns = from->time_ns;
    to->has_layer = from->has_layer;
    to->layer_bytes = from->layer_bytes;
    to->layer_inodes = from->layer_inodes;
    return take_usage(from->cgroup, &to->usage, err);
}

static int take_interface(const Casemate__Agent__V1__NetInterfaceStats *from,
                          struct guest_interface_stats *to, struct err *err)
{
    size_t n = strlen(from->name);

    if (n == 0 || n >= sizeof(to->name))
        return err_set(err, ERR_PROTOCOL, "agent: an interface's name of %zu bytes", n);
    for (size_t i = 0; i < n; i++) {
        if (from->name[i] <= 0x20 || from->name[i] >= 0x7f)
            return err_set(err, ERR_PROTOCOL, "agent: an odd name of an interface");
    }
    *to = (struct guest_interface_stats){
        .rx_bytes = from->rx_bytes,
        .rx_errors = from->rx_errors,
        .tx_bytes = from->tx_bytes,
        .tx_errors = from->tx_errors,
    };
    memcpy(to->name, from->name, n + 1);
    return 0;
}

static int take_lists(const Casemate__Agent__V1__StatsReply *from, struct guest_stats *to,
                      struct err *err)
{
    if (from->n_containers > GUEST_MAX_STATS || from->n_interfaces > GUEST_MAX_INTERFACES)
        return err_set(err, ERR_PROTOCOL, "agent: statistics of %zu containers, %zu interfaces",
                       from->n_containers, from->n_interfaces);
    to->containers = calloc(from->n_containers + 1, sizeof(*to->containers));
    to->interfaces = calloc(from->n_interfaces + 1, sizeof(*to->interfaces));
    if (to->containers == NULL || to->interfaces == NULL)
        return err_no_memory(err);
    for (; to->n_containers < from->n_containers; to->n_containers++) {
        if (take_container(from->containers[to->n_containers], &to->containers[to->n_containers],
                           err) != 0)
            return -1;
    }
    for (; to->n_interfaces < from->n_interfaces; to->n_interfaces++) {
        if (take_interface(from->interfaces[to->n_interfaces], &to->interfaces[to->n_interfaces],
                           err) != 0)
            return -1;
    }
    return 0;
}

static int take_stats(const Casemate__Agent__V1__StatsReply *from, struct guest_stats *to,
                      struct err *err)
{
    to->time_ns = from->time_ns;
    to->vm_memory_bytes = from->vm_memory_bytes;
    to->vm_memory_available_bytes = from->vm_memory_available_bytes;
    to->scratch_bytes = from->scratch_bytes;
    to->scratch_used_bytes = from->scratch_used_bytes;
    to->scratch_inodes = from->scratch_inodes;
    to->scratch_used_inodes = from->scratch_used_inodes;
    if (take_usage(from->pod, &to->pod, err) != 0)
        return -1;
    return take_lists(from, to, err);
}

static void on_message(void *arg, const ProtobufCMessage *message)
{
    struct guest_stats_call *call = arg;

    if (call->answered || call->failed)
        return;
    call->answered = true;
    if (take_stats((const Casemate__Agent__V1__StatsReply *)message, &call->stats, &call->err) != 0)
        call->failed = true;
}

static void on_end(void *arg, const struct err *err)
{
    struct guest_stats_call *call = arg;

    if (!call->failed && err != NULL) {
        call->failed = true;
        call->err = *err;
    } else if (!call->failed && !call->answered) {
        call->failed = true;
        err_set(&call->err, ERR_PROTOCOL, "agent: no answer");
    }
    pthread_mutex_lock(&call->mutex);
    call->done = true;
    pthread_cond_signal(&call->cond);
    pthread_mutex_unlock(&call->mutex);
}

static void call_free(struct guest_stats_call *call)
{
    pthread_cond_destroy(&call->cond);
    pthread_mutex_destroy(&call->mutex);
    guest_stats_fini(&call->stats);
    free(call);
}

int guest_stats_begin(struct guest *guest, int64_t deadline_ms, struct guest_stats_call **ret_call,
                      struct err *err)
{
    Casemate__Agent__V1__StatsRequest request;
    struct rpc_target target = guest_target("Stats");
    struct guest_stats_call *call = calloc(1, sizeof(*call));
    struct rpc_call_handlers handlers = {
        .on_message = on_message,
        .on_end = on_end,
        .arg = call,
        .keep = true,
    };

    if (call == NULL)
        return err_no_memory(err);
    pthread_mutex_init(&call->mutex, NULL);
    pthread_cond_init(&call->cond, NULL);
    casemate__agent__v1__stats_request__init(&request);
    if (guest_need_feature(guest, GUEST_STATS, err) != 0 ||
        rpc_client_start(guest_client(guest), &target, &request.base, deadline_ms, &handlers,
                         &call->rpc, err) != 0) {
        call_free(call);
        return err_prefix(err, "agent Stats");
    }
    *ret_call = call;
    return 0;
}

int guest_stats_end(struct guest_stats_call *call, struct guest_stats *ret_stats, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&call->mutex);
    while (!call->done)
        pthread_cond_wait(&call->cond, &call->mutex);
    pthread_mutex_unlock(&call->mutex);
    rpc_client_cancel(call->rpc);
    if (call->failed) {
        if (err != NULL)
            *err = call->err;
        result = err_prefix(err, "agent Stats");
    } else {
        *ret_stats = call->stats;
        call->stats = (struct guest_stats){0};
    }
    call_free(call);
    return result;
}
