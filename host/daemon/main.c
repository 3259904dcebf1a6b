/* SPDX-License-Identifier: Apache-2.0 */
/* casemated: command line, configuration, and the notification that systemd waits for. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/log.h"
#include "host/daemon/config.h"
#include "host/daemon/daemon.h"

static const char usage_text[] =
    "usage: casemated [OPTION]...\n"
    "Serves the Kubernetes CRI and gives every pod a virtual machine of its own.\n"
    "\n"
    "  --config FILE      configuration (default " CASEMATE_SYSCONFDIR "/casemate.conf, with\n"
    "                     FILE.d/*.conf read after it)\n"
    "  --log-level LEVEL  debug, info, warn or error; replaces the configuration's\n"
    "  --check-config     read the configuration, report, and exit\n"
    "  --version          print the version and exit\n"
    "  --help             print this and exit\n"
    "\n"
    "Exit status: 0 after SIGTERM or SIGINT (pods go on running), 1 when it cannot start,\n"
    "2 for a wrong command line or configuration.\n";

enum { EXIT_USAGE = 2 };

/* sd_notify(3)'s protocol: one datagram to the socket that the environment names. */
static void notify_ready(void *arg)
{
    (void)arg;
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(addr.sun_path))
        return;
    memcpy(addr.sun_path, path, strlen(path));
    if (path[0] == '@')
        addr.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    static const char ready[] = "READY=1";
    if (sendto(fd, ready, sizeof(ready) - 1, MSG_NOSIGNAL, (struct sockaddr *)&addr, len) < 0)
        log_warn("could not tell the service manager: %s, ignoring", strerror(errno));
    (void)close(fd);
}

struct options {
    const char *config;
    const char *log_level;
    bool check_only;
};

/* Returns -1 to go on, else the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'}, {"log-level", required_argument, NULL, 'l'},
        {"check-config", no_argument, NULL, 'k'}, {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},         {0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->config = optarg;
            break;
        case 'l':
            o->log_level = optarg;
            break;
        case 'k':
            o->check_only = true;
            break;
        case 'v':
            puts("casemated " CASEMATE_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(usage_text, stdout);
            return EXIT_SUCCESS;
        default:
            fputs(usage_text, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "casemated: unexpected argument '%s'\n", argv[optind]);
        return EXIT_USAGE;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    int status = parse_options(argc, argv, &o);
    if (status >= 0)
        return status;

    struct err err = {0};
    cleanup_config struct config config = {0};
    if (config_load(o.config == NULL ? CASEMATE_SYSCONFDIR "/casemate.conf" : o.config,
                    o.config != NULL, &config, &err) < 0) {
        fprintf(stderr, "casemated: %s\n", err.msg);
        return EXIT_USAGE;
    }
    if (o.log_level != NULL && log_level_parse(o.log_level, &config.log_level) < 0) {
        fprintf(stderr, "casemated: '%s' is none of debug, info, warn, error\n", o.log_level);
        return EXIT_USAGE;
    }
    if (o.check_only) {
        puts("configuration: ok");
        return EXIT_SUCCESS;
    }
    log_set_level(config.log_level);
    if (daemon_run(&config, notify_ready, NULL, &err) < 0) {
        log_event(LOG_ERROR, NULL, &err, "casemated cannot start");
        return EXIT_FAILURE;
    }
    log_info("casemated ended");
    return EXIT_SUCCESS;
}
