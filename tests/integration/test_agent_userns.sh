#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# User namespaces by both ways of giving files their owners (tests/unit/agent/init/vm_userns.c), with the agent built with
# ASan and UBSan as PID 1 of a real VM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
make -s -j"$(nproc)" BUILD=build/asan SANITIZE=address,undefined OPT=-O1 build/asan/bin/casemate-agent
AGENT_VM_AGENT=build/asan/bin/casemate-agent AGENT_VM_PROGRAM=vm_userns AGENT_VM_MEMORY=1024 AGENT_VM_DEADLINE_S=420 \
    AGENT_VM_APPEND='ASAN_OPTIONS=detect_leaks=0:abort_on_error=1' exec bash tests/integration/test_agent_vm.sh
