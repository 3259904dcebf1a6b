/* SPDX-License-Identifier: Apache-2.0 */
/* Thin and exact: every conversion between clocks, deadlines and text of this project is in this
 * file. */
#include "common/base/clock.h"

#include <limits.h>
#include <stdio.h>
#include <time.h>

static int64_t now_ns(clockid_t id)
{
    struct timespec ts;
    (void)clock_gettime(id, &ts); /* cannot fail for these clocks */
    return (int64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

int64_t clock_realtime_ns(void)
{
    return now_ns(CLOCK_REALTIME);
}

int64_t clock_monotonic_ns(void)
{
    return now_ns(CLOCK_MONOTONIC);
}

int64_t clock_monotonic_ms(void)
{
    return now_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_deadline(int64_t timeout_ms)
{
    if (timeout_ms < 0)
        return CLOCK_NO_DEADLINE;
    int64_t now = clock_monotonic_ms();
    return timeout_ms > INT64_MAX - now ? CLOCK_NO_DEADLINE : now + timeout_ms;
}

int clock_poll_timeout(int64_t deadline_ms)
{
    if (deadline_ms == CLOCK_NO_DEADLINE)
        return -1;
    int64_t left = deadline_ms - clock_monotonic_ms();
    if (left <= 0)
        return 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

int64_t clock_earlier(int64_t a_ms, int64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

void clock_format_rfc3339(int64_t realtime_ns, char ret_text[CLOCK_RFC3339_SIZE])
{
    int64_t sec = realtime_ns / NSEC_PER_SEC;
    int64_t nsec = realtime_ns % NSEC_PER_SEC;
    if (nsec < 0) {
        nsec += NSEC_PER_SEC;
        sec--;
    }
    time_t t = (time_t)sec;
    struct tm tm = {0};
    (void)gmtime_r(&t, &tm);
    char date[24];
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(ret_text, CLOCK_RFC3339_SIZE, "%s.%09dZ", date, (int)nsec);
}
