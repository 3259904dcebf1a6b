/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. That /dev/kvm exists, and even that QEMU starts with it, says little: under
 * some nested hypervisors firmware runs and an ordinary kernel never gets through its first
 * instructions. A small hand-made guest would be fooled just so. So the trial is the real thing:
 * the product's kernel and initrd are started under KVM the same way as any pod's machine, and must
 * come up to the agent's echo on the link.
 *
 * On a host where KVM works this takes a fraction of a second; where it does not, up to the time
 * limit. Hence the verdict is remembered in a file, for this boot of the host, this QEMU binary and
 * this /dev/kvm (identity and access), since each of them can change the answer.
 */
#include "host/vmm/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/json.h"

#define CACHE_VERSION    1
#define PROBE_MEMORY_MIB 256
#define CONSOLE_MS       1000

/* ---- memory --------------------------------------------------------------------------------- */

int accel_cache_encode(const struct accel_verdict *verdict, const char *key, char **ret_text,
                       struct err *err)
{
    cleanup_json json_t *root =
        json_pack("{s:i, s:s, s:s, s:b, s:s}", "version", CACHE_VERSION, "key", key, "accel",
                  vmm_accel_name(verdict->accel), "is_fallback", verdict->is_fallback, "reason",
                  verdict->reason);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));

    if (text == NULL)
        return err_no_memory(err);
    *ret_text = text;
    return 0;
}

int accel_cache_decode(const char *text, const char *key, struct accel_verdict *ret_verdict,
                       struct err *err)
{
    struct accel_verdict v = {0};
    const char *file_key, *accel, *reason;
    int version, is_fallback;
    json_error_t json_err;

    if (strnlen(text, ACCEL_CACHE_MAX + 1) > ACCEL_CACHE_MAX)
        return err_set(err, ERR_PROTOCOL, "accelerator verdict: too long");
    cleanup_json json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &json_err);
    if (root == NULL ||
        json_unpack(root, "{s:i, s:s, s:s, s:b, s:s}", "version", &version, "key", &file_key,
                    "accel", &accel, "is_fallback", &is_fallback, "reason", &reason) < 0 ||
        version != CACHE_VERSION || vmm_accel_parse(accel, &v.accel) < 0 ||
        v.accel == VMM_ACCEL_AUTO)
        return err_set(err, ERR_PROTOCOL, "accelerator verdict: not understood");
    if (strcmp(file_key, key) != 0)
        return err_set(err, ERR_NOT_FOUND, "accelerator verdict: of other circumstances");
    v.is_fallback = is_fallback != 0;
    (void)snprintf(v.reason, sizeof(v.reason), "%.*s", (int)sizeof(v.reason) - 1, reason);
    *ret_verdict = v;
    return 0;
}

/* What the verdict depends on, as text. */
static int make_key(const struct vmm *vmm, const struct vmm_choice *choice, char **ret_key,
                    struct err *err)
{
    struct stat qemu, kvm;

    if (stat(choice->qemu, &qemu) < 0)
        return err_set_errno(err, errno, "%s", choice->qemu);
    if (stat("/dev/kvm", &kvm) < 0)
        return err_set_errno(err, errno, "/dev/kvm");
    *ret_key = text_printf("boot %s; %s %s %llu.%lld; kvm %llx %o %u:%u; %s", vmm->boot_id,
                           choice->qemu, choice->version, (unsigned long long)qemu.st_ino,
                           (long long)qemu.st_mtim.tv_sec, (unsigned long long)kvm.st_rdev,
                           (unsigned int)kvm.st_mode, kvm.st_uid, kvm.st_gid,
                           vmm->config.uid_count > 0 ? "own uids" : "own rights");
    return *ret_key == NULL ? err_no_memory(err) : 0;
}

static int load(const struct vmm *vmm, const char *key, struct accel_verdict *ret_verdict,
                struct err *err)
{
    cleanup_free char *text = NULL;

    if (fd_read_file(AT_FDCWD, vmm->config.accel_cache, ACCEL_CACHE_MAX, &text, NULL, err) < 0)
        return -1;
    return accel_cache_decode(text, key, ret_verdict, err);
}

static void save(const struct vmm *vmm, const char *key, const struct accel_verdict *verdict)
{
    cleanup_free char *text = NULL;
    struct err err;

    if (accel_cache_encode(verdict, key, &text, &err) < 0 ||
        fd_write_file_atomic(AT_FDCWD, vmm->config.accel_cache, text, strlen(text), 0600, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "the verdict on KVM could not be remembered, ignoring");
}

/* ---- the trial ------------------------------------------------------------------------------ */

/* Adds the end of the guest's console to a failure: where it stuck is the best clue there is. */
static void add_last_words(struct vm *vm, struct err *err)
{
    cleanup_free char *text = NULL;

    if (vm_console_text(vm, clock_deadline(CONSOLE_MS), &text, NULL) < 0)
        return;
    size_t n = strlen(text);
    while (n > 0 && strchr(" \r\n\t", text[n - 1]) != NULL)
        text[--n] = '\0';
    if (n == 0) {
        struct err why = *err;
        (void)err_set(err, why.code, "%s, and it said nothing", why.msg);
    } else {
        const char *line = strrchr(text, '\n');
        struct err why = *err;
        (void)err_set(err, why.code, "%.400s; its last words: \"%.80s\"", why.msg,
                      line != NULL ? line + 1 : text);
    }
}

static int run_guest(struct vmm *vmm, enum vmm_accel accel, const char *dir, int64_t deadline_ms,
                     struct err *err)
{
    cleanup_vm struct vm *vm = NULL;
    cleanup_fd int agent = -1;
    struct vmm_choice choice;
    char id[VM_ID_SIZE];
    char suffix[17];

    text_random_hex(8, suffix);
    (void)snprintf(id, sizeof(id), "probe-%s", suffix);
    vmm_get_choice(vmm, &choice);
    choice.accel = accel;
    const struct vm_spec spec = {
        .id = id,
        .dir = dir,
        .kernel = vmm->config.probe_kernel,
        .initrd = vmm->config.probe_initrd,
        .memory_mib = PROBE_MEMORY_MIB,
        .vcpus = 1,
        .console = VM_CONSOLE_RING,
    };
    if (vm_start_with(vmm, &choice, &spec, NULL, deadline_ms, &vm, err) < 0)
        return -1;
    int result = vm_connect_agent(vm, deadline_ms, &agent, err);
    if (result < 0 && err->code == ERR_DEADLINE)
        add_last_words(vm, err);
    (void)vm_kill(vm, NULL);
    return result;
}

int vmm_probe(struct vmm *vmm, enum vmm_accel accel, int64_t deadline_ms, struct err *err)
{
    struct err why = {0};

    if (accel == VMM_ACCEL_AUTO || vmm->config.probe_kernel == NULL)
        return err_set(err, ERR_INVALID, "no guest and no accelerator to try out");
    if (vmm_find_qemu(vmm, deadline_ms, err) < 0)
        return -1;
    cleanup_free char *dir = text_printf("%s/probe-XXXXXX", vmm->config.run_dir);
    if (dir == NULL)
        return err_no_memory(err);
    if (mkdtemp(dir) == NULL)
        return err_set_errno(err, errno, "%s", dir);
    int result = run_guest(vmm, accel, dir, deadline_ms, &why);
    (void)fd_remove_tree(AT_FDCWD, dir, NULL);
    if (result < 0 && err != NULL)
        *err = why;
    return result;
}

/* ---- the decision --------------------------------------------------------------------------- */

static void set_verdict(struct accel_verdict *v, enum vmm_accel accel, const char *reason)
{
    v->accel = accel;
    v->is_fallback = accel == VMM_ACCEL_TCG;
    (void)snprintf(v->reason, sizeof(v->reason), "%.*s", (int)sizeof(v->reason) - 1, reason);
}

static int try_kvm(struct vmm *vmm, int64_t deadline_ms, struct accel_verdict *ret_verdict,
                   struct err *err)
{
    int64_t trial_end = clock_deadline(vmm->config.probe_timeout_ms);
    bool fair = trial_end <= deadline_ms;
    struct err why;

    if (vmm_probe(vmm, VMM_ACCEL_KVM, clock_earlier(trial_end, deadline_ms), &why) == 0) {
        set_verdict(ret_verdict, VMM_ACCEL_KVM, "a guest came up under KVM");
        return 0;
    }
    if (why.code == ERR_DEADLINE && !fair)
        return err_set(err, ERR_DEADLINE, "no time to try out KVM: %s", why.msg);
    cleanup_free char *reason = text_printf("no guest comes up under KVM: %s", why.msg);
    if (reason == NULL)
        return err_no_memory(err);
    set_verdict(ret_verdict, VMM_ACCEL_TCG, reason);
    return 0;
}

static int decide_auto(struct vmm *vmm, int64_t deadline_ms, struct accel_verdict *ret_verdict,
                       struct err *err)
{
    cleanup_free char *key = NULL;
    struct vmm_choice choice;

    if (access("/dev/kvm", F_OK) < 0) {
        set_verdict(ret_verdict, VMM_ACCEL_TCG, "there is no /dev/kvm");
        return 0;
    }
    vmm_get_choice(vmm, &choice);
    if (make_key(vmm, &choice, &key, err) < 0)
        return -1;
    if (load(vmm, key, ret_verdict, NULL) == 0)
        return 0;
    if (vmm->config.probe_kernel == NULL) {
        set_verdict(ret_verdict, VMM_ACCEL_TCG, "KVM was not tried out: no guest kernel for it");
        return 0;
    }
    log_info("trying out KVM with a guest (at most %d ms)", vmm->config.probe_timeout_ms);
    if (try_kvm(vmm, deadline_ms, ret_verdict, err) < 0)
        return -1;
    save(vmm, key, ret_verdict);
    return 0;
}

int accel_decide(struct vmm *vmm, int64_t deadline_ms, struct accel_verdict *ret_verdict,
                 struct err *err)
{
    struct accel_verdict v = {.accel = vmm->config.accel, .reason = "configured"};

    if (v.accel == VMM_ACCEL_AUTO && decide_auto(vmm, deadline_ms, &v, err) < 0)
        return -1;
    *ret_verdict = v;
    return 0;
}
