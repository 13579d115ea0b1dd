"""A mail server and a receiver of webhooks: small, real, and in threads of the test."""

from __future__ import annotations

import base64
import email
import hmac
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = b"0123456789abcdef0123456789abcdef"
WRITTEN = "whsec_" + base64.b64encode(SECRET).decode()


class MailServer(socketserver.ThreadingTCPServer):
    """Takes every mail, or answers as many as ``refusals`` with "try later"."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of the system's choice."""
        super().__init__(("127.0.0.1", 0), _Mail)
        self.messages: list[Message] = []
        self.refusals = 0

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port


class _Mail(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.messages.append(email.message_from_bytes(text))
            elif word == b"MAIL" and self.server.refusals:
                self.server.refusals -= 1
                self.wfile.write(b"451 try later\r\n")
                continue
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


class Receiver(ThreadingHTTPServer):
    """Verifies signatures in the way that the specification tells, and answers with the next of ``answers``, or 204."""

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of the system's choice."""
        super().__init__(("127.0.0.1", 0), _Hook)
        self.answers: list[int] = []
        self.seen: list[dict[str, str]] = []
        self.taken: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(headers)
        status = self.server.answers.pop(0) if self.server.answers else 204
        if status == 204:
            signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
            expected = "v1," + base64.b64encode(hmac.new(SECRET, signed, "sha256").digest()).decode()
            if expected in headers["webhook-signature"].split():
                self.server.taken.append(json.loads(body))
            else:
                status = 401
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.seen.append({"redirected": self.path})
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


class Silent(socketserver.ThreadingTCPServer):
    """Takes connections, and says nothing until the client hangs up."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of the system's choice."""
        super().__init__(("127.0.0.1", 0), _Silence)
        self.connections = 0

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port


class _Silence(socketserver.StreamRequestHandler):
    server: Silent

    def handle(self) -> None:
        self.server.connections += 1
        while self.rfile.readline():
            pass


class Endless(socketserver.ThreadingTCPServer):
    """Answers, and comes to no end before the client hangs up."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        """Listen on a port of the system's choice."""
        super().__init__(("127.0.0.1", 0), _Endless)
        self.is_left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Endless(socketserver.StreamRequestHandler):
    server: Endless

    def handle(self) -> None:
        with suppress(ConnectionError):
            self.wfile.write(b"HTTP/1.1 200 ")
            while True:
                self.wfile.write(b"O")
                time.sleep(0.01)  # Python takes so many characters of a line, and no more.
        self.server.is_left.set()


@contextmanager
def running(server: MailServer | Receiver | Silent | Endless) -> Iterator[None]:
    """Serve until the end of the block."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
