/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast this machine's time stamp counter runs, which under TCG is the guest's as well. A guest
 * that finds it out by itself is often wrong on a busy host (its timer interrupts come late), and
 * then its clock, and with a template the clock of every clone, runs many times too fast. Only this
 * file knows how it is measured. Thread-safe; the first call takes some 20 ms.
 */
#pragma once

#include <stdint.h>

/* In kHz, a whole number of MHz, so that it is the same each time; 0: this machine has none. */
uint32_t tsc_khz(void);
