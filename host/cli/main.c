/* SPDX-License-Identifier: Apache-2.0 */
/* casemate: which subcommand it is. What each does is in the file of its name. */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/cli/cli.h"

struct command {
    const char *name;
    const char *summary;
    int (*main)(int argc, char **argv);
};

static const struct command commands[] = {
    {"check", "what this host can and cannot do, with remedies", cli_check_main},
    {"run", "run one container in a virtual machine, then clean up", cli_run_main},
    {"ps", "list pods and containers", cli_ps_main},
    {"logs", "print what a container has written", cli_logs_main},
    {"timeline", "what a pod's start consisted of, as a picture", cli_timeline_main},
    {"metrics", "how long starts take, as text for Prometheus", cli_metrics_main},
    {"rmp", "stop and remove pods", cli_rmp_main},
    {"images", "list images", cli_images_main},
    {"pull", "fetch an image from its registry", cli_pull_main},
    {"image", "import or export an image, or remove images", cli_image_main},
    {"version", "versions of this command, the daemon and its QEMU", cli_version_main},
};

static void print_usage(FILE *out)
{
    fputs("usage: casemate COMMAND [OPTION]...\n"
          "Containers, each pod in a virtual machine of its own; asks the daemon, casemated.\n"
          "\n",
          out);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    fputs("\n"
          "'casemate COMMAND --help' says more. CASEMATE_SOCKET names the daemon's socket; its\n"
          "default is " CLI_DEFAULT_SOCKET ".\n",
          out);
}

int main(int argc, char **argv)
{
    /* Names are UTF-8 whatever the user's locale is; wcwidth(3) has to know. */
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return cli_finish_output();
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("casemate " CASEMATE_VERSION);
        return cli_finish_output();
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].main(argc - 1, argv + 1);
    }
    cli_complain("no command '%s' (try 'casemate --help')", argv[1]);
    return CLI_USAGE;
}
