/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the layers of one image owe each other and no layer can hold alone, as one more filesystem
 * image to lie on top of them: hard links to files of lower layers, and the metadata of directories
 * that a layer only mentions as part of other paths. docs/images.md has the reasons. Reads layer
 * images, so it runs in the confined converter. One completion at a time per thread.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "host/image/convert.h"

#define COMPLETE_MAX_LAYERS 480

/*
 * Reads the images behind `layers` (lowest first, read-only) and writes the completing one to
 * out_fd (empty, read-write, seekable). When nothing needs completing, success with image_bytes 0
 * and out_fd empty again. PROTOCOL: a hard link leads nowhere, or an image is damaged; EXHAUSTED.
 */
int complete_layers(const int *layers, size_t n, int out_fd, const struct convert_options *options,
                    struct convert_result *ret_result, struct err *err);
