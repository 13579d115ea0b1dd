"""Floods: rows grow with the logarithm of one, keys end by themselves, and an outbox that is full says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from axes_async.counters.events import Kind
from axes_async.models import AccessFailureLog
from axes_async.stores.factory import get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind
from axes_async.tasks.sync import sync_store
from tests.actions import failure
from tests.faults.machines import Valkey
from tests.faults.sending import BY_ADDRESS, LEASE, address, counters, event, fail_all, turn_away
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]


def flood_one_client(own_valkey: Valkey, store: RedisStore, drain: Drain, *, times: int, rows_at_most: int) -> None:
    fail_all(store, [("alice", "192.0.2.1")] * 3)
    turn_away(store, "alice", "192.0.2.1", 1000)
    drain()
    keys, memory = own_valkey.client.dbsize(), key_bytes(own_valkey)
    turn_away(store, "alice", "192.0.2.1", times - 1000)
    assert own_valkey.client.xlen(store.outbox_key) <= rows_at_most
    drain()
    assert own_valkey.client.dbsize() <= keys + 1
    assert key_bytes(own_valkey) <= memory + 2000, "bytes of all keys"
    blocked = AccessFailureLog.objects.filter(repeats__gt=0).order_by("id").values_list("repeats", flat=True)
    expected = list(range(1, 11))
    while expected[-1] * 2 <= times:
        expected.append(expected[-1] * 2)
    assert list(blocked) == expected
    rows, grown = AccessFailureLog.objects.count(), key_bytes(own_valkey) - memory
    assert rows == len(expected) + 3 < rows_at_most
    print(f"\n{times:,} blocked attempts of one client: {rows} rows, {grown:,} bytes more in the store")


def key_bytes(own_valkey: Valkey) -> int:
    return sum(own_valkey.client.memory_usage(key) or 0 for key in own_valkey.client.scan_iter())


def counter_ttls(own_valkey: Valkey, store: RedisStore) -> Iterator[int]:
    """Return after how many milliseconds each counter ends by itself; -1: never."""
    pipe = own_valkey.client.pipeline(transaction=False)
    for number, key in enumerate(own_valkey.client.scan_iter(f"{store.counter_prefix}*", count=2000), 1):
        pipe.pttl(key)
        if not number % 5000:
            yield from pipe.execute()
    yield from pipe.execute()


def test_20_000_blocked_attempts_of_one_client_leave_a_few_rows_and_nothing_in_the_store(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    flood_one_client(own_valkey, own_store, drain, times=20_000, rows_at_most=30)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_million_blocked_attempts_of_one_client_leave_fewer_than_40_rows_and_nothing_in_the_store(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    flood_one_client(own_valkey, own_store, drain, times=1_000_000, rows_at_most=40)


def with_room_for(settings: Any, events: int) -> RedisStore:
    """Return the store with an outbox of so many events."""
    settings.AXES_OUTBOX_MAX = events
    store = get_store()
    assert isinstance(store, RedisStore)
    return store


def flood_of_clients(own_valkey: Valkey, store: RedisStore, *, clients: int) -> None:
    fail_all(store, ((f"u{number}", address(number)) for number in range(clients)))
    ttls = list(counter_ttls(own_valkey, store))
    assert len(ttls) == clients
    assert all(0 < ttl <= BY_ADDRESS.window_ms for ttl in ttls)
    others = own_valkey.client.dbsize() - clients
    assert others <= 5, "key, outbox, overflow, nudge, probe"
    print(f"\n{clients:,} different attackers: {clients:,} keys that expire, {others} others")
    size = store.size()
    assert (size.events, size.overflow) == (1000, clients - 1000)


def test_20_000_different_attackers_leave_only_keys_that_expire(
    own_valkey: Valkey, own_store: RedisStore, settings: Any
) -> None:
    flood_of_clients(own_valkey, with_room_for(settings, 1000), clients=20_000)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_300_000_different_attackers_leave_only_keys_that_expire(
    own_valkey: Valkey, own_store: RedisStore, settings: Any
) -> None:
    flood_of_clients(own_valkey, with_room_for(settings, 1000), clients=300_000)


def test_attackers_whose_attempts_were_never_settled_leave_nothing_after_the_lease(
    own_valkey: Valkey, own_store: RedisStore
) -> None:
    for number in range(200):
        blocked = event(Kind.BLOCKED, "alice", address(number))
        of_it = counters(address(number), "alice")
        own_store.do(Step(StepKind.RESERVE, blocked.id[-16:], of_it, event=blocked, lease=LEASE))
    ttls = list(counter_ttls(own_valkey, own_store))
    assert len(ttls) == 200
    assert all(0 < ttl <= LEASE for ttl in ttls)


def test_counters_that_a_sync_has_loaded_expire_too(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    fail_all(own_store, ((f"u{number}", address(number)) for number in range(300)))
    drain()
    own_valkey.client.flushall()
    until(lambda: sync_store(own_store), what="the store is complete again")
    ttls = list(counter_ttls(own_valkey, own_store))
    assert len(ttls) == 300
    assert all(0 < ttl <= BY_ADDRESS.window_ms for ttl in ttls)


def test_full_outbox_counts_on_and_tells_how_much_it_turned_away(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any
) -> None:
    store = with_room_for(settings, 5)
    looked_at = [failure("alice", f"192.0.2.{number // 4}") for number in range(16)]
    assert looked_at == [True, True, True, False] * 4, "the limit holds with a full outbox"
    size = store.size()
    assert (size.events, size.overflow) == (5, 11)
    assert drain() == 5
    assert AccessFailureLog.objects.count() == 5
    assert not failure("alice", "192.0.2.0")


def test_locked_client_whose_events_found_no_room_stays_locked(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any
) -> None:
    store = with_room_for(settings, 1)
    fail_all(store, [("alice", "192.0.2.1")] * 3)
    drain()
    blocked = event(Kind.BLOCKED, "alice", "192.0.2.1")
    of_it = counters("192.0.2.1", "alice")
    result = store.do(Step(StepKind.RESERVE, blocked.id[-16:], of_it, event=blocked, lease=LEASE))
    assert result.verdict is Verdict.LOCKED
