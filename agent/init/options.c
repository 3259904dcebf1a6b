/* SPDX-License-Identifier: Apache-2.0 */
/* Both texts come from whoever built and started the VM; they are parsed strictly all the same. */
#include "agent/init/options.h"

#include <string.h>

#define LOG_OPTION "casemate.log="

void options_parse(const char *command_line, struct options *ret_options)
{
    struct options o = {.log_level = LOG_INFO};
    const char *at = command_line;
    while (*at != '\0') {
        at += strspn(at, " \t\n");
        size_t len = strcspn(at, " \t\n");
        size_t prefix = sizeof(LOG_OPTION) - 1;
        char value[16];
        if (len > prefix && len - prefix < sizeof(value) && strncmp(at, LOG_OPTION, prefix) == 0) {
            memcpy(value, at + prefix, len - prefix);
            value[len - prefix] = '\0';
            (void)log_level_parse(value, &o.log_level);
        }
        at += len;
    }
    *ret_options = o;
}

char *options_next_line(char **cursor)
{
    char *line = *cursor;
    size_t len = strcspn(line, "\n");
    if (*line == '\0')
        return NULL;
    *cursor = line[len] == '\n' ? line + len + 1 : line + len;
    line[len] = '\0';
    return line;
}

char *options_next_module(char **cursor)
{
    char *line;
    do {
        line = options_next_line(cursor);
    } while (line != NULL && line[0] != '/');
    return line;
}
