/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods of proto/agent on the agent's rooms: checks a request, calls, and answers now or when
 * what was asked has happened. What each call promises is in proto/agent/PROTOCOL.md. One thread.
 */
#pragma once

#include "common/base/err.h"

struct containers;
struct loop;
struct podenv;
struct rpc_service;
struct service;

struct service_config {
    struct containers *containers;
    struct podenv *pod;
    /* Shutdown was asked for and is being answered. */
    void (*on_shutdown)(void *arg);
    void *arg;
};

/* The configuration's objects must outlive the service. */
int service_new(const struct service_config *config, struct service **ret_service, struct err *err);
/* After the rpc server was freed. NULL is fine. */
void service_free(struct service *service);

/* What to give the rpc server; lives as long as the service. */
const struct rpc_service *service_description(const struct service *service);
