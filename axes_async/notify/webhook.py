"""Webhooks, signed as Standard Webhooks wants it: https://www.standardwebhooks.com."""

from __future__ import annotations

import hmac
import logging
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from socket import socket
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds for a receiver, which should answer before it does anything: to connect, then for the whole answer."""

GONE = 410
"""By this answer a receiver says that it wants no more."""


class _Drops(RawIOBase):
    """What a socket receives until a time: its own timeout is for each drop anew."""

    def __init__(self, sock: socket, until: float) -> None:
        self.sock, self.until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer in {PATIENCE:g} seconds")
        self.sock.settimeout(left)
        return self.sock.recv_into(buffer)


class _Answer(HTTPResponse):
    """Its status and headers. ``http.client`` closes the socket then, which no body is read from here."""

    def __init__(self, sock: socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = BufferedReader(_Drops(sock, monotonic() + PATIENCE))


class _Connection(HTTPConnection):
    response_class = _Answer


class _SafeConnection(HTTPSConnection):
    response_class = _Answer


class _Bounded(HTTPHandler, HTTPSHandler):
    """Opens connections whose answer has a time in which it is to be there as a whole."""

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_Connection, request)

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_SafeConnection, request)


class _NoRedirect(HTTPRedirectHandler):
    """A signed message goes where the settings say, and nowhere else; an answer of 3xx is an error."""

    def redirect_request(self, *args: object) -> None:
        return None


_opener = build_opener(_NoRedirect, _Bounded)


def post(url: str, secrets: Iterable[bytes], message_id: str, body: bytes, *, at: int) -> None:
    """Send ``body``, which is JSON.

    Raises ``OSError`` or ``HTTPException`` if the receiver does not take it.

    :param message_id: the same for each try, so that a receiver knows what it has already.
    :param at: the time of this try, in seconds since the epoch: receivers refuse what is old.
    """
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "axes_async",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signature(secret, message_id, at, body) for secret in secrets),
    }
    request = Request(url, body, headers, method="POST")  # noqa: S310  (the setting takes http and https alone)
    try:
        _opener.open(request, timeout=PATIENCE).close()
    except HTTPError as error:
        error.close()
        if error.code != GONE:
            raise
        log.error("AXES_NOTIFY_WEBHOOK answers 410: it wants no more messages. Remove it from the settings.")


def signature(secret: bytes, message_id: str, at: int, body: bytes) -> str:
    """Return the signature of a message by one secret: by each of two while they are exchanged."""
    signed = f"{message_id}.{at}.".encode() + body
    return "v1," + b64encode(hmac.digest(secret, signed, sha256)).decode()
