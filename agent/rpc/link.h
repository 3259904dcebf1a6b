/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of a session on a byte stream that has no connections of its own (a virtio-serial
 * port): finds the host's greeting among what an earlier host left in the queues, says when to
 * answer it, and where HTTP/2 begins. A pure state machine over bytes. Source of the format:
 * proto/agent/PROTOCOL.md, "Stream set-up".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LINK_NONCE_SIZE    32u /* lowercase hexadecimal digits */
#define LINK_GREETING      "CASEMATE-LINK/1 "
#define LINK_ANSWER        "CASEMATE-AGENT/1 "
#define LINK_GREETING_SIZE (sizeof(LINK_GREETING) - 1 + LINK_NONCE_SIZE + 1)
#define LINK_ANSWER_SIZE   (sizeof(LINK_ANSWER) - 1 + LINK_NONCE_SIZE + 1)

enum link_state {
    LINK_SCANNING, /* anything may come; a whole greeting leads to GREETED */
    LINK_GREETED,  /* answered: the same greeting again is skipped, another nonce is answered anew,
                      'P' begins HTTP/2 */
};

enum link_event {
    LINK_MORE,    /* all bytes were taken, nothing to do */
    LINK_ECHO,    /* send link->answer */
    LINK_SESSION, /* the byte that was not taken is the first of HTTP/2 */
};

struct link {
    enum link_state state;
    size_t matched;                /* bytes of a greeting that came so far */
    char nonce[LINK_NONCE_SIZE];   /* of the greeting that is coming */
    char current[LINK_NONCE_SIZE]; /* the one that was answered; valid in GREETED */
    char answer[LINK_ANSWER_SIZE];
};

/* Starts scanning. */
void link_reset(struct link *link);

/* Takes bytes until something is to be done. *ret_taken is how many: call again with the rest after
 * LINK_ECHO. */
enum link_event link_feed(struct link *link, const uint8_t *bytes, size_t n, size_t *ret_taken);

/* How many bytes may be read from the stream without reading past what link_feed is sure to take.
 * At least 1. */
size_t link_wants(const struct link *link);
