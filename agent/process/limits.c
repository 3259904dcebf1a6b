/* SPDX-License-Identifier: Apache-2.0 */
/* The table of setrlimit(2), and a file. */
#include "agent/process/limits.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/fd.h"

int rlimit_by_name(const char *name)
{
    static const struct {
        const char *name;
        int resource;
    } table[] = {
        {"AS", RLIMIT_AS},
        {"CORE", RLIMIT_CORE},
        {"CPU", RLIMIT_CPU},
        {"DATA", RLIMIT_DATA},
        {"FSIZE", RLIMIT_FSIZE},
        {"LOCKS", RLIMIT_LOCKS},
        {"MEMLOCK", RLIMIT_MEMLOCK},
        {"MSGQUEUE", RLIMIT_MSGQUEUE},
        {"NICE", RLIMIT_NICE},
        {"NOFILE", RLIMIT_NOFILE},
        {"NPROC", RLIMIT_NPROC},
        {"RSS", RLIMIT_RSS},
        {"RTPRIO", RLIMIT_RTPRIO},
        {"RTTIME", RLIMIT_RTTIME},
        {"SIGPENDING", RLIMIT_SIGPENDING},
        {"STACK", RLIMIT_STACK},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(name, table[i].name) == 0)
            return table[i].resource;
    }
    return -1;
}

int limits_set_oom_score(int32_t score, struct err *err)
{
    char text[16];
    if (score == 0)
        return 0;
    (void)snprintf(text, sizeof(text), "%d", score);
    if (fd_write_text(AT_FDCWD, "/proc/self/oom_score_adj", text, err) < 0)
        return err_prefix(err, "OOM score");
    return 0;
}
