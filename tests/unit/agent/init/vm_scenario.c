/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives the agent in a VM that tests/integration/test_agent_vm.sh has booted: vm_scenario SOCKET.
 * LUN 0 and 1 are layers (busybox; a second layer that changes files of the first), LUN 2 is a
 * scratch disk. Prints "ok: what" per expectation that held, and ends with status 1 at the first
 * that did not.
 */
#include <signal.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/rpc/client.h"
#include "tests/fakes/agent_driver.h"

static const char *socket_path;

static void ok(const char *what)
{
    (void)printf("ok: %s\n", what);
    (void)fflush(stdout);
}

static bool contains(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static void test_hello(void)
{
    struct rpc_reply reply = {0};
    struct err err;
    Casemate__Agent__V1__HelloRequest request = CASEMATE__AGENT__V1__HELLO_REQUEST__INIT;
    request.version_min = request.version_max = 1;
    EXPECT(driver_call("Hello", &request.base, &reply, &err) == 0, "%s", err.msg);
    const Casemate__Agent__V1__HelloReply *r = (const void *)reply.message;
    EXPECT(r->version == 1 && r->memory_bytes > (64u << 20) && r->cpus > 0, "version %u",
           r->version);
    EXPECT(!r->configured, "configured before ConfigurePod");
    (void)printf("# kernel %s, agent %s, %llu MiB\n", r->kernel_release, r->agent_version,
                 (unsigned long long)r->memory_bytes >> 20);
    rpc_reply_fini(&reply);
    request.version_min = request.version_max = 99;
    EXPECT(driver_call("Hello", &request.base, NULL, &err) < 0 && err.code == ERR_BAD_STATE, "%s",
           err.msg);
    ok("Hello");
}

static int configure(const char *pod_id, int64_t realtime_ns, struct err *err)
{
    static uint8_t entropy[64];
    static char ext4[] = "ext4", hostname[] = "guest-pod",
                name[] = "net.ipv4.ip_unprivileged_port_start";
    static char value[] = "81";
    Casemate__Agent__V1__Disk scratch = CASEMATE__AGENT__V1__DISK__INIT;
    Casemate__Agent__V1__Sysctl sysctl = CASEMATE__AGENT__V1__SYSCTL__INIT;
    Casemate__Agent__V1__Sysctl *sysctls[] = {&sysctl};
    Casemate__Agent__V1__ConfigurePodRequest request =
        CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    scratch.lun = 2;
    scratch.fs_type = ext4;
    sysctl.name = name;
    sysctl.value = value;
    request.pod_id = (char *)(uintptr_t)pod_id;
    request.hostname = hostname;
    request.realtime_ns = realtime_ns;
    request.entropy = (ProtobufCBinaryData){.len = sizeof(entropy), .data = entropy};
    request.scratch = &scratch;
    request.sysctls = sysctls;
    request.n_sysctls = 1;
    request.shm_bytes = 8u << 20;
    return driver_call("ConfigurePod", &request.base, NULL, err);
}

static void test_configure(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "true", NULL);
    EXPECT(driver_create("early", &p, NULL, &err) < 0 && err.code == ERR_BAD_STATE, "%s", err.msg);
    EXPECT(configure("pod-1", clock_realtime_ns(), &err) == 0, "%s", err.msg);
    EXPECT(configure("pod-1", clock_realtime_ns(), &err) == 0, "%s", err.msg);
    EXPECT(configure("pod-2", clock_realtime_ns(), &err) < 0 && err.code == ERR_BAD_STATE, "%s",
           err.msg);
    ok("ConfigurePod, once, again, and not for another pod");
}

static void test_view(void)
{
    int code;
    char *text = driver_run(
        "view",
        "cat /etc/layer /etc/only-in-1; ls /etc/removed 2>&1; hostname; echo pid $$; id -u;"
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /dev; mount;"
        "grep -E 'Cap(Bnd|Eff|Prm)|NoNewPrivs' /proc/self/status; cat /proc/self/cgroup; env;"
        "wc -c < /proc/kcore; touch /proc/sys/kernel/panic 2>&1; df -k /dev/shm; date +%Y; exit 7",
        NULL, &code);
    EXPECT(code == 7, "exit code %d\n%s", code, text);
    EXPECT(contains(text, "layer two\nonly in one\n"), "%s", text);
    EXPECT(contains(text, "/etc/removed: No such file"), "whiteout\n%s", text);
    EXPECT(contains(text, "guest-pod\npid 1\n0\n81\n"), "%s", text);
    EXPECT(contains(text, "\nnull\n") && contains(text, "\npts\n") && contains(text, "\nshm\n"),
           "%s", text);
    EXPECT(contains(text, "NoNewPrivs:\t1"), "%s", text);
    EXPECT(contains(text, "CapEff:\t00000000080004eb"), "%s", text);
    EXPECT(contains(text, "CapBnd:\t00000000080004eb"), "%s", text);
    EXPECT(contains(text, "0::/\n"), "the cgroup namespace\n%s", text);
    EXPECT(contains(text, "HOME=/root"), "%s", text);
    EXPECT(contains(text, "Read-only file system"), "/proc/sys is writable\n%s", text);
    EXPECT(contains(text, "8192"), "the size of /dev/shm\n%s", text);
    EXPECT(!contains(text, "/run/casemate") || contains(text, "upperdir"), "%s", text);
    free(text);
    ok("root file system, namespaces, capabilities, devices, masked and read-only paths");
}

/* Nothing is left of what the kernel makes of the memory that it boots with. */
static void test_boot_limits(void)
{
    int code;
    char *text = driver_run("boot-limits",
                            "cd /proc/sys; cat kernel/pid_max kernel/threads-max fs/file-max;"
                            "grep -E 'Max (processes|pending)' /proc/self/limits | tr -s ' '",
                            NULL, &code);
    EXPECT(code == 0 && strcmp(text, "4194304\n4194304\n9223372036854775807\n"
                                     "Max processes unlimited unlimited processes \n"
                                     "Max pending signals unlimited unlimited signals \n") == 0,
           "%s", text);
    free(text);
    ok("the limits of processes, threads, signals and files are not those of the boot memory");
}

/* What the kubelet tells of nine thousand services. */
static void test_many_variables(void)
{
    enum { N = 65000 };
    static char texts[N][8];
    static char *env[N];
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "env", NULL);
    for (int i = 0; i < N; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "V%d=", i);
        env[i] = texts[i];
    }
    p.message.env = env;
    p.message.n_env = N;
    EXPECT(driver_create("variables", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("variables", &err) == 0, "%s", err.msg);
    char *text = driver_read("variables", "", 0, 0, true, NULL);
    EXPECT(contains(text, "V0=\n") && contains(text, "V64999=\n"), "%s", text);
    free(text);
    EXPECT(driver_remove("variables", "", &err) == 0, "%s", err.msg);
    ok("65000 variables");
}

static void test_failures(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "/bin/nope", NULL);
    EXPECT(driver_create("nope", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("nope", &err) < 0 && err.code == ERR_NOT_FOUND &&
               strcmp(err.msg, "exec /bin/nope: no such file or directory") == 0,
           "%s", err.msg);
    EXPECT(driver_wait("nope", "").exit_code == 128, "exit code");
    EXPECT(driver_remove("nope", "", &err) == 0, "%s", err.msg);

    driver_process_init(&p, "nope", NULL);
    EXPECT(driver_create("nope", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("nope", &err) < 0 &&
               contains(err.msg, "executable file not found in $PATH"),
           "%s", err.msg);
    EXPECT(driver_remove("nope", "", &err) == 0, "%s", err.msg);

    char user[] = "nobody-here";
    driver_process_init(&p, "true", NULL);
    p.user.name = user;
    EXPECT(driver_create("user", &p, NULL, &err) < 0 && contains(err.msg, "no such user"), "%s",
           err.msg);
    driver_process_init(&p, "true", NULL);
    EXPECT(driver_create("user", &p, NULL, &err) == 0, "the id is not free: %s", err.msg);
    EXPECT(driver_create("user", &p, NULL, &err) < 0 && err.code == ERR_EXISTS, "%s", err.msg);
    EXPECT(driver_remove("user", "", &err) == 0 && driver_remove("user", "", &err) == 0, "%s",
           err.msg);
    EXPECT(driver_start("user", &err) < 0 && err.code == ERR_NOT_FOUND, "%s", err.msg);
    ok("errors in words, ids free again, removal twice");
}

static void test_user(void)
{
    struct err err;
    struct driver_process p;
    char user[] = "someone", cwd[] = "/made/for/me";
    driver_process_init(&p, "sh", "-c",
                        "id; pwd; echo $HOME; grep CapEff /proc/self/status; echo x > /dev/stdout",
                        NULL);
    p.user.name = user;
    p.message.cwd = cwd;
    EXPECT(driver_create("user", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("user", &err) == 0, "%s", err.msg);
    char *text = driver_read("user", "", 0, 0, false, NULL);
    char *errors = driver_read("user", "", 1, 0, false, NULL);
    EXPECT(contains(text, "uid=1000(someone) gid=1000(someone) groups=1000(someone),2000(extra)") ||
               contains(text,
                        "uid=1000(someone) gid=1000(someone) groups=2000(extra),1000(someone)") ||
               contains(text, "uid=1000(someone) gid=1000(someone) groups=2000(extra)"),
           "%s%s", text, errors);
    EXPECT(contains(text, "/made/for/me\n/home/someone\n"), "%s", text);
    EXPECT(contains(text, "x\n"), "/dev/stdout cannot be opened by a user: %s", errors);
    free(text);
    free(errors);
    EXPECT(driver_remove("user", "", &err) == 0, "%s", err.msg);
    ok("users by name, their groups, home, working directory");
}

static void test_exec(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "sleep", "1000", NULL);
    EXPECT(driver_create("long", &p, NULL, &err) == 0, "%s", err.msg);
    driver_process_init(&p, "true", NULL);
    EXPECT(driver_exec("long", "e", &p, &err) < 0 && err.code == ERR_BAD_STATE, "%s", err.msg);
    EXPECT(driver_start("long", &err) == 0, "%s", err.msg);
    EXPECT(driver_start("long", &err) == 0, "again: %s", err.msg);

    driver_process_init(&p, "sh", "-c", "echo out; echo err >&2; cat /proc/1/cmdline; exit 3",
                        NULL);
    EXPECT(driver_exec("long", "e1", &p, &err) == 0, "%s", err.msg);
    Casemate__Agent__V1__ExitStatus status = driver_wait("long", "e1");
    EXPECT(status.exit_code == 3 && status.stderr_end == 4, "exit code %d", status.exit_code);
    char *text = driver_read("long", "e1", 0, 0, false, NULL);
    EXPECT(strncmp(text, "out\nsleep", 9) == 0, "%s", text);
    free(text);
    EXPECT(driver_exec("long", "e1", &p, &err) < 0 && err.code == ERR_EXISTS, "%s", err.msg);
    EXPECT(driver_remove("long", "e1", &err) == 0, "%s", err.msg);

    driver_process_init(&p, "nope", NULL);
    EXPECT(driver_exec("long", "e2", &p, &err) < 0 &&
               contains(err.msg, "executable file not found"),
           "%s", err.msg);
    EXPECT(driver_remove("long", "e2", &err) == 0, "%s", err.msg);

    driver_process_init(&p, "sleep", "1000", NULL);
    EXPECT(driver_exec("long", "e3", &p, &err) == 0, "%s", err.msg);
    EXPECT(driver_signal("long", "e3", SIGTERM, false, &err) == 0, "%s", err.msg);
    status = driver_wait("long", "e3");
    EXPECT(status.exit_code == 128 + SIGTERM && status.signal == SIGTERM, "%d", status.exit_code);

    int64_t begin = clock_monotonic_ns();
    int n = 20;
    for (int i = 0; i < n; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "t%d", i);
        driver_process_init(&p, "true", NULL);
        EXPECT(driver_exec("long", id, &p, &err) == 0, "%s", err.msg);
        EXPECT(driver_wait("long", id).exit_code == 0, "exit code");
        EXPECT(driver_remove("long", id, &err) == 0, "%s", err.msg);
    }
    (void)printf("# exec of true: %.2f ms\n", (double)(clock_monotonic_ns() - begin) / 1e6 / n);

    EXPECT(driver_signal("long", "", SIGKILL, true, &err) == 0, "%s", err.msg);
    status = driver_wait("long", "");
    EXPECT(status.exit_code == 137, "%d", status.exit_code);
    EXPECT(driver_signal("long", "", SIGKILL, false, &err) < 0 && err.code == ERR_NOT_FOUND, "%s",
           err.msg);
    EXPECT(driver_remove("long", "", &err) == 0, "%s", err.msg);
    ok("exec: output, exit codes, failures, signals");
}

/* Run: output, exit and removal in one call, more output than the rings hold, and a call that is
 * given up. */
static void test_run(void)
{
    struct driver_process p;
    struct rpc_reply reply = {0};
    Casemate__Agent__V1__ExitStatus status;
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    struct err err;
    char *text = NULL;
    driver_process_init(&p, "sleep", "1000", NULL);
    EXPECT(driver_create("runs", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("runs", &err) == 0, "%s", err.msg);

    driver_process_init(&p, "sh", "-c", "echo out; echo err >&2; exit 3", NULL);
    EXPECT(driver_command("runs", "r1", &p, CLOCK_NO_DEADLINE, &text, &status, &err) == 0, "%s",
           err.msg);
    EXPECT(status.exit_code == 3 && status.stderr_end == 4, "exit code %d", status.exit_code);
    EXPECT(strcmp(text, "out\n") == 0, "%s", text);
    free(text);
    driver_process_init(&p, "head", "-c", "2000000", "/dev/zero", NULL);
    EXPECT(driver_command("runs", "r1", &p, CLOCK_NO_DEADLINE, &text, &status, &err) == 0,
           "the id is free again: %s", err.msg);
    EXPECT(status.exit_code == 0 && status.stdout_end == 2000000, "%llu bytes",
           (unsigned long long)status.stdout_end);
    free(text);
    driver_process_init(&p, "nope", NULL);
    EXPECT(driver_command("runs", "r1", &p, CLOCK_NO_DEADLINE, &text, &status, &err) < 0 &&
               contains(err.msg, "executable file not found"),
           "%s", err.msg);

    /* Given up: the shell and what it waits for are killed, and Remove says when. */
    driver_process_init(&p, "sh", "-c", "sleep 1000; true", NULL);
    EXPECT(driver_command("runs", "r2", &p, clock_deadline(700), &text, &status, &err) < 0 &&
               err.code == ERR_DEADLINE,
           "%s", err.msg);
    EXPECT(driver_remove("runs", "r2", &err) == 0, "%s", err.msg);
    driver_process_init(&p, "sh", "-c", "ps | grep -c '[s]leep 1000'", NULL);
    EXPECT(driver_command("runs", "r3", &p, CLOCK_NO_DEADLINE, &text, &status, &err) == 0, "%s",
           err.msg);
    EXPECT(strcmp(text, "1\n") == 0, "sleeps left: %s", text);
    free(text);
    EXPECT(driver_call("List", &list.base, &reply, &err) == 0, "%s", err.msg);
    EXPECT(((const Casemate__Agent__V1__ListReply *)reply.message)->n_processes == 1,
           "commands are left");
    rpc_reply_fini(&reply);

    int64_t begin = clock_monotonic_ns();
    int n = 20;
    for (int i = 0; i < n; i++) {
        driver_process_init(&p, "true", NULL);
        EXPECT(driver_command("runs", "t", &p, CLOCK_NO_DEADLINE, &text, &status, &err) == 0, "%s",
               err.msg);
        free(text);
    }
    (void)printf("# run of true: %.2f ms\n", (double)(clock_monotonic_ns() - begin) / 1e6 / n);
    EXPECT(driver_remove("runs", "", &err) == 0, "%s", err.msg);
    ok("run: output, exit codes, failures, giving up");
}

/* More output than a ring holds: the process blocks until it is read, and nothing is lost across a
 * reconnection. */
static void test_output(void)
{
    struct err err;
    struct driver_process p;
    size_t len, more;
    driver_process_init(&p, "seq", "1", "200000", NULL);
    EXPECT(driver_create("seq", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("seq", &err) == 0, "%s", err.msg);
    char *head = driver_read_some("seq", "", 0, 0, 100000, &len);
    driver_disconnect();
    driver_connect(socket_path, NULL);
    char *tail = driver_read("seq", "", 0, len, true, &more);
    Casemate__Agent__V1__ExitStatus status = driver_wait("seq", "");
    EXPECT(status.exit_code == 0 && status.stdout_end == len + more, "%llu bytes, not %zu",
           (unsigned long long)status.stdout_end, len + more);
    unsigned long line = 0;
    char number[32];
    size_t n = 0;
    for (size_t i = 0; i < len + more; i++) {
        char c = i < len ? head[i] : tail[i - len];
        if (c != '\n') {
            EXPECT(n < sizeof(number) - 1, "a long line");
            number[n++] = c;
            continue;
        }
        number[n] = '\0';
        n = 0;
        line++;
        EXPECT(strtoul(number, NULL, 10) == line, "line %lu is \"%s\"", line, number);
    }
    EXPECT(line == 200000, "%lu lines", line);
    free(head);
    free(tail);
    EXPECT(driver_remove("seq", "", &err) == 0, "%s", err.msg);
    ok("1.3 MB of output through a ring of 256 KiB and a reconnection, each line once");
}

static int write_stdin(const char *id, const char *exec, uint64_t offset, const char *text,
                       bool eof, struct err *err)
{
    Casemate__Agent__V1__WriteStdinRequest request = CASEMATE__AGENT__V1__WRITE_STDIN_REQUEST__INIT;
    union {
        const char *in;
        uint8_t *out;
    } data = {.in = text};
    request.container_id = (char *)(uintptr_t)id;
    request.exec_id = (char *)(uintptr_t)exec;
    request.offset = offset;
    request.data = (ProtobufCBinaryData){.len = strlen(text), .data = data.out};
    request.eof = eof;
    return driver_call("WriteStdin", &request.base, NULL, err);
}

static void test_stdin(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "cat", NULL);
    p.message.stdin = true;
    EXPECT(driver_create("cat", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("cat", &err) == 0, "%s", err.msg);
    EXPECT(write_stdin("cat", "", 0, "hello ", false, &err) == 0, "%s", err.msg);
    EXPECT(write_stdin("cat", "", 3, "lo world\n", false, &err) == 0, "%s", err.msg);
    EXPECT(write_stdin("cat", "", 99, "gap", false, &err) < 0, "a gap was taken");
    EXPECT(write_stdin("cat", "", 12, "", true, &err) == 0, "%s", err.msg);
    char *text = driver_read("cat", "", 0, 0, false, NULL);
    EXPECT(strcmp(text, "hello world\n") == 0, "\"%s\"", text);
    free(text);
    EXPECT(driver_wait("cat", "").exit_code == 0, "exit code");
    EXPECT(driver_remove("cat", "", &err) == 0, "%s", err.msg);
    ok("stdin at offsets, repeated bytes once, end");
}

static void test_tty(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "sh", "-c", "tty; stty size; ls -l /dev/console; read x; echo got $x",
                        NULL);
    p.message.tty = true;
    p.message.tty_width = 132;
    p.message.tty_height = 43;
    p.message.stdin = true;
    EXPECT(driver_create("tty", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("tty", &err) == 0, "%s", err.msg);
    EXPECT(write_stdin("tty", "", 0, "words\n", false, &err) == 0, "%s", err.msg);
    char *text = driver_read("tty", "", 0, 0, false, NULL);
    EXPECT(contains(text, "/dev/pts/0\r\n43 132\r\n"), "%s", text);
    EXPECT(contains(text, "/dev/console") && contains(text, "got words\r\n"), "%s", text);
    free(text);
    EXPECT(driver_wait("tty", "").exit_code == 0, "exit code");
    EXPECT(driver_remove("tty", "", &err) == 0, "%s", err.msg);

    driver_process_init(&p, "sleep", "1000", NULL);
    EXPECT(driver_create("host", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("host", &err) == 0, "%s", err.msg);
    driver_process_init(&p, "sh", "-c", "stty size; tty", NULL);
    p.message.tty = true;
    p.message.tty_width = 80;
    p.message.tty_height = 24;
    EXPECT(driver_exec("host", "x", &p, &err) == 0, "%s", err.msg);
    text = driver_read("host", "x", 0, 0, false, NULL);
    EXPECT(contains(text, "24 80\r\n/dev/pts/0\r\n"), "%s", text);
    free(text);
    EXPECT(driver_remove("host", "", &err) == 0, "%s", err.msg);
    ok("terminals: size, name, input; exec with one");
}

static void small_memory(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static Casemate__Agent__V1__Resources resources = CASEMATE__AGENT__V1__RESOURCES__INIT;
    static Casemate__Agent__V1__CgroupSetting settings[2];
    static Casemate__Agent__V1__CgroupSetting *list[] = {&settings[0], &settings[1]};
    static char max[] = "memory.max", size[] = "16777216", pids[] = "pids.max", many[] = "20";
    casemate__agent__v1__cgroup_setting__init(&settings[0]);
    casemate__agent__v1__cgroup_setting__init(&settings[1]);
    settings[0].file = max;
    settings[0].value = size;
    settings[1].file = pids;
    settings[1].value = many;
    resources.cgroup = list;
    resources.n_cgroup = 2;
    r->resources = &resources;
}

static void test_limits(void)
{
    struct err err;
    struct driver_process p;
    /* tail keeps what it has read until a newline comes. */
    driver_process_init(&p, "sh", "-c", "exec tail -n 1 /dev/zero", NULL);
    EXPECT(driver_create("oom", &p, small_memory, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("oom", &err) == 0, "%s", err.msg);
    Casemate__Agent__V1__ExitStatus status = driver_wait("oom", "");
    EXPECT(status.exit_code == 137 && status.oom_killed, "exit code %d", status.exit_code);
    EXPECT(driver_remove("oom", "", &err) == 0, "%s", err.msg);
    int code;
    char *text = driver_run("limits", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max",
                            small_memory, &code);
    EXPECT(code == 0 && strcmp(text, "16777216\n20\n") == 0, "%s", text);
    free(text);
    ok("cgroup limits, OOM kill told apart");
}

static void share_pids(Casemate__Agent__V1__CreateContainerRequest *r)
{
    r->pid_namespace = CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_POD;
}

static void read_only_root(Casemate__Agent__V1__CreateContainerRequest *r)
{
    r->rootfs->read_only = true;
}

static void test_modes(void)
{
    int code;
    char *text = driver_run("shared", "ps -o pid,comm; (sleep 1000 &) ; exit 0", share_pids, &code);
    EXPECT(code == 0 && contains(text, "1 pause"), "%s", text);
    free(text);
    text = driver_run("ro", "touch /x 2>&1; touch /dev/shm/y && echo shm", read_only_root, &code);
    EXPECT(code == 0 && contains(text, "Read-only file system") && contains(text, "shm\n"), "%s",
           text);
    free(text);
    ok("shared pid namespace, read-only root");
}

static void with_devices(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static char path[] = "/dev/deep/kmsg", guest[] = "/dev/kmsg", permissions[] = "rw";
    static Casemate__Agent__V1__Device device;
    static Casemate__Agent__V1__Device *list[] = {&device};
    casemate__agent__v1__device__init(&device);
    device.path = path;
    device.guest_path = guest;
    device.permissions = permissions;
    r->devices = list;
    r->n_devices = 1;
}

static void make_privileged(Casemate__Agent__V1__CreateContainerRequest *r)
{
    r->privileged = true;
}

/* LUN 2 is the scratch disk: a container must not read it by making a node for it. */
static void test_devices(void)
{
    int code;
    char *text = driver_run("plain", "head -c 1 /dev/zero | wc -c; ls /dev", NULL, &code);
    EXPECT(contains(text, "1\n") && !contains(text, "sda") && !contains(text, "kmsg"), "%s", text);
    free(text);
    text =
        driver_run("blocked", "mknod /tmp/d b 8 32 && dd if=/tmp/d bs=1 count=1 2>&1", NULL, &code);
    EXPECT(code != 0 && contains(text, "Operation not permitted"), "%d %s", code, text);
    free(text);
    text = driver_run("device", "echo hello > /dev/deep/kmsg && echo written", with_devices, &code);
    EXPECT(code == 0 && contains(text, "written\n"), "%s", text);
    free(text);
    text = driver_run(
        "priv",
        "ls /dev; dd if=/dev/sda bs=1 count=1 2>/dev/null | wc -c; touch /sys/fs/cgroup/x 2>&1; "
        "mkdir /sys/fs/cgroup/sub && echo made && rmdir /sys/fs/cgroup/sub",
        make_privileged, &code);
    EXPECT(contains(text, "sda\n") && contains(text, "vport") && contains(text, "made\n"), "%s",
           text);
    free(text);
    ok("devices: standard ones, given ones, none by mknod, all when privileged");
}

/* A container that fills its cgroup with others is removed all the same. */
static void test_cgroups_inside(void)
{
    int code;
    char *text = driver_run("nested",
                            "cd /sys/fs/cgroup && i=0; while mkdir x 2>/tmp/e; do cd x; i=$((i+1));"
                            "test $i -lt 100 || break; done; echo deep $i;"
                            "cd /sys/fs/cgroup && i=$((i+1)); while mkdir $(seq $i $((i+99))) "
                            "2>/tmp/e; do i=$((i+100)); test $i -lt 6000 || break; done;"
                            "echo many $(cat cgroup.stat | head -n 1);"
                            "echo 9999 2>/dev/null >cgroup.max.descendants || echo refused",
                            make_privileged, &code);
    EXPECT(contains(text, "deep 32\n") && contains(text, "many nr_descendants 4096\n") &&
               contains(text, "refused\n"),
           "%s", text);
    free(text);
    ok("cgroups inside a container: limited, and removed with it");
}

/* Three times nearly half of the scratch disk: what one container wrote goes with it, and soon,
 * even where it has made a tree that is hard to delete. */
static void test_deep_layer(void)
{
    for (int i = 0; i < 3; i++) {
        int code;
        char *text = driver_run("deep-layer",
                                "mkdir /d && cd /d && i=0; while test $i -lt 200; do mkdir y; cd y;"
                                "i=$((i+1)); done; i=0;"
                                "until dd if=/dev/zero of=/big bs=1M count=100 2>&1; do"
                                " test $i -lt 15 || exit 1; i=$((i+1)); sleep 1; done",
                                NULL, &code);
        EXPECT(code == 0, "the scratch disk is full: %s", text);
        free(text);
    }
    ok("writable layers are deleted, however deep");
}

struct instruction {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
};

/* mkdir(2) and mkdirat(2) of x86-64 fail with EDOM, everything else is allowed. */
static struct instruction no_mkdir[] = {
    {0x20, 0, 0, 0},               /* load the number */
    {0x15, 1, 0, 83},              /* mkdir */
    {0x15, 0, 1, 258},             /* mkdirat */
    {0x06, 0, 0, 0x00050000 | 33}, /* errno */
    {0x06, 0, 0, 0x7fff0000},      /* allow */
};

static void run_filtered(bool no_new_privs, unsigned uid)
{
    struct driver_process p;
    struct err err;
    Casemate__Agent__V1__Seccomp seccomp = CASEMATE__AGENT__V1__SECCOMP__INIT;
    driver_process_init(
        &p, "sh", "-c",
        "mkdir /tmp/x 2>&1; grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status; "
        "cat /proc/self/oom_score_adj; id -u",
        NULL);
    seccomp.filter = (ProtobufCBinaryData){.len = sizeof(no_mkdir), .data = (uint8_t *)no_mkdir};
    p.message.seccomp = &seccomp;
    p.message.oom_score_adj = 500;
    p.message.no_new_privs = no_new_privs;
    p.user.uid = uid;
    p.caps.n_effective = uid == 0 ? p.caps.n_effective : 0;
    EXPECT(driver_create("filter", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("filter", &err) == 0, "%s", err.msg);
    char *text = driver_read("filter", "", 0, 0, false, NULL);
    char wanted[128];
    (void)snprintf(wanted, sizeof(wanted), "NoNewPrivs:\t%d\nSeccomp:\t2\n500\n%u\n", no_new_privs,
                   uid);
    EXPECT(contains(text, "Numerical") || contains(text, "out of domain"), "%s", text);
    EXPECT(contains(text, wanted), "%s", text);
    EXPECT(contains(text, uid == 0 ? "CapEff:\t00000000080004eb" : "CapEff:\t0000000000000000"),
           "%s", text);
    free(text);
    EXPECT(driver_remove("filter", "", &err) == 0, "%s", err.msg);
}

static void test_seccomp(void)
{
    run_filtered(true, 0);
    run_filtered(false, 0);
    run_filtered(true, 1000);
    run_filtered(false, 1000);
    ok("seccomp filter and OOM score, with and without no_new_privs, root and not");
}

static void test_stats(void)
{
    struct driver_process p;
    struct err err;
    struct rpc_reply reply = {0};
    char id[] = "stats", unknown[] = "unknown";
    char *ids[] = {id, unknown};
    Casemate__Agent__V1__StatsRequest request = CASEMATE__AGENT__V1__STATS_REQUEST__INIT;
    driver_process_init(
        &p, "sh", "-c",
        "dd if=/dev/zero of=/tmp/big bs=1024 count=3000 2>/dev/null; echo done; sleep 1000", NULL);
    EXPECT(driver_create(id, &p, small_memory, &err) == 0, "%s", err.msg);
    EXPECT(driver_start(id, &err) == 0, "%s", err.msg);
    free(driver_read_some(id, "", 0, 0, 5, NULL));
    request.container_ids = ids;
    request.n_container_ids = 2;
    EXPECT(driver_call("Stats", &request.base, &reply, &err) == 0, "%s", err.msg);
    const Casemate__Agent__V1__StatsReply *r = (const void *)reply.message;
    EXPECT(r->n_containers == 1 && strcmp(r->containers[0]->container_id, id) == 0, "%zu",
           r->n_containers);
    const Casemate__Agent__V1__ContainerStats *c = r->containers[0];
    EXPECT(c->cgroup->cpu_usage_ns > 0 && c->cgroup->processes >= 1, "%llu processes",
           (unsigned long long)c->cgroup->processes);
    EXPECT(c->cgroup->memory_limit_bytes == 16777216 && c->cgroup->memory_usage_bytes > 0,
           "memory");
    EXPECT(c->has_layer && c->layer_bytes >= 3000 * 1024 && c->layer_bytes < 4000 * 1024 &&
               c->layer_inodes >= 4 && c->layer_inodes < 30,
           "layer: %d, %llu bytes, %llu inodes", c->has_layer, (unsigned long long)c->layer_bytes,
           (unsigned long long)c->layer_inodes);
    EXPECT(r->pod->memory_usage_bytes >= c->cgroup->memory_usage_bytes, "pod");
    EXPECT(r->scratch_bytes > 0 && r->scratch_used_bytes >= c->layer_bytes, "scratch");
    EXPECT(r->vm_memory_bytes > r->vm_memory_available_bytes, "vm");
    rpc_reply_fini(&reply);
    EXPECT(driver_remove(id, "", &err) == 0, "%s", err.msg);
    ok("stats: cgroup, layer by project quota, pod, VM");
}

static void test_many(void)
{
    struct err err;
    struct driver_process p;
    int n = 10;
    double create = 0, start = 0, rest = 0;
    for (int i = 0; i < n; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "m%d", i);
        driver_process_init(&p, "sleep", "1000", NULL);
        int64_t t0 = clock_monotonic_ns();
        EXPECT(driver_create(id, &p, NULL, &err) == 0, "%s", err.msg);
        int64_t t1 = clock_monotonic_ns();
        EXPECT(driver_start(id, &err) == 0, "%s", err.msg);
        int64_t t2 = clock_monotonic_ns();
        create += (double)(t1 - t0) / 1e6;
        start += (double)(t2 - t1) / 1e6;
    }
    struct rpc_reply reply = {0};
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    EXPECT(driver_call("List", &list.base, &reply, &err) == 0, "%s", err.msg);
    const Casemate__Agent__V1__ListReply *r = (const void *)reply.message;
    EXPECT(r->n_processes == 10, "%zu processes", r->n_processes);
    for (size_t i = 0; i < r->n_processes; i++)
        EXPECT(r->processes[i]->state == CASEMATE__AGENT__V1__PROCESS_STATE__PROCESS_RUNNING,
               "state %d", (int)r->processes[i]->state);
    rpc_reply_fini(&reply);

    for (int i = 0; i < n; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "m%d", i);
        int64_t t0 = clock_monotonic_ns();
        EXPECT(driver_remove(id, "", &err) == 0, "%s", err.msg);
        rest += (double)(clock_monotonic_ns() - t0) / 1e6;
    }
    (void)printf("# create %.2f ms, start %.2f ms, remove %.2f ms\n", create / n, start / n,
                 rest / n);
    ok("ten containers at once");
}

static void node_pids(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static char names[][16] = {"SYS_PTRACE", "DAC_OVERRIDE", "SYS_ADMIN"};
    static char *all[3];
    for (size_t i = 0; i < 3; i++)
        all[i] = names[i];
    r->pid_namespace = CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_NODE;
    r->process->capabilities->permitted = all;
    r->process->capabilities->effective = all;
    r->process->capabilities->bounding = all;
    r->process->capabilities->n_permitted = 3;
    r->process->capabilities->n_effective = 3;
    r->process->capabilities->n_bounding = 3;
}

/* What the agent itself costs, seen from a container that shares the VM's pid namespace. */
static void test_agent_memory(void)
{
    int code;
    char *text = driver_run("agent",
                            "grep -E '^(Rss|Pss|Private_Dirty|Anonymous)' /proc/1/smaps_rollup; "
                            "ls /proc/1/fd | wc -l; cat /proc/1/comm",
                            node_pids, &code);
    (void)printf("# agent: %s", text);
    EXPECT(code == 0, "exit code %d", code);
    char *pss = strstr(text, "Pss:");
    EXPECT(pss != NULL && strtoul(pss + 4, NULL, 10) < 2048, "PSS is 2 MiB or more");
    free(text);
    ok("the agent's PSS is below 2 MiB");
}

/* A host that comes while the old one's session is still there, and stale bytes before its
 * greeting. */
static void test_takeover(void)
{
    Casemate__Agent__V1__ListRequest list = CASEMATE__AGENT__V1__LIST_REQUEST__INIT;
    struct err err;
    for (int i = 0; i < 5; i++) {
        driver_disconnect();
        driver_connect(socket_path, i % 2 == 0 ? "stale bytes CASEMATE-LINK/1 0123" : NULL);
        EXPECT(driver_call("List", &list.base, NULL, &err) == 0, "%s", err.msg);
    }
    ok("five reconnections, stale bytes before some");
}

static void test_shutdown(void)
{
    Casemate__Agent__V1__ShutdownRequest request = CASEMATE__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    struct err err;
    EXPECT(driver_call("Shutdown", &request.base, NULL, &err) == 0, "%s", err.msg);
    ok("Shutdown");
}

int main(int argc, char **argv)
{
    EXPECT(argc == 2, "usage: vm_scenario SOCKET");
    socket_path = argv[1];
    (void)signal(SIGPIPE, SIG_IGN);
    (void)alarm(180);
    driver_connect(socket_path, "left over from an earlier host\n");
    test_hello();
    test_configure();
    test_view();
    test_boot_limits();
    test_many_variables();
    test_failures();
    test_user();
    test_exec();
    test_run();
    test_output();
    test_stdin();
    test_tty();
    test_limits();
    test_modes();
    test_devices();
    test_cgroups_inside();
    test_deep_layer();
    test_seccomp();
    test_stats();
    test_many();
    test_agent_memory();
    test_takeover();
    test_shutdown();
    driver_disconnect();
    return 0;
}
