/* SPDX-License-Identifier: Apache-2.0 */
/* The end of the VM. */
#pragma once

/* Writes out what is unwritten, for a bounded time, and powers the VM off. Never returns. */
void power_off(void) __attribute__((noreturn));
