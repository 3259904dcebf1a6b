/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. An entry stands for a shape of machine; in it is at most one template, of
 * the files as they were at one moment (its stamp). Whoever wants a template finds the entry by
 * shape, compares stamps, and, unless the template is at hand, marks the entry WANTED and waits for
 * the maker, a thread that is started at the first need. It tries the copy on disk first.
 *
 * Nothing here can keep a pod from starting: every failure sends it to a cold boot, with a warning.
 * What failed is not tried again for a while, because each trial costs a boot. A template whose
 * clone did not come up is thrown away, also from disk, and made anew, unless that happens again
 * and again.
 *
 * Clones hold their memory's file themselves, so a template may go at any time: after an upgrade
 * the old machines keep the old one until they end.
 *
 * All templates together occupy templates_max_bytes at most, as the files' blocks count it; what
 * one will occupy is known when it was made or read. One that is too much is given up, and its
 * machines boot. None is thrown out for another one: the shapes are those of the configuration's
 * handlers, so all of them come again, and each change of place would cost a boot. While one is
 * made, its machine's memory comes on top, and what only machines of a replaced template still
 * hold is theirs.
 *
 * The maker's machines have a name that is made of the folder's, so that a successor finds and
 * kills the one that a killed daemon left. Lock order: store->lock, then nothing.
 */
#include "host/vmm/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"
#include "host/vmm/process.h"
#include "host/vmm/sync.h"
#include "host/vmm/template_file.h"
#include "host/vmm/template_key.h"
#include "host/vmm/template_make.h"

#define MAKE_MS      120000
#define RETRY_MS     60000
#define REJECTS_MAX  3 /* in a row, until it is given up for a while */
#define MACHINE_NAME "template-%016llx"

struct template
{
    atomic_uint refs;
    struct template_files files;
    int ram_fd; /* as in struct vm_memory */
};

enum entry_state {
    ENTRY_WANTED, /* somebody needs it; the maker has not begun */
    ENTRY_MAKING, /* the maker is at it */
    ENTRY_READY,  /* template is set */
    ENTRY_FAILED, /* failure is set; until retry_ms it is not tried again */
};

struct entry {
    LIST_ENTRY(entry) link;
    /* Constant. */
    char *shape;
    struct vmm_choice choice;
    struct vm_spec spec; /* its strings are in texts */
    char *texts[4];
    int disk_fd;      /* what is on a new first disk: a copy in memory; -1: there is no such disk */
    int64_t began_ms; /* the maker's */
    /* Guarded by the store's lock. */
    enum entry_state state;
    char *stamp; /* of the files when it was wanted */
    char key[TEMPLATE_KEY_SIZE];
    struct template *template;
    uint64_t bytes; /* what a template of these files occupies; 0: not known yet */
    bool too_much;  /* it failed because of the bound on all of them */
    unsigned rejects;
    struct err failure;
    int64_t retry_ms;
};

struct templates {
    /* Constant. */
    struct vmm *vmm;
    char *dir;
    char *machine_dir;
    char machine[VM_ID_SIZE];
    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t changed;
    LIST_HEAD(, entry) entries;
    unsigned n_entries;
    bool has_maker, stopping;
    pthread_t maker;
    struct vm *running; /* the maker's machine; NULL: none */
};

/* ---- one template -----------------------------------------------------------------------------
 */

static int template_new(struct template_files *files, int ram_fd, struct template **ret_template,
                        struct err *err)
{
    struct template *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return err_no_memory(err);
    atomic_init(&t->refs, 1);
    t->files = *files;
    t->ram_fd = ram_fd;
    *files = (struct template_files)TEMPLATE_NO_FILES;
    *ret_template = t;
    return 0;
}

void template_unref(struct template *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    template_files_close(&t->files);
    free(t);
}

int template_ram_fd(const struct template *t)
{
    return t->ram_fd;
}

const struct template_files *template_get_files(const struct template *t)
{
    return &t->files;
}

/* ---- entries ----------------------------------------------------------------------------------
 */

static void entry_free(struct entry *e)
{
    if (e == NULL)
        return;
    template_unref(e->template);
    for (size_t i = 0; i < ARRAY_SIZE(e->texts); i++)
        free(e->texts[i]);
    close_fd(&e->disk_fd);
    free(e->shape);
    free(e->stamp);
    free(e);
}

static int keep(struct entry *e, size_t slot, const char *text, const char **ret_copy,
                struct err *err)
{
    *ret_copy = NULL;
    if (text == NULL)
        return 0;
    e->texts[slot] = strdup(text);
    if (e->texts[slot] == NULL)
        return err_no_memory(err);
    *ret_copy = e->texts[slot];
    return 0;
}

/* Only what makes the machine: no pod's cgroup, no score. NULL: err says why. */
static struct entry *entry_new(const struct templates *store, const struct vmm_choice *choice,
                               const struct vm_spec *spec, struct err *err)
{
    struct entry *e = calloc(1, sizeof(*e));

    if (e == NULL) {
        (void)err_no_memory(err);
        return NULL;
    }
    e->choice = *choice;
    e->disk_fd = -1;
    e->spec = (struct vm_spec){
        .id = store->machine,
        .dir = store->machine_dir,
        .memory_mib = spec->memory_mib,
        .memory_max_mib = spec->memory_max_mib,
        .vcpus = spec->vcpus,
        .vcpus_max = spec->vcpus_max,
        .console = spec->console,
    };
    e->state = ENTRY_WANTED;
    if (keep(e, 0, spec->kernel, &e->spec.kernel, err) < 0 ||
        keep(e, 1, spec->initrd, &e->spec.initrd, err) < 0 ||
        keep(e, 2, spec->cmdline_extra, &e->spec.cmdline_extra, err) < 0 ||
        keep(e, 3, spec->machine, &e->spec.machine, err) < 0 ||
        (spec->first_disk != NULL &&
         (template_file_new("disk", 0, &e->disk_fd, err) < 0 ||
          template_file_copy(spec->first_disk->fd, e->disk_fd, err) < 0))) {
        entry_free(e);
        return NULL;
    }
    return e;
}

/* A copy's folder: heap text or NULL. */
static char *folder_of(const struct templates *store, const char *key)
{
    return text_printf("%s/%s", store->dir, key);
}

static void remove_folder(const struct templates *store, const char *key)
{
    cleanup_free char *dir = key[0] == '\0' ? NULL : folder_of(store, key);
    struct err err;

    if (dir != NULL && fd_remove_tree(AT_FDCWD, dir, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "a template's copy stays on disk, ignoring");
}

/* ---- the maker --------------------------------------------------------------------------------
 */

static void on_running(void *arg, struct vm *vm)
{
    struct templates *store = arg;
    struct vm *old;

    pthread_mutex_lock(&store->lock);
    old = store->running;
    store->running = vm == NULL ? NULL : vm_ref(vm);
    bool stopping = store->stopping;
    pthread_mutex_unlock(&store->lock);
    vm_unref(old);
    if (stopping && vm != NULL)
        (void)vm_kill(vm, NULL);
}

static void log_template(const struct entry *e, const char *what, const struct template *t)
{
    struct stat memory = {0}, state = {0};

    (void)fstat(t->files.fds[TEMPLATE_MEMORY], &memory);
    (void)fstat(t->files.fds[TEMPLATE_STATE], &state);
    log_info("template %.12s %s in %lld ms: %u MiB of guest memory, %lld MiB of it in use, "
             "%lld KiB of state",
             e->key, what, (long long)(clock_monotonic_ms() - e->began_ms), e->spec.memory_mib,
             (long long)memory.st_blocks / 2048, (long long)state.st_size / 1024);
}

static void publish(struct templates *store, struct entry *e, struct template *t)
{
    pthread_mutex_lock(&store->lock);
    e->template = t;
    e->state = ENTRY_READY;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
    if (store->vmm->template_ready != NULL)
        store->vmm->template_ready(store->vmm->template_hook_arg);
}

static uint64_t blocks_of(const struct template_files *files)
{
    uint64_t bytes = 0;
    struct stat st;

    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        if (files->fds[i] >= 0 && fstat(files->fds[i], &st) == 0)
            bytes += (uint64_t)st.st_blocks * 512;
    return bytes;
}

/* Whether there is room for what is known of the entry's template; EXHAUSTED. The maker's. */
static int check_room(struct templates *store, struct entry *e, struct err *err)
{
    const uint64_t max = store->vmm->config.templates_max_bytes;
    const struct entry *other;
    uint64_t others = 0;

    pthread_mutex_lock(&store->lock);
    LIST_FOREACH (other, &store->entries, link)
        if (other->template != NULL)
            others += other->bytes;
    e->too_much = max > 0 && (others >= max || e->bytes > max - others);
    bool too_much = e->too_much;
    pthread_mutex_unlock(&store->lock);
    if (!too_much)
        return 0;
    return err_set(err, ERR_EXHAUSTED,
                   "templates occupy %llu MiB, %llu MiB are the most, and one with %u MiB of guest "
                   "memory needs %s%llu MiB",
                   (unsigned long long)others >> 20, (unsigned long long)max >> 20,
                   e->spec.memory_mib, e->bytes == 0 ? "more than " : "",
                   (unsigned long long)e->bytes >> 20);
}

/* Takes over the files. */
static int try_and_publish(struct templates *store, struct entry *e, const struct template_job *job,
                           struct template_files *files, const char *what, struct err *err)
{
    cleanup_template struct template *t = NULL;
    int ram_fd = -1;

    pthread_mutex_lock(&store->lock);
    e->bytes = blocks_of(files);
    pthread_mutex_unlock(&store->lock);
    if (check_room(store, e, err) < 0 ||
        template_try(job, files, clock_deadline(MAKE_MS), &ram_fd, err) < 0 ||
        template_new(files, ram_fd, &t, err) < 0)
        return -1;
    log_template(e, what, t);
    publish(store, e, steal_ptr(&t));
    return 0;
}

/* 0: it is in use. 1: it has to be made. -1: neither it nor one like it may be in memory. */
static int read_copy(struct templates *store, struct entry *e, const struct template_job *job,
                     struct err *err)
{
    cleanup_free char *dir = folder_of(store, e->key);
    cleanup_template_files struct template_files files = TEMPLATE_NO_FILES;
    struct err why;

    if (dir == NULL)
        return err_no_memory(err);
    if (template_file_read(dir, e->key, &files, &why) == 0 &&
        try_and_publish(store, e, job, &files, "read", &why) == 0)
        return 0;
    if (e->too_much) {
        if (err != NULL)
            *err = why;
        return -1;
    }
    if (why.code != ERR_NOT_FOUND)
        log_event(LOG_ERROR, NULL, &why, "the copy of template %.12s does not do: it is made anew",
                  e->key);
    remove_folder(store, e->key);
    return 1;
}

/* A copy that is not whole has no name that is looked for. */
static void write_copy(const struct templates *store, const struct entry *e,
                       const struct template *t)
{
    cleanup_free char *dir = folder_of(store, e->key);
    cleanup_free char *temporary = text_printf("%s/.new-XXXXXX", store->dir);
    struct err err;

    if (dir == NULL || temporary == NULL)
        return;
    if (mkdtemp(temporary) == NULL)
        (void)err_set_errno(&err, errno, "%s", temporary);
    else if (template_file_write(temporary, e->key, &t->files, &err) == 0) {
        if (rename(temporary, dir) == 0)
            return;
        (void)err_set_errno(&err, errno, "%s", dir);
    }
    log_event(LOG_WARN, NULL, &err,
              "template %.12s is not kept on disk: it is made again after a restart", e->key);
    (void)fd_remove_tree(AT_FDCWD, temporary, NULL);
}

static int make(struct templates *store, struct entry *e, const struct template_job *job,
                struct err *err)
{
    cleanup_template struct template *t = NULL;
    cleanup_template_files struct template_files files = TEMPLATE_NO_FILES;

    if (template_make(job, clock_deadline(MAKE_MS), &files, err) < 0 ||
        try_and_publish(store, e, job, &files, "made", err) < 0)
        return -1;
    pthread_mutex_lock(&store->lock);
    if (e->template != NULL) {
        t = e->template;
        atomic_fetch_add(&t->refs, 1);
    }
    pthread_mutex_unlock(&store->lock);
    if (t != NULL)
        write_copy(store, e, t);
    return 0;
}

static int serve_entry(struct templates *store, struct entry *e, struct err *err)
{
    const struct template_job job = {.vmm = store->vmm,
                                     .choice = &e->choice,
                                     .spec = &e->spec,
                                     .disk_fd = e->disk_fd,
                                     .running = on_running,
                                     .arg = store};
    const struct vm_disk disk = {.fd = e->disk_fd};
    struct vm_spec spec = e->spec;
    char key[TEMPLATE_KEY_SIZE];

    spec.first_disk = e->disk_fd < 0 ? NULL : &disk;
    e->began_ms = clock_monotonic_ms();
    if (check_room(store, e, err) < 0 ||
        template_key(&e->choice, &spec, store->vmm->boot_id, key, err) < 0)
        return -1;
    if (e->key[0] != '\0' && strcmp(e->key, key) != 0)
        remove_folder(store, e->key);
    pthread_mutex_lock(&store->lock);
    memcpy(e->key, key, sizeof(key));
    pthread_mutex_unlock(&store->lock);
    if (mkdir(store->machine_dir, 0700) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "%s", store->machine_dir);
    int result = read_copy(store, e, &job, err);
    if (result > 0)
        result = make(store, e, &job, err);
    (void)fd_remove_tree(AT_FDCWD, store->machine_dir, NULL);
    return result;
}

static struct entry *next_wanted(struct templates *store)
{
    struct entry *e;

    LIST_FOREACH (e, &store->entries, link)
        if (e->state == ENTRY_WANTED)
            return e;
    return NULL;
}

/* Lock held. */
static bool is_in_use(const struct templates *store, const char *name)
{
    const struct entry *e;

    LIST_FOREACH (e, &store->entries, link)
        if (strcmp(e->key, name) == 0)
            return true;
    return false;
}

/* Lock held, nothing wanted: removes copies of what was never asked for, and halves of copies. */
static void collect(const struct templates *store)
{
    DIR *dir = opendir(store->dir);
    const struct dirent *d;

    if (dir == NULL)
        return;
    while ((d = readdir(dir)) != NULL) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            is_in_use(store, d->d_name))
            continue;
        log_info("removing template %.12s, which is not used any more", d->d_name);
        (void)fd_remove_tree(dirfd(dir), d->d_name, NULL);
    }
    (void)closedir(dir);
}

static void *maker_main(void *arg)
{
    struct templates *store = arg;
    struct err err;

    pthread_mutex_lock(&store->lock);
    while (!store->stopping) {
        struct entry *e = next_wanted(store);
        if (e == NULL) {
            pthread_cond_wait(&store->changed, &store->lock);
            continue;
        }
        e->state = ENTRY_MAKING;
        pthread_mutex_unlock(&store->lock);
        int result = serve_entry(store, e, &err);
        if (result < 0)
            log_event(LOG_ERROR, NULL, &err, "there is no template: machines boot");
        pthread_mutex_lock(&store->lock);
        if (result < 0) {
            e->state = ENTRY_FAILED;
            e->failure = err;
            e->retry_ms = clock_deadline(RETRY_MS);
        }
        pthread_cond_broadcast(&store->changed);
        if (next_wanted(store) == NULL)
            collect(store);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* Lock held. */
static int want_maker(struct templates *store, struct err *err)
{
    if (store->stopping)
        return err_set(err, ERR_UNAVAILABLE, "the daemon is ending");
    if (!store->has_maker) {
        int e = pthread_create(&store->maker, NULL, maker_main, store);
        if (e != 0)
            return err_set_errno(err, e, "the thread that makes templates");
        store->has_maker = true;
    }
    pthread_cond_broadcast(&store->changed);
    return 0;
}

/* ---- asking -----------------------------------------------------------------------------------
 */

static struct entry *find(struct templates *store, const char *shape)
{
    struct entry *e;

    LIST_FOREACH (e, &store->entries, link)
        if (strcmp(e->shape, shape) == 0)
            return e;
    return NULL;
}

/* Lock held. Takes over *stamp if it is news. */
static void refresh(struct entry *e, char **stamp)
{
    bool changed = strcmp(e->stamp, *stamp) != 0;

    if (e->state == ENTRY_MAKING || e->state == ENTRY_WANTED)
        return;
    if (e->state == ENTRY_READY && !changed)
        return;
    if (e->state == ENTRY_FAILED && !changed && clock_monotonic_ms() < e->retry_ms)
        return;
    if (changed)
        log_info("template %.12s is of files that were replaced: a new one is made", e->key);
    template_unref(steal_ptr(&e->template));
    free(e->stamp);
    e->stamp = steal_ptr(stamp);
    e->rejects = 0;
    if (changed)
        e->bytes = 0;
    e->state = ENTRY_WANTED;
}

/* Lock held. The entry of a shape, made if need be; NULL: err says why not. Takes over what it
 * keeps of the texts. */
static struct entry *look_up(struct templates *store, const struct vmm_choice *choice,
                             const struct vm_spec *spec, char **shape, char **stamp,
                             struct err *err)
{
    struct entry *e = find(store, *shape), *last;

    if (e != NULL) {
        refresh(e, stamp);
        return e;
    }
    if (store->n_entries == TEMPLATES_MAX) {
        (void)err_set(err, ERR_EXHAUSTED, "there are %d templates already", TEMPLATES_MAX);
        return NULL;
    }
    e = entry_new(store, choice, spec, err);
    if (e == NULL)
        return NULL;
    e->shape = steal_ptr(shape);
    e->stamp = steal_ptr(stamp);
    /* Last: they are made in the order in which they were asked for. */
    LIST_FOREACH (last, &store->entries, link)
        if (LIST_NEXT(last, link) == NULL)
            break;
    if (last == NULL)
        LIST_INSERT_HEAD(&store->entries, e, link);
    else
        LIST_INSERT_AFTER(last, e, link);
    store->n_entries++;
    return e;
}

/* Lock held. Until the entry has a template, or there is none, or nobody wants it. */
static int await(struct templates *store, const struct entry *e, const atomic_bool *cancelled,
                 int64_t until_ms, struct err *err)
{
    if (e->state == ENTRY_WANTED && want_maker(store, err) < 0)
        return -1;
    while (e->state == ENTRY_WANTED || e->state == ENTRY_MAKING) {
        if (store->stopping)
            return err_set(err, ERR_UNAVAILABLE, "the daemon is ending");
        if (cancelled != NULL && atomic_load(cancelled))
            return err_set(err, ERR_CANCELLED, "the machine is not wanted any more");
        if (!sync_wait_until(&store->changed, &store->lock, until_ms))
            return err_set(err, ERR_DEADLINE, "the template is still being made");
    }
    if (e->state == ENTRY_READY)
        return 0;
    if (err != NULL)
        *err = e->failure;
    return -1;
}

int templates_get(struct templates *store, const struct vmm_choice *choice,
                  const struct vm_spec *spec, int64_t deadline_ms, struct template **ret_template,
                  struct err *err)
{
    int64_t now = clock_monotonic_ms();
    cleanup_free char *shape = NULL;
    cleanup_free char *stamp = NULL;
    int result = -1;

    if (template_shape(choice, spec, &shape, err) < 0 ||
        template_stamp(choice, spec, &stamp, err) < 0)
        return -1;
    pthread_mutex_lock(&store->lock);
    struct entry *e = look_up(store, choice, spec, &shape, &stamp, err);
    if (e != NULL)
        result = await(store, e, spec->cancelled, now + (deadline_ms - now) / 2, err);
    if (result == 0) {
        atomic_fetch_add(&e->template->refs, 1);
        *ret_template = e->template;
    }
    pthread_mutex_unlock(&store->lock);
    return result;
}

void templates_look_again(struct templates *store)
{
    pthread_mutex_lock(&store->lock);
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
}

int templates_want(struct templates *store, const struct vmm_choice *choice,
                   const struct vm_spec *spec, struct err *err)
{
    cleanup_free char *shape = NULL;
    cleanup_free char *stamp = NULL;

    if (template_shape(choice, spec, &shape, err) < 0 ||
        template_stamp(choice, spec, &stamp, err) < 0)
        return -1;
    pthread_mutex_lock(&store->lock);
    const struct entry *e = look_up(store, choice, spec, &shape, &stamp, err);
    int result = e == NULL ? -1 : e->state == ENTRY_WANTED ? want_maker(store, err) : 0;
    pthread_mutex_unlock(&store->lock);
    return result;
}

/* Lock held. */
static struct entry *entry_of(struct templates *store, const struct template *t)
{
    struct entry *e;

    LIST_FOREACH (e, &store->entries, link)
        if (e->template == t)
            return e;
    return NULL;
}

void templates_worked(struct templates *store, const struct template *t)
{
    pthread_mutex_lock(&store->lock);
    struct entry *e = entry_of(store, t);
    if (e != NULL)
        e->rejects = 0;
    pthread_mutex_unlock(&store->lock);
}

void templates_reject(struct templates *store, const struct template *t)
{
    char key[TEMPLATE_KEY_SIZE] = "";

    pthread_mutex_lock(&store->lock);
    struct entry *e = entry_of(store, t);
    /* Else somebody was faster: it is gone already. */
    if (e != NULL) {
        memcpy(key, e->key, sizeof(key));
        template_unref(steal_ptr(&e->template));
        if (++e->rejects < REJECTS_MAX) {
            e->state = ENTRY_WANTED;
        } else {
            e->state = ENTRY_FAILED;
            (void)err_set(&e->failure, ERR_UNAVAILABLE, "%d templates in a row did not work",
                          REJECTS_MAX);
            e->retry_ms = clock_deadline(RETRY_MS);
        }
        remove_folder(store, key);
        (void)want_maker(store, NULL);
    }
    pthread_mutex_unlock(&store->lock);
}

/* ---- the store --------------------------------------------------------------------------------
 */

void templates_get_status(struct templates *store, struct vmm_status *status)
{
    const struct entry *e;

    status->template_max_bytes = store->vmm->config.templates_max_bytes;
    pthread_mutex_lock(&store->lock);
    LIST_FOREACH (e, &store->entries, link) {
        status->templates += e->template != NULL;
        status->template_bytes += e->template != NULL ? e->bytes : 0;
        status->templates_refused += e->state == ENTRY_FAILED && e->too_much;
    }
    pthread_mutex_unlock(&store->lock);
}

/* A name that a successor in the same folder finds out again. FNV-1a. */
static void name_machine(struct templates *store)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (const char *c = store->machine_dir; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    (void)snprintf(store->machine, sizeof(store->machine), MACHINE_NAME, (unsigned long long)hash);
}

int templates_new(struct vmm *vmm, const char *dir, struct templates **ret_store, struct err *err)
{
    struct templates *store = calloc(1, sizeof(*store));
    unsigned killed = 0;

    if (store == NULL)
        return err_no_memory(err);
    store->vmm = vmm;
    LIST_INIT(&store->entries);
    pthread_mutex_init(&store->lock, NULL);
    sync_cond_init(&store->changed);
    store->dir = strdup(dir);
    store->machine_dir = text_printf("%s/template", vmm->config.run_dir);
    if (store->dir == NULL || store->machine_dir == NULL) {
        templates_free(store);
        return err_no_memory(err);
    }
    name_machine(store);
    if (vmm_kill_stray(vmm, store->machine, &killed, err) < 0) {
        templates_free(store);
        return -1;
    }
    if (killed > 0)
        log_info("killed a machine that was to become a template");
    (void)fd_remove_tree(AT_FDCWD, store->machine_dir, NULL);
    *ret_store = store;
    return 0;
}

void templates_stop(struct templates *store)
{
    pthread_mutex_lock(&store->lock);
    store->stopping = true;
    struct vm *running = store->running == NULL ? NULL : vm_ref(store->running);
    bool has_maker = store->has_maker;
    store->has_maker = false;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->lock);
    if (running != NULL)
        (void)vm_kill(running, NULL);
    vm_unref(running);
    if (has_maker)
        (void)pthread_join(store->maker, NULL);
}

void templates_free(struct templates *store)
{
    struct entry *e;

    if (store == NULL)
        return;
    templates_stop(store);
    while ((e = LIST_FIRST(&store->entries)) != NULL) {
        LIST_REMOVE(e, link);
        entry_free(e);
    }
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->lock);
    free(store->machine_dir);
    free(store->dir);
    free(store);
}
