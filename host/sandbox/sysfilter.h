/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seccomp filters, compiled on the host to what seccomp(2) takes in the guest (proto/agent, message
 * Seccomp): guest and host have the same architecture. Only this file knows libseccomp. A filter
 * takes a default action and rules and is finished into a program. Owned by the caller, heap. Not
 * thread-safe per filter.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define SYSFILTER_MAX_INSTRUCTIONS 4096 /* BPF_MAXINSNS: what the kernel takes */
#define SYSFILTER_MAX_RULES        8192 /* name and condition pairs of one profile */
#define SYSFILTER_MAX_ARGS         6

struct sysfilter;

/* SECCOMP_RET_* of linux/seccomp.h with its data in the low 16 bits. */
typedef uint32_t sysfilter_action;

enum sysfilter_compare {
    SYSFILTER_NE,
    SYSFILTER_LT,
    SYSFILTER_LE,
    SYSFILTER_EQ,
    SYSFILTER_GE,
    SYSFILTER_GT,
    SYSFILTER_MASKED_EQ, /* (argument & value) == value_two */
};

struct sysfilter_arg {
    unsigned index; /* 0..5 */
    enum sysfilter_compare op;
    uint64_t value;
    uint64_t value_two;
};

/* A program for the kernel: n_bytes of struct sock_filter. */
struct sysfilter_program {
    uint8_t *bytes; /* heap */
    size_t n_bytes;
    uint32_t flags; /* SECCOMP_FILTER_FLAG_LOG and _SPEC_ALLOW */
};
/* Frees and zeroes it. A zeroed one is fine. */
void sysfilter_program_fini(struct sysfilter_program *program);
#define cleanup_sysfilter_program CLEANUP(sysfilter_program_fini)

/* A filter of the native architecture that answers `fallback` to every call. */
int sysfilter_new(sysfilter_action fallback, struct sysfilter **ret_filter, struct err *err);
/* NULL is fine. Programs made of it live on. */
void sysfilter_free(struct sysfilter *filter);
DEFINE_CLEANUP(sysfilter, struct sysfilter, sysfilter_free)
#define cleanup_sysfilter CLEANUP(sysfilter_cleanup_)

/* Adds an architecture by the name that OCI gives it ("SCMP_ARCH_X86"). INVALID: unknown. One of
 * another machine than this is accepted and means nothing. */
int sysfilter_add_arch(struct sysfilter *filter, const char *name, struct err *err);
/* Adds the architectures whose programs the native one also runs (x86-64: x86 and x32). */
int sysfilter_add_compat(struct sysfilter *filter, struct err *err);
/* SECCOMP_FILTER_FLAG_LOG, _SPEC_ALLOW. */
void sysfilter_set_flags(struct sysfilter *filter, uint32_t flags);

/*
 * A call by name gets an action when all conditions hold; when two conditions are about one
 * argument, when any holds (as the OCI runtimes have it). A name that is unknown here is left to
 * the fallback, unless that would permit what the rule denies: INVALID.
 */
int sysfilter_add(struct sysfilter *filter, const char *name, sysfilter_action action,
                  const struct sysfilter_arg *args, size_t n_args, struct err *err);

/*
 * The program. When the fallback is an errno, calls newer than every call that was named get ENOSYS
 * instead, so that a libc that tries them falls back. INVALID when it is longer than the kernel
 * takes.
 */
int sysfilter_finish(struct sysfilter *filter, struct sysfilter_program *ret_program,
                     struct err *err);
