/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line a complaint, and where the error's code tells what to do next, that too. The texts of
 * errors come from the daemon and may quote what tenants and registries sent.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/cleanup.h"
#include "host/cli/cli.h"
#include "host/cli/text.h"

void cli_complain(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *text = NULL;
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    cleanup_free char *raw = text;
    cleanup_free char *shown = raw == NULL ? NULL : cli_escape(raw);
    fprintf(stderr, "casemate: %s\n", shown == NULL ? "out of memory" : shown);
}

int cli_fail(const struct err *err)
{
    const char *hint = "";
    if (err->code == ERR_UNSUPPORTED)
        hint = " (the daemon may be of another version: see 'casemate version')";
    else if (err->code == ERR_EXHAUSTED)
        hint = " (see 'casemate check' for disk and memory)";
    cli_complain("%s%s", err->msg, hint);
    return CLI_FAILED;
}

int cli_finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_OK;
    if (errno != EPIPE)
        cli_complain("write to standard output: %s", strerror(errno));
    return CLI_FAILED;
}
