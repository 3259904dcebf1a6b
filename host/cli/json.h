/* SPDX-License-Identifier: Apache-2.0 */
/* JSON output: one document, indented, on standard output. */
#pragma once

#include <jansson.h>

#include "common/base/err.h"

/* Prints a document (the caller's) and a newline. */
int cli_json_print(const json_t *json, struct err *err);
