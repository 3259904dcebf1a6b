/* SPDX-License-Identifier: Apache-2.0 */
/* host/net/cniresult: answers of every version that is spoken, and everything that makes one
 * useless; error answers. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "host/net/cniresult.h"

static const char full[] =
    "{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"cni0\",\"mac\":\"02:00:00:00:00:01\"},"
    "{\"name\":\"eth0\",\"mac\":\"02:00:00:00:00:02\",\"sandbox\":\"/run/netns/a\"}],"
    "\"ips\":[{\"address\":\"10.88.0.2/16\",\"gateway\":\"10.88.0.1\",\"interface\":1},"
    "{\"address\":\"10.88.0.1/16\",\"interface\":0},"
    "{\"address\":\"FD00::0002/64\",\"gateway\":\"fd00::1\",\"interface\":1}],"
    "\"routes\":[{\"dst\":\"0.0.0.0/0\",\"gw\":\"10.88.0.1\"},{\"dst\":\"::/0\"}],"
    "\"dns\":{\"nameservers\":[\"10.0.0.1\"],\"domain\":\"a.b\",\"search\":[\"c\"],"
    "\"options\":[\"ndots:5\"]}}";

static void test_full(void **state)
{
    cleanup_cniresult struct cniresult r = {0};
    json_t *doc = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(cniresult_parse(full, strlen(full), &r, &doc, &err), 0);
    assert_int_equal(r.n_ifaces, 2);
    assert_false(r.ifaces[0].in_pod);
    assert_true(r.ifaces[1].in_pod);
    /* The host's end is not the pod's; texts are as the kernel would print them. */
    assert_int_equal(r.n_ips, 2);
    assert_string_equal(r.ips[0], "10.88.0.2");
    assert_string_equal(r.ips[1], "fd00::2");
    assert_string_equal(r.dns.servers[0], "10.0.0.1");
    assert_string_equal(r.dns.domain, "a.b");
    assert_string_equal(r.dns.searches[0], "c");
    assert_string_equal(r.dns.options[0], "ndots:5");
    assert_true(json_is_object(doc));
    json_decref(doc);
}

static void test_old_and_empty(void **state)
{
    static const char *const good[] = {
        "{\"cniVersion\":\"0.3.1\",\"ips\":[{\"version\":\"4\",\"address\":\"10.1.2.3/24\"}]}",
        "{\"cniVersion\":\"0.4.0\"}",
        "{\"cniVersion\":\"1.1.0\",\"interfaces\":null,\"ips\":null,\"routes\":null,\"dns\":{}}",
        "{\"cniVersion\":\"0.3.0\",\"ips\":[{\"address\":\"10.1.2.3/24\",\"gateway\":\"\"}]}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        cleanup_cniresult struct cniresult r = {0};
        struct err err = {0};
        if (cniresult_parse(good[i], strlen(good[i]), &r, NULL, &err) != 0)
            fail_msg("%s: %s", good[i], err.msg);
    }
}

static void test_wrong(void **state)
{
#define V "\"cniVersion\":\"1.0.0\","
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {
        {"", "no JSON"},
        {"{\"ips\":[{\"addr", "no JSON"},
        {"[]", "not a JSON object"},
        {"{}", "no cniVersion"},
        {"{\"cniVersion\":\"0.2.0\"}", "'0.2.0'"},
        {"{" V "\"ips\":{}}", "ips"},
        {"{" V "\"ips\":[{\"address\":\"10.1.2.3\"}]}", "ips[].address"},
        {"{" V "\"ips\":[{\"address\":\"10.1.2.3/33\"}]}", "ips[].address"},
        {"{" V "\"ips\":[{\"address\":\"10.1.2.3.4/24\"}]}", "ips[].address"},
        {"{" V "\"ips\":[{\"address\":7}]}", "ips[].address"},
        {"{" V "\"ips\":[{\"address\":\"10.1.2.3/24\",\"gateway\":\"x\"}]}", "ips[].gateway"},
        {"{" V "\"ips\":[{\"address\":\"10.1.2.3/24\",\"interface\":0}]}", "ips[].interface"},
        {"{" V "\"interfaces\":[{\"name\":\"a-name-that-is-too-long\"}]}", "interfaces"},
        {"{" V "\"interfaces\":[{\"name\":\"\"}]}", "interfaces"},
        {"{" V "\"interfaces\":[{\"name\":\"a/b\"}]}", "interfaces"},
        {"{" V "\"interfaces\":[{\"name\":\"a\",\"sandbox\":1}]}", "interfaces"},
        {"{" V "\"routes\":[{\"dst\":\"default\"}]}", "routes[].dst"},
        {"{" V "\"routes\":[{\"dst\":\"::/0\",\"gw\":1}]}", "routes[].gw"},
        {"{" V "\"dns\":[]}", "dns"},
        {"{" V "\"dns\":{\"nameservers\":[\"example.com\"]}}", "dns.nameservers"},
        {"{" V "\"dns\":{\"search\":[\"two words\"]}}", "dns"},
        {"{" V "\"dns\":{\"options\":[\"a\\nb\"]}}", "dns"},
        {"{" V "\"dns\":{\"domain\":\"a b\"}}", "dns.domain"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct cniresult r = {0};
        struct err err = {0};
        if (cniresult_parse(bad[i].text, strlen(bad[i].text), &r, NULL, &err) == 0)
            fail_msg("%s was taken", bad[i].text);
        assert_int_equal(err.code, ERR_PROTOCOL);
        assert_null(r.ips);
        if (strstr(err.msg, bad[i].says) == NULL)
            fail_msg("'%s' does not say '%s'", err.msg, bad[i].says);
    }
}

static void test_limits(void **state)
{
    json_t *list = json_array();
    json_t *doc = json_pack("{s:s, s:o}", "cniVersion", "1.0.0", "ips", list);
    cleanup_free char *text = NULL;
    struct cniresult r = {0};
    struct err err = {0};

    (void)state;
    for (int i = 0; i <= CNIRESULT_MAX_ENTRIES; i++)
        assert_int_equal(json_array_append_new(list, json_pack("{s:s}", "address", "10.0.0.1/8")),
                         0);
    text = json_dumps(doc, 0);
    json_decref(doc);
    assert_int_equal(cniresult_parse(text, strlen(text), &r, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "1025 ips"));
    free(text);
    text = calloc(1, CNIRESULT_MAX_BYTES + 2);
    memset(text, ' ', CNIRESULT_MAX_BYTES + 1);
    assert_int_equal(cniresult_parse(text, CNIRESULT_MAX_BYTES + 1, &r, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "larger than"));
}

static void test_errors(void **state)
{
    static const char later[] = "{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"later\"}";
    static const char other[] = "{\"code\":100,\"msg\":\"no\\nway\",\"details\":\"because\"}";
    static const char *const none[] = {"",
                                       "{}",
                                       "words",
                                       "{\"code\":0,\"msg\":\"x\"}",
                                       "{\"code\":\"7\",\"msg\":\"x\"}",
                                       "{\"code\":7}"};
    struct err err = {0};
    unsigned code = 0;

    (void)state;
    assert_true(cniresult_parse_error(later, strlen(later), &code, &err));
    assert_int_equal(code, CNI_ERROR_TRY_AGAIN_LATER);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_true(cniresult_parse_error(other, strlen(other), &code, &err));
    assert_int_equal(code, 100);
    assert_int_equal(err.code, ERR_SYSTEM);
    assert_string_equal(err.msg, "no?way; because");
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        assert_false(cniresult_parse_error(none[i], strlen(none[i]), &code, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),   cmocka_unit_test(test_old_and_empty),
        cmocka_unit_test(test_wrong),  cmocka_unit_test(test_limits),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("host/net/cniresult", tests, NULL, NULL);
}
