/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcrypto's EVP interface, because it picks the CPU's SHA instructions: a layer is hashed twice
 * (blob and diff id), and the portable code would be the slowest stage of a pull. EVP can only fail
 * for lack of memory or of the algorithm; both show in hasher_new, so that the update path needs no
 * error handling.
 */
#include "host/image/digest.h"

#include <openssl/evp.h>
#include <string.h>

#include "common/base/text.h"

static const char PREFIX[] = "sha256:";

struct hasher {
    EVP_MD_CTX *ctx;
};

bool digest_is_valid(const char *text)
{
    return text != NULL && text_has_prefix(text, PREFIX) &&
           text_is_hex(text + sizeof(PREFIX) - 1, 2 * (size_t)DIGEST_BYTES);
}

const char *digest_hex(const char *text)
{
    return text + sizeof(PREFIX) - 1;
}

void digest_format(const uint8_t bytes[DIGEST_BYTES], char ret_text[DIGEST_TEXT_SIZE])
{
    memcpy(ret_text, PREFIX, sizeof(PREFIX));
    text_hex(bytes, DIGEST_BYTES, ret_text + sizeof(PREFIX) - 1);
}

int hasher_new(struct hasher **ret_hasher, struct err *err)
{
    struct hasher *h = calloc(1, sizeof(*h));
    if (h == NULL)
        return err_no_memory(err);
    h->ctx = EVP_MD_CTX_new();
    if (h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1) {
        hasher_free(h);
        return err_no_memory(err);
    }
    *ret_hasher = h;
    return 0;
}

void hasher_free(struct hasher *h)
{
    if (h == NULL)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

void hasher_update(struct hasher *h, const void *bytes, size_t n)
{
    (void)EVP_DigestUpdate(h->ctx, bytes, n);
}

void hasher_final(struct hasher *h, uint8_t ret_bytes[DIGEST_BYTES])
{
    memset(ret_bytes, 0, DIGEST_BYTES);
    (void)EVP_DigestFinal_ex(h->ctx, ret_bytes, NULL);
}

int digest_of(const void *bytes, size_t n, char ret_text[DIGEST_TEXT_SIZE], struct err *err)
{
    cleanup_hasher struct hasher *h = NULL;
    uint8_t raw[DIGEST_BYTES];
    if (hasher_new(&h, err) < 0)
        return -1;
    hasher_update(h, bytes, n);
    hasher_final(h, raw);
    digest_format(raw, ret_text);
    return 0;
}
