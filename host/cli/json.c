/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jansson escapes C0 controls only; JSON_ENSURE_ASCII spells out everything else too, so that a
 * name can do no harm when the document is shown on a terminal.
 */
#include "host/cli/json.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/cleanup.h"

int cli_json_print(const json_t *json, struct err *err)
{
    cleanup_free char *text = json_dumps(json, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    if (text == NULL)
        return err_no_memory(err);
    puts(text);
    return 0;
}
