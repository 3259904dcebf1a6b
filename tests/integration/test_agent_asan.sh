#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The agent built with ASan and UBSan, as PID 1 of a real VM with real containers, against a host that sends it nearly
# right messages, gives calls up half way and breaks sessions off (tests/unit/agent/init/vm_hostile.c).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make -s -j"$(nproc)" BUILD=build/asan SANITIZE=address,undefined OPT=-O1 build/asan/bin/casemate-agent
# Words of the command line that the kernel does not know become the agent's environment.
AGENT_VM_AGENT=build/asan/bin/casemate-agent AGENT_VM_PROGRAM=vm_hostile AGENT_VM_MEMORY=1024 AGENT_VM_DEADLINE_S=420 \
    AGENT_VM_APPEND='ASAN_OPTIONS=detect_leaks=0:abort_on_error=1' exec bash tests/integration/test_agent_vm.sh
