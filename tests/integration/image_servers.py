#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two small servers for the registry tests; each prints its port and serves until it is killed.

image_servers.py token KEY CERT   a token service for docker-registry's token mode: RS256 tokens, signed by openssl.
    GET with Basic user:pass:word, or without credentials for repositories under open/; POST with a refresh token
    (OAuth2) "refresh-me". One line of stderr for each request: method, kind of credentials, scope, answer.
image_servers.py proxy UPSTREAM   a forward proxy which sends all that it is asked for to UPSTREAM (host:port),
    requests with absolute URIs and CONNECT. One line of stderr for each: method and target.
"""

import base64
import http.server
import json
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.parse


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def certificate(path):
    lines = open(path).read().split("-----BEGIN CERTIFICATE-----")[1].split("-----END")[0]
    return "".join(lines.split())


class Token(http.server.BaseHTTPRequestHandler):
    key = cert = ""

    def sign(self, scope):
        now = int(time.time())
        kind, name, actions = scope.rsplit(":", 2)[0].split(":", 1)[0], scope.split(":", 1)[1].rsplit(":", 1)[0], \
            scope.rsplit(":", 1)[1]
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate(self.cert)]}
        claims = {"iss": "test issuer", "sub": "user", "aud": "test service", "exp": now + 300, "nbf": now - 10,
                  "iat": now, "jti": str(now), "access": [{"type": kind, "name": name, "actions": actions.split(",")}]}
        text = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=text.encode(),
                                   stdout=subprocess.PIPE, check=True).stdout
        return text + "." + b64(signature)

    def answer(self, status, body, note):
        print(note, status, file=sys.stderr, flush=True)
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        scope = query.get("scope", [""])[0]
        given = self.headers.get("Authorization")
        good = "Basic " + base64.b64encode(b"user:pass:word").decode()
        kind = "anonymous" if given is None else "password" if given == good else "wrong"
        if query.get("service") != ["test service"] or kind == "wrong" or \
                (kind == "anonymous" and not scope.startswith("repository:open/")):
            return self.answer(401, {"details": "no token for you"}, f"GET {kind} {scope}")
        return self.answer(200, {"token": self.sign(scope), "expires_in": 300}, f"GET {kind} {scope}")

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        scope = form.get("scope", [""])[0]
        if form.get("grant_type") != ["refresh_token"] or form.get("service") != ["test service"] or \
                not form.get("client_id") or form.get("refresh_token") != ["refresh-me"]:
            return self.answer(401, {"details": "no token for you"}, f"POST wrong {scope}")
        return self.answer(200, {"access_token": self.sign(scope), "expires_in": 300}, f"POST refresh {scope}")

    def log_message(self, *args):
        pass


class Proxy(http.server.BaseHTTPRequestHandler):
    upstream = ("", 0)

    def tunnel(self, head):
        with socket.create_connection(self.upstream) as there:
            there.sendall(head)
            here = self.connection
            while True:
                ready, _, _ = select.select([here, there], [], [])
                for s in ready:
                    data = s.recv(65536)
                    if not data:
                        return
                    (there if s is here else here).sendall(data)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        print("GET", f"{url.scheme}://{url.netloc}", file=sys.stderr, flush=True)
        headers = "".join(f"{k}: {v}\r\n" for k, v in self.headers.items() if k.lower() not in ("connection", "proxy-connection"))
        path = url.path + ("?" + url.query if url.query else "")
        self.tunnel(f"GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
        self.close_connection = True

    def do_CONNECT(self):
        print("CONNECT", self.path, file=sys.stderr, flush=True)
        self.connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        self.tunnel(b"")
        self.close_connection = True

    def log_message(self, *args):
        pass


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "token":
        handler, Token.key, Token.cert = Token, sys.argv[2], sys.argv[3]
    elif len(sys.argv) == 3 and sys.argv[1] == "proxy":
        host, port = sys.argv[2].rsplit(":", 1)
        handler, Proxy.upstream = Proxy, (host, int(port))
    else:
        sys.exit(__doc__)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
