"""A reset of very many counters: the store serves logins meanwhile, and is never held up by one command."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.tasks.reset import reset
from tests.actions import failure
from tests.faults.machines import Valkey
from tests.faults.sending import address, counters, fail_all

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]

SLOW = 10_000
"""Microseconds that no command may take."""


@dataclass
class Meanwhile:
    """What logins met during a reset."""

    waits: list[float] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def logins(store: RedisStore) -> Iterator[Meanwhile]:
    """Have somebody ask the store all the time, and note how long each answer took."""
    seen, done = Meanwhile(), threading.Event()
    of_it = counters("203.0.113.99", "somebody")

    def ask() -> None:
        while not done.is_set():
            started = time.perf_counter()
            try:
                store.peek(of_it, now=int(time.time() * 1000))
            except Exception as error:  # noqa: BLE001  (whatever it is, it is the test's to report)
                seen.errors.append(error)
            seen.waits.append(time.perf_counter() - started)
            time.sleep(0.001)

    thread = threading.Thread(target=ask)
    thread.start()
    started = time.monotonic()
    try:
        yield seen
    finally:
        seen.seconds = time.monotonic() - started
        done.set()
        thread.join()


def check_commands(own_valkey: Valkey) -> None:
    """See that no command kept the store for longer than ``SLOW``, but for a few that the scheduler interrupted."""
    slow = own_valkey.client.slowlog_get(128)
    told = [(entry["duration"], entry["command"][:60]) for entry in slow]
    calls = own_valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(slow) <= 3 + calls // 1000, told
    assert all(duration < 10 * SLOW for duration, _ in told), told
    stats = own_valkey.client.info("commandstats")
    assert "cmdstat_keys" not in stats
    for name in ("del", "unlink"):
        calls = stats.get(f"cmdstat_{name}", {"usec_per_call": 0.0})
        assert calls["usec_per_call"] < 1000


def watch(own_valkey: Valkey) -> None:
    own_valkey.client.config_set("slowlog-log-slower-than", SLOW)
    own_valkey.client.config_set("slowlog-max-len", 128)
    own_valkey.client.slowlog_reset()
    own_valkey.client.config_resetstat()


def lock_of(store: RedisStore, number: int) -> Verdict:
    return store.peek(counters(address(number), f"u{number}"), now=int(time.time() * 1000)).verdict


def reset_counters_without_rows(own_valkey: Valkey, store: RedisStore, *, clients: int, seconds: float) -> None:
    store.outbox_max = 1
    for _ in range(3):
        fail_all(store, ((f"u{number}", address(number)) for number in range(clients)))
    assert lock_of(store, clients - 1) is Verdict.LOCKED
    watch(own_valkey)
    with logins(store) as seen:
        reset()
    check_commands(own_valkey)
    assert not seen.errors
    assert max(seen.waits) < 0.5
    assert seen.seconds < seconds
    assert all(lock_of(store, number) is Verdict.ALLOWED for number in range(0, clients, clients // 100))
    print(f"\nreset of {clients:,} counters: {seen.seconds:.1f} s, slowest answer {max(seen.waits) * 1000:.1f} ms")


def reset_counters_with_rows(
    own_valkey: Valkey, store: RedisStore, drain: Drain, *, clients: int, seconds: float
) -> None:
    fail_all(store, ((f"u{number % clients}", address(number % clients)) for number in range(clients)))
    while drain():
        pass
    assert AttemptCounter.objects.count() == AccessAttempt.objects.count() == clients
    watch(own_valkey)
    with logins(store) as seen:
        assert reset() == clients
    check_commands(own_valkey)
    assert not seen.errors
    assert max(seen.waits) < 0.5
    assert seen.seconds < seconds
    assert AccessAttempt.objects.count() == 0
    assert failure("u1", address(1))
    assert failure("u1", address(1))
    assert failure("u1", address(1)), "the one before the reset counts no more"
    slowest = max(seen.waits) * 1000
    print(f"\nreset of {clients:,} counters with rows: {seen.seconds:.1f} s, slowest answer {slowest:.1f} ms")


def test_a_reset_of_20_000_counters_that_no_row_speaks_of_holds_no_login_up(
    own_valkey: Valkey, own_store: RedisStore
) -> None:
    reset_counters_without_rows(own_valkey, own_store, clients=20_000, seconds=30)


def test_a_reset_of_5_000_counters_with_their_rows_holds_no_login_up(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    reset_counters_with_rows(own_valkey, own_store, drain, clients=5_000, seconds=20)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_reset_of_a_million_counters_that_no_row_speaks_of_holds_no_login_up(
    own_valkey: Valkey, own_store: RedisStore
) -> None:
    reset_counters_without_rows(own_valkey, own_store, clients=1_000_000, seconds=120)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_reset_of_100_000_counters_with_their_rows_takes_seconds(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    reset_counters_with_rows(own_valkey, own_store, drain, clients=100_000, seconds=60)
