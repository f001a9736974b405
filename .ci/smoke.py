#!/usr/bin/env python3
"""Starts holdline as a user would and looks at it from outside: without a gateway, then with one.

    smoke.py [--dir FOLDER] [--certificate FILE] COMMAND...

COMMAND runs in FOLDER (default: a new empty one) and must serve https://localhost:8443 in front of
port 3001 of 127.0.0.1, with its admin listener on 127.0.0.1:9180; FILE is where its development
certificate appears. Everything that this starts is ended, and the exit code is 0 if all is well.
"""

import argparse
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

PUBLIC, GATEWAY, ADMIN = 8443, 3001, 9180


class Failed(Exception):
    """What was expected and what was seen."""


def check(what, good, seen=""):
    if not good:
        raise Failed(f"{what}: {repr(seen)[:400]}")
    print(f"  ok  {what}", flush=True)


def listens(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def eventually(what, probe, within):
    end = time.monotonic() + within
    while True:
        seen = probe()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {within} s")
        time.sleep(0.1)


def get(path, accept, certificate):
    """One request over TLS; the certificate has to be the one in the file."""
    context = ssl.create_default_context(cafile=certificate)
    public = http.client.HTTPSConnection("localhost", PUBLIC, timeout=120, context=context)
    with contextlib.closing(public):
        public.request("GET", path, headers={"Accept": accept})
        answer = public.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def admin(path):
    local = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=60)
    with contextlib.closing(local):
        local.request("GET", path)
        return local.getresponse().status


class Gateway(http.server.BaseHTTPRequestHandler):
    """As much of a gateway as a plain request needs."""

    def do_GET(self):
        body = b"the gateway itself"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def descendants(pid):
    """This process and all below it."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += descendants(int(child))
    return found


def name_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def without_gateway(certificate):
    status, headers, body = get("/", "text/html", certificate)
    check("a browser gets the waiting page", status == 503 and "<html" in body, (status, body))
    check("it may not be stored", headers["Cache-Control"] == "no-store", dict(headers))
    status, headers, body = get("/v1/anything", "application/json", certificate)
    check("others get 503 after the hold", status == 503, (status, body))
    check("with a time to come back", headers["Retry-After"].isdigit(), dict(headers))
    error = json.loads(body)["error"]
    check("and the reason", (error["type"], error["state"]) == ("gateway_down", "down"), error)
    check("healthy and ready all the same", (admin("/healthz"), admin("/readyz")) == (200, 200))


def with_gateway(certificate):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", GATEWAY), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        status, _, body = get("/", "text/html", certificate)
        check("the gateway is found", (status, body) == (200, "the gateway itself"), (status, body))
    finally:
        server.shutdown()
        server.server_close()


def stops(process):
    for pid in descendants(process.pid):
        if name_of(pid) == "holdline":
            os.kill(pid, signal.SIGTERM)
    code = process.wait(timeout=60)
    check("SIGTERM ends it with exit code 0", code == 0, code)


def look_at(process, certificate):
    def serves():
        if process.poll() is not None:
            raise Failed(f"it ended by itself, exit code {process.returncode}")
        return listens(PUBLIC) and certificate.exists()

    eventually("it serves", serves, within=180)
    running = [pid for pid in descendants(process.pid) if name_of(pid) == "holdline"]
    check("holdline runs", len(running) == 1, running)
    owner = os.stat(f"/proc/{running[0]}").st_uid
    print(f"      as user {owner}")
    without_gateway(certificate)
    with_gateway(certificate)
    stops(process)
    check("and its port is free again", not listens(PUBLIC))


def end(process):
    """Whatever is left of it."""
    for pid in reversed(descendants(process.pid)) if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--dir", type=pathlib.Path)
    arguments.add_argument("--certificate", type=pathlib.Path)
    arguments.add_argument("command", nargs=argparse.REMAINDER)
    wanted = arguments.parse_args()
    for port in (PUBLIC, GATEWAY, ADMIN):
        if listens(port):
            return f"smoke: port {port} is taken; end what listens there"
    with tempfile.TemporaryDirectory() as empty:
        folder = wanted.dir or pathlib.Path(empty)
        certificate = wanted.certificate or folder / "certs-dev/cert.pem"
        with subprocess.Popen(wanted.command, cwd=folder, stdin=subprocess.DEVNULL) as process:
            try:
                look_at(process, certificate)
            except (Failed, OSError, KeyError, ValueError, subprocess.TimeoutExpired) as error:
                return f"smoke: {error}"
            finally:
                end(process)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("smoke: stopped"))
    sys.exit(main())
