/* SPDX-License-Identifier: Apache-2.0 */
/* A template as files: sealed, copied to disk and back, and every way in which the copy can be bad.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/vmm/template_file.h"

#define MEMORY_BYTES (1u << 20)
#define STATE_BYTES  1000u

static const char key[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static struct {
    char dir[64];
    struct template_files files;
} t;

#define MEMORY t.files.fds[TEMPLATE_MEMORY]
#define STATE  t.files.fds[TEMPLATE_STATE]
#define DISK   t.files.fds[TEMPLATE_DISK]

static int setup(void **state)
{
    static const char text[] = "state";
    struct err err;

    (void)state;
    (void)snprintf(t.dir, sizeof(t.dir), "/tmp/test-template-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    assert_int_equal(template_file_new("memory", MEMORY_BYTES, &MEMORY, &err), 0);
    assert_int_equal(template_file_new("state", STATE_BYTES, &STATE, &err), 0);
    assert_int_equal(template_file_new("disk", 0, &DISK, &err), 0);
    /* A page at the start of a chunk, one across the end of another, and the last byte. */
    assert_int_equal(pwrite(MEMORY, text, sizeof(text), 131072), sizeof(text));
    assert_int_equal(pwrite(MEMORY, text, sizeof(text), 262142), sizeof(text));
    assert_int_equal(pwrite(MEMORY, "x", 1, MEMORY_BYTES - 1), 1);
    assert_int_equal(pwrite(STATE, text, sizeof(text), 0), sizeof(text));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    template_files_close(&t.files);
    return fd_remove_tree(AT_FDCWD, t.dir, NULL);
}

static void write_all(void)
{
    struct err err;

    if (template_file_write(t.dir, key, &t.files, &err) < 0)
        fail_msg("%s", err.msg);
}

static void comes_back_as_it_was(void **state)
{
    cleanup_template_files struct template_files back = TEMPLATE_NO_FILES;
    struct stat st;
    struct err err;

    (void)state;
    write_all();
    if (template_file_read(t.dir, key, &back, &err) < 0)
        fail_msg("%s", err.msg);
    uint8_t *a = malloc(MEMORY_BYTES), *b = malloc(MEMORY_BYTES);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(pread(MEMORY, a, MEMORY_BYTES, 0), MEMORY_BYTES);
    assert_int_equal(pread(back.fds[TEMPLATE_MEMORY], b, MEMORY_BYTES, 0), MEMORY_BYTES);
    assert_memory_equal(a, b, MEMORY_BYTES);
    assert_int_equal(pread(STATE, a, STATE_BYTES, 0), STATE_BYTES);
    assert_int_equal(pread(back.fds[TEMPLATE_STATE], b, MEMORY_BYTES, 0), STATE_BYTES);
    assert_memory_equal(a, b, STATE_BYTES);
    free(a);
    free(b);
    /* There is no disk, and it stays so. */
    assert_int_equal(fstat(back.fds[TEMPLATE_DISK], &st), 0);
    assert_int_equal(st.st_size, 0);
    /* What is not used takes no room. */
    assert_int_equal(fstat(back.fds[TEMPLATE_MEMORY], &st), 0);
    assert_true(st.st_blocks * 512 < MEMORY_BYTES / 2);
}

static void zeros_are_given_back(void **state)
{
    static const uint8_t zeros[300000];
    struct stat before, after;
    struct err err;
    char text[6];

    (void)state;
    assert_int_equal(pwrite(MEMORY, zeros, sizeof(zeros), 400000), sizeof(zeros));
    assert_int_equal(fstat(MEMORY, &before), 0);
    assert_int_equal(template_file_trim(MEMORY, &err), 0);
    assert_int_equal(fstat(MEMORY, &after), 0);
    assert_true(after.st_blocks * 512 + 200000 < before.st_blocks * 512);
    assert_int_equal(after.st_size, MEMORY_BYTES);
    assert_int_equal(pread(MEMORY, text, sizeof(text), 262142), sizeof(text));
    assert_string_equal(text, "state");
}

static void a_sealed_one_cannot_be_changed(void **state)
{
    char path[64];
    struct err err;

    (void)state;
    void *writable = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0);
    assert_ptr_not_equal(writable, MAP_FAILED);
    assert_int_equal(template_file_seal(MEMORY, &err), -1);
    assert_int_equal(err.code, ERR_BAD_STATE);
    assert_int_equal(munmap(writable, 4096), 0);
    assert_int_equal(template_file_seal(MEMORY, &err), 0);

    /* As QEMU opens it. */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", MEMORY);
    cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "y", 1, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    char *own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 131072);
    assert_ptr_not_equal(own, MAP_FAILED);
    own[0] = 'S';
    char byte;
    assert_int_equal(pread(MEMORY, &byte, 1, 131072), 1);
    assert_int_equal(byte, 's');
    assert_int_equal(munmap(own, 4096), 0);
}

static void expect_bad(enum err_code code)
{
    struct template_files back = TEMPLATE_NO_FILES;
    struct err err;

    assert_int_equal(template_file_read(t.dir, key, &back, &err), -1);
    assert_int_equal(err.code, code);
    for (size_t i = 0; i < TEMPLATE_PARTS; i++)
        assert_int_equal(back.fds[i], -1);
}

static void poke(const char *name, off_t at, const char *byte)
{
    cleanup_free char *path = text_printf("%s/%s", t.dir, name);
    cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    if (byte == NULL)
        assert_int_equal(ftruncate(fd, at), 0);
    else
        assert_int_equal(pwrite(fd, byte, 1, at), 1);
}

static void drop(const char *name)
{
    cleanup_free char *path = text_printf("%s/%s", t.dir, name);

    assert_int_equal(unlink(path), 0);
}

static void damage_is_noticed(void **state)
{
    (void)state;
    expect_bad(ERR_NOT_FOUND);
    write_all();
    poke("memory", 131072, "X");
    expect_bad(ERR_PROTOCOL);
    poke("memory", 131072, "s");
    /* A byte in what was a hole. */
    poke("memory", 700000, "X");
    expect_bad(ERR_PROTOCOL);
}

static void halves_are_noticed(void **state)
{
    (void)state;
    write_all();
    poke("state", 0, "X");
    expect_bad(ERR_PROTOCOL);
    poke("state", 0, "s");
    poke("state", STATE_BYTES - 1, NULL);
    expect_bad(ERR_PROTOCOL);
    drop("state");
    expect_bad(ERR_PROTOCOL);
    drop("template.json");
    expect_bad(ERR_NOT_FOUND);
}

static void another_ones_is_not_taken(void **state)
{
    static const char other[] = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    struct template_files back = TEMPLATE_NO_FILES;
    struct err err;

    (void)state;
    write_all();
    assert_int_equal(template_file_read(t.dir, other, &back, &err), -1);
    assert_int_equal(err.code, ERR_PROTOCOL);
    /* And nothing is written over what is there. */
    assert_int_equal(template_file_write(t.dir, key, &t.files, &err), -1);
}

static void descriptions_are_checked(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"version\":1}",
        "{\"version\":2,\"key\":\"zz\"}",
        "{\"version\":2,\"key\":"
        "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\","
        "\"memory\":{\"bytes\":-1}}",
    };
    struct template_meta m = {0}, back;
    cleanup_free char *text = NULL;
    char longer[TEMPLATE_META_MAX + 2];
    struct err err;

    (void)state;
    memcpy(m.key, key, sizeof(m.key));
    for (size_t i = 0; i < TEMPLATE_PARTS; i++) {
        m.parts[i].bytes = i + 5;
        memcpy(m.parts[i].sha256, key, sizeof(m.key));
    }
    assert_int_equal(template_meta_encode(&m, &text, &err), 0);
    assert_int_equal(template_meta_decode(text, &back, &err), 0);
    assert_memory_equal(&m, &back, sizeof(m));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(template_meta_decode(bad[i], &back, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
    }
    memset(longer, ' ', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(template_meta_decode(longer, &back, &err), -1);
    m.parts[TEMPLATE_MEMORY].bytes = 0;
    free(text);
    assert_int_equal(template_meta_encode(&m, &text, &err), 0);
    assert_int_equal(template_meta_decode(text, &back, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(comes_back_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(zeros_are_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sealed_one_cannot_be_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(halves_are_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(another_ones_is_not_taken, setup, teardown),
        cmocka_unit_test(descriptions_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
