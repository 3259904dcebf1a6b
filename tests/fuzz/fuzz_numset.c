/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of numbers: a set is in itself, and each of its ends is in bounds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/numset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct numset set;
    struct err err;
    char *text = malloc(size + 1);

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (numset_parse(text, &set, &err) == 0 &&
        (numset_end(&set) > NUMSET_MAX || !numset_is_subset(&set, &set)))
        abort();
    free(text);
    return 0;
}
