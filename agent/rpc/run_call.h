/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Run call: a process of a container from its start to its end in one call. Only this file
 * knows how its output and its exit become events. Ends the call, now or later. One thread.
 */
#pragma once

struct containers;
struct rpc_call;

/*
 * The call's request is an ExecRequest, checked here. A process that runs keeps a reference of its
 * own; when the client goes away or its deadline passes, it is killed. containers outlive the
 * call.
 */
void run_call_begin(struct rpc_call *call, struct containers *containers);
