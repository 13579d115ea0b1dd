"""A reset of very many counters: it asks little of the store at once, and none of them counts afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.stores.factory import get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.tasks.expire import expire
from axes_async.tasks.reset import reset
from axes_async.tasks.sync import sync_store
from tests.actions import failure
from tests.faults.machines import Valkey
from tests.faults.sending import address, counters, fail_all
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]

LONG = 10 * PATIENCE
"""Seconds for hundreds of thousands of events, which take ten on an idle machine."""


def commands(own_valkey: Valkey) -> int:
    """Return how many commands the server has done, those of its own statistics aside."""
    stats = own_valkey.client.info("commandstats")
    assert "cmdstat_keys" not in stats
    return sum(entry["calls"] for name, entry in stats.items() if name not in {"cmdstat_info", "cmdstat_ping"})


def lock_of(store: RedisStore, number: int) -> Verdict:
    return store.peek(counters(address(number), f"u{number}")).verdict


def reset_counters_without_rows(own_valkey: Valkey, settings: Any, *, clients: int) -> None:
    settings.AXES_OUTBOX_MAX = 1
    store = get_store()
    assert isinstance(store, RedisStore)
    some = range(0, clients, clients // 100)
    for numbers in (range(clients), some, some):
        fail_all(store, ((f"u{number}", address(number)) for number in numbers))
    assert all(lock_of(store, number) is Verdict.LOCKED for number in some)
    before = commands(own_valkey)
    reset()
    asked = commands(own_valkey) - before
    assert asked < 100, "no key is walked"
    assert all(lock_of(store, number) is Verdict.ALLOWED for number in some)
    print(f"\nreset of {clients:,} counters: {asked} commands of the store")


def reset_counters_with_rows(own_valkey: Valkey, store: RedisStore, drain: Drain, *, clients: int) -> None:
    fail_all(store, ((f"u{number}", address(number)) for number in range(clients)))
    until(lambda: drain() == 0 and not store.size().events, seconds=LONG, what="everything is written")
    assert AttemptCounter.objects.count() == AccessAttempt.objects.count() == clients
    before = commands(own_valkey)
    assert reset() == clients
    print(f"\nreset of {clients:,} counters with rows: {commands(own_valkey) - before} commands of the store")
    until(
        lambda: not any(expire().values()), seconds=LONG, what="the expiry has deleted what a large reset leaves to it"
    )
    assert AccessAttempt.objects.count() == AttemptCounter.objects.count() == 0
    assert [failure("u1", address(1)) for _ in range(4)] == [True, True, True, False]


def reset_one_name(own_valkey: Valkey, store: RedisStore, drain: Drain, *, clients: int) -> None:
    """Have a name guessed from very many addresses, each of which guesses another one too, and reset the name."""
    for _ in range(2):
        fail_all(store, (("alice", address(number)) for number in range(clients)))
    fail_all(store, (("bob", address(number)) for number in range(clients)))
    until(lambda: drain() == 0 and not store.size().events, seconds=LONG, what="everything is written")
    assert lock_of(store, 0) is Verdict.LOCKED
    assert reset(username="alice") == clients
    until(lambda: sync_store(store), seconds=LONG, what="the store is told")
    assert AccessAttempt.objects.count() == clients, "those of bob"
    left = AttemptCounter.objects.filter(failures__gt=0).values_list("failures", flat=True)
    assert list(left) == [1] * clients
    assert all(lock_of(store, number) is Verdict.ALLOWED for number in range(clients))
    assert [failure("carol", address(1)) for _ in range(3)] == [True, True, False]


def test_reset_of_20_000_counters_that_no_row_speaks_of(
    own_valkey: Valkey, own_store: RedisStore, settings: Any
) -> None:
    reset_counters_without_rows(own_valkey, settings, clients=20_000)


def test_reset_of_5_000_counters_with_their_rows(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    reset_counters_with_rows(own_valkey, own_store, drain, clients=5_000)


def test_reset_of_a_name_that_3_000_addresses_have_guessed(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    reset_one_name(own_valkey, own_store, drain, clients=3_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_reset_of_200_000_counters_that_no_row_speaks_of(
    own_valkey: Valkey, own_store: RedisStore, settings: Any
) -> None:
    reset_counters_without_rows(own_valkey, settings, clients=200_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_reset_of_100_000_counters_with_their_rows(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    reset_counters_with_rows(own_valkey, own_store, drain, clients=100_000)
