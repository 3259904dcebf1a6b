/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two tables between gRPC's status codes and our error codes. They are not inverse to each
 * other everywhere: several statuses say the same to a caller (ABORTED and FAILED_PRECONDITION: not
 * in this state).
 */
#include "common/rpc/rpc.h"

#include "common/base/cleanup.h"

enum rpc_status rpc_status_from_err(enum err_code code)
{
    switch (code) {
    case ERR_NONE:
        return RPC_OK;
    case ERR_INVALID:
        return RPC_INVALID_ARGUMENT;
    case ERR_NOT_FOUND:
        return RPC_NOT_FOUND;
    case ERR_EXISTS:
        return RPC_ALREADY_EXISTS;
    case ERR_BAD_STATE:
        return RPC_FAILED_PRECONDITION;
    case ERR_UNAVAILABLE:
        return RPC_UNAVAILABLE;
    case ERR_DEADLINE:
        return RPC_DEADLINE_EXCEEDED;
    case ERR_EXHAUSTED:
        return RPC_RESOURCE_EXHAUSTED;
    case ERR_DENIED:
        return RPC_PERMISSION_DENIED;
    case ERR_PROTOCOL:
        return RPC_INTERNAL;
    case ERR_UNSUPPORTED:
        return RPC_UNIMPLEMENTED;
    case ERR_CANCELLED:
        return RPC_CANCELLED;
    case ERR_SYSTEM:
        return RPC_UNKNOWN;
    }
    return RPC_UNKNOWN;
}

static const struct {
    const char *name;
    enum err_code code;
    const char *digits;
} statuses[] = {
    [RPC_OK] = {"OK", ERR_NONE, "0"},
    [RPC_CANCELLED] = {"CANCELLED", ERR_CANCELLED, "1"},
    [RPC_UNKNOWN] = {"UNKNOWN", ERR_SYSTEM, "2"},
    [RPC_INVALID_ARGUMENT] = {"INVALID_ARGUMENT", ERR_INVALID, "3"},
    [RPC_DEADLINE_EXCEEDED] = {"DEADLINE_EXCEEDED", ERR_DEADLINE, "4"},
    [RPC_NOT_FOUND] = {"NOT_FOUND", ERR_NOT_FOUND, "5"},
    [RPC_ALREADY_EXISTS] = {"ALREADY_EXISTS", ERR_EXISTS, "6"},
    [RPC_PERMISSION_DENIED] = {"PERMISSION_DENIED", ERR_DENIED, "7"},
    [RPC_RESOURCE_EXHAUSTED] = {"RESOURCE_EXHAUSTED", ERR_EXHAUSTED, "8"},
    [RPC_FAILED_PRECONDITION] = {"FAILED_PRECONDITION", ERR_BAD_STATE, "9"},
    [RPC_ABORTED] = {"ABORTED", ERR_BAD_STATE, "10"},
    [RPC_OUT_OF_RANGE] = {"OUT_OF_RANGE", ERR_INVALID, "11"},
    [RPC_UNIMPLEMENTED] = {"UNIMPLEMENTED", ERR_UNSUPPORTED, "12"},
    [RPC_INTERNAL] = {"INTERNAL", ERR_PROTOCOL, "13"},
    [RPC_UNAVAILABLE] = {"UNAVAILABLE", ERR_UNAVAILABLE, "14"},
    [RPC_DATA_LOSS] = {"DATA_LOSS", ERR_PROTOCOL, "15"},
    [RPC_UNAUTHENTICATED] = {"UNAUTHENTICATED", ERR_DENIED, "16"},
};

enum err_code rpc_status_to_err(uint32_t status)
{
    return status < ARRAY_SIZE(statuses) ? statuses[status].code : ERR_PROTOCOL;
}

const char *rpc_status_name(uint32_t status)
{
    return status < ARRAY_SIZE(statuses) ? statuses[status].name : "STATUS_?";
}

const char *rpc_status_digits(enum rpc_status status)
{
    return statuses[(unsigned)status < ARRAY_SIZE(statuses) ? status : RPC_UNKNOWN].digits;
}
