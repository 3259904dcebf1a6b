/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes `struct image` out of a config document, names and layers, and counts its owners. Within
 * this room only; others use image_ref and image_unref. Immutable once made, so that readers need
 * no lock.
 */
#pragma once

#include "common/base/err.h"
#include "host/image/image.h"

/* What an image is made of; all copied. */
struct image_parts {
    const char *id;
    const char *config_json; /* checked by manifest_parse_diff_ids before */
    const char *const *tags;
    size_t n_tags;
    const char *const *digests;
    size_t n_digests;
    const struct image_layer *layers;
    size_t n_layers;
    uint64_t size_bytes;
    bool pinned;
};

/* An image with one owner. PROTOCOL when the config has members of the wrong type. */
int image_object_new(const struct image_parts *parts, struct image **ret_image, struct err *err);
