/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps as many huge pages of 2 MiB as its argument says and touches them one after the other,
 * saying so. A page beyond the cgroup's limit is a SIGBUS.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)2 << 20)

static void on_bus(int signo)
{
    static const char text[] = "no more\n";
    (void)signo;
    (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
    _exit(7);
}

int main(int argc, char **argv)
{
    size_t n = argc < 2 ? 1 : (size_t)strtoul(argv[1], NULL, 10);
    /* Without a reservation, which has a limit of its own. */
    char *pages = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0);
    (void)setvbuf(stdout, NULL, _IONBF, 0);
    if (pages == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    (void)signal(SIGBUS, on_bus);
    for (size_t i = 0; i < n; i++) {
        pages[i * PAGE] = 1;
        (void)printf("page %zu\n", i + 1);
    }
    return 0;
}
