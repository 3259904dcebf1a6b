/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A configuration is kept as the JSON that it came as, because most of its
 * keys are its plugins' own; what the runtime needs is looked at once and checked: versions, names
 * that become file names or environment values, the number of plugins. jansson bounds nesting; the
 * text's size is bounded before it is parsed. Files are taken in byte order of their names, as
 * kubelets and other runtimes have always done, so that the same folder means the same network.
 */
#include "host/net/cniconf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "common/base/fd.h"
#include "common/base/text.h"

static const char *const versions[] = {
    [CNI_0_3_0] = "0.3.0", [CNI_0_3_1] = "0.3.1", [CNI_0_4_0] = "0.4.0",
    [CNI_1_0_0] = "1.0.0", [CNI_1_1_0] = "1.1.0",
};

/* A configuration with its count of references. */
struct counted {
    struct cniconf conf;
    atomic_uint refs;
    json_t *root; /* conf.root, owned */
};

const char *cni_version_name(enum cni_version version)
{
    return versions[version];
}

int cni_version_parse(const char *text, enum cni_version *ret_version)
{
    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        if (strcmp(text, versions[i]) == 0) {
            *ret_version = (enum cni_version)i;
            return 0;
        }
    }
    return -1;
}

struct cniconf *cniconf_ref(struct cniconf *conf)
{
    atomic_fetch_add(&container_of(conf, struct counted, conf)->refs, 1);
    return conf;
}

void cniconf_unref(struct cniconf *conf)
{
    struct counted *c;

    if (conf == NULL)
        return;
    c = container_of(conf, struct counted, conf);
    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    json_decref(c->root);
    free(c);
}

/* ---- parsing ---- */

/* Names go into the plugins' own file names. */
static bool is_name(const char *text, size_t max)
{
    size_t n = strlen(text);

    if (n == 0 || n > max || *text == '.' || *text == '-' || *text == '_')
        return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == n;
}

/* A key that is a boolean when it is there; old files have it as a string. */
static int get_flag(const json_t *object, const char *key, bool *ret_flag, struct err *err)
{
    const json_t *value = json_object_get(object, key);

    if (value == NULL)
        *ret_flag = false;
    else if (json_is_boolean(value))
        *ret_flag = json_is_true(value);
    else if (json_is_string(value) && (strcmp(json_string_value(value), "true") == 0 ||
                                       strcmp(json_string_value(value), "false") == 0))
        *ret_flag = strcmp(json_string_value(value), "true") == 0;
    else
        return err_set(err, ERR_INVALID, "'%s' is neither true nor false", key);
    return 0;
}

/* "cniVersions" (1.1) offers several; the highest that we speak too is taken. */
static bool best_offered(const json_t *root, enum cni_version *best)
{
    const json_t *list = json_object_get(root, "cniVersions");
    bool found = false;

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        enum cni_version v;
        if (text != NULL && cni_version_parse(text, &v) == 0 && (!found || v > *best)) {
            *best = v;
            found = true;
        }
    }
    return found;
}

static int get_version(const json_t *root, enum cni_version *ret_version, struct err *err)
{
    const char *text = json_string_value(json_object_get(root, "cniVersion"));
    enum cni_version best, v;

    if (best_offered(root, &best)) {
        *ret_version = text != NULL && cni_version_parse(text, &v) == 0 && v > best ? v : best;
        return 0;
    }
    if (text == NULL)
        return err_set(err, ERR_INVALID, "no 'cniVersion': 0.3.1 to 1.1.0 are spoken here");
    if (cni_version_parse(text, ret_version) != 0)
        return err_set(err, ERR_INVALID, "cniVersion '%s': 0.3.1 to 1.1.0 are spoken here", text);
    return 0;
}

static int check_plugin(json_t *plugin, struct err *err)
{
    const char *type = json_string_value(json_object_get(plugin, "type"));
    const json_t *capabilities = json_object_get(plugin, "capabilities");

    if (type == NULL || !is_name(type, CNICONF_MAX_NAME))
        return err_set(err, ERR_INVALID, "a plugin's 'type' is missing or no program's name");
    if (capabilities != NULL && !json_is_object(capabilities))
        return err_set(err, ERR_INVALID, "plugin '%s': 'capabilities' is no object", type);
    return 0;
}

/* The fields of c from c->root. */
static int read_root(struct counted *c, struct err *err)
{
    struct cniconf *conf = &c->conf;
    json_t *list = json_object_get(c->root, "plugins");

    conf->root = c->root;
    conf->name = json_string_value(json_object_get(c->root, "name"));
    if (conf->name == NULL || !is_name(conf->name, CNICONF_MAX_NAME))
        return err_set(err, ERR_INVALID, "'name' is missing or not a network's name");
    if (get_version(c->root, &conf->version, err) != 0 ||
        get_flag(c->root, "disableCheck", &conf->disable_check, err) != 0 ||
        get_flag(c->root, "disableGC", &conf->disable_gc, err) != 0)
        return -1;
    if (list == NULL) {
        conf->plugins[conf->n_plugins++] = c->root;
    } else {
        if (!json_is_array(list) || json_array_size(list) == 0)
            return err_set(err, ERR_INVALID, "'plugins' is no list of plugins");
        if (json_array_size(list) > CNICONF_MAX_PLUGINS)
            return err_set(err, ERR_INVALID, "more than %d plugins", CNICONF_MAX_PLUGINS);
        for (size_t i = 0; i < json_array_size(list); i++)
            conf->plugins[conf->n_plugins++] = json_array_get(list, i);
    }
    for (size_t i = 0; i < conf->n_plugins; i++) {
        if (check_plugin(conf->plugins[i], err) != 0)
            return -1;
    }
    return 0;
}

int cniconf_parse(const char *text, size_t n, struct cniconf **ret_conf, struct err *err)
{
    struct counted *c;
    json_error_t why;

    if (n > CNICONF_MAX_BYTES)
        return err_set(err, ERR_INVALID, "larger than %u bytes", CNICONF_MAX_BYTES);
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_no_memory(err);
    atomic_init(&c->refs, 1);
    c->root = json_loadb(text, n, 0, &why);
    if (c->root == NULL)
        err_set(err, ERR_INVALID, "line %d: %s", why.line, why.text);
    else if (!json_is_object(c->root))
        err_set(err, ERR_INVALID, "not a JSON object");
    else if (read_root(c, err) == 0) {
        *ret_conf = &c->conf;
        return 0;
    }
    cniconf_unref(&c->conf);
    return -1;
}

int cniconf_text(const struct cniconf *conf, char **ret_text, struct err *err)
{
    char *text = json_dumps(conf->root, JSON_COMPACT);

    if (text == NULL)
        return err_no_memory(err);
    *ret_text = text;
    return 0;
}

const char *cniconf_plugin_type(const json_t *plugin)
{
    return json_string_value(json_object_get(plugin, "type"));
}

bool cniconf_plugin_wants(const json_t *plugin, const char *capability)
{
    return json_is_true(json_object_get(json_object_get(plugin, "capabilities"), capability));
}

/* ---- a folder of them ---- */

static bool is_conf_file(const char *name)
{
    const char *dot = strrchr(name, '.');

    return *name != '.' && dot != NULL &&
           (strcmp(dot, ".conf") == 0 || strcmp(dot, ".conflist") == 0 ||
            strcmp(dot, ".json") == 0);
}

static int filter(const struct dirent *entry)
{
    return is_conf_file(entry->d_name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_file(int dir_fd, const char *name, struct cniconf **ret_conf, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t n = 0;

    if (fd_read_file(dir_fd, name, CNICONF_MAX_BYTES, &text, &n, err) != 0)
        return -1;
    return cniconf_parse(text, n, ret_conf, err);
}

static void load_files(int dir_fd, const char *path, struct dirent **list, size_t n, size_t want,
                       struct cniconf_set *set)
{
    for (size_t i = 0; i < n && set->n < want && i < CNICONF_MAX_FILES; i++) {
        struct err err = {0};
        if (load_file(dir_fd, list[i]->d_name, &set->confs[set->n], &err) == 0)
            set->n++;
        else if (set->problem[0] == '\0')
            (void)snprintf(set->problem, sizeof(set->problem), "'%.100s/%.100s': %.250s", path,
                           list[i]->d_name, err.msg);
    }
}

void cniconf_load_dir(const char *path, size_t want, const char *own, struct cniconf_set *ret_set)
{
    cleanup_fd int dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent **list = NULL;
    int n = -1;

    *ret_set = (struct cniconf_set){0};
    if (dir_fd >= 0)
        n = scandirat(dir_fd, ".", &list, filter, by_name);
    if (n < 0) {
        (void)snprintf(ret_set->problem, sizeof(ret_set->problem),
                       "no network configuration: '%s': %s", path, strerrordesc_np(errno));
        return;
    }
    for (int i = 0; i < n; i++)
        ret_set->others = ret_set->others || own == NULL || strcmp(list[i]->d_name, own) != 0;
    load_files(dir_fd, path, list, (size_t)n, want, ret_set);
    if (n == 0)
        (void)snprintf(ret_set->problem, sizeof(ret_set->problem),
                       "no network configuration in '%s'", path);
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

void cniconf_set_fini(struct cniconf_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        cniconf_unref(set->confs[i]);
    *set = (struct cniconf_set){0};
}
