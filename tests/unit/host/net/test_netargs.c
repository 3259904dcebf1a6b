/* SPDX-License-Identifier: Apache-2.0 */
/* host/net/netargs and nettemplate: what plugins are told of a pod and of the node. */
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
#include "host/net/netargs.h"
#include "host/net/nettemplate.h"

static void test_quantities(void **state)
{
    static const struct {
        const char *text;
        int64_t value; /* 0: none */
    } rows[] = {
        {"1", 1},
        {"1k", 1000},
        {"10M", 10000000},
        {"1.5Gi", 1610612736},
        {"1e6", 1000000},
        {"2E3", 2000},
        {"500m", 1},
        {"1P", 1000000000000000},
        {"1T", 1000000000000},
        {"1Mi", 1048576},
        {"0", 0},
        {"", 0},
        {"-1", 0},
        {"2P", 0},
        {"10 M", 0},
        {"1MB", 0},
        {"inf", 0},
        {"nan", 0},
        {"0x10", 0},
        {"1.2.3", 0},
        {".5", 0},
        {"1e", 0},
        {"99999999999999999999999999999999999", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int64_t value = 0;
        int r = netargs_quantity(rows[i].text, &value);
        if ((r == 0) != (rows[i].value != 0) || value != rows[i].value)
            fail_msg("'%s' is %lld", rows[i].text, (long long)value);
    }
}

static void test_args(void **state)
{
    struct net_pod_spec spec = {.id = "i", .name = "n"};
    cleanup_free char *args = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(netargs_make(&spec, &args, &err), 0);
    assert_string_equal(args, "IgnoreUnknown=1;K8S_POD_NAMESPACE=;K8S_POD_NAME=n;"
                              "K8S_POD_INFRA_CONTAINER_ID=i;K8S_POD_UID=");
    spec.name = "n;IgnoreUnknown=0";
    assert_int_equal(netargs_make(&spec, &args, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    spec.name = "n";
    spec.uid = "a=b";
    assert_int_equal(netargs_make(&spec, &args, &err), -1);
}

static char *capabilities(const struct net_pod_spec *spec)
{
    struct err err = {0};
    json_t *all = NULL;
    char *text;

    if (netargs_capabilities(spec, &all, &err) != 0)
        fail_msg("%s", err.msg);
    text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(all);
    return text;
}

static void test_capabilities(void **state)
{
    static const struct net_port ports[] = {{"tcp", 80, 8080, "127.0.0.1"}, {"udp", 53, 0, NULL}};
    static const struct net_pair notes[] = {
        {"kubernetes.io/ingress-bandwidth", "10M"},
        {"network.casemate.dev/ips", "10.1.2.3, fd00::5/64"},
        {"network.casemate.dev/mac", "02:00:00:00:00:07"},
    };
    static const char *const servers[] = {"10.0.0.1"};
    struct net_pod_spec spec = {.id = "i", .name = "n"};
    cleanup_free char *none = capabilities(&spec);
    cleanup_free char *all = NULL;

    (void)state;
    assert_string_equal(none, "{}");
    spec.ports = ports;
    spec.n_ports = 2;
    spec.annotations = notes;
    spec.n_annotations = 3;
    spec.dns_servers = servers;
    spec.n_dns_servers = 1;
    spec.cgroup_path = "/kubepods/x";
    all = capabilities(&spec);
    assert_string_equal(
        all, "{\"bandwidth\":{\"ingressBurst\":4194304,\"ingressRate\":10000000},"
             "\"cgroupPath\":\"/kubepods/x\","
             "\"dns\":{\"options\":[],\"searches\":[],\"servers\":[\"10.0.0.1\"]},"
             "\"io.kubernetes.cri.pod-annotations\":{"
             "\"kubernetes.io/ingress-bandwidth\":\"10M\","
             "\"network.casemate.dev/ips\":\"10.1.2.3, fd00::5/64\","
             "\"network.casemate.dev/mac\":\"02:00:00:00:00:07\"},"
             "\"ips\":[\"10.1.2.3\",\"fd00::5/64\"],\"mac\":\"02:00:00:00:00:07\","
             "\"portMappings\":[{\"containerPort\":80,\"hostIP\":\"127.0.0.1\",\"hostPort\":8080,"
             "\"protocol\":\"tcp\"}]}");
}

static void test_wrong_annotations(void **state)
{
    static const struct net_pair bad[] = {
        {"kubernetes.io/ingress-bandwidth", "fast"},
        {"kubernetes.io/egress-bandwidth", "-1"},
        {"network.casemate.dev/ips", "10.1.2"},
        {"network.casemate.dev/ips", "10.1.2.3/40"},
        {"network.casemate.dev/mac", "02:00"},
        {"network.casemate.dev/mac", "01:00:00:00:00:00"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct net_pod_spec spec = {.id = "i", .annotations = &bad[i], .n_annotations = 1};
        json_t *all = NULL;
        struct err err = {0};
        assert_int_equal(netargs_capabilities(&spec, &all, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.msg, bad[i].key));
    }
}

static void test_template(void **state)
{
    static const char good[] =
        "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"t\","
        "\"a\":\"{{.PodCIDR}}\",\"b\":{{ .PodCIDRRanges }},\"c\":{{.Routes}}}";
    static const char *const bad[] = {"{{.PodCIDR}}", "{\"a\":\"{{.Other}}\"}",
                                      "{\"a\":\"{{.PodCIDR\"}"};
    static const char *const bad_cidrs[] = {"", "10.1.0.0", "10.1.0.0/33", "x/8", "fd00::/129"};
    cleanup_free char *text = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(nettemplate_render(good, "10.1.0.0/16, fd00::/64", &text, &err), 0);
    assert_string_equal(text, "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"type\":\"t\","
                              "\"a\":\"10.1.0.0/16\",\"b\":[[{\"subnet\":\"10.1.0.0/16\"}],"
                              "[{\"subnet\":\"fd00::/64\"}]],"
                              "\"c\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]}");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char *out = NULL;
        assert_int_equal(nettemplate_render(bad[i], "10.1.0.0/16", &out, &err), -1);
        assert_int_equal(err.code, ERR_INVALID);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad_cidrs); i++) {
        char *out = NULL;
        assert_int_equal(nettemplate_render(good, bad_cidrs[i], &out, &err), -1);
        assert_non_null(strstr(err.msg, "pod_cidr"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantities),   cmocka_unit_test(test_args),
        cmocka_unit_test(test_capabilities), cmocka_unit_test(test_wrong_annotations),
        cmocka_unit_test(test_template),
    };
    return cmocka_run_group_tests_name("host/net/netargs", tests, NULL, NULL);
}
