/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of host/net: what its public functions share. Lock order: only net->mutex, held for field
 * accesses alone. A pod's id is "held" (net_hold) while its record, namespace or chains are worked
 * on; two holders of one id wait for each other.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "host/net/cnichain.h"
#include "host/net/net.h"
#include "host/net/netconf.h"
#include "host/net/netrecord.h"

#define NET_TAP_PREFIX "ctap" /* taps are called ctap0, ctap1, … in the pod's namespace */

/* A pod's id that somebody works on. */
struct net_hold {
    const char *pod_id;
    LIST_ENTRY(net_hold) entry;
};

/* A removal that is to be repeated. */
struct net_retry {
    char *pod_id;
    int64_t due_ms;
    int64_t pause_ms; /* before the next one */
    LIST_ENTRY(net_retry) entry;
};

struct net {
    struct cnichain_env env;
    char *conf_dir;
    char *conf_template; /* NULL: none */
    char *netns_dir;
    char **bin_dirs; /* env.bin_dirs */
    bool loopback_only;
    enum net_gc gc;
    char *cache_dir;
    int64_t retry_ms;
    int state_fd; /* folder of records */
    struct netconf *conf;
    pthread_mutex_t mutex; /* guards all that follows */
    pthread_cond_t cond;   /* a hold was given up, a retry was added, the end */
    LIST_HEAD(, net_hold) holds;
    bool all_held;
    LIST_HEAD(, net_retry) retries;
    bool ending;
    pthread_t thread;
    bool thread_started;
    struct net_status status; /* the last one, good until status_until_ms */
    uint64_t status_generation;
    int64_t status_until_ms;
};

/* Waits until nobody else holds hold->pod_id and holds it. DEADLINE. */
int net_hold(struct net *net, struct net_hold *hold, int64_t deadline_ms, struct err *err);
/* Gives it back. */
void net_release(struct net *net, struct net_hold *hold);
/* Waits until nobody holds any pod's id, and keeps everybody from it. DEADLINE. */
int net_hold_all(struct net *net, int64_t deadline_ms, struct err *err);
/* Gives all back. */
void net_release_all(struct net *net);

/* Lets the room repeat the removal of the pod's network: at once (pause 0) or after a pause. */
void net_repeat(struct net *net, const char *pod_id, int64_t pause_ms);

/* Path of the pod's namespace: heap text, NULL when out of memory. */
char *net_netns_path(const struct net *net, const char *pod_id);

/* net_detach for one who holds the id; nothing is repeated by itself. */
int net_detach_held(struct net *net, const char *pod_id, int64_t deadline_ms, struct err *err);
