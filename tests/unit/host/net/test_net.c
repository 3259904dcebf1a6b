/* SPDX-License-Identifier: Apache-2.0 */
/* host/net with plugins that do as they are told: what happens to a pod and to what was given out
 * when a plugin hangs, crashes, refuses or talks nonsense; removal until it succeeds; restarts. */
#include "tests/unit/host/net/net_fixture.h"

#include "host/net/internal.h"

/* A configuration of one fake plugin, with more keys of it. */
static void put_fake(const char *file, const char *name, const char *version, const char *keys)
{
    cleanup_free char *text =
        text_printf("{\"cniVersion\":\"%s\",\"name\":\"%s\",\"plugins\":[{\"type\":\"fake\","
                    "\"capabilities\":{\"portMappings\":true,\"dns\":true},"
                    "\"log\":\"%s/log\",\"leases\":\"%s/leases\"%s%s}]}",
                    version, name, work, work, *keys == '\0' ? "" : ",", keys);
    assert_non_null(text);
    put_file(conf_dir, file, text);
}

static const struct net_pod_spec pod_a = {
    .id = "pod-a", .name = "web-0", .namespace_ = "default", .uid = "1234-5678"};

static int open_pod(struct net *net, const struct net_pod_spec *spec, struct net_pod **ret_pod)
{
    struct err err = {0};
    int result = net_pod_open(net, spec, ret_pod, &err);

    if (result != 0)
        print_message("%s\n", err.msg);
    return result;
}

static void attach_pod(struct net *net, const struct net_pod_spec *spec, struct net_result *result)
{
    cleanup_net_pod struct net_pod *pod = NULL;
    struct err err = {0};

    assert_int_equal(open_pod(net, spec, &pod), 0);
    assert_non_null(net_pod_taps(pod));
    if (net_pod_attach(pod, clock_deadline(WAIT_MS), result, &err) != 0)
        fail_msg("%s", err.msg);
}

static void detach_pod(struct net *net, const char *id)
{
    struct err err = {0};

    if (net_detach(net, id, clock_deadline(WAIT_MS), &err) != 0)
        fail_msg("%s", err.msg);
}

static void test_no_configuration(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net struct net *net = fixture_net(&config);
    struct net_pod *pod = NULL;
    struct net_status status;
    struct err err = {0};

    (void)state;
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_false(status.ready);
    assert_non_null(strstr(status.reason, "no network configuration in '"));
    assert_int_equal(net_pod_open(net, &pod_a, &pod, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(err.msg, conf_dir));
    assert_nothing_left();
    /* A pod without a network has nothing to detach. */
    detach_pod(net, "pod-a");
    detach_pod(net, "../etc");
}

static void test_loopback_only(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net_pod struct net_pod *pod = NULL;
    cleanup_net struct net *net = NULL;
    struct net_status status;
    struct err err = {0};

    (void)state;
    config.loopback_only = true;
    net = fixture_net(&config);
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_true(status.ready && status.loopback_only);
    assert_non_null(strstr(status.reason, "loopback only"));
    assert_int_equal(open_pod(net, &pod_a, &pod), 0);
    assert_null(net_pod_taps(pod));
    assert_int_equal(net_pod_attach(pod, clock_deadline(WAIT_MS), &result, &err), 0);
    assert_int_equal(result.n_ifaces, 0);
    assert_nothing_left();
    /* With a configuration the next pod has a network. */
    put_fake("10.conflist", "net", "1.0.0", "");
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_true(status.ready && !status.loopback_only);
    assert_string_equal(status.network, "net");
}

static void test_up_and_down(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0}, again = {0};
    cleanup_net struct net *net = fixture_net(&config);
    static const struct net_port ports[] = {
        {.protocol = "tcp", .container_port = 80, .host_port = 8080},
        {.protocol = "udp", .container_port = 53},
    };
    struct net_pod_spec spec = pod_a;
    struct net_pod *pod = NULL;
    cleanup_free char *log = NULL, *input = NULL, *args = NULL;
    struct err err = {0};

    (void)state;
    put_fake("10.conflist", "net", "1.0.0", "");
    spec.ports = ports;
    spec.n_ports = ARRAY_SIZE(ports);
    attach_pod(net, &spec, &result);
    assert_int_equal(result.n_ips, 1);
    assert_string_equal(result.ips[0], "10.99.0.5");
    assert_int_equal(result.dns.n_servers, 1);
    assert_int_equal(count_files("%s/leases", work), 1);
    assert_int_equal(count_files("%s/netns", run_dir), 1);
    /* One network a pod. */
    assert_int_equal(net_pod_open(net, &spec, &pod, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(net_reopen(net, "pod-a", &again, &err), 0);
    assert_string_equal(again.ips[0], "10.99.0.5");
    assert_string_equal(again.dns.servers[0], "10.99.0.1");
    assert_int_equal(net_check(net, "pod-a", clock_deadline(WAIT_MS), &err), 0);
    detach_pod(net, "pod-a");
    assert_nothing_left();
    detach_pod(net, "pod-a");
    assert_int_equal(net_reopen(net, "pod-a", &again, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);

    log = get_file("log");
    assert_string_equal(log, "ADD pod-a eth0 netns=yes prev=no\n"
                             "CHECK pod-a eth0 netns=yes prev=yes\n"
                             "DEL pod-a eth0 netns=yes prev=yes\n");
    input = get_file("log.input");
    assert_non_null(strstr(input, "\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":8080,"
                                  "\"containerPort\":80,\"protocol\":\"tcp\",\"hostIP\":\"\"}]}"));
    args = get_file("log.args");
    assert_true(text_has_prefix(args,
                                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;"
                                "K8S_POD_INFRA_CONTAINER_ID=pod-a;K8S_POD_UID=1234-5678\n"));
}

/* One way in which ADD fails: the pod fails with these words, and nothing is left of it. */
static void fail_with(const char *keys, const char *words, enum err_code code)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net_pod struct net_pod *pod = NULL;
    cleanup_net struct net *net = NULL;
    cleanup_free char *log = NULL;
    struct err err = {0};

    config.plugin_timeout_ms = 1000;
    net = fixture_net(&config);
    (void)shell("rm -f %s/log*", work);
    put_fake("10.conflist", "net", "1.0.0", keys);
    assert_int_equal(open_pod(net, &pod_a, &pod), 0);
    assert_int_equal(net_pod_attach(pod, clock_deadline(WAIT_MS), &result, &err), -1);
    print_message("%s\n", err.msg);
    assert_non_null(strstr(err.msg, words));
    assert_non_null(strstr(err.msg, "network 'net': plugin 'fake' (ADD): "));
    assert_int_equal(err.code, code);
    assert_nothing_left();
    log = get_file("log");
    assert_non_null(strstr(log, "DEL pod-a eth0 netns=yes prev=no\n"));
}

static void test_faults(void **state)
{
    (void)state;
    fail_with("\"fakeADD\":\"exit1\"", "exit status 1: words on stderr", ERR_SYSTEM);
    fail_with("\"fakeADD\":\"error\"", "no subnet; as it was told", ERR_SYSTEM);
    fail_with("\"fakeADD\":\"busy\"", "try again later", ERR_UNAVAILABLE);
    fail_with("\"fakeADD\":\"half\"", "the answer is no JSON", ERR_PROTOCOL);
    fail_with("\"fakeADD\":\"garbage\"", "the answer is no JSON", ERR_PROTOCOL);
    fail_with("\"fakeADD\":\"big\"", "", ERR_EXHAUSTED);
    fail_with("\"fakeADD\":\"version\"", "cniVersion is '9.9.9'", ERR_PROTOCOL);
    fail_with("\"fakeADD\":\"crash\"", "exit status 139", ERR_SYSTEM);
    fail_with("\"fakeADD\":\"hang\"", "did not end in time", ERR_DEADLINE);
}

/* A chain whose second plugin fails: the first one's lease is given back too. */
static void test_fault_in_chain(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net_pod struct net_pod *pod = NULL;
    cleanup_net struct net *net = fixture_net(&config);
    cleanup_free char *text =
        text_printf("{\"cniVersion\":\"0.4.0\",\"name\":\"net\",\"plugins\":["
                    "{\"type\":\"fake\",\"log\":\"%s/log\",\"leases\":\"%s/leases\"},"
                    "{\"type\":\"fake\",\"log\":\"%s/log2\",\"fakeADD\":\"error\"}]}",
                    work, work, work);
    cleanup_free char *log = NULL, *log2 = NULL;
    struct err err = {0};

    (void)state;
    put_file(conf_dir, "10.conflist", text);
    assert_int_equal(open_pod(net, &pod_a, &pod), 0);
    assert_int_equal(net_pod_attach(pod, clock_deadline(WAIT_MS), &result, &err), -1);
    assert_nothing_left();
    log = get_file("log");
    log2 = get_file("log2");
    assert_string_equal(log,
                        "ADD pod-a eth0 netns=yes prev=no\nDEL pod-a eth0 netns=yes prev=no\n");
    assert_string_equal(log2,
                        "ADD pod-a eth0 netns=yes prev=yes\nDEL pod-a eth0 netns=yes prev=no\n");
}

/* Interfaces that no answer names are found, the pod's own name first. */
static void test_meta_plugin(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);

    (void)state;
    put_fake("10.conflist", "net", "1.0.0", "\"fake\":\"meta\"");
    attach_pod(net, &pod_a, &result);
    assert_int_equal(result.n_ifaces, 2);
    assert_string_equal(result.ifaces[0].name, "eth0");
    assert_string_equal(result.ifaces[1].name, "net1");
    assert_int_equal(result.ifaces[0].tap_fd, -1);
    assert_true(result.ifaces[1].tap_fd >= 0);
    detach_pod(net, "pod-a");
    assert_int_equal(count_files("%s/netns", run_dir), 0);
}

static void test_not_ethernet(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net_pod struct net_pod *pod = NULL;
    cleanup_net struct net *net = fixture_net(&config);
    struct err err = {0};

    (void)state;
    put_fake("10.conflist", "net", "1.0.0", "\"fakeADD\":\"tun\"");
    assert_int_equal(open_pod(net, &pod_a, &pod), 0);
    assert_int_equal(net_pod_attach(pod, clock_deadline(WAIT_MS), &result, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "'eth0' is not an Ethernet interface"));
    assert_nothing_left();
}

static bool record_is_gone(void)
{
    return count_files("%s", state_dir) == 0;
}

static void wait_for(bool (*fn)(void))
{
    int64_t deadline_ms = clock_deadline(WAIT_MS);

    while (!fn()) {
        assert_true(clock_monotonic_ms() < deadline_ms);
        (void)usleep(5000);
    }
}

static void test_removal_is_repeated(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);
    struct err err = {0};

    (void)state;
    put_fake("10.conflist", "net", "1.0.0", "\"fakeDEL\":\"once\"");
    attach_pod(net, &pod_a, &result);
    /* By the time of removal the operator has changed his mind. */
    put_fake("10.conflist", "other", "1.0.0", "\"fakeDEL\":\"hang\"");
    assert_int_equal(net_detach(net, "pod-a", clock_deadline(WAIT_MS), &err), -1);
    assert_non_null(strstr(err.msg, "not the first time"));
    wait_for(record_is_gone);
    assert_nothing_left();
}

/* A daemon that comes back goes on with a removal, and clears what belongs to nobody. */
static void test_restart(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result a = {0}, b = {0}, c = {0};
    struct net_pod_spec pod_b = {.id = "pod-b"}, pod_c = {.id = "pod-c"}, pod_d = {.id = "pod-d"};
    cleanup_net_pod struct net_pod *opened = NULL;
    static const char *const known[] = {"pod-c"};
    cleanup_free char *log = NULL;
    struct net *net;
    struct err err = {0};

    (void)state;
    config.retry_ms = 3600000;
    net = fixture_net(&config);
    put_fake("10.conflist", "net", "1.1.0", "\"fakeDEL\":\"once\"");
    attach_pod(net, &pod_a, &a);
    put_fake("10.conflist", "net", "1.1.0", "");
    attach_pod(net, &pod_b, &b);
    attach_pod(net, &pod_c, &c);
    assert_int_equal(open_pod(net, &pod_d, &opened), 0);
    assert_int_equal(net_detach(net, "pod-a", clock_deadline(WAIT_MS), &err), -1);
    net_free(net);
    assert_int_equal(count_files("%s", state_dir), 3);

    net = fixture_net(&config);
    net_collect(net, known, 1, clock_deadline(WAIT_MS));
    for (int64_t end = clock_deadline(WAIT_MS); count_files("%s", state_dir) > 1;)
        assert_true(clock_monotonic_ms() < end);
    assert_int_equal(count_files("%s/netns", run_dir), 1);
    assert_int_equal(count_files("%s/leases", work), 1);
    /* What DEL is still to remove is no garbage, so it may be in the list, or be gone already. */
    log = get_file("log.input");
    assert_non_null(strstr(log, "\"cni.dev/valid-attachments\":["));
    assert_non_null(strstr(log, "{\"containerID\":\"pod-c\",\"ifname\":\"eth0\"}"));
    net_free(net);

    /* After a reboot the namespace is gone, and its path is an empty file at best. */
    assert_int_equal(shell("umount %s/netns/pod-c", run_dir), 0);
    (void)shell("rm -f %s/log", work);
    net = fixture_net(&config);
    detach_pod(net, "pod-c");
    free(log);
    log = get_file("log");
    assert_string_equal(log, "DEL pod-c eth0 netns=no prev=yes\n");
    assert_nothing_left();
    net_free(net);
}

/* How often the fake was asked to collect garbage. */
static int count_gc(void)
{
    return shell("exit $(grep -c '^GC ' %s/log 2>/dev/null)", work);
}

/* GC takes what it is not told of: not beside ADD and DEL, and not in another runtime's network. */
static void test_garbage(void **state)
{
    struct net_config config = fixture_config();
    cleanup_free char *cache = text_printf("%s/cache", work);
    cleanup_net_result struct net_result a = {0};
    struct net_hold hold = {.pod_id = "pod-x"};
    static const char *const known[] = {"pod-a"};
    struct net *net;
    struct err err = {0};

    (void)state;
    config.cache_dir = cache;
    put_fake("10.conflist", "net", "1.1.0", "");
    net = fixture_net(&config);
    attach_pod(net, &pod_a, &a);

    /* Somebody works on a pod: given up at the deadline. Nobody does: asked. */
    assert_int_equal(net_hold(net, &hold, clock_deadline(WAIT_MS), &err), 0);
    net_collect(net, known, 1, clock_deadline(100));
    assert_int_equal(count_gc(), 0);
    net_release(net, &hold);
    net_collect(net, known, 1, clock_deadline(WAIT_MS));
    assert_int_equal(count_gc(), 1);
    assert_int_equal(net_hold_all(net, clock_deadline(WAIT_MS), &err), 0);
    assert_int_equal(net_hold(net, &hold, clock_deadline(100), &err), -1);
    assert_int_equal(err.code, ERR_DEADLINE);
    assert_int_equal(net_hold_all(net, clock_deadline(100), &err), -1);
    net_release_all(net);
    assert_int_equal(net_check(net, "pod-a", clock_deadline(WAIT_MS), &err), 0);

    /* libcni's file of another runtime. */
    assert_int_equal(
        shell("mkdir -p %s/results && touch %s/results/net-0123abcd-eth0", cache, cache), 0);
    net_collect(net, known, 1, clock_deadline(WAIT_MS));
    assert_int_equal(count_gc(), 1);
    assert_int_equal(shell("cd %s/results && mv net-0123abcd-eth0 other-0123abcd-eth0", cache), 0);
    net_collect(net, known, 1, clock_deadline(WAIT_MS));
    assert_int_equal(count_gc(), 2);
    detach_pod(net, "pod-a");
    net_free(net);

    /* Said by the operator. */
    assert_int_equal(shell("touch %s/results/net-0123abcd-eth0", cache), 0);
    config.gc = NET_GC_YES;
    net = fixture_net(&config);
    net_collect(net, NULL, 0, clock_deadline(WAIT_MS));
    assert_int_equal(count_gc(), 3);
    net_free(net);
    assert_int_equal(shell("rm %s/results/net-0123abcd-eth0", cache), 0);
    config.gc = NET_GC_NO;
    net = fixture_net(&config);
    net_collect(net, NULL, 0, clock_deadline(WAIT_MS));
    assert_int_equal(count_gc(), 3);
    net_free(net);
    assert_nothing_left();
}

static void test_status(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net struct net *net = fixture_net(&config);
    struct net_status status;

    (void)state;
    put_file(conf_dir, "05-bad.conf", "{\"cniVersion\":");
    put_fake("10.conflist", "net", "1.1.0", "\"fakeSTATUS\":\"error\"");
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_false(status.ready);
    assert_non_null(strstr(status.reason, "plugin 'fake' (STATUS): no subnet"));
    put_fake("10.conflist", "net", "1.1.0", "");
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_true(status.ready);
    assert_non_null(strstr(status.reason, "05-bad.conf"));
    put_file(conf_dir, "05-bad.conf",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"first\",\"type\":\"missing\"}");
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_false(status.ready);
    assert_non_null(strstr(status.reason, "network 'first': plugin 'missing' is not in "));
    /* A folder that is replaced is seen too. */
    assert_int_equal(shell("mv %s %s.old && mkdir %s", conf_dir, conf_dir, conf_dir), 0);
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_false(status.ready);
    assert_non_null(strstr(status.reason, "no network configuration"));
    put_fake("10.conflist", "new", "1.0.0", "");
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_true(status.ready);
    assert_string_equal(status.network, "new");
}

static void test_check_speaks(void **state)
{
    struct net_config config = fixture_config();
    cleanup_net_result struct net_result result = {0};
    cleanup_net struct net *net = fixture_net(&config);
    struct err err = {0};

    (void)state;
    put_fake("10.conflist", "net", "0.4.0", "\"fakeCHECK\":\"error\"");
    attach_pod(net, &pod_a, &result);
    assert_int_equal(net_check(net, "pod-a", clock_deadline(WAIT_MS), &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    assert_non_null(strstr(err.msg, "plugin 'fake' (CHECK): no subnet"));
    detach_pod(net, "pod-a");
    assert_nothing_left();
}

static void test_pod_cidr(void **state)
{
    struct net_config config = fixture_config();
    cleanup_free char *template_ = text_printf("%s/template", work);
    cleanup_net struct net *net = NULL;
    cleanup_free char *text = NULL;
    struct net_status status;
    struct err err = {0};

    (void)state;
    config.conf_template = template_;
    net = fixture_net(&config);
    put_file(work, "template",
             "{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"plugins\":[{\"type\":\"bridge\","
             "\"ipam\":{\"type\":\"host-local\",\"ranges\":{{.PodCIDRRanges}},"
             "\"routes\":{{ .Routes }}}}]}");
    assert_int_equal(net_set_pod_cidr(net, "10.1.0.0/16,nonsense", &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    if (net_set_pod_cidr(net, "10.1.0.0/16,fd00:1::/64", &err) != 0)
        fail_msg("%s", err.msg);
    text = get_file("net.d/10-casemate.conflist");
    assert_non_null(strstr(text, "\"ranges\":[[{\"subnet\":\"10.1.0.0/16\"}],"
                                 "[{\"subnet\":\"fd00:1::/64\"}]],"
                                 "\"routes\":[{\"dst\":\"0.0.0.0/0\"},{\"dst\":\"::/0\"}]"));
    net_get_status(net, clock_deadline(WAIT_MS), &status);
    assert_string_equal(status.network, "pods");
    /* Changes of the CIDR are followed, until the operator brings a configuration of his own. */
    assert_int_equal(net_set_pod_cidr(net, "10.2.0.0/16", &err), 0);
    free(text);
    text = get_file("net.d/10-casemate.conflist");
    assert_non_null(strstr(text, "[[{\"subnet\":\"10.2.0.0/16\"}]]"));
    put_fake("00.conflist", "mine", "1.0.0", "");
    assert_int_equal(net_set_pod_cidr(net, "10.3.0.0/16", &err), 0);
    free(text);
    text = get_file("net.d/10-casemate.conflist");
    assert_non_null(strstr(text, "10.2.0.0/16"));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_configuration), TEST(test_loopback_only),  TEST(test_up_and_down),
        TEST(test_faults),           TEST(test_fault_in_chain), TEST(test_removal_is_repeated),
        TEST(test_meta_plugin),      TEST(test_not_ethernet),   TEST(test_restart),
        TEST(test_garbage),          TEST(test_status),         TEST(test_check_speaks),
        TEST(test_pod_cidr),
    };
    if (!fixture_isolate())
        return 0;
    return cmocka_run_group_tests_name("host/net", tests, NULL, NULL);
}
