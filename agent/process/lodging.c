/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. A forked child costs the copy of the page tables, a fault for each page that
 * either side then writes to, two changes of address space and the end of the copy: where the guest
 * is emulated that was a third of a whole `exec`. The kernel lets a child share the memory
 * (CLONE_VM) as long as it has a stack of its own.
 *
 * It needs its own thread storage, too: errno and the like are in it, and the agent runs at the
 * same time. The C library has no function that makes one for a foreign process, so a thread is
 * started that does nothing for ever, and the child is given that thread's storage. The library
 * takes the child for that thread, which is right in everything that is allowed to a child (see
 * lodging.h).
 *
 * Who may ptrace the child could write to the agent. As long as it is inside a container and has
 * not executed its program it is not dumpable (boot.c), so that takes CAP_SYS_PTRACE over it, and
 * who has that has the child's own capabilities, which are all of them, with or without this.
 *
 * The kernel itself says when the child is out: it clears a word of the memory that the child
 * leaves (CLONE_CHILD_CLEARTID), by exec or by death, before it is told of either. So no descriptor
 * is needed for that, and none for the child's last words, which it leaves behind in the memory.
 *
 * The agent is the kernel's init, which the OOM killer leaves alone when it kills whoever shares
 * its victim's memory, and whose oom_score_adj does not change with theirs. There is one child at a
 * time, so that no other one is there to share anything.
 */
#include "agent/process/lodging.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GUARD_BYTES 4096u
#define STACK_BYTES (64u << 10)
#define KEPT_BYTES  (64u << 10) /* of scratch; what a child used beyond is given back */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define IS_SANITIZED 0
#endif

#if defined(__x86_64__) && !IS_SANITIZED
#define CAN_LODGE 1
#else
#define CAN_LODGE 0
#endif

static struct {
    char *stack; /* NULL: there is none */
    char *memory;
    void *storage; /* thread pointer */
    bool occupied;
    _Atomic uint32_t tenant; /* cleared by the kernel when the child is out */
    struct scratch scratch;  /* the child's, and read when it is gone */
    void (*fn)(void *arg, struct scratch *scratch);
    void *arg;
} lodging;

#if CAN_LODGE

static sem_t published;

static void *be_there(void *arg)
{
    (void)arg;
    lodging.storage = __builtin_thread_pointer();
    (void)sem_post(&published);
    for (;;)
        (void)pause();
    return NULL;
}

static int start_thread(struct err *err)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;

    if (sem_init(&published, 0, 0) < 0)
        return err_set_errno(err, errno, "semaphore");
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, (size_t)PTHREAD_STACK_MIN);
    int e = pthread_create(&thread, &attr, be_there, NULL);
    (void)pthread_attr_destroy(&attr);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0)
        return err_set_errno(err, e, "start a thread");
    while (sem_wait(&published) < 0)
        continue;
    return 0;
}

int lodging_prepare(struct err *err)
{
    size_t n = GUARD_BYTES + STACK_BYTES + LODGING_SCRATCH;

    if (lodging.stack != NULL)
        return 0;
    /* The pages of the scratch are there when they are touched, which most never are. */
    char *memory = mmap(NULL, n, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED)
        return err_set_errno(err, errno, "map memory");
    if (mprotect(memory, GUARD_BYTES, PROT_NONE) < 0 || start_thread(err) < 0) {
        (void)munmap(memory, n);
        return -1;
    }
    lodging.stack = memory + GUARD_BYTES;
    lodging.memory = lodging.stack + STACK_BYTES;
    return 0;
}

/* The child's first and last function. Its frame ends the chain of a backtrace. */
static __attribute__((noreturn, used)) void begin(void)
{
    lodging.fn(lodging.arg, &lodging.scratch);
    _exit(127);
}

/* The child comes out of the system call on another stack, from which nothing can return. */
static long clone_onto_stack(struct clone_args *args)
{
    long result;

    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "call *%%rdx\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(result)
                     : "0"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "d"(begin)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

#else

int lodging_prepare(struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "a child cannot run in this program's memory here");
}

static long clone_onto_stack(struct clone_args *args)
{
    (void)args;
    return -ENOSYS;
}

#endif

bool lodging_is_free(void)
{
    return lodging.stack != NULL && !lodging.occupied;
}

bool lodging_is_vacated(void)
{
    return atomic_load(&lodging.tenant) == 0;
}

pid_t lodging_enter(struct clone_args *args, void (*fn)(void *arg, struct scratch *scratch),
                    void *arg)
{
    args->flags |= CLONE_VM | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    args->child_tid = (uintptr_t)&lodging.tenant;
    args->stack = (uintptr_t)lodging.stack;
    args->stack_size = STACK_BYTES;
    args->tls = (uintptr_t)lodging.storage;
    lodging.scratch = (struct scratch){.at = lodging.memory, .left = LODGING_SCRATCH};
    lodging.fn = fn;
    lodging.arg = arg;
    lodging.occupied = true;
    atomic_store(&lodging.tenant, 1);
    long pid = clone_onto_stack(args);
    if (pid >= 0)
        return (pid_t)pid;
    lodging.occupied = false;
    errno = (int)-pid;
    return -1;
}

void lodging_leave(void)
{
    size_t used = LODGING_SCRATCH - lodging.scratch.left;

    lodging.occupied = false;
    if (used > KEPT_BYTES)
        (void)madvise(lodging.memory + KEPT_BYTES, LODGING_SCRATCH - KEPT_BYTES, MADV_DONTNEED);
}
