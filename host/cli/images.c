/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `casemate images`, `pull`, `image import`, `image export` and `image rm`. An image has a row for
 * each of its names, because the name is what people type.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/text.h"
#include "host/cli/cli.h"
#include "host/cli/command.h"
#include "host/cli/conn.h"
#include "host/cli/json.h"
#include "host/cli/text.h"
#include "host/cli/transfer.h"

enum { CALL_TIMEOUT_MS = 30000 };

#define SOCKET_HELP                                                                                \
    "      --socket PATH  the daemon's socket\n"                                                   \
    "  -h, --help         print this and exit\n"

static const char images_usage[] =
    "usage: casemate images [OPTION]...\n"
    "Lists the images that are here.\n"
    "\n"
    "      --json         as JSON\n" SOCKET_HELP "\n"
    "Exit status: 0, 1 when the daemon does not answer, 2 for a wrong command line.\n";

static const char pull_usage[] =
    "usage: casemate pull [OPTION]... IMAGE\n"
    "Fetches an image from its registry and prints its id.\n"
    "\n"
    "  -q, --quiet        no progress\n" SOCKET_HELP "\n"
    "Exit status: 0, 1 when it could not be had, 2 for a wrong command line.\n";

static const char image_usage[] =
    "usage: casemate image import [--ref NAME] [-q] [--socket PATH] PATH\n"
    "       casemate image export [-q] [--socket PATH] IMAGE FOLDER\n"
    "       casemate image rm [--socket PATH] IMAGE...\n"
    "import reads an OCI image layout (a folder, or a tar of one) or a 'docker save' tar, which "
    "needs\n"
    "no registry, and prints the ids of the images. export writes an image as an OCI image layout "
    "to a\n"
    "new folder and prints the id that it has there: its layers are made anew, so the id is "
    "another "
    "one.\n"
    "rm forgets images with all their names.\n"
    "\n"
    "      --ref NAME     import: the image's name (default: the names in the layout)\n"
    "  -q, --quiet        import, export: no progress\n" SOCKET_HELP "\n"
    "Exit status: 0, 1 when it failed, 2 for a wrong command line.\n";

/* ---- images ---- */

static int add_row(struct cli_table *table, const char *name, const Runtime__V1__Image *image,
                   struct err *err)
{
    char id[CLI_SHORT_ID + 1], size[CLI_QUANTITY_SIZE];
    cli_format_id(image->id, id);
    cli_format_bytes(image->size, size);
    const char *cells[] = {name, id, size};
    return cli_table_add(table, cells, err);
}

static int print_table(const Runtime__V1__ListImagesResponse *m, struct err *err)
{
    static const char *const heads[] = {"NAME", "ID", "SIZE"};
    cleanup_cli_table struct cli_table *table = NULL;
    if (cli_table_new(heads, ARRAY_SIZE(heads), &table, err) < 0)
        return -1;
    for (size_t i = 0; i < m->n_images; i++) {
        const Runtime__V1__Image *image = m->images[i];
        for (size_t j = 0; j < image->n_repo_tags; j++) {
            if (add_row(table, image->repo_tags[j], image, err) < 0)
                return -1;
        }
        if (image->n_repo_tags == 0 &&
            add_row(table, image->n_repo_digests > 0 ? image->repo_digests[0] : NULL, image, err) <
                0)
            return -1;
    }
    cli_table_print(table, stdout);
    return 0;
}

static json_t *strings_json(char *const *items, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_string(items[i]));
    return list;
}

static int print_json(const Runtime__V1__ListImagesResponse *m, struct err *err)
{
    json_t *list = json_array();
    int r = 0;
    for (size_t i = 0; i < m->n_images && r == 0; i++) {
        const Runtime__V1__Image *image = m->images[i];
        json_t *o = json_pack("{s:s, s:o, s:o, s:I, s:b}", "id", image->id, "names",
                              strings_json(image->repo_tags, image->n_repo_tags), "digests",
                              strings_json(image->repo_digests, image->n_repo_digests), "sizeBytes",
                              (json_int_t)image->size, "pinned", image->pinned ? 1 : 0);
        if (o == NULL || json_array_append_new(list, o) < 0)
            r = err_no_memory(err);
    }
    if (r == 0)
        r = cli_json_print(list, err);
    json_decref(list);
    return r;
}

static int list_images(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    const bool *json = arg;
    Runtime__V1__ListImagesRequest q = RUNTIME__V1__LIST_IMAGES_REQUEST__INIT;
    struct rpc_reply reply = {0};
    (void)operands;
    (void)n;
    if (cli_conn_call(conn, CLI_IMAGE, "ListImages", &q.base, CALL_TIMEOUT_MS, &reply, err) < 0)
        return -1;
    const Runtime__V1__ListImagesResponse *m =
        (const Runtime__V1__ListImagesResponse *)reply.message;
    int r = *json ? print_json(m, err) : print_table(m, err);
    rpc_reply_fini(&reply);
    return r;
}

int cli_images_main(int argc, char **argv)
{
    bool json = false;
    const struct cli_option options[] = {{"json", '\0', CLI_FLAG, &json, 0}};
    const struct cli_command command = {
        .spec = {.usage = images_usage, .options = options, .n_options = ARRAY_SIZE(options)},
        .fn = list_images,
        .arg = &json};
    return cli_command_main(&command, argc, argv);
}

/* ---- pull, import ---- */

static int transfer_and_print(struct cli_conn *conn, const struct cli_transfer *transfer,
                              struct err *err)
{
    struct cli_image_ids ids = {0};
    if (cli_transfer(conn, transfer, &ids, err) < 0)
        return -1;
    for (size_t i = 0; i < ids.n; i++)
        puts(ids.items[i]);
    cli_image_ids_fini(&ids);
    return 0;
}

static int pull(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    struct cli_transfer *transfer = arg;
    (void)n;
    transfer->reference = operands[0];
    return transfer_and_print(conn, transfer, err);
}

int cli_pull_main(int argc, char **argv)
{
    struct cli_transfer transfer = {0};
    const struct cli_option options[] = {{"quiet", 'q', CLI_FLAG, &transfer.quiet, 0}};
    const struct cli_command command = {.spec = {.usage = pull_usage,
                                                 .options = options,
                                                 .n_options = ARRAY_SIZE(options),
                                                 .min_operands = 1,
                                                 .max_operands = 1},
                                        .fn = pull,
                                        .arg = &transfer};
    return cli_command_main(&command, argc, argv);
}

static int import(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    struct cli_transfer *transfer = arg;
    /* The daemon has another working directory. */
    cleanup_free char *path = realpath(operands[0], NULL);
    (void)n;
    if (path == NULL)
        return err_set_errno(err, errno, "'%s'", operands[0]);
    transfer->path = path;
    return transfer_and_print(conn, transfer, err);
}

static int import_main(int argc, char **argv)
{
    struct cli_transfer transfer = {.kind = CLI_IMPORT};
    const struct cli_option options[] = {{"ref", '\0', CLI_TEXT, &transfer.reference, 0},
                                         {"quiet", 'q', CLI_FLAG, &transfer.quiet, 0}};
    const struct cli_command command = {.spec = {.usage = image_usage,
                                                 .options = options,
                                                 .n_options = ARRAY_SIZE(options),
                                                 .min_operands = 1,
                                                 .max_operands = 1},
                                        .fn = import,
                                        .arg = &transfer};
    return cli_command_main(&command, argc, argv);
}

static int export(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    struct cli_transfer *transfer = arg;
    cleanup_free char *here = getcwd(NULL, 0);
    const char *path = operands[1];
    cleanup_free char *full =
        path[0] == '/' || here == NULL ? strdup(path) : text_printf("%s/%s", here, path);
    (void)n;
    if (full == NULL)
        return err_no_memory(err);
    transfer->reference = operands[0];
    transfer->path = full;
    return transfer_and_print(conn, transfer, err);
}

static int export_main(int argc, char **argv)
{
    struct cli_transfer transfer = {.kind = CLI_EXPORT};
    const struct cli_option options[] = {{"quiet", 'q', CLI_FLAG, &transfer.quiet, 0}};
    const struct cli_command command = {.spec = {.usage = image_usage,
                                                 .options = options,
                                                 .n_options = ARRAY_SIZE(options),
                                                 .min_operands = 2,
                                                 .max_operands = 2},
                                        .fn = export,
                                        .arg = &transfer};
    return cli_command_main(&command, argc, argv);
}

/* ---- rm ---- */

static int remove_image(void *arg, struct cli_conn *conn, char **operands, int n, struct err *err)
{
    const char *name = operands[0];
    (void)arg;
    (void)n;
    Runtime__V1__ImageSpec image = RUNTIME__V1__IMAGE_SPEC__INIT;
    image.image = cli_lend(name);
    Runtime__V1__ImageStatusRequest status = RUNTIME__V1__IMAGE_STATUS_REQUEST__INIT;
    status.image = &image;
    Runtime__V1__RemoveImageRequest remove = RUNTIME__V1__REMOVE_IMAGE_REQUEST__INIT;
    remove.image = &image;
    struct rpc_reply reply = {0};
    /* CRI's RemoveImage of what is not there succeeds, which would hide a mistyped name. */
    if (cli_conn_call(conn, CLI_IMAGE, "ImageStatus", &status.base, CALL_TIMEOUT_MS, &reply, err) <
        0)
        return -1;
    bool present = ((const Runtime__V1__ImageStatusResponse *)reply.message)->image != NULL;
    rpc_reply_fini(&reply);
    if (!present)
        return err_set(err, ERR_NOT_FOUND, "no image '%s' (see 'casemate images')", name);
    return cli_conn_tell(conn, CLI_IMAGE, "RemoveImage", &remove.base, CALL_TIMEOUT_MS, err);
}

static int rm_main(int argc, char **argv)
{
    const struct cli_command command = {
        .spec = {.usage = image_usage, .min_operands = 1, .max_operands = -1},
        .fn = remove_image,
        .each = true};
    return cli_command_main(&command, argc, argv);
}

int cli_image_main(int argc, char **argv)
{
    static char import_name[] = "image import", export_name[] = "image export",
                rm_name[] = "image rm";
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "import") == 0) {
        argv[1] = import_name;
        return import_main(argc - 1, argv + 1);
    }
    if (strcmp(what, "export") == 0) {
        argv[1] = export_name;
        return export_main(argc - 1, argv + 1);
    }
    if (strcmp(what, "rm") == 0) {
        argv[1] = rm_name;
        return rm_main(argc - 1, argv + 1);
    }
    if (strcmp(what, "--help") == 0 || strcmp(what, "-h") == 0) {
        fputs(image_usage, stdout);
        return cli_finish_output();
    }
    if (*what == '\0')
        cli_complain("image: import, export or rm? (try 'casemate image --help')");
    else
        cli_complain("image: '%s' is none of import, export, rm (try 'casemate image --help')",
                     what);
    return CLI_USAGE;
}
