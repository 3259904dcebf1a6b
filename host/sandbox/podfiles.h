/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of the files that tell a pod's containers how the pod and others are called:
 * /etc/resolv.conf, /etc/hosts, /etc/hostname. Texts are the caller's heap strings. Thread-safe.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "host/net/net.h"
#include "proto/cri/cri.pb-c.h"

#define PODFILES_MAX         65536u             /* bytes of one: what the agent takes */
#define PODFILES_RESOLV_CONF "/etc/resolv.conf" /* the host's */

/* INVALID when an entry of dns (may be NULL) could not be written to a resolv.conf. */
int podfiles_check_dns(const Runtime__V1__DNSConfig *dns, struct err *err);

/*
 * What dns says; where it says nothing, what the network plugins said (net, may be NULL); where
 * they say nothing, a copy of the host's own at host_path, as other runtimes do (a missing one:
 * ""). INVALID when an entry is not one word.
 */
int podfiles_resolv_conf(const Runtime__V1__DNSConfig *dns, const struct net_dns *net,
                         const char *host_path, char **ret_text, struct err *err);

/* Loopback, and the hostname with each of the n addresses; with none of its own 127.0.1.1. */
int podfiles_hosts(const char *hostname, const char (*ips)[NET_ADDR_TEXT], size_t n,
                   char **ret_text, struct err *err);

/* The name and a newline; heap. */
int podfiles_hostname(const char *hostname, char **ret_text, struct err *err);
