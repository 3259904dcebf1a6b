/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One byte at a time. The greeting's first character occurs nowhere else in it (the nonce is
 * hexadecimal in lower case), so a mismatch restarts at that character or at nothing: no table of
 * prefixes is needed.
 */
#include "agent/rpc/link.h"

#include <stdbool.h>
#include <string.h>

#define PREFIX_SIZE (sizeof(LINK_GREETING) - 1)

void link_reset(struct link *link)
{
    *link = (struct link){.state = LINK_SCANNING};
}

static bool is_next(const struct link *link, uint8_t byte)
{
    size_t i = link->matched;
    if (i < PREFIX_SIZE)
        return byte == (uint8_t)LINK_GREETING[i];
    if (i < PREFIX_SIZE + LINK_NONCE_SIZE)
        return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
    return byte == '\n';
}

static void make_answer(struct link *link)
{
    char *at = link->answer;
    memcpy(at, LINK_ANSWER, sizeof(LINK_ANSWER) - 1);
    memcpy(at + sizeof(LINK_ANSWER) - 1, link->current, LINK_NONCE_SIZE);
    at[LINK_ANSWER_SIZE - 1] = '\n';
}

/* A whole greeting has come. Returns whether it is a new one. */
static bool greeted(struct link *link)
{
    link->matched = 0;
    if (link->state == LINK_GREETED && memcmp(link->nonce, link->current, LINK_NONCE_SIZE) == 0)
        return false;
    link->state = LINK_GREETED;
    memcpy(link->current, link->nonce, LINK_NONCE_SIZE);
    make_answer(link);
    return true;
}

enum link_event link_feed(struct link *link, const uint8_t *bytes, size_t n, size_t *ret_taken)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = bytes[i];
        if (link->state == LINK_GREETED && link->matched == 0 && byte == 'P') {
            *ret_taken = i;
            return LINK_SESSION;
        }
        if (!is_next(link, byte)) {
            /* After a greeting nothing but greetings and HTTP/2 may come: someone else is talking.
             */
            link->state = LINK_SCANNING;
            link->matched = byte == (uint8_t)LINK_GREETING[0] ? 1 : 0;
            continue;
        }
        if (link->matched >= PREFIX_SIZE && link->matched < PREFIX_SIZE + LINK_NONCE_SIZE)
            link->nonce[link->matched - PREFIX_SIZE] = (char)byte;
        link->matched++;
        if (link->matched == LINK_GREETING_SIZE && greeted(link)) {
            *ret_taken = i + 1;
            return LINK_ECHO;
        }
    }
    *ret_taken = n;
    return LINK_MORE;
}

size_t link_wants(const struct link *link)
{
    if (link->state == LINK_GREETED && link->matched == 0)
        return 1;
    return LINK_GREETING_SIZE - link->matched;
}
