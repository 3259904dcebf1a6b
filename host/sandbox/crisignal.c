/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. CRI numbers signals in an order of its own, images write them as text, the
 * agent takes Linux's numbers. The table has CRI's order up to SIGXFSZ; from SIGRTMIN (35) on,
 * CRI's number is Linux's plus one.
 */
#include <signal.h>
#include <string.h>
#include <strings.h>

#include "common/base/text.h"
#include "host/sandbox/crispec.h"

#define CRI_RTMIN 35
#define RTMIN     34u
#define RTMAX     64u

static const struct {
    const char *name;
    unsigned signo;
} signals[] = {
    {"", 0},           {"ABRT", SIGABRT},     {"ALRM", SIGALRM},
    {"BUS", SIGBUS},   {"CHLD", SIGCHLD},     {"CLD", SIGCHLD},
    {"CONT", SIGCONT}, {"FPE", SIGFPE},       {"HUP", SIGHUP},
    {"ILL", SIGILL},   {"INT", SIGINT},       {"IO", SIGIO},
    {"IOT", SIGABRT},  {"KILL", SIGKILL},     {"PIPE", SIGPIPE},
    {"POLL", SIGIO},   {"PROF", SIGPROF},     {"PWR", SIGPWR},
    {"QUIT", SIGQUIT}, {"SEGV", SIGSEGV},     {"STKFLT", SIGSTKFLT},
    {"STOP", SIGSTOP}, {"SYS", SIGSYS},       {"TERM", SIGTERM},
    {"TRAP", SIGTRAP}, {"TSTP", SIGTSTP},     {"TTIN", SIGTTIN},
    {"TTOU", SIGTTOU}, {"URG", SIGURG},       {"USR1", SIGUSR1},
    {"USR2", SIGUSR2}, {"VTALRM", SIGVTALRM}, {"WINCH", SIGWINCH},
    {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ},
};

/* "RTMIN", "RTMIN+3", "RTMAX-1"; 0 for anything else. */
static unsigned parse_realtime(const char *name)
{
    bool from_min = strncasecmp(name, "RTMIN", 5) == 0;
    uint64_t offset = 0;
    char sign = from_min ? '+' : '-';

    if (!from_min && strncasecmp(name, "RTMAX", 5) != 0)
        return 0;
    name += 5;
    if (*name != '\0' && (*name != sign || text_parse_u64(name + 1, RTMAX - RTMIN, &offset) != 0))
        return 0;
    return from_min ? RTMIN + (unsigned)offset : RTMAX - (unsigned)offset;
}

/* An image's STOPSIGNAL ("SIGTERM", "term", "15", "SIGRTMIN+3"); 0 when it is none. */
static unsigned parse_signal(const char *text)
{
    uint64_t number;

    if (text_parse_u64(text, RTMAX, &number) == 0)
        return (unsigned)number;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (size_t i = 1; i < ARRAY_SIZE(signals); i++) {
        if (strcasecmp(text, signals[i].name) == 0)
            return signals[i].signo;
    }
    return parse_realtime(text);
}

unsigned crispec_stop_signal(const Runtime__V1__ContainerConfig *config, const char *image_signal)
{
    int cri = (int)config->stop_signal;
    unsigned signo = 0;

    if (cri >= CRI_RTMIN)
        signo = (unsigned)cri - 1;
    else if (cri > 0)
        signo = signals[cri].signo;
    if (signo == 0)
        signo = parse_signal(text_or_empty(image_signal));
    return signo == 0 ? SIGTERM : signo;
}

Runtime__V1__Signal crispec_cri_signal(unsigned signo)
{
    if (signo >= RTMIN && signo <= RTMAX)
        return (Runtime__V1__Signal)(signo + 1);
    for (size_t i = 1; i < ARRAY_SIZE(signals); i++) {
        if (signals[i].signo == signo)
            return (Runtime__V1__Signal)i;
    }
    return RUNTIME__V1__SIGNAL__RUNTIME_DEFAULT;
}
