/* SPDX-License-Identifier: Apache-2.0 */
/*
 * casemate's own service. Progress of a pull or an import is a stream of messages, at most one
 * every PROGRESS_MS, and the last one carries the ids; a client that goes away cancels the work.
 */
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "host/cri/method.h"
#include "host/image/image.h"
#include "host/sandbox/sandbox.h"

enum { PROGRESS_MS = 100 };

struct progress {
    struct rpc_call *call;
    int64_t last_ms;
};

static void send_progress(void *arg, const struct image_progress *p)
{
    struct progress *out = arg;
    int64_t now = clock_monotonic_ms();
    if (now - out->last_ms < PROGRESS_MS)
        return;
    out->last_ms = now;
    Casemate__Control__V1__ImageProgress m = CASEMATE__CONTROL__V1__IMAGE_PROGRESS__INIT;
    union {
        const char *in;
        char *out;
    } reference = {.in = p->reference == NULL ? "" : p->reference};
    m.reference = reference.out;
    m.bytes_done = p->bytes_done;
    m.bytes_total = p->bytes_total;
    m.layers_done = p->layers_done;
    m.layers_total = p->layers_total;
    /* A failure means that nobody listens, which the work itself finds out through cancelled. */
    (void)rpc_call_send(out->call, &m.base, NULL);
}

static bool cancelled(void *arg)
{
    const struct progress *p = arg;
    return rpc_call_cancelled(p->call);
}

static void finish_images(struct rpc_call *call, char **ids, size_t n)
{
    Casemate__Control__V1__ImageProgress m = CASEMATE__CONTROL__V1__IMAGE_PROGRESS__INIT;
    m.image_ids = ids;
    m.n_image_ids = n;
    rpc_call_reply(call, &m.base);
}

void control_import_image(struct rpc_call *call, void *arg)
{
    const struct cri *cri = arg;
    const Casemate__Control__V1__ImportImageRequest *q =
        (const Casemate__Control__V1__ImportImageRequest *)rpc_call_request(call);
    struct progress p = {.call = call};
    struct image_import_spec spec = {.path = q->path,
                                     .reference = *q->reference == '\0' ? NULL : q->reference,
                                     .deadline_ms = rpc_call_deadline(call),
                                     .cancelled = cancelled,
                                     .progress = send_progress,
                                     .arg = &p};
    struct err err = {0};
    char **ids = NULL;
    size_t n = 0;
    if (q->path[0] != '/') {
        (void)err_set(&err, ERR_INVALID, "path '%s' is not absolute", q->path);
        rpc_call_fail(call, &err);
    } else if (image_import(cri->config.images, &spec, &ids, &n, &err) < 0) {
        log_event(LOG_WARN, NULL, &err, "ImportImage failed");
        rpc_call_fail(call, &err);
    } else {
        finish_images(call, ids, n);
        image_ids_free(ids, n);
    }
}

void control_export_image(struct rpc_call *call, void *arg)
{
    const struct cri *cri = arg;
    const Casemate__Control__V1__ExportImageRequest *q =
        (const Casemate__Control__V1__ExportImageRequest *)rpc_call_request(call);
    struct progress p = {.call = call};
    struct image_export_spec spec = {.image = q->image,
                                     .path = q->path,
                                     .deadline_ms = rpc_call_deadline(call),
                                     .cancelled = cancelled,
                                     .progress = send_progress,
                                     .arg = &p};
    struct err err = {0};
    cleanup_free char *id = NULL;
    if (q->path[0] != '/') {
        (void)err_set(&err, ERR_INVALID, "path '%s' is not absolute", q->path);
        rpc_call_fail(call, &err);
    } else if (image_export(cri->config.images, &spec, &id, &err) < 0) {
        log_event(LOG_WARN, NULL, &err, "ExportImage failed");
        rpc_call_fail(call, &err);
    } else {
        finish_images(call, &id, 1);
    }
}

void control_pull_image(struct rpc_call *call, void *arg)
{
    const struct cri *cri = arg;
    const Casemate__Control__V1__PullImageRequest *q =
        (const Casemate__Control__V1__PullImageRequest *)rpc_call_request(call);
    struct progress p = {.call = call};
    struct image_auth auth = {.username = q->username, .password = q->password};
    struct image_pull_spec spec = {.reference = q->reference,
                                   .auth = *q->username == '\0' ? NULL : &auth,
                                   .deadline_ms = rpc_call_deadline(call),
                                   .cancelled = cancelled,
                                   .progress = send_progress,
                                   .arg = &p};
    struct err err = {0};
    cleanup_free char *id = NULL;
    if (image_pull(cri->config.images, &spec, &id, &err) < 0) {
        log_event(LOG_WARN, NULL, &err, "PullImage failed");
        rpc_call_fail(call, &err);
    } else {
        finish_images(call, &id, 1);
    }
}

static void fill_templates(const struct cri_daemon_status *d, Casemate__Control__V1__Templates *ret)
{
    casemate__control__v1__templates__init(ret);
    ret->count = d->templates.count;
    ret->bytes = d->templates.bytes;
    ret->max_bytes = d->templates.max_bytes;
    ret->refused = d->templates.refused;
}

void control_info(struct rpc_call *call, void *arg)
{
    const struct cri *cri = arg;
    struct cri_daemon_status d = {0};
    cri->config.get_status(cri->config.get_status_arg, &d);
    static char version[] = CASEMATE_VERSION, none[] = "";
    Casemate__Control__V1__InfoReply m = CASEMATE__CONTROL__V1__INFO_REPLY__INIT;
    m.version = version;
    m.accelerator = d.accelerator;
    m.accelerator_reason = d.accelerator_reason;
    m.qemu_version = d.qemu_version;
    m.transport = d.transport;
    m.guest_kernel_path = d.guest_kernel_path;
    m.problem = d.runtime_ready ? none : d.runtime_message;
    Casemate__Control__V1__Templates templates;
    fill_templates(&d, &templates);
    m.templates = &templates;
    rpc_call_reply(call, &m.base);
}

void control_metrics(struct rpc_call *call, void *arg)
{
    const struct cri *cri = arg;
    struct phase_histogram phases[PHASES];
    Casemate__Control__V1__Histogram messages[PHASES], *list[PHASES];
    Casemate__Control__V1__MetricsReply m = CASEMATE__CONTROL__V1__METRICS_REPLY__INIT;
    sandbox_phases(cri->config.sandboxes, phases);
    for (size_t i = 0; i < PHASES; i++) {
        union {
            const char *in;
            char *out;
        } name = {.in = phases[i].name};
        casemate__control__v1__histogram__init(&messages[i]);
        messages[i].name = name.out;
        messages[i].bounds_us = phases[i].bounds_us;
        messages[i].n_bounds_us = ARRAY_SIZE(phases[i].bounds_us);
        messages[i].counts = phases[i].counts;
        messages[i].n_counts = ARRAY_SIZE(phases[i].counts);
        messages[i].sum_us = phases[i].sum_us;
        list[i] = &messages[i];
    }
    m.start_phases = list;
    m.n_start_phases = PHASES;
    struct cri_daemon_status d = {0};
    Casemate__Control__V1__Templates templates;
    cri->config.get_status(cri->config.get_status_arg, &d);
    fill_templates(&d, &templates);
    m.templates = &templates;
    rpc_call_reply(call, &m.base);
}
