/* SPDX-License-Identifier: Apache-2.0 */
/* What comes with a 401: challenge, token answer, error body; and credentials in their encoded
 * forms. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/image/auth.h"
#include "host/image/credhelper.h"
#include "host/image/registry_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    struct auth_challenge challenge;
    struct auth_credentials credentials;
    char said[64];
    char *token = NULL;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (auth_parse_challenge(text, &challenge, &err) == 0 && challenge.scheme == AUTH_BEARER &&
        challenge.realm[0] == '\0')
        abort();
    if (auth_parse_token(text, size, &token, &err) == 0) {
        if (token[0] == '\0' || strpbrk(token, " \r\n\t") != NULL)
            abort();
        auth_wipe_free(token);
    }
    struct image_auth auth = {.auth = text};
    if (auth_from_cri(&auth, "host.x", &credentials, &err) == 0)
        auth_credentials_fini(&credentials);
    if (auth_from_config(text, size, "host.x", &credentials, &err) == 0)
        auth_credentials_fini(&credentials);
    char helper[CREDHELPER_MAX_NAME + 1];
    if (credhelper_find(text, size, "host.x", helper, &err) == 0 && strchr(helper, '/') != NULL)
        abort();
    if (credhelper_parse(text, size, &credentials, &err) == 0)
        auth_credentials_fini(&credentials);
    token_error_text(text, size, said, sizeof(said));
    free(text);
    return 0;
}
