/* SPDX-License-Identifier: Apache-2.0 */
/* The Stats method: see proto/agent/PROTOCOL.md. One thread. */
#pragma once

struct containers;
struct rpc_call;

/* Answers the call. */
void stats_call_answer(struct rpc_call *call, struct containers *containers);
