/* SPDX-License-Identifier: Apache-2.0 */
/* Images in memory: tars by libarchive's writer, gzip by zlib, documents by hand. */
#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "common/base/text.h"
#include "host/image/digest.h"
#include "tests/fakes/fake_registry.h"

static void require(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

static mode_t type_of(char type)
{
    switch (type) {
    case 'd':
        return S_IFDIR;
    case 'l':
        return S_IFLNK;
    case 'c':
        return S_IFCHR;
    case 'b':
        return S_IFBLK;
    case 'p':
        return S_IFIFO;
    case 's':
        return S_IFSOCK;
    default:
        return S_IFREG;
    }
}

static void write_entry(struct archive *a, const struct fake_entry *e)
{
    struct archive_entry *ae = archive_entry_new();
    size_t n = e->type == 'f' && e->data != NULL ? strlen(e->data) : 0;
    require(ae != NULL, "archive_entry_new");
    archive_entry_set_pathname(ae, e->path);
    archive_entry_set_filetype(ae, type_of(e->type));
    archive_entry_set_perm(ae, (mode_t)(e->mode == 0 ? 0644 : e->mode));
    archive_entry_set_uid(ae, e->uid);
    archive_entry_set_gid(ae, e->gid);
    archive_entry_set_mtime(ae, 1000000000, 0);
    archive_entry_set_size(ae, (la_int64_t)n);
    if (e->type == 'l')
        archive_entry_set_symlink(ae, e->data);
    if (e->type == 'h')
        archive_entry_set_hardlink(ae, e->data);
    if (e->type == 'c' || e->type == 'b') {
        archive_entry_set_rdevmajor(ae, e->major);
        archive_entry_set_rdevminor(ae, e->minor);
    }
    if (e->xattr != NULL)
        archive_entry_xattr_add_entry(ae, e->xattr, "v", 1);
    require(archive_write_header(a, ae) >= ARCHIVE_WARN, archive_error_string(a));
    if (n > 0)
        require(archive_write_data(a, e->data, n) == (la_ssize_t)n, "archive_write_data");
    archive_entry_free(ae);
}

struct fake_bytes fake_tar(const struct fake_entry *entries)
{
    struct fake_bytes out = {.n = 0};
    size_t size = 1 << 20;
    size_t used = 0;
    for (const struct fake_entry *e = entries; e->path != NULL; e++)
        size += 16384 + (e->data == NULL ? 0 : 2 * strlen(e->data)) + 2 * strlen(e->path);
    out.bytes = malloc(size);
    struct archive *a = archive_write_new();
    require(out.bytes != NULL && a != NULL, "tar");
    require(archive_write_set_format_pax_restricted(a) == ARCHIVE_OK &&
                archive_write_set_bytes_per_block(a, 0) == ARCHIVE_OK &&
                archive_write_open_memory(a, out.bytes, size, &used) == ARCHIVE_OK,
            "open tar");
    for (const struct fake_entry *e = entries; e->path != NULL; e++)
        write_entry(a, e);
    require(archive_write_close(a) == ARCHIVE_OK, "close tar");
    archive_write_free(a);
    out.n = used;
    return out;
}

struct fake_bytes fake_gzip(const void *bytes, size_t n)
{
    z_stream z = {0};
    struct fake_bytes out = {.n = n + n / 100 + 1024};
    void *in;
    memcpy(&in, &bytes, sizeof(in));
    out.bytes = malloc(out.n);
    require(out.bytes != NULL, "malloc");
    require(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK,
            "deflateInit2");
    z.next_in = in;
    z.avail_in = (uInt)n;
    z.next_out = out.bytes;
    z.avail_out = (uInt)out.n;
    require(deflate(&z, Z_FINISH) == Z_STREAM_END, "deflate");
    out.n -= z.avail_out;
    (void)deflateEnd(&z);
    return out;
}

char *fake_digest(const void *bytes, size_t n)
{
    char text[DIGEST_TEXT_SIZE];
    require(digest_of(bytes, n, text, NULL) == 0, "digest");
    char *copy = strdup(text);
    require(copy != NULL, "strdup");
    return copy;
}

static char *join(char *list, const char *item)
{
    char *more = text_printf("%s%s%s", text_or_empty(list), list == NULL ? "" : ", ", item);
    require(more != NULL, "text_printf");
    free(list);
    return more;
}

struct fake_image fake_image_make(const struct fake_bytes *tars, size_t n, const char *architecture)
{
    struct fake_image im = {.n_layers = n};
    char *diff_ids = NULL;
    char *layers = NULL;
    for (size_t i = 0; i < n; i++) {
        im.layers[i] = fake_gzip(tars[i].bytes, tars[i].n);
        im.layer_digests[i] = fake_digest(im.layers[i].bytes, im.layers[i].n);
        im.diff_ids[i] = fake_digest(tars[i].bytes, tars[i].n);
        char *quoted = text_printf("\"%s\"", im.diff_ids[i]);
        diff_ids = join(diff_ids, quoted);
        free(quoted);
        quoted = text_printf("{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar+gzip\", "
                             "\"digest\": \"%s\", \"size\": %zu}",
                             im.layer_digests[i], im.layers[i].n);
        layers = join(layers, quoted);
        free(quoted);
    }
    im.config = text_printf("{\"architecture\": \"%s\", \"os\": \"linux\", \"config\": {\"Env\": "
                            "[\"A=b\"], \"Cmd\": [\"/bin/sh\"], \"User\": \"12:34\"}, \"rootfs\": "
                            "{\"type\": \"layers\", \"diff_ids\": [%s]}}",
                            architecture, text_or_empty(diff_ids));
    require(im.config != NULL, "config");
    im.config_digest = fake_digest(im.config, strlen(im.config));
    im.manifest =
        text_printf("{\"schemaVersion\": 2, \"config\": {\"digest\": \"%s\", \"size\": %zu}, "
                    "\"layers\": [%s]}",
                    im.config_digest, strlen(im.config), text_or_empty(layers));
    require(im.manifest != NULL, "manifest");
    im.manifest_digest = fake_digest(im.manifest, strlen(im.manifest));
    free(diff_ids);
    free(layers);
    return im;
}

void fake_image_fini(struct fake_image *im)
{
    for (size_t i = 0; i < im->n_layers; i++) {
        free(im->layers[i].bytes);
        free(im->layer_digests[i]);
        free(im->diff_ids[i]);
    }
    free(im->config);
    free(im->config_digest);
    free(im->manifest);
    free(im->manifest_digest);
    *im = (struct fake_image){0};
}

static void serve_one(struct fake_registry *r, const char *repository, const char *kind,
                      const char *name, const void *body, size_t n)
{
    char *path = text_printf("/v2/%s/%s/%s", repository, kind, name);
    require(path != NULL, "text_printf");
    struct fake_answer a = {.path = path, .body = body, .n = n};
    fake_registry_add(r, &a);
    free(path);
}

void fake_registry_serve(struct fake_registry *r, const char *repository, const char *tag,
                         const struct fake_image *im)
{
    serve_one(r, repository, "manifests", tag, im->manifest, strlen(im->manifest));
    serve_one(r, repository, "manifests", im->manifest_digest, im->manifest, strlen(im->manifest));
    serve_one(r, repository, "blobs", im->config_digest, im->config, strlen(im->config));
    for (size_t i = 0; i < im->n_layers; i++)
        serve_one(r, repository, "blobs", im->layer_digests[i], im->layers[i].bytes,
                  im->layers[i].n);
}
