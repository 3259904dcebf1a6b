/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends every datagram to its port back, on IPv4 and IPv6: udp_echo PORT. Or asks one: udp_echo
 * ADDRESS PORT, up to ten times, and succeeds when the right answer comes from there. Static, for
 * images.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

static int answer(int fd, unsigned short port)
{
    struct sockaddr_in6 at = {
        .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT, .sin6_port = htons(port)};
    struct sockaddr_in6 from;
    char bytes[2048];

    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
        return 1;
    for (;;) {
        socklen_t n_from = sizeof(from);
        ssize_t n = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &n_from);
        if (n < 0 || sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)&from, n_from) != n)
            return 1;
    }
}

static int ask(int fd, const char *address, unsigned short port)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct timeval wait = {.tv_sec = 2};
    char mapped[64] = "::ffff:", bytes[16];

    strncat(mapped, address, 46);
    if (inet_pton(AF_INET6, strchr(address, ':') != NULL ? address : mapped, &to.sin6_addr) != 1 ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0)
        return 1;
    for (int i = 0; i < 10; i++) {
        if (send(fd, "ping", 4, 0) == 4 && recv(fd, bytes, sizeof(bytes), 0) == 4)
            return memcmp(bytes, "ping", 4) != 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    if (fd < 0 || argc < 2 || argc > 3)
        return 1;
    unsigned short port = (unsigned short)strtoul(argv[argc - 1], NULL, 10);
    return argc == 2 ? answer(fd, port) : ask(fd, argv[1], port);
}
