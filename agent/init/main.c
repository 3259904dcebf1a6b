/* SPDX-License-Identifier: Apache-2.0 */
/* casemate-agent: PID 1 of a pod's VM. Outside of one it only tells its version. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/loop/loop.h"
#include "agent/init/agent.h"
#include "agent/init/boot.h"
#include "agent/init/demand.h"
#include "agent/init/hotplug.h"
#include "agent/init/power.h"
#include "agent/process/lodging.h"

static void on_shutdown(void *arg)
{
    (void)arg;
    power_off();
}

static int run(struct err *err)
{
    struct agent_config config = {.on_shutdown = on_shutdown};
    struct agent *agent;
    if (boot_prepare(&config.cgroup_base_fd, &config.card, err) < 0 ||
        agent_new(&config, &agent, err) < 0 || agent_serve_host(agent, err) < 0)
        return -1;
    struct hotplug *hotplug;
    struct err ignored;
    if (hotplug_start(agent_loop(agent), &hotplug, &ignored) < 0)
        log_event(LOG_WARN, NULL, &ignored, "the VM cannot grow, going on");
    if (lodging_prepare(&ignored) < 0)
        log_event(LOG_WARN, NULL, &ignored, "every child is a copy of the agent");
    log_info("casemate-agent " CASEMATE_VERSION " is ready");
    return loop_run(agent_loop(agent), err);
}

int main(int argc, char **argv)
{
    if (getpid() != 1 && demand_is_asked(argc, argv))
        return demand_main(argv[3]);
    if (getpid() != 1 || (argc > 1 && strcmp(argv[1], "--version") == 0)) {
        if (argc == 2 && strcmp(argv[1], "--version") == 0) {
            (void)printf("casemate-agent %s\n", CASEMATE_VERSION);
            return 0;
        }
        (void)fprintf(stderr, "casemate-agent runs as PID 1 of a virtual machine; see --version\n");
        return 2;
    }
    struct err err;
    (void)run(&err);
    /* An agent that cannot serve is of no use to anybody: the host sees the VM end and finds this
     * line on its console. */
    log_event(LOG_ERROR, NULL, &err, "the agent cannot go on");
    power_off();
}
