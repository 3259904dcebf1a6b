/* SPDX-License-Identifier: Apache-2.0 */
/* host/cli/check: each check against a host made of a few files, and the configuration it reads. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/cli/check.h"

struct host {
    char root[32];
    struct cli_conf conf;
    struct cli_daemon_view daemon;
    struct cli_check_env env;
    struct cli_finding found;
    struct err err;
};

static int setup(void **state)
{
    struct host *h = calloc(1, sizeof(*h));
    assert_non_null(h);
    (void)snprintf(h->root, sizeof(h->root), "/tmp/test-check-XXXXXX");
    assert_non_null(mkdtemp(h->root));
    assert_int_equal(cli_conf_load("/nonexistent/casemate.conf", false, &h->conf, &h->err), 0);
    assert_false(h->conf.file_read);
    h->env = (struct cli_check_env){.root = h->root, .conf = &h->conf, .daemon = &h->daemon};
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    struct host *h = *state;
    cli_conf_fini(&h->conf);
    int r = fd_remove_tree(AT_FDCWD, h->root, &h->err);
    free(h);
    return r;
}

/* A file below the host's root, its folders made. */
static void put(struct host *h, const char *path, const char *text, mode_t mode)
{
    cleanup_free char *full = text_printf("%s%s", h->root, path);
    cleanup_free char *dir = strdup(full);
    *strrchr(dir, '/') = '\0';
    assert_int_equal(fd_make_dirs(dir, 0755, &h->err), 0);
    cleanup_fd int fd = open(full, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, text, strlen(text), &h->err), 0);
    assert_int_equal(fchmod(fd, mode), 0);
}

typedef void (*check_fn)(const struct cli_check_env *env, struct cli_finding *ret);

static void assert_finds(struct host *h, check_fn fn, enum cli_level level, const char *words)
{
    h->found = (struct cli_finding){0};
    fn(&h->env, &h->found);
    if (h->found.level != level || strstr(h->found.text, words) == NULL)
        fail_msg("found level %d '%s', expected %d with '%s'", (int)h->found.level, h->found.text,
                 (int)level, words);
    /* A failure without a remedy leaves people alone with it. */
    assert_true(level == CLI_CHECK_OK || h->found.remedy[0] != '\0');
}

static void set(char **field, const char *value)
{
    free(*field);
    *field = strdup(value);
}

static void privileges_are_those_of_the_process(void **state)
{
    struct host *h = *state;
    assert_finds(h, cli_check_privileges, CLI_CHECK_WARN, "cannot be read");
    put(h, "/proc/self/status", "Name:\tx\nUid:\t1000\t1000\nCapEff:\t0000000000000000\n", 0644);
    assert_finds(h, cli_check_privileges, CLI_CHECK_FAIL, "uid 1000");
    put(h, "/proc/self/status", "Name:\tx\nUid:\t0\t0\nCapEff:\t000001ffffffffff\n", 0644);
    assert_finds(h, cli_check_privileges, CLI_CHECK_OK, "root");
    put(h, "/proc/self/status", "Name:\tx\nUid:\t0\t0\nCapEff:\t000001fffeffffff\n", 0644);
    assert_finds(h, cli_check_privileges, CLI_CHECK_WARN, "CAP_SYS_RESOURCE");
    put(h, "/proc/self/status", "Name:\tx\nUid:\t0\t0\nCapEff:\t000001ffffdfefff\n", 0644);
    assert_finds(h, cli_check_privileges, CLI_CHECK_FAIL, "CAP_SYS_ADMIN, CAP_NET_ADMIN");
}

static void presence_of_kvm_proves_nothing(void **state)
{
    struct host *h = *state;
    assert_finds(h, cli_check_kvm, CLI_CHECK_WARN, "no /dev/kvm");
    set(&h->conf.accel, "kvm");
    assert_finds(h, cli_check_kvm, CLI_CHECK_FAIL, "asks for kvm");
    put(h, "/dev/kvm", "", 0600);
    set(&h->conf.accel, "auto");
    assert_finds(h, cli_check_kvm, CLI_CHECK_OK, "only when the daemon tries");
    h->daemon.reachable = true;
    (void)snprintf(h->daemon.accelerator, sizeof(h->daemon.accelerator), "tcg");
    (void)snprintf(h->daemon.accelerator_reason, sizeof(h->daemon.accelerator_reason),
                   "a guest did not come up");
    assert_finds(h, cli_check_kvm, CLI_CHECK_WARN, "a guest did not come up");
    (void)snprintf(h->daemon.accelerator, sizeof(h->daemon.accelerator), "kvm");
    assert_finds(h, cli_check_kvm, CLI_CHECK_OK, "has run a guest");
    set(&h->conf.accel, "tcg");
    assert_finds(h, cli_check_kvm, CLI_CHECK_WARN, "configuration asks for");
}

static void the_transport_follows_the_device(void **state)
{
    struct host *h = *state;
    assert_finds(h, cli_check_vsock, CLI_CHECK_OK, "virtio-serial");
    set(&h->conf.transport, "vsock");
    assert_finds(h, cli_check_vsock, CLI_CHECK_FAIL, "asks for vsock");
    put(h, "/dev/vhost-vsock", "", 0600);
    assert_finds(h, cli_check_vsock, CLI_CHECK_OK, "vsock");
    set(&h->conf.transport, "virtio-serial");
    assert_finds(h, cli_check_vsock, CLI_CHECK_OK, "virtio-serial");
}

static void the_kernel_is_looked_at(void **state)
{
    struct host *h = *state;
    assert_finds(h, cli_check_tun, CLI_CHECK_WARN, "no network");
    put(h, "/dev/net/tun", "", 0600);
    assert_finds(h, cli_check_tun, CLI_CHECK_OK, "opened");
    assert_finds(h, cli_check_tun, CLI_CHECK_OK, "moved by QEMU");
    put(h, "/dev/vhost-net", "", 0600);
    assert_finds(h, cli_check_tun, CLI_CHECK_OK, "the host's kernel");
    assert_finds(h, cli_check_cni, CLI_CHECK_WARN, "not ready");
    set(&h->conf.loopback_only, "yes");
    assert_finds(h, cli_check_cni, CLI_CHECK_OK, "loopback only");
    put(h, "/etc/cni/net.d/.hidden.conf", "", 0644);
    put(h, "/etc/cni/net.d/readme", "", 0644);
    assert_finds(h, cli_check_cni, CLI_CHECK_OK, "loopback only");
    put(h, "/etc/cni/net.d/10-pods.conflist", "{}", 0644);
    assert_finds(h, cli_check_cni, CLI_CHECK_WARN, "plugins' folders");
    put(h, "/usr/lib/cni/bridge", "", 0755);
    assert_finds(h, cli_check_cni, CLI_CHECK_OK, "configured in '/etc/cni/net.d'");
    assert_finds(h, cli_check_cgroups, CLI_CHECK_WARN, "none mounted");
    put(h, "/sys/fs/cgroup/memory/tasks", "", 0644);
    assert_finds(h, cli_check_cgroups, CLI_CHECK_OK, "version 1 (");
    put(h, "/sys/fs/cgroup/unified/cgroup.procs", "", 0644);
    assert_finds(h, cli_check_cgroups, CLI_CHECK_OK, "hybrid");
    put(h, "/sys/fs/cgroup/cgroup.controllers", "cpu memory\n", 0644);
    assert_finds(h, cli_check_cgroups, CLI_CHECK_OK, "version 2");
    assert_finds(h, cli_check_memory, CLI_CHECK_WARN, "cannot be read");
    put(h, "/proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    2097152 kB\n", 0444);
    assert_finds(h, cli_check_memory, CLI_CHECK_OK, "2.0 GiB");
    put(h, "/proc/meminfo", "MemAvailable:    300000 kB\n", 0444);
    assert_finds(h, cli_check_memory, CLI_CHECK_WARN, "293.0 MiB");
    put(h, "/proc/meminfo", "MemAvailable:    1000 kB\n", 0444);
    assert_finds(h, cli_check_memory, CLI_CHECK_FAIL, "1000.0 KiB");
}

static void put_qemu(struct host *h, const char *path, const char *version)
{
    cleanup_free char *script =
        text_printf("#!/bin/sh\necho 'QEMU emulator version %s (Debian)'\necho more\n", version);
    put(h, path, script, 0755);
}

static void qemu_is_asked_for_its_version(void **state)
{
    struct host *h = *state;
    assert_finds(h, cli_check_qemu, CLI_CHECK_FAIL, "no qemu-system-x86_64");
    put_qemu(h, "/usr/bin/qemu-system-x86_64", "7.2.19");
    assert_finds(h, cli_check_qemu, CLI_CHECK_OK, "version 7.2");
    put_qemu(h, "/usr/bin/qemu-system-x86_64", "10.0.2");
    assert_finds(h, cli_check_qemu, CLI_CHECK_OK, "version 10.0");
    put_qemu(h, "/usr/bin/qemu-system-x86_64", "7.1.0");
    assert_finds(h, cli_check_qemu, CLI_CHECK_FAIL, "older than 7.2");
    put_qemu(h, "/usr/bin/qemu-system-x86_64", "11.0.0");
    assert_finds(h, cli_check_qemu, CLI_CHECK_WARN, "newer");
    put(h, "/usr/bin/qemu-system-x86_64", "#!/bin/sh\nexit 1\n", 0755);
    assert_finds(h, cli_check_qemu, CLI_CHECK_FAIL, "does not tell its version");
    h->conf.qemu = strdup("/opt/qemu");
    assert_finds(h, cli_check_qemu, CLI_CHECK_FAIL, "no /opt/qemu");
    put_qemu(h, "/opt/qemu", "8.0.0");
    assert_finds(h, cli_check_qemu, CLI_CHECK_OK, "version 8.0");
}

static void parts_have_to_be_there(void **state)
{
    struct host *h = *state;
    set(&h->conf.kernel, "/g/vmlinux");
    set(&h->conf.initrd, "/g/initrd.img");
    set(&h->conf.converter, "/l/casemate-convert");
    assert_finds(h, cli_check_guest, CLI_CHECK_FAIL, "/g/vmlinux");
    put(h, "/g/vmlinux", "k", 0644);
    put(h, "/g/initrd.img", "", 0644);
    assert_finds(h, cli_check_guest, CLI_CHECK_FAIL, "/g/initrd.img");
    put(h, "/g/initrd.img", "i", 0644);
    assert_finds(h, cli_check_guest, CLI_CHECK_OK, "/g/initrd.img");
    assert_finds(h, cli_check_converter, CLI_CHECK_FAIL, "cannot be pulled");
    put(h, "/l/casemate-convert", "", 0755);
    assert_finds(h, cli_check_converter, CLI_CHECK_OK, "/l/casemate-convert");
    assert_finds(h, cli_check_mke2fs, CLI_CHECK_FAIL, "no mke2fs");
    put(h, "/sbin/mke2fs", "", 0755);
    assert_finds(h, cli_check_mke2fs, CLI_CHECK_OK, "/sbin/mke2fs");
}

static void folders_that_are_yet_to_be_made_are_judged(void **state)
{
    struct host *h = *state;
    h->found = (struct cli_finding){0};
    cli_check_state_dir(&h->env, &h->found);
    assert_non_null(strstr(h->found.text, "/var/lib/casemate: "));
    assert_non_null(strstr(h->found.text, " free"));
    assert_finds(h, cli_check_reflink, CLI_CHECK_OK, "");
    assert_true(h->found.text[0] != '\0');
    /* A tmpfs of the host itself: what it says must be what statfs says. */
    h->env.root = "";
    set(&h->conf.run_dir, "/proc/nowhere");
    assert_finds(h, cli_check_run_dir, CLI_CHECK_FAIL, "0 B free");
}

static void templates_that_do_not_fit_are_told(void **state)
{
    struct host *h = *state;
    struct cli_daemon_view *d = &h->daemon;
    assert_finds(h, cli_check_templates, CLI_CHECK_OK, "without the daemon");
    d->reachable = true;
    d->templates = 2;
    d->template_bytes = 200 << 20;
    assert_finds(h, cli_check_templates, CLI_CHECK_OK, "2 occupy 200.0 MiB, without a bound");
    d->template_max_bytes = 256 << 20;
    assert_finds(h, cli_check_templates, CLI_CHECK_OK, "2 occupy 200.0 MiB of 256.0 MiB at most");
    d->templates_refused = 1;
    assert_finds(h, cli_check_templates, CLI_CHECK_WARN, "with 1 more they would exceed 256.0 MiB");
}

static void the_daemon_is_quoted(void **state)
{
    struct host *h = *state;
    struct cli_daemon_view *d = &h->daemon;
    (void)snprintf(d->error, sizeof(d->error), "nobody listens");
    assert_finds(h, cli_check_daemon, CLI_CHECK_WARN, "not running: nobody listens");
    d->running = true;
    assert_finds(h, cli_check_daemon, CLI_CHECK_FAIL, "does not answer");
    d->reachable = true;
    (void)snprintf(d->version, sizeof(d->version), "%s", CASEMATE_VERSION);
    assert_finds(h, cli_check_daemon, CLI_CHECK_OK, CASEMATE_VERSION);
    (void)snprintf(d->problem, sizeof(d->problem), "no kernel");
    assert_finds(h, cli_check_daemon, CLI_CHECK_FAIL, "no kernel");
    d->problem[0] = '\0';
    (void)snprintf(d->version, sizeof(d->version), "9.9");
    assert_finds(h, cli_check_daemon, CLI_CHECK_WARN, "9.9");
}

static void every_check_has_a_name_and_speaks(void **state)
{
    struct host *h = *state;
    size_t n = 0;
    const struct cli_check *all = cli_checks(&n);
    assert_true(n >= 14);
    for (size_t i = 0; i < n; i++) {
        h->found = (struct cli_finding){0};
        all[i].fn(&h->env, &h->found);
        assert_true(strlen(all[i].name) > 0 && strlen(all[i].name) <= 10);
        assert_true(h->found.text[0] != '\0');
    }
}

static void the_configuration_is_read_over_the_defaults(void **state)
{
    struct host *h = *state;
    struct cli_conf c = {0};
    cleanup_free char *path = text_printf("%s/casemate.conf", h->root);
    assert_int_equal(cli_conf_load(path, true, &c, &h->err), -1);
    assert_int_equal(h->err.code, ERR_NOT_FOUND);
    cli_conf_fini(&c);
    put(h, "/casemate.conf",
        "# comment\n[casemated]\nsocket = /s\nstate_dir=/state ; why\nworkers = 3\n"
        "[guest]\nkernel = /k\n[vmm]\nqemu = /q\n[later]\nunknown = yes\n",
        0644);
    put(h, "/casemate.conf.d/20.conf", "[guest]\nkernel = /k2\n[vmm]\naccel = tcg\n", 0644);
    put(h, "/casemate.conf.d/10.conf", "[guest]\nkernel = /k1\n", 0644);
    put(h, "/casemate.conf.d/ignored", "[guest]\nkernel = /no\n", 0644);
    assert_int_equal(cli_conf_load(path, true, &c, &h->err), 0);
    assert_true(c.file_read);
    assert_string_equal(c.socket, "/s");
    assert_string_equal(c.state_dir, "/state");
    assert_string_equal(c.run_dir, "/run/casemate");
    assert_string_equal(c.kernel, "/k2");
    assert_string_equal(c.qemu, "/q");
    assert_string_equal(c.accel, "tcg");
    cli_conf_fini(&c);
    put(h, "/casemate.conf", "[casemated]\nsocket = /s\nnonsense\n", 0644);
    assert_int_equal(cli_conf_load(path, false, &c, &h->err), -1);
    assert_non_null(strstr(h->err.msg, "casemate.conf:3"));
    cli_conf_fini(&c);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(privileges_are_those_of_the_process),
        T(presence_of_kvm_proves_nothing),
        T(the_transport_follows_the_device),
        T(the_kernel_is_looked_at),
        T(qemu_is_asked_for_its_version),
        T(parts_have_to_be_there),
        T(folders_that_are_yet_to_be_made_are_judged),
        T(the_daemon_is_quoted),
        T(templates_that_do_not_fit_are_told),
        T(every_check_has_a_name_and_speaks),
        T(the_configuration_is_read_over_the_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
