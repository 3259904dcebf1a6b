/* SPDX-License-Identifier: Apache-2.0 */
/* A handful of them, so a list that is searched from the start will do. */
#include "host/sandbox/handler.h"

#include <stdlib.h>
#include <string.h>

#include "host/sandbox/sandbox.h"

static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

void handlers_free(struct sandbox_handler *handlers, size_t n)
{
    for (size_t i = 0; handlers != NULL && i < n; i++) {
        free_text(handlers[i].name);
        free_text(handlers[i].kernel);
        free_text(handlers[i].initrd);
        free_text(handlers[i].machine);
    }
    free(handlers);
}

/* A copy, or NULL for NULL; *ok becomes false when out of memory. */
static const char *copy_text(const char *text, bool *ok)
{
    char *copy = text == NULL ? NULL : strdup(text);

    *ok = *ok && (text == NULL || copy != NULL);
    return copy;
}

int handlers_copy(const struct sandbox_handler *from, size_t n, struct sandbox_handler **ret_copy,
                  struct err *err)
{
    struct sandbox_handler *copy = calloc(n + 1, sizeof(*copy));
    bool ok = true;

    if (copy == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < n; i++) {
        copy[i] = from[i];
        copy[i].name = copy_text(from[i].name, &ok);
        copy[i].kernel = copy_text(from[i].kernel, &ok);
        copy[i].initrd = copy_text(from[i].initrd, &ok);
        copy[i].machine = copy_text(from[i].machine, &ok);
    }
    if (!ok) {
        handlers_free(copy, n);
        return err_no_memory(err);
    }
    *ret_copy = copy;
    return 0;
}

const struct sandbox_handler *handlers_find(const struct sandbox_handler *handlers, size_t n,
                                            const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(handlers[i].name, name) == 0)
            return &handlers[i];
    return NULL;
}
