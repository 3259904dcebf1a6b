/* SPDX-License-Identifier: Apache-2.0 */
/* host/net/cniconf: versions and their choice, every kind of wrong configuration, folders. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/net/cniconf.h"

static void test_single_and_chain(void **state)
{
    static const char single[] = "{\"cniVersion\":\"0.3.1\",\"name\":\"one\",\"type\":\"ptp\","
                                 "\"capabilities\":{\"ips\":true,\"mac\":false}}";
    static const char chain[] =
        "{\"cniVersion\":\"1.0.0\",\"name\":\"two\",\"disableCheck\":\"true\",\"disableGC\":true,"
        "\"plugins\":[{\"type\":\"bridge\"},{\"type\":\"portmap\"}]}";
    cleanup_cniconf struct cniconf *a = NULL, *b = NULL, *again = NULL;
    cleanup_free char *text = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(cniconf_parse(single, strlen(single), &a, &err), 0);
    assert_string_equal(a->name, "one");
    assert_int_equal(a->version, CNI_0_3_1);
    assert_int_equal(a->n_plugins, 1);
    assert_string_equal(cniconf_plugin_type(a->plugins[0]), "ptp");
    assert_true(cniconf_plugin_wants(a->plugins[0], "ips"));
    assert_false(cniconf_plugin_wants(a->plugins[0], "mac"));
    assert_false(cniconf_plugin_wants(a->plugins[0], "dns"));
    assert_int_equal(cniconf_parse(chain, strlen(chain), &b, &err), 0);
    assert_int_equal(b->n_plugins, 2);
    assert_true(b->disable_check && b->disable_gc);
    assert_int_equal(cniconf_text(b, &text, &err), 0);
    assert_int_equal(cniconf_parse(text, strlen(text), &again, &err), 0);
    assert_int_equal(again->n_plugins, 2);
}

static void test_versions(void **state)
{
    static const struct {
        const char *keys;
        enum cni_version version;
    } good[] = {
        {"\"cniVersion\":\"0.3.0\"", CNI_0_3_0},
        {"\"cniVersion\":\"1.1.0\"", CNI_1_1_0},
        {"\"cniVersion\":\"0.4.0\",\"cniVersions\":[\"0.3.1\",\"1.0.0\",\"9.0.0\"]", CNI_1_0_0},
        {"\"cniVersion\":\"1.1.0\",\"cniVersions\":[\"0.3.1\"]", CNI_1_1_0},
        {"\"cniVersions\":[\"0.4.0\"]", CNI_0_4_0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        cleanup_free char *text = text_printf("{%s,\"name\":\"n\",\"type\":\"t\"}", good[i].keys);
        cleanup_cniconf struct cniconf *conf = NULL;
        struct err err = {0};
        if (cniconf_parse(text, strlen(text), &conf, &err) != 0)
            fail_msg("%s: %s", text, err.msg);
        assert_int_equal(conf->version, good[i].version);
    }
    assert_string_equal(cni_version_name(CNI_0_4_0), "0.4.0");
}

static void test_wrong(void **state)
{
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"", "line 1"},
        {"[]", "not a JSON object"},
        {"{\"cniVersion\":\"1.0.0\"", "line 1"},
        {"{\"cniVersion\":\"1.0.0\",\"type\":\"t\"}", "'name'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"../x\",\"type\":\"t\"}", "'name'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"a/b\",\"type\":\"t\"}", "'name'"},
        {"{\"name\":\"n\",\"type\":\"t\"}", "no 'cniVersion'"},
        {"{\"cniVersion\":\"0.2.0\",\"name\":\"n\",\"type\":\"t\"}", "cniVersion '0.2.0'"},
        {"{\"cniVersion\":\"2.0.0\",\"name\":\"n\",\"type\":\"t\"}", "cniVersion '2.0.0'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\"}", "'type'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"../bin/sh\"}", "'type'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[]}", "'plugins'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":{}}", "'plugins'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[1]}", "'type'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"t\",\"disableCheck\":1}",
         "'disableCheck'"},
        {"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"t\",\"capabilities\":[]}",
         "'capabilities'"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct cniconf *conf = NULL;
        struct err err = {0};
        assert_int_equal(cniconf_parse(bad[i].text, strlen(bad[i].text), &conf, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_null(conf);
        if (strstr(err.msg, bad[i].says) == NULL)
            fail_msg("'%s' does not say '%s'", err.msg, bad[i].says);
    }
}

static void put(const char *dir, const char *name, const char *text)
{
    cleanup_free char *path = text_printf("%s/%s", dir, name);
    struct err err = {0};

    assert_int_equal(fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, &err), 0);
}

static void test_folder(void **state)
{
    char dir[] = "/tmp/casemate-test.XXXXXX";
    struct cniconf_set set;
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    put(dir, "20-b.conf", "{\"cniVersion\":\"1.0.0\",\"name\":\"b\",\"type\":\"t\"}");
    put(dir, "10-own.conflist", "{\"cniVersion\":\"1.0.0\",\"name\":\"own\",\"type\":\"t\"}");
    put(dir, "00-bad.json", "{");
    put(dir, "readme", "{");
    put(dir, ".10.conf", "{");
    cniconf_load_dir(dir, 1, "10-own.conflist", &set);
    assert_int_equal(set.n, 1);
    assert_string_equal(set.confs[0]->name, "own");
    assert_true(set.others);
    assert_non_null(strstr(set.problem, "00-bad.json"));
    cniconf_set_fini(&set);
    cniconf_load_dir(dir, 9, NULL, &set);
    assert_int_equal(set.n, 2);
    assert_string_equal(set.confs[1]->name, "b");
    cniconf_set_fini(&set);
    assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
    cniconf_load_dir(dir, 1, NULL, &set);
    assert_int_equal(set.n, 0);
    assert_false(set.others);
    assert_non_null(strstr(set.problem, dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_and_chain),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_folder),
    };
    return cmocka_run_group_tests_name("host/net/cniconf", tests, NULL, NULL);
}
