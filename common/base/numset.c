/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges need not be in order and may overlap, as in the kernel; strides ("0-7:1/2") are not taken.
 */
#include "common/base/numset.h"

#include <ctype.h>
#include <string.h>

/* Digits at *at, which moves behind them. */
static bool take_number(const char **at, unsigned *ret_number)
{
    unsigned number = 0;

    if (!isdigit((unsigned char)**at))
        return false;
    for (; isdigit((unsigned char)**at); ++*at) {
        number = number * 10 + (unsigned)(**at - '0');
        if (number >= NUMSET_MAX)
            return false;
    }
    *ret_number = number;
    return true;
}

int numset_parse(const char *text, struct numset *ret_set, struct err *err)
{
    struct numset set = {0};
    const char *at = text;

    while (*at != '\0' && strcmp(at, "\n") != 0) {
        unsigned from, to;
        bool good = take_number(&at, &from);
        to = from;
        if (good && *at == '-') {
            at++;
            good = take_number(&at, &to) && from <= to;
        }
        if (good && *at == ',') {
            at++;
            good = isdigit((unsigned char)*at);
        } else if (good) {
            good = *at == '\0' || strcmp(at, "\n") == 0;
        }
        if (!good)
            return err_set(err, ERR_INVALID, "'%.64s' is no list of numbers below %u such as 0-2,5",
                           text, NUMSET_MAX);
        for (unsigned i = from; i <= to; i++)
            set.words[i / 64] |= (uint64_t)1 << (i % 64);
    }
    *ret_set = set;
    return 0;
}

unsigned numset_end(const struct numset *set)
{
    for (unsigned i = NUMSET_MAX; i > 0; i--) {
        if ((set->words[(i - 1) / 64] >> ((i - 1) % 64) & 1) != 0)
            return i;
    }
    return 0;
}

bool numset_is_subset(const struct numset *a, const struct numset *b)
{
    for (size_t i = 0; i < NUMSET_MAX / 64; i++) {
        if ((a->words[i] & ~b->words[i]) != 0)
            return false;
    }
    return true;
}
