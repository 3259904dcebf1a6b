/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Nobody waits for a change: whoever needs the configurations looks whether
 * inotify has anything to say, and only then reads the folder again, so that the pod after a change
 * has it, and a pod without one costs a read(2). While there is no watch (no folder yet, or it was
 * replaced, or the host's limit on watches is met) the folder is read each time.
 */
#include "host/net/netconf.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "common/base/log.h"

#define CHANGES                                                                                    \
    (IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |            \
     IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct netconf {
    char *path;
    char *own; /* NULL: none */
    size_t want;
    pthread_mutex_t mutex; /* guards all that follows */
    int inotify_fd;        /* -1: the host gives none */
    int watch;             /* -1: none */
    bool loaded;
    uint64_t generation;
    struct cniconf_set set;
};

int netconf_new(const char *path, size_t want, const char *own, struct netconf **ret_netconf,
                struct err *err)
{
    struct netconf *n = calloc(1, sizeof(*n));

    if (n == NULL)
        return err_no_memory(err);
    pthread_mutex_init(&n->mutex, NULL);
    n->want = want;
    n->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    n->watch = -1;
    n->path = strdup(path);
    n->own = own == NULL ? NULL : strdup(own);
    if (n->path == NULL || (own != NULL && n->own == NULL)) {
        netconf_free(n);
        return err_no_memory(err);
    }
    *ret_netconf = n;
    return 0;
}

void netconf_free(struct netconf *netconf)
{
    if (netconf == NULL)
        return;
    close_fd(&netconf->inotify_fd);
    cniconf_set_fini(&netconf->set);
    pthread_mutex_destroy(&netconf->mutex);
    free(netconf->path);
    free(netconf->own);
    free(netconf);
}

/* Whether the kernel tells of a change since the last time; mutex held. */
static bool has_changed(struct netconf *n)
{
    union {
        struct inotify_event event;
        char bytes[4096];
    } u;
    bool changed = false;
    ssize_t got;

    if (n->inotify_fd < 0)
        return true;
    while ((got = read(n->inotify_fd, u.bytes, sizeof(u.bytes))) > 0) {
        changed = true;
        for (size_t at = 0; at + sizeof(u.event) <= (size_t)got;) {
            struct inotify_event event;
            memcpy(&event, u.bytes + at, sizeof(event));
            if (event.wd == n->watch && (event.mask & (IN_IGNORED | IN_MOVE_SELF)) != 0) {
                (void)inotify_rm_watch(n->inotify_fd, n->watch);
                n->watch = -1;
            }
            at += sizeof(event) + event.len;
        }
    }
    return changed;
}

static void load(struct netconf *n)
{
    struct cniconf_set set;

    /* Before reading: what changes from now on is told. */
    if (n->inotify_fd >= 0 && n->watch < 0)
        n->watch = inotify_add_watch(n->inotify_fd, n->path, CHANGES);
    cniconf_load_dir(n->path, n->want, n->own, &set);
    if (set.problem[0] != '\0' && (!n->loaded || strcmp(set.problem, n->set.problem) != 0))
        log_warn("%s", set.problem);
    for (size_t i = 0; i < set.n; i++) {
        if (!n->loaded || i >= n->set.n || strcmp(set.confs[i]->name, n->set.confs[i]->name) != 0)
            log_info("network '%s' from '%s'", set.confs[i]->name, n->path);
    }
    cniconf_set_fini(&n->set);
    n->set = set;
    n->loaded = true;
    n->generation++;
}

void netconf_get(struct netconf *netconf, struct cniconf_set *ret_set, uint64_t *ret_generation)
{
    pthread_mutex_lock(&netconf->mutex);
    if (has_changed(netconf) || !netconf->loaded || netconf->watch < 0)
        load(netconf);
    *ret_set = netconf->set;
    for (size_t i = 0; i < ret_set->n; i++)
        (void)cniconf_ref(ret_set->confs[i]);
    *ret_generation = netconf->generation;
    pthread_mutex_unlock(&netconf->mutex);
}
