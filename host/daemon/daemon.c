/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of coming up: lock, loop thread, store, VMM, images, sandboxes (which find their VMs again
 * over the running loop), garbage collection, and only then the socket: a client never sees half of
 * what exists. The accelerator is decided in the background, because finding out that KVM does not
 * work takes seconds, and Status says so meanwhile.
 *
 * Order of going down: the server drains (its clients get GOAWAY), handlers end, then the rooms go
 * in reverse, and the loop last, because closing a VM's connections happens on it. Nothing is
 * stopped: a daemon that ends is one that comes back.
 */
#include "host/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "common/loop/loop.h"
#include "common/loop/workers.h"
#include "common/rpc/server.h"
#include "host/cri/cri.h"
#include "host/net/net.h"
#include "host/sandbox/sandbox.h"
#include "host/store/store.h"

enum {
    DRAIN_MS = 3000,
    PREPARE_MS = 60000,
    MAX_QUEUED = 1024,
    NET_STATUS_MS = 10000,
    MAX_BIN_DIRS = 32
};

struct daemon {
    const struct config *config;
    int lock_fd;
    struct loop *loop;
    struct loop_source *signals;
    pthread_t loop_thread;
    bool loop_started;
    struct workers *workers;
    struct store *store;
    struct vmm *vmm;
    struct net *net;
    struct image_service *images;
    struct sandbox_manager *sandboxes;
    struct cri *cri;
    struct rpc_server *server;    /* loop thread only */
    struct cri_handler *handlers; /* for cri, which does not copy them */

    pthread_mutex_t lock; /* guards drained, and done of struct on_loop */
    pthread_cond_t changed;
    bool drained; /* the server has ended */
    _Atomic int signals_seen;
};

/* ---- waiting ---- */

static void tell(struct daemon *d, bool *flag)
{
    pthread_mutex_lock(&d->lock);
    *flag = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static void on_drained(void *arg)
{
    struct daemon *d = arg;
    tell(d, &d->drained);
}

static void on_signal(void *arg, int signo)
{
    struct daemon *d = arg;
    if (atomic_fetch_add(&d->signals_seen, 1) > 0) {
        log_warn("%s again, ending at once", strsignal(signo));
        _exit(1);
    }
    log_info("%s: draining, pods go on running", strsignal(signo));
    if (d->server == NULL) {
        tell(d, &d->drained); /* still starting */
        return;
    }
    cri_end_streams(d->cri);
    rpc_server_shutdown(d->server, clock_deadline(DRAIN_MS), on_drained, d);
}

static void *loop_main(void *arg)
{
    struct daemon *d = arg;
    struct err err = {0};
    if (loop_run(d->loop, &err) < 0) {
        /* Nothing works without it, and coming back is what this daemon is made for. */
        log_event(LOG_ERROR, NULL, &err, "the event loop failed, ending at once");
        _exit(EXIT_FAILURE);
    }
    return NULL;
}

/* A call that the main thread has made on the loop's. */
struct on_loop {
    struct daemon *d;
    int (*fn)(struct daemon *d, struct err *err);
    struct err *err;
    int result;
    bool done;
};

static void run_on_loop(void *arg)
{
    struct on_loop *call = arg;
    call->result = call->fn(call->d, call->err);
    tell(call->d, &call->done);
}

static int call_on_loop(struct daemon *d, int (*fn)(struct daemon *d, struct err *err),
                        struct err *err)
{
    struct on_loop call = {.d = d, .fn = fn, .err = err};
    if (loop_post(d->loop, run_on_loop, &call, err) < 0)
        return -1;
    pthread_mutex_lock(&d->lock);
    while (!call.done)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
    return call.result;
}

/* ---- what Status says ---- */

static void get_status(void *arg, struct cri_daemon_status *ret)
{
    struct daemon *d = arg;
    const struct config *c = d->config;
    struct vmm_status v = {0};
    vmm_get_status(d->vmm, &v);
    struct net_status n = {0};
    net_get_status(d->net, clock_deadline(NET_STATUS_MS), &n);
    *ret = (struct cri_daemon_status){.network_ready = n.ready};
    (void)snprintf(ret->accelerator, sizeof(ret->accelerator), "%s", vmm_accel_name(v.accel));
    (void)snprintf(ret->accelerator_reason, sizeof(ret->accelerator_reason), "%s", v.accel_reason);
    (void)snprintf(ret->qemu_version, sizeof(ret->qemu_version), "%s", v.qemu_version);
    (void)snprintf(ret->transport, sizeof(ret->transport), "%s", vmm_transport_name(v.transport));
    (void)snprintf(ret->guest_kernel_path, sizeof(ret->guest_kernel_path), "%s", c->kernel);
    (void)snprintf(ret->network_message, sizeof(ret->network_message), "%s", n.reason);
    (void)snprintf(ret->network, sizeof(ret->network), "%s", n.network);
    ret->templates = (struct cri_templates){.count = v.templates,
                                            .bytes = v.template_bytes,
                                            .max_bytes = v.template_max_bytes,
                                            .refused = v.templates_refused};
    const char *missing = access(c->kernel, R_OK) < 0      ? c->kernel
                          : access(c->initrd, R_OK) < 0    ? c->initrd
                          : access(c->converter, X_OK) < 0 ? c->converter
                                                           : NULL;
    ret->runtime_ready = v.prepared && missing == NULL;
    size_t room = sizeof(ret->runtime_message);
    if (missing != NULL)
        (void)snprintf(ret->runtime_message, room, "'%s' is missing", missing);
    else if (!v.prepared && v.problem[0] != '\0')
        (void)snprintf(ret->runtime_message, room, "%s", v.problem);
    else if (!v.prepared)
        (void)snprintf(ret->runtime_message, room, "still deciding on the accelerator");
    else if (v.accel == VMM_ACCEL_TCG)
        (void)snprintf(ret->runtime_message, room, "pods run in software emulation (TCG): %s",
                       v.accel_reason);
}

static int set_pod_cidr(void *arg, const char *cidrs, struct err *err)
{
    struct daemon *d = arg;
    return net_set_pod_cidr(d->net, cidrs, err);
}

/* ---- coming up ---- */

static int take_lock(struct daemon *d, struct err *err)
{
    cleanup_free char *path = text_printf("%s/casemated.lock", d->config->state_dir);
    if (path == NULL)
        return err_no_memory(err);
    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->lock_fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, ERR_BAD_STATE, "another casemated uses '%s'", d->config->state_dir);
    return 0;
}

static int start_loop(struct daemon *d, struct err *err)
{
    if (loop_new(&d->loop, err) < 0 || loop_add_signals(d->loop, (const int[]){SIGTERM, SIGINT, 0},
                                                        on_signal, d, &d->signals, err) < 0)
        return -1;
    int e = pthread_create(&d->loop_thread, NULL, loop_main, d);
    if (e != 0)
        return err_set_errno(err, e, "start the loop's thread");
    d->loop_started = true;
    return 0;
}

static int open_store(struct daemon *d, struct err *err)
{
    cleanup_free char *path = text_printf("%s/casemate.db", d->config->state_dir);
    return path == NULL ? err_no_memory(err) : store_open(path, &d->store, err);
}

static int make_vmm(struct daemon *d, struct err *err)
{
    const struct config *c = d->config;
    cleanup_free char *cache = text_printf("%s/accel.json", c->state_dir);
    cleanup_free char *templates = text_printf("%s/templates", c->state_dir);
    if (cache == NULL || templates == NULL)
        return err_no_memory(err);
    if (fd_make_dirs(templates, 0700, err) < 0)
        return -1;
    struct vmm_config v = {.qemu = c->qemu,
                           .accel = c->accel,
                           .tcg_hardening = c->tcg_hardening,
                           .transport = c->transport,
                           .vhost_net = c->vhost_net ? NULL : "",
                           .run_dir = c->run_dir,
                           .accel_cache = cache,
                           .template_dir = templates,
                           .templates_max_bytes = (uint64_t)c->templates_max_mib << 20,
                           .probe_kernel = c->kernel,
                           .probe_initrd = c->initrd,
                           .uid_base = c->uid_base,
                           .uid_count = geteuid() == 0 ? c->uid_count : 0};
    return vmm_new(&v, d->loop, &d->vmm, err);
}

static int open_images(struct daemon *d, struct err *err)
{
    const struct config *c = d->config;
    cleanup_free char *root = text_printf("%s/images", c->state_dir);
    cleanup_free struct image_registry *registries =
        calloc(c->n_registries + 1, sizeof(*registries));
    if (root == NULL || registries == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < c->n_registries; i++) {
        const struct config_registry *r = &c->registries[i];
        registries[i] = (struct image_registry){.host = r->host,
                                                .mirrors = (const char *const *)r->mirrors,
                                                .n_mirrors = r->n_mirrors,
                                                .plain_http = r->plain_http,
                                                .ca_file = r->ca_file,
                                                .client_cert_file = r->client_cert,
                                                .client_key_file = r->client_key};
    }
    struct image_config ic = {.root = root,
                              .converter = c->converter,
                              .converter_uid = c->converter_uid,
                              .converter_gid = c->converter_uid,
                              .compression = c->compression,
                              .registries = registries,
                              .n_registries = c->n_registries,
                              .auth_file = c->auth_file,
                              .pinned = (const char *const *)c->pinned.items,
                              .n_pinned = c->pinned.n,
                              .limits = {.layer_bytes = (uint64_t)c->max_layer_mib << 20,
                                         .layer_ratio = c->max_layer_ratio,
                                         .layer_entries = c->max_layer_entries,
                                         .memory_bytes = (uint64_t)c->converter_memory_mib << 20,
                                         .parallel = c->parallel_layers,
                                         .stall_s = c->stall_timeout_s}};
    return image_service_open(&ic, d->store, &d->images, err);
}

/* At most n parts of a list that is separated by ':'; the text is cut up. */
static size_t split(char *text, const char **ret_parts, size_t n)
{
    char *rest = NULL;
    size_t found = 0;
    for (char *part = strtok_r(text, ":", &rest); part != NULL && found < n;
         part = strtok_r(NULL, ":", &rest))
        ret_parts[found++] = part;
    return found;
}

static int make_net(struct daemon *d, struct err *err)
{
    const struct config *c = d->config;
    const char *bin_dirs[MAX_BIN_DIRS];
    cleanup_free char *state = text_printf("%s/net", c->state_dir);
    cleanup_free char *run = text_printf("%s/net", c->run_dir);
    cleanup_free char *dirs = strdup(c->bin_dirs);
    if (state == NULL || run == NULL || dirs == NULL)
        return err_no_memory(err);
    struct net_config nc = {.conf_dir = c->conf_dir,
                            .bin_dirs = bin_dirs,
                            .n_bin_dirs = split(dirs, bin_dirs, MAX_BIN_DIRS),
                            .state_dir = state,
                            .run_dir = run,
                            .conf_template = c->conf_template,
                            .max_networks = c->max_networks,
                            .loopback_only = c->loopback_only,
                            .gc = c->gc,
                            .plugin_timeout_ms = (int64_t)c->plugin_timeout_s * 1000};
    return net_new(&nc, &d->net, err);
}

static int make_sandboxes(struct daemon *d, struct err *err)
{
    const struct config *c = d->config;
    cleanup_free char *state = text_printf("%s/pods", c->state_dir);
    cleanup_free char *run = text_printf("%s/pods", c->run_dir);
    cleanup_free struct sandbox_handler *handlers = calloc(c->n_handlers, sizeof(*handlers));
    if (state == NULL || run == NULL || handlers == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < c->n_handlers; i++) {
        const struct config_handler *h = &c->handlers[i];
        handlers[i] = (struct sandbox_handler){.name = h->name,
                                               .kernel = h->kernel,
                                               .initrd = h->initrd,
                                               .machine = h->machine,
                                               .accel = h->accel,
                                               .memory_bytes = (uint64_t)h->memory_mib << 20,
                                               .vcpus = h->vcpus,
                                               .memory_max_mib = h->memory_max_mib,
                                               .vcpus_max = h->vcpus_max,
                                               .clone = h->clone};
    }
    struct sandbox_config sc = {.state_dir = state,
                                .run_dir = run,
                                .handlers = handlers,
                                .n_handlers = c->n_handlers,
                                .spares = c->spares,
                                .warm_image = access(c->warm_image, R_OK) == 0 ? c->warm_image : "",
                                .scratch_bytes = (uint64_t)c->scratch_mib << 20};
    struct sandbox_deps deps = {
        .loop = d->loop, .store = d->store, .vmm = d->vmm, .net = d->net, .images = d->images};
    return sandbox_manager_new(&sc, &deps, &d->sandboxes, err);
}

static int execute(void *executor, void (*fn)(void *arg), void *arg, struct err *err)
{
    return workers_run(executor, fn, arg, err);
}

/* On the loop's thread. */
static int start_server(struct daemon *d, struct err *err)
{
    struct rpc_server_config sc = {.loop = d->loop, .execute = execute, .executor = d->workers};
    sc.services = cri_services(d->cri, &sc.n_services);
    /* The kubelet keeps one connection and many calls on it; people come one by one. */
    sc.limits.max_streams = 1024;
    sc.max_connections = 512;
    int fd = -1;
    if (rpc_server_new(&sc, &d->server, err) < 0 ||
        fd_listen_unix(d->config->socket, 0600, &fd, err) < 0)
        return -1;
    return rpc_server_listen(d->server, fd, err);
}

static int stop_server(struct daemon *d, struct err *err)
{
    (void)err;
    rpc_server_free(d->server);
    d->server = NULL;
    return 0;
}

static void prepare_vmm(void *arg)
{
    struct daemon *d = arg;
    struct err err = {0};
    if (vmm_prepare(d->vmm, clock_deadline(PREPARE_MS), &err) < 0) {
        log_event(LOG_ERROR, NULL, &err, "virtual machines cannot be started");
        return;
    }
    struct vmm_status v;
    vmm_get_status(d->vmm, &v);
    log_event(v.accel == VMM_ACCEL_TCG ? LOG_WARN : LOG_INFO, NULL, NULL,
              "QEMU %s, accelerator %s (%s), transport %s", v.qemu_version, vmm_accel_name(v.accel),
              v.accel_reason, vmm_transport_name(v.transport));
    sandbox_manager_prepare(d->sandboxes);
}

static int make_folders(const struct config *c, struct err *err)
{
    cleanup_free char *socket_dir = strdup(c->socket);
    if (socket_dir == NULL)
        return err_no_memory(err);
    char *slash = strrchr(socket_dir, '/');
    if (slash == socket_dir)
        slash++;
    *slash = '\0';
    (void)umask(0022);
    if (fd_make_dirs(c->state_dir, 0711, err) < 0 || fd_make_dirs(c->run_dir, 0711, err) < 0 ||
        fd_make_dirs(socket_dir, 0755, err) < 0)
        return -1;
    return 0;
}

static int come_up(struct daemon *d, struct err *err)
{
    const struct config *c = d->config;
    if (make_folders(c, err) < 0 || take_lock(d, err) < 0 || start_loop(d, err) < 0 ||
        workers_new(c->workers, MAX_QUEUED, &d->workers, err) < 0 || open_store(d, err) < 0 ||
        make_vmm(d, err) < 0 || make_net(d, err) < 0 || open_images(d, err) < 0 ||
        make_sandboxes(d, err) < 0)
        return -1;
    if (workers_run(d->workers, prepare_vmm, d, err) < 0 ||
        sandbox_manager_reconcile(d->sandboxes, err) < 0)
        return -1;
    struct err collect = {0};
    if (image_service_collect(d->images, &collect) < 0)
        log_event(LOG_WARN, NULL, &collect, "image garbage could not be collected, ignoring");
    d->handlers = calloc(c->n_handlers, sizeof(*d->handlers));
    if (d->handlers == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < c->n_handlers; i++) {
        const struct config_handler *h = &c->handlers[i];
        d->handlers[i] = (struct cri_handler){
            .name = h->name,
            .machine = h->machine,
            .accelerator = h->accel == VMM_ACCEL_AUTO ? NULL : vmm_accel_name(h->accel),
            .clones = h->clone};
    }
    struct cri_config cc = {.sandboxes = d->sandboxes,
                            .images = d->images,
                            .get_status = get_status,
                            .get_status_arg = d,
                            .set_pod_cidr = set_pod_cidr,
                            .set_pod_cidr_arg = d,
                            .handlers = d->handlers,
                            .n_handlers = c->n_handlers};
    if (cri_new(&cc, &d->cri, err) < 0)
        return -1;
    return call_on_loop(d, start_server, err);
}

/* ---- going down ---- */

static void go_down(struct daemon *d)
{
    workers_free(d->workers);
    if (d->loop_started)
        (void)call_on_loop(d, stop_server, &(struct err){0});
    cri_free(d->cri);
    sandbox_manager_free(d->sandboxes);
    net_free(d->net);
    image_service_free(d->images);
    vmm_free(d->vmm);
    store_close(d->store);
    if (d->loop_started) {
        loop_stop(d->loop);
        (void)pthread_join(d->loop_thread, NULL);
    }
    loop_source_free(d->signals);
    loop_free(d->loop);
    close_fd(&d->lock_fd);
    free(d->handlers);
}

int daemon_run(const struct config *config, void (*ready)(void *arg), void *arg, struct err *err)
{
    struct daemon d = {.config = config,
                       .lock_fd = -1,
                       .lock = PTHREAD_MUTEX_INITIALIZER,
                       .changed = PTHREAD_COND_INITIALIZER};
    /* A peer that went away is an error of the write, not a signal. */
    (void)signal(SIGPIPE, SIG_IGN);
    int r = come_up(&d, err);
    if (r == 0) {
        log_info("casemated " CASEMATE_VERSION " serves CRI on '%s'", config->socket);
        if (ready != NULL)
            ready(arg);
        pthread_mutex_lock(&d.lock);
        while (!d.drained)
            pthread_cond_wait(&d.changed, &d.lock);
        pthread_mutex_unlock(&d.lock);
        (void)unlink(config->socket);
    }
    go_down(&d);
    return r;
}
