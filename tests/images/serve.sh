#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Start Debian's docker-registry on prepared storage, in whatever namespaces the caller is in, and
# return when it answers.
#
# The registry's log is the source of its address, so --port 0 (any free port) works. The server
# runs on after this script; stop it with the pid in --pidfile. Everything it writes is below
# --data.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: serve.sh --data DIR [options]
  --data DIR            storage in DIR/storage (made if missing); log and configuration go to DIR too
  --port N              port; 0 picks a free one (default 5000)
  --listen ADDRESS      default 127.0.0.1
  --pidfile FILE        write the server's pid here
  --log FILE            the server's log; one line each request
  --tls DIR             HTTPS with DIR/cert.pem and DIR/key.pem; made, with a CA in DIR/ca.pem, where they are missing
  --client-ca FILE      with --tls: only clients with a certificate of this authority
  --htpasswd USER:PASS  basic authentication
  --token REALM CERTS   tokens of the service at REALM, signed by a certificate in CERTS ("test issuer", "test service")
  --read-only           refuse pushes
Prints the address, for example http://127.0.0.1:5000, once the registry answers.
USAGE
}

die() {
    echo "serve: $*" >&2
    exit 1
}

data='' port=5000 listen=127.0.0.1 pidfile='' log='' tls='' account='' readonly=false client_ca='' realm='' certs=''
while [ $# -gt 0 ]; do
    case "$1" in
        --data | --port | --listen | --pidfile | --log | --tls | --htpasswd | --client-ca)
            [ $# -ge 2 ] || die "$1 wants a value"
            ;;&
        --token)
            [ $# -ge 3 ] || die "--token wants two values"
            realm=$2 certs=$3
            shift 3
            continue
            ;;
        --client-ca) client_ca=$2 ;;
        --data) data=$2 ;;
        --port) port=$2 ;;
        --listen) listen=$2 ;;
        --pidfile) pidfile=$2 ;;
        --log) log=$2 ;;
        --tls) tls=$2 ;;
        --htpasswd) account=$2 ;;
        --read-only) readonly=true; shift; continue ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift 2
done
[ -n "$data" ] || { usage >&2; exit 2; }
command -v docker-registry >/dev/null || die "docker-registry is missing (package docker-registry)"
command -v curl >/dev/null || die "curl is missing (package curl)"

mkdir -p "$data/storage"
data=$(cd "$data" && pwd)
run=$(mktemp -d "$data/run.XXXXXX")
log=${log:-$run/log}

make_certificates() {
    mkdir -p "$tls"
    [ -s "$tls/cert.pem" ] && [ -s "$tls/key.pem" ] && return
    command -v openssl >/dev/null || die "openssl is missing (package openssl)"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=test CA' \
        -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=test registry' \
        -keyout "$tls/key.pem" -out "$tls/cert.csr" 2>/dev/null
    openssl x509 -req -in "$tls/cert.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial -days 30 \
        -extfile <(printf 'subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1,IP:%s\n' "$listen") \
        -out "$tls/cert.pem" 2>/dev/null
}

configuration() {
    cat <<CONFIG
version: 0.1
log: {level: info, formatter: text, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: $data/storage}
  delete: {enabled: true}
  maintenance:
    uploadpurging: {enabled: false}
    readonly: {enabled: $readonly}
http:
  addr: $listen:$port
CONFIG
    if [ -n "$tls" ]; then
        printf '  tls: {certificate: %s, key: %s%s}\n' "$tls/cert.pem" "$tls/key.pem" \
            "${client_ca:+, clientcas: [$client_ca]}"
    fi
    if [ -n "$account" ]; then
        printf 'auth:\n  htpasswd: {realm: test, path: %s}\n' "$run/htpasswd"
    fi
}

configuration_of_tokens() {
    [ -z "$realm" ] || printf 'auth:\n  token: {realm: %s, service: test service, issuer: test issuer, rootcertbundle: %s}\n' \
        "$realm" "$certs"
}

scheme=http
if [ -n "$tls" ]; then
    scheme=https
    make_certificates
    tls=$(cd "$tls" && pwd)
fi
if [ -n "$account" ]; then
    command -v htpasswd >/dev/null || die "htpasswd is missing (package apache2-utils)"
    htpasswd -nbB "${account%%:*}" "${account#*:}" >"$run/htpasswd"
fi
{ configuration && configuration_of_tokens; } >"$run/config.yml"

: >"$log"
setsid docker-registry serve "$run/config.yml" </dev/null >>"$log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true' EXIT # until it is known to work, whatever goes wrong here

give_up() {
    tail -n 5 "$log" >&2
    die "$*"
}

# The log line 'listening on ADDR:PORT' is the event; the answer of /v2/ is the proof.
deadline=$((SECONDS + 20))
address=''
while :; do
    kill -0 "$pid" 2>/dev/null || give_up "docker-registry ended at once"
    [ "$SECONDS" -lt "$deadline" ] || give_up "docker-registry does not answer"
    address=$(sed -n 's/.*listening on \([0-9.]*:[0-9]*\).*/\1/p' "$log" | head -n 1)
    if [ -n "$address" ]; then
        code=$(curl -ks -o /dev/null -m 5 --noproxy '*' -w '%{http_code}' "$scheme://$address/v2/" || true)
        case "$code" in 200 | 401) break ;; esac
        [ -z "$client_ca" ] || break # it does not answer us
    fi
    sleep 0.02
done
if [ -n "$pidfile" ]; then
    echo "$pid" >"$pidfile"
fi
trap - EXIT
echo "$scheme://$address"
