/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a pod's plugins are told about it: CNI_ARGS and the arguments of capabilities (CNI
 * conventions: "runtimeConfig"). Only this file knows those keys. Pure.
 *
 * Annotations that mean something here: kubernetes.io/ingress-bandwidth and egress-bandwidth (a
 * Kubernetes quantity of bits a second), and for networks that can grant them
 * network.casemate.dev/ips ("10.1.2.3,fd00::5", with or without prefix) and
 * network.casemate.dev/mac.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "common/base/err.h"
#include "host/net/net.h"

#define NETARGS_MAX_PORTS 4096 /* mappings of one pod */

/* "IgnoreUnknown=1;K8S_POD_NAMESPACE=…": heap text. INVALID for a name that would break it. */
int netargs_make(const struct net_pod_spec *spec, char **ret_args, struct err *err);

/* {capability: argument, …}, one reference. INVALID names the annotation or port at fault. */
int netargs_capabilities(const struct net_pod_spec *spec, json_t **ret_object, struct err *err);

/* The part of them for a network that is not the pod's first: no addresses, no ports. NULL when out
 * of memory. */
json_t *netargs_for_further(const json_t *capabilities);

/* A Kubernetes quantity ("10M", "1.5Gi", "1e6", "500k") as a whole number, rounded up. Returns 0,
 * or -1 when it is none, or not in [1, 10^15]. */
int netargs_quantity(const char *text, int64_t *ret_value);
