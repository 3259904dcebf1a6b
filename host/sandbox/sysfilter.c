/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. libseccomp holds the rules and writes the program; 2.5 exports it to a
 * descriptor only, so it goes through a memfd. In front of it, when the fallback is an errno, stand
 * six instructions of our own: on the native architecture a call number above the highest one that
 * a rule names is answered ENOSYS. (A profile is older than the libc that it meets; EPERM for a
 * call that the profile's author had never heard of makes programs fail that have a way without
 * it.)
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "host/sandbox/sysfilter.h"

#if defined(__x86_64__)
#define NATIVE_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_AUDIT_ARCH AUDIT_ARCH_AARCH64
#else
#error "the guest's architecture is not known here"
#endif

#define X32_BIT     0x40000000u /* numbers of x32 calls have it; the native ones stay below */
#define N_STUB      6u
#define BINARY_TREE 2
#define TREE_FROM   32u /* rules from which a binary search pays */
#define ACTION(ret) ((ret)&SECCOMP_RET_ACTION_FULL)

struct sysfilter {
    scmp_filter_ctx context;
    sysfilter_action fallback;
    uint32_t flags;
    size_t n_rules;
    int highest; /* number of a native call that was named; -1: none */
};

void sysfilter_program_fini(struct sysfilter_program *program)
{
    free(program->bytes);
    *program = (struct sysfilter_program){0};
}

static int library_error(struct err *err, int result, const char *what)
{
    return err_set_errno(err, -result, "seccomp: %s", what);
}

int sysfilter_new(sysfilter_action fallback, struct sysfilter **ret_filter, struct err *err)
{
    cleanup_sysfilter struct sysfilter *filter = calloc(1, sizeof(*filter));

    if (filter == NULL)
        return err_no_memory(err);
    filter->fallback = fallback;
    filter->highest = -1;
    filter->context = seccomp_init(fallback);
    if (filter->context == NULL)
        return err_set(err, ERR_INVALID, "seccomp: the library refuses the default action");
    *ret_filter = steal_ptr(&filter);
    return 0;
}

void sysfilter_free(struct sysfilter *filter)
{
    if (filter == NULL)
        return;
    if (filter->context != NULL)
        seccomp_release(filter->context);
    free(filter);
}

static int add_arch(struct sysfilter *filter, uint32_t token, struct err *err)
{
    int result = seccomp_arch_add(filter->context, token);

    if (result != 0 && result != -EEXIST)
        return library_error(err, result, "add an architecture");
    return 0;
}

int sysfilter_add_arch(struct sysfilter *filter, const char *name, struct err *err)
{
    static const struct {
        const char *name;
        uint32_t token;
        bool here; /* this machine runs such programs */
    } archs[] = {
#if defined(__x86_64__)
        {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64, true},
        {"SCMP_ARCH_X86", SCMP_ARCH_X86, true},
        {"SCMP_ARCH_X32", SCMP_ARCH_X32, true},
        {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64, false},
        {"SCMP_ARCH_ARM", SCMP_ARCH_ARM, false},
#else
        {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64, true},
        {"SCMP_ARCH_ARM", SCMP_ARCH_ARM, true},
        {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64, false},
        {"SCMP_ARCH_X86", SCMP_ARCH_X86, false},
        {"SCMP_ARCH_X32", SCMP_ARCH_X32, false},
#endif
        {"SCMP_ARCH_MIPS", 0, false},
        {"SCMP_ARCH_MIPS64", 0, false},
        {"SCMP_ARCH_MIPS64N32", 0, false},
        {"SCMP_ARCH_MIPSEL", 0, false},
        {"SCMP_ARCH_MIPSEL64", 0, false},
        {"SCMP_ARCH_MIPSEL64N32", 0, false},
        {"SCMP_ARCH_PPC", 0, false},
        {"SCMP_ARCH_PPC64", 0, false},
        {"SCMP_ARCH_PPC64LE", 0, false},
        {"SCMP_ARCH_S390", 0, false},
        {"SCMP_ARCH_S390X", 0, false},
        {"SCMP_ARCH_PARISC", 0, false},
        {"SCMP_ARCH_PARISC64", 0, false},
        {"SCMP_ARCH_RISCV64", 0, false},
        {"SCMP_ARCH_LOONGARCH64", 0, false},
        {"SCMP_ARCH_M68K", 0, false},
        {"SCMP_ARCH_SH", 0, false},
        {"SCMP_ARCH_SHEB", 0, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(archs); i++) {
        if (strcmp(archs[i].name, name) == 0)
            return archs[i].here ? add_arch(filter, archs[i].token, err) : 0;
    }
    return err_set(err, ERR_INVALID, "seccomp: unknown architecture '%.64s'", name);
}

int sysfilter_add_compat(struct sysfilter *filter, struct err *err)
{
#if defined(__x86_64__)
    if (add_arch(filter, SCMP_ARCH_X86, err) != 0)
        return -1;
    return add_arch(filter, SCMP_ARCH_X32, err);
#else
    return add_arch(filter, SCMP_ARCH_ARM, err);
#endif
}

void sysfilter_set_flags(struct sysfilter *filter, uint32_t flags)
{
    filter->flags = flags;
}

static enum scmp_compare compare_of(enum sysfilter_compare op)
{
    static const enum scmp_compare table[] = {
        [SYSFILTER_NE] = SCMP_CMP_NE,
        [SYSFILTER_LT] = SCMP_CMP_LT,
        [SYSFILTER_LE] = SCMP_CMP_LE,
        [SYSFILTER_EQ] = SCMP_CMP_EQ,
        [SYSFILTER_GE] = SCMP_CMP_GE,
        [SYSFILTER_GT] = SCMP_CMP_GT,
        [SYSFILTER_MASKED_EQ] = SCMP_CMP_MASKED_EQ,
    };

    return table[op];
}

static bool has_double_index(const struct sysfilter_arg *args, size_t n)
{
    unsigned seen = 0;

    for (size_t i = 0; i < n; i++) {
        if ((seen >> args[i].index & 1) != 0)
            return true;
        seen |= 1u << args[i].index;
    }
    return false;
}

static int add_rule(struct sysfilter *filter, int number, sysfilter_action action,
                    const struct scmp_arg_cmp *args, size_t n)
{
    int result = seccomp_rule_add_array(filter->context, action, number, (unsigned)n, args);

    /* The same rule once more. */
    return result == -EEXIST ? 0 : result;
}

static bool permits(sysfilter_action action)
{
    return ACTION(action) == SECCOMP_RET_ALLOW || ACTION(action) == SECCOMP_RET_LOG;
}

int sysfilter_add(struct sysfilter *filter, const char *name, sysfilter_action action,
                  const struct sysfilter_arg *args, size_t n_args, struct err *err)
{
    struct scmp_arg_cmp compares[SYSFILTER_MAX_ARGS];
    int number = seccomp_syscall_resolve_name(name);
    int result = 0;

    if (n_args > SYSFILTER_MAX_ARGS)
        return err_set(err, ERR_INVALID, "seccomp: %s: more than %d conditions", name,
                       SYSFILTER_MAX_ARGS);
    for (size_t i = 0; i < n_args; i++) {
        if (args[i].index >= SYSFILTER_MAX_ARGS)
            return err_set(err, ERR_INVALID, "seccomp: %s: there is no argument %u", name,
                           args[i].index);
        compares[i] = (struct scmp_arg_cmp){.arg = args[i].index,
                                            .op = compare_of(args[i].op),
                                            .datum_a = args[i].value,
                                            .datum_b = args[i].value_two};
    }
    if (++filter->n_rules > SYSFILTER_MAX_RULES)
        return err_set(err, ERR_INVALID, "seccomp: more than %d rules", SYSFILTER_MAX_RULES);
    if (number == __NR_SCMP_ERROR) {
        if (permits(action) || !permits(filter->fallback))
            return 0;
        return err_set(err, ERR_INVALID, "seccomp: unknown call '%.64s' cannot be denied", name);
    }
    if (number > filter->highest)
        filter->highest = number;
    if (action == filter->fallback)
        return 0;
    if (!has_double_index(args, n_args)) {
        result = add_rule(filter, number, action, compares, n_args);
    } else {
        for (size_t i = 0; result == 0 && i < n_args; i++)
            result = add_rule(filter, number, action, &compares[i], 1);
    }
    if (result != 0)
        return err_set(err, result == -ENOMEM ? ERR_EXHAUSTED : ERR_INVALID,
                       "seccomp: the rule for '%.64s' is not possible: %s", name,
                       strerrordesc_np(-result));
    return 0;
}

static size_t write_stub(const struct sysfilter *filter, struct sock_filter stub[N_STUB])
{
    const uint32_t no_such_call = SECCOMP_RET_ERRNO | ENOSYS;

    if (ACTION(filter->fallback) != SECCOMP_RET_ERRNO || filter->highest < 0)
        return 0;
    stub[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                           (uint32_t)offsetof(struct seccomp_data, arch));
    stub[1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_AUDIT_ARCH, 0, 4);
    stub[2] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                           (uint32_t)offsetof(struct seccomp_data, nr));
    stub[3] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 2, 0);
    stub[4] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (uint32_t)filter->highest, 0, 1);
    stub[5] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, no_such_call);
    return N_STUB;
}

/* The library's program, behind the stub. */
static int read_program(int fd, const struct sock_filter *stub, size_t n_stub,
                        struct sysfilter_program *ret_program, struct err *err)
{
    cleanup_free uint8_t *bytes = NULL;
    size_t before = n_stub * sizeof(*stub), n;
    struct stat st;

    if (fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "seccomp: read the program");
    n = before + (size_t)st.st_size;
    if (n > SYSFILTER_MAX_INSTRUCTIONS * sizeof(*stub))
        return err_set(err, ERR_INVALID,
                       "seccomp: the profile makes %zu instructions, and the kernel takes %d",
                       n / sizeof(*stub), SYSFILTER_MAX_INSTRUCTIONS);
    bytes = malloc(n);
    if (bytes == NULL)
        return err_no_memory(err);
    if (before > 0)
        memcpy(bytes, stub, before);
    if (pread(fd, bytes + before, n - before, 0) != (ssize_t)(n - before))
        return err_set(err, ERR_SYSTEM, "seccomp: the program cannot be read");
    ret_program->bytes = steal_ptr(&bytes);
    ret_program->n_bytes = n;
    return 0;
}

int sysfilter_finish(struct sysfilter *filter, struct sysfilter_program *ret_program,
                     struct err *err)
{
    struct sysfilter_program program = {.flags = filter->flags};
    struct sock_filter stub[N_STUB];
    cleanup_fd int fd = memfd_create("seccomp", MFD_CLOEXEC);
    int result;

    if (fd < 0)
        return err_set_errno(err, errno, "seccomp: memfd_create");
    if (filter->n_rules > TREE_FROM)
        (void)seccomp_attr_set(filter->context, SCMP_FLTATR_CTL_OPTIMIZE, BINARY_TREE);
    result = seccomp_export_bpf(filter->context, fd);
    if (result != 0)
        return library_error(err, result, "compile");
    if (read_program(fd, stub, write_stub(filter, stub), &program, err) != 0)
        return -1;
    *ret_program = program;
    return 0;
}
