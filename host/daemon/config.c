/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inih splits lines; a table says for each key where its value goes and how it is read, so that a
 * key is one line here. Paths that belong to the build (guest, converter) default to the installed
 * places, or, when the daemon is run from a build tree, to that tree.
 */
#include "host/daemon/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/net/net.h"

enum {
    MAX_FILE = 1 << 20,
    MAX_DROPINS = 256,
    MAX_REGISTRIES = 256,
    MAX_MIRRORS = 16,
    MAX_HANDLERS = 32,
    MAX_LIST = 256
};

typedef int (*read_fn)(const char *value, void *field, struct err *err);

static int read_text(const char *value, void *field, struct err *err)
{
    char *copy = strdup(value);
    if (copy == NULL)
        return err_no_memory(err);
    char **p = field;
    free(*p);
    *p = copy;
    return 0;
}

static int read_path(const char *value, void *field, struct err *err)
{
    if (value[0] != '/')
        return err_set(err, ERR_INVALID, "'%s' is not an absolute path", value);
    return read_text(value, field, err);
}

/* Folders separated by ':'. */
static int read_paths(const char *value, void *field, struct err *err)
{
    for (const char *at = value; at != NULL; at = strchr(at, ':')) {
        at += *at == ':' ? 1 : 0;
        if (*at != '/')
            return err_set(err, ERR_INVALID, "'%s' is no list of absolute paths", value);
    }
    return read_text(value, field, err);
}

static int read_bool(const char *value, void *field, struct err *err)
{
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *(bool *)field = strcmp(value, yes[i]) == 0;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID, "'%s' is neither yes nor no", value);
}

static int read_unsigned(const char *value, void *field, struct err *err)
{
    uint64_t v;
    if (text_parse_u64(value, UINT_MAX, &v) < 0)
        return err_set(err, ERR_INVALID, "'%s' is not a whole number", value);
    *(unsigned *)field = (unsigned)v;
    return 0;
}

static int read_log_level(const char *value, void *field, struct err *err)
{
    if (log_level_parse(value, field) < 0)
        return err_set(err, ERR_INVALID, "'%s' is none of debug, info, warn, error", value);
    return 0;
}

static int read_compression(const char *value, void *field, struct err *err)
{
    if (image_compression_parse(value, field) < 0)
        return err_set(err, ERR_INVALID, "'%s' is none of zstd, lz4, none", value);
    return 0;
}

static int read_accel(const char *value, void *field, struct err *err)
{
    if (vmm_accel_parse(value, field) < 0)
        return err_set(err, ERR_INVALID, "'%s' is none of auto, kvm, tcg", value);
    return 0;
}

static int read_transport(const char *value, void *field, struct err *err)
{
    if (vmm_transport_parse(value, field) < 0)
        return err_set(err, ERR_INVALID, "'%s' is none of auto, vsock, virtio-serial", value);
    return 0;
}

static int read_gc(const char *value, void *field, struct err *err)
{
    if (net_gc_parse(value, field) < 0)
        return err_set(err, ERR_INVALID, "'%s' is none of " NET_GC_NAMES, value);
    return 0;
}

static int read_list(const char *value, void *field, struct err *err)
{
    struct config_list *list = field;
    if (list->n == MAX_LIST)
        return err_set(err, ERR_INVALID, "more than %d values", MAX_LIST);
    char **items = reallocarray(list->items, list->n + 1, sizeof(*items));
    if (items == NULL)
        return err_no_memory(err);
    list->items = items;
    items[list->n] = strdup(value);
    if (items[list->n] == NULL)
        return err_no_memory(err);
    list->n++;
    return 0;
}

struct key {
    const char *section;
    const char *name;
    size_t offset;
    read_fn read;
};

#define KEY(section, field, fn)                                                                    \
    {                                                                                              \
        section, #field, offsetof(struct config, field), fn                                        \
    }
static const struct key keys[] = {
    KEY("casemated", socket, read_path),
    KEY("casemated", state_dir, read_path),
    KEY("casemated", run_dir, read_path),
    KEY("casemated", log_level, read_log_level),
    KEY("casemated", workers, read_unsigned),
    KEY("guest", kernel, read_path),
    KEY("guest", initrd, read_path),
    KEY("guest", memory_mib, read_unsigned),
    KEY("guest", vcpus, read_unsigned),
    KEY("guest", memory_max_mib, read_unsigned),
    KEY("guest", vcpus_max, read_unsigned),
    {"guest", "template", offsetof(struct config, clone), read_bool},
    KEY("vmm", qemu, read_path),
    KEY("vmm", accel, read_accel),
    KEY("vmm", tcg_hardening, read_bool),
    KEY("vmm", transport, read_transport),
    KEY("vmm", vhost_net, read_bool),
    KEY("vmm", templates_max_mib, read_unsigned),
    KEY("vmm", uid_base, read_unsigned),
    KEY("vmm", uid_count, read_unsigned),
    KEY("pod", scratch_mib, read_unsigned),
    KEY("pod", spares, read_unsigned),
    KEY("image", converter, read_path),
    KEY("image", converter_uid, read_unsigned),
    KEY("image", compression, read_compression),
    KEY("image", auth_file, read_path),
    {"image", "pinned", offsetof(struct config, pinned), read_list},
    KEY("image", parallel_layers, read_unsigned),
    KEY("image", stall_timeout_s, read_unsigned),
    KEY("image", max_layer_mib, read_unsigned),
    KEY("image", max_layer_ratio, read_unsigned),
    KEY("image", max_layer_entries, read_unsigned),
    KEY("image", converter_memory_mib, read_unsigned),
    KEY("network", conf_dir, read_path),
    KEY("network", bin_dirs, read_paths),
    KEY("network", conf_template, read_path),
    KEY("network", max_networks, read_unsigned),
    KEY("network", plugin_timeout_s, read_unsigned),
    KEY("network", loopback_only, read_bool),
    KEY("network", gc, read_gc),
};

static const struct key registry_keys[] = {
    {"registry", "plain_http", offsetof(struct config_registry, plain_http), read_bool},
    {"registry", "ca_file", offsetof(struct config_registry, ca_file), read_path},
    {"registry", "client_cert", offsetof(struct config_registry, client_cert), read_path},
    {"registry", "client_key", offsetof(struct config_registry, client_key), read_path},
};

static int add_mirror(struct config_registry *r, const char *url, struct err *err)
{
    if (!text_has_prefix(url, "http://") && !text_has_prefix(url, "https://"))
        return err_set(err, ERR_INVALID, "mirror '%s' is no http:// or https:// URL", url);
    if (r->n_mirrors == MAX_MIRRORS)
        return err_set(err, ERR_INVALID, "more than %d mirrors", MAX_MIRRORS);
    char **p = realloc(r->mirrors, (r->n_mirrors + 1) * sizeof(*p));
    if (p == NULL)
        return err_no_memory(err);
    r->mirrors = p;
    p[r->n_mirrors] = strdup(url);
    if (p[r->n_mirrors] == NULL)
        return err_no_memory(err);
    r->n_mirrors++;
    return 0;
}

/* The registry of a section named `registry "HOST"`, made at its first mention. */
static int find_registry(struct config *c, const char *section, struct config_registry **ret,
                         struct err *err)
{
    const char *host = section + strlen("registry ");
    size_t n = strlen(host);
    if (n < 3 || host[0] != '"' || host[n - 1] != '"')
        return err_set(err, ERR_INVALID, "section [%s] is not of the form [registry \"HOST\"]",
                       section);
    for (size_t i = 0; i < c->n_registries; i++) {
        if (strlen(c->registries[i].host) == n - 2 &&
            memcmp(c->registries[i].host, host + 1, n - 2) == 0) {
            *ret = &c->registries[i];
            return 0;
        }
    }
    if (c->n_registries == MAX_REGISTRIES)
        return err_set(err, ERR_INVALID, "more than %d registries", MAX_REGISTRIES);
    struct config_registry *p = realloc(c->registries, (c->n_registries + 1) * sizeof(*p));
    if (p == NULL)
        return err_no_memory(err);
    c->registries = p;
    char *name = strndup(host + 1, n - 2);
    if (name == NULL)
        return err_no_memory(err);
    p[c->n_registries] = (struct config_registry){.host = name};
    *ret = &p[c->n_registries++];
    return 0;
}

static int set_registry(struct config *c, const char *section, const char *name, const char *value,
                        struct err *err)
{
    struct config_registry *r = NULL;
    if (find_registry(c, section, &r, err) < 0)
        return -1;
    if (strcmp(name, "mirror") == 0)
        return add_mirror(r, value, err);
    for (size_t i = 0; i < ARRAY_SIZE(registry_keys); i++) {
        if (strcmp(registry_keys[i].name, name) == 0)
            return registry_keys[i].read(value, (char *)r + registry_keys[i].offset, err);
    }
    return err_set(err, ERR_INVALID, "unknown key '%s' in [%s]", name, section);
}

/* ---- [handler "NAME"] ---- */

static int read_machine(const char *value, void *field, struct err *err)
{
    if (strcmp(value, "q35") != 0)
        return err_set(err, ERR_INVALID, "'%s' is not provided: q35 is", value);
    return read_text(value, field, err);
}

static const struct key handler_keys[] = {
    {"handler", "kernel", offsetof(struct config_handler, kernel), read_path},
    {"handler", "initrd", offsetof(struct config_handler, initrd), read_path},
    {"handler", "machine", offsetof(struct config_handler, machine), read_machine},
    {"handler", "memory_mib", offsetof(struct config_handler, memory_mib), read_unsigned},
    {"handler", "vcpus", offsetof(struct config_handler, vcpus), read_unsigned},
    {"handler", "memory_max_mib", offsetof(struct config_handler, memory_max_mib), read_unsigned},
    {"handler", "vcpus_max", offsetof(struct config_handler, vcpus_max), read_unsigned},
    {"handler", "accel", offsetof(struct config_handler, accel), read_accel},
    {"handler", "template", offsetof(struct config_handler, clone), read_bool},
};

/* The handler of this name, made at its first mention. */
static int add_handler(struct config *c, const char *name, size_t n, struct config_handler **ret,
                       struct err *err)
{
    for (size_t i = 0; i < c->n_handlers; i++) {
        if (strlen(c->handlers[i].name) == n && memcmp(c->handlers[i].name, name, n) == 0) {
            *ret = &c->handlers[i];
            return 0;
        }
    }
    if (c->n_handlers == MAX_HANDLERS)
        return err_set(err, ERR_INVALID, "more than %d handlers", MAX_HANDLERS);
    struct config_handler *p = reallocarray(c->handlers, c->n_handlers + 1, sizeof(*p));
    if (p == NULL)
        return err_no_memory(err);
    c->handlers = p;
    char *copy = strndup(name, n);
    if (copy == NULL)
        return err_no_memory(err);
    p[c->n_handlers] = (struct config_handler){.name = copy};
    *ret = &p[c->n_handlers++];
    return 0;
}

static int set_handler(struct config *c, const char *section, const char *name, const char *value,
                       struct err *err)
{
    /* What a RuntimeClass may name: an RFC 1123 label. */
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
    const char *quoted = section + strlen("handler ");
    size_t n = strlen(quoted);
    struct config_handler *h;
    if (n < 3 || n > 65 || quoted[0] != '"' || quoted[n - 1] != '"' ||
        strspn(quoted + 1, allowed) != n - 2)
        return err_set(err, ERR_INVALID, "section [%s] is not of the form [handler \"NAME\"]",
                       section);
    if (add_handler(c, quoted + 1, n - 2, &h, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(handler_keys); i++) {
        if (strcmp(handler_keys[i].name, name) != 0)
            continue;
        if (strcmp(name, "template") == 0)
            h->has_clone = true;
        return handler_keys[i].read(value, (char *)h + handler_keys[i].offset, err);
    }
    return err_set(err, ERR_INVALID, "unknown key '%s' in [%s]", name, section);
}

static int inherit_text(char **field, const char *value, struct err *err)
{
    if (*field == NULL)
        *field = strdup(value);
    return *field == NULL ? err_no_memory(err) : 0;
}

/* What the sections of handlers left out; and bounds, which are the same for all. */
static int complete_handlers(struct config *c, struct err *err)
{
    for (size_t i = 0; i < c->n_handlers; i++) {
        struct config_handler *h = &c->handlers[i];
        if (inherit_text(&h->kernel, c->kernel, err) < 0 ||
            inherit_text(&h->initrd, c->initrd, err) < 0 ||
            inherit_text(&h->machine, "q35", err) < 0)
            return -1;
        h->memory_mib = h->memory_mib != 0 ? h->memory_mib : c->memory_mib;
        h->vcpus = h->vcpus != 0 ? h->vcpus : c->vcpus;
        h->memory_max_mib = h->memory_max_mib != 0 ? h->memory_max_mib : c->memory_max_mib;
        h->vcpus_max = h->vcpus_max != 0 ? h->vcpus_max : c->vcpus_max;
        h->clone = h->has_clone ? h->clone : c->clone;
        if (h->memory_mib < 64)
            return err_set(err, ERR_INVALID, "[handler \"%s\"] memory_mib must be at least 64",
                           h->name);
        if (h->vcpus > 64)
            return err_set(err, ERR_INVALID, "[handler \"%s\"] vcpus must be 1 to 64", h->name);
        if (h->memory_max_mib != 0 && h->memory_max_mib < h->memory_mib)
            return err_set(err, ERR_INVALID, "[handler \"%s\"] memory_max_mib is below memory_mib",
                           h->name);
        if (h->vcpus_max != 0 && h->vcpus_max < h->vcpus)
            return err_set(err, ERR_INVALID, "[handler \"%s\"] vcpus_max is below vcpus", h->name);
    }
    return 0;
}

static void free_handlers(struct config *c)
{
    for (size_t i = 0; i < c->n_handlers; i++) {
        free(c->handlers[i].name);
        free(c->handlers[i].kernel);
        free(c->handlers[i].initrd);
        free(c->handlers[i].machine);
    }
    free(c->handlers);
}

static int set(struct config *c, const char *section, const char *name, const char *value,
               struct err *err)
{
    if (text_has_prefix(section, "registry "))
        return set_registry(c, section, name, value, err);
    if (text_has_prefix(section, "handler "))
        return set_handler(c, section, name, value, err);
    bool known_section = false;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(keys[i].section, section) != 0)
            continue;
        known_section = true;
        if (strcmp(keys[i].name, name) == 0)
            return keys[i].read(value, (char *)c + keys[i].offset, err);
    }
    if (!known_section)
        return err_set(err, ERR_INVALID, "unknown section [%s]", section);
    return err_set(err, ERR_INVALID, "unknown key '%s' in [%s]", name, section);
}

/* What inih's callback works on. */
struct parse {
    struct config *config;
    struct err *err;
    bool failed; /* the first error stays */
};

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct parse *p = user;
    if (!p->failed && set(p->config, section, name, value, p->err) < 0)
        p->failed = true;
    return p->failed ? 0 : 1;
}

static int load_file(struct config *c, const char *path, struct err *err)
{
    cleanup_free char *text = NULL;
    if (fd_read_file(AT_FDCWD, path, MAX_FILE, &text, NULL, err) < 0)
        return -1;
    struct parse p = {.config = c, .err = err};
    int line = ini_parse_string(text, on_value, &p);
    if (line == 0)
        return 0;
    if (!p.failed)
        (void)err_set(err, ERR_INVALID, "cannot be understood");
    return err_prefix(err, "%s:%d", path, line);
}

static int is_conf(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 5 && e->d_name[0] != '.' && strcmp(e->d_name + n - 5, ".conf") == 0;
}

static int load_dropins(struct config *c, const char *path, struct err *err)
{
    cleanup_free char *dir = text_printf("%s.d", path);
    if (dir == NULL)
        return err_no_memory(err);
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_conf, alphasort);
    if (n < 0)
        return errno == ENOENT ? 0 : err_set_errno(err, errno, "read '%s'", dir);
    int r = n > MAX_DROPINS ? err_set(err, ERR_INVALID, "'%s' holds too many files", dir) : 0;
    for (int i = 0; i < n; i++) {
        cleanup_free char *file = text_printf("%s/%s", dir, names[i]->d_name);
        if (r == 0)
            r = file == NULL ? err_no_memory(err) : load_file(c, file, err);
        free(names[i]);
    }
    free(names);
    return r;
}

/* Where a part of the build is: beside the running program when that is a build tree, else where it
 * was installed. */
static char *find_part(const char *in_tree, const char *installed)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n > 0) {
        exe[n] = '\0';
        char *slash = strrchr(exe, '/');
        *slash = '\0';
        size_t len = strlen(exe);
        if (len > 4 && strcmp(exe + len - 4, "/bin") == 0) {
            exe[len - 4] = '\0';
            char *path = text_printf("%s/%s", exe, in_tree);
            /* /usr/bin is a bin folder too, but has no guest/ or bin/casemate-convert beside it. */
            if (path != NULL && access(path, R_OK) == 0)
                return path;
            free(path);
        }
    }
    return strdup(installed);
}

static int set_defaults(struct config *c, struct err *err)
{
    *c = (struct config){
        .socket = strdup("/run/casemate/casemate.sock"),
        .state_dir = strdup("/var/lib/casemate"),
        .run_dir = strdup("/run/casemate"),
        .log_level = LOG_INFO,
        .workers = 64,
        .kernel = find_part("guest/vmlinux", CASEMATE_DATADIR "/guest/vmlinux"),
        .initrd = find_part("guest/initrd.img", CASEMATE_DATADIR "/guest/initrd.img"),
        .memory_mib = 256,
        .vcpus = 1,
        .clone = true,
        .accel = VMM_ACCEL_AUTO,
        .transport = VMM_TRANSPORT_AUTO,
        .vhost_net = true,
        .templates_max_mib = 2048,
        .uid_base = 2000000,
        .uid_count = 65536,
        .scratch_mib = 10240,
        .spares = 2,
        .warm_image = find_part("guest/warm.img", CASEMATE_DATADIR "/guest/warm.img"),
        .converter = find_part("bin/casemate-convert", CASEMATE_LIBEXECDIR "/casemate-convert"),
        .converter_uid = 1999999,
        .conf_dir = strdup("/etc/cni/net.d"),
        .bin_dirs = strdup("/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni"),
        .max_networks = 1,
        .plugin_timeout_s = 60,
        .parallel_layers = 3,
        .stall_timeout_s = 30,
        .max_layer_mib = 32768,
        .max_layer_ratio = 400,
        .max_layer_entries = 2000000,
        .converter_memory_mib = 1024,
    };
    if (c->socket == NULL || c->state_dir == NULL || c->run_dir == NULL || c->kernel == NULL ||
        c->initrd == NULL || c->converter == NULL || c->warm_image == NULL || c->conf_dir == NULL ||
        c->bin_dirs == NULL)
        return err_no_memory(err);
    struct config_handler *made;
    if (add_handler(c, "", 0, &made, err) < 0 ||
        add_handler(c, "casemate", strlen("casemate"), &made, err) < 0)
        return -1;
    return 0;
}

static int check(const struct config *c, struct err *err)
{
    if (c->workers == 0 || c->workers > 4096)
        return err_set(err, ERR_INVALID, "[casemated] workers must be 1 to 4096");
    if (c->memory_mib < 64)
        return err_set(err, ERR_INVALID, "[guest] memory_mib must be at least 64");
    if (c->vcpus == 0 || c->vcpus > 64)
        return err_set(err, ERR_INVALID, "[guest] vcpus must be 1 to 64");
    if (c->max_networks == 0 || c->max_networks > NET_MAX_IFACES)
        return err_set(err, ERR_INVALID, "[network] max_networks must be 1 to %d", NET_MAX_IFACES);
    if (c->plugin_timeout_s == 0 || c->plugin_timeout_s > 3600)
        return err_set(err, ERR_INVALID, "[network] plugin_timeout_s must be 1 to 3600");
    if (c->spares > 256)
        return err_set(err, ERR_INVALID, "[pod] spares must be at most 256");
    if (c->scratch_mib < 16)
        return err_set(err, ERR_INVALID, "[pod] scratch_mib must be at least 16");
    if (c->converter_uid == 0)
        return err_set(err, ERR_INVALID, "[image] converter_uid must not be root's");
    if (c->parallel_layers == 0 || c->parallel_layers > 16)
        return err_set(err, ERR_INVALID, "[image] parallel_layers must be 1 to 16");
    if (c->stall_timeout_s == 0 || c->max_layer_mib == 0 || c->max_layer_ratio == 0 ||
        c->max_layer_entries == 0)
        return err_set(err, ERR_INVALID, "[image] limits must not be 0");
    if (c->converter_memory_mib < 128)
        return err_set(err, ERR_INVALID, "[image] converter_memory_mib must be at least 128");
    if (c->uid_count > 0 && c->uid_base == 0)
        return err_set(err, ERR_INVALID, "[vmm] uid_base must not be root's");
    return 0;
}

int config_load(const char *path, bool must_exist, struct config *ret_config, struct err *err)
{
    if (set_defaults(ret_config, err) < 0)
        return -1;
    if ((must_exist || access(path, F_OK) == 0) && load_file(ret_config, path, err) < 0)
        return -1;
    if (load_dropins(ret_config, path, err) < 0)
        return -1;
    return check(ret_config, err) < 0 || complete_handlers(ret_config, err) < 0 ? -1 : 0;
}

void config_fini(struct config *c)
{
    char *all[] = {c->warm_image, c->socket,   c->state_dir, c->run_dir,
                   c->kernel,     c->initrd,   c->qemu,      c->converter,
                   c->auth_file,  c->conf_dir, c->bin_dirs,  c->conf_template};
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        free(all[i]);
    for (size_t i = 0; i < c->n_registries; i++) {
        struct config_registry *r = &c->registries[i];
        for (size_t m = 0; m < r->n_mirrors; m++)
            free(r->mirrors[m]);
        free(r->mirrors);
        free(r->host);
        free(r->ca_file);
        free(r->client_cert);
        free(r->client_key);
    }
    free_handlers(c);
    free(c->registries);
    for (size_t i = 0; i < c->pinned.n; i++)
        free(c->pinned.items[i]);
    free(c->pinned.items);
    *c = (struct config){0};
}
