/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cachelat [MIB]: how long one read takes that waits for the one before, at random in so much
 * memory (default 12 MiB), in nanoseconds. More than the second-level cache holds and less than the
 * last level has, so it tells how much of that the machine's neighbours leave: on a virtual machine
 * 40 to 130 ns within minutes. Emulated guests, whose translated code is many MiB, are as much
 * slower.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define LINE_BYTES 64u
#define HUGE_BYTES (2u << 20)
#define READS      2000000u

/* A cycle through all lines, in an order that no prefetcher guesses (Sattolo's algorithm). */
static void make_cycle(char *memory, uint32_t n)
{
    uint32_t *order = calloc(n, sizeof(*order));
    uint64_t seed = 1;

    if (order == NULL)
        abort();
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n - 1; i > 0; i--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t k = (uint32_t)((seed >> 33) % i), kept = order[i];
        order[i] = order[k];
        order[k] = kept;
    }
    for (uint32_t i = 0; i < n; i++) {
        char **line = (void *)(memory + (size_t)i * LINE_BYTES);
        *line = memory + (size_t)order[i] * LINE_BYTES;
    }
    free(order);
}

int main(int argc, char **argv)
{
    long mib = argc > 1 ? strtol(argv[1], NULL, 10) : 12;
    struct timespec begin, end;

    if (mib < 1 || mib > 1024)
        return 2;
    size_t bytes = (size_t)mib << 20;
    char *area =
        mmap(NULL, bytes + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        return 1;
    /* Large pages, or it would be the time of walks through page tables. */
    char *memory = area + (-(uintptr_t)area & (HUGE_BYTES - 1));
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    make_cycle(memory, (uint32_t)(bytes / LINE_BYTES));
    char **at = (void *)memory;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint32_t i = 0; i < READS; i++)
        at = (void *)*at;
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    double ns = (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
    if (at == NULL) /* so that the reads are needed */
        return 1;
    (void)printf("%.1f\n", ns / READS);
    return 0;
}
