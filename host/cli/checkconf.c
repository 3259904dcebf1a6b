/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few keys of the daemon's configuration that say where things are. The daemon's own parser is
 * in its room and strict; this one passes over what it does not know, so that a newer configuration
 * does not stop `casemate check`.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/cli/check.h"
#include "host/cli/cli.h"

enum { MAX_FILE = 1 << 20, MAX_DROPINS = 256 };

struct key {
    const char *section;
    const char *name;
    size_t offset;
};

static const struct key keys[] = {
    {"casemated", "socket", offsetof(struct cli_conf, socket)},
    {"casemated", "state_dir", offsetof(struct cli_conf, state_dir)},
    {"casemated", "run_dir", offsetof(struct cli_conf, run_dir)},
    {"guest", "kernel", offsetof(struct cli_conf, kernel)},
    {"guest", "initrd", offsetof(struct cli_conf, initrd)},
    {"vmm", "qemu", offsetof(struct cli_conf, qemu)},
    {"vmm", "accel", offsetof(struct cli_conf, accel)},
    {"vmm", "transport", offsetof(struct cli_conf, transport)},
    {"image", "converter", offsetof(struct cli_conf, converter)},
    {"network", "conf_dir", offsetof(struct cli_conf, conf_dir)},
    {"network", "bin_dirs", offsetof(struct cli_conf, bin_dirs)},
    {"network", "loopback_only", offsetof(struct cli_conf, loopback_only)},
};

static char **field_of(struct cli_conf *conf, const struct key *key)
{
    return (char **)(void *)((char *)conf + key->offset);
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct cli_conf *conf = user;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0)
            continue;
        char *copy = strdup(value);
        if (copy == NULL)
            return 0;
        char **field = field_of(conf, &keys[i]);
        free(*field);
        *field = copy;
    }
    return 1;
}

static int load_file(struct cli_conf *conf, const char *path, struct err *err)
{
    cleanup_free char *text = NULL;
    if (fd_read_file(AT_FDCWD, path, MAX_FILE, &text, NULL, err) < 0)
        return -1;
    int line = ini_parse_string(text, on_value, conf);
    if (line != 0)
        return err_set(err, ERR_INVALID, "%s:%d cannot be understood", path, line);
    return 0;
}

static int is_conf(const struct dirent *e)
{
    size_t n = strlen(e->d_name);
    return n > 5 && e->d_name[0] != '.' && strcmp(e->d_name + n - 5, ".conf") == 0;
}

static int load_dropins(struct cli_conf *conf, const char *path, struct err *err)
{
    cleanup_free char *dir = text_printf("%s.d", path);
    if (dir == NULL)
        return err_no_memory(err);
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_conf, alphasort);
    if (n < 0)
        return errno == ENOENT ? 0 : err_set_errno(err, errno, "read '%s'", dir);
    int r = 0;
    for (int i = 0; i < n; i++) {
        cleanup_free char *file = text_printf("%s/%s", dir, names[i]->d_name);
        if (r == 0 && i < MAX_DROPINS)
            r = file == NULL ? err_no_memory(err) : load_file(conf, file, err);
        free(names[i]);
    }
    free(names);
    return r;
}

/* As the daemon finds its parts: beside the running program if that is in a build tree, else where
 * they are installed. */
static char *find_part(const char *in_tree, const char *installed)
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = '\0';
    static const char bin[] = "/bin/casemate";
    size_t len = strlen(exe), bin_len = sizeof(bin) - 1;
    if (len > bin_len && strcmp(exe + len - bin_len, bin) == 0) {
        exe[len - bin_len] = '\0';
        char *path = text_printf("%s/%s", exe, in_tree);
        if (path != NULL && access(path, R_OK) == 0)
            return path;
        free(path);
    }
    return strdup(installed);
}

int cli_conf_load(const char *path, bool must_exist, struct cli_conf *ret_conf, struct err *err)
{
    *ret_conf = (struct cli_conf){
        .file = strdup(path),
        .socket = strdup(CLI_DEFAULT_SOCKET),
        .state_dir = strdup("/var/lib/casemate"),
        .run_dir = strdup("/run/casemate"),
        .kernel = find_part("guest/vmlinux", CASEMATE_DATADIR "/guest/vmlinux"),
        .initrd = find_part("guest/initrd.img", CASEMATE_DATADIR "/guest/initrd.img"),
        .accel = strdup("auto"),
        .transport = strdup("auto"),
        .converter = find_part("bin/casemate-convert", CASEMATE_LIBEXECDIR "/casemate-convert"),
        .conf_dir = strdup("/etc/cni/net.d"),
        .bin_dirs = strdup("/opt/cni/bin:/usr/libexec/cni:/usr/lib/cni"),
        .loopback_only = strdup("no"),
    };
    const struct cli_conf *c = ret_conf;
    if (c->file == NULL || c->socket == NULL || c->state_dir == NULL || c->run_dir == NULL ||
        c->kernel == NULL || c->initrd == NULL || c->accel == NULL || c->transport == NULL ||
        c->converter == NULL || c->conf_dir == NULL || c->bin_dirs == NULL ||
        c->loopback_only == NULL)
        return err_no_memory(err);
    if (must_exist || access(path, F_OK) == 0) {
        if (load_file(ret_conf, path, err) < 0)
            return -1;
        ret_conf->file_read = true;
    }
    return load_dropins(ret_conf, path, err);
}

void cli_conf_fini(struct cli_conf *conf)
{
    free(conf->file);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        free(*field_of(conf, &keys[i]));
    *conf = (struct cli_conf){0};
}
