"""Floods: rows grow with the logarithm of one, keys end by themselves, and an outbox that is full says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import Kind
from axes_async.errors import StoreFlushed
from axes_async.models import AccessFailureLog
from axes_async.stores.factory import get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from tests.actions import failure
from tests.faults.machines import Valkey
from tests.faults.sending import BY_ADDRESS, LEASE, address, counters, event, fail_all, turn_away

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


def test_20_000_blocked_attempts_of_one_client_leave_a_few_rows_and_nothing_in_the_store(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    flood_one_client(own_valkey, own_store, drain, times=20_000, rows_at_most=30)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_million_blocked_attempts_of_one_client_leave_fewer_than_40_rows_and_nothing_in_the_store(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    flood_one_client(own_valkey, own_store, drain, times=1_000_000, rows_at_most=40)


def flood_of_clients(own_valkey: Valkey, store: RedisStore, *, clients: int) -> None:
    before = set(own_valkey.client.scan_iter(count=1000))
    store.outbox_max = 1000  # What is there to be seen is the counters.
    fail_all(store, ((f"u{number}", address(number)) for number in range(clients)))
    window = BY_ADDRESS.window_ms
    pipe, seen, pages = own_valkey.client.pipeline(transaction=False), 0, 0
    own = {store.outbox_key, store.nudged_key, store.overflow_key, store.warmth_key, store.born_key} | before
    for key in own_valkey.client.scan_iter(count=2000):
        if key in own:
            continue
        seen += 1
        pipe.pttl(key)
        pages += 1
        if pages == 5000:
            assert all(0 < ttl <= window for ttl in pipe.execute())
            pages = 0
    assert all(0 < ttl <= window for ttl in pipe.execute())
    assert seen == clients
    others = own_valkey.client.dbsize() - seen
    assert others <= 5, "outbox, overflow, nudge, the outbox's name, warmth"
    print(f"\n{clients:,} different attackers: {seen:,} keys that expire, {others} others")
    assert own_valkey.client.xlen(store.outbox_key) == 1000
    assert int(own_valkey.client.get(store.overflow_key)) == clients - 1000


def test_20_000_different_attackers_leave_only_keys_that_expire(own_valkey: Valkey, own_store: RedisStore) -> None:
    flood_of_clients(own_valkey, own_store, clients=20_000)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_million_different_attackers_leave_only_keys_that_expire(own_valkey: Valkey, own_store: RedisStore) -> None:
    flood_of_clients(own_valkey, own_store, clients=1_000_000)


def test_attackers_whose_attempts_were_never_settled_leave_nothing_after_the_lease(
    own_valkey: Valkey, own_store: RedisStore
) -> None:
    for number in range(200):
        blocked = event(Kind.BLOCKED, "alice", address(number))
        of_it = counters(address(number), "alice")
        own_store.reserve(blocked.id[-16:], of_it, blocked, now=now_ms(), lease=LEASE, extend=False)
    ttls = [own_valkey.client.pttl(key) for key in own_valkey.client.scan_iter("{axes}:c:*")]
    assert len(ttls) == 200
    assert all(0 < ttl <= LEASE for ttl in ttls)


def test_counters_taken_from_the_rows_expire_too(own_valkey: Valkey, own_store: RedisStore, drain: Drain) -> None:
    fail_all(own_store, ((f"u{number}", address(number)) for number in range(300)))
    drain()
    own_valkey.client.flushall()
    with pytest.raises(StoreFlushed) as told:
        own_store.peek(counters("192.0.2.1", "x"), now=now_ms())
    time.sleep(told.value.left / 1000)
    fail = event(Kind.BLOCKED, "x", "192.0.2.1")
    own_store.reserve(fail.id[-16:], counters("192.0.2.1", "x"), fail, now=now_ms(), lease=LEASE, extend=False)
    drain()
    ttls = [own_valkey.client.pttl(key) for key in own_valkey.client.scan_iter("{axes}:c:*")]
    assert len(ttls) == 301
    assert all(0 < ttl <= BY_ADDRESS.window_ms for ttl in ttls)


def test_a_full_outbox_counts_on_and_tells_how_much_it_turned_away(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any
) -> None:
    settings.AXES_OUTBOX_MAX = 5
    looked_at = [failure("alice", f"192.0.2.{number // 4}") for number in range(16)]
    store = get_store()
    assert isinstance(store, RedisStore)
    assert looked_at == [True, True, True, False] * 4, "the limit holds with a full outbox"
    assert own_valkey.client.xlen(store.outbox_key) == 5
    assert int(own_valkey.client.get(store.overflow_key)) == 11
    assert drain() == 5
    assert AccessFailureLog.objects.count() == 5
    assert not failure("alice", "192.0.2.0")
    assert get_settings().outbox_max == 5


def test_a_locked_client_that_is_out_of_the_outbox_stays_locked(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    own_store.outbox_max = 1
    fail_all(own_store, [("alice", "192.0.2.1")] * 3)
    drain()
    blocked = event(Kind.BLOCKED, "alice", "192.0.2.1")
    of_it = counters("192.0.2.1", "alice")
    outcome = own_store.reserve(blocked.id[-16:], of_it, blocked, now=now_ms(), lease=LEASE, extend=False)
    assert outcome.verdict is Verdict.LOCKED
