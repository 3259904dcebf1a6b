/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's own tar index of an import: whatever it finds lies inside the archive. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "host/image/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"index.json", "manifest.json", "a", "oci-layout"};
    struct err err;
    struct layout *layout = NULL;
    int fd = memfd_create("tar", MFD_CLOEXEC);
    if (fd < 0 || fd_write_all(fd, data, size, NULL) < 0)
        abort();
    if (layout_open_tar(fd, &layout, &err) < 0)
        return 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct layout_file f;
        char *text = NULL;
        size_t n;
        if (layout_find(layout, names[i], &f, &err) == 0) {
            if (f.offset > size || f.size > size - f.offset)
                abort();
            (void)close(f.fd);
        }
        if (layout_read(layout, names[i], 65536, &text, &n, &err) == 0)
            free(text);
    }
    layout_free(layout);
    return 0;
}
