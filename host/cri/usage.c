/* SPDX-License-Identifier: Apache-2.0 */
/* Available memory is the limit less the working set, and absent without a limit, as in CRI. */
#include "host/cri/usage.h"

int cri_uint64(const struct cri_ctx *ctx, uint64_t value, Runtime__V1__UInt64Value **ret,
               struct err *err)
{
    Runtime__V1__UInt64Value *v;
    if (cri_make(ctx, &v, runtime__v1__uint64_value__init) < 0)
        return -1;
    v->value = value;
    *ret = v;
    return 0;
}

static void fill_stall(const struct guest_stall *from, Runtime__V1__PsiData *to)
{
    to->total = from->total_us * 1000;
    to->avg10 = from->avg10 / 100.0;
    to->avg60 = from->avg60 / 100.0;
    to->avg300 = from->avg300 / 100.0;
}

static int make_psi(const struct cri_ctx *ctx, const struct guest_pressure *pressure,
                    Runtime__V1__PsiStats **ret, struct err *err)
{
    Runtime__V1__PsiStats *p;
    if (!pressure->known)
        return 0;
    if (cri_make(ctx, &p, runtime__v1__psi_stats__init) < 0 ||
        cri_make(ctx, &p->some, runtime__v1__psi_data__init) < 0 ||
        cri_make(ctx, &p->full, runtime__v1__psi_data__init) < 0)
        return -1;
    fill_stall(&pressure->some, p->some);
    fill_stall(&pressure->full, p->full);
    *ret = p;
    return 0;
}

int cri_make_cpu(const struct cri_ctx *ctx, const struct cri_sample *sample,
                 Runtime__V1__CpuUsage **ret, struct err *err)
{
    Runtime__V1__CpuUsage *u;
    if (cri_make(ctx, &u, runtime__v1__cpu_usage__init) < 0 ||
        cri_uint64(ctx, sample->usage->cpu_ns, &u->usage_core_nano_seconds, err) < 0 ||
        make_psi(ctx, &sample->usage->cpu, &u->psi, err) < 0)
        return -1;
    if (sample->rate.known &&
        cri_uint64(ctx, sample->rate.nano_cores, &u->usage_nano_cores, err) < 0)
        return -1;
    u->timestamp = sample->time_ns;
    *ret = u;
    return 0;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

int cri_make_memory(const struct cri_ctx *ctx, const struct cri_sample *sample,
                    Runtime__V1__MemoryUsage **ret, struct err *err)
{
    const struct guest_usage *usage = sample->usage;
    Runtime__V1__MemoryUsage *u;
    if (cri_make(ctx, &u, runtime__v1__memory_usage__init) < 0 ||
        cri_uint64(ctx, usage->working_set_bytes, &u->working_set_bytes, err) < 0 ||
        cri_uint64(ctx, usage->memory_bytes, &u->usage_bytes, err) < 0 ||
        cri_uint64(ctx, usage->rss_bytes, &u->rss_bytes, err) < 0 ||
        cri_uint64(ctx, usage->page_faults, &u->page_faults, err) < 0 ||
        cri_uint64(ctx, usage->major_page_faults, &u->major_page_faults, err) < 0 ||
        make_psi(ctx, &usage->memory, &u->psi, err) < 0)
        return -1;
    if (usage->memory_limit_bytes > 0 &&
        cri_uint64(ctx, less(usage->memory_limit_bytes, usage->working_set_bytes),
                   &u->available_bytes, err) < 0)
        return -1;
    u->timestamp = sample->time_ns;
    *ret = u;
    return 0;
}

int cri_make_swap(const struct cri_ctx *ctx, const struct cri_sample *sample,
                  Runtime__V1__SwapUsage **ret, struct err *err)
{
    const struct guest_usage *usage = sample->usage;
    Runtime__V1__SwapUsage *u;
    /* A guest has no swap space: what there is of a limit is nothing that could be had. */
    if (cri_make(ctx, &u, runtime__v1__swap_usage__init) < 0 ||
        cri_uint64(ctx, usage->swap_bytes, &u->swap_usage_bytes, err) < 0 ||
        cri_uint64(ctx, 0, &u->swap_available_bytes, err) < 0)
        return -1;
    u->timestamp = sample->time_ns;
    *ret = u;
    return 0;
}

int cri_make_io(const struct cri_ctx *ctx, const struct cri_sample *sample,
                Runtime__V1__IoUsage **ret, struct err *err)
{
    Runtime__V1__IoUsage *u;
    if (cri_make(ctx, &u, runtime__v1__io_usage__init) < 0 ||
        make_psi(ctx, &sample->usage->io, &u->psi, err) < 0)
        return -1;
    u->timestamp = sample->time_ns;
    *ret = u;
    return 0;
}
