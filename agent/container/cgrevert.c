/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation. Every file is read before the first is written, and on a refusal the old
 * texts are written back, the last first: a limit that was raised so that another could follow is
 * lowered after that.
 *
 * Most files take what they give ("max", "max 100000", "0-3"). Some have a line for each device or
 * resource, and a write changes the one line that its first word names: then that line is put back,
 * and where there was none, the words that make the kernel forget the line. A file that cannot be
 * read (memory.reclaim) holds nothing: it is an order, and stays obeyed.
 */
#include "agent/container/cgrevert.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "agent/container/cgcheck.h"

#define MAX_TEXT 65536
#define MAX_LINE 512

typedef Casemate__Agent__V1__CgroupSetting setting;

/* Files with a line for each key, and what a line says that is as good as none. */
static const struct {
    const char *file, *none;
} keyed[] = {
    {"io.max", "rbps=max wbps=max riops=max wiops=max"},
    {"io.latency", "target=0"},
    {"io.weight", "default"},
    {"io.bfq.weight", "default"},
    {"rdma.max", "hca_handle=max hca_object=max"},
    {"misc.max", "max"},
};

struct texts {
    size_t n;
    char **items; /* NULL: cannot be read */
};

static void texts_fini(struct texts *texts)
{
    for (size_t i = 0; i < texts->n; i++)
        free(texts->items[i]);
    free(texts->items);
}

static int read_all(int cgroup_fd, const Casemate__Agent__V1__Resources *settings,
                    struct texts *texts, struct err *err)
{
    texts->items = calloc(settings->n_cgroup + 1, sizeof(char *));
    if (texts->items == NULL)
        return err_no_memory(err);
    texts->n = settings->n_cgroup;
    for (size_t i = 0; i < texts->n; i++) {
        const setting *s = settings->cgroup[i];
        struct err unreadable;
        if (cgcheck_is_moot(cgroup_fd, s))
            continue;
        if (faccessat(cgroup_fd, s->file, F_OK, 0) < 0)
            return err_set_errno(err, errno, "cgroup setting %s", s->file);
        if (fd_read_file(cgroup_fd, s->file, MAX_TEXT, &texts->items[i], NULL, &unreadable) < 0)
            log_event(LOG_DEBUG, NULL, &unreadable, "%s could not be put back", s->file);
    }
    return 0;
}

/* The line that puts back what a value has changed in a keyed file. io.weight takes a number alone
 * for its line "default". */
static void old_line(const char *text, const char *value, const char *none, char ret_line[MAX_LINE])
{
    const char *key = strchr(value, ' ') == NULL ? "default" : value;
    size_t key_len = strcspn(key, " ");

    for (const char *line = text; *line != '\0'; line += *line == '\n') {
        size_t n = strcspn(line, "\n");
        if (n > key_len && line[key_len] == ' ' && strncmp(line, key, key_len) == 0) {
            (void)snprintf(ret_line, MAX_LINE, "%.*s", (int)n, line);
            return;
        }
        line += n;
    }
    (void)snprintf(ret_line, MAX_LINE, "%.*s %s", (int)key_len, key, none);
}

static void put_back(int cgroup_fd, const setting *s, const char *text)
{
    char line[MAX_LINE];
    struct err err;

    for (size_t i = 0; i < ARRAY_SIZE(keyed); i++) {
        if (strcmp(s->file, keyed[i].file) == 0) {
            old_line(text, s->value, keyed[i].none, line);
            text = line;
            break;
        }
    }
    if (fd_write_text(cgroup_fd, s->file, text, &err) < 0)
        log_event(LOG_WARN, NULL, &err, "%s stays %s, ignoring", s->file, s->value);
}

int cgrevert_apply(int cgroup_fd, const Casemate__Agent__V1__Resources *settings, struct err *err)
{
    CLEANUP(texts_fini) struct texts before = {0};

    if (settings == NULL)
        return 0;
    if (read_all(cgroup_fd, settings, &before, err) < 0)
        return -1;
    for (size_t i = 0; i < settings->n_cgroup; i++) {
        const setting *s = settings->cgroup[i];
        if (cgcheck_is_moot(cgroup_fd, s) || fd_write_text(cgroup_fd, s->file, s->value, err) == 0)
            continue;
        while (i-- > 0) {
            if (before.items[i] != NULL)
                put_back(cgroup_fd, settings->cgroup[i], before.items[i]);
        }
        return err_prefix(err, "cgroup setting %s", s->file);
    }
    return 0;
}
