/* SPDX-License-Identifier: Apache-2.0 */
/* Seccomp profiles: whatever the bytes are, a program comes out that the kernel would take, or an
 * error that says why not. */
#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "host/sandbox/scprofile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sysfilter_program program = {0};
    struct err err = {0};

    if (scprofile_compile((const char *)data, size, 0xa80425fb, &program, &err) != 0) {
        if (err.code == ERR_NONE || err.msg[0] == '\0' || program.bytes != NULL)
            abort();
        return 0;
    }
    if (program.n_bytes == 0 || program.n_bytes % sizeof(struct sock_filter) != 0 ||
        program.n_bytes / sizeof(struct sock_filter) > SYSFILTER_MAX_INSTRUCTIONS)
        abort();
    sysfilter_program_fini(&program);
    return 0;
}
