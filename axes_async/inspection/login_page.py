"""A login page as a browser meets it: its cookies, its form, and what it answers to a password."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException, HTTPMessage
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, ProxyHandler, Request, build_opener

from axes_async.errors import AxesError

PATIENCE = 15.0
"""Seconds to wait for the site, each time."""

READ = 1_000_000
"""Bytes of a page that are looked at."""

TOKEN = "csrfmiddlewaretoken"  # noqa: S105  (the name of a field)


class NoPage(AxesError):
    """The page cannot be reached, or is none that takes passwords."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the site has answered."""

    status: int
    headers: HTTPMessage
    url: str
    text: str


class LoginPage:
    """The page at ``url``.

    :param username_field: what the form, or the JSON object, calls the name; ``password_field``: the password.
    :param is_json: whether the page takes a JSON object, and no form.
    :param csrf_cookie: the name of the cookie that has the token.
    """

    def __init__(self, url: str, *, username_field: str, password_field: str, is_json: bool, csrf_cookie: str) -> None:
        self.url, self.agent = url, "axes_async"
        self.names = username_field, password_field
        self.is_json, self.csrf_cookie = is_json, csrf_cookie
        self.own_address = ""
        """That of this machine, as far as it knows: a router on the way may change it."""
        self.has_token = False
        self._cookies = CookieJar()
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies), _Redirects)

    def connect(self) -> None:
        """Find out whether anybody listens. Raises ``NoPage``."""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        try:
            with socket.create_connection((host, port), timeout=PATIENCE) as connection:
                self.own_address = connection.getsockname()[0]
        except OSError as error:
            raise NoPage(f"No connection to {host}, port {port}: {error}") from error

    def open(self) -> Answer:
        """Get the page, wherever on the same host it redirects to. Raises ``NoPage``."""
        answer = self._ask(Request(self.url))  # noqa: S310  (the command takes http and https alone)
        self._require_same_host(answer.url)
        self.url = answer.url
        return answer

    def guess(self, username: str, password: str) -> Answer:
        """Get the page, for its cookies and its form, and send a password to it. Raises ``NoPage``."""
        page, fields = self.open(), dict(zip(self.names, (username, password), strict=True))
        target, hidden = self._form_in(page)
        token = hidden.get(TOKEN) or next((one.value for one in self._cookies if one.name == self.csrf_cookie), None)
        self.has_token = bool(token)
        headers = {"Referer": page.url}
        if self.is_json:
            body, kind = json.dumps(fields), "application/json"
            headers |= {"X-CSRFToken": token, "Accept": "application/json"} if token else {"Accept": kind}
        else:
            hidden |= {TOKEN: token} if token else {}
            body, kind = urlencode({**hidden, **fields}), "application/x-www-form-urlencoded"
        headers["Content-Type"] = kind
        return self._ask(Request(target, body.encode(), headers, method="POST"))  # noqa: S310  (as above)

    def _form_in(self, page: Answer) -> tuple[str, dict[str, str]]:
        """Return where the login form is sent, and its hidden fields; without such a form, the page and none."""
        reader = _Forms()
        reader.feed("" if self.is_json else page.text)
        for action, names, hidden in reader.forms:
            if self.names[0] in names:
                target = urljoin(page.url, action)
                self._require_same_host(target)
                return target, hidden
        return page.url, {}

    def _require_same_host(self, url: str) -> None:
        if urlsplit(url).scheme not in {"http", "https"} or urlsplit(url).hostname != urlsplit(self.url).hostname:
            raise NoPage(f"The page leads to {url}, which is elsewhere: name the page that takes the password.")

    def _ask(self, request: Request) -> Answer:
        request.add_header("User-Agent", self.agent)
        try:
            with self._opener.open(request, timeout=PATIENCE) as response:
                return _answer(response)
        except HTTPError as error:
            with error:
                return _answer(error)
        except URLError as error:
            what = "TLS" if isinstance(error.reason, ssl.SSLError) else "No answer"
            raise NoPage(f"{what}: {error.reason}") from error
        except (OSError, HTTPException) as error:
            raise NoPage(f"No answer: {type(error).__name__} {error}") from error


def _answer(response: Any) -> Answer:
    return Answer(response.status, response.headers, response.url, response.read(READ).decode(errors="replace"))


class _Redirects(HTTPRedirectHandler):
    """Follows redirects of the page alone: one that answers to a password is the answer."""

    def redirect_request(self, req: Request, *args: Any) -> Request | None:
        return None if req.get_method() == "POST" else super().redirect_request(req, *args)


class _Forms(HTMLParser):
    """Finds the forms of a page: where each is sent, the names of its fields, and its hidden ones."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[tuple[str, set[str], dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name")
        if tag == "form":
            self.forms.append((given.get("action") or "", set(), {}))
        elif tag == "input" and name and self.forms:
            _, names, hidden = self.forms[-1]
            names.add(name)
            if (given.get("type") or "").lower() == "hidden":
                hidden[name] = given.get("value") or ""
