/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of one cgroup as CRI's messages, in the call's memory. Only this file knows CRI's units:
 * pressure in percent and nanoseconds, memory as the kubelet reads it. Functions fail with
 * EXHAUSTED only. One thread a call.
 */
#pragma once

#include "host/cri/method.h"
#include "host/sandbox/stats.h"

struct cri_sample {
    const struct guest_usage *usage;
    struct sandbox_rate rate;
    int64_t time_ns;
};

/* A wrapped number: CRI tells 0 from "not known" by its presence. */
int cri_uint64(const struct cri_ctx *ctx, uint64_t value, Runtime__V1__UInt64Value **ret,
               struct err *err);
/* CPU time since the start in ns, and the rate only where two samples gave one. */
int cri_make_cpu(const struct cri_ctx *ctx, const struct cri_sample *sample,
                 Runtime__V1__CpuUsage **ret, struct err *err);
/* Bytes; available_bytes (limit less working set, not below 0) only where there is a limit. */
int cri_make_memory(const struct cri_ctx *ctx, const struct cri_sample *sample,
                    Runtime__V1__MemoryUsage **ret, struct err *err);
/* Bytes; none is ever available, since a guest has no swap space. */
int cri_make_swap(const struct cri_ctx *ctx, const struct cri_sample *sample,
                  Runtime__V1__SwapUsage **ret, struct err *err);
/* Pressure alone. */
int cri_make_io(const struct cri_ctx *ctx, const struct cri_sample *sample,
                Runtime__V1__IoUsage **ret, struct err *err);
