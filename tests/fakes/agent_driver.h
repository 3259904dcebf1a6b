/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the VM test: a connection to an agent in a VM and its calls, each blocking with a deadline. A
 * failed expectation prints where and what, and ends the program. One connection per program; one
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/err.h"
#include "common/rpc/rpc.h"
#include "proto/agent/agent.pb-c.h"

#define DRIVER_TIMEOUT_MS 20000

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)printf("not ok: %s:%d: %s: ", __FILE__, __LINE__, #condition);                   \
            (void)printf(__VA_ARGS__);                                                             \
            (void)printf("\n");                                                                    \
            (void)fflush(stdout);                                                                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Connects to the port's unix socket and shakes hands. `stale` bytes, if any, are sent before the
 * greeting. */
void driver_connect(const char *socket_path, const char *stale);
/* Closes the connection as a dying daemon would. */
void driver_disconnect(void);

/* One unary call. Returns 0, or -1 with *err. The reply may be NULL where it is empty; release it
 * with rpc_reply_fini. */
int driver_call(const char *method, const ProtobufCMessage *request, void *ret_reply,
                struct err *err);

/* Begins a call, lets up to so many events happen, and gives it up if it has not ended. */
void driver_fire(const char *method, const ProtobufCMessage *request, unsigned events);

/* Reads a stream of a process from an offset to its end into a NUL-terminated string (free it);
 * acknowledges as it goes if told. */
char *driver_read(const char *container, const char *exec, unsigned stream, uint64_t offset,
                  bool ack, size_t *ret_len);

/* Like driver_read, but stops after so many bytes. */
char *driver_read_some(const char *container, const char *exec, unsigned stream, uint64_t offset,
                       size_t want, size_t *ret_len);

/* Waits for the end of a process. */
Casemate__Agent__V1__ExitStatus driver_wait(const char *container, const char *exec);

/* A process: the arguments end with NULL; default capabilities, root. */
struct driver_process {
    Casemate__Agent__V1__Process message;
    Casemate__Agent__V1__Capabilities caps;
    Casemate__Agent__V1__User user;
    char *args[16];
    char *env[4];
};
void driver_process_init(struct driver_process *p, ...) __attribute__((sentinel));

/* Creates a container over LUNs 0 and 1. */
int driver_create(const char *id, struct driver_process *p,
                  void (*change)(Casemate__Agent__V1__CreateContainerRequest *r), struct err *err);
int driver_start(const char *id, struct err *err);
int driver_exec(const char *id, const char *exec, struct driver_process *p, struct err *err);
/* Run: *ret_out (free it) is what came on stdout; a deadline gives the call up. */
int driver_command(const char *id, const char *exec, struct driver_process *p, int64_t deadline_ms,
                   char **ret_out, Casemate__Agent__V1__ExitStatus *ret_status, struct err *err);
int driver_remove(const char *id, const char *exec, struct err *err);
int driver_signal(const char *id, const char *exec, unsigned signo, bool all, struct err *err);
int driver_ack(const char *id, const char *exec, uint64_t out, uint64_t error, struct err *err);

/* Runs `sh -c script` in a container of its own, and gives its output (free it); *ret_code its exit
 * code. */
char *driver_run(const char *id, const char *script,
                 void (*change)(Casemate__Agent__V1__CreateContainerRequest *r), int *ret_code);
