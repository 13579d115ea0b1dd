"""What the tests of stores share: a clock that a test sets, and stores of their own, beside that of the test site."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from axes_async import clock
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from tests import servers

NAMESPACE = "axes:test of a store"


class Time:
    """The time of every store, in epoch milliseconds."""

    def __init__(self) -> None:
        self.now = clock.now_ms()

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Set the time of stores: it stands still until a test moves it."""
    time = Time()
    monkeypatch.setattr(clock, "fixed_ms", time)
    return time


@pytest.fixture
def plain() -> Iterator[redis.Redis]:
    """Return a plain client of the Valkey that ``lone`` is on, empty."""
    with redis.Redis.from_url(servers.valkey_url(), decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def unknown(plain: redis.Redis) -> Iterator[RedisStore]:
    """Return a store on an empty Valkey, which knows nothing of our database."""
    client = build_client(servers.valkey_url(), {}, timeout=1)
    with closing(RedisStore(client, namespace=NAMESPACE)) as store:
        yield store


@pytest.fixture
def lone(unknown: RedisStore, time: Time) -> RedisStore:
    """Return a store on Valkey that is empty and complete, in generation 1, at a set time."""
    return completed(unknown)


def completed(store: RedisStore) -> RedisStore:
    """Have a store that knows nothing be complete in generation 1."""
    store.invalidate(1)
    assert store.complete(1, 0)
    return store
