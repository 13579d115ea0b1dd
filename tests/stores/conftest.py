"""What the tests of stores share: a clock that a test sets, and stores of their own, beside that of the test site."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from axes_async import clock
from axes_async.stores.contract import Store
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.stores.places import NAMESPACE, PLACES, Place, completed
from tests.stores.steps import Steps, Time


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
    client = build_client(servers.valkey_url(), {}, timeout=10)
    with closing(RedisStore(client, namespace=NAMESPACE)) as store:
        yield store


@pytest.fixture
def lone(unknown: RedisStore, time: Time) -> RedisStore:
    """Return a store on Valkey that is empty and complete, in generation 1, at a set time."""
    return completed(unknown)


@pytest.fixture(params=[pytest.param(place, id=place.name, marks=place.marks) for place in PLACES])
def contract_store(request: pytest.FixtureRequest, time: Time) -> Iterator[Store]:
    """Return each store in turn, empty."""
    place: Place = request.param
    with place.open(request) as store:
        yield store


@pytest.fixture
def steps(contract_store: Store, time: Time) -> Steps:
    """Return the steps of one rule: the address, limit 3, until a reset."""
    return Steps(contract_store, time)


@pytest.fixture
def minute(contract_store: Store, time: Time) -> Steps:
    """Return the steps of one rule: the address, limit 3, a cool-off of a minute."""
    return Steps(contract_store, time, cooloff=60)
