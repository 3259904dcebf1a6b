/* SPDX-License-Identifier: Apache-2.0 */
/*
 * casemate-convert: one layer blob on descriptor 0, its squashfs image to descriptor 3, a struct
 * convert_result on descriptor 1. With --complete N, N layer images on the descriptors from 5 on
 * instead of a blob, and what completes them to descriptor 3; with --retar one layer image on
 * descriptor 5, and its tar. The daemon starts it with an identity
 * of its own, no new privileges, empty network, mount and IPC namespaces and limits on memory and
 * file size; the program adds a limit on processor time, starts its threads, and then, before the
 * first byte of input, gives up every system call that the conversion does not need.
 */
#include <getopt.h>
#include <locale.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/image/complete.h"
#include "host/image/confine.h"
#include "host/image/convert.h"
#include "host/image/retar.h"

#define DEFAULT_MAX_BYTES   (32ull << 30)
#define DEFAULT_MAX_RATIO   400
#define DEFAULT_MAX_ENTRIES 2000000
#define DEFAULT_CPU_S       3600

struct args {
    struct convert_options options;
    uint64_t cpu_s;
    uint64_t complete; /* layer images to complete; 0: none */
    bool retar;        /* a layer image to a tar; else, and without `complete`, convert a layer */
};

static int parse_number(const char *text, uint64_t *ret, struct err *err)
{
    uint64_t value;
    if (text_parse_u64(text, UINT64_MAX / 2, &value) < 0 || value == 0)
        return err_set(err, ERR_INVALID, "'%s' is not a positive number", text);
    *ret = value;
    return 0;
}

static int parse_option(int option, const char *value, struct args *args, struct err *err)
{
    uint64_t n = 0;
    switch (option) {
    case 'c':
        if (image_compression_parse(value, &args->options.compression) < 0)
            return err_set(err, ERR_INVALID, "unknown compression '%s'", value);
        return 0;
    case 'b':
        return parse_number(value, &args->options.max_bytes, err);
    case 'r':
        return parse_number(value, &args->options.max_ratio, err);
    case 'e':
        return parse_number(value, &args->options.max_entries, err);
    case 't':
        return parse_number(value, &args->cpu_s, err);
    case 'l':
        if (parse_number(value, &args->complete, err) < 0 || args->complete > COMPLETE_MAX_LAYERS)
            return err_set(err, ERR_INVALID, "layers must be 1 to %d", COMPLETE_MAX_LAYERS);
        return 0;
    case 'x':
        args->retar = true;
        return 0;
    case 'w':
        if (parse_number(value, &n, err) < 0 || n > 64)
            return err_set(err, ERR_INVALID, "workers must be 1 to 64");
        args->options.workers = (unsigned)n;
        return 0;
    default:
        return err_set(err, ERR_INVALID, "unknown option");
    }
}

static int parse_args(int argc, char **argv, struct args *args, struct err *err)
{
    static const struct option options[] = {
        {"compression", required_argument, NULL, 'c'},
        {"max-bytes", required_argument, NULL, 'b'},
        {"max-ratio", required_argument, NULL, 'r'},
        {"max-entries", required_argument, NULL, 'e'},
        {"cpu-seconds", required_argument, NULL, 't'},
        {"workers", required_argument, NULL, 'w'},
        {"complete", required_argument, NULL, 'l'},
        {"retar", no_argument, NULL, 'x'},
        {0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (parse_option(option, optarg, args, err) < 0)
            return -1;
    return optind == argc ? 0 : err_set(err, ERR_INVALID, "unexpected argument");
}

static int work(const struct args *args, struct convert_result *result, struct err *err)
{
    int layers[COMPLETE_MAX_LAYERS];
    if (args->retar)
        return retar_layer(CONVERT_FD_LAYERS, CONVERT_FD_OUT, &args->options, result, err);
    if (args->complete == 0)
        return convert_layer(CONVERT_FD_IN, CONVERT_FD_OUT, &args->options, result, err);
    for (int i = 0; i < (int)args->complete; i++)
        layers[i] = CONVERT_FD_LAYERS + i;
    return complete_layers(layers, (size_t)args->complete, CONVERT_FD_OUT, &args->options, result,
                           err);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct convert_result result = {.magic = CONVERT_MAGIC};
    struct args args = {
        .options = {.max_bytes = DEFAULT_MAX_BYTES,
                    .max_ratio = DEFAULT_MAX_RATIO,
                    .max_entries = DEFAULT_MAX_ENTRIES,
                    .workers = 1,
                    .confine = confine_syscalls},
        .cpu_s = DEFAULT_CPU_S,
    };
    (void)close(CONVERT_FD_SELF); /* the program file, through which the daemon started it */
    (void)prctl(PR_SET_NAME, "casemate-convert"); /* it would be the descriptor's number */
    (void)mallopt(M_ARENA_MAX, 2);
    /* libarchive converts pax names from UTF-8 to the locale's character set: both are to be the
     * same */
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    int rc = parse_args(argc, argv, &args, &err);
    if (rc == 0)
        rc = confine_limits(args.cpu_s, &err);
    if (rc == 0)
        rc = work(&args, &result, &err);
    if (rc < 0) {
        result.code = err.code;
        (void)snprintf(result.message, sizeof(result.message), "%s", err.msg);
    }
    if (fd_write_all(CONVERT_FD_RESULT, &result, sizeof(result), NULL) < 0)
        return 2;
    return rc < 0 ? 1 : 0;
}
