/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine has the memory that the configuration says, for the guest itself and containers without
 * a limit, and on top of that what the pod's containers may use together; and as many vCPUs as the
 * pod's CPU quota can keep busy. It boots with the configured size and grows, since all clones of a
 * template are born equal; only where machines boot anyway they boot as large as they should be.
 * The handler's bounds and the host's own size bound both: a limit is not a promise.
 *
 * A set of CPUs names the guest's own, which are numbered from 0: the machine also gets as many as
 * the highest number needs. A set beyond what it can have is for the guest to refuse, which knows
 * best.
 *
 * What the machine was told is kept, so that a container whose limits change nothing costs no
 * question to QEMU; a daemon that came back does not know it and tells it again. Less memory means
 * that the guest gives back what it can, down to what it booted with, never less.
 */
#include "host/sandbox/podsize.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/numset.h"
#include "common/base/text.h"
#include "host/sandbox/crivalid.h"
#include "host/sandbox/model.h"

#define MAX_VCPUS    64
#define MAX_MIB      (1024u * 1024)
#define QUOTA_PERIOD 100000
#define MIB          (1ull << 20)

#define ONLINE_PAUSE_MS 20

static uint32_t host_mib(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    uint64_t mib = pages < 1 || size < 1 ? 1024 : (uint64_t)pages * (uint64_t)size / MIB;

    return mib > MAX_MIB ? MAX_MIB : (uint32_t)mib;
}

static uint32_t host_cpus(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    return online < 1 ? 1 : online > MAX_VCPUS ? MAX_VCPUS : (uint32_t)online;
}

static uint32_t base_mib(const struct sandbox_handler *handler)
{
    return (uint32_t)((handler->memory_bytes + MIB - 1) / MIB);
}

typedef Runtime__V1__LinuxContainerResources resources;

struct limits {
    uint64_t memory; /* bytes; 0: no limit */
    uint64_t cpu;    /* thousandths; likewise */
    unsigned named;  /* the CPUs below this number */
};

/* What a container may use, as it is after updates; NULL: it has no limits. Mutex held. */
static const resources *limits_of(const struct container *c)
{
    const Runtime__V1__LinuxContainerConfig *linux_ = c->facts->config->linux;

    if (c->limits != NULL)
        return c->limits->message;
    return linux_ == NULL ? NULL : linux_->resources;
}

/* What `unified` says of the file, over the other fields; NULL: nothing. */
static const char *unified_of(const resources *r, const char *file)
{
    for (size_t i = 0; i < r->n_unified; i++) {
        if (strcmp(r->unified[i]->key, file) == 0)
            return r->unified[i]->value;
    }
    return NULL;
}

static uint64_t memory_of(const resources *r)
{
    const char *text = r == NULL ? NULL : unified_of(r, "memory.max");
    uint64_t bytes;

    /* "max" is no limit; one with a unit ("1G"), which the kernel takes, counts as none, too. */
    if (text != NULL)
        return text_parse_u64(text, UINT64_MAX, &bytes) < 0 ? 0 : bytes;
    return r == NULL || r->memory_limit_in_bytes <= 0 ? 0 : (uint64_t)r->memory_limit_in_bytes;
}

/* Thousandths of a CPU; 0: no limit. */
static uint64_t cpu_of(const resources *r)
{
    const char *text = r == NULL ? NULL : unified_of(r, "cpu.max");
    uint64_t quota, period;

    if (r == NULL)
        return 0;
    quota = r->cpu_quota > 0 ? (uint64_t)r->cpu_quota : 0;
    period = r->cpu_period > 0 ? (uint64_t)r->cpu_period : QUOTA_PERIOD;
    /* A quota alone leaves the period. "max", or what will be refused, is no limit. */
    if (text != NULL && (text[strspn(text, "0123456789 ")] != '\0' ||
                         sscanf(text, "%12" SCNu64 " %12" SCNu64, &quota, &period) < 1))
        return 0;
    /* Bounded so that the sum over containers cannot overflow. */
    if (period == 0 || quota / period >= MAX_VCPUS)
        return MAX_VCPUS * 1000;
    return (quota * 1000 + period - 1) / period;
}

static unsigned end_of_list(const char *list)
{
    struct numset set;
    struct err ignored;

    return numset_parse(list, &set, &ignored) != 0 ? 0 : numset_end(&set);
}

/* The CPUs that the sets name: all below this number. */
static unsigned named_by(const resources *r)
{
    const char *text = r == NULL ? NULL : unified_of(r, "cpuset.cpus");

    if (text != NULL)
        return end_of_list(text);
    return r == NULL ? 0 : end_of_list(r->cpuset_cpus);
}

static struct limits larger(struct limits a, struct limits b)
{
    return (struct limits){.memory = a.memory > b.memory ? a.memory : b.memory,
                           .cpu = a.cpu > b.cpu ? a.cpu : b.cpu,
                           .named = a.named > b.named ? a.named : b.named};
}

static struct limits read_limits(const resources *r)
{
    return (struct limits){.memory = memory_of(r), .cpu = cpu_of(r), .named = named_by(r)};
}

/* What a container needs; during an update it may have the old limits in the end, or the new ones.
 * Mutex held. */
static struct limits needs_of(const struct container *c)
{
    struct limits needs = read_limits(limits_of(c));

    return c->next_limits == NULL ? needs : larger(needs, read_limits(c->next_limits->message));
}

/* What the pod says for all its containers together, or what they say themselves if that is more:
 * as after an update, or when the client says nothing for the pod. */
static struct limits limits_of_all(struct pod *pod)
{
    const struct container *c;
    struct limits pods, sum = {0};

    pthread_mutex_lock(&pod->mutex);
    pods = read_limits(pod_resources(pod));
    pods.named = 0; /* a pod has no CPUs of its own */
    TAILQ_FOREACH (c, &pod->containers, entry) {
        struct limits needs = needs_of(c);
        if (c->state == CTR_EXITED || c->state == CTR_REMOVING)
            continue;
        sum.memory =
            needs.memory > UINT64_MAX - sum.memory ? UINT64_MAX : sum.memory + needs.memory;
        sum.cpu += needs.cpu;
        if (needs.named > sum.named)
            sum.named = needs.named;
    }
    pthread_mutex_unlock(&pod->mutex);
    return larger(sum, pods);
}

/* What a machine of the handler may grow to. */
static uint32_t most_mib(const struct sandbox_handler *handler)
{
    uint32_t host = host_mib();

    return handler->memory_max_mib != 0 && handler->memory_max_mib < host ? handler->memory_max_mib
                                                                          : host;
}

static uint32_t most_cpus(const struct sandbox_handler *handler)
{
    uint32_t host = host_cpus();

    return handler->vcpus_max != 0 && handler->vcpus_max < host ? handler->vcpus_max : host;
}

static uint32_t wanted_mib(const struct pod *pod, const struct limits *limits)
{
    uint64_t most = most_mib(pod_handler(pod)), base = base_mib(pod_handler(pod));
    uint64_t mib = base + limits->memory / MIB + (limits->memory % MIB != 0 ? 1 : 0);

    if (mib > most)
        mib = most;
    return (uint32_t)(mib < base ? base : mib);
}

static uint32_t wanted_vcpus(const struct pod *pod, const struct limits *limits)
{
    uint64_t most = most_cpus(pod_handler(pod)), base = pod_handler(pod)->vcpus;
    uint64_t n = limits->cpu / 1000 + (limits->cpu % 1000 != 0 ? 1 : 0);

    if (n < limits->named)
        n = limits->named;
    if (n > most)
        n = most;
    return (uint32_t)(n < base ? base : n);
}

void podsize_template(const struct sandbox_handler *handler, struct vm_spec *spec)
{
    spec->clone = true;
    spec->memory_mib = base_mib(handler);
    spec->memory_max_mib = most_mib(handler);
    spec->vcpus = handler->vcpus;
    spec->vcpus_max = most_cpus(handler);
}

void podsize_boot(struct pod *pod, struct vm_spec *spec)
{
    struct limits limits = limits_of_all(pod);

    podsize_template(pod_handler(pod), spec);
    if (!pod_handler(pod)->clone) {
        spec->clone = false;
        spec->memory_mib = wanted_mib(pod, &limits);
        spec->vcpus = wanted_vcpus(pod, &limits);
    }
    pthread_mutex_lock(&pod->size_mutex);
    pod->told_mib = spec->memory_mib;
    pod->told_vcpus = spec->vcpus;
    pthread_mutex_unlock(&pod->size_mutex);
}

uint32_t podsize_boot_vcpus(struct pod *pod)
{
    struct limits limits = limits_of_all(pod);
    struct vm_spec spec = {0};

    podsize_template(pod_handler(pod), &spec);
    return pod_handler(pod)->clone ? spec.vcpus : wanted_vcpus(pod, &limits);
}

/* size_mutex held. vCPUs are never taken away. */
static int apply(struct pod *pod, struct vm *vm, int64_t deadline_ms, struct err *err)
{
    struct limits limits = limits_of_all(pod);
    uint32_t mib = wanted_mib(pod, &limits), vcpus = wanted_vcpus(pod, &limits);
    bool other_memory = mib != pod->told_mib, more_cpus = vcpus > pod->told_vcpus;

    if (!other_memory && !more_cpus)
        return 0;
    if (vm_resize(vm, other_memory ? mib : 0, more_cpus ? vcpus : 0, deadline_ms, err) != 0) {
        pod->told_mib = pod->told_vcpus = 0;
        return -1;
    }
    pod->told_mib = mib;
    if (more_cpus)
        pod->told_vcpus = vcpus;
    return 0;
}

int podsize_apply(struct pod *pod, struct vm *vm, int64_t deadline_ms, struct err *err)
{
    int result;

    pthread_mutex_lock(&pod->size_mutex);
    result = apply(pod, vm, deadline_ms, err);
    pthread_mutex_unlock(&pod->size_mutex);
    return result;
}

bool podsize_asks_for_more(const struct container *c)
{
    struct limits now, both;

    pthread_mutex_lock(&c->pod->mutex);
    now = read_limits(limits_of(c));
    both = needs_of(c);
    pthread_mutex_unlock(&c->pod->mutex);
    return both.memory > now.memory || both.cpu > now.cpu || both.named > now.named;
}

int podsize_make_room(struct pod *pod, struct vm *vm, int64_t deadline_ms, struct err *err)
{
    struct log_ctx ctx = {.sandbox = pod->facts->id};

    if (podsize_apply(pod, vm, deadline_ms, err) == 0)
        return 0;
    if (err->code != ERR_EXHAUSTED)
        return -1;
    log_event(LOG_WARN, &ctx, err, "the machine has less than its containers' limits");
    return 0;
}

bool podsize_try_again(struct pod *pod, const resources *r, const struct err *why, int64_t until_ms)
{
    const struct timespec pause = {.tv_nsec = ONLINE_PAUSE_MS * 1000000};
    bool late;

    pthread_mutex_lock(&pod->size_mutex);
    late = why->code == ERR_EXHAUSTED && named_by(r) > 0 && named_by(r) <= pod->told_vcpus;
    pthread_mutex_unlock(&pod->size_mutex);
    if (!late || clock_monotonic_ms() >= until_ms)
        return false;
    nanosleep(&pause, NULL);
    return true;
}

/* Puts other limits in place; gives back what was there. */
static struct container_limits *exchange(struct pod *pod, struct container_limits *limits)
{
    struct container_limits *old;

    pthread_mutex_lock(&pod->mutex);
    old = pod->limits;
    pod->limits = limits;
    pthread_mutex_unlock(&pod->mutex);
    return old;
}

int podsize_update(struct pod *pod, struct vm *vm, const resources *update, int64_t deadline_ms,
                   struct err *err)
{
    struct container_limits *limits = NULL;
    int result;

    pthread_mutex_lock(&pod->size_mutex);
    /* Only here are the limits changed, so that what was read stays. */
    result = resources_merge(pod_resources(pod), update, &limits, err);
    if (result == 0)
        result = crivalid_resources(limits->message, "resources", err);
    if (result == 0) {
        limits = exchange(pod, limits);
        result = apply(pod, vm, deadline_ms, err);
        if (result != 0)
            limits = exchange(pod, limits);
    }
    container_limits_unref(limits);
    pthread_mutex_unlock(&pod->size_mutex);
    return result;
}
