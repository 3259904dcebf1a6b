/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image references as people write them, normalised as Docker and containerd do: "busybox" is
 * "docker.io/library/busybox:latest"; of tag and digest together the digest counts and the tag is
 * dropped. Embedded by value, allocates nothing, pure functions.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"
#include "host/image/digest.h"

#define REF_MAX_NAME                                                                               \
    255 /* bytes of the repository path, and of the domain (distribution reference grammar) */
#define REF_MAX_TAG   128
#define REF_TEXT_SIZE (2 * (REF_MAX_NAME + 1) + REF_MAX_TAG + 1 + DIGEST_TEXT_SIZE)

struct ref {
    char domain[REF_MAX_NAME + 1]; /* "docker.io", "localhost:5000" */
    char path[REF_MAX_NAME + 1];   /* "library/busybox" */
    char tag[REF_MAX_TAG + 1];     /* "" when there is a digest */
    char digest[DIGEST_TEXT_SIZE]; /* "" when there is a tag */
};

/* Parses and normalises. INVALID says what is wrong with the text, UNSUPPORTED for a digest other
 * than sha256. */
int ref_parse(const char *text, struct ref *ret_ref, struct err *err);

/* "domain/path". */
void ref_format_name(const struct ref *ref, char ret_text[REF_TEXT_SIZE]);
/* "domain/path:tag" or "domain/path@digest". */
void ref_format(const struct ref *ref, char ret_text[REF_TEXT_SIZE]);
/* "domain/path@digest" for a digest of the caller's. */
void ref_format_digest(const struct ref *ref, const char *digest, char ret_text[REF_TEXT_SIZE]);
