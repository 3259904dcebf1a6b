/* SPDX-License-Identifier: Apache-2.0 */
/* Challenges, token answers and credentials. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "host/image/auth.h"
#include "host/image/credhelper.h"

static void test_bearer(void **state)
{
    struct auth_challenge c;
    struct err err = {0};
    (void)state;
    assert_int_equal(auth_parse_challenge("Bearer realm=\"https://auth.x/token\",service=\"reg\","
                                          "scope=\"repository:a/b:pull,push\",error=\"x\"",
                                          &c, &err),
                     0);
    assert_int_equal(c.scheme, AUTH_BEARER);
    assert_string_equal(c.realm, "https://auth.x/token");
    assert_string_equal(c.service, "reg");
    assert_string_equal(c.scope, "repository:a/b:pull,push");
    assert_int_equal(auth_parse_challenge("bearer  service=reg , realm=\"a\\\"b\"", &c, &err), 0);
    assert_string_equal(c.realm, "a\"b");
    assert_string_equal(c.service, "reg");
}

static void test_basic_and_others(void **state)
{
    struct auth_challenge c;
    struct err err = {0};
    (void)state;
    assert_int_equal(auth_parse_challenge("Basic realm=\"x\"", &c, &err), 0);
    assert_int_equal(c.scheme, AUTH_BASIC);
    assert_int_equal(auth_parse_challenge("Basic", &c, &err), 0);
    assert_int_equal(c.scheme, AUTH_BASIC);
    assert_int_equal(auth_parse_challenge("Negotiate abc=", &c, &err), 0);
    assert_int_equal(c.scheme, AUTH_NONE);
    assert_int_equal(auth_parse_challenge("Basic realm=\"a\", Bearer realm=\"b\"", &c, &err), 0);
    assert_int_equal(c.scheme, AUTH_BASIC);
}

static void test_malformed_challenges(void **state)
{
    char big[4096];
    struct auth_challenge c;
    struct err err = {0};
    (void)state;
    assert_int_equal(auth_parse_challenge("Bearer realm=\"x", &c, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_int_equal(auth_parse_challenge("Bearer service=x", &c, &err), -1);
    assert_int_equal(auth_parse_challenge("Bearer realm=\"\\", &c, &err), -1);
    memset(big, 'a', sizeof(big));
    memcpy(big, "Bearer realm=\"", 14);
    big[sizeof(big) - 2] = '"';
    big[sizeof(big) - 1] = '\0';
    assert_int_equal(auth_parse_challenge(big, &c, &err), -1);
}

static void check_token(const char *json, const char *wanted)
{
    char *token = NULL;
    struct err err = {0};
    int rc = auth_parse_token(json, strlen(json), &token, &err);
    if (wanted == NULL) {
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
        return;
    }
    assert_int_equal(rc, 0);
    assert_string_equal(token, wanted);
    auth_wipe_free(token);
}

static void test_tokens(void **state)
{
    (void)state;
    check_token("{\"token\": \"abc\"}", "abc");
    check_token("{\"access_token\": \"def\", \"expires_in\": 60}", "def");
    check_token("{\"token\": \"\", \"access_token\": \"g\"}", "g");
    check_token("{\"token\": \"a\\r\\nHost: evil\"}", NULL);
    check_token("{\"token\": 1}", NULL);
    check_token("{}", NULL);
    check_token("<html>", NULL);
    check_token("", NULL);
}

static void test_cri_credentials(void **state)
{
    struct auth_credentials c;
    struct err err = {0};
    struct image_auth pair = {.auth = "dXNlcjpwYXNzOndvcmQ="}; /* user:pass:word */
    struct image_auth other = {
        .username = "u", .password = "p", .server_address = "https://other.x/v1/"};
    struct image_auth bad = {.auth = "!!!!"};
    (void)state;
    assert_int_equal(auth_from_cri(&pair, "reg.x", &c, &err), 0);
    assert_string_equal(c.username, "user");
    assert_string_equal(c.password, "pass:word");
    auth_credentials_fini(&c);
    assert_int_equal(auth_from_cri(&other, "reg.x", &c, &err), 0);
    assert_null(c.username);
    assert_int_equal(auth_from_cri(&other, "other.x", &c, &err), 0);
    assert_string_equal(c.username, "u");
    auth_credentials_fini(&c);
    assert_int_equal(auth_from_cri(&bad, "reg.x", &c, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_null(strstr(err.msg, "!!!!"));
    assert_int_equal(auth_from_cri(NULL, "reg.x", &c, &err), 0);
    assert_null(c.username);
}

static void test_config_file(void **state)
{
    static const char json[] =
        "{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"YTpi\"}, "
        "\"reg.x:5000\": {\"identitytoken\": \"tok\"}}}";
    struct auth_credentials c;
    struct err err = {0};
    (void)state;
    assert_int_equal(auth_from_config(json, strlen(json), "docker.io", &c, &err), 0);
    assert_string_equal(c.username, "a");
    assert_string_equal(c.password, "b");
    auth_credentials_fini(&c);
    assert_int_equal(auth_from_config(json, strlen(json), "reg.x:5000", &c, &err), 0);
    assert_string_equal(c.identity_token, "tok");
    auth_credentials_fini(&c);
    assert_int_equal(auth_from_config(json, strlen(json), "reg.x", &c, &err), 0);
    assert_null(c.username);
    assert_int_equal(auth_from_config("{", 1, "reg.x", &c, &err), -1);
}

static void test_helpers(void **state)
{
    static const char json[] =
        "{\"credsStore\": \"all\", \"credHelpers\": {\"reg.x\": \"ecr-login\","
        " \"https://index.docker.io/v1/\": \"hub\", \"bad\": \"../sh\"}}";
    char name[CREDHELPER_MAX_NAME + 1] = "";
    struct auth_credentials c = {0};
    struct err err = {0};
    (void)state;
    assert_int_equal(credhelper_find(json, strlen(json), "reg.x", name, &err), 0);
    assert_string_equal(name, "ecr-login");
    assert_int_equal(credhelper_find(json, strlen(json), "docker.io", name, &err), 0);
    assert_string_equal(name, "hub");
    assert_int_equal(credhelper_find(json, strlen(json), "other", name, &err), 0);
    assert_string_equal(name, "all");
    assert_int_equal(credhelper_find(json, strlen(json), "bad", name, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_int_equal(credhelper_find("{}", 2, "reg.x", name, &err), 0);
    assert_string_equal(name, "");
    assert_int_equal(credhelper_find("{", 1, "reg.x", name, &err), -1);

    static const char plain[] = "{\"Username\": \"u\", \"Secret\": \"s\"}";
    static const char token[] = "{\"Username\": \"<token>\", \"Secret\": \"t\"}";
    assert_int_equal(credhelper_parse(plain, strlen(plain), &c, &err), 0);
    assert_string_equal(c.username, "u");
    assert_string_equal(c.password, "s");
    auth_credentials_fini(&c);
    assert_int_equal(credhelper_parse(token, strlen(token), &c, &err), 0);
    assert_null(c.username);
    assert_string_equal(c.identity_token, "t");
    auth_credentials_fini(&c);
    assert_int_equal(credhelper_parse("{\"Username\": 1}", 15, &c, &err), -1);
}

static void test_basic_value(void **state)
{
    char *value = auth_basic_value("user", "pass:word");
    (void)state;
    assert_string_equal(value, "Basic dXNlcjpwYXNzOndvcmQ=");
    auth_wipe_free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bearer),
        cmocka_unit_test(test_basic_and_others),
        cmocka_unit_test(test_malformed_challenges),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_cri_credentials),
        cmocka_unit_test(test_config_file),
        cmocka_unit_test(test_helpers),
        cmocka_unit_test(test_basic_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
