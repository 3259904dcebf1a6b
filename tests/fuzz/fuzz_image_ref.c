/* SPDX-License-Identifier: Apache-2.0 */
/* References: what is accepted is normalised, and stays what it is when it is parsed again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/image/ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    struct ref ref;
    char once[REF_TEXT_SIZE];
    char twice[REF_TEXT_SIZE];
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (ref_parse(text, &ref, &err) == 0) {
        ref_format(&ref, once);
        if (ref_parse(once, &ref, &err) < 0)
            abort();
        ref_format(&ref, twice);
        if (strcmp(once, twice) != 0 || (ref.tag[0] == '\0') == (ref.digest[0] == '\0'))
            abort();
    }
    free(text);
    return 0;
}
