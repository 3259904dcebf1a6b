/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of crifields.h held against the code, field by field, by way of protobuf's descriptors:
 * a field that CRI gains fails here until somebody has decided what becomes of it. And docs/CRI.md
 * held against the table; CRIFIELDS_WRITE=1 writes it anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/cleanup.h"
#include "common/base/fd.h"
#include "common/base/text.h"
#include "host/image/image.h"
#include "host/sandbox/crispec.h"
#include "host/sandbox/crivalid.h"
#include "tests/unit/host/sandbox/crifields.h"

#define DOC      "docs/CRI.md"
#define MAX_PATH 160

static bool seen[ARRAY_SIZE(crifields)];
static char profile_path[] = "/tmp/crifields.XXXXXX";

/* The page's last sections. */
static const char more[] =
    "\n## Volumes of the image\n\n"
    "Each path under `Volumes` in the image's config is a directory of the container's own: made "
    "(root's, 0755) if the image has none, with\nwhat the image has there, and writable also "
    "with `readonly_rootfs`. What is written counts as the container's writable layer and goes\n"
    "with it; the next container of the pod begins with the image's contents again. It is a mount "
    "of its own, so it cannot be removed or\nrenamed, nor hard links be made out of it. Paths "
    "are taken below `/` and cleaned as text; links on the way are followed inside the\nimage; "
    "a file in the way fails CreateContainer, as it does with containerd. `/` itself, and what is "
    "at or below `/proc`, `/sys`\nand `/dev`, is left out: what every container has there stays. "
    "More than 128 are INVALID_ARGUMENT.\n"
    "\n## Sets of CPUs\n\n"
    "`cpuset_cpus` numbers the CPUs of the pod's own machine, of which every pod has a CPU 0. The "
    "machine gets as many vCPUs as the highest\nnumber needs, up to the host's CPUs and "
    "`vcpus_max`; "
    "a number beyond is refused with what the guest has. A set does not bind the\nmachine to CPUs "
    "of "
    "the host. The kubelet's static CPU manager sends sets of the node's numbers for every "
    "container: "
    "they are honoured\nas above, so each container runs on as many CPUs as it was given, not on "
    "those "
    "of the host, and machines grow to the node's highest\nnumber. Its policy `none` sends no sets "
    "and "
    "is the one to use. Memory nodes are the machine's too: it has node 0.\n\n"
    "## How a container ended\n\n"
    "| reason | exit code | |\n|---|---|---|\n"
    "| Completed | 0 | |\n"
    "| Error | its own, 128 + n after signal n | also 137 when its pod was stopped |\n"
    "| OOMKilled | not 0 | the kernel killed one of its processes for want of memory |\n"
    "| StartError | 128 | the program could not be executed: the message has its path and the "
    "reason, `exec /bin/nope: no such file or directory` |\n"
    "| ContainerCannotRun | 128 | anything else that kept it from running once it was created: "
    "its log, its working directory, its identity in the guest; the message says which |\n"
    "| VMExited, AgentLost | 137 | it ended with its pod's machine, and the reason is the "
    "pod's |\n"
    "| Unknown | 255 | the guest could not say |\n\n"
    "containerd says StartError for both of the failed starts, dockershim said ContainerCannotRun; "
    "the kubelet shows either as it is and\nrestarts by the exit code.\n";

/* ---- messages by path ---- */

/* One element more of a repeated field, zeroed: its memory. */
static void *append(const ProtobufCFieldDescriptor *field, ProtobufCMessage *message, size_t size)
{
    size_t *n = (size_t *)(void *)((char *)message + field->quantifier_offset);
    char **list = (char **)(void *)((char *)message + field->offset);

    *list = realloc(*list, (*n + 1) * size);
    assert_non_null(*list);
    memset(*list + *n * size, 0, size);
    return *list + (*n)++ * size;
}

static ProtobufCMessage *new_message(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = calloc(1, descriptor->sizeof_message);

    assert_non_null(message);
    protobuf_c_message_init(descriptor, message);
    return message;
}

/* The message that the field holds, made if need be; of a list the last, or a new one. */
static ProtobufCMessage *descend(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    ProtobufCMessage **at = (ProtobufCMessage **)(void *)((char *)message + field->offset);

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t n = *(size_t *)(void *)((char *)message + field->quantifier_offset);
        ProtobufCMessage **list = *(ProtobufCMessage ***)(void *)at;
        if (n > 0)
            return list[n - 1];
        at = append(field, message, sizeof(*at));
    }
    if (*at == NULL)
        *at = new_message(field->descriptor);
    return *at;
}

static void set_scalar(const ProtobufCFieldDescriptor *field, void *at, const char *value)
{
    long long number = value == NULL ? 1 : strtoll(value, NULL, 10);

    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        if (*(char **)at != field->default_value)
            free(*(char **)at);
        *(char **)at = strdup(value == NULL ? "x" : value);
        assert_non_null(*(char **)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = number != 0;
        break;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
        *(int32_t *)at = (int32_t)number;
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        *(int64_t *)at = number;
        break;
    default:
        fail_msg("%s: a type that the test does not know", field->name);
    }
}

static size_t size_of(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(char *);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return sizeof(int64_t);
    default:
        return sizeof(int32_t);
    }
}

static void set_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                      const char *value)
{
    if (value != NULL && strcmp(value, "@profile") == 0)
        value = profile_path;
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        ProtobufCMessage *inner = descend(message, field);
        /* A wrapped number, or one entry of a map. */
        for (unsigned i = 0; i < inner->descriptor->n_fields; i++) {
            const ProtobufCFieldDescriptor *part = &inner->descriptor->fields[i];
            if (part->label != PROTOBUF_C_LABEL_REPEATED && part->type != PROTOBUF_C_TYPE_MESSAGE)
                set_scalar(part, (char *)inner + part->offset, value);
        }
        return;
    }
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        set_scalar(field, append(field, message, size_of(field)), value);
    else
        set_scalar(field, (char *)message + field->offset, value);
}

struct configs {
    ProtobufCMessage *pod;
    ProtobufCMessage *container;
};

/* Sets what a path names, without its "=VALUE". */
static void set_path(struct configs *c, const char *path, const char *value)
{
    ProtobufCMessage *at = text_has_prefix(path, "pod.") ? c->pod : c->container;

    path += strcspn(path, ".") + 1;
    for (;;) {
        size_t n = strcspn(path, ".[=");
        char name[64];
        const ProtobufCFieldDescriptor *field;
        (void)snprintf(name, sizeof(name), "%.*s", (int)n, path);
        field = protobuf_c_message_descriptor_get_field_by_name(at->descriptor, name);
        if (field == NULL)
            fail_msg("there is no field %s in %s", name, at->descriptor->name);
        path += n;
        path += strspn(path, "[]");
        if (*path != '.') {
            set_field(at, field, value);
            return;
        }
        path++;
        at = descend(at, field);
    }
}

/* "path=value path=value …" */
static void set_all(struct configs *c, const char *assignments)
{
    char text[2048], *save = NULL;

    (void)snprintf(text, sizeof(text), "%s", assignments);
    for (char *word = strtok_r(text, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        char *value = strrchr(word, '=');
        assert_non_null(value);
        *value++ = '\0';
        set_path(c, word, value);
    }
}

static void configs_new(struct configs *ret_configs, const struct crifield *field)
{
    ret_configs->pod = new_message(&runtime__v1__pod_sandbox_config__descriptor);
    ret_configs->container = new_message(&runtime__v1__container_config__descriptor);
    /* What is about a field below one of these is not set twice. */
    set_all(ret_configs, "pod.metadata.uid=u container.args=first");
    if (strcmp(field->path, "pod.metadata.name") != 0)
        set_path(ret_configs, "pod.metadata.name", "p");
    if (strcmp(field->path, "container.metadata.name") != 0)
        set_path(ret_configs, "container.metadata.name", "c");
    if (strcmp(field->path, "container.image.image") != 0)
        set_path(ret_configs, "container.image.image", "i");
    set_path(ret_configs, "pod.linux.security_context.readonly_rootfs", "0");
    set_path(ret_configs, "container.linux.security_context.readonly_rootfs", "0");
    set_all(ret_configs, field->with);
}

static void configs_free(struct configs *c)
{
    protobuf_c_message_free_unpacked(c->pod, NULL);
    protobuf_c_message_free_unpacked(c->container, NULL);
}

/* ---- what the code makes of them ---- */

static int validate(const struct configs *c, struct err *err)
{
    const Runtime__V1__PodSandboxConfig *pod = (const Runtime__V1__PodSandboxConfig *)c->pod;

    if (crivalid_pod(pod, err) != 0)
        return -1;
    return crivalid_container((const Runtime__V1__ContainerConfig *)c->container, pod, err);
}

/* What the guest is asked for, packed; nothing when that cannot be made. */
static void request_of(const struct configs *c, struct buf *ret_bytes)
{
    const Runtime__V1__ContainerConfig *config = (const void *)c->container;
    const struct crispec_disk disks[] = {{.lun = 1}};
    struct image_layer layer = {.fs_type = "squashfs", .diff_id = "sha256:2", .size_bytes = 4096};
    struct image image = {.layers = &layer,
                          .n_layers = 1,

                          .id = "sha256:1",
                          .user = "",
                          .username = "",
                          .working_dir = "",
                          .stop_signal = ""};
    struct crispec_input input = {
        .id = "c1",
        .config = config,
        .pod = (const void *)c->pod,
        .image = &image,
        .disks = disks,
        .hostname = "host",
    };
    struct crispec *spec = NULL;
    const ProtobufCMessage *message;
    uint8_t *bytes;
    struct err err;

    if (crispec_new(&input, &spec, &err) != 0)
        return; /* before the field was set, half of a pair was missing */
    message = &crispec_request(spec)->base;
    bytes = malloc(protobuf_c_message_get_packed_size(message) + 1);
    assert_non_null(bytes);
    assert_int_equal(buf_append(ret_bytes, bytes, protobuf_c_message_pack(message, bytes), &err),
                     0);
    free(bytes);
    crispec_free(spec);
}

static bool changes_request(const struct configs *before, const struct configs *after)
{
    cleanup_buf struct buf a = BUF_INIT(1 << 20), b = BUF_INIT(1 << 20);

    request_of(before, &a);
    request_of(after, &b);
    return a.len != b.len || memcmp(a.data, b.data, a.len) != 0;
}

/* The path as the error messages have it: without the first word, "[]" as "[0]" or not there. */
static bool names_path(const char *message, const char *path)
{
    char words[MAX_PATH];
    size_t n = 0;

    path += strcspn(path, ".") + 1;
    /* The first words up to a list or a value are enough: the rest may be said in other ways. */
    n = strcspn(path, "[=");
    (void)snprintf(words, sizeof(words), "%.*s", (int)n, path);
    while (strcmp(words, "linux") != 0) {
        char *dot;
        if (text_has_prefix(message, words))
            return true;
        dot = strrchr(words, '.');
        if (dot == NULL)
            return false;
        *dot = '\0';
    }
    return false;
}

static void check_row(const struct crifield *row, const char *value, bool is_zero)
{
    const char *sample = row->sample != NULL ? row->sample : value;
    struct configs before, after;
    struct err err = {0};
    int result;

    configs_new(&before, row);
    configs_new(&after, row);
    set_path(&after, row->path, sample);
    result = validate(&after, &err);
    if (row->kind == REFUSED || row->kind == WRONG) {
        enum err_code code = row->kind == REFUSED ? ERR_UNSUPPORTED : ERR_INVALID;
        if (result == 0)
            fail_msg("%s: is not refused", row->path);
        if (err.code != code || !names_path(err.msg, row->path))
            fail_msg("%s: refused as %s: %s", row->path, err_code_name(err.code), err.msg);
    } else if (result != 0) {
        fail_msg("%s: refused: %s", row->path, err.msg);
    } else if (!is_zero && changes_request(&before, &after) != (row->kind == GUEST)) {
        fail_msg("%s: %s the request to the guest", row->path,
                 row->kind == GUEST ? "does not change" : "changes");
    }
    configs_free(&before);
    configs_free(&after);
}

/* ---- every field ---- */

static const struct crifield *find_row(const char *path)
{
    for (size_t i = 0; i < ARRAY_SIZE(crifields); i++) {
        if (strcmp(crifields[i].path, path) == 0) {
            seen[i] = true;
            return &crifields[i];
        }
    }
    return NULL;
}

static void walk(const ProtobufCMessageDescriptor *message, const char *prefix);

static void join(char ret_path[MAX_PATH], const char *a, const char *b, const char *c)
{
    int n = snprintf(ret_path, MAX_PATH, "%s%s%s", a, b, c);

    assert_in_range(n, 1, MAX_PATH - 1);
}

static void check_field(const ProtobufCFieldDescriptor *field, const char *path)
{
    const struct crifield *row = find_row(path);
    char longer[MAX_PATH];

    if (row != NULL) {
        check_row(row, NULL, false);
        return;
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        join(longer, path, field->label == PROTOBUF_C_LABEL_REPEATED ? "[]" : "", "");
        walk(field->descriptor, longer);
        return;
    }
    if (field->type != PROTOBUF_C_TYPE_ENUM)
        fail_msg("%s: nothing is said about it in crifields.h", path);
    const ProtobufCEnumDescriptor *values = field->descriptor;
    for (unsigned i = 0; i < values->n_values; i++) {
        char number[16];
        join(longer, path, "=", values->values[i].name);
        (void)snprintf(number, sizeof(number), "%d", values->values[i].value);
        row = find_row(longer);
        if (row == NULL)
            fail_msg("%s: nothing is said about it in crifields.h", longer);
        else
            check_row(row, number, values->values[i].value == 0);
    }
}

static void walk(const ProtobufCMessageDescriptor *message, const char *prefix)
{
    for (unsigned i = 0; i < message->n_fields; i++) {
        char path[MAX_PATH];
        join(path, prefix, ".", message->fields[i].name);
        check_field(&message->fields[i], path);
    }
}

static void every_field(void **state)
{
    (void)state;
    walk(&runtime__v1__pod_sandbox_config__descriptor, "pod");
    walk(&runtime__v1__container_config__descriptor, "container");
    for (size_t i = 0; i < ARRAY_SIZE(crifields); i++) {
        if (!seen[i])
            fail_msg("%s: is in the table and not in CRI", crifields[i].path);
    }
}

/* ---- the page ---- */

static const char *kind_text(enum crifield_kind kind)
{
    switch (kind) {
    case GUEST:
        return "in force, in the guest";
    case HOST:
        return "in force, on the host";
    case KEPT:
        return "kept and given back";
    case MOOT:
        return "accepted, nothing to apply it to";
    case REFUSED:
        return "**refused**";
    case WRONG:
        return "refused: INVALID_ARGUMENT";
    }
    return "";
}

static void write_table(struct buf *page, const char *prefix)
{
    struct err err;

    assert_int_equal(buf_printf(page, &err, "\n| field | | |\n|---|---|---|\n"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(crifields); i++) {
        const struct crifield *row = &crifields[i];
        const char *value = strchr(row->path, '=');
        if (!text_has_prefix(row->path, prefix))
            continue;
        assert_int_equal(buf_printf(page, &err, "| `%.*s`%s%s | %s | %s |\n",
                                    (int)(strcspn(row->path, "=") - strlen(prefix)),
                                    row->path + strlen(prefix), value != NULL ? " " : "",
                                    value != NULL ? value + 1 : "", kind_text(row->kind),
                                    row->note),
                         0);
    }
}

static void the_page(void **state)
{
    cleanup_buf struct buf page = BUF_INIT(1 << 20);
    cleanup_free char *written = NULL, *text = NULL;
    struct err err;

    (void)state;
    assert_int_equal(
        buf_printf(
            &page, &err,
            "<!-- Written by tests/unit/host/sandbox/test_crifields.c from crifields.h; do not "
            "edit. -->\n# Fields of CRI\n\nWhat becomes of every field of `PodSandboxConfig` and "
            "`ContainerConfig` (cri-api v0.36). A field that is refused is\nnamed in the error, "
            "which is UNIMPLEMENTED; a value that contradicts CRI itself is INVALID_ARGUMENT. The "
            "table is held against the\ncode by `make unit "
            "T=tests/unit/host/sandbox/test_crifields`; with `CRIFIELDS_WRITE=1` that writes this "
            "page anew.\n\n## PodSandboxConfig\n"),
        0);
    write_table(&page, "pod.");
    assert_int_equal(buf_printf(&page, &err, "\n## ContainerConfig\n"), 0);
    write_table(&page, "container.");
    assert_int_equal(
        buf_printf(
            &page, &err,
            "\n## User namespaces\n\nA pod's user namespace is one of its guest: the kubelet's "
            "host ids are ids of the guest's kernel, where nothing else has them. The\npod's "
            "network, UTS, IPC and pid namespaces belong to it, so root of a container has there "
            "what its capabilities say and elsewhere in the\nguest nothing. Files of the image "
            "appear with their owners; ids that are not in the mapping appear as nobody's. Where "
            "the guest's\nkernel can map the ids of the image's layers (squashfs: Linux 6.2 and "
            "later; found out by trying) that costs nothing. Where it cannot,\nas with Debian "
            "12's, CreateContainer changes the owner of every file in the writable layer: "
            "slower in proportion to the number of\nfiles, which the layer's count of inodes "
            "then includes, and names that were links to one file are files of their own. Their "
            "contents\nare not copied. Privileged containers have all capabilities and may divide "
            "their cgroup, but in the "
            "namespace; they see the guest's devices, and can open those that\neverybody can.\n"
            "\n## What has no field\n\nEvery process starts with umask 0022, at most 1048576 "
            "open files (soft and hard) and otherwise the kernel's limits. /dev/shm has\n64 "
            "MiB, the pod's and one of a container's own. A container sees its own cgroup as "
            "the root of the hierarchy. The host's clock is the\nguest's. Modules that a "
            "container's calls need (a bridge, /dev/net/tun, nftables) are loaded by the "
            "guest itself; `modprobe` is not\nthere.\n"),
        0);
    assert_int_equal(buf_printf(&page, &err, "%s", more), 0);
    assert_int_equal(buf_take_string(&page, &text, &err), 0);
    if (getenv("CRIFIELDS_WRITE") != NULL)
        assert_int_equal(fd_write_file_atomic(AT_FDCWD, DOC, text, strlen(text), 0644, &err), 0);
    if (fd_read_file(AT_FDCWD, DOC, 1 << 20, &written, NULL, &err) != 0)
        fail_msg("%s", err.msg);
    if (strcmp(written, text) != 0)
        fail_msg(DOC " is not what the table says: CRIFIELDS_WRITE=1 make unit "
                     "T=tests/unit/host/sandbox/test_crifields");
}

static int make_profile(void **state)
{
    static const char json[] = "{\"defaultAction\":\"SCMP_ACT_ALLOW\"}";
    int fd = mkstemp(profile_path);

    (void)state;
    if (fd < 0 || write(fd, json, sizeof(json) - 1) != (ssize_t)sizeof(json) - 1)
        return -1;
    return close(fd);
}

static int remove_profile(void **state)
{
    (void)state;
    return unlink(profile_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field),
        cmocka_unit_test(the_page),
    };

    return cmocka_run_group_tests(tests, make_profile, remove_profile);
}
