#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the manual pages casemate(1), casemated(8) and casemate.conf(5) from what the programs and the shipped
configuration say of themselves, so that they cannot tell anything else.

    make-man.py BINDIR CONFIG OUTDIR
"""

import os
import re
import subprocess
import sys

COMMAND = re.compile(r"^  ([a-z]+)  +(.*)$")
SECTION = re.compile(r"^#?\[(.+)\]$")
KEY = re.compile(r"^#?([a-z_]+) = (.*)$")


def roff(text):
    """Text in which nothing is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join("\\&" + line if line.startswith(".") else line for line in text.split("\n"))


def head(name, section, date, version, what):
    return (f'.TH {name.upper()} {section} "{date}" "casemate {version}" "Casemate"\n.SH NAME\n{roff(name)} \\- {roff(what)}\n')


def verbatim(text):
    return ".nf\n" + roff(text.strip("\n")) + "\n.fi\n"


def said_by(program, *args):
    return subprocess.run([program, *args], check=True, capture_output=True, text=True, env={"LC_ALL": "C.UTF-8"}).stdout


def usage_and_rest(text):
    """The lines of the synopsis, and what follows them."""
    lines = text.split("\n")
    n = 1
    while n < len(lines) and lines[n].startswith("  "):
        n += 1
    usage = [line.removeprefix("usage:").strip() for line in lines[:n]]
    return "\n".join(usage), "\n".join(lines[n:])


def command_page(bindir, date, version):
    program = os.path.join(bindir, "casemate")
    text = said_by(program, "--help")
    usage, rest = usage_and_rest(text)
    page = head("casemate", 1, date, version, "containers, each pod in a virtual machine of its own")
    page += ".SH SYNOPSIS\n" + verbatim(usage) + ".SH DESCRIPTION\n" + verbatim(rest) + ".SH COMMANDS\n"
    for line in rest.split("\n"):
        found = COMMAND.match(line)
        if found:
            usage, more = usage_and_rest(said_by(program, found[1], "--help"))
            page += f".SS {roff('casemate ' + found[1])}\n" + verbatim(usage) + ".PP\n" + verbatim(more)
    return page + (".SH ENVIRONMENT\n.TP\n.B CASEMATE_SOCKET\nThe daemon\\(aqs socket, for every command without "
                   "\\fB\\-\\-socket\\fR.\n.SH SEE ALSO\n.BR casemated (8),\n.BR casemate.conf (5)\n")


def daemon_page(bindir, date, version):
    usage, rest = usage_and_rest(said_by(os.path.join(bindir, "casemated"), "--help"))
    page = head("casemated", 8, date, version, "Kubernetes container runtime that gives each pod a virtual machine")
    page += ".SH SYNOPSIS\n" + verbatim(usage) + ".SH DESCRIPTION\n" + verbatim(rest)
    return page + """.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Ends the daemon in good order: calls under way are finished or cancelled, virtual machines go on running, and the next
daemon finds them again. A second signal ends it at once.
.SH FILES
.TP
.I /etc/casemate/casemate.conf
The configuration; see
.BR casemate.conf (5).
.TP
.I /run/casemate/casemate.sock
The socket for the kubelet,
.BR crictl (1)
and
.BR casemate (1).
.TP
.I /var/lib/casemate
What survives a reboot: records, images, disks of pods.
.SH SEE ALSO
.BR casemate (1),
.BR casemate.conf (5)
"""


def configuration_page(config, date, version):
    """Keys that follow one another without a comment between them share the one before."""
    page = head("casemate.conf", 5, date, version, "configuration of casemated") + ".SH DESCRIPTION\n"
    comment, keys = [], []

    def flush():
        nonlocal page, comment, keys
        tags = [f'.B {roff(name)}\n(default: {roff(value)})' for name, value in keys]
        if keys:
            page += ".TP\n" + tags[0].replace("\n", " \\fR", 1) + "\n"
            page += "".join(".TQ\n" + tag.replace("\n", " \\fR", 1) + "\n" for tag in tags[1:])
        page += "\n".join(comment) + ("\n" if comment else "")
        comment, keys = [], []

    with open(config, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            section, key = SECTION.match(line), KEY.match(line)
            if section:
                above, comment = comment, []
                page += '.SH "[' + roff(section[1]).replace('"', "\\(dq") + ']"\n'
                comment = above
                flush()
            elif key:
                keys.append((key[1], key[2]))
            elif line.startswith("#") and not line.startswith("# SPDX"):
                if keys:
                    flush()
                comment += [roff(line.removeprefix("#").strip())] if line != "#" else []
            elif not line:
                flush()
    flush()
    return page + ".SH SEE ALSO\n.BR casemated (8)\n"


def main():
    if len(sys.argv) != 4:
        print("usage: make-man.py BINDIR CONFIG OUTDIR", file=sys.stderr)
        return 2
    bindir, config, out = sys.argv[1:]
    version = said_by(os.path.join(bindir, "casemated"), "--version").split()[-1]
    # The date of a page is that of the configuration that it is made with, so that the same sources give the same pages.
    date = subprocess.run(["git", "log", "-1", "--format=%cs", "--", config], capture_output=True, text=True).stdout.strip()
    os.makedirs(out, exist_ok=True)
    for name, text in (("casemate.1", command_page(bindir, date, version)),
                       ("casemated.8", daemon_page(bindir, date, version)),
                       ("casemate.conf.5", configuration_page(config, date, version))):
        with open(os.path.join(out, name), "w", encoding="utf-8") as page:
            page.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
