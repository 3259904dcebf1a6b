/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completing layer of an image (complete.h) on the daemon's side: whether it needs one, and
 * bringing it through the converter into the content store, where it is a layer like others, with
 * an id of its own. Thread-safe.
 */
#pragma once

#include "common/base/err.h"
#include "host/image/digest.h"
#include "host/image/http.h"
#include "host/image/service.h"

/*
 * For an image whose layers are present and leased. *ret_id becomes the completing layer's id,
 * which is then leased too (end it with catalog_unlease), or "" when the image needs none. Errors
 * as image_pull's.
 */
int completion_bring(struct image_service *svc, const char *image_id,
                     const char (*diff_ids)[DIGEST_TEXT_SIZE], size_t n,
                     const struct http_limits *limits, char ret_id[DIGEST_TEXT_SIZE],
                     struct err *err);
