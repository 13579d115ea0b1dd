"""Attempts made straight through the guard, for tests in which the web is not the point."""

from __future__ import annotations

from django.http import HttpRequest
from django.test import RequestFactory

from axes_async import guard


def request_from(address: str, agent: str = "tests") -> HttpRequest:
    """Return a POST of a login form from ``address``."""
    return RequestFactory().post("/sign-in/", REMOTE_ADDR=address, headers={"User-Agent": agent, "Accept": "text/html"})


def failure(username: str | None = "alice", address: str = "192.0.2.1", agent: str = "tests") -> bool:
    """Try a wrong password; return whether it was looked at."""
    request = request_from(address, agent)
    attempt = guard.reserve(request, {"username": username})
    guard.fail(request, {"username": username})
    return attempt is not None and not attempt.denied


def success(username: str = "alice", address: str = "192.0.2.1", agent: str = "tests") -> bool:
    """Try the right password; return whether it was looked at."""
    request = request_from(address, agent)
    attempt = guard.reserve(request, {"username": username})
    if attempt is None or attempt.denied:
        return False
    guard.succeed(request, username)
    return True
