/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program is written out by hand: a few loads, then for each rule a chain of compares that jump
 * to the next rule, or allow. Registers: r2 type, r3 access wanted, r4 major, r5 minor, r6 scratch.
 * Source of the context's layout: linux/bpf.h, struct bpf_cgroup_dev_ctx.
 */
#include "agent/container/devices.h"

#include <errno.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "agent/container/validate.h"

#define ANY              (-1)
#define ALL              (BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE)
#define N_STANDARD       ARRAY_SIZE(standard)
#define PER_RULE         7u /* instructions, at most */
#define PROLOGUE         6u
#define EPILOGUE         2u
#define MAX_RULES        (16u + VALIDATE_MAX_DEVICES)
#define MAX_INSTRUCTIONS (PROLOGUE + MAX_RULES * PER_RULE + EPILOGUE)

struct rule {
    int type; /* BPF_DEVCG_DEV_* */
    int major, minor;
    int access; /* BPF_DEVCG_ACC_* */
};

static const struct rule standard[] = {
    {BPF_DEVCG_DEV_CHAR, ANY, ANY, BPF_DEVCG_ACC_MKNOD},
    {BPF_DEVCG_DEV_BLOCK, ANY, ANY, BPF_DEVCG_ACC_MKNOD},
    {BPF_DEVCG_DEV_CHAR, 1, 3, ALL},     /* null */
    {BPF_DEVCG_DEV_CHAR, 1, 5, ALL},     /* zero */
    {BPF_DEVCG_DEV_CHAR, 1, 7, ALL},     /* full */
    {BPF_DEVCG_DEV_CHAR, 1, 8, ALL},     /* random */
    {BPF_DEVCG_DEV_CHAR, 1, 9, ALL},     /* urandom */
    {BPF_DEVCG_DEV_CHAR, 5, 0, ALL},     /* tty */
    {BPF_DEVCG_DEV_CHAR, 5, 2, ALL},     /* ptmx */
    {BPF_DEVCG_DEV_CHAR, 136, ANY, ALL}, /* pts */
};

struct program {
    struct bpf_insn code[MAX_INSTRUCTIONS];
    size_t n;
};

static void emit(struct program *p, uint8_t code, unsigned dst, unsigned src, int16_t off,
                 int32_t imm)
{
    p->code[p->n++] = (struct bpf_insn){
        .code = code, .dst_reg = dst & 0xfu, .src_reg = src & 0xfu, .off = off, .imm = imm};
}

static void emit_load(struct program *p, unsigned dst, size_t offset)
{
    emit(p, BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_1, (int16_t)offset, 0);
}

static void emit_return(struct program *p, int32_t value)
{
    emit(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value);
    emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void emit_rule(struct program *p, const struct rule *r)
{
    size_t jumps[4], n = 0;
    jumps[n++] = p->n;
    emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 0, r->type);
    if (r->access != ALL) {
        emit(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_3, 0, 0);
        emit(p, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_6, 0, 0, ALL & ~r->access);
        jumps[n++] = p->n;
        emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_6, 0, 0, 0);
    }
    if (r->major != ANY) {
        jumps[n++] = p->n;
        emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_4, 0, 0, r->major);
    }
    if (r->minor != ANY) {
        jumps[n++] = p->n;
        emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_5, 0, 0, r->minor);
    }
    emit_return(p, 1);
    for (size_t i = 0; i < n; i++)
        p->code[jumps[i]].off = (int16_t)(p->n - jumps[i] - 1);
}

static int rule_of(const Casemate__Agent__V1__Device *d, struct rule *ret_rule, struct err *err)
{
    const char *path = d->guest_path[0] != '\0' ? d->guest_path : d->path;
    struct stat st;
    if (stat(path, &st) < 0)
        return err_set_errno(err, errno, "device %s", path);
    if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
        return err_set(err, ERR_INVALID, "%s is no device", path);
    int access = 0;
    for (const char *c = d->permissions; *c != '\0'; c++)
        access |= *c == 'r'   ? BPF_DEVCG_ACC_READ
                  : *c == 'w' ? BPF_DEVCG_ACC_WRITE
                              : BPF_DEVCG_ACC_MKNOD;
    *ret_rule = (struct rule){
        .type = S_ISBLK(st.st_mode) ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR,
        .major = (int)major(st.st_rdev),
        .minor = (int)minor(st.st_rdev),
        .access = access,
    };
    return 0;
}

int devices_load(Casemate__Agent__V1__Device *const *devices, size_t n, int *ret_fd,
                 struct err *err)
{
    static const char license[] = "Apache-2.0";
    struct program p = {.n = 0};
    if (n > VALIDATE_MAX_DEVICES)
        return err_set(err, ERR_INVALID, "too many devices");
    emit_load(&p, BPF_REG_2, offsetof(struct bpf_cgroup_dev_ctx, access_type));
    emit(&p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0);
    emit(&p, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff);
    emit(&p, BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16);
    emit_load(&p, BPF_REG_4, offsetof(struct bpf_cgroup_dev_ctx, major));
    emit_load(&p, BPF_REG_5, offsetof(struct bpf_cgroup_dev_ctx, minor));
    for (size_t i = 0; i < N_STANDARD; i++)
        emit_rule(&p, &standard[i]);
    for (size_t i = 0; i < n; i++) {
        struct rule r;
        if (rule_of(devices[i], &r, err) < 0)
            return -1;
        emit_rule(&p, &r);
    }
    emit_return(&p, 0);
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)p.code;
    attr.insn_cnt = (uint32_t)p.n;
    attr.license = (uint64_t)(uintptr_t)license;
    int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
    if (fd < 0)
        return err_set_errno(err, errno, "load the device filter");
    *ret_fd = fd;
    return 0;
}

int devices_attach(int program_fd, int cgroup_fd, struct err *err)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)program_fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)) < 0)
        return err_set_errno(err, errno, "attach the device filter");
    return 0;
}
