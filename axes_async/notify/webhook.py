"""Webhooks, signed as Standard Webhooks wants it: https://www.standardwebhooks.com."""

from __future__ import annotations

import hmac
import logging
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

log = logging.getLogger(__name__)

FAILURES = (OSError, HTTPException)
"""What a receiver that is away or in trouble makes ``post`` raise, an answer that is an error too."""

PATIENCE = 10.0
"""Seconds to wait for a receiver, which should answer before it does anything."""

GONE = 410
"""By this answer a receiver says that it wants no more."""


class _NoRedirect(HTTPRedirectHandler):
    """A signed message goes where the settings say, and nowhere else; an answer of 3xx is an error."""

    def redirect_request(self, *args: object) -> None:
        return None


_opener = build_opener(_NoRedirect)


def post(url: str, secrets: Iterable[bytes], message_id: str, body: bytes, *, at: int) -> None:
    """Send ``body``, which is JSON; raises one of ``FAILURES``.

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
