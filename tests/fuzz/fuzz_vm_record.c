/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the vmm room reads back from files, and the console text that QEMU sends: any text. A record
 * that is accepted must be safe to act on, and must survive being written and read again.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/vmm/accel.h"
#include "host/vmm/base64.h"
#include "host/vmm/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_record(const char *text)
{
    struct vm_record r, again;
    char *written = NULL;
    struct err err;

    if (vm_record_decode(text, &r, &err) < 0)
        return;
    if (!vm_id_is_valid(r.id) || r.dir[0] != '/' || r.pid < 2 || r.start_ticks == 0)
        abort();
    if (vm_record_encode(&r, &written, &err) < 0)
        return; /* a text at the limit may be longer when it is escaped again */
    if (vm_record_decode(written, &again, &err) < 0 || memcmp(&r, &again, sizeof(r)) != 0)
        abort();
    free(written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct accel_verdict verdict = {.accel = VMM_ACCEL_AUTO};
    char *text = malloc(size + 1), *bytes = NULL;
    struct err err;

    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    try_record(text);
    if (accel_cache_decode(text, "k", &verdict, &err) == 0 && verdict.accel == VMM_ACCEL_AUTO)
        abort();
    if (base64_decode_text(text, &bytes, &err) == 0 && strlen(bytes) > strlen(text))
        abort();
    free(bytes);
    free(text);
    return 0;
}
