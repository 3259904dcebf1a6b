/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer image becomes a tar again: the way back of convert.h, in meaning and not in bytes (order,
 * padding and header forms of the tar that it was made of are gone). Overlay marks become
 * whiteouts, links to lower layers become links, directories that the layer did not describe are
 * not described. Reads a layer image, so it runs in the confined converter.
 */
#pragma once

#include "common/base/err.h"
#include "host/image/convert.h"

/*
 * Writes the pax tar of the layer image behind `layer` to out_fd (empty). image_bytes of the result
 * is its length, xattrs_dropped counts sockets, which tar has no word for. EXHAUSTED: it would be
 * larger than options->max_bytes, or the disk is full; PROTOCOL: the image is damaged.
 */
int retar_layer(int layer, int out_fd, const struct convert_options *options,
                struct convert_result *ret_result, struct err *err);
