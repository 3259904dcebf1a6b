/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pull parser: input_next reads compressed bytes until at least one decompressed byte exists. The
 * media type is not consulted, because registries serve mislabelled layers and the first bytes do
 * not lie: 1f 8b is gzip, 28 b5 2f fd (or a skippable frame, 5? 2a 4d 18) is zstd, anything else is
 * taken as a tar and fails later if it is none. Both formats may be a concatenation of members
 * (pigz, estargz, zstd:chunked do that), and a member may decompress to nothing.
 */
#include "host/image/input.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum { IN_SIZE = 128 * 1024, OUT_SIZE = 256 * 1024 };

enum format { FORMAT_UNKNOWN, FORMAT_PLAIN, FORMAT_GZIP, FORMAT_ZSTD };

struct input {
    int fd;
    struct input_limits limits;
    enum format format;
    bool eof;        /* of fd */
    bool in_member;  /* inside a gzip member or zstd frame */
    bool zlib_ready; /* z needs inflateEnd */
    uint64_t bytes_in;
    uint64_t bytes_out;
    size_t in_pos;
    size_t in_len;
    z_stream z;
    ZSTD_DStream *zstd;
    struct hasher *hasher;
    uint8_t in[IN_SIZE];
    uint8_t out[OUT_SIZE];
};

int input_new(int fd, const struct input_limits *limits, struct input **ret_input, struct err *err)
{
    cleanup_input struct input *in = calloc(1, sizeof(*in));
    if (in == NULL)
        return err_no_memory(err);
    in->fd = fd;
    in->limits = *limits;
    if (hasher_new(&in->hasher, err) < 0)
        return -1;
    *ret_input = steal_ptr(&in);
    return 0;
}

void input_free(struct input *in)
{
    if (in == NULL)
        return;
    if (in->zlib_ready)
        (void)inflateEnd(&in->z);
    ZSTD_freeDStream(in->zstd);
    hasher_free(in->hasher);
    free(in);
}

/* Reads more compressed bytes behind those that are unread; sets eof when there are none. */
static int fill(struct input *in, struct err *err)
{
    if (in->in_pos > 0) {
        memmove(in->in, in->in + in->in_pos, in->in_len - in->in_pos);
        in->in_len -= in->in_pos;
        in->in_pos = 0;
    }
    while (!in->eof && in->in_len < IN_SIZE) {
        ssize_t n = read(in->fd, in->in + in->in_len, IN_SIZE - in->in_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read the blob");
        if (n == 0)
            in->eof = true;
        in->in_len += (size_t)n;
        in->bytes_in += (uint64_t)n;
        if (n > 0)
            break;
    }
    return 0;
}

static int detect(struct input *in, struct err *err)
{
    static const uint8_t zstd_magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    static const uint8_t skippable[] = {0x2a, 0x4d, 0x18};
    while (!in->eof && in->in_len < 4)
        if (fill(in, err) < 0)
            return -1;
    const uint8_t *p = in->in;
    if (in->in_len >= 2 && p[0] == 0x1f && p[1] == 0x8b) {
        /* 15 window bits, +16: gzip wrapper only */
        if (inflateInit2(&in->z, 15 + 16) != Z_OK)
            return err_no_memory(err);
        in->zlib_ready = true;
        in->format = FORMAT_GZIP;
    } else if (in->in_len >= 4 && (memcmp(p, zstd_magic, 4) == 0 ||
                                   ((p[0] & 0xf0) == 0x50 && memcmp(p + 1, skippable, 3) == 0))) {
        in->zstd = ZSTD_createDStream();
        if (in->zstd == NULL)
            return err_no_memory(err);
        in->format = FORMAT_ZSTD;
    } else {
        in->format = FORMAT_PLAIN;
    }
    return 0;
}

static int step_plain(struct input *in, size_t *ret_n, struct err *err)
{
    if (in->in_pos == in->in_len && fill(in, err) < 0)
        return -1;
    size_t n = in->in_len - in->in_pos;
    memcpy(in->out, in->in + in->in_pos, n);
    in->in_pos += n;
    *ret_n = n;
    return 0;
}

static int step_gzip(struct input *in, size_t *ret_n, struct err *err)
{
    if (!in->in_member) {
        if (in->bytes_out > 0 || in->z.total_in > 0)
            (void)inflateReset(&in->z);
        in->in_member = true;
    }
    in->z.next_in = in->in + in->in_pos;
    in->z.avail_in = (uInt)(in->in_len - in->in_pos);
    in->z.next_out = in->out;
    in->z.avail_out = OUT_SIZE;
    int rc = inflate(&in->z, Z_NO_FLUSH);
    in->in_pos = in->in_len - in->z.avail_in;
    *ret_n = OUT_SIZE - in->z.avail_out;
    if (rc == Z_STREAM_END) {
        in->in_member = false;
        return 0;
    }
    if (rc == Z_MEM_ERROR)
        return err_no_memory(err);
    if (rc != Z_OK && rc != Z_BUF_ERROR)
        return err_set(err, ERR_PROTOCOL, "damaged gzip data");
    return 0;
}

static int step_zstd(struct input *in, size_t *ret_n, struct err *err)
{
    ZSTD_inBuffer src = {in->in, in->in_len, in->in_pos};
    ZSTD_outBuffer dst = {in->out, OUT_SIZE, 0};
    size_t rc = ZSTD_decompressStream(in->zstd, &dst, &src);
    in->in_pos = src.pos;
    *ret_n = dst.pos;
    if (ZSTD_isError(rc))
        return err_set(err, ERR_PROTOCOL, "damaged zstd data: %s", ZSTD_getErrorName(rc));
    in->in_member = rc != 0;
    return 0;
}

static int account(struct input *in, size_t n, struct err *err)
{
    in->bytes_out += n;
    hasher_update(in->hasher, in->out, n);
    if (in->bytes_out > in->limits.max_bytes)
        return err_set(err, ERR_EXHAUSTED, "layer is larger than %llu bytes unpacked",
                       (unsigned long long)in->limits.max_bytes);
    if (in->bytes_out > INPUT_RATIO_FLOOR && in->bytes_out / in->limits.max_ratio > in->bytes_in)
        return err_set(err, ERR_EXHAUSTED,
                       "layer unpacks to more than %llu times its size: decompression bomb",
                       (unsigned long long)in->limits.max_ratio);
    return 0;
}

int input_next(struct input *in, const void **ret_bytes, size_t *ret_n, struct err *err)
{
    if (in->format == FORMAT_UNKNOWN && detect(in, err) < 0)
        return -1;
    for (;;) {
        size_t n = 0;
        int rc;
        if (in->in_pos == in->in_len && !in->eof && fill(in, err) < 0)
            return -1;
        bool exhausted = in->in_pos == in->in_len && in->eof;
        if (exhausted && (!in->in_member || in->format == FORMAT_PLAIN)) {
            *ret_n = 0;
            return 0;
        }
        size_t before = in->in_pos;
        if (in->format == FORMAT_GZIP)
            rc = step_gzip(in, &n, err);
        else if (in->format == FORMAT_ZSTD)
            rc = step_zstd(in, &n, err);
        else
            rc = step_plain(in, &n, err);
        if (rc < 0)
            return -1;
        if (n > 0) {
            if (account(in, n, err) < 0)
                return -1;
            *ret_bytes = in->out;
            *ret_n = n;
            return 0;
        }
        if (exhausted && in->in_member && in->in_pos == before)
            return err_set(err, ERR_PROTOCOL, "compressed data ends early");
    }
}

int input_finish(struct input *in, uint8_t ret_digest[DIGEST_BYTES], uint64_t *ret_bytes,
                 struct err *err)
{
    const void *bytes;
    size_t n = 0;
    do {
        if (input_next(in, &bytes, &n, err) < 0)
            return -1;
    } while (n > 0);
    hasher_final(in->hasher, ret_digest);
    *ret_bytes = in->bytes_out;
    return 0;
}
