/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of host/net share: namespaces of their own, folders, configurations, commands. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/net/net.h"

#define WAIT_MS 60000 /* for anything on a slow machine */

static char work[32];                                               /* folder of one test */
static char conf_dir[64], state_dir[64], run_dir[64], fake_dir[64]; /* in it */
static const char *bin_dirs[2];

/* Runs a shell command; its exit status. */
static int __attribute__((format(printf, 1, 2), unused)) shell(const char *fmt, ...)
{
    char command[2048];
    va_list ap;
    int status;

    va_start(ap, fmt);
    (void)vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

/* Runs it inside of a pod's namespace. */
#define shell_in(pod, fmt, ...)                                                                    \
    shell("nsenter --net=%s/netns/%s sh -c '" fmt "'", run_dir, pod, ##__VA_ARGS__)

static void __attribute__((unused)) put_file(const char *dir, const char *name, const char *text)
{
    cleanup_free char *path = text_printf("%s/%s", dir, name);
    struct err err = {0};

    assert_non_null(path);
    if (fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644, &err) != 0)
        fail_msg("%s", err.msg);
}

/* Everything in a file of the test's folder, "" if there is none; heap. */
static __attribute__((unused)) char *get_file(const char *name)
{
    cleanup_free char *path = text_printf("%s/%s", work, name);
    struct err err = {0};
    char *text = NULL;

    if (fd_read_file(AT_FDCWD, path, 16 << 20, &text, NULL, &err) != 0)
        return strdup("");
    return text;
}

/* How many entries a folder has; 0 when it is missing. */
static int __attribute__((unused)) count_files(const char *fmt, ...)
{
    char command[512], path[256];
    va_list ap;
    FILE *f;
    int n = -1;

    va_start(ap, fmt);
    (void)vsnprintf(path, sizeof(path), fmt, ap);
    va_end(ap);
    (void)snprintf(command, sizeof(command), "ls '%s' 2>/dev/null | wc -l", path);
    f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &n), 1);
    (void)pclose(f);
    return n;
}

static int __attribute__((unused)) fixture_setup(void **state)
{
    (void)state;
    (void)snprintf(work, sizeof(work), "/tmp/casemate-test.XXXXXX");
    if (mkdtemp(work) == NULL)
        return -1;
    (void)snprintf(conf_dir, sizeof(conf_dir), "%s/net.d", work);
    (void)snprintf(state_dir, sizeof(state_dir), "%s/state", work);
    (void)snprintf(run_dir, sizeof(run_dir), "%s/run", work);
    (void)snprintf(fake_dir, sizeof(fake_dir), "%s/bin", work);
    bin_dirs[0] = fake_dir;
    bin_dirs[1] = "/usr/lib/cni";
    return shell("mkdir %s %s %s/leases && ln -s \"$PWD/tests/fakes/cni_fake.sh\" %s/fake",
                 conf_dir, fake_dir, work, fake_dir);
}

static int __attribute__((unused)) fixture_teardown(void **state)
{
    struct err err = {0};

    (void)state;
    (void)shell("for f in %s/netns/*; do umount -l \"$f\"; done 2>/dev/null", run_dir);
    if (fd_remove_tree(AT_FDCWD, work, &err) != 0) {
        print_error("%s\n", err.msg);
        return -1;
    }
    return 0;
}

static struct net_config __attribute__((unused)) fixture_config(void)
{
    return (struct net_config){
        .conf_dir = conf_dir,
        .bin_dirs = bin_dirs,
        .n_bin_dirs = 2,
        .state_dir = state_dir,
        .run_dir = run_dir,
        .cache_dir = work,
        .plugin_timeout_ms = 30000,
        .retry_ms = 20,
    };
}

static __attribute__((unused)) struct net *fixture_net(const struct net_config *config)
{
    struct net *net = NULL;
    struct err err = {0};

    if (net_new(config, &net, &err) != 0)
        fail_msg("%s", err.msg);
    return net;
}

/* Nothing of any pod is left in our folders. */
static void __attribute__((unused)) assert_nothing_left(void)
{
    assert_int_equal(count_files("%s/netns", run_dir), 0);
    assert_int_equal(count_files("%s", state_dir), 0);
    assert_int_equal(count_files("%s/leases", work), 0);
}

/* Namespaces of the test's own, before any thread is there. False: says why it is skipped. */
static bool __attribute__((unused)) fixture_isolate(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        (void)printf("SKIP: needs root and namespaces of its own\n");
        return false;
    }
    return shell("ip link set lo up") == 0;
}
