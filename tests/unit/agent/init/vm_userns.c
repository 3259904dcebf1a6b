/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's user namespaces in a VM that tests/integration/test_agent_vm.sh has booted: vm_userns
 * SOCKET. LUN 0 and 1 are layers of squashfs, 3 and 4 the same of ext4, with owners; 2 is a scratch
 * disk. Debian 12's kernel maps the ids of ext4 and not of squashfs, so both ways of giving files
 * their owners are gone here, and what a container sees must be the same. Prints "ok: what" per
 * expectation that held, and ends with status 1 at the first that did not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/clock.h"
#include "common/rpc/client.h"
#include "tests/fakes/agent_driver.h"

static void ok(const char *what)
{
    (void)printf("ok: %s\n", what);
    (void)fflush(stdout);
}

static bool contains(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* first: where the users begin in the VM; 0: no user namespace. */
static int configure(uint32_t first, struct err *err)
{
    static uint8_t entropy[64];
    static char ext4[] = "ext4", hostname[] = "guest-pod", pod_id[] = "pod-1";
    Casemate__Agent__V1__Disk scratch = CASEMATE__AGENT__V1__DISK__INIT;
    Casemate__Agent__V1__IdMapping uids = CASEMATE__AGENT__V1__ID_MAPPING__INIT, gids = uids;
    Casemate__Agent__V1__UserNamespace userns = CASEMATE__AGENT__V1__USER_NAMESPACE__INIT;
    Casemate__Agent__V1__ConfigurePodRequest request =
        CASEMATE__AGENT__V1__CONFIGURE_POD_REQUEST__INIT;
    scratch.lun = 2;
    scratch.fs_type = ext4;
    uids.host_id = first;
    gids.host_id = first + 100000;
    uids.length = gids.length = 65536;
    userns.uids = &uids;
    userns.gids = &gids;
    request.pod_id = pod_id;
    request.hostname = hostname;
    request.realtime_ns = clock_realtime_ns();
    request.entropy = (ProtobufCBinaryData){.len = sizeof(entropy), .data = entropy};
    request.scratch = &scratch;
    request.user_namespace = first == 0 ? NULL : &userns;
    return driver_call("ConfigurePod", &request.base, NULL, err);
}

static void share_pids(Casemate__Agent__V1__CreateContainerRequest *r)
{
    r->pid_namespace = CASEMATE__AGENT__V1__NAMESPACE_SHARING__NAMESPACE_POD;
}

/* As with a machine made ahead: a container has run, in the pod's pid namespace, before. */
static void test_configure(void)
{
    struct err err;
    struct driver_process p;
    int code;
    EXPECT(configure(0, &err) == 0, "%s", err.msg);
    char *text = driver_run("before", "cat /proc/self/uid_map; ps -o pid,comm", share_pids, &code);
    EXPECT(code == 0 && contains(text, "4294967295") && contains(text, "1 pause"), "%s", text);
    free(text);
    driver_process_init(&p, "sleep", "1000", NULL);
    EXPECT(driver_create("left", &p, NULL, &err) == 0, "%s", err.msg);
    EXPECT(configure(100000, &err) < 0 && err.code == ERR_BAD_STATE, "%s", err.msg);
    EXPECT(driver_remove("left", "", &err) == 0, "%s", err.msg);
    EXPECT(configure(100000, &err) == 0, "%s", err.msg);
    EXPECT(configure(100000, &err) == 0, "again: %s", err.msg);
    EXPECT(configure(0, &err) == 0, "without naming it: %s", err.msg);
    EXPECT(configure(200000, &err) < 0 && err.code == ERR_BAD_STATE, "%s", err.msg);
    ok("ConfigurePod: after containers, once, again, and not another one");
}

static void of_user(Casemate__Agent__V1__CreateContainerRequest *r)
{
    r->process->no_new_privs = false;
    r->process->user->uid = r->process->user->gid = 1000;
}

static void of_ext4(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static char ext4[] = "ext4";
    for (size_t i = 0; i < r->rootfs->n_layers; i++) {
        r->rootfs->layers[i]->lun = 3 + (uint32_t)i;
        r->rootfs->layers[i]->fs_type = ext4;
    }
}

static void of_ext4_for_user(Casemate__Agent__V1__CreateContainerRequest *r)
{
    of_ext4(r);
    of_user(r);
}

/* Whether the guest's kernel can map the ids of a squashfs. */
static bool squashfs_maps(void)
{
    unsigned major = 0, minor = 0;
    int code;
    char *text = driver_run("kernel", "uname -r", NULL, &code);
    EXPECT(sscanf(text, "%u.%u", &major, &minor) == 2, "%s", text);
    free(text);
    return major > 6 || (major == 6 && minor >= 2);
}

/* The upper layer could be mapped, the lower one, a squashfs, on older kernels not: then none is.
 */
static void of_both_for_user(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static char ext4[] = "ext4";
    r->rootfs->layers[0]->lun = 3;
    r->rootfs->layers[0]->fs_type = ext4;
    of_user(r);
}

static void test_root(const char *id,
                      void (*change)(Casemate__Agent__V1__CreateContainerRequest *r))
{
    int code;
    char *text = driver_run(
        id,
        "cat /proc/self/uid_map; id; hostname; echo pid $$; cat /etc/layer /etc/only-in-1;"
        "ls -ln / /etc /dev; ls /etc/removed 2>&1; touch /etc/new && ls -ln /etc/new;"
        "echo more >> /etc/layer && cat /etc/layer; echo x > /dev/stdout; echo x > /dev/null;"
        "touch /proc/sys/kernel/panic 2>&1; cat /proc/self/cgroup; ls /dev/shm; mknod /m c 1 3 "
        "2>&1",
        change, &code);
    EXPECT(contains(text, "    100000      65536\n"), "%s", text);
    EXPECT(contains(text, "uid=0(root) gid=0(root)"), "%s", text);
    EXPECT(contains(text, "guest-pod\npid 1\nlayer two\nonly in one\n"), "%s", text);
    EXPECT(contains(text, "/etc/removed: No such file"), "%s", text);
    EXPECT(contains(text, "layer two\nmore\nx\n"), "%s", text);
    EXPECT(contains(text, "Read-only file system") && contains(text, "0::/\n"), "%s", text);
    EXPECT(contains(text, "mknod: /m: Operation not permitted"), "%s", text);
    free(text);
    /* proc and sysfs are nobody's in every user namespace. */
    text = driver_run(id,
                      "ls -ln / | grep -v ' proc$\\| sys$' | grep 65534; ls -lnR /etc /bin /dev | "
                      "grep 65534; echo end",
                      change, &code);
    EXPECT(strcmp(text, "end\n") == 0, "%s", text);
    free(text);
    ok(id);
}

static void test_owners(const char *id, bool mapped,
                        void (*change)(Casemate__Agent__V1__CreateContainerRequest *r))
{
    int code;
    char *text = driver_run(
        id,
        "id -u; ls -lnd /home/someone; cat /home/someone/own; touch /home/someone/new && ls -ln "
        "/home/someone; busybox-cap grep CapEff /proc/self/status; ls -l /bin/busybox-set | cut -c "
        "1-10;"
        "busybox-set id -u; grep -c metacopy /proc/self/mountinfo",
        change, &code);
    EXPECT(contains(text, "1000     1000"), "%s", text);
    EXPECT(contains(text, "only mine\n"), "%s", text);
    EXPECT(contains(text, "CapEff:\t0000000000000400\n"), "%s", text);
    EXPECT(contains(text, "-rwsr-xr-x\n"), "%s", text);
    EXPECT(contains(text, mapped ? "\n0\n" : "\n1\n"), "%s", text);
    free(text);
    ok(id);
}

static void test_exec(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "sleep", "1000", NULL);
    EXPECT(driver_create("long", &p, share_pids, &err) == 0, "%s", err.msg);
    EXPECT(driver_start("long", &err) == 0, "%s", err.msg);
    driver_process_init(&p, "sh", "-c",
                        "tty; ls -ln /dev/pts/0; cat /proc/self/uid_map; ps -o pid,comm; id -u; "
                        "echo x > /dev/tty",
                        NULL);
    p.message.tty = true;
    p.user.uid = 33;
    EXPECT(driver_exec("long", "e1", &p, &err) == 0, "%s", err.msg);
    Casemate__Agent__V1__ExitStatus status = driver_wait("long", "e1");
    char *text = driver_read("long", "e1", 0, 0, false, NULL);
    EXPECT(status.exit_code == 0, "%s", text);
    EXPECT(contains(text, "/dev/pts/0\r\n") && contains(text, " 33 "), "%s", text);
    EXPECT(contains(text, "100000      65536") && contains(text, "1 pause"), "%s", text);
    EXPECT(contains(text, "\n33\r\nx\r\n"), "%s", text);
    free(text);
    driver_process_init(&p, "id", NULL);
    p.user.uid = 65536;
    EXPECT(driver_exec("long", "e2", &p, &err) < 0 && contains(err.msg, "user namespace"), "%s",
           err.msg);
    EXPECT(driver_remove("long", "", &err) == 0, "%s", err.msg);
    ok("exec, with a terminal, of a user, and of none that is there");
}

static void of_nowhere(Casemate__Agent__V1__CreateContainerRequest *r)
{
    r->rootfs->layers[1]->lun = 99;
}

static void of_another_kind(Casemate__Agent__V1__CreateContainerRequest *r)
{
    static char erofs[] = "erofs";
    r->rootfs->layers[1]->fs_type = erofs;
}

static void test_failures(void)
{
    struct err err;
    struct driver_process p;
    driver_process_init(&p, "true", NULL);
    EXPECT(driver_create("c", &p, of_another_kind, &err) < 0 &&
               contains(err.msg, "layer 1: mount LUN 1 as erofs"),
           "%s", err.msg);
    EXPECT(driver_create("c", &p, of_nowhere, &err) < 0 && contains(err.msg, "layer 1"), "%s",
           err.msg);
    EXPECT(driver_create("c", &p, NULL, &err) == 0, "the id is not free: %s", err.msg);
    EXPECT(driver_remove("c", "", &err) == 0, "%s", err.msg);
    ok("the helper's failures, in its words; ids free again");
}

int main(int argc, char **argv)
{
    struct err err;
    if (argc != 2)
        return 2;
    driver_connect(argv[1], NULL);
    test_configure();
    test_root("owners-changed", NULL);
    test_root("ids-mapped", of_ext4);
    test_owners("user-ids-mapped", true, of_ext4_for_user);
    test_owners("user-owners-changed", squashfs_maps(), of_both_for_user);
    test_exec();
    test_failures();
    Casemate__Agent__V1__ShutdownRequest request = CASEMATE__AGENT__V1__SHUTDOWN_REQUEST__INIT;
    EXPECT(driver_call("Shutdown", &request.base, NULL, &err) == 0, "%s", err.msg);
    ok("Shutdown");
    return 0;
}
