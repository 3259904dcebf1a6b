/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's metrics in the text format of Prometheus, version 0.0.4. One thread. */
#pragma once

#include <stdio.h>

#include "common/base/err.h"
#include "proto/control/control.pb-c.h"

/* Prints all of the reply. PROTOCOL for a histogram that is none; nothing has been printed then. */
int cli_exposition_print(const Casemate__Control__V1__MetricsReply *reply, FILE *out,
                         struct err *err);
