/* SPDX-License-Identifier: Apache-2.0 */
/* The documents of an image: index, manifest, config, layout index, and the image object made of a
 * config. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/image/manifest.h"
#include "host/image/object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_object(const char *config)
{
    struct err err;
    struct image *image = NULL;
    struct image_parts parts = {.id = "sha256:x", .config_json = config};
    if (image_object_new(&parts, &image, &err) == 0) {
        if (image->env.items == NULL || image->env.items[image->env.n] != NULL ||
            image->username == NULL || image->working_dir == NULL)
            abort();
        image_unref(image_ref(image));
        image_unref(image);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    struct manifest_doc doc;
    struct descriptor *items = NULL;
    char **names = NULL;
    char(*ids)[DIGEST_TEXT_SIZE] = NULL;
    size_t n = 0;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (manifest_parse(text, size, &doc, &err) == 0) {
        const struct descriptor *d = doc.is_index ? &doc.chosen : &doc.manifest.config;
        if (!digest_is_valid(d->digest) || doc.manifest.n_layers > MANIFEST_MAX_LAYERS)
            abort();
        manifest_fini(&doc.manifest);
    }
    if (manifest_parse_layout_index(text, size, &items, &names, &n, &err) == 0) {
        for (size_t i = 0; i < n; i++)
            free(names[i]);
        free(names);
        free(items);
    }
    if (manifest_parse_diff_ids(text, size, &ids, &n, &err) == 0) {
        try_object(text);
        free(ids);
    }
    free(text);
    return 0;
}
