/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon as a whole: makes every room, joins them, serves, and takes them down in order. Only
 * this room knows them all. The calling thread becomes the one that waits; the event loop gets a
 * thread of its own.
 */
#pragma once

#include "common/base/err.h"
#include "host/daemon/config.h"

/*
 * Starts everything, calls ready(arg) (may be NULL) once the socket accepts calls, and returns 0
 * after a SIGTERM or SIGINT was obeyed: pods go on running. Fails only when it cannot start; then
 * nothing is left behind. Once per process, before any other thread is started.
 */
int daemon_run(const struct config *config, void (*ready)(void *arg), void *arg, struct err *err);
