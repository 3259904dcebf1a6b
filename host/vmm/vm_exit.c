/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A machine ends in one of three ways, and all lead through the same door,
 * on_exit, on the loop:
 *
 * - the guest ends itself (power-off, reset, crash). QEMU then pauses (see cmdline.c) and says
 * SHUTDOWN. The last words on the guest's console are read from QEMU's ring, then QEMU is told to
 * quit. A timer kills it if that takes too long.
 * - the host asks for it: vm_stop, vm_kill.
 * - QEMU ends or breaks: the pidfd becomes readable, or the QMP connection is lost, which makes the
 * machine unmanageable, so that it is killed.
 *
 * A daemon that was not running meanwhile finds the paused QEMU at vm_attach, and query-status
 * leads to the same end.
 *
 * The death certificate is one line: the cause as QEMU reported it, or as the exit status tells it;
 * then the guest's last words; then what QEMU said. Guest and QEMU are not believed, only quoted,
 * bounded and with control bytes replaced.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "host/vmm/base64.h"
#include "host/vmm/cmdline.h"
#include "host/vmm/internal.h"
#include "host/vmm/process.h"
#include "host/vmm/qmp_client.h"
#include "host/vmm/sync.h"
#include "host/vmm/transport.h"

#define LAST_WORDS_MS 3000 /* for collecting them and for QEMU's quit, then SIGKILL */
#define QMP_LOST_MS                                                                                \
    1000 /* from a lost QMP connection to SIGKILL: normally QEMU is ending anyway                  \
          */
#define IO_ERROR_LOG_MS 10000 /* a guest can cause them at will */

static const char *const state_names[] = {
    [VM_STARTING] = "starting",
    [VM_RUNNING] = "running",
    [VM_ENDING] = "ending",
    [VM_EXITED] = "exited",
};

void vm_set_state(struct vm *vm, enum vm_state state)
{
    log_event(LOG_DEBUG, &(struct log_ctx){.sandbox = vm->record.id}, NULL, "machine: %s -> %s",
              state_names[vm->state], state_names[state]);
    vm->state = state;
    pthread_cond_broadcast(&vm->changed);
}

int vm_check_running(struct vm *vm, struct err *err)
{
    int result = 0;

    pthread_mutex_lock(&vm->lock);
    switch (vm->state) {
    case VM_RUNNING:
        break;
    case VM_STARTING:
        result = err_set(err, ERR_BAD_STATE, "the machine is still starting");
        break;
    case VM_ENDING:
        result = err_set(err, ERR_UNAVAILABLE, "the machine is ending: %s",
                         vm->cause[0] != '\0' ? vm->cause : "it was stopped");
        break;
    case VM_EXITED:
        result = err_set(err, ERR_UNAVAILABLE, "the machine has ended: %s", vm->exit.reason);
        break;
    }
    pthread_mutex_unlock(&vm->lock);
    return result;
}

int vm_wait_exited(struct vm *vm, int64_t deadline_ms, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    while (vm->state != VM_EXITED && sync_wait_until(&vm->changed, &vm->lock, deadline_ms))
        continue;
    bool ended = vm->state == VM_EXITED;
    pthread_mutex_unlock(&vm->lock);
    return ended ? 0 : err_set(err, ERR_DEADLINE, "the machine has not ended in time");
}

bool vm_has_exited(struct vm *vm, struct vm_exit *ret_exit)
{
    pthread_mutex_lock(&vm->lock);
    bool ended = vm->state == VM_EXITED;
    if (ended && ret_exit != NULL)
        *ret_exit = vm->exit;
    pthread_mutex_unlock(&vm->lock);
    return ended;
}

/* ---- telling -------------------------------------------------------------------------------- */

static void tell(struct vm *vm)
{
    struct vm_exit how;
    vm_exit_fn fn = NULL;
    void *arg = NULL;

    pthread_mutex_lock(&vm->lock);
    if (vm->state == VM_EXITED && !vm->exit_told && vm->exit_fn != NULL) {
        vm->exit_told = true;
        fn = vm->exit_fn;
        arg = vm->exit_arg;
        how = vm->exit;
    }
    pthread_mutex_unlock(&vm->lock);
    if (fn != NULL)
        fn(arg, &how);
}

static void tell_posted(void *arg)
{
    tell(arg);
    vm_unref(arg);
}

int vm_set_exit_handler(struct vm *vm, vm_exit_fn fn, void *arg, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    vm->exit_fn = fn;
    vm->exit_arg = arg;
    bool late = fn != NULL && vm->state == VM_EXITED && !vm->exit_told;
    pthread_mutex_unlock(&vm->lock);
    if (!late)
        return 0;
    if (loop_post(vm->loop, tell_posted, vm_ref(vm), err) < 0) {
        vm_unref(vm);
        return -1;
    }
    return 0;
}

/* ---- the certificate
 * --------------------------------------------------------------------------------------------- */

/* The exit code, 128 + signal, or -1 when the process is not our child (any more). */
static int reap(int pidfd)
{
    siginfo_t info = {0};

    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) < 0)
        if (errno != EINTR)
            return -1;
    if (info.si_pid == 0)
        return -1;
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

static void describe_status(int status, bool asked_for, char *ret_text, size_t size)
{
    const char *name = status > 128 ? sigabbrev_np(status - 128) : NULL;

    if (asked_for)
        (void)snprintf(ret_text, size, "stopped by the host");
    else if (status == 128 + SIGKILL)
        (void)snprintf(ret_text, size, "QEMU was killed (SIGKILL): out of memory, or by somebody");
    else if (status > 128)
        (void)snprintf(ret_text, size, "QEMU was killed by signal %d (SIG%s)", status - 128,
                       text_or_empty(name));
    else if (status < 0)
        (void)snprintf(ret_text, size, "QEMU ended");
    else
        (void)snprintf(ret_text, size, "QEMU ended with status %d", status);
}

/* Lock held. */
static void write_certificate(struct vm *vm, int status)
{
    char cause[512], said[512] = "";
    struct vm_exit *how = &vm->exit;
    struct err text; /* makes one line of UTF-8 of what others have said */
    bool spoke = vm->last_words[0] != '\0';

    how->ended_at_ns = clock_realtime_ns();
    how->exit_status = status;
    how->asked_for = vm->asked_for;
    if (vm->cause[0] != '\0')
        memcpy(cause, vm->cause, sizeof(cause));
    else
        describe_status(status, vm->asked_for, cause, sizeof(cause));
    if (!vm->asked_for && vm->stderr_fd >= 0)
        process_stderr_text(vm->stderr_fd, said, sizeof(said));
    (void)err_set(&text, ERR_SYSTEM, "%.300s%s%s%s%s%.400s", cause,
                  spoke ? "; the guest's last words: \"" : "", spoke ? vm->last_words : "",
                  spoke ? "\"" : "", said[0] != '\0' ? "; QEMU said: " : "", said);
    memcpy(how->reason, text.msg, sizeof(how->reason));
    static_assert(sizeof(how->reason) == sizeof(text.msg), "a text of an error");
}

static void remove_socket(const struct vm *vm, const char *name)
{
    cleanup_free char *path = text_printf("%s/%s", vm->record.dir, name);

    if (path != NULL)
        (void)unlink(path);
}

/* The one door. */
static void on_exit_of_process(void *arg)
{
    struct vm *vm = arg;
    struct err why;

    loop_source_free(steal_ptr(&vm->exit_source));
    loop_source_free(steal_ptr(&vm->kill_timer));
    int status = reap(vm->pidfd);
    remove_socket(vm, VM_QMP_SOCKET);
    remove_socket(vm, TRANSPORT_AGENT_SOCKET);
    vmm_release_uid(vm->vmm, vm->record.uid);

    pthread_mutex_lock(&vm->lock);
    write_certificate(vm, status);
    vm_set_state(vm, VM_EXITED);
    (void)err_set(&why, ERR_UNAVAILABLE, "the machine has ended: %s", vm->exit.reason);
    pthread_mutex_unlock(&vm->lock);
    log_event(LOG_DEBUG, &(struct log_ctx){.sandbox = vm->record.id}, NULL, "machine ended: %s",
              vm->exit.reason);
    if (vm->qmp != NULL)
        qmp_client_close(vm->qmp, &why);
    tell(vm);
}

static void on_kill_timer(void *arg)
{
    const struct vm *vm = arg;

    process_kill(vm->pidfd);
}

int vm_watch(struct vm *vm, struct err *err)
{
    if (loop_add_timer(vm->loop, on_kill_timer, vm, &vm->kill_timer, err) < 0)
        return -1;
    if (loop_add_pidfd(vm->loop, vm->pidfd, on_exit_of_process, vm, &vm->exit_source, err) < 0) {
        loop_source_free(steal_ptr(&vm->kill_timer));
        return -1;
    }
    vm->watched = true;
    return 0;
}

/* ---- the guest's own end
 * ----------------------------------------------------------------------------------------- */

/* The line of a kernel panic, else the last line with something in it. */
static void pick_last_words(const char *console, char *ret_text, size_t size)
{
    static const char panic[] = "Kernel panic - not syncing";
    const char *line = NULL, *p = console;
    size_t len = 0, out = 0;

    while (*p != '\0') {
        size_t n = strcspn(p, "\r\n");
        const char *found = memmem(p, n, panic, sizeof(panic) - 1);
        if (found != NULL) {
            line = found;
            len = n - (size_t)(found - p);
            break;
        }
        if (strspn(p, " \t\f\v") < n) {
            line = p;
            len = n;
        }
        p += n;
        p += strspn(p, "\r\n");
    }
    for (size_t i = 0; i < len && out + 1 < size; i++)
        ret_text[out++] = line[i] >= 0x20 && line[i] < 0x7f && line[i] != '"' ? line[i] : '?';
    ret_text[out] = '\0';
}

static void on_last_words(void *arg, json_t *ret, const struct err *err)
{
    struct vm *vm = arg;
    cleanup_free char *console = NULL;

    (void)err; /* no console, or QEMU is gone: then there are no last words */
    if (json_is_string(ret) && base64_decode_text(json_string_value(ret), &console, NULL) == 0) {
        pthread_mutex_lock(&vm->lock);
        pick_last_words(console, vm->last_words, sizeof(vm->last_words));
        pthread_mutex_unlock(&vm->lock);
    }
    (void)qmp_client_send(vm->qmp, "quit", NULL, NULL, NULL, NULL);
    vm_unref(vm);
}

struct ending {
    struct vm *vm;
    const char *cause;
};

/* On the loop. A cause that is known already is kept: the first event tells the most. */
static void begin_end(struct vm *vm, const char *cause)
{
    json_t *args;

    pthread_mutex_lock(&vm->lock);
    bool already = vm->state >= VM_ENDING;
    if (!already) {
        (void)snprintf(vm->cause, sizeof(vm->cause), "%s", cause);
        vm_set_state(vm, VM_ENDING);
    }
    pthread_mutex_unlock(&vm->lock);
    if (already)
        return;
    if (vm->kill_timer != NULL)
        loop_arm(vm->kill_timer, LAST_WORDS_MS);
    args = json_pack("{s:s, s:i, s:s}", "device", "console", "size", CMDLINE_CONSOLE_BYTES,
                     "format", "base64");
    if (qmp_client_send(vm->qmp, "ringbuf-read", args, on_last_words, vm_ref(vm), NULL) < 0) {
        process_kill(vm->pidfd);
        vm_unref(vm);
    }
}

/* What a run state of QEMU says about the machine's end; NULL: it goes on. */
static const char *cause_of_status(const char *status)
{
    static const struct {
        const char *status, *cause;
    } table[] = {
        {"shutdown", "the guest powered off, or reset itself"},
        {"guest-panicked", "the guest's kernel panicked"},
        {"internal-error", "QEMU or KVM met an internal error"},
        {"io-error", "QEMU stopped the guest after an I/O error"},
        {"watchdog", "the guest's watchdog fired"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].status, status) == 0)
            return table[i].cause;
    return NULL;
}

static void run_ending(void *arg)
{
    struct ending *e = arg;

    begin_end(e->vm, e->cause);
}

void vm_note_status(struct vm *vm, const char *status)
{
    struct ending e = {.vm = vm, .cause = cause_of_status(status)};

    if (e.cause != NULL)
        (void)sync_run_on_loop(vm->loop, run_ending, &e, NULL);
}

static void on_status_reply(void *arg, json_t *ret, const struct err *err)
{
    struct vm *vm = arg;

    (void)err;
    vm_note_status(vm, text_or_empty(json_string_value(json_object_get(ret, "status"))));
    vm_unref(vm);
}

static void on_shutdown(struct vm *vm, const json_t *data)
{
    static const struct {
        const char *reason, *cause;
    } table[] = {
        {"guest-shutdown", "the guest powered off"},
        {"guest-reset", "the guest reset itself: it rebooted, or its kernel died"},
        {"subsystem-reset", "the guest reset itself"},
        {"guest-panic", "the guest's kernel panicked"},
        {"host-signal", "QEMU was asked to end by a signal"},
        {"host-error", "QEMU met an error"},
    };
    const char *reason = text_or_empty(json_string_value(json_object_get(data, "reason")));

    pthread_mutex_lock(&vm->lock);
    bool asked_for = vm->asked_for;
    pthread_mutex_unlock(&vm->lock);
    if (asked_for)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        if (strcmp(table[i].reason, reason) == 0) {
            begin_end(vm, table[i].cause);
            return;
        }
    }
    begin_end(vm, "QEMU shut the machine down");
}

void vm_on_event(void *arg, const char *name, const json_t *data)
{
    struct vm *vm = arg;

    if (strcmp(name, "SHUTDOWN") == 0) {
        on_shutdown(vm, data);
    } else if (strcmp(name, "GUEST_PANICKED") == 0) {
        begin_end(vm, "the guest's kernel panicked");
    } else if (strcmp(name, "STOP") == 0) {
        /* Why, only query-status knows; a SHUTDOWN event may follow and then comes first. */
        if (qmp_client_send(vm->qmp, "query-status", NULL, on_status_reply, vm_ref(vm), NULL) < 0)
            vm_unref(vm);
    } else if (strcmp(name, "DEVICE_DELETED") == 0) {
        const char *device = json_string_value(json_object_get(data, "device"));
        if (device != NULL)
            disk_on_device_deleted(vm, device);
    } else if (strcmp(name, "MIGRATION") == 0) {
        snapshot_on_event(vm, text_or_empty(json_string_value(json_object_get(data, "status"))));
    } else if (strcmp(name, "BLOCK_IO_ERROR") == 0) {
        int64_t now = clock_monotonic_ms();
        if (vm->io_error_logged_ms == 0 || now - vm->io_error_logged_ms > IO_ERROR_LOG_MS) {
            vm->io_error_logged_ms = now;
            log_event(LOG_WARN, &(struct log_ctx){.sandbox = vm->record.id}, NULL,
                      "an I/O error on a disk was reported to the guest, node \"%.64s\": %.200s",
                      text_or_empty(json_string_value(json_object_get(data, "node-name"))),
                      text_or_empty(json_string_value(json_object_get(data, "reason"))));
        }
    }
}

void vm_on_qmp_closed(void *arg, const struct err *why)
{
    struct vm *vm = arg;

    pthread_mutex_lock(&vm->lock);
    if (vm->state < VM_ENDING && why->code == ERR_PROTOCOL)
        (void)snprintf(vm->cause, sizeof(vm->cause), "killed, for it cannot be managed: %.300s",
                       why->msg);
    pthread_mutex_unlock(&vm->lock);
    if (vm->kill_timer != NULL)
        loop_arm(vm->kill_timer, QMP_LOST_MS);
    else
        process_kill(vm->pidfd);
}
