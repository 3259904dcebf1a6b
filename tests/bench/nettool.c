/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP traffic for measurements, one static program for host, VM and any container:
 *
 *   nettool serve ADDRESS PORT                          until killed; a process per connection
 *   nettool stream|reverse|rr ADDRESS PORT SECONDS [BYTES]
 *
 * stream: client to server as fast as it goes, BYTES a write (default 128 KiB); reverse: the other
 * way; rr: a request of BYTES (default 1), an answer of as many, the next one. Prints one line of
 * JSON. What counts in a stream is what has *arrived* when the time is up. Addresses are numeric,
 * IPv4 or IPv6.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_BYTES   (1u << 20)
#define MAX_SAMPLES (1u << 22)

/* What a client says first. */
struct order {
    uint8_t mode; /* 's', 'r', 'q' */
    uint8_t pad[3];
    uint32_t bytes;   /* network byte order */
    uint32_t seconds; /* network byte order; reverse only */
};

static uint8_t buffer[MAX_BYTES];

static __attribute__((noreturn)) void die(const char *what)
{
    (void)fprintf(stderr, "nettool: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool write_all(int fd, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;

    while (n > 0) {
        ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        at += sent;
        n -= (size_t)sent;
    }
    return true;
}

static bool read_all(int fd, void *bytes, size_t n)
{
    uint8_t *at = bytes;

    while (n > 0) {
        ssize_t got = recv(fd, at, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

/* Reads to the end; how many bytes came. */
static uint64_t drain(int fd)
{
    uint64_t total = 0;
    ssize_t n;

    while ((n = recv(fd, buffer, sizeof(buffer), 0)) > 0 || (n < 0 && errno == EINTR))
        total += n > 0 ? (uint64_t)n : 0;
    return total;
}

/* Sends for so long, then says that this was all. */
static void pour(int fd, uint32_t bytes, double seconds)
{
    const double end = now() + seconds;

    while (now() < end && write_all(fd, buffer, bytes))
        continue;
    (void)shutdown(fd, SHUT_WR);
}

static int open_socket(const char *address, const char *port, struct sockaddr_storage *ret_at,
                       socklen_t *ret_len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ret_at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ret_at;
    const unsigned long number = strtoul(port, NULL, 10);
    const int on = 1;

    memset(ret_at, 0, sizeof(*ret_at));
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)number);
        *ret_len = sizeof(*v4);
    } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)number);
        *ret_len = sizeof(*v6);
    } else {
        errno = EINVAL;
        die(address);
    }
    int fd = socket(ret_at->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    return fd;
}

/* ---- server --------------------------------------------------------------------------------- */

static void answer(int fd)
{
    struct order order;
    const int on = 1;

    if (!read_all(fd, &order, sizeof(order)))
        return;
    const uint32_t bytes = ntohl(order.bytes);
    if (bytes == 0 || bytes > MAX_BYTES)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (order.mode == 's') {
        const uint64_t total = drain(fd);
        (void)write_all(fd, &total, sizeof(total));
    } else if (order.mode == 'r') {
        pour(fd, bytes, ntohl(order.seconds));
    } else {
        while (read_all(fd, buffer, bytes) && write_all(fd, buffer, bytes))
            continue;
    }
}

static void serve(const char *address, const char *port)
{
    struct sockaddr_storage at;
    socklen_t len;
    int fd = open_socket(address, port, &at, &len);

    if (bind(fd, (struct sockaddr *)&at, len) < 0 || listen(fd, 128) < 0)
        die("listen");
    (void)signal(SIGCHLD, SIG_IGN);
    (void)printf("listening\n");
    (void)fflush(stdout);
    for (;;) {
        int conn = accept(fd, NULL, NULL);
        if (conn < 0)
            continue;
        if (fork() == 0) {
            answer(conn);
            _exit(0);
        }
        (void)close(conn);
    }
}

/* ---- client --------------------------------------------------------------------------------- */

static void print_stream(const char *mode, uint64_t total, double seconds)
{
    (void)printf("{\"mode\": \"%s\", \"bytes\": %llu, \"seconds\": %.3f, \"mbit_per_s\": %.1f}\n",
                 mode, (unsigned long long)total, seconds, (double)total * 8 / 1e6 / seconds);
}

static int by_size(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void run_rr(int fd, uint32_t bytes, double seconds)
{
    uint32_t *samples = calloc(MAX_SAMPLES, sizeof(*samples)); /* microseconds */
    const double start = now();
    size_t n = 0;

    if (samples == NULL)
        die("memory");
    while (n < MAX_SAMPLES && now() - start < seconds) {
        const double sent = now();
        if (!write_all(fd, buffer, bytes) || !read_all(fd, buffer, bytes))
            die("request");
        samples[n++] = (uint32_t)((now() - sent) * 1e6);
    }
    const double took = now() - start;
    if (n == 0)
        die("no request was answered");
    qsort(samples, n, sizeof(*samples), by_size);
    (void)printf("{\"mode\": \"rr\", \"transactions\": %zu, \"seconds\": %.3f, \"per_s\": %.1f, "
                 "\"p50_us\": %u, \"p99_us\": %u}\n",
                 n, took, (double)n / took, samples[n / 2], samples[n * 99 / 100]);
    free(samples);
}

static void run_client(char mode, const char *address, const char *port, uint32_t seconds,
                       uint32_t bytes)
{
    const struct order order = {
        .mode = (uint8_t)mode, .bytes = htonl(bytes), .seconds = htonl(seconds)};
    struct sockaddr_storage at;
    socklen_t len;
    const int on = 1;
    int fd = open_socket(address, port, &at, &len);

    if (connect(fd, (struct sockaddr *)&at, len) < 0)
        die("connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!write_all(fd, &order, sizeof(order)))
        die("send");
    const double start = now();
    if (mode == 's') {
        uint64_t total;
        pour(fd, bytes, seconds);
        if (!read_all(fd, &total, sizeof(total)))
            die("the server's count");
        print_stream("stream", total, now() - start);
    } else if (mode == 'r') {
        const uint64_t total = drain(fd);
        print_stream("reverse", total, now() - start);
    } else {
        run_rr(fd, bytes, seconds);
    }
    (void)close(fd);
}

static __attribute__((noreturn)) void usage(void)
{
    (void)fprintf(stderr, "usage: nettool serve ADDRESS PORT\n"
                          "       nettool stream|reverse|rr ADDRESS PORT SECONDS [BYTES]\n");
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "serve") == 0) {
        serve(argv[2], argv[3]);
        return 0;
    }
    if (argc < 5 || argc > 6)
        usage();
    const char mode = strcmp(argv[1], "stream") == 0    ? 's'
                      : strcmp(argv[1], "reverse") == 0 ? 'r'
                      : strcmp(argv[1], "rr") == 0      ? 'q'
                                                        : '\0';
    const unsigned long seconds = strtoul(argv[4], NULL, 10);
    const unsigned long bytes = argc == 6 ? strtoul(argv[5], NULL, 10) : mode == 'q' ? 1 : 131072;
    if (mode == '\0' || seconds == 0 || seconds > 3600 || bytes == 0 || bytes > MAX_BYTES)
        usage();
    run_client(mode, argv[2], argv[3], (uint32_t)seconds, (uint32_t)bytes);
    return 0;
}
