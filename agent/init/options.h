/* SPDX-License-Identifier: Apache-2.0 */
/* What the host tells the agent on the kernel's command line. Pure functions over texts. */
#pragma once

#include <stddef.h>

#include "common/base/log.h"

struct options {
    enum log_level log_level; /* casemate.log=debug|info|warn|error */
};

/* The options in a kernel command line; unknown words are other programs'. A bad value is the
 * default. */
void options_parse(const char *command_line, struct options *ret_options);

/* The next line of a text, without its end; NULL after the last. *cursor moves on; the text is
 * changed. */
char *options_next_line(char **cursor);

/* The next line of a module list: an absolute path, or NULL at its end. *cursor moves on; the text
 * is changed. */
char *options_next_module(char **cursor);
