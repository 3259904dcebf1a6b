/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever CNI says: configurations, answers, errors, and the record of both. The first byte says
 * which. What was accepted must be good for all that the runtime does with it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/net/cniconf.h"
#include "host/net/cniresult.h"
#include "host/net/netargs.h"
#include "host/net/netrecord.h"
#include "host/net/nettemplate.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void configuration(const char *text, size_t n)
{
    struct cniconf *conf = NULL, *again = NULL;
    cleanup_free char *copy = NULL;
    struct err err = {0};

    if (cniconf_parse(text, n, &conf, &err) != 0)
        return;
    if (conf->n_plugins == 0 || strchr(conf->name, '/') != NULL)
        abort();
    for (size_t i = 0; i < conf->n_plugins; i++) {
        if (strchr(cniconf_plugin_type(conf->plugins[i]), '/') != NULL)
            abort();
        (void)cniconf_plugin_wants(conf->plugins[i], "portMappings");
    }
    if (cniconf_text(conf, &copy, &err) != 0 ||
        (strlen(copy) <= CNICONF_MAX_BYTES && cniconf_parse(copy, strlen(copy), &again, &err) != 0))
        abort();
    cniconf_unref(again);
    cniconf_unref(conf);
}

static void answer(const char *text, size_t n)
{
    struct cniresult result = {0};
    struct err err = {0};
    unsigned code = 0;

    if (cniresult_parse(text, n, &result, NULL, &err) == 0) {
        for (size_t i = 0; i < result.n_ips; i++) {
            if (strlen(result.ips[i]) == 0)
                abort();
        }
        cniresult_fini(&result);
    }
    if (cniresult_parse_error(text, n, &code, &err) && code == 0)
        abort();
}

static void record(const char *text, size_t n)
{
    struct netrecord r = {0};
    struct err err = {0};

    if (netrecord_decode(text, n, &r, &err) != 0)
        return;
    if (!netrecord_id_is_valid(r.pod_id) || r.n > NET_MAX_IFACES)
        abort();
    netrecord_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    cleanup_free char *text = NULL, *out = NULL;
    struct err err = {0};
    int64_t value;

    if (n == 0)
        return 0;
    text = malloc(n);
    if (text == NULL)
        return 0;
    memcpy(text, bytes + 1, n - 1);
    text[n - 1] = '\0';
    switch ((uint8_t)(bytes[0] - '0') % 5) {
    case 0:
        configuration(text, n - 1);
        break;
    case 1:
        answer(text, n - 1);
        break;
    case 2:
        record(text, n - 1);
        break;
    case 3:
        (void)nettemplate_render(text, "10.1.0.0/16,fd00::/64", &out, &err);
        break;
    default:
        if (netargs_quantity(text, &value) == 0 && value < 1)
            abort();
        break;
    }
    return 0;
}
