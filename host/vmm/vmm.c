/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node's side: which QEMU, which accelerator, which transport, which uids. All of that is
 * decided in vmm_prepare, by one thread while others wait for it, and not in vmm_new: a daemon
 * without QEMU should run and say so.
 *
 * A uid of its own for every QEMU is the fence between pods on the host: one that broke out of its
 * machine can neither signal nor trace another one, nor open its files.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/spawn.h"
#include "common/base/text.h"
#include "host/vmm/accel.h"
#include "host/vmm/internal.h"
#include "host/vmm/process.h"
#include "host/vmm/sync.h"
#include "host/vmm/template.h"
#include "host/vmm/transport.h"
#include "host/vmm/vhostnet.h"

#define VERSION_TIMEOUT_MS 10000
#define VERSION_OUTPUT_MAX 65536
#define PROBE_TIMEOUT_MS   15000

static const char *const usual_paths[] = {
    "/usr/bin/qemu-system-x86_64",
    "/usr/local/bin/qemu-system-x86_64",
    "/usr/libexec/qemu-kvm",
};

/* ---- the object ----------------------------------------------------------------------------- */

/* A copy of text, kept by the vmm; NULL stays NULL. */
static int keep_text(struct vmm *vmm, size_t slot, const char *text, const char **ret_copy,
                     struct err *err)
{
    *ret_copy = NULL;
    if (text == NULL)
        return 0;
    vmm->texts[slot] = strdup(text);
    if (vmm->texts[slot] == NULL)
        return err_no_memory(err);
    *ret_copy = vmm->texts[slot];
    return 0;
}

static int keep_config(struct vmm *vmm, const struct vmm_config *from, struct err *err)
{
    struct vmm_config *to = &vmm->config;
    cleanup_free char *cache = text_printf("%s/accel.json", from->run_dir);

    *to = *from;
    if (to->probe_timeout_ms <= 0)
        to->probe_timeout_ms = PROBE_TIMEOUT_MS;
    if (cache == NULL)
        return err_no_memory(err);
    if (keep_text(vmm, 0, from->qemu, &to->qemu, err) < 0 ||
        keep_text(vmm, 1, from->run_dir, &to->run_dir, err) < 0 ||
        keep_text(vmm, 2, from->accel_cache != NULL ? from->accel_cache : cache, &to->accel_cache,
                  err) < 0 ||
        keep_text(vmm, 3, from->probe_kernel, &to->probe_kernel, err) < 0 ||
        keep_text(vmm, 4, from->probe_initrd, &to->probe_initrd, err) < 0 ||
        keep_text(vmm, 5, from->template_dir, &to->template_dir, err) < 0 ||
        keep_text(vmm, 6, from->vhost_net != NULL ? from->vhost_net : VHOSTNET_DEVICE,
                  &to->vhost_net, err) < 0)
        return -1;
    return 0;
}

struct vmm *vmm_ref(struct vmm *vmm)
{
    atomic_fetch_add(&vmm->refs, 1);
    return vmm;
}

void vmm_unref(struct vmm *vmm)
{
    if (vmm == NULL || atomic_fetch_sub(&vmm->refs, 1) != 1)
        return;
    free(vmm->uids_used);
    close_fd(&vmm->deadend_ns);
    pthread_mutex_destroy(&vmm->deadend_lock);
    for (size_t i = 0; i < ARRAY_SIZE(vmm->texts); i++)
        free(vmm->texts[i]);
    pthread_cond_destroy(&vmm->changed);
    pthread_mutex_destroy(&vmm->lock);
    free(vmm);
}

void vmm_free(struct vmm *vmm)
{
    if (vmm != NULL)
        templates_free(steal_ptr(&vmm->templates));
    vmm_unref(vmm);
}

int vmm_new(const struct vmm_config *config, struct loop *loop, struct vmm **ret_vmm,
            struct err *err)
{
    struct vmm *vmm;

    if (config->run_dir == NULL || config->run_dir[0] != '/')
        return err_set(err, ERR_INVALID, "vmm: run_dir must be an absolute path");
    if (config->uid_count > 0 && (config->uid_base == 0 || config->uid_count > 10000000 ||
                                  config->uid_base > UINT32_MAX - 1 - config->uid_count))
        return err_set(err, ERR_INVALID, "vmm: uids %u to %u + %u do not do", config->uid_base,
                       config->uid_base, config->uid_count);
    vmm = calloc(1, sizeof(*vmm));
    if (vmm == NULL)
        return err_no_memory(err);
    atomic_init(&vmm->refs, 1);
    vmm->loop = loop;
    vmm->deadend_ns = -1;
    pthread_mutex_init(&vmm->lock, NULL);
    pthread_mutex_init(&vmm->deadend_lock, NULL);
    sync_cond_init(&vmm->changed);
    vmm->uids_used = calloc(config->uid_count + 1, 1);
    if (vmm->uids_used == NULL) {
        (void)err_no_memory(err);
        goto fail;
    }
    if (keep_config(vmm, config, err) < 0 || process_boot_id(vmm->boot_id, err) < 0 ||
        (config->template_dir != NULL &&
         templates_new(vmm, config->template_dir, &vmm->templates, err) < 0))
        goto fail;
    *ret_vmm = vmm;
    return 0;
fail:
    vmm_unref(vmm);
    return -1;
}

void vmm_get_status(struct vmm *vmm, struct vmm_status *ret_status)
{
    pthread_mutex_lock(&vmm->lock);
    *ret_status = vmm->status;
    pthread_mutex_unlock(&vmm->lock);
    if (vmm->templates != NULL)
        templates_get_status(vmm->templates, ret_status);
}

/* ---- uids ----------------------------------------------------------------------------------- */

int vmm_take_uid(struct vmm *vmm, uid_t *ret_uid, struct err *err)
{
    if (vmm->config.uid_count == 0) {
        *ret_uid = geteuid();
        return 0;
    }
    pthread_mutex_lock(&vmm->lock);
    const uint8_t *free_one = memchr(vmm->uids_used, 0, vmm->config.uid_count);
    if (free_one != NULL) {
        size_t i = (size_t)(free_one - vmm->uids_used);
        vmm->uids_used[i] = 1;
        *ret_uid = vmm->config.uid_base + (uid_t)i;
    }
    pthread_mutex_unlock(&vmm->lock);
    if (free_one == NULL)
        return err_set(err, ERR_EXHAUSTED, "all %u uids for machines are used",
                       vmm->config.uid_count);
    return 0;
}

static void mark_uid(struct vmm *vmm, uid_t uid, uint8_t used)
{
    if (uid < vmm->config.uid_base || uid - vmm->config.uid_base >= vmm->config.uid_count)
        return;
    pthread_mutex_lock(&vmm->lock);
    vmm->uids_used[uid - vmm->config.uid_base] = used;
    pthread_mutex_unlock(&vmm->lock);
}

void vmm_keep_uid(struct vmm *vmm, uid_t uid)
{
    mark_uid(vmm, uid, 1);
}

void vmm_release_uid(struct vmm *vmm, uid_t uid)
{
    mark_uid(vmm, uid, 0);
}

/* ---- deciding ------------------------------------------------------------------------------- */

static int find_binary(const struct vmm_config *config, const char **ret_path, struct err *err)
{
    if (config->qemu != NULL) {
        if (config->qemu[0] != '/')
            return err_set(err, ERR_INVALID, "QEMU '%s': an absolute path is needed", config->qemu);
        if (access(config->qemu, X_OK) < 0)
            return err_set(err, ERR_UNAVAILABLE, "QEMU '%s': %s", config->qemu,
                           strerrordesc_np(errno));
        *ret_path = config->qemu;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(usual_paths); i++) {
        if (access(usual_paths[i], X_OK) == 0) {
            *ret_path = usual_paths[i];
            return 0;
        }
    }
    return err_set(err, ERR_UNAVAILABLE, "QEMU is not installed: there is no %s", usual_paths[0]);
}

/* "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)": the number and its first two parts. */
static int parse_version(const char *text, char *ret_version, size_t size, int *ret_major,
                         int *ret_minor)
{
    static const char before[] = " version ";
    const char *p = strstr(text, before);

    if (p == NULL)
        return -1;
    p += sizeof(before) - 1;
    size_t n = strspn(p, "0123456789.");
    size_t dot = strspn(p, "0123456789");
    if (n >= size || dot == 0 || dot > 4 || p[dot] != '.' || dot + 1 == n)
        return -1;
    *ret_major = (int)strtol(p, NULL, 10);
    *ret_minor = (int)strtol(p + dot + 1, NULL, 10);
    memcpy(ret_version, p, n);
    ret_version[n] = '\0';
    return 0;
}

static int ask_version(const char *path, int64_t deadline_ms, char *ret_version, size_t size,
                       int *ret_major, int *ret_minor, struct err *err)
{
    const char *const argv[] = {path, "--version", NULL};
    const char *const envp[] = {"LC_ALL=C", "PATH=/usr/bin:/bin", NULL};
    const struct spawn_spec spec = {.path = path, .argv = argv, .envp = envp, .no_new_privs = true};
    struct spawn_output output = {0};
    int result = 0;

    if (spawn_run(&spec, NULL, VERSION_OUTPUT_MAX,
                  clock_earlier(deadline_ms, clock_deadline(VERSION_TIMEOUT_MS)), &output, err) < 0)
        return -1;
    if (output.status != 0)
        result = err_set(err, ERR_UNAVAILABLE, "'%s --version' ended with status %d: %.300s", path,
                         output.status, output.err_text);
    else if (parse_version(output.out, ret_version, size, ret_major, ret_minor) < 0)
        result = err_set(err, ERR_UNAVAILABLE, "'%s --version' is not understood: %.100s", path,
                         output.out);
    else if (*ret_major < 7 || (*ret_major == 7 && *ret_minor < 2))
        result = err_set(err, ERR_UNSUPPORTED, "QEMU %s at '%s' is too old: 7.2 is needed",
                         ret_version, path);
    free(output.out);
    free(output.err_text);
    return result;
}

/* Once: a template and its clones must agree. */
static bool use_vhost_net(const struct vmm *vmm)
{
    struct err why;

    if (vmm->config.vhost_net[0] == '\0')
        return false;
    if (vhostnet_usable(vmm->config.vhost_net, &why))
        return true;
    log_event(why.code == ERR_NOT_FOUND ? LOG_DEBUG : LOG_WARN, NULL, &why,
              "QEMU moves the packets of machines itself");
    return false;
}

int vmm_find_qemu(struct vmm *vmm, int64_t deadline_ms, struct err *err)
{
    const char *path = NULL;
    char version[sizeof(vmm->status.qemu_version)];
    enum vmm_transport transport = vmm->config.transport;
    int major = 0, minor = 0;

    pthread_mutex_lock(&vmm->lock);
    bool known = vmm->qemu[0] != '\0';
    pthread_mutex_unlock(&vmm->lock);
    if (known)
        return 0;
    if (find_binary(&vmm->config, &path, err) < 0 ||
        ask_version(path, deadline_ms, version, sizeof(version), &major, &minor, err) < 0)
        return -1;
    if (strlen(path) >= sizeof(vmm->qemu))
        return err_set(err, ERR_INVALID, "the path of QEMU is too long");
    if (transport == VMM_TRANSPORT_AUTO)
        transport = transport_vsock_available() ? VMM_TRANSPORT_VSOCK : VMM_TRANSPORT_SERIAL;
    bool vhost_net = use_vhost_net(vmm);

    pthread_mutex_lock(&vmm->lock);
    memcpy(vmm->qemu, path, strlen(path) + 1);
    vmm->qemu_major = major;
    vmm->qemu_minor = minor;
    memcpy(vmm->status.qemu_version, version, sizeof(version));
    vmm->status.transport = transport;
    vmm->status.vhost_net = vhost_net;
    pthread_mutex_unlock(&vmm->lock);
    return 0;
}

void vmm_get_choice(struct vmm *vmm, struct vmm_choice *ret_choice)
{
    pthread_mutex_lock(&vmm->lock);
    ret_choice->qemu = vmm->qemu;
    ret_choice->major = vmm->qemu_major;
    ret_choice->minor = vmm->qemu_minor;
    memcpy(ret_choice->version, vmm->status.qemu_version, sizeof(ret_choice->version));
    ret_choice->accel = vmm->status.accel;
    ret_choice->tcg_hardening = vmm->config.tcg_hardening;
    ret_choice->transport = vmm->status.transport;
    ret_choice->vhost_net = vmm->status.vhost_net;
    pthread_mutex_unlock(&vmm->lock);
}

void vmm_get_choice_for(struct vmm *vmm, const struct vm_spec *spec, struct vmm_choice *ret_choice)
{
    vmm_get_choice(vmm, ret_choice);
    if (spec->accel != VMM_ACCEL_AUTO)
        ret_choice->accel = spec->accel;
}

static int prepare(struct vmm *vmm, int64_t deadline_ms, struct err *err)
{
    struct accel_verdict verdict;

    if (vmm_find_qemu(vmm, deadline_ms, err) < 0 ||
        accel_decide(vmm, deadline_ms, &verdict, err) < 0)
        return -1;
    pthread_mutex_lock(&vmm->lock);
    vmm->status.accel = verdict.accel;
    vmm->status.accel_is_fallback = verdict.is_fallback;
    memcpy(vmm->status.accel_reason, verdict.reason, sizeof(vmm->status.accel_reason));
    vmm->status.prepared = true;
    pthread_mutex_unlock(&vmm->lock);
    return 0;
}

int vmm_prepare(struct vmm *vmm, int64_t deadline_ms, struct err *err)
{
    struct err why = {0};

    pthread_mutex_lock(&vmm->lock);
    while (vmm->preparing && sync_wait_until(&vmm->changed, &vmm->lock, deadline_ms))
        continue;
    bool prepared = vmm->status.prepared, busy = vmm->preparing;
    if (!prepared && !busy)
        vmm->preparing = true;
    pthread_mutex_unlock(&vmm->lock);
    if (prepared)
        return 0;
    if (busy)
        return err_set(err, ERR_DEADLINE, "the accelerator is still being tried out");

    int result = prepare(vmm, deadline_ms, &why);
    pthread_mutex_lock(&vmm->lock);
    vmm->preparing = false;
    (void)snprintf(vmm->status.problem, sizeof(vmm->status.problem), "%.*s",
                   (int)sizeof(vmm->status.problem) - 1, result < 0 ? why.msg : "");
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    if (result < 0 && err != NULL)
        *err = why;
    return result;
}

void vmm_set_template_hook(struct vmm *vmm, vmm_template_fn fn, vmm_template_ready_fn ready,
                           void *arg)
{
    if (fn == NULL && vmm->templates != NULL)
        templates_stop(vmm->templates);
    vmm->template_hook = fn;
    vmm->template_ready = ready;
    vmm->template_hook_arg = arg;
}

int vmm_want_template(struct vmm *vmm, const struct vm_spec *spec, struct err *err)
{
    struct vmm_choice choice;

    if (vmm->templates == NULL)
        return err_set(err, ERR_BAD_STATE, "this vmm keeps no templates");
    vmm_get_choice_for(vmm, spec, &choice);
    return templates_want(vmm->templates, &choice, spec, err);
}

void vmm_look_again(struct vmm *vmm)
{
    if (vmm->templates != NULL)
        templates_look_again(vmm->templates);
}

int vmm_kill_stray(struct vmm *vmm, const char *id, unsigned int *ret_killed, struct err *err)
{
    char name[VM_ID_SIZE + 32];

    (void)vmm;
    if (!vm_id_is_valid(id))
        return err_set(err, ERR_INVALID, "'%s' does not do as a machine's name", id);
    (void)snprintf(name, sizeof(name), "guest=%s,debug-threads=on", id);
    return process_kill_by_args("-name", name, ret_killed, err);
}
