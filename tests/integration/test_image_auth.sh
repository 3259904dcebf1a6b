#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The image service against Debian's docker-registry behind TLS with an authority and client certificates of its own, a
# password file, and a token service (anonymous, password, OAuth2 refresh token, credential helper); and through proxies
# that the environment names.
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"
isolate "$0" "$@"
need docker-registry python3 curl openssl htpasswd

export CONVERTER=$bin/casemate-convert
driver=${IMAGE_DRIVER:-$repo/build/tests/unit/host/image/test_live_registry}
[ -x "$driver" ] || fail "$driver is not built: make tests"
[ -x "$CONVERTER" ] || fail "$CONVERTER is not built"
servers=$repo/tests/integration/image_servers.py
state=$work/state

image() {
    "$driver" "$state" "$@" 2>>"$work/image.log"
}

# pulls NAME / refused CODE NAME: with whatever is exported.
pulls() {
    image pull "$1" >/dev/null || fail "$2: $(tail -n 1 "$work/image.log")"
    image remove "$1"
}
refused() {
    if "$driver" "$state" pull "$2" >/dev/null 2>"$work/error"; then fail "$3: it was pulled"; fi
    grep -q "^$1: " "$work/error" || fail "$3: $(tail -n 1 "$work/error")"
    ! grep -q 'word\|refresh-me' "$work/error" || fail "$3: a secret is in the error"
}

# server NAME ARGS...: starts one of image_servers.py; sets port, and its log is $work/NAME.log.
server() {
    local name=$1
    shift
    python3 "$servers" "$@" >"$work/$name.port" 2>"$work/$name.log" &
    servers_started="${servers_started:-} $!"
    wait_for 20 test -s "$work/$name.port"
    port=$(cat "$work/$name.port")
}

# serve OPTIONS...: sets address and registry_pid.
serve() {
    address=$(bash "$repo/tests/images/serve.sh" --data "$work/registry" --port 0 --pidfile "$work/registry.pid" "$@")
    registry_pid=$(cat "$work/registry.pid")
    export REGISTRY=${address#*://}
}
registry_is_gone() { ! kill -0 "$registry_pid" 2>/dev/null; }
stop_registry() {
    kill "$registry_pid"
    wait_for 10 registry_is_gone
    registry_pid=''
}

mkdir "$work/l1" "$work/l2"
echo 1 >"$work/l1/one"
echo 2 >"$work/l2/two"
for name in open/image closed/image; do
    python3 "$repo/scripts/oci-layout.py" --out "$work/layout" --ref "docker.io/$name:1" --layer "$work/l1" \
        --layer "$work/l2" --add-to-index --cmd /bin/sh >/dev/null
done
serve
python3 "$repo/tests/images/push.py" "$work/layout" "$REGISTRY" >/dev/null
pulls "$REGISTRY/open/image:1" "plain"
stop_registry

# ---- TLS and a password ------------------------------------------------------------------------

serve --tls "$work/tls" --htpasswd user:pass:word
image=$REGISTRY/closed/image:1
# The driver speaks plain HTTP where it has no CA: an authority that knows nothing of this registry.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj '/CN=another' -keyout "$work/other.key" \
    -out "$work/other.pem" 2>/dev/null
CA=$work/other.pem AUTH=user:pass:word refused DENIED "$image" "a certificate of an unknown authority"
export CA=$work/tls/ca.pem
refused DENIED "$image" "no password"
AUTH=user:wrong refused DENIED "$image" "a wrong password"
AUTH=user:pass:word pulls "$image" "password"
auth=$(printf 'user:pass:word' | base64)
echo "{\"auths\": {\"$REGISTRY\": {\"auth\": \"$auth\"}}}" >"$work/config.json"
AUTH_FILE=$work/config.json pulls "$image" "config.json"
stop_registry
echo "ok: TLS with an authority of its own, password, config.json"

# ---- client certificates -----------------------------------------------------------------------

for who in good bad; do
    ca=$work/tls/ca
    [ "$who" = good ] || ca=$work/other
    key=$ca.key
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=node" -keyout "$work/$who.key" \
        -out "$work/$who.csr" 2>/dev/null
    openssl x509 -req -in "$work/$who.csr" -CA "$ca.pem" -CAkey "$key" -CAcreateserial -days 3 -out "$work/$who.crt" \
        2>/dev/null
    cat "$work/$who.crt" "$work/$who.key" >"$work/$who.pem"
done
serve --tls "$work/tls" --client-ca "$work/tls/ca.pem"
image=$REGISTRY/closed/image:1
refused UNAVAILABLE "$image" "no client certificate"
CLIENT=$work/bad.pem refused UNAVAILABLE "$image" "a client certificate of another authority"
CLIENT=$work/good.pem pulls "$image" "client certificate"
stop_registry
unset CA
echo "ok: client certificates"

# ---- tokens ------------------------------------------------------------------------------------

openssl req -x509 -newkey rsa:2048 -nodes -days 3 -subj '/CN=test issuer' -keyout "$work/token.key" -out "$work/token.pem" \
    2>/dev/null
server token token "$work/token.key" "$work/token.pem"
serve --token "http://127.0.0.1:$port/token" "$work/token.pem"
pulls "$REGISTRY/open/image:1" "anonymous token"
image=$REGISTRY/closed/image:1
refused DENIED "$image" "anonymous token for a closed repository"
AUTH=user:wrong refused DENIED "$image" "token for a wrong password"
AUTH=user:pass:word pulls "$image" "token for a password"
IDENTITY=refresh-me pulls "$image" "refresh token"
IDENTITY=something refused DENIED "$image" "wrong refresh token"
grep -qx 'POST refresh repository:closed/image:pull 200' "$work/token.log" || fail "$(cat "$work/token.log")"
# one token serves a whole pull
[ "$(grep -c '^POST refresh' "$work/token.log")" -eq 1 ] || fail "$(cat "$work/token.log")"
echo "{\"credHelpers\": {\"$REGISTRY\": \"test\"}}" >"$work/config.json"
mkdir "$work/bin"
cat >"$work/bin/docker-credential-test" <<HELPER
#!/bin/sh
read -r host
[ "\$1 \$host" = "get $REGISTRY" ] || exit 5
echo '{"ServerURL": "x", "Username": "<token>", "Secret": "refresh-me"}'
HELPER
chmod +x "$work/bin/docker-credential-test"
AUTH_FILE=$work/config.json PATH=$work/bin:$PATH pulls "$image" "credential helper"
stop_registry
echo "ok: tokens: anonymous, password, refresh token, credential helper"

# ---- proxies -----------------------------------------------------------------------------------

serve
server proxy proxy "$REGISTRY"
proxy=http://127.0.0.1:$port
export REGISTRY=registry.test:5000 # a name that only the proxy can do something with
image=$REGISTRY/open/image:1
refused UNAVAILABLE "$image" "without a proxy"
http_proxy=$proxy pulls "$image" "http_proxy"
HTTP_PROXY=$proxy pulls "$image" "HTTP_PROXY"
grep -qx 'GET http://registry.test:5000' "$work/proxy.log" || fail "$(cat "$work/proxy.log")"
HTTP_PROXY=$proxy NO_PROXY=registry.test refused UNAVAILABLE "$image" "NO_PROXY"
export REGISTRY=${address#*://}
HTTP_PROXY=http://127.0.0.1:1 pulls "$REGISTRY/open/image:1" "loopback is not asked of a proxy"
stop_registry
serve --tls "$work/tls"
server tunnel proxy "$REGISTRY"
export REGISTRY=registry.test:5000 CA=$work/tls/ca.pem
HTTPS_PROXY=http://127.0.0.1:$port pulls "$image" "HTTPS_PROXY"
grep -qx 'CONNECT registry.test:5000' "$work/tunnel.log" || fail "$(cat "$work/tunnel.log")"
echo "ok: proxies of the environment"
