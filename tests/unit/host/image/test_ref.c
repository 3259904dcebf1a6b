/* SPDX-License-Identifier: Apache-2.0 */
/* References: normalisation as containerd does it, and what is refused. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base/text.h"
#include "host/image/ref.h"

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEX64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_normalises(void **state)
{
    static const struct {
        const char *text;
        const char *wanted;
    } cases[] = {
        {"busybox", "docker.io/library/busybox:latest"},
        {"busybox:1.36", "docker.io/library/busybox:1.36"},
        {"library/busybox", "docker.io/library/busybox:latest"},
        {"user/app", "docker.io/user/app:latest"},
        {"docker.io/busybox", "docker.io/library/busybox:latest"},
        {"index.docker.io/busybox", "docker.io/library/busybox:latest"},
        {"index.docker.io/user/app:x", "docker.io/user/app:x"},
        {"localhost/app", "localhost/app:latest"},
        {"localhost:5000/app", "localhost:5000/app:latest"},
        {"127.0.0.1:5000/a/b/c:T_1.x-y", "127.0.0.1:5000/a/b/c:T_1.x-y"},
        {"[::1]:5000/app", "[::1]:5000/app:latest"},
        {"Host/app", "Host/app:latest"},
        {"my.registry/app", "my.registry/app:latest"},
        {"a__b/c--d/e.f/g_h", "docker.io/a__b/c--d/e.f/g_h:latest"},
        {"busybox@" DIGEST, "docker.io/library/busybox@" DIGEST},
        {"busybox:1@" DIGEST, "docker.io/library/busybox@" DIGEST},
        {"registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"},
        {"gcr.io/k8s-staging-cri-tools/test-image-tags:1",
         "gcr.io/k8s-staging-cri-tools/test-image-tags:1"},
        {HEX64 "a", "docker.io/library/" HEX64 "a:latest"},
        {"localhosts/app", "docker.io/localhosts/app:latest"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct ref ref;
        struct err err = {0};
        char text[REF_TEXT_SIZE];
        if (ref_parse(cases[i].text, &ref, &err) < 0)
            fail_msg("%s: %s", cases[i].text, err.msg);
        ref_format(&ref, text);
        assert_string_equal(text, cases[i].wanted);
        /* what was normalised stays as it is */
        assert_int_equal(ref_parse(text, &ref, &err), 0);
        ref_format(&ref, text);
        assert_string_equal(text, cases[i].wanted);
    }
}

static void test_refuses(void **state)
{
    static const char *const cases[] = {
        "",
        ":",
        "/",
        "@",
        "a:",
        ":a",
        "a@",
        "/a",
        "a/",
        "a//b",
        "A",
        "a/B",
        "host.x/A",
        "a b",
        "a:b:c",
        "a:-x",
        "a:.x",
        "a@sha256:123",
        "a@md5:0123456789abcdef0123456789abcdef",
        "a@" DIGEST "0",
        HEX64,
        "-a",
        "a-",
        "_a",
        "a_",
        ".a",
        "a.",
        "a___b",
        "a..b",
        "a._b",
        "host.:5000/a",
        "host:x/a",
        "host:/a",
        "-h.x/a",
        "h-.x/a",
        "[::1/a",
        "[]/a",
        "[g::]/a",
        "http://host/a",
        "host.x/",
        "host.x//a",
        "host.x:5000",
        "a\nb",
        "a:\x01",
        "\xc3\xa4",
        "a@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
        "h_x.y/a",
        "a?x",
        "a#x",
        "a%20",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct ref ref;
        struct err err = {0};
        if (strcmp(cases[i], "host.x:5000") == 0) /* a tag, by the grammar */
            continue;
        if (ref_parse(cases[i], &ref, &err) == 0)
            fail_msg("'%s' was accepted", cases[i]);
        assert_int_equal(err.code, ERR_INVALID);
    }
}

static void test_lengths(void **state)
{
    char text[1024];
    struct ref ref;
    struct err err = {0};
    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "h.x/", 4);
    text[4 + REF_MAX_NAME] = '\0';
    assert_int_equal(ref_parse(text, &ref, &err), 0);
    text[4 + REF_MAX_NAME] = 'a';
    text[5 + REF_MAX_NAME] = '\0';
    assert_int_equal(ref_parse(text, &ref, &err), -1);
    memset(text, 'b', sizeof(text));
    memcpy(text, "a:", 2);
    text[2 + REF_MAX_TAG] = '\0';
    assert_int_equal(ref_parse(text, &ref, &err), 0);
    text[2 + REF_MAX_TAG] = 'b';
    text[3 + REF_MAX_TAG] = '\0';
    assert_int_equal(ref_parse(text, &ref, &err), -1);
    text[sizeof(text) - 1] = '\0';
    memset(text, 'c', sizeof(text) - 1);
    assert_int_equal(ref_parse(text, &ref, &err), -1);
}

static void test_other_algorithms(void **state)
{
    struct ref ref;
    struct err err = {0};
    char text[256] = "a@sha512:";
    (void)state;
    memset(text + 9, '0', 128);
    assert_int_equal(ref_parse(text, &ref, &err), -1);
    assert_int_equal(err.code, ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalises),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_other_algorithms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
