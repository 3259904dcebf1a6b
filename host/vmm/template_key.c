/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape is QEMU's own command line for the template (template and clone differ in nothing but
 * where memory comes from), so that a device that is added there makes new templates by itself.
 */
#include "host/vmm/template_key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/vmm/internal.h"

#define FORMAT     "casemate template 2" /* raise when clones of older templates must not be made */
#define READ_BYTES 262144u
#define SHAPE_CID  3 /* stands for whatever a machine gets */

/* The files that a template depends on; NULL: none. */
static void files_of(const struct vmm_choice *choice, const struct vm_spec *spec,
                     const char *ret_files[3])
{
    ret_files[0] = choice->qemu;
    ret_files[1] = spec->kernel;
    ret_files[2] = spec->initrd;
}

static int join_arguments(const struct vmm_choice *choice, const struct vm_spec *spec,
                          char **ret_text, struct err *err)
{
    struct vm_spec nameless = *spec;
    cleanup_cmdline struct cmdline line = {0};
    struct cmdline_spec description;
    size_t size = 1;

    nameless.id = "template";
    vm_describe(choice, &nameless, &description);
    /* Measured, not chosen: it may be a MHz off the next time, and the template does not mind. */
    description.tsc_khz = 0;
    description.memory = CMDLINE_MEMORY_TEMPLATE;
    description.fds.memory = 0;
    description.cid = choice->transport == VMM_TRANSPORT_VSOCK ? SHAPE_CID : 0;
    if (cmdline_build(&description, &line, err) < 0)
        return -1;
    for (size_t i = 0; i < line.n; i++)
        size += strlen(line.argv[i]) + 1;
    char disk[32] = "no disk";
    if (spec->first_disk != NULL) {
        struct stat st;
        if (fstat(spec->first_disk->fd, &st) < 0)
            return err_set_errno(err, errno, "the first disk");
        (void)snprintf(disk, sizeof(disk), "disk %lld", (long long)st.st_size);
    }
    size += sizeof(disk);
    char *text = malloc(size), *end = text;
    if (text == NULL)
        return err_no_memory(err);
    for (size_t i = 0; i < line.n; i++) {
        size_t n = strlen(line.argv[i]);
        memcpy(end, line.argv[i], n);
        end[n] = '\n';
        end += n + 1;
    }
    memcpy(end, disk, strlen(disk) + 1);
    *ret_text = text;
    return 0;
}

int template_shape(const struct vmm_choice *choice, const struct vm_spec *spec, char **ret_shape,
                   struct err *err)
{
    cleanup_free char *arguments = NULL;

    if (join_arguments(choice, spec, &arguments, err) < 0)
        return -1;
    *ret_shape = text_printf("%s\n%s\n%s", arguments, spec->kernel, text_or_empty(spec->initrd));
    return *ret_shape == NULL ? err_no_memory(err) : 0;
}

int template_stamp(const struct vmm_choice *choice, const struct vm_spec *spec, char **ret_stamp,
                   struct err *err)
{
    const char *files[3];
    char *parts[3] = {NULL};
    int result = 0;

    files_of(choice, spec, files);
    for (size_t i = 0; i < ARRAY_SIZE(files) && result == 0; i++) {
        struct stat st = {0};
        if (files[i] != NULL && stat(files[i], &st) < 0) {
            result = err_set_errno(err, errno, "%s", files[i]);
            break;
        }
        parts[i] = text_printf("%llx:%llu %lld %lld.%09ld", (unsigned long long)st.st_dev,
                               (unsigned long long)st.st_ino, (long long)st.st_size,
                               (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
        if (parts[i] == NULL)
            result = err_no_memory(err);
    }
    if (result == 0) {
        *ret_stamp = text_printf("%s; %s; %s", parts[0], parts[1], parts[2]);
        if (*ret_stamp == NULL)
            result = err_no_memory(err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        free(parts[i]);
    return result;
}

static int add_file(EVP_MD_CTX *sum, const char *path, struct err *err)
{
    cleanup_free uint8_t *bytes = malloc(READ_BYTES);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (bytes == NULL)
        return err_no_memory(err);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "%s", path);
    uint64_t size = (uint64_t)st.st_size;
    (void)EVP_DigestUpdate(sum, &size, sizeof(size));
    for (;;) {
        size_t n;
        if (fd_read_full(fd, bytes, READ_BYTES, &n, err) < 0)
            return err_prefix(err, "%s", path);
        if (n == 0)
            return 0;
        (void)EVP_DigestUpdate(sum, bytes, n);
    }
}

static int digest_all(EVP_MD_CTX *sum, const struct vmm_choice *choice, const struct vm_spec *spec,
                      const char *host_boot_id, struct err *err)
{
    cleanup_free char *arguments = NULL;
    const char *files[3];

    if (EVP_DigestInit_ex(sum, EVP_sha256(), NULL) != 1)
        return err_no_memory(err);
    if (join_arguments(choice, spec, &arguments, err) < 0)
        return -1;
    (void)EVP_DigestUpdate(sum, FORMAT, sizeof(FORMAT));
    (void)EVP_DigestUpdate(sum, choice->version, strlen(choice->version) + 1);
    (void)EVP_DigestUpdate(sum, arguments, strlen(arguments) + 1);
    if (choice->accel == VMM_ACCEL_KVM)
        (void)EVP_DigestUpdate(sum, host_boot_id, strlen(host_boot_id) + 1);
    files_of(choice, spec, files);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        if (files[i] != NULL && add_file(sum, files[i], err) < 0)
            return -1;
    if (spec->first_disk != NULL) {
        char disk[65];
        if (template_file_sum(spec->first_disk->fd, disk, err) < 0)
            return -1;
        (void)EVP_DigestUpdate(sum, disk, sizeof(disk));
    }
    return 0;
}

int template_key(const struct vmm_choice *choice, const struct vm_spec *spec,
                 const char *host_boot_id, char ret_key[TEMPLATE_KEY_SIZE], struct err *err)
{
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    uint8_t raw[32] = {0};

    if (sum == NULL)
        return err_no_memory(err);
    int result = digest_all(sum, choice, spec, host_boot_id, err);
    if (result == 0) {
        (void)EVP_DigestFinal_ex(sum, raw, NULL);
        text_hex(raw, sizeof(raw), ret_key);
    }
    EVP_MD_CTX_free(sum);
    return result;
}
