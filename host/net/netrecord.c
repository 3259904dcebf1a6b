/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One file per pod, "<id>.json": {version, pod, netns, args, capabilities,
 * detaching, networks: [{conf, ifname, result}]}. The configuration is kept whole, not by name: by
 * the time of removal the operator may have changed or deleted his file. A network without a result
 * is one whose ADD was begun and not finished; its DEL is due all the same. The file is replaced by
 * rename after fsync.
 */
#include "host/net/netrecord.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"

enum { FORMAT = 1, NAME_SIZE = NETRECORD_ID_MAX + 8 };

#define SUFFIX ".json"

bool netrecord_id_is_valid(const char *pod_id)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t n = strlen(pod_id);

    return n > 0 && n <= NETRECORD_ID_MAX && strchr(letters, *pod_id) != NULL &&
           strspn(pod_id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n;
}

static void file_name(const char *pod_id, char ret_name[NAME_SIZE])
{
    size_t n = strlen(pod_id);

    memcpy(ret_name, pod_id, n);
    memcpy(ret_name + n, SUFFIX, sizeof(SUFFIX));
}

/* ---- writing ---- */

static json_t *encode_network(const struct netrecord_network *network)
{
    return json_pack("{s:O, s:s, s:O?}", "conf", network->conf->root, "ifname", network->ifname,
                     "result", network->result);
}

static json_t *encode(const struct netrecord *record)
{
    json_t *networks = json_array();
    json_t *root;

    for (size_t i = 0; networks != NULL && i < record->n; i++) {
        if (json_array_append_new(networks, encode_network(&record->networks[i])) != 0) {
            json_decref(networks);
            networks = NULL;
        }
    }
    if (networks == NULL)
        return NULL;
    root = json_pack("{s:i, s:s, s:s, s:s, s:b, s:O?}", "version", FORMAT, "pod", record->pod_id,
                     "netns", record->netns, "args", record->args, "detaching",
                     (int)record->detaching, "capabilities", record->capabilities);
    if (root == NULL)
        json_decref(networks);
    else if (json_object_set_new(root, "networks", networks) != 0) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

int netrecord_save(int dir_fd, const struct netrecord *record, struct err *err)
{
    json_t *root = encode(record);
    cleanup_free char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    char name[NAME_SIZE];

    json_decref(root);
    if (text == NULL)
        return err_no_memory(err);
    file_name(record->pod_id, name);
    if (fd_write_file_atomic(dir_fd, name, text, strlen(text), 0600, err) != 0)
        return err_prefix(err, "record of the pod's network");
    return 0;
}

int netrecord_delete(int dir_fd, const char *pod_id, struct err *err)
{
    char name[NAME_SIZE];

    file_name(pod_id, name);
    if (unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT)
        return err_set_errno(err, errno, "remove the record of the pod's network");
    return 0;
}

/* ---- reading ---- */

static int copy_text(const json_t *root, const char *key, char **ret_text, struct err *err)
{
    const char *text = json_string_value(json_object_get(root, key));

    if (text == NULL)
        return err_set(err, ERR_PROTOCOL, "'%s' is missing", key);
    *ret_text = strdup(text);
    return *ret_text == NULL ? err_no_memory(err) : 0;
}

static int decode_network(const json_t *item, struct netrecord_network *network, struct err *err)
{
    const char *ifname = json_string_value(json_object_get(item, "ifname"));
    json_t *result = json_object_get(item, "result");
    cleanup_free char *conf = NULL;

    if (ifname == NULL || *ifname == '\0' || strlen(ifname) >= sizeof(network->ifname))
        return err_set(err, ERR_PROTOCOL, "'ifname' is not valid");
    memcpy(network->ifname, ifname, strlen(ifname) + 1);
    conf = json_dumps(json_object_get(item, "conf"), JSON_COMPACT);
    if (conf == NULL)
        return err_set(err, ERR_PROTOCOL, "'conf' is missing");
    if (cniconf_parse(conf, strlen(conf), &network->conf, err) != 0)
        return err_prefix(err, "'conf'");
    if (json_is_object(result))
        network->result = json_incref(result);
    return 0;
}

static int decode_root(const json_t *root, struct netrecord *record, struct err *err)
{
    const json_t *networks = json_object_get(root, "networks");
    json_t *capabilities = json_object_get(root, "capabilities");

    if (json_integer_value(json_object_get(root, "version")) != FORMAT)
        return err_set(err, ERR_PROTOCOL, "its format is not known to this release");
    if (copy_text(root, "pod", &record->pod_id, err) != 0 ||
        copy_text(root, "netns", &record->netns, err) != 0 ||
        copy_text(root, "args", &record->args, err) != 0)
        return -1;
    if (!netrecord_id_is_valid(record->pod_id))
        return err_set(err, ERR_PROTOCOL, "'pod' is not valid");
    record->detaching = json_is_true(json_object_get(root, "detaching"));
    if (json_is_object(capabilities))
        record->capabilities = json_incref(capabilities);
    if (json_array_size(networks) > NET_MAX_IFACES)
        return err_set(err, ERR_PROTOCOL, "too many networks");
    for (size_t i = 0; i < json_array_size(networks); i++) {
        if (decode_network(json_array_get(networks, i), &record->networks[i], err) != 0)
            return -1;
        record->n++;
    }
    return 0;
}

int netrecord_decode(const char *text, size_t n, struct netrecord *ret_record, struct err *err)
{
    struct netrecord record = {0};
    json_error_t why;
    json_t *root = json_loadb(text, n, 0, &why);
    int result;

    if (root == NULL)
        return err_set(err, ERR_PROTOCOL, "no JSON: %s", why.text);
    result = decode_root(root, &record, err);
    json_decref(root);
    if (result == 0)
        *ret_record = record;
    else
        netrecord_fini(&record);
    return result;
}

int netrecord_load(int dir_fd, const char *pod_id, struct netrecord *ret_record, struct err *err)
{
    cleanup_free char *text = NULL;
    char name[NAME_SIZE];
    size_t n = 0;

    file_name(pod_id, name);
    if (fd_read_file(dir_fd, name, NETRECORD_MAX_BYTES, &text, &n, err) != 0 ||
        netrecord_decode(text, n, ret_record, err) != 0)
        return err_prefix(err, "record of the pod's network");
    if (strcmp(ret_record->pod_id, pod_id) != 0) {
        netrecord_fini(ret_record);
        return err_set(err, ERR_PROTOCOL, "the record of the pod's network is another pod's");
    }
    return 0;
}

static int is_record(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);

    return *entry->d_name != '.' && n > strlen(SUFFIX) && n < NAME_SIZE &&
           strcmp(entry->d_name + n - strlen(SUFFIX), SUFFIX) == 0;
}

int netrecord_list(int dir_fd, char ***ret_ids, size_t *ret_n, struct err *err)
{
    struct dirent **list = NULL;
    int n = scandirat(dir_fd, ".", &list, is_record, NULL);
    char **ids;

    if (n < 0)
        return err_set_errno(err, errno, "list the records of networks");
    ids = calloc((size_t)n + 1, sizeof(char *));
    for (int i = 0; i < n; i++) {
        if (ids != NULL) {
            list[i]->d_name[strlen(list[i]->d_name) - strlen(SUFFIX)] = '\0';
            ids[i] = strdup(list[i]->d_name);
        }
        free(list[i]);
    }
    free(list);
    if (ids == NULL)
        return err_no_memory(err);
    *ret_ids = ids;
    *ret_n = (size_t)n;
    return 0;
}

void netrecord_fini(struct netrecord *record)
{
    free(record->pod_id);
    free(record->netns);
    free(record->args);
    json_decref(record->capabilities);
    for (size_t i = 0; i < NET_MAX_IFACES; i++) {
        cniconf_unref(record->networks[i].conf);
        json_decref(record->networks[i].result);
    }
    *record = (struct netrecord){0};
}
