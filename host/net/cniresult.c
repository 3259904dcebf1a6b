/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A plugin is the operator's program, but what it says is text from outside:
 * one bad answer must fail one pod and nothing else. So the size is bounded before parsing, jansson
 * bounds nesting, and then every member that a runtime may rely on is checked for type, length and
 * form, whether or not it is used here: a plugin later in the chain, and the removal long after,
 * read the same document. Versions 0.3.0 to 1.1.0 differ only in what is optional ("version" of an
 * address went, "mtu" and route attributes came), so one reader does.
 */
#include "host/net/cniresult.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/text.h"
#include "host/net/cniconf.h"

enum { MAX_DNS_TEXT = 256, MAX_ERROR_WORDS = 700 };

static int wrong(struct err *err, const char *what)
{
    return err_set(err, ERR_PROTOCOL, "the answer's %s is not valid", what);
}

/* A member that is a list when it is there. */
static int get_list(const json_t *object, const char *key, const json_t **ret_list, struct err *err)
{
    const json_t *list = json_object_get(object, key);

    if (list != NULL && json_is_null(list))
        list = NULL;
    if (list != NULL && !json_is_array(list))
        return wrong(err, key);
    if (json_array_size(list) > CNIRESULT_MAX_ENTRIES)
        return err_set(err, ERR_PROTOCOL, "the answer has %zu %s", json_array_size(list), key);
    *ret_list = list;
    return 0;
}

/* "10.1.2.3/24" or, with need_prefix off, "10.1.2.3": the address as the kernel would print it. */
static bool parse_address(const char *text, bool need_prefix, char ret_text[NET_ADDR_TEXT])
{
    const char *slash = strchr(text, '/');
    size_t n = slash == NULL ? strlen(text) : (size_t)(slash - text);
    char address[NET_ADDR_TEXT];
    unsigned char bytes[16];
    uint64_t prefix = 0;
    int family;

    if (n >= sizeof(address) || (slash == NULL && need_prefix))
        return false;
    memcpy(address, text, n);
    address[n] = '\0';
    family = strchr(address, ':') == NULL ? AF_INET : AF_INET6;
    if (inet_pton(family, address, bytes) != 1)
        return false;
    if (slash != NULL && text_parse_u64(slash + 1, family == AF_INET ? 32 : 128, &prefix) != 0)
        return false;
    return inet_ntop(family, bytes, ret_text, NET_ADDR_TEXT) != NULL;
}

/* ---- interfaces, addresses, routes ---- */

static int read_iface(const json_t *item, struct cniresult_iface *ret_iface, struct err *err)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *mac = json_object_get(item, "mac");
    const json_t *sandbox = json_object_get(item, "sandbox");

    if (name == NULL || *name == '\0' || strlen(name) >= NET_IFNAME_SIZE ||
        strchr(name, '/') != NULL || (mac != NULL && !json_is_string(mac)) ||
        (sandbox != NULL && !json_is_string(sandbox)))
        return wrong(err, "interfaces");
    memcpy(ret_iface->name, name, strlen(name) + 1);
    ret_iface->in_pod = sandbox != NULL && *json_string_value(sandbox) != '\0';
    return 0;
}

static int read_ifaces(const json_t *doc, struct cniresult *r, struct err *err)
{
    const json_t *list;

    if (get_list(doc, "interfaces", &list, err) != 0)
        return -1;
    r->ifaces = calloc(json_array_size(list) + 1, sizeof(*r->ifaces));
    if (r->ifaces == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (read_iface(json_array_get(list, i), &r->ifaces[r->n_ifaces], err) != 0)
            return -1;
        r->n_ifaces++;
    }
    return 0;
}

static int read_ips(const json_t *doc, struct cniresult *r, struct err *err)
{
    const json_t *list;
    char gateway_text[NET_ADDR_TEXT];

    if (get_list(doc, "ips", &list, err) != 0)
        return -1;
    r->ips = calloc(json_array_size(list) + 1, sizeof(*r->ips));
    if (r->ips == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *address = json_string_value(json_object_get(item, "address"));
        const json_t *gateway = json_object_get(item, "gateway");
        const json_t *iface = json_object_get(item, "interface");
        if (address == NULL || !parse_address(address, true, r->ips[r->n_ips]))
            return wrong(err, "ips[].address");
        if (gateway != NULL && !json_is_null(gateway) &&
            (!json_is_string(gateway) ||
             (*json_string_value(gateway) != '\0' &&
              !parse_address(json_string_value(gateway), false, gateway_text))))
            return wrong(err, "ips[].gateway");
        if (iface != NULL && (!json_is_integer(iface) || json_integer_value(iface) < 0 ||
                              (size_t)json_integer_value(iface) >= r->n_ifaces))
            return wrong(err, "ips[].interface");
        if (iface == NULL || r->ifaces[json_integer_value(iface)].in_pod)
            r->n_ips++;
    }
    return 0;
}

static int check_routes(const json_t *doc, struct err *err)
{
    const json_t *list;
    char text[NET_ADDR_TEXT];

    if (get_list(doc, "routes", &list, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *dst = json_string_value(json_object_get(item, "dst"));
        const json_t *gw = json_object_get(item, "gw");
        if (dst == NULL || !parse_address(dst, true, text))
            return wrong(err, "routes[].dst");
        if (gw != NULL && !json_is_null(gw) &&
            (!json_is_string(gw) || (*json_string_value(gw) != '\0' &&
                                     !parse_address(json_string_value(gw), false, text))))
            return wrong(err, "routes[].gw");
    }
    return 0;
}

/* ---- DNS ---- */

static void free_texts(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

void net_dns_fini(struct net_dns *dns)
{
    free_texts(dns->servers, dns->n_servers);
    free_texts(dns->searches, dns->n_searches);
    free_texts(dns->options, dns->n_options);
    free(dns->domain);
    *dns = (struct net_dns){0};
}

/* It becomes a word of resolv.conf. */
static bool is_word(const char *text)
{
    if (*text == '\0' || strlen(text) > MAX_DNS_TEXT)
        return false;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c <= ' ' || *c >= 0x7f)
            return false;
    }
    return true;
}

static int read_words(const json_t *dns, const char *key, char ***ret_words, size_t *ret_n,
                      struct err *err)
{
    const json_t *list;
    char **words;

    if (get_list(dns, key, &list, err) != 0)
        return -1;
    if (json_array_size(list) > CNIRESULT_MAX_DNS)
        return err_set(err, ERR_PROTOCOL, "the answer has %zu DNS %s", json_array_size(list), key);
    words = calloc(json_array_size(list) + 1, sizeof(char *));
    if (words == NULL)
        return err_no_memory(err);
    *ret_words = words;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text == NULL || !is_word(text))
            return wrong(err, "dns");
        words[i] = strdup(text);
        if (words[i] == NULL)
            return err_no_memory(err);
        (*ret_n)++;
    }
    return 0;
}

static int read_dns(const json_t *doc, struct net_dns *dns, struct err *err)
{
    const json_t *from = json_object_get(doc, "dns");
    const json_t *domain = json_object_get(from, "domain");
    char address[NET_ADDR_TEXT];

    if (from == NULL || json_is_null(from))
        return 0;
    if (!json_is_object(from) || (domain != NULL && !json_is_string(domain)))
        return wrong(err, "dns");
    if (read_words(from, "nameservers", &dns->servers, &dns->n_servers, err) != 0 ||
        read_words(from, "search", &dns->searches, &dns->n_searches, err) != 0 ||
        read_words(from, "options", &dns->options, &dns->n_options, err) != 0)
        return -1;
    for (size_t i = 0; i < dns->n_servers; i++) {
        if (!parse_address(dns->servers[i], false, address))
            return wrong(err, "dns.nameservers");
    }
    if (domain != NULL && *json_string_value(domain) != '\0') {
        if (!is_word(json_string_value(domain)))
            return wrong(err, "dns.domain");
        dns->domain = strdup(json_string_value(domain));
        if (dns->domain == NULL)
            return err_no_memory(err);
    }
    return 0;
}

/* ---- the whole ---- */

static int check_version(const json_t *doc, struct err *err)
{
    const char *text = json_string_value(json_object_get(doc, "cniVersion"));
    enum cni_version version;

    if (text == NULL)
        return err_set(err, ERR_PROTOCOL, "the answer has no cniVersion");
    if (cni_version_parse(text, &version) != 0)
        return err_set(err, ERR_PROTOCOL, "the answer's cniVersion is '%.40s'", text);
    return 0;
}

int cniresult_read(const json_t *doc, struct cniresult *ret_result, struct err *err)
{
    struct cniresult r = {0};

    if (!json_is_object(doc))
        return err_set(err, ERR_PROTOCOL, "the answer is not a JSON object");
    if (check_version(doc, err) != 0 || read_ifaces(doc, &r, err) != 0 ||
        read_ips(doc, &r, err) != 0 || check_routes(doc, err) != 0 ||
        read_dns(doc, &r.dns, err) != 0) {
        cniresult_fini(&r);
        return -1;
    }
    *ret_result = r;
    return 0;
}

int cniresult_parse(const char *text, size_t n, struct cniresult *ret_result, json_t **ret_doc,
                    struct err *err)
{
    json_error_t why;
    json_t *doc;

    if (n > CNIRESULT_MAX_BYTES)
        return err_set(err, ERR_PROTOCOL, "the answer is larger than %u bytes",
                       CNIRESULT_MAX_BYTES);
    doc = json_loadb(text, n, 0, &why);
    if (doc == NULL)
        return err_set(err, ERR_PROTOCOL, "the answer is no JSON (line %d: %s): '%.*s'", why.line,
                       why.text, n > 200 ? 200 : (int)n, text);
    if (cniresult_read(doc, ret_result, err) != 0) {
        json_decref(doc);
        return -1;
    }
    if (ret_doc != NULL)
        *ret_doc = doc;
    else
        json_decref(doc);
    return 0;
}

void cniresult_fini(struct cniresult *result)
{
    free(result->ifaces);
    free(result->ips);
    net_dns_fini(&result->dns);
    *result = (struct cniresult){0};
}

bool cniresult_parse_error(const char *text, size_t n, unsigned *ret_code, struct err *err)
{
    json_t *doc = n > CNIRESULT_MAX_BYTES ? NULL : json_loadb(text, n, 0, NULL);
    const json_t *code = json_object_get(doc, "code");
    const char *msg = json_string_value(json_object_get(doc, "msg"));
    const char *details = json_string_value(json_object_get(doc, "details"));
    json_int_t value = json_integer_value(code);

    if (!json_is_integer(code) || value <= 0 || value > UINT32_MAX || msg == NULL) {
        json_decref(doc);
        return false;
    }
    *ret_code = (unsigned)value;
    details = text_or_empty(details);
    err_set(err,
            value == CNI_ERROR_TRY_AGAIN_LATER || value == CNI_ERROR_PLUGIN_NOT_AVAILABLE ||
                    value == CNI_ERROR_LIMITED_CONNECTIVITY
                ? ERR_UNAVAILABLE
                : ERR_SYSTEM,
            "%.*s%s%.*s", MAX_ERROR_WORDS, msg, *details == '\0' ? "" : "; ", MAX_ERROR_WORDS,
            details);
    json_decref(doc);
    return true;
}
