/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template as sealed files in memory, and its copy in a folder: `memory`, `state`, `disk` and
 * `template.json`, which is written last. Only this file knows their format and what sealing a file
 * takes. Blocks on the disk; any thread. Descriptors returned are the caller's and close-on-exec.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

#define TEMPLATE_KEY_SIZE  65 /* 64 hexadecimal digits and NUL */
#define TEMPLATE_META_MAX  4096
#define TEMPLATE_STATE_MAX (16u << 20) /* bytes of device state; half a MiB is usual */

/* What a template consists of. */
enum template_part {
    TEMPLATE_MEMORY, /* of the guest */
    TEMPLATE_STATE,  /* of CPUs and devices */
    TEMPLATE_DISK,   /* the first disk, as the guest has left it; empty when there is none */
    TEMPLATE_PARTS
};

/* Descriptors by part; -1: not there. */
struct template_files {
    int fds[TEMPLATE_PARTS];
};
#define TEMPLATE_NO_FILES                                                                          \
    {                                                                                              \
        .fds = { -1, -1, -1 }                                                                      \
    }

/* The digest that template.json has of a file. */
int template_file_sum(int fd, char ret_sha256[65], struct err *err);

/* Closes those that are there, and says so in files. */
void template_files_close(struct template_files *files);
#define cleanup_template_files CLEANUP(template_files_close)

struct template_meta {
    char key[TEMPLATE_KEY_SIZE];
    struct {
        uint64_t bytes;
        char sha256[65];
    } parts[TEMPLATE_PARTS];
};

/* Text of template.json; free it. */
int template_meta_encode(const struct template_meta *meta, char **ret_text, struct err *err);
/* PROTOCOL unless text is such a file, whole and in range. */
int template_meta_decode(const char *text, struct template_meta *ret_meta, struct err *err);

/* An empty file in memory of so many bytes, which can be sealed. */
int template_file_new(const char *name, uint64_t bytes, int *ret_fd, struct err *err);

/* Gives back the memory of what is all zero in it. */
int template_file_trim(int fd, struct err *err);

/*
 * Makes the file unchangeable for ever, by anybody who gets a descriptor, however it is opened:
 * writes, shared writable mappings, truncation and hole punching fail. BAD_STATE while somebody
 * maps it for writing.
 */
int template_file_seal(int fd, struct err *err);

/*
 * Copies the parts into the existing, empty folder. EXHAUSTED when its disk has too little
 * room.
 */
int template_file_write(const char *dir, const char *key, const struct template_files *files,
                        struct err *err);

/*
 * Reads them back into new sealed files, if they are whole and of this key. NOT_FOUND when there
 * are none, PROTOCOL when they are not what was written.
 */
int template_file_read(const char *dir, const char *key, struct template_files *ret_files,
                       struct err *err);

/* Makes the regular file `to` (open for writing) equal to `from`: same size, same bytes, holes
 * where there are only zeros. */
int template_file_copy(int from, int to, struct err *err);
