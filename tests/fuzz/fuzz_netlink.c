/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of netlink messages with any lengths: every byte handed out must be the message's. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/netlink.h"

#define MAX_TYPE 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned int sum;

static void read_attr(const struct nlattr *attr, int depth)
{
    const struct nlattr *attrs[MAX_TYPE + 1];
    char text[16];
    uint32_t value;
    size_t n;

    if (attr == NULL)
        return;
    const uint8_t *bytes = netlink_bytes(attr, &n);
    for (size_t i = 0; i < n; i++)
        sum += bytes[i];
    if (netlink_text(attr, text, sizeof(text)) && strlen(text) >= sizeof(text))
        abort();
    (void)netlink_u32(attr, &value);
    netlink_nested(attr, MAX_TYPE, attrs);
    for (int i = 0; depth < 4 && i <= MAX_TYPE; i++)
        read_attr(attrs[i], depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct nlattr *attrs[MAX_TYPE + 1];

    if (size < 1 + sizeof(struct nlmsghdr) || size > 65536)
        return 0;
    /* A block of its own, exactly as long: ASan sees one byte too many. */
    struct nlmsghdr *message = malloc(size - 1);
    if (message == NULL)
        return 0;
    memcpy(message, data + 1, size - 1);
    message->nlmsg_len = (uint32_t)(size - 1);
    if (netlink_attrs(message, data[0], MAX_TYPE, attrs) == 0) {
        for (int i = 0; i <= MAX_TYPE; i++)
            read_attr(attrs[i], 0);
    }
    free(message);
    return 0;
}
