/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Netlink to the kernel: requests built in a fixed buffer, answers checked and bounded. Only this
 * file knows the framing of messages and attributes; what they mean is the caller's. A socket
 * belongs to the network namespace in which it was made, and to one thread at a time. Nothing is
 * allocated. The kernel answers at once, so there are no deadlines. netlink(7), rtnetlink(7).
 */
#pragma once

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define NETLINK_MESSAGE_MAX 4096 /* bytes of a request */

/* A socket of the calling thread's namespace for NETLINK_ROUTE. The caller's; close-on-exec. */
int netlink_open(int *ret_fd, struct err *err);
/* Sets up a socket (AF_NETLINK, SOCK_RAW) that was made in another namespace. */
int netlink_setup(int fd, struct err *err);

/* ---- requests ------------------------------------------------------------------------------- */

/* A request; what does not fit any more is noticed when it is sent. */
struct netlink_message {
    size_t len;
    bool overflow;
    union {
        struct nlmsghdr header;
        uint8_t bytes[NETLINK_MESSAGE_MAX];
    } u;
};

/*
 * Begins a request: flags are NLM_F_* beyond NLM_F_REQUEST; the n bytes are the family's header
 * (struct ifinfomsg, ...).
 */
void netlink_begin(struct netlink_message *m, uint16_t type, uint16_t flags, const void *header,
                   size_t n);
/* Adds an attribute. */
void netlink_put(struct netlink_message *m, uint16_t type, const void *bytes, size_t n);
/* In the byte order of the host, as all integers of rtnetlink but a few (put those as bytes). */
void netlink_put_u8(struct netlink_message *m, uint16_t type, uint8_t value);
/* Likewise. */
void netlink_put_u16(struct netlink_message *m, uint16_t type, uint16_t value);
/* Likewise. */
void netlink_put_u32(struct netlink_message *m, uint16_t type, uint32_t value);
/* With its NUL. */
void netlink_put_text(struct netlink_message *m, uint16_t type, const char *text);
/* Attributes put between these two are inside of one of that type. */
size_t netlink_nest(struct netlink_message *m, uint16_t type);
/* nest: what netlink_nest has returned, innermost first. */
void netlink_nest_end(struct netlink_message *m, size_t nest);

/*
 * Sends the request and waits until the kernel has done it. A refusal is the errno with the
 * kernel's own words where it gives any.
 */
int netlink_do(int fd, struct netlink_message *m, struct err *err);

/* A message that the kernel sent; header and bytes are valid during the call. Non-zero ends it. */
typedef int (*netlink_message_fn)(void *arg, const struct nlmsghdr *message, struct err *err);
/*
 * Sends a request for one object, or with NLM_F_DUMP for all, and calls fn for each message of the
 * answer. When fn fails the rest is read and ignored, and this fails with its error. BAD_STATE
 * when what is listed changed meanwhile: may be repeated.
 */
int netlink_ask(int fd, struct netlink_message *m, netlink_message_fn fn, void *arg,
                struct err *err);

/* ---- answers -------------------------------------------------------------------------------- */

/*
 * The attributes behind the family's header of `header_size` bytes, by type up to max (ret_attrs
 * has max + 1 places; NULL: not there). A later one of the same type counts. Returns 0, or -1 when
 * the message is not even as long as the header; malformed attributes end the list.
 */
int netlink_attrs(const struct nlmsghdr *message, size_t header_size, unsigned int max,
                  const struct nlattr *ret_attrs[]);
/* The same inside an attribute. NULL: none. */
void netlink_nested(const struct nlattr *attr, unsigned int max, const struct nlattr *ret_attrs[]);
/* The next attribute among *n bytes, which are moved on; NULL at the end. */
const struct nlattr *netlink_next(const void **bytes, size_t *n);

/* Its type without flags, and its content. */
uint16_t netlink_type(const struct nlattr *attr);
/* Points into attr, which is not NULL; *ret_n may be 0. */
const void *netlink_bytes(const struct nlattr *attr, size_t *ret_n);
/* Copies exactly n bytes out. False (and untouched) when attr is NULL or of another length. */
bool netlink_copy(const struct nlattr *attr, void *ret_bytes, size_t n);
/* netlink_copy of four bytes, in the byte order of the host. */
bool netlink_u32(const struct nlattr *attr, uint32_t *ret_value);
/* A text of less than size bytes, NUL-terminated. */
bool netlink_text(const struct nlattr *attr, char *ret_text, size_t size);
