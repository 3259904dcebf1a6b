/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. All guests are asked first and waited for then, so a list takes as long as
 * the slowest guest, and no longer than STATS_MS. What the guests say is matched by id with
 * snapshots of our own objects: a container that only the guest knows is not told of.
 *
 * A rate needs two samples; the earlier one is kept with the pod and the container.
 */
#include "host/sandbox/stats.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/sandbox/model.h"

#define STATS_MS    3000       /* for a guest to answer: a list must not wait for one that hangs */
#define RATE_MIN_NS 1000000000 /* between two samples of a rate */

void sandbox_container_stats_fini(struct sandbox_container_stats *stats)
{
    sandbox_container_info_fini(&stats->info);
    *stats = (struct sandbox_container_stats){0};
}

void sandbox_pod_stats_fini(struct sandbox_pod_stats *stats)
{
    sandbox_info_fini(&stats->info);
    guest_stats_fini(&stats->guest);
    for (size_t i = 0; i < stats->n_containers; i++)
        sandbox_container_stats_fini(&stats->containers[i]);
    free(stats->containers);
    *stats = (struct sandbox_pod_stats){0};
}

void sandbox_stats_list_fini(struct sandbox_stats_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        sandbox_pod_stats_fini(&list->pods[i]);
    free(list->pods);
    *list = (struct sandbox_stats_list){0};
}

/* ---- rates ---- */

/* Mutex held. */
static struct sandbox_rate update_rate(struct cpu_sample *sample, uint64_t cpu_ns)
{
    int64_t now_ns = clock_monotonic_ns();
    int64_t elapsed_ns = now_ns - sample->time_ns;

    if (sample->time_ns == 0 || cpu_ns < sample->cpu_ns) {
        *sample = (struct cpu_sample){.time_ns = now_ns, .cpu_ns = cpu_ns};
    } else if (elapsed_ns >= RATE_MIN_NS) {
        uint64_t used_ns = cpu_ns - sample->cpu_ns;
        *sample = (struct cpu_sample){
            .time_ns = now_ns,
            .cpu_ns = cpu_ns,
            .has_rate = true,
            .nano_cores = (uint64_t)((double)used_ns / (double)elapsed_ns * 1e9),
        };
    }
    return (struct sandbox_rate){.known = sample->has_rate, .nano_cores = sample->nano_cores};
}

static struct sandbox_rate container_rate(struct pod *pod, const char *id, uint64_t cpu_ns)
{
    struct sandbox_rate rate = {0};
    struct container *c;

    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (c, &pod->containers, entry) {
        if (strcmp(c->facts->id, id) == 0) {
            rate = update_rate(&c->cpu, cpu_ns);
            break;
        }
    }
    pthread_mutex_unlock(&pod->mutex);
    return rate;
}

/* ---- the host's view ---- */

/* The number of the n-th word (from 0) of a text; 0 if there is none. */
static uint64_t word_number(const char *text, unsigned n)
{
    while (n-- > 0) {
        text = strchr(text, ' ');
        if (text == NULL)
            return 0;
        text++;
    }
    return strtoull(text, NULL, 10);
}

/* What QEMU uses: /proc/PID/stat, proc(5); the fields are counted from behind the name. */
static void fill_vm(pid_t pid, struct sandbox_pod_stats *stats)
{
    cleanup_free char *path = text_printf("/proc/%d/stat", (int)pid);
    cleanup_free char *text = NULL;
    const char *rest;
    long ticks = sysconf(_SC_CLK_TCK), page = sysconf(_SC_PAGESIZE);
    struct err ignored;

    if (pid <= 0 || path == NULL || ticks <= 0 || page <= 0 ||
        fd_read_file(AT_FDCWD, path, 4096, &text, NULL, &ignored) != 0 ||
        (rest = strrchr(text, ')')) == NULL || rest[1] != ' ')
        return;
    rest += 2; /* at field 3, the state */
    stats->vm_known = true;
    stats->vm_cpu_ns =
        (word_number(rest, 14 - 3) + word_number(rest, 15 - 3)) * (1000000000u / (uint64_t)ticks);
    stats->vm_rss_bytes = word_number(rest, 24 - 3) * (uint64_t)page;
}

/* ---- asking ---- */

struct question {
    struct pod *pod; /* a reference; NULL: not asked */
    struct pod_use use;
    struct guest_stats_call *call;
};

/* Begins to ask a pod; one that cannot be asked is noted by an empty question. */
static int ask(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
               struct question *ret_question, struct err *err)
{
    struct question q = {0};

    if (manager_find_pod(mgr, id, &q.pod, err) != 0)
        return -1;
    if (pod_use_begin(q.pod, &q.use, err) != 0) {
        pod_unref(q.pod);
        return -1;
    }
    if (guest_stats_begin(q.use.guest, clock_earlier(deadline_ms, clock_deadline(STATS_MS)),
                          &q.call, err) != 0) {
        pod_use_end(&q.use);
        pod_unref(q.pod);
        return -1;
    }
    *ret_question = q;
    return 0;
}

static const struct guest_container_stats *find_answer(const struct guest_stats *guest,
                                                       const char *id)
{
    for (size_t i = 0; i < guest->n_containers; i++) {
        if (strcmp(guest->containers[i].container_id, id) == 0)
            return &guest->containers[i];
    }
    return NULL;
}

static void take_container(struct pod *pod, const struct guest_container_stats *from,
                           struct sandbox_container_stats *to)
{
    to->known = true;
    to->time_ns = clock_realtime_ns();
    to->usage = from->usage;
    to->has_layer = from->has_layer;
    to->layer_bytes = from->layer_bytes;
    to->layer_inodes = from->layer_inodes;
    to->rate = container_rate(pod, to->info.id, from->usage.cpu_ns);
}

/* Takes those of the pod's containers that the filter lets through and the guest knows. */
static int take_containers(struct question *q, const Runtime__V1__ContainerFilter *filter,
                           struct sandbox_pod_stats *stats, struct err *err)
{
    Runtime__V1__ContainerFilter mine;
    struct sandbox_container_list list = {0};

    if (filter != NULL)
        mine = *filter;
    else
        runtime__v1__container_filter__init(&mine);
    mine.pod_sandbox_id = q->pod->facts->id;
    if (sandbox_container_list(q->pod->mgr, &mine, &list, err) != 0)
        return -1;
    stats->containers = calloc(list.n + 1, sizeof(*stats->containers));
    for (size_t i = 0; stats->containers != NULL && i < list.n; i++) {
        const struct guest_container_stats *answer = find_answer(&stats->guest, list.items[i].id);
        struct sandbox_container_stats *to = &stats->containers[stats->n_containers];
        if (answer == NULL)
            continue;
        to->info = list.items[i];
        list.items[i] = (struct sandbox_container_info){0};
        take_container(q->pod, answer, to);
        stats->n_containers++;
    }
    sandbox_container_list_fini(&list);
    return stats->containers != NULL ? 0 : err_no_memory(err);
}

/* Waits for the answer and ends the question. */
static int answer(struct question *q, const Runtime__V1__ContainerFilter *filter,
                  struct sandbox_pod_stats *stats, struct err *err)
{
    int result = guest_stats_end(q->call, &stats->guest, err);

    if (result == 0) {
        stats->known = true;
        stats->time_ns = clock_realtime_ns();
        pthread_mutex_lock(&q->pod->mutex);
        stats->rate = update_rate(&q->pod->cpu, stats->guest.pod.cpu_ns);
        pthread_mutex_unlock(&q->pod->mutex);
        fill_vm(stats->info.vm_pid, stats);
        result = take_containers(q, filter, stats, err);
        free(stats->guest.containers);
        stats->guest.containers = NULL;
        stats->guest.n_containers = 0;
    }
    pod_use_end(&q->use);
    pod_unref(q->pod);
    return result;
}

/* Moves the pods that answer into the list. */
static void collect(struct question *questions, struct sandbox_list *pods,
                    const Runtime__V1__ContainerFilter *containers, struct sandbox_stats_list *list)
{
    struct err err;

    for (size_t i = 0; i < pods->n; i++) {
        struct sandbox_pod_stats *stats = &list->pods[list->n];
        if (questions[i].pod == NULL)
            continue;
        stats->info = pods->items[i];
        pods->items[i] = (struct sandbox_info){0};
        if (answer(&questions[i], containers, stats, &err) == 0) {
            list->n++;
            continue;
        }
        struct log_ctx ctx = {.sandbox = stats->info.id};
        log_event(LOG_WARN, &ctx, &err, "no statistics of the pod");
        sandbox_pod_stats_fini(stats);
    }
}

int sandbox_stats_list(struct sandbox_manager *mgr, const Runtime__V1__PodSandboxFilter *pods,
                       const Runtime__V1__ContainerFilter *containers, int64_t deadline_ms,
                       struct sandbox_stats_list *ret_list, struct err *err)
{
    cleanup_free struct question *questions = NULL;
    struct sandbox_stats_list list = {0};
    struct sandbox_list infos = {0};
    struct err ignored; /* a pod that has just gone */

    if (sandbox_list(mgr, pods, &infos, err) != 0)
        return -1;
    questions = calloc(infos.n + 1, sizeof(*questions));
    list.pods = calloc(infos.n + 1, sizeof(*list.pods));
    if (questions == NULL || list.pods == NULL) {
        sandbox_list_fini(&infos);
        free(list.pods);
        return err_no_memory(err);
    }
    for (size_t i = 0; i < infos.n; i++) {
        if (infos.items[i].ready)
            (void)ask(mgr, infos.items[i].id, deadline_ms, &questions[i], &ignored);
    }
    collect(questions, &infos, containers, &list);
    sandbox_list_fini(&infos);
    *ret_list = list;
    return 0;
}

int sandbox_stats_pod(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                      struct sandbox_pod_stats *ret_stats, struct err *err)
{
    struct sandbox_pod_stats stats = {0};
    struct question q;
    int result;

    if (sandbox_status(mgr, id, &stats.info, err) != 0)
        return -1;
    if (!stats.info.ready) {
        *ret_stats = stats;
        return 0;
    }
    result = ask(mgr, stats.info.id, deadline_ms, &q, err);
    if (result == 0)
        result = answer(&q, NULL, &stats, err);
    if (result != 0)
        sandbox_pod_stats_fini(&stats);
    else
        *ret_stats = stats;
    return result;
}

int sandbox_stats_container(struct sandbox_manager *mgr, const char *id, int64_t deadline_ms,
                            struct sandbox_container_stats *ret_stats, struct err *err)
{
    struct sandbox_container_stats stats = {0};
    const struct guest_container_stats *found;
    struct guest_stats guest = {0};
    struct question q;
    int result;

    if (sandbox_container_status(mgr, id, &stats.info, err) != 0)
        return -1;
    if (ask(mgr, stats.info.pod_id, deadline_ms, &q, err) != 0) {
        if (err->code != ERR_BAD_STATE) {
            sandbox_container_stats_fini(&stats);
            return -1;
        }
        *ret_stats = stats; /* no VM, nothing is used */
        return 0;
    }
    result = guest_stats_end(q.call, &guest, err);
    if (result == 0 && (found = find_answer(&guest, stats.info.id)) != NULL)
        take_container(q.pod, found, &stats);
    guest_stats_fini(&guest);
    pod_use_end(&q.use);
    pod_unref(q.pod);
    if (result != 0)
        sandbox_container_stats_fini(&stats);
    else
        *ret_stats = stats;
    return result;
}
