/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time: nanoseconds of the realtime clock for people and protocols, milliseconds of the monotonic
 * clock for deadlines. A deadline is an absolute monotonic time in ms, so that it survives being
 * passed down through blocking calls; CLOCK_NO_DEADLINE never comes. Thread-safe, allocates
 * nothing.
 */
#pragma once

#include <stdint.h>

#define CLOCK_NO_DEADLINE  INT64_MAX
#define CLOCK_RFC3339_SIZE 40 /* bytes, NUL included */
#define NSEC_PER_SEC       1000000000LL

/* CLOCK_REALTIME since the epoch. */
int64_t clock_realtime_ns(void);

/* CLOCK_MONOTONIC. */
int64_t clock_monotonic_ms(void);
/* CLOCK_MONOTONIC, for measuring. */
int64_t clock_monotonic_ns(void);

/* The deadline `timeout_ms` from now; a negative timeout means CLOCK_NO_DEADLINE. */
int64_t clock_deadline(int64_t timeout_ms);

/* Milliseconds until the deadline for poll(2) and friends: 0 when past, -1 for CLOCK_NO_DEADLINE,
 * at most INT_MAX. */
int clock_poll_timeout(int64_t deadline_ms);

/* The earlier of two deadlines. */
int64_t clock_earlier(int64_t a_ms, int64_t b_ms);

/* RFC3339 with nine fractional digits in UTC ("2026-01-02T03:04:05.000000006Z"), as CRI logs have
 * it. */
void clock_format_rfc3339(int64_t realtime_ns, char ret_text[CLOCK_RFC3339_SIZE]);
