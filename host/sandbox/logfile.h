/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container's log file, appended to so that a process killed at any instruction can say
 * afterwards which bytes of the container's output are in it. Only this file knows the checkpoint's
 * format. One thread at a time; blocks on the disk. Offsets count bytes of the container's streams,
 * 0 stdout, 1 stderr.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/cleanup.h"
#include "common/base/err.h"

#define LOGFILE_STREAMS 2

struct logfile;

struct logfile_spec {
    const char *dir;        /* the pod's log directory; the log never lies outside of it */
    const char *path;       /* below dir; missing folders are made */
    const char *checkpoint; /* file of our own, made if missing */
    uint64_t initial[LOGFILE_STREAMS]; /* offsets to begin with when there is no checkpoint */
};

/*
 * Opens or makes the log (0640). ret_offsets: the first byte of each stream that is not in the log,
 * as the checkpoint has it, *ret_known: there was one (else they are spec->initial). A half-written
 * end of a killed predecessor is cut off. INVALID when path leads out of dir.
 */
int logfile_open(const struct logfile_spec *spec, struct logfile **ret_file,
                 uint64_t ret_offsets[LOGFILE_STREAMS], bool *ret_known, struct err *err);
/* Closes it; nothing is written, since every append was. NULL is fine. */
void logfile_free(struct logfile *file);
DEFINE_CLEANUP(logfile, struct logfile, logfile_free)
#define cleanup_logfile CLEANUP(logfile_cleanup_)

/*
 * Appends n bytes of formatted lines; with them all output before `offsets` is in the log. On
 * failure nothing was appended.
 */
int logfile_append(struct logfile *file, const void *bytes, size_t n,
                   const uint64_t offsets[LOGFILE_STREAMS], struct err *err);

/* Goes on in the file that has the name now, made if missing. On failure the old one stays. */
int logfile_reopen(struct logfile *file, struct err *err);

/* What is in the log. */
void logfile_get_offsets(const struct logfile *file, uint64_t ret_offsets[LOGFILE_STREAMS]);
