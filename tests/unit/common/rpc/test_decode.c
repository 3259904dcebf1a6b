/* SPDX-License-Identifier: Apache-2.0 */
/* Arena, frame decoder, message checks; each also with every allocation failing in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/buf.h"
#include "common/rpc/arena.h"
#include "common/rpc/check.h"
#include "common/rpc/frame.h"
#include "common/rpc/mem.h"
#include "proto/test/rpc_test.pb-c.h"

#define ECHO_TYPE (&casemate__test__v1__echo_request__descriptor)

static void test_arena(void **state)
{
    struct rpc_arena *arena;
    struct err err;
    (void)state;
    assert_int_equal(rpc_arena_new(1 << 20, &arena, &err), 0);
    size_t total = 0;
    for (size_t n = 0; n < 3000; n += 7) {
        uint8_t *p = rpc_arena_alloc(arena, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, (int)n, n); /* the sanitizers see overlaps with neighbours' ends */
        total += n;
    }
    assert_true(rpc_arena_used(arena) >= total);
    assert_false(rpc_arena_refused(arena));
    assert_null(rpc_arena_alloc(arena, 1 << 20));
    assert_true(rpc_arena_over_limit(arena));
    assert_null(rpc_arena_alloc(arena, SIZE_MAX));
    assert_non_null(rpc_arena_alloc(arena, 1)); /* a refusal breaks nothing */
    rpc_arena_free(arena);
    rpc_arena_free(NULL);
}

static void test_arena_no_memory(void **state)
{
    struct err err;
    (void)state;
    for (long fail = 1; fail < 8; fail++) {
        struct rpc_arena *arena = NULL;
        rpc_mem_fail_from(fail);
        if (rpc_arena_new(1 << 20, &arena, &err) < 0) {
            assert_int_equal(err.code, ERR_EXHAUSTED);
        } else {
            size_t n = 0;
            while (rpc_arena_alloc(arena, 1000) != NULL)
                n++;
            assert_true(rpc_arena_refused(arena));
            assert_false(rpc_arena_over_limit(arena));
            assert_true(n < 1000);
        }
        rpc_mem_fail_from(0);
        rpc_arena_free(arena);
    }
}

/* Feeds all bytes in steps; returns the number of messages or -1. Checks each message to be `n`
 * times byte `fill`. */
static int feed(struct rpc_frame *frame, const uint8_t *bytes, size_t n, size_t step,
                struct err *err)
{
    int messages = 0;
    for (size_t at = 0; at < n;) {
        size_t part = n - at < step ? n - at : step;
        size_t used = 0;
        struct rpc_bytes m;
        int r = rpc_frame_feed(frame, bytes + at, part, &used, &m, err);
        if (r < 0)
            return -1;
        if (r > 0) {
            for (size_t i = 0; i < m.len; i++)
                assert_int_equal(m.data[i], (uint8_t)m.len);
            free(m.data);
            messages++;
        }
        assert_true(used <= part && used > 0);
        at += used;
    }
    return messages;
}

static void test_frame(void **state)
{
    struct buf bytes = BUF_INIT(1 << 20);
    struct rpc_budget budget = {.max = 1 << 20};
    struct err err;
    (void)state;
    for (size_t n = 0; n < 300; n++) {
        struct rpc_chunk *c = rpc_chunk_new(n);
        memset(c->bytes + RPC_FRAME_HEAD, (int)n, n);
        assert_int_equal(buf_append(&bytes, c->bytes, c->len, &err), 0);
        rpc_chunk_free(c);
    }
    for (size_t step = 1; step < 2000; step = step * 2 + 1) {
        struct rpc_frame frame;
        rpc_frame_init(&frame, 300, &budget);
        assert_int_equal(feed(&frame, buf_bytes(&bytes), bytes.len, step, &err), 300);
        assert_false(rpc_frame_partial(&frame));
        assert_int_equal(budget.used, 0);
        rpc_frame_fini(&frame);
    }
    buf_fini(&bytes);
}

static void test_frame_refusals(void **state)
{
    struct rpc_budget budget = {.max = 100000};
    struct rpc_frame frame;
    struct err err;
    (void)state;
    rpc_frame_init(&frame, 1000, &budget);
    assert_int_equal(feed(&frame, (const uint8_t *)"\0\0\0\3\xe8", 5, 5, &err), 0);
    assert_true(rpc_frame_partial(&frame));
    rpc_frame_fini(&frame);
    assert_int_equal(feed(&frame, (const uint8_t *)"\0\0\0\3\xe9", 5, 2, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    rpc_frame_init(&frame, 1000, &budget);
    assert_int_equal(feed(&frame, (const uint8_t *)"\1\0\0\0\1x", 6, 6, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    rpc_frame_init(&frame, 1000, &budget);
    assert_int_equal(feed(&frame, (const uint8_t *)"\2\0\0\0\1x", 6, 6, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    rpc_frame_init(&frame, UINT32_MAX, &budget);
    assert_int_equal(feed(&frame, (const uint8_t *)"\0\xff\xff\xff\xff", 5, 5, &err), 0);
    assert_int_equal(frame.capacity, 0); /* a length alone buys nothing */
    uint8_t filler[70000] = {0};
    assert_int_equal(feed(&frame, filler, 1, 1, &err), 0);
    assert_int_equal(budget.used, 64 << 10);
    assert_int_equal(feed(&frame, filler, sizeof(filler), sizeof(filler), &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED); /* the budget of the connection */
    rpc_frame_fini(&frame);
    assert_int_equal(budget.used, 0);
}

static void test_frame_no_memory(void **state)
{
    struct rpc_budget budget = {.max = 1 << 20};
    uint8_t bytes[200000] = {0, 0, 3, 0x0d, 0x3b};
    (void)state;
    for (long fail = 1; fail < 4; fail++) {
        struct rpc_frame frame;
        struct err err;
        rpc_frame_init(&frame, 1 << 20, &budget);
        rpc_mem_fail_from(fail);
        int r = feed(&frame, bytes, sizeof(bytes), 1000, &err);
        rpc_mem_fail_from(0);
        assert_int_equal(r, -1);
        assert_int_equal(err.code, ERR_EXHAUSTED);
        rpc_frame_fini(&frame);
        assert_int_equal(budget.used, 0);
    }
    rpc_mem_fail_from(1);
    assert_null(rpc_chunk_new(10));
    rpc_mem_fail_from(0);
}

static int decode(const void *bytes, size_t n, struct err *err)
{
    struct rpc_arena *arena;
    ProtobufCMessage *m = NULL;
    assert_int_equal(rpc_arena_new(1 << 20, &arena, err), 0);
    int r = rpc_decode(ECHO_TYPE, bytes, n, arena, &m, err);
    assert_int_equal(m != NULL, r == 0);
    rpc_arena_free(arena);
    return r;
}

#define DECODE(literal) decode(literal, sizeof(literal) - 1, &err)

static void test_decode_checks(void **state)
{
    struct err err;
    (void)state;
    assert_int_equal(DECODE(""), 0);
    assert_int_equal(DECODE("\x0a\x03"
                            "abc"),
                     0);
    assert_int_equal(DECODE("\x0a\x03"
                            "a\0c"),
                     -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "EchoRequest.text"));
    assert_int_equal(DECODE("\x0a\x02\xc3\x28"), -1); /* invalid UTF-8 */
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(DECODE("\x12\x02\xc3\x00"), 0);          /* bytes may hold anything */
    assert_int_equal(DECODE("\x1a\x04\x0a\x02\xff\xfe"), -1); /* inside inners[0].text */
    assert_non_null(strstr(err.msg, "Inner.text"));
    assert_int_equal(DECODE("\x22\x05\x0a\x01k\x12\x01\xff"), -1); /* shorter than it says */
    assert_int_equal(DECODE("\x22\x06\x0a\x01k\x12\x01\xff"), -1); /* a map's value */
    assert_int_equal(DECODE("\x3a\x01\0"), -1);                    /* a repeated string */
    assert_int_equal(DECODE("\x0a\x05"
                            "ab"),
                     -1);                      /* truncated */
    assert_int_equal(DECODE("\x0a"), -1);      /* no length */
    assert_int_equal(DECODE("\x0b\x0c"), -1);  /* a group */
    assert_int_equal(DECODE("\x02\x01x"), -1); /* field number 0 */
    assert_int_equal(DECODE("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), -1);
    assert_int_equal(DECODE("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"), -1);
    assert_int_equal(DECODE("\x08\x01"), -1); /* a varint where text belongs */
    assert_int_equal(DECODE("\xa2\x06\x03xyz\xa8\x06\x01\xb5\x06\1\2\3\4"), 0); /* unknown fields */
}

/* n levels of EchoRequest.inners[0].inner.inner… */
static size_t nest(uint8_t *to, size_t room, int levels)
{
    size_t n = 0;
    for (int i = 0; i < levels; i++) {
        uint8_t head[8];
        size_t h = 0;
        head[h++] = i == levels - 1 ? 0x1a : 0x12;
        head[h++] = (uint8_t)((n & 0x7f) | 0x80);
        head[h++] = (uint8_t)(n >> 7);
        assert_true(n + h <= room);
        memmove(to + h, to, n);
        memcpy(to, head, h);
        n += h;
    }
    return n;
}

static void test_decode_depth(void **state)
{
    uint8_t bytes[4096];
    struct err err;
    (void)state;
    assert_int_equal(decode(bytes, nest(bytes, sizeof(bytes), RPC_MAX_DEPTH - 1), &err), 0);
    assert_int_equal(decode(bytes, nest(bytes, sizeof(bytes), RPC_MAX_DEPTH), &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.msg, "nested deeper"));
    assert_int_equal(decode(bytes, nest(bytes, sizeof(bytes), 1000), &err), -1);
}

static void test_decode_bomb(void **state)
{
    /* Each pair of bytes is one more empty message in `inners`. */
    size_t n = 200000;
    uint8_t *bytes = malloc(n);
    struct err err;
    (void)state;
    for (size_t i = 0; i < n; i += 2)
        memcpy(bytes + i, "\x1a\x00", 2);
    assert_int_equal(decode(bytes, n, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    free(bytes);
}

static struct rpc_chunk *sample(void)
{
    Casemate__Test__V1__EchoRequest m = CASEMATE__TEST__V1__ECHO_REQUEST__INIT;
    char word[] = "word", key[] = "key";
    char *words[] = {word, key, word};
    Casemate__Test__V1__Inner inner = CASEMATE__TEST__V1__INNER__INIT;
    Casemate__Test__V1__Inner *inners[] = {&inner, &inner};
    Casemate__Test__V1__EchoRequest__LabelsEntry label =
        CASEMATE__TEST__V1__ECHO_REQUEST__LABELS_ENTRY__INIT;
    Casemate__Test__V1__EchoRequest__LabelsEntry *labels[] = {&label};
    struct rpc_chunk *chunk = NULL;
    struct err err;
    inner.text = word;
    label.key = key;
    label.value = word;
    m.text = word;
    m.n_words = 3;
    m.words = words;
    m.n_inners = 2;
    m.inners = inners;
    m.n_labels = 1;
    m.labels = labels;
    m.choice_case = CASEMATE__TEST__V1__ECHO_REQUEST__CHOICE_NESTED;
    m.nested = &inner;
    assert_int_equal(rpc_encode(&m.base, 1 << 20, &chunk, &err), 0);
    return chunk;
}

static void test_round_trip_no_memory(void **state)
{
    struct rpc_chunk *chunk = sample();
    bool done = false;
    (void)state;
    for (long fail = 1; !done; fail++) {
        struct rpc_arena *arena;
        ProtobufCMessage *m = NULL;
        struct err err;
        assert_true(fail < 100);
        rpc_mem_fail_from(fail);
        int r = rpc_arena_new(1 << 20, &arena, &err);
        if (r == 0) {
            r = rpc_decode(ECHO_TYPE, chunk->bytes + RPC_FRAME_HEAD, chunk->len - RPC_FRAME_HEAD,
                           arena, &m, &err);
            rpc_mem_fail_from(0);
            if (r == 0) {
                const Casemate__Test__V1__EchoRequest *e = (const void *)m;
                assert_string_equal(e->words[2], "word");
                assert_string_equal(e->nested->text, "word");
                assert_string_equal(e->labels[0]->key, "key");
                done = true;
            }
            rpc_arena_free(arena);
        }
        rpc_mem_fail_from(0);
        if (r < 0)
            assert_int_equal(err.code, ERR_EXHAUSTED);
    }
    rpc_chunk_free(chunk);
}

/* The same message through an arena that ends at every possible point. */
static void test_decode_arena_limits(void **state)
{
    struct rpc_chunk *chunk = sample();
    bool done = false;
    (void)state;
    for (size_t limit = 0; !done; limit += 16) {
        struct rpc_arena *arena;
        ProtobufCMessage *m;
        struct err err;
        assert_int_equal(rpc_arena_new(limit, &arena, &err), 0);
        int r = rpc_decode(ECHO_TYPE, chunk->bytes + RPC_FRAME_HEAD, chunk->len - RPC_FRAME_HEAD,
                           arena, &m, &err);
        if (r < 0)
            assert_int_equal(err.code, ERR_EXHAUSTED);
        else
            done = true;
        assert_true(limit < 1 << 16);
        rpc_arena_free(arena);
    }
    rpc_chunk_free(chunk);
}

static void test_encode_refusals(void **state)
{
    Casemate__Test__V1__EchoRequest m = CASEMATE__TEST__V1__ECHO_REQUEST__INIT;
    Casemate__Test__V1__Inner inner = CASEMATE__TEST__V1__INNER__INIT;
    char bad[] = "\xff", good[] = "good";
    struct rpc_chunk *chunk = NULL;
    struct err err;
    (void)state;
    m.text = bad;
    assert_int_equal(rpc_encode(&m.base, 100, &chunk, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    m.text = good;
    m.choice_case = CASEMATE__TEST__V1__ECHO_REQUEST__CHOICE_NESTED;
    m.nested = &inner;
    inner.text = bad;
    assert_int_equal(rpc_encode(&m.base, 100, &chunk, &err), -1);
    m.choice_case = CASEMATE__TEST__V1__ECHO_REQUEST__CHOICE__NOT_SET;
    assert_int_equal(rpc_encode(&m.base, 100, &chunk, &err), 0); /* not chosen, not looked at */
    rpc_chunk_free(chunk);
    chunk = NULL;
    assert_int_equal(rpc_encode(&m.base, 5, &chunk, &err), -1);
    assert_int_equal(err.code, ERR_EXHAUSTED);
    assert_null(chunk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_arena_no_memory),
        cmocka_unit_test(test_frame),
        cmocka_unit_test(test_frame_refusals),
        cmocka_unit_test(test_frame_no_memory),
        cmocka_unit_test(test_decode_checks),
        cmocka_unit_test(test_decode_depth),
        cmocka_unit_test(test_decode_bomb),
        cmocka_unit_test(test_round_trip_no_memory),
        cmocka_unit_test(test_decode_arena_limits),
        cmocka_unit_test(test_encode_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
