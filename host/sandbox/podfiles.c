/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resolv.conf(5): the last "search" line counts and holds all domains, each server has a line of
 * its own. Entries are checked to be one printable word, so that none can add a line.
 */
#include "host/sandbox/podfiles.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"

static bool is_word(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (!isgraph((unsigned char)*text) && (unsigned char)*text < 0x80)
            return false;
    }
    return true;
}

/* The words of one kind: on a line each, or on one line together. */
static int add_words(struct buf *b, const char *keyword, char *const *words, size_t n,
                     bool line_each, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!is_word(words[i]))
            return err_set(err, ERR_INVALID, "'%.64s' is no %s for a resolver", words[i], keyword);
        if ((line_each || i == 0) && buf_printf(b, err, "%s", keyword) < 0)
            return -1;
        if (buf_printf(b, err, " %s%s", words[i], line_each || i + 1 == n ? "\n" : "") < 0)
            return -1;
    }
    return 0;
}

static int add_dns(struct buf *b, const Runtime__V1__DNSConfig *dns, struct err *err)
{
    if (add_words(b, "search", dns->searches, dns->n_searches, false, err) < 0 ||
        add_words(b, "nameserver", dns->servers, dns->n_servers, true, err) < 0 ||
        add_words(b, "options", dns->options, dns->n_options, false, err) < 0)
        return err_prefix(err, "dns_config");
    return 0;
}

int podfiles_check_dns(const Runtime__V1__DNSConfig *dns, struct err *err)
{
    cleanup_buf struct buf b = BUF_INIT(PODFILES_MAX);

    return dns == NULL ? 0 : add_dns(&b, dns, err);
}

static int copy_host(const char *path, char **ret_text, struct err *err)
{
    struct err why;

    if (fd_read_file(AT_FDCWD, path, PODFILES_MAX, ret_text, NULL, &why) == 0)
        return 0;
    if (why.code == ERR_NOT_FOUND) {
        *ret_text = strdup("");
        return *ret_text == NULL ? err_no_memory(err) : 0;
    }
    if (err != NULL)
        *err = why;
    return -1;
}

int podfiles_resolv_conf(const Runtime__V1__DNSConfig *dns, const struct net_dns *net,
                         const char *host_path, char **ret_text, struct err *err)
{
    cleanup_buf struct buf b = BUF_INIT(PODFILES_MAX);

    if (dns != NULL && dns->n_servers + dns->n_searches + dns->n_options > 0) {
        if (add_dns(&b, dns, err) < 0)
            return -1;
        return buf_take_string(&b, ret_text, err);
    }
    if (net != NULL && net->n_servers > 0) {
        /* A search list takes the place of a domain. */
        const size_t n_domain = net->n_searches == 0 && net->domain != NULL ? 1 : 0;
        if (add_words(&b, "domain", &net->domain, n_domain, true, err) < 0 ||
            add_words(&b, "search", net->searches, net->n_searches, false, err) < 0 ||
            add_words(&b, "nameserver", net->servers, net->n_servers, true, err) < 0 ||
            add_words(&b, "options", net->options, net->n_options, false, err) < 0)
            return err_prefix(err, "dns of the network plugins");
        return buf_take_string(&b, ret_text, err);
    }
    return copy_host(host_path, ret_text, err);
}

int podfiles_hosts(const char *hostname, const char (*ips)[NET_ADDR_TEXT], size_t n,
                   char **ret_text, struct err *err)
{
    cleanup_buf struct buf b = BUF_INIT(PODFILES_MAX);

    if (buf_printf(&b, err,
                   "127.0.0.1\tlocalhost\n"
                   "::1\tlocalhost ip6-localhost ip6-loopback\n"
                   "fe00::0\tip6-localnet\n"
                   "fe00::0\tip6-mcastprefix\n"
                   "fe00::1\tip6-allnodes\n"
                   "fe00::2\tip6-allrouters\n") < 0)
        return -1;
    if (n == 0 && buf_printf(&b, err, "127.0.1.1\t%s\n", hostname) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (buf_printf(&b, err, "%s\t%s\n", ips[i], hostname) < 0)
            return -1;
    }
    return buf_take_string(&b, ret_text, err);
}

int podfiles_hostname(const char *hostname, char **ret_text, struct err *err)
{
    *ret_text = text_printf("%s\n", hostname);
    return *ret_text == NULL ? err_no_memory(err) : 0;
}
