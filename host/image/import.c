/* SPDX-License-Identifier: Apache-2.0 */
#include "host/image/image.h"

int image_import(struct image_service *svc, const struct image_import_spec *spec, char ***ret_ids,
                 size_t *ret_n, struct err *err)
{
    (void)svc;
    (void)spec;
    (void)ret_ids;
    (void)ret_n;
    return err_set(err, ERR_UNSUPPORTED, "import");
}
