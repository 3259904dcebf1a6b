/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. The file that clones map is a memfd, sealed once its template has been
 * saved, for two reasons. QEMU opens a memory file for writing even where it maps a private copy
 * (before 8.2 it knows no other way), so that any QEMU that was broken into could write into every
 * later pod's memory. And QEMU gives pages that a guest reports as free back by punching holes into
 * the file, private mapping or not, which would tear pieces out of a template that others read. A
 * seal refuses both, and no mode or mount option does without refusing the opening, too.
 *
 * A memfd ends with its last holder, so there is a copy on disk, from which a restarted daemon
 * makes a new one: a fraction of a second instead of a boot. The copy is trusted only if its
 * digests fit. Memory is hashed and copied in chunks, of which those that are all zero are left
 * out: the result does not depend on where the file has holes.
 */
#include "host/vmm/template_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/vmm/json.h"

#define META_VERSION 1
#define CHUNK_BYTES  65536u
#define SPARE_BYTES  (64ull << 20) /* that a copy leaves free on its disk */
#define MEMORY_MAX   (1ull << 40)
#define DISK_MAX     (1ull << 50)
#define META_FILE    "template.json"

static const char *const part_names[TEMPLATE_PARTS] = {"memory", "state", "disk"};
static const uint64_t part_max[TEMPLATE_PARTS] = {MEMORY_MAX, TEMPLATE_STATE_MAX, DISK_MAX};

/* ---- template.json -------------------------------------------------------------------------- */

int template_meta_encode(const struct template_meta *meta, char **ret_text, struct err *err)
{
    cleanup_json json_t *root = json_pack("{s:i, s:s}", "version", META_VERSION, "key", meta->key);
    bool ok = root != NULL;

    for (size_t i = 0; i < TEMPLATE_PARTS && ok; i++)
        ok = json_object_set_new(root, part_names[i],
                                 json_pack("{s:I, s:s}", "bytes", (json_int_t)meta->parts[i].bytes,
                                           "sha256", meta->parts[i].sha256)) == 0;
    char *text = ok ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text == NULL)
        return err_no_memory(err);
    *ret_text = text;
    return 0;
}

/* -1: it is none, or out of range. Only the disk may be empty. */
static int decode_part(const json_t *root, size_t i, struct template_meta *m)
{
    json_t *part = json_object_get(root, part_names[i]);
    const char *sha256;
    json_int_t bytes;

    if (json_unpack(part, "{s:I, s:s}", "bytes", &bytes, "sha256", &sha256) < 0 ||
        !text_is_hex(sha256, sizeof(m->parts[i].sha256) - 1) ||
        bytes < (i == TEMPLATE_DISK ? 0 : 1) || (uint64_t)bytes > part_max[i])
        return -1;
    m->parts[i].bytes = (uint64_t)bytes;
    memcpy(m->parts[i].sha256, sha256, sizeof(m->parts[i].sha256));
    return 0;
}

int template_meta_decode(const char *text, struct template_meta *ret_meta, struct err *err)
{
    struct template_meta m = {0};
    json_error_t json_err;
    const char *key;
    int version;

    if (strnlen(text, TEMPLATE_META_MAX + 1) > TEMPLATE_META_MAX)
        return err_set(err, ERR_PROTOCOL, "template: its description is too long");
    cleanup_json json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &json_err);
    if (root == NULL || json_unpack(root, "{s:i, s:s}", "version", &version, "key", &key) < 0 ||
        version != META_VERSION || !text_is_hex(key, sizeof(m.key) - 1))
        return err_set(err, ERR_PROTOCOL, "template: its description is not understood");
    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        if (decode_part(root, i, &m) < 0)
            return err_set(err, ERR_PROTOCOL, "template: the description of its %s does not do",
                           part_names[i]);
    memcpy(m.key, key, sizeof(m.key));
    *ret_meta = m;
    return 0;
}

/* ---- files in memory ------------------------------------------------------------------------ */

int template_file_new(const char *name, uint64_t bytes, int *ret_fd, struct err *err)
{
    cleanup_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return err_set_errno(err, errno, "memfd_create");
    if (ftruncate(fd, (off_t)bytes) < 0)
        return err_set_errno(err, errno, "%s: %llu bytes of memory", name,
                             (unsigned long long)bytes);
    *ret_fd = steal_fd(&fd);
    return 0;
}

int template_file_seal(int fd, struct err *err)
{
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
        return 0;
    if (errno == EBUSY)
        return err_set(err, ERR_BAD_STATE, "the template's memory is still being written to");
    return err_set_errno(err, errno, "seal the template");
}

/* ---- copying ----------------------------------------------------------------------------------
 */

/* SHA-256 over the chunks that are not all zero, each after its index. */
struct sum {
    EVP_MD_CTX *ctx;
};

static void sum_fini(struct sum *sum)
{
    EVP_MD_CTX_free(sum->ctx);
}
#define cleanup_sum CLEANUP(sum_fini)

static int sum_init(struct sum *sum, struct err *err)
{
    sum->ctx = EVP_MD_CTX_new();
    if (sum->ctx == NULL || EVP_DigestInit_ex(sum->ctx, EVP_sha256(), NULL) != 1)
        return err_no_memory(err);
    return 0;
}

static void sum_add(struct sum *sum, uint64_t index, const uint8_t *bytes, size_t n)
{
    uint8_t head[8];

    for (size_t i = 0; i < sizeof(head); i++)
        head[i] = (uint8_t)(index >> (8 * i));
    (void)EVP_DigestUpdate(sum->ctx, head, sizeof(head));
    (void)EVP_DigestUpdate(sum->ctx, bytes, n);
}

static void sum_text(struct sum *sum, char ret_text[65])
{
    uint8_t raw[32] = {0};

    (void)EVP_DigestFinal_ex(sum->ctx, raw, NULL);
    text_hex(raw, sizeof(raw), ret_text);
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

static int read_chunk(int fd, uint8_t *bytes, size_t n, off_t at, struct err *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, bytes + done, n - done, at + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set_errno(err, errno, "template: read");
        if (got == 0)
            return err_set(err, ERR_PROTOCOL, "template: a file is too short");
        done += (size_t)got;
    }
    return 0;
}

static int write_chunk(int fd, const uint8_t *bytes, size_t n, off_t at, struct err *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(fd, bytes + done, n - done, at + (off_t)done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_set_errno(err, errno, "template: write");
        done += (size_t)put;
    }
    return 0;
}

static int size_of(int fd, uint64_t *ret_bytes, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "template");
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

/* Moves *at on to the chunk in which the next data is; true when only a hole is left. */
static bool skip_hole(int fd, uint64_t bytes, uint64_t *at)
{
    off_t data = lseek(fd, (off_t)*at, SEEK_DATA);

    if (data < 0 && errno == ENXIO)
        return true;
    if (data > 0 && (uint64_t)data > *at)
        *at = (uint64_t)data / CHUNK_BYTES * CHUNK_BYTES;
    return *at >= bytes;
}

/* Copies `bytes` bytes from one file to another one that is all zero (-1: nowhere), and sums them
 * up. */
static int copy(int from, int to, uint64_t bytes, char ret_sha256[65], struct err *err)
{
    cleanup_free uint8_t *chunk = malloc(CHUNK_BYTES);
    cleanup_sum struct sum sum = {0};

    if (chunk == NULL)
        return err_no_memory(err);
    if (sum_init(&sum, err) < 0)
        return -1;
    for (uint64_t at = 0; at < bytes;) {
        if (skip_hole(from, bytes, &at))
            break;
        size_t n = bytes - at < CHUNK_BYTES ? (size_t)(bytes - at) : CHUNK_BYTES;
        if (read_chunk(from, chunk, n, (off_t)at, err) < 0)
            return -1;
        if (!is_zero(chunk, n)) {
            sum_add(&sum, at / CHUNK_BYTES, chunk, n);
            if (to >= 0 && write_chunk(to, chunk, n, (off_t)at, err) < 0)
                return -1;
        }
        at += n;
    }
    sum_text(&sum, ret_sha256);
    return 0;
}

int template_file_trim(int fd, struct err *err)
{
    cleanup_free uint8_t *chunk = malloc(CHUNK_BYTES);
    uint64_t bytes = 0;

    if (chunk == NULL)
        return err_no_memory(err);
    if (size_of(fd, &bytes, err) < 0)
        return -1;
    for (uint64_t at = 0; at < bytes; at += CHUNK_BYTES) {
        if (skip_hole(fd, bytes, &at))
            break;
        size_t n = bytes - at < CHUNK_BYTES ? (size_t)(bytes - at) : CHUNK_BYTES;
        if (read_chunk(fd, chunk, n, (off_t)at, err) < 0)
            return -1;
        if (is_zero(chunk, n) &&
            fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n) < 0)
            return err_set_errno(err, errno, "template: give back memory");
    }
    return 0;
}

/* ---- the folder --------------------------------------------------------------------------------
 */

static int check_room(const char *dir, int memory_fd, struct err *err)
{
    struct statvfs disk;
    struct stat memory;

    if (statvfs(dir, &disk) < 0 || fstat(memory_fd, &memory) < 0)
        return err_set_errno(err, errno, "%s", dir);
    uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    uint64_t needed = (uint64_t)memory.st_blocks * 512 + SPARE_BYTES;
    if (room < needed)
        return err_set(err, ERR_EXHAUSTED, "'%s' has %llu MiB left, a template's copy takes %llu",
                       dir, (unsigned long long)room >> 20, (unsigned long long)needed >> 20);
    return 0;
}

static int write_part(const char *dir, const char *name, int from, uint64_t *ret_bytes,
                      char ret_sha256[65], struct err *err)
{
    cleanup_free char *path = text_printf("%s/%s", dir, name);

    if (path == NULL)
        return err_no_memory(err);
    cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "%s", path);
    if (size_of(from, ret_bytes, err) < 0)
        return -1;
    if (ftruncate(fd, (off_t)*ret_bytes) < 0)
        return err_set_errno(err, errno, "%s", path);
    return copy(from, fd, *ret_bytes, ret_sha256, err);
}

int template_file_write(const char *dir, const char *key, const struct template_files *files,
                        struct err *err)
{
    cleanup_free char *path = text_printf("%s/" META_FILE, dir);
    cleanup_free char *text = NULL;
    struct template_meta m = {0};

    if (path == NULL)
        return err_no_memory(err);
    memcpy(m.key, key, strnlen(key, sizeof(m.key) - 1));
    if (check_room(dir, files->fds[TEMPLATE_MEMORY], err) < 0)
        return -1;
    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        if (write_part(dir, part_names[i], files->fds[i], &m.parts[i].bytes, m.parts[i].sha256,
                       err) < 0)
            return -1;
    if (template_meta_encode(&m, &text, err) < 0)
        return -1;
    return fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, err);
}

static int read_part(const char *dir, const char *name, uint64_t bytes, const char *sha256,
                     int *ret_fd, struct err *err)
{
    cleanup_free char *path = text_printf("%s/%s", dir, name);
    cleanup_fd int copied = -1;
    uint64_t size = 0;
    char sum[65];

    if (path == NULL)
        return err_no_memory(err);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_set(err, ERR_PROTOCOL, "template: its %s is missing", name);
    if (size_of(fd, &size, err) < 0)
        return -1;
    if (size != bytes)
        return err_set(err, ERR_PROTOCOL, "template: its %s has %llu bytes and not %llu", name,
                       (unsigned long long)size, (unsigned long long)bytes);
    if (template_file_new(name, bytes, &copied, err) < 0 || copy(fd, copied, bytes, sum, err) < 0)
        return -1;
    if (strcmp(sum, sha256) != 0)
        return err_set(err, ERR_PROTOCOL, "template: its %s is damaged", name);
    if (template_file_seal(copied, err) < 0)
        return -1;
    *ret_fd = steal_fd(&copied);
    return 0;
}

int template_file_read(const char *dir, const char *key, struct template_files *ret_files,
                       struct err *err)
{
    cleanup_free char *path = text_printf("%s/" META_FILE, dir);
    cleanup_free char *text = NULL;
    cleanup_template_files struct template_files files = TEMPLATE_NO_FILES;
    struct template_meta m;

    if (path == NULL)
        return err_no_memory(err);
    if (fd_read_file(AT_FDCWD, path, TEMPLATE_META_MAX, &text, NULL, err) < 0)
        return err_prefix(err, "template");
    if (template_meta_decode(text, &m, err) < 0)
        return -1;
    if (strcmp(m.key, key) != 0)
        return err_set(err, ERR_PROTOCOL, "template: it is another one's");
    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        if (read_part(dir, part_names[i], m.parts[i].bytes, m.parts[i].sha256, &files.fds[i], err) <
            0)
            return -1;
    *ret_files = files;
    files = (struct template_files)TEMPLATE_NO_FILES;
    return 0;
}

int template_file_copy(int from, int to, struct err *err)
{
    uint64_t bytes = 0;
    char ignored[65];

    if (size_of(from, &bytes, err) < 0)
        return -1;
    if (ftruncate(to, 0) < 0 || ftruncate(to, (off_t)bytes) < 0)
        return err_set_errno(err, errno, "template: a copy of its disk");
    return copy(from, to, bytes, ignored, err);
}

int template_file_sum(int fd, char ret_sha256[65], struct err *err)
{
    uint64_t bytes = 0;

    return size_of(fd, &bytes, err) < 0 ? -1 : copy(fd, -1, bytes, ret_sha256, err);
}

void template_files_close(struct template_files *files)
{
    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        close_fd(&files->fds[i]);
}
