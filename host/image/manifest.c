/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Documents are told apart by their content ("manifests" or "config" + "layers"), because the
 * Content-Type of a registry is sometimes wrong; a document that has both is refused, since two
 * readers could disagree on what it means.
 *
 * Platform choice in an index: os linux and this machine's architecture, the plainest variant first
 * ("" or the baseline one), as an image for a later variant may use instructions that the guest's
 * CPU lacks. Entries without a platform are a last resort: the config says later whether they fit.
 */
#include "host/image/manifest.h"

#include <jansson.h>
#include <string.h>

#include "common/base/text.h"

#if defined(__x86_64__)
#define ARCHITECTURE "amd64"
static const char *const VARIANTS[] = {"", "v1", "v2"};
#elif defined(__aarch64__)
#define ARCHITECTURE "arm64"
static const char *const VARIANTS[] = {"v8", "", "v8.0"};
#else
#error "unknown architecture"
#endif

#define REF_NAME_ANNOTATION   "org.opencontainers.image.ref.name"
#define CONTAINERD_ANNOTATION "io.containerd.image.name"

enum { RANK_NO_PLATFORM = 100, RANK_NONE = 1000 };

static void release_json(json_t **j)
{
    json_decref(*j);
}
#define cleanup_json CLEANUP(release_json)

const char *manifest_architecture(void)
{
    return ARCHITECTURE;
}

static json_t *parse_document(const char *json, size_t n, const char *what, struct err *err)
{
    json_error_t why;
    if (n > MANIFEST_MAX_BYTES) {
        (void)err_set(err, ERR_PROTOCOL, "%s is larger than %u bytes", what, MANIFEST_MAX_BYTES);
        return NULL;
    }
    json_t *root = json_loadb(json, n, 0, &why);
    if (root == NULL && json_error_code(&why) == json_error_out_of_memory) {
        (void)err_no_memory(err);
    } else if (root == NULL) {
        (void)err_set(err, ERR_PROTOCOL, "%s is not valid JSON (line %d: %s)", what, why.line,
                      why.text);
    } else if (!json_is_object(root)) {
        (void)err_set(err, ERR_PROTOCOL, "%s is not a JSON object", what);
        json_decref(root);
        root = NULL;
    }
    return root;
}

static int parse_descriptor(const json_t *j, const char *what, struct descriptor *ret_d,
                            struct err *err)
{
    const char *digest = json_string_value(json_object_get(j, "digest"));
    const json_t *size = json_object_get(j, "size");
    if (!digest_is_valid(digest))
        return err_set(err, ERR_PROTOCOL, "%s has no valid sha256 digest", what);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return err_set(err, ERR_PROTOCOL, "%s has no valid size", what);
    memcpy(ret_d->digest, digest, DIGEST_TEXT_SIZE);
    ret_d->size = (uint64_t)json_integer_value(size);
    return 0;
}

static const char *string_at(const json_t *object, const char *key)
{
    return text_or_empty(json_string_value(json_object_get(object, key)));
}

/* Smaller is better; RANK_NONE: not for this machine. */
static int platform_rank(const json_t *platform)
{
    if (!json_is_object(platform))
        return RANK_NO_PLATFORM;
    if (strcmp(string_at(platform, "os"), "linux") != 0 ||
        strcmp(string_at(platform, "architecture"), ARCHITECTURE) != 0)
        return RANK_NONE;
    for (size_t i = 0; i < ARRAY_SIZE(VARIANTS); i++)
        if (strcmp(string_at(platform, "variant"), VARIANTS[i]) == 0)
            return (int)i;
    return RANK_NONE;
}

static int parse_index(const json_t *list, struct manifest_doc *doc, struct err *err)
{
    size_t i;
    json_t *entry;
    int best = RANK_NONE;
    if (!json_is_array(list) || json_array_size(list) > MANIFEST_MAX_ENTRIES)
        return err_set(err, ERR_PROTOCOL, "index has no valid list of at most %d manifests",
                       MANIFEST_MAX_ENTRIES);
    json_array_foreach(list, i, entry)
    {
        int rank = platform_rank(json_object_get(entry, "platform"));
        if (rank >= best)
            continue;
        if (parse_descriptor(entry, "index entry", &doc->chosen, err) < 0)
            return -1;
        best = rank;
    }
    if (best == RANK_NONE)
        return err_set(err, ERR_UNSUPPORTED, "the image has no variant for linux/%s", ARCHITECTURE);
    doc->is_index = true;
    return 0;
}

static int parse_layers(const json_t *list, struct manifest *m, struct err *err)
{
    size_t i;
    json_t *entry;
    size_t n = json_array_size(list);
    if (n > MANIFEST_MAX_LAYERS)
        return err_set(err, ERR_EXHAUSTED, "image has %zu layers, at most %d are supported", n,
                       MANIFEST_MAX_LAYERS);
    m->layers = calloc(n + 1, sizeof(*m->layers));
    if (m->layers == NULL)
        return err_no_memory(err);
    json_array_foreach(list, i, entry)
    {
        const char *type = string_at(entry, "mediaType");
        if (strstr(type, "nondistributable") != NULL || strstr(type, "foreign") != NULL)
            return err_set(err, ERR_UNSUPPORTED, "layer %zu is not distributed by registries", i);
        if (parse_descriptor(entry, "layer", &m->layers[i], err) < 0)
            return -1;
    }
    m->n_layers = n;
    return 0;
}

int manifest_parse(const char *json, size_t n, struct manifest_doc *ret_doc, struct err *err)
{
    struct manifest_doc doc = {0};
    cleanup_json json_t *root = parse_document(json, n, "manifest", err);
    if (root == NULL)
        return -1;
    const json_t *manifests = json_object_get(root, "manifests");
    const json_t *config = json_object_get(root, "config");
    const json_t *layers = json_object_get(root, "layers");
    const json_t *version = json_object_get(root, "schemaVersion");
    if (json_is_integer(version) && json_integer_value(version) == 1)
        return err_set(err, ERR_UNSUPPORTED, "schema 1 manifests are not supported");
    if (manifests != NULL && (config != NULL || layers != NULL))
        return err_set(err, ERR_PROTOCOL, "document is both an index and a manifest");
    if (manifests != NULL) {
        if (parse_index(manifests, &doc, err) < 0)
            return -1;
    } else {
        if (!json_is_object(config) || !json_is_array(layers))
            return err_set(err, ERR_PROTOCOL, "document is neither an image index nor a manifest");
        if (parse_descriptor(config, "config", &doc.manifest.config, err) < 0 ||
            parse_layers(layers, &doc.manifest, err) < 0) {
            manifest_fini(&doc.manifest);
            return -1;
        }
    }
    *ret_doc = doc;
    return 0;
}

void manifest_fini(struct manifest *m)
{
    free(m->layers);
    *m = (struct manifest){0};
}

static int copy_name(const json_t *entry, char **ret_name, struct err *err)
{
    const json_t *annotations = json_object_get(entry, "annotations");
    const char *name = string_at(annotations, CONTAINERD_ANNOTATION);
    if (name[0] == '\0')
        name = string_at(annotations, REF_NAME_ANNOTATION);
    *ret_name = strdup(name);
    return *ret_name == NULL ? err_no_memory(err) : 0;
}

int manifest_parse_layout_index(const char *json, size_t n, struct descriptor **ret_items,
                                char ***ret_names, size_t *ret_n, struct err *err)
{
    size_t i;
    json_t *entry;
    size_t count = 0;
    cleanup_json json_t *root = parse_document(json, n, "index.json", err);
    if (root == NULL)
        return -1;
    const json_t *list = json_object_get(root, "manifests");
    if (!json_is_array(list) || json_array_size(list) > MANIFEST_MAX_ENTRIES)
        return err_set(err, ERR_PROTOCOL, "index.json has no valid list of manifests");
    cleanup_free struct descriptor *items = calloc(json_array_size(list) + 1, sizeof(*items));
    char **names = calloc(json_array_size(list) + 1, sizeof(*names));
    int rc = items == NULL || names == NULL ? err_no_memory(err) : 0;
    json_array_foreach(list, i, entry)
    {
        if (rc < 0 || platform_rank(json_object_get(entry, "platform")) == RANK_NONE)
            continue;
        rc = parse_descriptor(entry, "index.json entry", &items[count], err);
        if (rc == 0)
            rc = copy_name(entry, &names[count], err);
        count++;
    }
    if (rc < 0) {
        for (i = 0; names != NULL && i < count; i++)
            free(names[i]);
        free(names);
        return -1;
    }
    *ret_items = steal_ptr(&items);
    *ret_names = names;
    *ret_n = count;
    return 0;
}

static int check_platform(const json_t *config, struct err *err)
{
    const char *os = string_at(config, "os");
    const char *architecture = string_at(config, "architecture");
    if (strcmp(os, "linux") == 0 && strcmp(architecture, ARCHITECTURE) == 0)
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "image is for %.40s/%.40s, this machine runs linux/%s",
                   os[0] == '\0' ? "unknown" : os,
                   architecture[0] == '\0' ? "unknown" : architecture, ARCHITECTURE);
}

int manifest_parse_diff_ids(const char *config, size_t n, char (**ret_ids)[DIGEST_TEXT_SIZE],
                            size_t *ret_n, struct err *err)
{
    size_t i;
    json_t *item;
    cleanup_json json_t *root = parse_document(config, n, "image config", err);
    if (root == NULL)
        return -1;
    if (check_platform(root, err) < 0)
        return -1;
    const json_t *list = json_object_get(json_object_get(root, "rootfs"), "diff_ids");
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > MANIFEST_MAX_LAYERS)
        return err_set(err, ERR_PROTOCOL, "image config has no valid list of layers");
    cleanup_free char(*ids)[DIGEST_TEXT_SIZE] = calloc(count + 1, sizeof(*ids));
    if (ids == NULL)
        return err_no_memory(err);
    json_array_foreach(list, i, item)
    {
        const char *id = json_string_value(item);
        if (!digest_is_valid(id))
            return err_set(err, ERR_PROTOCOL, "layer %zu of the image config has no valid diff id",
                           i);
        memcpy(ids[i], id, DIGEST_TEXT_SIZE);
    }
    *ret_ids = steal_ptr(&ids);
    *ret_n = count;
    return 0;
}
