/* SPDX-License-Identifier: Apache-2.0 */
/* template.json: what is taken is in range, and its text says the same again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/vmm/template_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_free char *text = malloc(size + 1), *again = NULL, *third = NULL;
    struct template_meta m, back;
    struct err err;

    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (template_meta_decode(text, &m, &err) < 0)
        return 0;
    if (m.parts[TEMPLATE_MEMORY].bytes == 0 || m.parts[TEMPLATE_STATE].bytes == 0 ||
        m.parts[TEMPLATE_STATE].bytes > TEMPLATE_STATE_MAX)
        abort();
    if (template_meta_encode(&m, &again, &err) < 0)
        return 0;
    if (template_meta_decode(again, &back, &err) < 0)
        abort();
    if (template_meta_encode(&back, &third, &err) == 0 && strcmp(again, third) != 0)
        abort();
    return 0;
}
