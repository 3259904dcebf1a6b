#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The specs of the real critest that this release must pass (critest.focus without critest.skip).
set -euo pipefail
CRITEST_MIN=${CRITEST_MIN:-70} exec bash "$(dirname "$0")/critest.sh"
