/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the compressors, shared by the daemon's configuration and the converter's command line.
 */
#include <string.h>

#include "host/image/image.h"
#include "common/base/cleanup.h"

static const struct {
    const char *name;
    enum image_compression value;
} NAMES[] = {
    {"zstd", IMAGE_COMPRESSION_ZSTD},
    {"lz4", IMAGE_COMPRESSION_LZ4},
    {"none", IMAGE_COMPRESSION_NONE},
};

int image_compression_parse(const char *text, enum image_compression *ret_compression)
{
    for (size_t i = 0; i < ARRAY_SIZE(NAMES); i++) {
        if (strcmp(text, NAMES[i].name) == 0) {
            *ret_compression = NAMES[i].value;
            return 0;
        }
    }
    return -1;
}

const char *image_compression_name(enum image_compression compression)
{
    for (size_t i = 0; i < ARRAY_SIZE(NAMES); i++)
        if (NAMES[i].value == compression)
            return NAMES[i].name;
    return "zstd";
}
