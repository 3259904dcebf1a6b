/* SPDX-License-Identifier: Apache-2.0 */
/* host/cli/runspec and output: what `casemate run` asks for, its exit codes, its output. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "host/cli/output.h"
#include "host/cli/runspec.h"

static char image[] = "busybox", arg0[] = "sh", arg1[] = "-c";
static char *args[] = {arg0, arg1};

static struct cli_run_spec plain_spec(void)
{
    return (struct cli_run_spec){.image = image, .args = args, .n_args = 2, .log_dir = "/tmp/log"};
}

static void a_plain_command_asks_for_little(void **state)
{
    (void)state;
    struct err err = {0};
    struct cli_run_config *config = NULL;
    struct cli_run_spec spec = plain_spec();
    assert_int_equal(cli_run_spec_check(&spec, &err), 0);
    assert_int_equal(cli_run_config_new(&spec, &config, &err), 0);
    const Runtime__V1__PodSandboxConfig *pod = cli_run_pod_config(config);
    assert_memory_equal(pod->metadata->name, "run-", 4);
    assert_int_equal(strlen(pod->metadata->name), 12);
    assert_int_equal(strlen(pod->metadata->uid), 32);
    assert_string_equal(pod->hostname, pod->metadata->name);
    assert_string_equal(pod->log_directory, "/tmp/log");
    assert_null(pod->linux->resources);
    const Runtime__V1__ContainerConfig *c = cli_run_container_config(config);
    assert_string_equal(c->image->image, "busybox");
    assert_int_equal(c->n_command, 0);
    assert_int_equal(c->n_args, 2);
    assert_string_equal(c->args[1], "-c");
    assert_int_equal(c->n_envs, 0);
    assert_string_equal(c->working_dir, "");
    assert_null(c->linux->resources);
    assert_null(c->linux->security_context->run_as_user);
    assert_string_equal(c->linux->security_context->run_as_username, "");
    /* The filter finds this pod and no other. */
    const Runtime__V1__PodSandboxFilter *f = cli_run_filter(config);
    assert_int_equal(f->n_label_selector, 1);
    assert_string_equal(f->label_selector[0]->key, pod->labels[0]->key);
    assert_string_equal(f->label_selector[0]->value, pod->labels[0]->value);
    assert_string_equal(pod->labels[0]->value, pod->metadata->uid);
    /* All of it can go on the wire. */
    assert_true(protobuf_c_message_check(&pod->base));
    assert_true(protobuf_c_message_check(&c->base));
    cli_run_config_free(config);
}

static void every_option_is_said(void **state)
{
    (void)state;
    struct err err = {0};
    struct cli_run_config *config = NULL;
    static struct cli_list env = {.items = {"A=1", "EMPTY=", "B=x=y", "FROM_US", "NOT_SET"},
                                  .n = 5};
    assert_int_equal(setenv("FROM_US", "ours", 1), 0);
    assert_int_equal(unsetenv("NOT_SET"), 0);
    struct cli_run_spec spec = plain_spec();
    spec.env = &env;
    spec.entrypoint = "/bin/app";
    spec.user = "1000:2000";
    spec.workdir = "/w";
    spec.name = "my-pod";
    spec.memory_mib = 64;
    assert_int_equal(cli_run_spec_check(&spec, &err), 0);
    assert_int_equal(cli_run_config_new(&spec, &config, &err), 0);
    const Runtime__V1__ContainerConfig *c = cli_run_container_config(config);
    assert_int_equal(c->n_envs, 4);
    assert_string_equal(c->envs[0]->key, "A");
    assert_string_equal(c->envs[0]->value, "1");
    assert_string_equal(c->envs[1]->value, "");
    assert_string_equal(c->envs[2]->value, "x=y");
    assert_string_equal(c->envs[3]->key, "FROM_US");
    assert_string_equal(c->envs[3]->value, "ours");
    assert_int_equal(c->n_command, 1);
    assert_string_equal(c->command[0], "/bin/app");
    assert_string_equal(c->working_dir, "/w");
    assert_int_equal(c->linux->security_context->run_as_user->value, 1000);
    assert_int_equal(c->linux->security_context->run_as_group->value, 2000);
    assert_int_equal(c->linux->resources->memory_limit_in_bytes, 64 << 20);
    assert_string_equal(cli_run_pod_config(config)->metadata->name, "my-pod");
    cli_run_config_free(config);

    spec.user = "www-data";
    assert_int_equal(cli_run_config_new(&spec, &config, &err), 0);
    c = cli_run_container_config(config);
    assert_string_equal(c->linux->security_context->run_as_username, "www-data");
    assert_null(c->linux->security_context->run_as_user);
    assert_null(c->linux->security_context->run_as_group);
    cli_run_config_free(config);
}

static void assert_refuses(struct cli_run_spec spec, const char *words)
{
    struct err err = {0};
    assert_int_equal(cli_run_spec_check(&spec, &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    if (strstr(err.msg, words) == NULL)
        fail_msg("'%s' lacks '%s'", err.msg, words);
}

static void what_cannot_be_said_is_refused_by_name(void **state)
{
    (void)state;
    static struct cli_list no_name = {.items = {"=x"}, .n = 1};
    static struct cli_list not_utf8 = {.items = {"A=\xff"}, .n = 1};
    struct cli_run_spec s = plain_spec();
    s.name = "Upper";
    assert_refuses(s, "--name");
    s.name = "-x";
    assert_refuses(s, "--name");
    s.name = "a/b";
    assert_refuses(s, "--name");
    s = plain_spec();
    s.user = ":5";
    assert_refuses(s, "--user");
    s.user = "1:staff";
    assert_refuses(s, "--user");
    s = plain_spec();
    s.workdir = "relative";
    assert_refuses(s, "--workdir");
    s = plain_spec();
    s.env = &no_name;
    assert_refuses(s, "--env");
    s.env = &not_utf8;
    assert_refuses(s, "--env");
    s = plain_spec();
    s.image = "";
    assert_refuses(s, "image");
    static char bad[] = "\xc3";
    static char *bad_args[] = {bad};
    s = plain_spec();
    s.args = bad_args;
    s.n_args = 1;
    assert_refuses(s, "argument 1");
}

static int start_code(enum err_code code, const char *message)
{
    struct err err = {0};
    (void)err_set(&err, code, "%s", message);
    return cli_run_start_failure(&err);
}

static int exit_code(int code, const char *reason)
{
    struct cli_exit_status s = {.exit_code = code};
    (void)snprintf(s.reason, sizeof(s.reason), "%s", reason);
    return cli_run_exit_code(&s);
}

static void exit_codes_are_those_people_know(void **state)
{
    (void)state;
    assert_int_equal(start_code(ERR_NOT_FOUND, "exec /x: no such file or directory"), 127);
    assert_int_equal(start_code(ERR_SYSTEM, "exec 'x': No such file or directory"), 127);
    assert_int_equal(start_code(ERR_DENIED, "exec /etc/passwd: Permission denied"), 126);
    assert_int_equal(start_code(ERR_SYSTEM, "exec /x: Exec format error"), 126);
    assert_int_equal(start_code(ERR_UNAVAILABLE, "socket not found"), 125);
    assert_int_equal(start_code(ERR_SYSTEM, "cgroup: device busy"), 125);
    assert_int_equal(exit_code(0, "Completed"), 0);
    assert_int_equal(exit_code(3, "Error"), 3);
    assert_int_equal(exit_code(137, "OOMKilled"), 137);
    assert_int_equal(exit_code(255, "VMExited"), 125);
    assert_int_equal(exit_code(-1, "Error"), 125);
    assert_int_equal(exit_code(256, ""), 125);
}

/* ---- output ---- */

static struct cli_output out;

static int put(bool is_stderr, const void *text, size_t n, bool ends_line, struct err *err)
{
    static const char time[] = "2026-01-02T03:04:05Z";
    struct cli_log_piece p = {.is_stderr = is_stderr,
                              .text = text,
                              .n = n,
                              .ends_line = ends_line,
                              .begins = true,
                              .time = time,
                              .time_len = strlen(time)};
    return cli_output_piece(&out, &p, err);
}

/* What was written to a temporary file. */
static void assert_file(int fd, const char *text)
{
    char got[256] = "";
    assert_int_equal(pread(fd, got, sizeof(got) - 1, 0), strlen(text));
    assert_string_equal(got, text);
}

static int nameless_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void output_goes_where_it_belongs(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_fd int o = nameless_file();
    cleanup_fd int e = nameless_file();
    out = (struct cli_output){.out_fd = o, .err_fd = e};
    assert_int_equal(put(false, "one", 3, true, &err), 0);
    assert_int_equal(put(true, "oops", 4, true, &err), 0);
    assert_int_equal(put(false, "tw", 2, false, &err), 0);
    assert_int_equal(put(false, "o", 1, true, &err), 0);
    assert_int_equal(cli_output_flush(&out, &err), 0);
    assert_file(o, "one\ntwo\n");
    assert_file(e, "oops\n");
}

static void time_stands_before_lines_and_not_inside(void **state)
{
    (void)state;
    struct err err = {0};
    cleanup_fd int o = nameless_file();
    out = (struct cli_output){.out_fd = o, .err_fd = o, .timestamps = true};
    assert_int_equal(put(false, "tw", 2, false, &err), 0);
    assert_int_equal(put(false, "o", 1, true, &err), 0);
    assert_int_equal(put(false, "x", 1, true, &err), 0);
    assert_int_equal(cli_output_flush(&out, &err), 0);
    assert_file(o, "2026-01-02T03:04:05Z two\n2026-01-02T03:04:05Z x\n");
}

static void a_reader_that_left_is_noticed(void **state)
{
    (void)state;
    struct err err = {0};
    int p[2];
    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    (void)close(p[0]);
    out = (struct cli_output){.out_fd = p[1], .err_fd = p[1]};
    /* Of standard error it is survived. */
    assert_int_equal(put(true, "x", 1, true, &err), 0);
    assert_int_equal(cli_output_flush(&out, &err), 0);
    assert_false(out.broken);
    assert_int_equal(put(false, "x", 1, true, &err), 0);
    assert_int_equal(cli_output_flush(&out, &err), 0);
    assert_true(out.broken);
    (void)close(p[1]);
}

static void a_reader_that_stalls_can_be_given_up(void **state)
{
    (void)state;
    struct err err = {0};
    int p[2];
    static char big[128 << 10];
    bool discard = true;
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_true(fcntl(p[1], F_SETPIPE_SZ, 4096) >= 4096);
    out = (struct cli_output){.out_fd = p[1], .err_fd = p[1], .discard = &discard};
    assert_int_equal(put(false, big, sizeof(big), true, &err), 0);
    assert_int_equal(cli_output_flush(&out, &err), 0);
    assert_false(out.broken);
    (void)close(p[0]);
    (void)close(p[1]);
}

int main(void)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_command_asks_for_little),
        cmocka_unit_test(every_option_is_said),
        cmocka_unit_test(what_cannot_be_said_is_refused_by_name),
        cmocka_unit_test(exit_codes_are_those_people_know),
        cmocka_unit_test(output_goes_where_it_belongs),
        cmocka_unit_test(time_stands_before_lines_and_not_inside),
        cmocka_unit_test(a_reader_that_left_is_noticed),
        cmocka_unit_test(a_reader_that_stalls_can_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
