/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that holds a pod's namespaces: it reaps what is orphaned to it and otherwise waits.
 * SIGTERM and SIGINT end it. Signals are taken with sigwaitinfo, so no handler runs and none can be
 * lost between a check and a wait.
 */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
    sigset_t set;

    if (argc > 1 && (strcmp(argv[1], "-v") == 0 || strcmp(argv[1], "--version") == 0)) {
        puts("pause (test image)");
        return 0;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return 1;
    for (;;) {
        int sig = sigwaitinfo(&set, NULL);

        if (sig == SIGTERM || sig == SIGINT)
            return 0;
        while (sig == SIGCHLD && waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
