/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon sends a message every so often; the last one carries the ids. What the messages say is
 * shown as they say it: the daemon is root's own, but the reference in them is not.
 */
#include "host/cli/transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/progress.h"
#include "host/cli/text.h"

struct transfer {
    struct cli_progress progress;
    bool quiet;
    const char *name; /* escaped */
    struct cli_image_ids ids;
    bool no_memory;
};

void cli_image_ids_fini(struct cli_image_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        free(ids->items[i]);
    free(ids->items);
    *ids = (struct cli_image_ids){0};
}

static void take_ids(struct transfer *t, char *const *items, size_t n)
{
    cli_image_ids_fini(&t->ids);
    t->ids.items = calloc(n, sizeof(*t->ids.items));
    for (size_t i = 0; i < n && t->ids.items != NULL; i++) {
        t->ids.items[i] = strdup(items[i]);
        if (t->ids.items[i] == NULL)
            break;
        t->ids.n++;
    }
    t->no_memory = t->ids.n != n;
}

static void on_progress(void *arg, const ProtobufCMessage *message)
{
    struct transfer *t = arg;
    const Casemate__Control__V1__ImageProgress *m =
        (const Casemate__Control__V1__ImageProgress *)message;
    if (m->n_image_ids > 0) {
        take_ids(t, m->image_ids, m->n_image_ids);
        return;
    }
    if (t->quiet)
        return;
    cli_progress_update(&t->progress, (struct cli_progress_state){.name = t->name,
                                                                  .bytes_done = m->bytes_done,
                                                                  .bytes_total = m->bytes_total,
                                                                  .layers_done = m->layers_done,
                                                                  .layers_total = m->layers_total});
}

static int run_stream(struct cli_conn *conn, const struct cli_transfer *transfer,
                      struct transfer *t, struct err *err)
{
    Casemate__Control__V1__PullImageRequest pull = CASEMATE__CONTROL__V1__PULL_IMAGE_REQUEST__INIT;
    Casemate__Control__V1__ImportImageRequest import =
        CASEMATE__CONTROL__V1__IMPORT_IMAGE_REQUEST__INIT;
    Casemate__Control__V1__ExportImageRequest export =
        CASEMATE__CONTROL__V1__EXPORT_IMAGE_REQUEST__INIT;
    struct cli_stream stream = {
        .service = CLI_CONTROL, .on_message = on_progress, .arg = t, .stop = transfer->stop};
    switch (transfer->kind) {
    case CLI_PULL:
        pull.reference = cli_lend(transfer->reference);
        stream.method = "PullImage";
        stream.request = &pull.base;
        break;
    case CLI_IMPORT:
        import.path = cli_lend(transfer->path);
        import.reference = cli_lend(transfer->reference);
        stream.method = "ImportImage";
        stream.request = &import.base;
        break;
    case CLI_EXPORT:
        export.path = cli_lend(transfer->path);
        export.image = cli_lend(transfer->reference);
        stream.method = "ExportImage";
        stream.request = &export.base;
        break;
    }
    return cli_conn_stream(conn, &stream, err);
}

int cli_transfer(struct cli_conn *conn, const struct cli_transfer *transfer,
                 struct cli_image_ids *ret_ids, struct err *err)
{
    static const struct {
        const char *doing;
        const char *done;
    } verbs[] = {[CLI_PULL] = {"Pulling", "Pulled"},
                 [CLI_IMPORT] = {"Importing", "Imported"},
                 [CLI_EXPORT] = {"Exporting", "Exported"}};
    cleanup_free char *name =
        cli_escape(transfer->kind == CLI_IMPORT ? transfer->path : transfer->reference);
    cleanup_free char *done =
        name == NULL ? NULL : text_printf("%s %s", verbs[transfer->kind].done, name);
    if (done == NULL)
        return err_no_memory(err);
    struct transfer t = {.quiet = transfer->quiet, .name = name};
    if (!t.quiet)
        cli_progress_begin(&t.progress, stderr, verbs[transfer->kind].doing, name);
    int r = run_stream(conn, transfer, &t, err);
    if (!t.quiet)
        cli_progress_end(&t.progress, r == 0, done);
    if (r == 0 && t.no_memory)
        r = err_no_memory(err);
    else if (r == 0 && t.ids.n == 0)
        r = err_set(err, ERR_PROTOCOL, "the daemon ended without naming an image");
    if (r == 0 && ret_ids != NULL) {
        *ret_ids = t.ids;
        t.ids = (struct cli_image_ids){0};
    }
    cli_image_ids_fini(&t.ids);
    return r;
}
