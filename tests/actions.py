"""Attempts made straight through the guard, for tests in which the web is not the point, and what came of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import redis
from asgiref.sync import async_to_sync
from django.http import HttpRequest
from django.test import RequestFactory

from axes_async.client.identity import identify
from axes_async.counters.rules import Counter, Rule, counters_for
from axes_async.login import reservation, settlement


def request_from(address: str, agent: str = "tests") -> HttpRequest:
    """Return a POST of a login form from ``address``."""
    return RequestFactory().post("/sign-in/", REMOTE_ADDR=address, headers={"User-Agent": agent, "Accept": "text/html"})


def failure(username: str | None = "alice", address: str = "192.0.2.1", agent: str = "tests") -> bool:
    """Try a wrong password; return whether it was looked at."""
    request = request_from(address, agent)
    attempt = reservation.reserve(request, {"username": username})
    settlement.fail(request, {"username": username})
    return attempt is not None and not attempt.denied


def success(username: str = "alice", address: str = "192.0.2.1", agent: str = "tests") -> bool:
    """Try the right password; return whether it was looked at."""
    request = request_from(address, agent)
    attempt = reservation.reserve(request, {"username": username})
    if attempt is None or attempt.denied:
        return False
    settlement.succeed(request, username)
    return True


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test such that code in threads uses the test's own database connection."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async_to_sync(test)(*args, **kwargs)

    return run


def address_counters(limit: int = 3) -> tuple[Counter, ...]:
    """Return the counters of the test client's address."""
    client = identify(RequestFactory().get("/"), None)
    return counters_for([Rule(parameters=("ip_address",), limit=limit, cooloff=None)], client.canonical)


def kept_keys(valkey: redis.Redis) -> list[str]:
    """Return the keys on the Valkey, but for the one that says that the store is complete."""
    keys: list[str] = valkey.keys("*")  # type: ignore[assignment]
    return [key for key in keys if not key.endswith(":key")]


def counter_keys(valkey: redis.Redis) -> list[str]:
    """Return the keys of the counters on the Valkey."""
    return [key for key in kept_keys(valkey) if ":c:" in key]


def failures_stored(valkey: redis.Redis) -> list[int]:
    """Return the failures of each counter on the Valkey that has any, in order."""
    return sorted(int(count) for key in counter_keys(valkey) if (count := valkey.hget(key, "f")))  # type: ignore[arg-type]


def reservations_held(valkey: redis.Redis) -> int:
    """Return how many reservations there are on the Valkey: one for each counter of each open attempt."""
    return sum(str(name).startswith("r") for key in counter_keys(valkey) for name in valkey.hkeys(key))  # type: ignore[union-attr]
