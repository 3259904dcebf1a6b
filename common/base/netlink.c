/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. One request is on its way at a time. Each has a number of its own, and an
 * answer to another number is left over from a request that failed half-way and is skipped. Only
 * datagrams of the kernel (port 0) count: whoever shares the namespace may send to our port, too.
 *
 * Lengths in what is received are checked against what was received, never trusted. An attribute
 * is padded to four bytes; the last one need not be.
 */
#include "common/base/netlink.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/cleanup.h"

/* The kernel's dumps are cut to what the reader offers, at most this. */
#define DUMP_SIZE 32768
/* One object, or an acknowledgement. */
#define ANSWER_SIZE 8192
#define ATTR_HEADER sizeof(struct nlattr)

/* ---- socket --------------------------------------------------------------------------------- */

int netlink_setup(int fd, struct err *err)
{
    const int on = 1;

    /* Old kernels do without: then a refusal is only an errno. */
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
    if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
        return err_set_errno(err, errno, "bind netlink socket");
    return 0;
}

int netlink_open(int *ret_fd, struct err *err)
{
    cleanup_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0)
        return err_set_errno(err, errno, "netlink socket");
    if (netlink_setup(fd, err) < 0)
        return -1;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* ---- requests ------------------------------------------------------------------------------- */

/* Room for n bytes, zeroed, padded to four; NULL when there is none. */
static void *reserve(struct netlink_message *m, size_t n)
{
    if (m->overflow || n > NETLINK_MESSAGE_MAX - m->len ||
        NLMSG_ALIGN(n) > NETLINK_MESSAGE_MAX - m->len) {
        m->overflow = true;
        return NULL;
    }
    void *room = m->u.bytes + m->len;
    memset(room, 0, NLMSG_ALIGN(n));
    m->len += NLMSG_ALIGN(n);
    return room;
}

void netlink_begin(struct netlink_message *m, uint16_t type, uint16_t flags, const void *header,
                   size_t n)
{
    m->len = 0;
    m->overflow = false;
    (void)reserve(m, sizeof(struct nlmsghdr));
    m->u.header.nlmsg_type = type;
    m->u.header.nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST);
    void *room = reserve(m, n);
    if (room != NULL)
        memcpy(room, header, n);
}

void netlink_put(struct netlink_message *m, uint16_t type, const void *bytes, size_t n)
{
    const size_t size = ATTR_HEADER + n;
    uint8_t *room = size > UINT16_MAX ? NULL : reserve(m, size);
    const struct nlattr head = {.nla_len = (uint16_t)size, .nla_type = type};

    if (room == NULL) {
        m->overflow = true;
        return;
    }
    memcpy(room, &head, sizeof(head));
    if (n > 0)
        memcpy(room + ATTR_HEADER, bytes, n);
}

void netlink_put_u8(struct netlink_message *m, uint16_t type, uint8_t value)
{
    netlink_put(m, type, &value, sizeof(value));
}

void netlink_put_u16(struct netlink_message *m, uint16_t type, uint16_t value)
{
    netlink_put(m, type, &value, sizeof(value));
}

void netlink_put_u32(struct netlink_message *m, uint16_t type, uint32_t value)
{
    netlink_put(m, type, &value, sizeof(value));
}

void netlink_put_text(struct netlink_message *m, uint16_t type, const char *text)
{
    netlink_put(m, type, text, strlen(text) + 1);
}

size_t netlink_nest(struct netlink_message *m, uint16_t type)
{
    const size_t at = m->len;

    netlink_put(m, (uint16_t)(type | NLA_F_NESTED), NULL, 0);
    return at;
}

void netlink_nest_end(struct netlink_message *m, size_t nest)
{
    const uint16_t len = (uint16_t)(m->len - nest);

    if (!m->overflow)
        memcpy(m->u.bytes + nest + offsetof(struct nlattr, nla_len), &len, sizeof(len));
}

/* ---- the exchange --------------------------------------------------------------------------- */

/* What has come of the answer. */
struct exchange {
    uint32_t number;
    bool dump;
    netlink_message_fn fn;
    void *arg;
    struct err *err;
    int result; /* -1: err is set, and what still comes is only read */
    bool changed;
    bool done;
};

static void fail(struct exchange *x, int error, const char *words)
{
    if (x->result == 0)
        x->result = words[0] != '\0' ? err_set_errno(x->err, error, "%s", words)
                                     : err_set_errno(x->err, error, "the kernel refused");
}

/* NLMSG_ERROR: the acknowledgement, or a refusal. NLMSG_DONE of a dump carries its result alike. */
static void take_end(struct exchange *x, const struct nlmsghdr *message)
{
    const struct nlattr *attrs[NLMSGERR_ATTR_MSG + 1];
    char words[256] = "";
    int error = 0;

    x->done = true;
    if (message->nlmsg_len < NLMSG_HDRLEN + sizeof(error)) {
        if (message->nlmsg_type == NLMSG_ERROR)
            fail(x, EPROTO, "a truncated answer");
        return;
    }
    memcpy(&error, (const uint8_t *)message + NLMSG_HDRLEN, sizeof(error));
    if (error == 0)
        return;
    if (message->nlmsg_type == NLMSG_ERROR && (message->nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
        struct nlmsgerr head;
        size_t header = sizeof(head);
        if (message->nlmsg_len >= NLMSG_HDRLEN + sizeof(head)) {
            memcpy(&head, (const uint8_t *)message + NLMSG_HDRLEN, sizeof(head));
            if ((message->nlmsg_flags & NLM_F_CAPPED) == 0 && head.msg.nlmsg_len > NLMSG_HDRLEN)
                header += head.msg.nlmsg_len - NLMSG_HDRLEN;
        }
        if (netlink_attrs(message, header, NLMSGERR_ATTR_MSG, attrs) == 0)
            (void)netlink_text(attrs[NLMSGERR_ATTR_MSG], words, sizeof(words));
    }
    fail(x, error < 0 ? -error : error, words);
}

static void take(struct exchange *x, const struct nlmsghdr *message)
{
    if (message->nlmsg_seq != x->number || x->done)
        return;
    if ((message->nlmsg_flags & NLM_F_DUMP_INTR) != 0)
        x->changed = true;
    if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE) {
        take_end(x, message);
    } else if (message->nlmsg_type >= NLMSG_MIN_TYPE) {
        if (x->fn != NULL && x->result == 0 && x->fn(x->arg, message, x->err) != 0)
            x->result = -1;
    }
}

/* Takes one datagram; the room is size bytes, aligned for a header. */
static int receive(int fd, struct exchange *x, uint8_t *room, size_t size, struct err *err)
{
    struct sockaddr_nl sender = {0};
    struct iovec iov = {.iov_base = room, .iov_len = size};
    struct msghdr msg = {
        .msg_name = &sender, .msg_namelen = sizeof(sender), .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n = recvmsg(fd, &msg, 0);

    if (n < 0)
        return errno == EINTR ? 0 : err_set_errno(err, errno, "read from netlink");
    if (msg.msg_namelen != sizeof(sender) || sender.nl_pid != 0)
        return 0;
    if ((msg.msg_flags & MSG_TRUNC) != 0)
        return err_set(err, ERR_PROTOCOL, "netlink: a message of more than %zu bytes", size);
    size_t left = (size_t)n;
    for (const uint8_t *at = room; left >= NLMSG_HDRLEN;) {
        struct nlmsghdr head;
        memcpy(&head, at, sizeof(head));
        if (head.nlmsg_len < NLMSG_HDRLEN || head.nlmsg_len > left)
            return err_set(err, ERR_PROTOCOL, "netlink: a message with a wrong length");
        take(x, (const struct nlmsghdr *)(const void *)at);
        size_t step = NLMSG_ALIGN((size_t)head.nlmsg_len);
        if (step >= left)
            break;
        at += step;
        left -= step;
    }
    return 0;
}

/* Not inlined: the larger room is on the stack only when it is needed. Each page of it is touched
 * (-fstack-clash-protection), which is dear in an emulated guest. */
static int __attribute__((noinline)) receive_dump(int fd, struct exchange *x, struct err *err)
{
    union {
        struct nlmsghdr header;
        uint8_t bytes[DUMP_SIZE];
    } u;

    return receive(fd, x, u.bytes, sizeof(u.bytes), err);
}

static int __attribute__((noinline)) receive_answer(int fd, struct exchange *x, struct err *err)
{
    union {
        struct nlmsghdr header;
        uint8_t bytes[ANSWER_SIZE];
    } u;

    return receive(fd, x, u.bytes, sizeof(u.bytes), err);
}

int netlink_ask(int fd, struct netlink_message *m, netlink_message_fn fn, void *arg,
                struct err *err)
{
    static atomic_uint numbers;
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct exchange x = {.number = atomic_fetch_add(&numbers, 1) + 1, .fn = fn, .arg = arg};
    struct err why = {0};

    if (m->overflow)
        return err_set(err, ERR_EXHAUSTED, "netlink: a request of more than %d bytes",
                       NETLINK_MESSAGE_MAX);
    x.err = &why;
    m->u.header.nlmsg_len = (uint32_t)m->len;
    m->u.header.nlmsg_seq = x.number;
    x.dump = (m->u.header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    if (!x.dump)
        m->u.header.nlmsg_flags |= NLM_F_ACK;
    ssize_t n;
    do {
        n = sendto(fd, m->u.bytes, m->len, 0, (const struct sockaddr *)&kernel, sizeof(kernel));
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_set_errno(err, errno, "write to netlink");
    while (!x.done) {
        if ((x.dump ? receive_dump : receive_answer)(fd, &x, err) < 0)
            return -1;
    }
    if (x.result == 0 && x.changed)
        return err_set(err, ERR_BAD_STATE, "netlink: the list changed while it was read");
    if (x.result < 0 && err != NULL)
        *err = why;
    return x.result;
}

int netlink_do(int fd, struct netlink_message *m, struct err *err)
{
    return netlink_ask(fd, m, NULL, NULL, err);
}

/* ---- answers -------------------------------------------------------------------------------- */

const struct nlattr *netlink_next(const void **bytes, size_t *n)
{
    const uint8_t *at = *bytes;
    struct nlattr head;

    if (*n < ATTR_HEADER)
        return NULL;
    memcpy(&head, at, sizeof(head));
    if (head.nla_len < ATTR_HEADER || head.nla_len > *n)
        return NULL;
    size_t step = NLMSG_ALIGN((size_t)head.nla_len);
    if (step > *n)
        step = *n;
    *bytes = at + step;
    *n -= step;
    return (const struct nlattr *)(const void *)at;
}

uint16_t netlink_type(const struct nlattr *attr)
{
    return attr->nla_type & (uint16_t)NLA_TYPE_MASK;
}

static void sort_attrs(const void *bytes, size_t n, unsigned int max,
                       const struct nlattr *ret_attrs[])
{
    const struct nlattr *attr;

    for (unsigned int i = 0; i <= max; i++)
        ret_attrs[i] = NULL;
    while ((attr = netlink_next(&bytes, &n)) != NULL) {
        if (netlink_type(attr) <= max)
            ret_attrs[netlink_type(attr)] = attr;
    }
}

int netlink_attrs(const struct nlmsghdr *message, size_t header_size, unsigned int max,
                  const struct nlattr *ret_attrs[])
{
    size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(header_size);
    size_t len = message->nlmsg_len;

    if (len < NLMSG_HDRLEN + header_size || header_size > NETLINK_MESSAGE_MAX)
        return -1;
    if (skip > len)
        skip = len;
    sort_attrs((const uint8_t *)message + skip, len - skip, max, ret_attrs);
    return 0;
}

void netlink_nested(const struct nlattr *attr, unsigned int max, const struct nlattr *ret_attrs[])
{
    size_t n = 0;
    const void *bytes = attr != NULL ? netlink_bytes(attr, &n) : NULL;

    sort_attrs(bytes, n, max, ret_attrs);
}

const void *netlink_bytes(const struct nlattr *attr, size_t *ret_n)
{
    *ret_n = (size_t)attr->nla_len - ATTR_HEADER;
    return (const uint8_t *)attr + ATTR_HEADER;
}

bool netlink_copy(const struct nlattr *attr, void *ret_bytes, size_t n)
{
    size_t len = 0;
    const void *bytes = attr != NULL ? netlink_bytes(attr, &len) : NULL;

    if (bytes == NULL || len != n)
        return false;
    memcpy(ret_bytes, bytes, n);
    return true;
}

bool netlink_u32(const struct nlattr *attr, uint32_t *ret_value)
{
    return netlink_copy(attr, ret_value, sizeof(*ret_value));
}

bool netlink_text(const struct nlattr *attr, char *ret_text, size_t size)
{
    size_t n = 0;
    const char *text = attr != NULL ? netlink_bytes(attr, &n) : NULL;

    if (text == NULL || n == 0)
        return false;
    size_t len = strnlen(text, n);
    if (len >= size)
        return false;
    memcpy(ret_text, text, len);
    ret_text[len] = '\0';
    return true;
}
