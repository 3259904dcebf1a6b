/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins a pod's interface, as CNI made it, to the tap behind the guest's: what arrives at one
 * leaves by the other. Only this file knows traffic control. Thread-safe; takes about a
 * millisecond.
 */
#pragma once

#include "common/base/err.h"

/*
 * Joins link and tap, two interfaces of the namespace, and brings the tap up with the link's MTU.
 * The link keeps its addresses, routes and MAC (plugins look for them in CHECK and DEL), but the
 * host's kernel answers for them no more; the guest has to have the same. There is no undo: both
 * go with the namespace.
 */
int tc_join(int netns_fd, const char *link, const char *tap, struct err *err);
