/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods and containers as durable records, and back. Only this file knows proto/state. Inside of
 * host/sandbox; saving is declared in model.h. Threads: loading is for start-up, before there are
 * others.
 */
#pragma once

#include "host/sandbox/model.h"

/*
 * Fills the manager's table from the store: states are those of the records, nothing is connected.
 * A record that cannot be understood is logged and left where it is; one of a newer format fails
 * (UNSUPPORTED).
 */
int records_load(struct sandbox_manager *mgr, struct err *err);
