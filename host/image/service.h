/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the image service, for the files of this room only: the parts that a pull and an
 * import share. Everything here is constant after image_service_open; the parts lock for
 * themselves.
 */
#pragma once

#include "host/image/catalog.h"
#include "host/image/content.h"
#include "host/image/image.h"

struct image_service {
    struct image_config config; /* deep copy, defaults filled in */
    struct content *content;
    struct catalog *catalog;
    char **pinned; /* normalised */
};
