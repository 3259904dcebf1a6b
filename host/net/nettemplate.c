/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Three words are replaced, nothing else is understood: a template with other
 * words would be a configuration with holes. The result is parsed before it is given out, so that
 * nothing is ever written that the next look at the folder would refuse.
 */
#include "host/net/nettemplate.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/text.h"
#include "host/net/cniconf.h"

struct cidrs {
    char *copy;
    char *list[NETTEMPLATE_MAX_CIDRS];
    size_t n;
    bool v4;
    bool v6;
};

static bool take_cidr(struct cidrs *c, char *text)
{
    char *slash = strchr(text, '/');
    unsigned char bytes[16];
    bool v6 = strchr(text, ':') != NULL;
    uint64_t prefix;
    bool good;

    if (slash == NULL || c->n == NETTEMPLATE_MAX_CIDRS)
        return false;
    *slash = '\0';
    good = inet_pton(v6 ? AF_INET6 : AF_INET, text, bytes) == 1 &&
           text_parse_u64(slash + 1, v6 ? 128 : 32, &prefix) == 0;
    *slash = '/';
    if (!good)
        return false;
    c->v4 = c->v4 || !v6;
    c->v6 = c->v6 || v6;
    c->list[c->n++] = text;
    return true;
}

static int parse_cidrs(const char *text, struct cidrs *c, struct err *err)
{
    char *rest = NULL;

    c->copy = strdup(text);
    if (c->copy == NULL)
        return err_no_memory(err);
    for (char *cidr = strtok_r(c->copy, ", ", &rest); cidr != NULL;
         cidr = strtok_r(NULL, ", ", &rest)) {
        if (!take_cidr(c, cidr))
            return err_set(err, ERR_INVALID, "pod_cidr '%.200s' is no list of CIDRs", text);
    }
    return c->n > 0 ? 0 : err_set(err, ERR_INVALID, "pod_cidr is empty");
}

static int put_ranges(struct buf *out, const struct cidrs *c, struct err *err)
{
    for (size_t i = 0; i < c->n; i++) {
        if (buf_printf(out, err, "%s[{\"subnet\":\"%s\"}]", i == 0 ? "[" : ",", c->list[i]) != 0)
            return -1;
    }
    return buf_printf(out, err, "]");
}

static int put_routes(struct buf *out, const struct cidrs *c, struct err *err)
{
    return buf_printf(out, err, "[%s%s%s]", c->v4 ? "{\"dst\":\"0.0.0.0/0\"}" : "",
                      c->v4 && c->v6 ? "," : "", c->v6 ? "{\"dst\":\"::/0\"}" : "");
}

static int put_word(struct buf *out, const char *word, size_t n, const struct cidrs *c,
                    struct err *err)
{
    while (n > 0 && *word == ' ') {
        word++;
        n--;
    }
    while (n > 0 && word[n - 1] == ' ')
        n--;
    if (n == strlen(".PodCIDR") && strncmp(word, ".PodCIDR", n) == 0)
        return buf_printf(out, err, "%s", c->list[0]);
    if (n == strlen(".PodCIDRRanges") && strncmp(word, ".PodCIDRRanges", n) == 0)
        return put_ranges(out, c, err);
    if (n == strlen(".Routes") && strncmp(word, ".Routes", n) == 0)
        return put_routes(out, c, err);
    return err_set(err, ERR_INVALID, "{{%.*s}} is not known", n > 60 ? 60 : (int)n, word);
}

static int fill(const char *template_, const struct cidrs *c, struct buf *out, struct err *err)
{
    const char *open, *end;

    while ((open = strstr(template_, "{{")) != NULL) {
        end = strstr(open, "}}");
        if (end == NULL)
            return err_set(err, ERR_INVALID, "a {{ is not closed");
        if (buf_append(out, template_, (size_t)(open - template_), err) != 0 ||
            put_word(out, open + 2, (size_t)(end - open) - 2, c, err) != 0)
            return -1;
        template_ = end + 2;
    }
    return buf_append(out, template_, strlen(template_), err);
}

int nettemplate_render(const char *template_, const char *cidrs, char **ret_text, struct err *err)
{
    cleanup_buf struct buf out = BUF_INIT(CNICONF_MAX_BYTES);
    cleanup_cniconf struct cniconf *conf = NULL;
    struct cidrs c = {0};
    int result;

    result = parse_cidrs(cidrs, &c, err);
    if (result == 0 && (result = fill(template_, &c, &out, err)) != 0)
        err_prefix(err, "template");
    free(c.copy);
    if (result != 0)
        return -1;
    if (cniconf_parse((const char *)buf_bytes(&out), out.len, &conf, err) != 0)
        return err_prefix(err, "what the template makes is no network configuration");
    return buf_take_string(&out, ret_text, err);
}
