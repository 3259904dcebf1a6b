/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named network namespaces: made, found and removed by the path that keeps them alive, and entered
 * without the caller's thread ever leaving its own. Only this file calls setns and unshare in this
 * room. Descriptors are close-on-exec and the caller's. Thread-safe; calls block for a few ms.
 */
#pragma once

#include "common/base/err.h"

/* Makes a namespace with its loopback up and binds it to path, a file that must not exist. */
int netns_make(const char *path, struct err *err);

/* Opens a bound namespace. NOT_FOUND when the path is missing or is not a namespace any more. */
int netns_open(const char *path, int *ret_fd, struct err *err);

/* Takes the path away, in copies of the mount table too; a missing one is fine. */
int netns_remove(const char *path, struct err *err);

/* Runs fn(arg) inside the namespace, on a thread of its own that ends with it; its result is
 * returned. */
int netns_run(int netns_fd, int (*fn)(void *arg, struct err *err), void *arg, struct err *err);

/* A socket that lives in the namespace, for use from any thread. */
int netns_socket(int netns_fd, int domain, int type, int protocol, int *ret_fd, struct err *err);
