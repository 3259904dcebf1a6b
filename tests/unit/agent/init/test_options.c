/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's command line, and the list of modules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "agent/init/hotplug.h"
#include "agent/init/demand.h"
#include "agent/init/options.h"

static enum log_level level(const char *command_line)
{
    struct options o;
    options_parse(command_line, &o);
    return o.log_level;
}

static void test_command_line(void **state)
{
    (void)state;
    assert_int_equal(level(""), LOG_INFO);
    assert_int_equal(level("quiet casemate.log=debug panic=-1\n"), LOG_DEBUG);
    assert_int_equal(level("casemate.log=warn"), LOG_WARN);
    assert_int_equal(level("xcasemate.log=warn"), LOG_INFO);
    assert_int_equal(level("casemate.log="), LOG_INFO);
    assert_int_equal(level("casemate.log=nonsense casemate.log=aaaaaaaaaaaaaaaaaaaaaaaaa"),
                     LOG_INFO);
    assert_int_equal(level("casemate.log=warn casemate.log=error"), LOG_ERROR);
}

static void test_modules(void **state)
{
    char text[] = "/modules/a.ko\n\n# comment\nrelative.ko\n/modules/b.ko";
    char *cursor = text;
    (void)state;
    assert_string_equal(options_next_module(&cursor), "/modules/a.ko");
    assert_string_equal(options_next_module(&cursor), "/modules/b.ko");
    assert_null(options_next_module(&cursor));
    assert_null(options_next_module(&cursor));
}

static void test_demand(void **state)
{
    static const char list[] = "bridge /demand/llc.ko /demand/bridge.ko\n"
                               "rtnl-link-bridge /demand/llc.ko /demand/bridge.ko\n"
                               "broken\n\n"
                               "char-major-10-200 /demand/tun.ko\n"
                               "pci:v00001AF4d*sv* /demand/virtio.ko\n";
    static const struct {
        const char *name, *files;
    } rows[] = {
        {"bridge", "/demand/llc.ko /demand/bridge.ko"},
        {"rtnl-link-bridge", "/demand/llc.ko /demand/bridge.ko"},
        {"char-major-10-200", "/demand/tun.ko"},
        {"pci:v00001AF4d00001000sv1", "/demand/virtio.ko"},
        {"broken", NULL},
        {"", NULL},
        {"bridg", NULL},
        {"*", NULL},
    };
    char program[] = "/proc/1/exe", quiet[] = "-q", loud[] = "-v", end[] = "--", name[] = "bridge";
    char *ask[] = {program, quiet, end, name, NULL};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[sizeof(list)];
        memcpy(text, list, sizeof(list));
        const char *files = demand_match(text, rows[i].name);
        if (rows[i].files == NULL)
            assert_null(files);
        else
            assert_string_equal(files, rows[i].files);
    }
    assert_true(demand_is_asked(4, ask));
    assert_false(demand_is_asked(3, ask));
    ask[1] = loud;
    assert_false(demand_is_asked(4, ask));
}

static bool is_new_cpu(const char *event, size_t n)
{
    char path[40] = "";
    bool is = hotplug_is_new_cpu(event, n, path, sizeof(path));
    if (is)
        assert_string_equal(path, "/devices/system/cpu/cpu3");
    return is;
}

#define EVENT(text) text, sizeof(text)
#define CPU_PATH    "DEVPATH=/devices/system/cpu/cpu3\0"

static void test_events(void **state)
{
    (void)state;
    assert_true(is_new_cpu(EVENT("add@/x\0ACTION=add\0" CPU_PATH "SUBSYSTEM=cpu\0SEQNUM=1")));
    assert_false(is_new_cpu(EVENT("remove@/x\0ACTION=remove\0" CPU_PATH "SUBSYSTEM=cpu")));
    assert_false(is_new_cpu(EVENT("add@/x\0ACTION=add\0" CPU_PATH "SUBSYSTEM=block")));
    assert_false(is_new_cpu(EVENT("ACTION=add\0DEVPATH=/devices/pci\0SUBSYSTEM=cpu")));
    assert_false(
        is_new_cpu(EVENT("ACTION=add\0DEVPATH=/devices/system/cpu/cpu/../../x\0SUBSYSTEM=cpu")));
    assert_false(is_new_cpu(
        EVENT("ACTION=add\0DEVPATH=/devices/system/cpu/cpu33333333333333333333\0SUBSYSTEM=cpu")));
    assert_false(is_new_cpu("ACTION=add", 10)); /* no NUL at its end */
    assert_false(is_new_cpu("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command_line),
        cmocka_unit_test(test_modules),
        cmocka_unit_test(test_demand),
        cmocka_unit_test(test_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
