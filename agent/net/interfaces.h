/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces of the VM. Never waits. One thread. */
#pragma once

#include "common/base/err.h"

/* Brings an interface up. */
int interface_up(const char *name, struct err *err);
