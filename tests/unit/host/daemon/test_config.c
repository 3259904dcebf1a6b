/* SPDX-License-Identifier: Apache-2.0 */
/* host/daemon/config: defaults, drop-ins, registries, and every kind of wrong value named with file
 * and line. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/daemon/config.h"

static char dir[] = "/tmp/casemate-test.XXXXXX";
static char *path;

static int setup(void **state)
{
    (void)state;
    memcpy(dir + sizeof(dir) - 7, "XXXXXX", 6);
    path = mkdtemp(dir) == NULL ? NULL : text_printf("%s/c.conf", dir);
    return path == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    struct err err = {0};
    free(path);
    return fd_remove_tree(AT_FDCWD, dir, &err);
}

static void put(const char *name, const char *text)
{
    struct err err = {0};
    cleanup_free char *p = text_printf("%s/%s", dir, name);
    assert_int_equal(fd_write_file_atomic(AT_FDCWD, p, text, strlen(text), 0600, &err), 0);
}

static void defaults_need_no_file(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_config struct config c = {0};
    assert_int_equal(config_load(path, false, &c, &err), 0);
    assert_string_equal(c.socket, "/run/casemate/casemate.sock");
    assert_int_equal(c.memory_mib, 256);
    assert_false(c.loopback_only);
    assert_string_equal(c.conf_dir, "/etc/cni/net.d");
    assert_string_equal(c.bin_dirs, "/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni");
    assert_null(c.conf_template);
    assert_int_equal(c.n_registries, 0);
}

static void a_named_file_must_exist(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_config struct config c = {0};
    assert_int_equal(config_load(path, true, &c, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void values_and_dropins_are_read_in_order(void **state)
{
    (void)state;
    struct err err = {0};
    put("c.conf", "[casemated]\nsocket = /a/b.sock\nlog_level = debug\n[guest]\nmemory_mib = 128\n"
                  "[vmm]\naccel = tcg\ntransport = virtio-serial\nvhost_net = "
                  "no\n[network]\nloopback_only = yes\n"
                  "gc = no\nconf_dir = /c\nbin_dirs = /x:/y\nconf_template = /t\nmax_networks = 2\n"
                  "[registry \"docker.io\"]\nmirror = http://127.0.0.1:5000\n"
                  "mirror = https://m.example\n[registry \"127.0.0.1:5000\"]\nplain_http = true\n");
    cleanup_free char *d = text_printf("%s.d", path);
    assert_int_equal(fd_make_dirs(d, 0700, &err), 0);
    put("c.conf.d/10-a.conf",
        "[guest]\nmemory_mib = 512\n[registry \"docker.io\"]\nca_file = /ca\n");
    put("c.conf.d/20-b.conf", "[guest]\nvcpus = 2\n");
    put("c.conf.d/ignored.txt", "nonsense");
    cleanup_config struct config c = {0};
    if (config_load(path, true, &c, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_equal(c.socket, "/a/b.sock");
    assert_int_equal(c.log_level, LOG_DEBUG);
    assert_int_equal(c.memory_mib, 512);
    assert_int_equal(c.vcpus, 2);
    assert_int_equal(c.accel, VMM_ACCEL_TCG);
    assert_int_equal(c.transport, VMM_TRANSPORT_SERIAL);
    assert_true(c.loopback_only);
    assert_int_equal(c.gc, NET_GC_NO);
    assert_false(c.vhost_net);
    assert_string_equal(c.conf_dir, "/c");
    assert_string_equal(c.bin_dirs, "/x:/y");
    assert_string_equal(c.conf_template, "/t");
    assert_int_equal(c.max_networks, 2);
    assert_int_equal(c.n_registries, 2);
    assert_string_equal(c.registries[0].host, "docker.io");
    assert_int_equal(c.registries[0].n_mirrors, 2);
    assert_string_equal(c.registries[0].mirrors[1], "https://m.example");
    assert_string_equal(c.registries[0].ca_file, "/ca");
    assert_true(c.registries[1].plain_http);
}

static void handlers_inherit_what_they_leave_out(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_config struct config c = {0};
    put("c.conf", "[guest]\nmemory_max_mib = 4096\n[handler \"large\"]\nmemory_mib = 1024\n"
                  "vcpus_max = 3\ntemplate = no\naccel = tcg\n"
                  "[guest]\nkernel = /k\nvcpus = 3\n[handler \"casemate\"]\ninitrd = /i\n");
    if (config_load(path, true, &c, &err) < 0)
        fail_msg("%s", err.msg);
    assert_int_equal(c.n_handlers, 3);
    assert_string_equal(c.handlers[0].name, "");
    assert_string_equal(c.handlers[0].kernel, "/k");
    assert_int_equal(c.handlers[0].memory_mib, 256);
    assert_true(c.handlers[0].clone);
    assert_string_equal(c.handlers[1].name, "casemate");
    assert_string_equal(c.handlers[1].initrd, "/i");
    assert_int_equal(c.handlers[1].vcpus, 3);
    const struct config_handler *large = &c.handlers[2];
    assert_string_equal(large->name, "large");
    assert_string_equal(large->kernel, "/k");
    assert_string_equal(large->machine, "q35");
    assert_int_equal(large->memory_mib, 1024);
    assert_int_equal(large->memory_max_mib, 4096);
    assert_int_equal(large->vcpus_max, 3);
    assert_int_equal(c.handlers[0].vcpus_max, 0);
    assert_int_equal(large->vcpus, 3);
    assert_int_equal(large->accel, VMM_ACCEL_TCG);
    assert_false(large->clone);
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"[casemated]\nsokcet = /x\n", "c.conf:2: unknown key 'sokcet' in [casemated]"},
        {"[nope]\na = b\n", "c.conf:2: unknown section [nope]"},
        {"[casemated]\nsocket = x.sock\n", "c.conf:2: 'x.sock' is not an absolute path"},
        {"[guest]\n\nmemory_mib = lots\n", "c.conf:3: 'lots' is not a whole number"},
        {"[guest]\nmemory_mib = -1\n", "c.conf:2: '-1' is not a whole number"},
        {"[guest]\nmemory_mib = 3\n", "[guest] memory_mib must be at least 64"},
        {"[guest]\nvcpus = 0\n", "[guest] vcpus must be 1 to 64"},
        {"[network]\nloopback_only = maybe\n", "'maybe' is neither yes nor no"},
        {"[network]\nbin_dirs = /a:b\n", "'/a:b' is no list of absolute paths"},
        {"[network]\nbin_dirs =\n", "'' is no list of absolute paths"},
        {"[network]\nmax_networks = 5\n", "max_networks must be 1 to 4"},
        {"[network]\nplugin_timeout_s = 0\n", "plugin_timeout_s must be 1 to 3600"},
        {"[vmm]\naccel = hvf\n", "'hvf' is none of auto, kvm, tcg"},
        {"[image]\ncompression = rar\n", "'rar' is none of zstd, lz4, none"},
        {"[image]\nparallel_layers = 17\n", "parallel_layers must be 1 to 16"},
        {"[image]\nmax_layer_ratio = 0\n", "limits must not be 0"},
        {"[image]\nconverter_uid = 0\n", "converter_uid must not be root's"},
        {"[registry docker.io]\nplain_http = yes\n", "is not of the form [registry \"HOST\"]"},
        {"[registry \"a\"]\nmirror = ftp://x\n", "mirror 'ftp://x' is no http"},
        {"[registry \"a\"]\nwhat = x\n", "unknown key 'what'"},
        {"[handler x]\nvcpus = 1\n", "is not of the form [handler \"NAME\"]"},
        {"[handler \"A_b\"]\nvcpus = 1\n", "is not of the form [handler \"NAME\"]"},
        {"[handler \"a\"]\nuid_base = 1\n", "unknown key 'uid_base' in [handler \"a\"]"},
        {"[handler \"a\"]\nmachine = microvm\n", "'microvm' is not provided"},
        {"[guest]\nmemory_max_mib = 255\n", "memory_max_mib is below memory_mib"},
        {"[handler \"a\"]\nvcpus = 2\nvcpus_max = 1\n", "[handler \"a\"] vcpus_max is below vcpus"},
        {"[handler \"a\"]\nmemory_mib = 3\n", "[handler \"a\"] memory_mib must be at least 64"},
        {"[handler \"a\"]\nvcpus = 65\n", "[handler \"a\"] vcpus must be 1 to 64"},
        {"[casemated\nsocket = /x\n", "c.conf:1: "},
        {"just words\n", "c.conf:1: "},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct err err = {0};
        cleanup_config struct config c = {0};
        put("c.conf", cases[i].text);
        assert_int_equal(config_load(path, true, &c, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        if (strstr(err.msg, cases[i].says) == NULL)
            fail_msg("'%s' does not say '%s'", err.msg, cases[i].says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(defaults_need_no_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_named_file_must_exist, setup, teardown),
        cmocka_unit_test_setup_teardown(values_and_dropins_are_read_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(handlers_inherit_what_they_leave_out, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_values_are_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
