/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Names come from the CRI's client and go into one variable with ';' and '='
 * in it, so what holds such a byte is refused, not escaped: there is no escape. Capabilities are
 * offered whenever there is something to say; a plugin gets those that it declares.
 *
 * The burst of a bandwidth limit is a tenth of a second's worth, at least 512 KiB: the token bucket
 * must hold the largest segment that offloads make (64 KiB), and an unlimited burst would let short
 * transfers go unlimited.
 */
#include "host/net/netargs.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"

#define ANNOTATION_INGRESS "kubernetes.io/ingress-bandwidth"
#define ANNOTATION_EGRESS  "kubernetes.io/egress-bandwidth"
#define ANNOTATION_IPS     "network.casemate.dev/ips"
#define ANNOTATION_MAC     "network.casemate.dev/mac"

#define MAX_QUANTITY   INT64_C(1000000000000000)
#define MIN_BURST_BITS (INT64_C(512) * 1024 * 8)
#define MAX_BURST_BITS INT64_C(2147483647) /* of the bandwidth plugin */

enum { MAX_IPS = 16, MAX_ARG = 256 };

/* ---- CNI_ARGS ---- */

static int check_arg(const char *key, const char *value, struct err *err)
{
    if (strlen(value) > MAX_ARG)
        return err_set(err, ERR_INVALID, "%s is longer than %d bytes", key, MAX_ARG);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == ';' || *c == '=' || (unsigned char)*c < ' ')
            return err_set(err, ERR_INVALID, "%s holds a '%c', which CNI cannot carry", key, *c);
    }
    return 0;
}

int netargs_make(const struct net_pod_spec *spec, char **ret_args, struct err *err)
{
    const char *namespace_ = text_or_empty(spec->namespace_);
    const char *name = text_or_empty(spec->name);
    const char *uid = text_or_empty(spec->uid);
    char *args;

    if (check_arg("the pod's namespace", namespace_, err) != 0 ||
        check_arg("the pod's name", name, err) != 0 || check_arg("the pod's uid", uid, err) != 0)
        return -1;
    args = text_printf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;"
                       "K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s",
                       namespace_, name, spec->id, uid);
    if (args == NULL)
        return err_no_memory(err);
    *ret_args = args;
    return 0;
}

/* ---- quantities ---- */

/* The multiplier of a suffix; false when there is no such suffix. */
static bool suffix_value(const char *suffix, double *ret_value)
{
    static const struct {
        const char *text;
        double value;
    } suffixes[] = {
        {"", 1},     {"m", 1e-3},    {"k", 1e3},     {"M", 1e6},     {"G", 1e9},     {"T", 1e12},
        {"P", 1e15}, {"Ki", 1024.0}, {"Mi", 0x1p20}, {"Gi", 0x1p30}, {"Ti", 0x1p40},
    };

    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        if (strcmp(suffix, suffixes[i].text) == 0) {
            *ret_value = suffixes[i].value;
            return true;
        }
    }
    return false;
}

int netargs_quantity(const char *text, int64_t *ret_value)
{
    static const char digits[] = "0123456789";
    size_t n = strspn(text, digits);
    double value, unit = 1;
    char *end = NULL;

    if (n == 0 || strlen(text) > 32)
        return -1;
    if (text[n] == '.')
        n += 1 + strspn(text + n + 1, digits);
    /* An exponent, not an exa: only with digits behind it. */
    if ((text[n] == 'e' || text[n] == 'E') && strspn(text + n + 1, digits) > 0)
        n += 1 + strspn(text + n + 1, digits);
    value = strtod(text, &end);
    if (end != text + n || !suffix_value(end, &unit))
        return -1;
    value *= unit;
    if (!(value > 0) || value > (double)MAX_QUANTITY)
        return -1;
    *ret_value = (int64_t)value;
    if ((double)*ret_value < value)
        (*ret_value)++;
    return 0;
}

/* ---- capabilities ---- */

static const char *annotation(const struct net_pod_spec *spec, const char *key)
{
    for (size_t i = 0; i < spec->n_annotations; i++) {
        if (strcmp(spec->annotations[i].key, key) == 0)
            return spec->annotations[i].value;
    }
    return NULL;
}

/* Puts value (taken) under key. */
static int put(json_t *object, const char *key, json_t *value, struct err *err)
{
    return json_object_set_new(object, key, value) == 0 ? 0 : err_no_memory(err);
}

static int add_ports(const struct net_pod_spec *spec, json_t *all, struct err *err)
{
    json_t *list = json_array();

    if (list == NULL || json_object_set_new(all, "portMappings", list) != 0)
        return err_no_memory(err);
    if (spec->n_ports > NETARGS_MAX_PORTS)
        return err_set(err, ERR_INVALID, "more than %d port mappings", NETARGS_MAX_PORTS);
    for (size_t i = 0; i < spec->n_ports; i++) {
        const struct net_port *port = &spec->ports[i];
        if (port->host_port == 0)
            continue;
        if (port->container_port == 0)
            return err_set(err, ERR_INVALID, "port mapping %zu has no container port", i);
        if (json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:s}", "hostPort",
                                                  port->host_port, "containerPort",
                                                  port->container_port, "protocol", port->protocol,
                                                  "hostIP", text_or_empty(port->host_ip))) != 0)
            return err_no_memory(err);
    }
    if (json_array_size(list) == 0)
        (void)json_object_del(all, "portMappings");
    return 0;
}

static int64_t burst_of(int64_t rate)
{
    int64_t burst = rate / 10;

    if (burst < MIN_BURST_BITS)
        burst = MIN_BURST_BITS;
    return burst > MAX_BURST_BITS ? MAX_BURST_BITS : burst;
}

static int add_rate(const struct net_pod_spec *spec, const char *key, const char *rate_key,
                    const char *burst_key, json_t *bandwidth, struct err *err)
{
    const char *text = annotation(spec, key);
    int64_t rate;

    if (text == NULL)
        return 0;
    if (netargs_quantity(text, &rate) != 0)
        return err_set(err, ERR_INVALID, "annotation %s: '%.40s' is no number of bits a second",
                       key, text);
    if (put(bandwidth, rate_key, json_integer(rate), err) != 0)
        return -1;
    return put(bandwidth, burst_key, json_integer(burst_of(rate)), err);
}

static int add_bandwidth(const struct net_pod_spec *spec, json_t *all, struct err *err)
{
    json_t *bandwidth = json_object();

    if (bandwidth == NULL || json_object_set_new(all, "bandwidth", bandwidth) != 0)
        return err_no_memory(err);
    if (add_rate(spec, ANNOTATION_INGRESS, "ingressRate", "ingressBurst", bandwidth, err) != 0 ||
        add_rate(spec, ANNOTATION_EGRESS, "egressRate", "egressBurst", bandwidth, err) != 0)
        return -1;
    if (json_object_size(bandwidth) == 0)
        (void)json_object_del(all, "bandwidth");
    return 0;
}

static int add_texts(json_t *object, const char *key, const char *const *texts, size_t n,
                     struct err *err)
{
    json_t *list = json_array();

    if (list == NULL || json_object_set_new(object, key, list) != 0)
        return err_no_memory(err);
    for (size_t i = 0; i < n; i++) {
        if (json_array_append_new(list, json_string(texts[i])) != 0)
            return err_no_memory(err);
    }
    return 0;
}

static int add_dns(const struct net_pod_spec *spec, json_t *all, struct err *err)
{
    json_t *dns;

    if (spec->n_dns_servers + spec->n_dns_searches + spec->n_dns_options == 0)
        return 0;
    dns = json_object();
    if (dns == NULL || json_object_set_new(all, "dns", dns) != 0)
        return err_no_memory(err);
    if (add_texts(dns, "servers", spec->dns_servers, spec->n_dns_servers, err) != 0 ||
        add_texts(dns, "searches", spec->dns_searches, spec->n_dns_searches, err) != 0)
        return -1;
    return add_texts(dns, "options", spec->dns_options, spec->n_dns_options, err);
}

static bool is_address(const char *text)
{
    char address[NET_ADDR_TEXT];
    const char *slash = strchr(text, '/');
    size_t n = slash == NULL ? strlen(text) : (size_t)(slash - text);
    int family = strchr(text, ':') == NULL ? AF_INET : AF_INET6;
    unsigned char bytes[16];
    uint64_t prefix;

    if (n >= sizeof(address))
        return false;
    memcpy(address, text, n);
    address[n] = '\0';
    return inet_pton(family, address, bytes) == 1 &&
           (slash == NULL || text_parse_u64(slash + 1, family == AF_INET ? 32 : 128, &prefix) == 0);
}

static int add_ips(const struct net_pod_spec *spec, json_t *all, struct err *err)
{
    const char *text = annotation(spec, ANNOTATION_IPS);
    cleanup_free char *copy = NULL;
    char *rest = NULL;
    json_t *list;

    if (text == NULL)
        return 0;
    copy = strdup(text);
    list = json_array();
    if (list == NULL || json_object_set_new(all, "ips", list) != 0 || copy == NULL)
        return err_no_memory(err);
    for (char *ip = strtok_r(copy, ", ", &rest); ip != NULL; ip = strtok_r(NULL, ", ", &rest)) {
        if (!is_address(ip) || json_array_size(list) == MAX_IPS)
            return err_set(err, ERR_INVALID, "annotation " ANNOTATION_IPS ": '%.60s'", text);
        if (json_array_append_new(list, json_string(ip)) != 0)
            return err_no_memory(err);
    }
    return 0;
}

static int add_mac(const struct net_pod_spec *spec, json_t *all, struct err *err)
{
    const char *text = annotation(spec, ANNOTATION_MAC);
    unsigned first;

    if (text == NULL)
        return 0;
    if (strlen(text) != 17 || strspn(text, "0123456789abcdefABCDEF:") != 17 ||
        sscanf(text, "%2x:%*2x:%*2x:%*2x:%*2x:%*2x", &first) != 1 || (first & 1) != 0)
        return err_set(err, ERR_INVALID, "annotation " ANNOTATION_MAC ": '%.40s'", text);
    return put(all, "mac", json_string(text), err);
}

static int add_annotations(const struct net_pod_spec *spec, json_t *all, struct err *err)
{
    json_t *object;

    if (spec->n_annotations == 0)
        return 0;
    object = json_object();
    if (object == NULL ||
        json_object_set_new(all, "io.kubernetes.cri.pod-annotations", object) != 0)
        return err_no_memory(err);
    for (size_t i = 0; i < spec->n_annotations; i++) {
        if (put(object, spec->annotations[i].key, json_string(spec->annotations[i].value), err) !=
            0)
            return -1;
    }
    return 0;
}

int netargs_capabilities(const struct net_pod_spec *spec, json_t **ret_object, struct err *err)
{
    json_t *all = json_object();

    if (all == NULL)
        return err_no_memory(err);
    if (add_ports(spec, all, err) != 0 || add_bandwidth(spec, all, err) != 0 ||
        add_dns(spec, all, err) != 0 || add_ips(spec, all, err) != 0 ||
        add_mac(spec, all, err) != 0 || add_annotations(spec, all, err) != 0 ||
        (spec->cgroup_path != NULL && *spec->cgroup_path != '\0' &&
         put(all, "cgroupPath", json_string(spec->cgroup_path), err) != 0)) {
        json_decref(all);
        return -1;
    }
    *ret_object = all;
    return 0;
}

json_t *netargs_for_further(const json_t *capabilities)
{
    json_t *copy = json_copy((json_t *)(uintptr_t)capabilities);

    if (copy == NULL)
        return NULL;
    (void)json_object_del(copy, "portMappings");
    (void)json_object_del(copy, "ips");
    (void)json_object_del(copy, "mac");
    return copy;
}
