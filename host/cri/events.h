/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streams of GetContainerEvents that are open. Only this file knows how many there may be and
 * how far a client may fall behind. Inside host/cri.
 */
#pragma once

#include "host/cri/method.h"

#define CRI_EVENTS_MAX_STREAMS 32u
/* Bytes that may wait for a client, and one message more; one that is further behind is cut off. */
#define CRI_EVENTS_MAX_BEHIND (1u << 20)

/* Starts the thread that sends; cri must outlive it. */
int cri_events_new(const struct cri *cri, struct cri_events **ret_events, struct err *err);
/* Ends what is open (UNAVAILABLE) and takes no more; does not wait for it. NULL is fine. */
void cri_events_stop(struct cri_events *events);
/* Waits for the thread. Not on it, nor on the loop's thread while a server uses it. NULL is fine.
 */
void cri_events_free(struct cri_events *events);
