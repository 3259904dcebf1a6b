/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer blob to a squashfs image, in process and without the system call filter. What was written
 * is read back: an image that the converter vouches for must open and list.
 */
#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "host/image/complete.h"
#include "host/image/convert.h"
#include "host/image/retar.h"
#include "host/image/squash_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    return 0;
}

/* Header checksums are repaired after each mutation, or nearly nothing would get behind them. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    (void)seed;
    size = LLVMFuzzerMutate(data, size, max);
    for (size_t at = 0; at + 512 <= size; at += 512) {
        uint8_t *h = data + at;
        unsigned sum = 0;
        if (memcmp(h + 257, "ustar", 5) != 0)
            continue;
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
            sum += h[i];
        for (size_t i = 0; i < 6; i++)
            h[148 + i] = (uint8_t)('0' + ((sum >> (3 * (5 - i))) & 7));
        h[154] = '\0';
    }
    return size;
}

static int count(void *arg, const char *name, const struct squash_node *node, struct err *err)
{
    unsigned *n = arg;
    (void)name;
    (void)node;
    (void)err;
    (*n)++;
    return 0;
}

static void read_back(int fd)
{
    struct err err;
    unsigned n = 0;
    struct squash_reader *r = NULL;
    struct squash_node *root = NULL;
    if (squash_reader_open(fd, &r, &err) < 0 || squash_reader_root(r, &root, &err) < 0 ||
        squash_reader_each(r, root, count, &n, &err) < 0)
        abort();
    squash_node_free(root);
    squash_reader_free(r);
}

/* The layer on top of itself: every mark is looked up through two layers. */
static void complete(int layer, const struct convert_options *options)
{
    struct err err;
    struct convert_result result;
    const int layers[] = {layer, layer};
    int out = memfd_create("completion", MFD_CLOEXEC);
    if (out < 0)
        return;
    if (complete_layers(layers, 2, out, options, &result, &err) == 0 && result.image_bytes > 0)
        read_back(out);
    (void)close(out);
}

/* What became an image becomes a tar again, which is a valid layer. */
static void there_and_back(int layer, const struct convert_options *options)
{
    struct err err;
    struct convert_result result;
    struct convert_options roomy = *options;
    int tar = memfd_create("tar", MFD_CLOEXEC);
    int image = memfd_create("image", MFD_CLOEXEC);
    roomy.max_bytes *= 4; /* headers were added, holes are written out */
    roomy.max_entries *= 4;
    roomy.max_ratio = 1000000;
    if (tar < 0 || image < 0)
        abort();
    if (retar_layer(layer, tar, &roomy, &result, &err) < 0 || lseek(tar, 0, SEEK_SET) != 0 ||
        convert_layer(tar, image, &roomy, &result, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    (void)close(tar);
    (void)close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    struct convert_result result;
    const struct convert_options options = {
        .max_bytes = 4 << 20, .max_ratio = 50, .max_entries = 1000, .workers = 1};
    int in = memfd_create("in", MFD_CLOEXEC);
    int out = memfd_create("out", MFD_CLOEXEC);
    if (in >= 0 && out >= 0 && fd_write_all(in, data, size, NULL) == 0 &&
        lseek(in, 0, SEEK_SET) == 0 && convert_layer(in, out, &options, &result, &err) == 0) {
        read_back(out);
        there_and_back(out, &options);
        if ((result.flags & (CONVERT_IMPLICIT | CONVERT_LOWER_LINKS)) != 0)
            complete(out, &options);
    }
    if (in >= 0)
        (void)close(in);
    if (out >= 0)
        (void)close(out);
    return 0;
}
