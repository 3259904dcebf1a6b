/* SPDX-License-Identifier: Apache-2.0 */
/* Sends every datagram to its port back, on IPv4 and IPv6: udp_echo PORT. Static, for images. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    struct sockaddr_in6 from;
    char bytes[2048];
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    if (argc != 2 || fd < 0)
        return 1;
    at.sin6_port = htons((unsigned short)strtoul(argv[1], NULL, 10));
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0)
        return 1;
    for (;;) {
        socklen_t n_from = sizeof(from);
        ssize_t n = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &n_from);
        if (n < 0 || sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)&from, n_from) != n)
            return 1;
    }
}
