/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine has the memory that the configuration says, for the guest itself and containers without
 * a limit, and on top of that what the pod's containers may use together; and as many vCPUs as the
 * pod's CPU quota can keep busy. It boots with the configured size and grows, since all clones of a
 * template are born equal; only where machines boot anyway they boot as large as they should be.
 * The host's own size bounds both: a limit is not a promise.
 */
#include "host/sandbox/podsize.h"

#include <unistd.h>

#include "host/sandbox/model.h"

#define MAX_VCPUS    64
#define MAX_MIB      (1024u * 1024)
#define QUOTA_PERIOD 100000
#define MIB          (1ull << 20)

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

/* What a container may use, as it is after updates; 0: no limit. */
static uint64_t limit_of(const struct container *c)
{
    const Runtime__V1__LinuxContainerConfig *linux_ = c->facts->config->linux;
    int64_t bytes = c->limits != NULL ? c->limits->message->memory_limit_in_bytes
                    : linux_ != NULL && linux_->resources != NULL
                        ? linux_->resources->memory_limit_in_bytes
                        : 0;

    return bytes > 0 ? (uint64_t)bytes : 0;
}

/* What the pod says for all its containers together, or what they say themselves if that is more,
 * as it can be after an update. */
static uint64_t limit_of_all(struct pod *pod)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;
    const struct container *c;
    uint64_t pods = 0, sum = 0;

    if (linux_ != NULL && linux_->resources != NULL && linux_->resources->memory_limit_in_bytes > 0)
        pods = (uint64_t)linux_->resources->memory_limit_in_bytes;
    pthread_mutex_lock(&pod->mutex);
    TAILQ_FOREACH (c, &pod->containers, entry)
        if (c->state != CTR_EXITED && c->state != CTR_REMOVING)
            sum += limit_of(c);
    pthread_mutex_unlock(&pod->mutex);
    return sum > pods ? sum : pods;
}

static uint32_t wanted_mib(struct pod *pod)
{
    uint64_t most = host_mib(), mib = base_mib(pod_handler(pod));

    mib += (limit_of_all(pod) + MIB - 1) / MIB;
    if (mib > most)
        mib = most;
    return mib < base_mib(pod_handler(pod)) ? base_mib(pod_handler(pod)) : (uint32_t)mib;
}

static uint32_t wanted_vcpus(const struct pod *pod)
{
    const Runtime__V1__LinuxPodSandboxConfig *linux_ = pod->facts->config->linux;
    int64_t most = host_cpus(), n = pod_handler(pod)->vcpus;

    if (linux_ != NULL && linux_->resources != NULL && linux_->resources->cpu_quota > 0) {
        int64_t period = linux_->resources->cpu_period;
        int64_t wanted;
        if (period <= 0)
            period = QUOTA_PERIOD;
        wanted = linux_->resources->cpu_quota / period;
        if (linux_->resources->cpu_quota % period != 0)
            wanted++;
        if (wanted > most)
            wanted = most;
        if (wanted > n)
            n = wanted;
    }
    return (uint32_t)n;
}

void podsize_template(const struct sandbox_handler *handler, struct vm_spec *spec)
{
    spec->clone = true;
    spec->memory_mib = base_mib(handler);
    spec->memory_max_mib = host_mib();
    spec->vcpus = handler->vcpus;
    spec->vcpus_max = host_cpus();
}

void podsize_boot(struct pod *pod, struct vm_spec *spec)
{
    podsize_template(pod_handler(pod), spec);
    if (pod_handler(pod)->clone)
        return;
    spec->clone = false;
    spec->memory_mib = wanted_mib(pod);
    spec->vcpus = wanted_vcpus(pod);
}

int podsize_apply(struct pod *pod, int64_t deadline_ms, struct err *err)
{
    uint32_t mib = wanted_mib(pod), vcpus = wanted_vcpus(pod);

    if (!pod_handler(pod)->clone)
        return 0;
    if (mib == base_mib(pod_handler(pod)) && !pod->has_grown)
        mib = 0;
    pod->has_grown = pod->has_grown || mib > 0;
    if (vcpus == pod_handler(pod)->vcpus)
        vcpus = 0;
    return mib == 0 && vcpus == 0 ? 0 : vm_resize(pod->vm, mib, vcpus, deadline_ms, err);
}
