/* SPDX-License-Identifier: Apache-2.0 */
/* Rings: order, times, limits, growth, against a plain copy of what was written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/process/ring.h"

#define MS 1000000

static size_t put(struct ring *r, const char *text, int64_t time_ns)
{
    size_t total = 0, len = strlen(text);
    while (total < len) {
        uint8_t *space;
        size_t n;
        struct err err;
        assert_int_equal(ring_reserve(r, len - total, &space, &n, &err), 0);
        if (n == 0)
            break;
        memcpy(space, text + total, n);
        ring_commit(r, n, time_ns);
        total += n;
    }
    return total;
}

static void test_records(void **state)
{
    struct ring r;
    struct ring_span span;
    (void)state;
    ring_init(&r, 4096);
    assert_false(ring_read(&r, 0, 100, &span));
    assert_int_equal(put(&r, "hello", 10 * MS), 5);
    assert_int_equal(put(&r, "world", 20 * MS), 5);
    assert_true(ring_read(&r, 0, 100, &span));
    assert_int_equal(span.len, 5);
    assert_int_equal(span.time_ns, 10 * MS);
    assert_memory_equal(span.data, "hello", 5);
    assert_true(ring_read(&r, 3, 100, &span));
    assert_int_equal(span.len, 2);
    assert_int_equal(span.offset, 3);
    assert_true(ring_read(&r, 5, 3, &span));
    assert_int_equal(span.len, 3);
    assert_int_equal(span.time_ns, 20 * MS);
    assert_false(ring_read(&r, 10, 100, &span));
    ring_ack(&r, 6);
    assert_false(ring_read(&r, 5, 100, &span));
    assert_true(ring_read(&r, 6, 100, &span));
    assert_memory_equal(span.data, "orld", 4);
    ring_ack(&r, 2); /* before the start: ignored */
    assert_int_equal(r.start, 6);
    ring_ack(&r, 1000); /* beyond the end: the end */
    assert_int_equal(r.start, 10);
    ring_fini(&r);
}

static void test_merging(void **state)
{
    struct ring r;
    struct ring_span span;
    (void)state;
    ring_init(&r, 4096);
    (void)put(&r, "a", 5 * MS);
    (void)put(&r, "b", 5 * MS + 1000);
    (void)put(&r, "c", 4 * MS); /* the clock was set back: a record of its own */
    assert_true(ring_read(&r, 0, 100, &span));
    assert_int_equal(span.len, 2);
    assert_true(ring_read(&r, 2, 100, &span));
    assert_int_equal(span.time_ns, 4 * MS);
    ring_fini(&r);
}

static void test_limit(void **state)
{
    struct ring r;
    (void)state;
    char big[5001];
    memset(big, 'x', 5000);
    big[5000] = '\0';
    ring_init(&r, 10); /* too small: 4096 */
    assert_int_equal(put(&r, big, 1), 4096);
    assert_int_equal(ring_room(&r), 0);
    ring_ack(&r, 96);
    assert_int_equal(ring_room(&r), 96);
    ring_raise_limit(&r, 1000);
    assert_int_equal(put(&r, big, 1), 1096);
    ring_fini(&r);
    assert_null(r.data);
}

/* Single bytes a millisecond apart must not cost a record each. */
static void test_record_bound(void **state)
{
    struct ring r;
    (void)state;
    ring_init(&r, 64 << 10);
    for (int i = 0; i < 60000; i++)
        assert_int_equal(put(&r, "z", (int64_t)i * 10 * MS), 1);
    assert_true(r.n_records <= (64 << 10) / 128);
    ring_fini(&r);
}

static void test_random(void **state)
{
    static char model[1 << 20];
    struct ring r;
    unsigned seed = 12345;
    size_t written = 0, read = 0;
    (void)state;
    ring_init(&r, 20000);
    while (written < sizeof(model)) {
        size_t want = (size_t)rand_r(&seed) % 7000 + 1;
        uint8_t *space;
        size_t n;
        struct err err;
        assert_int_equal(ring_reserve(&r, want, &space, &n, &err), 0);
        if (n > sizeof(model) - written)
            n = sizeof(model) - written;
        for (size_t i = 0; i < n; i++) {
            space[i] = (uint8_t)rand_r(&seed);
            model[written + i] = (char)space[i];
        }
        ring_commit(&r, n, (int64_t)written * MS);
        written += n;
        assert_true(written - read <= 20000);

        size_t stop = read + (written - read) * ((size_t)rand_r(&seed) % 100) / 99;
        uint64_t at = read;
        struct ring_span span;
        while (at < stop && ring_read(&r, at, stop - at, &span)) {
            assert_memory_equal(span.data, model + at, span.len);
            at += span.len;
        }
        assert_int_equal(at, stop);
        read = stop;
        ring_ack(&r, read);
    }
    ring_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records), cmocka_unit_test(test_merging),
        cmocka_unit_test(test_limit),   cmocka_unit_test(test_record_bound),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
