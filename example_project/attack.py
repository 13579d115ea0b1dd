"""Guesses passwords at the site over HTTP, as an attacker's program does. What it saw is told by the command."""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import urlsplit

import requests

Endpoint = Literal["json", "html"]

# Seconds; a site that checks many passwords at once on a small machine is slow, not gone.
_TIMEOUT = 60


class Outcome(StrEnum):
    """What an answer says about a guess."""

    WRONG = "wrong password"
    DENIED = "denied, 429"
    LOGGED_IN = "logged in"
    OTHER = "another answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The site's answer to one guess."""

    outcome: Outcome
    status: int
    """The HTTP status."""
    retry_after: str | None
    """The seconds of the `Retry-After` header; None when the site sent none."""


def loopback_origin(url: str) -> str:
    """The scheme, host and port of `url`. Raises `ValueError` unless it is a site of this very machine."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError(f"{url!r} is no URL of a site; it should look like http://127.0.0.1:8000")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValueError(f"The host of {url!r} has no address.") from None
    if not all(ipaddress.ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found):
        raise ValueError(f"{parts.hostname} is not this machine: only 127.0.0.1, [::1] and localhost are attacked.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


class Attacker:
    """Sends guesses to one site; each of its threads keeps connections and cookies of its own."""

    def __init__(self, origin: str, endpoint: Endpoint) -> None:
        self._url = f"{origin}/api/login/" if endpoint == "json" else f"{origin}/login/"
        self._send = self._guess_json if endpoint == "json" else self._guess_html
        self._local = threading.local()

    def look(self) -> None:
        """Fetch the login once. Raises `requests.RequestException` when nothing answers there."""
        self._session().get(self._url, timeout=_TIMEOUT, allow_redirects=False)

    def guess(self, username: str, password: str) -> Answer:
        """Send one guess. Raises `requests.RequestException` when there is no answer."""
        response = self._send(username, password)
        return Answer(
            outcome=_outcome(response), status=response.status_code, retry_after=response.headers.get("Retry-After")
        )

    def guess_all(self, username: str, passwords: list[str], parallel: int) -> Iterator[Answer]:
        """Send all guesses, at most `parallel` at once; gives the answers as they come."""
        with ThreadPoolExecutor(parallel) as pool:
            for done in as_completed([pool.submit(self.guess, username, password) for password in passwords]):
                yield done.result()

    def _guess_json(self, username: str, password: str) -> requests.Response:
        body = {"username": username, "password": password}
        return self._session().post(self._url, json=body, timeout=_TIMEOUT, allow_redirects=False)

    def _guess_html(self, username: str, password: str) -> requests.Response:
        session = self._session()
        if "csrftoken" not in session.cookies:
            page = session.get(self._url, timeout=_TIMEOUT, allow_redirects=False)
            if page.status_code != requests.codes.ok:
                return page
        form = {"username": username, "password": password, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
        headers = {"Referer": self._url}
        return session.post(self._url, data=form, headers=headers, timeout=_TIMEOUT, allow_redirects=False)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # A proxy named in the environment is another machine.
            session.trust_env = False
            session.headers["Accept"] = "application/json, text/html;q=0.9"
        return session


def _outcome(response: requests.Response) -> Outcome:
    """The JSON login answers 403 and 200 where the HTML login shows its page again or redirects."""
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    match response.status_code:
        case 429:
            return Outcome.DENIED
        case 200:
            return Outcome.LOGGED_IN if is_json else Outcome.WRONG
        case 302 if not is_json:
            return Outcome.LOGGED_IN
        case 403 if is_json:
            return Outcome.WRONG
        case _:
            return Outcome.OTHER
