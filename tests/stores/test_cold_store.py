"""A store that has lost its counters: nobody is freed, and the rows give back what was there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client

from axes_async import ledger
from axes_async.counters.events import CounterState
from axes_async.counters.rules import Rule, counters_for
from axes_async.ledger import Ledger, database_name
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.factory import get_failover
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.tasks import drain as drain_module
from axes_async.tasks.drain import drain_batch
from axes_async.tasks.rebuild import rebuild
from axes_async.utils import reset
from tests.actions import failure, success
from tests.conftest import PASSWORD, WARMTH
from tests.login.test_login_path import queries
from tests.site import CountingBackend

Post = Callable[..., Any]
Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def flush(valkey: redis.Redis, drain: Drain) -> Callable[[], None]:
    """Return a function that writes what the outbox holds, and then loses everything that the server has."""

    def flush() -> None:
        drain()
        valkey.flushall()

    return flush


Flush = Callable[[], None]


def in_store_and_rows(store: RedisStore) -> tuple[dict[str, int], dict[str, int]]:
    """Return the failures that count, of each counter: as the store has it, and as the rows have it."""
    stored = {}
    for key in store.client.scan_iter("{axes}:c:*"):
        failures, lifted = (int(value or 0) for value in store.client.hmget(key, "f", "g"))
        if failures > lifted:
            stored[key.decode()[-22:]] = failures - lifted
    rows = {row.digest: row.failures - row.lifted for row in AttemptCounter.objects.all() if row.failures > row.lifted}
    return stored, rows


def is_warm(valkey: redis.Redis) -> bool:
    return bool(valkey.get(WARMTH) == f"warm:{database_name()}")


def test_a_locked_client_stays_locked_without_any_worker(alice: User, post: Post, flush: Flush) -> None:
    for _ in range(3):
        post()
    flush()
    assert post(password=PASSWORD).status_code == 429
    assert CountingBackend.checks == 3


def test_a_client_that_was_not_locked_keeps_its_count(flush: Flush) -> None:
    failure()
    failure()
    flush()
    assert [failure(), failure()] == [True, False]


@pytest.mark.parametrize("touched", [1, 2])
def test_a_count_survives_being_flushed_again_and_again(flush: Flush, touched: int) -> None:
    for _ in range(touched):
        failure()
        flush()
        flush()
    assert [failure() for _ in range(4 - touched)] == [True] * (3 - touched) + [False]


def test_with_an_empty_table_the_first_login_makes_the_store_warm(alice: User, post: Post, valkey: redis.Redis) -> None:
    valkey.flushall()
    assert post().status_code == 401
    assert is_warm(valkey)
    assert no_sql_of_ours()


def no_sql_of_ours() -> bool:
    def enter() -> None:
        Client().post("/sign-in/", {"username": "alice", "password": "wrong"}, REMOTE_ADDR="198.51.100.99")

    with_us, without = queries(True, enter), queries(False, enter)
    assert without, "a login looks its user up"
    return with_us == without


def test_a_flushed_server_is_cold_until_it_is_rebuilt_and_asks_the_rows_no_more_then(
    alice: User, flush: Flush, valkey: redis.Redis, redis_store: RedisStore
) -> None:
    failure()
    flush()
    assert not no_sql_of_ours()
    assert redis_store.is_cold()
    assert rebuild()
    assert not redis_store.is_cold()
    assert no_sql_of_ours()


def test_a_drain_rebuilds(flush: Flush, drain: Drain, valkey: redis.Redis, redis_store: RedisStore) -> None:
    for _ in range(3):
        failure()
    flush()
    drain()
    assert is_warm(valkey)
    assert in_store_and_rows(redis_store)[0] == in_store_and_rows(redis_store)[1] != {}
    assert not success()


CLIENTS = {name: {"username": name, "address": f"192.0.2.{number}"} for number, name in enumerate("abcdefgh")}


def before_the_flush() -> None:
    """Count two failures of everybody, and a third of b, d and f."""
    for name, who in CLIENTS.items():
        for _ in range(3 if name in "bdf" else 2):
            failure(**who)


def meanwhile() -> None:
    """Fail, log in and reset on a store that is cold, or being rebuilt."""
    assert failure(**CLIENTS["a"])
    assert not failure(**CLIENTS["b"])
    assert success(**CLIENTS["c"])
    reset(ip=CLIENTS["d"]["address"])
    reset(ip=CLIENTS["e"]["address"])
    assert failure("new", "198.51.100.7")


def check_afterwards(redis_store: RedisStore, drain: Drain) -> None:
    assert not redis_store.is_cold()
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert sorted(rows.values()) == [1, 2, 2, 3, 3, 3]  # new; g, h; a, b, f
    assert [failure(**CLIENTS[name]) for name in "abf"] == [False] * 3
    for name in "cde":
        assert [failure(**CLIENTS[name]) for _ in range(4)] == [True, True, True, False]
    assert [failure(**CLIENTS["g"]) for _ in range(2)] == [True, False]


def test_a_rebuild_undoes_nothing_that_happened_in_the_cold_time(
    flush: Flush, drain: Drain, redis_store: RedisStore, settings: Any
) -> None:
    settings.AXES_RESET_ON_SUCCESS = True
    before_the_flush()
    flush()
    meanwhile()
    assert redis_store.is_cold()
    assert rebuild()
    check_afterwards(redis_store, drain)


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_a_rebuild_undoes_nothing_that_happens_while_it_is_under_way(
    flush: Flush, drain: Drain, redis_store: RedisStore, settings: Any, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    settings.AXES_RESET_ON_SUCCESS = True
    portions = Ledger.portions

    def interrupted(self: Ledger) -> Iterator[Sequence[CounterState]]:
        for number, portion in enumerate(portions(self)):
            yield portion
            if number == after:
                meanwhile()

    monkeypatch.setattr(ledger, "PORTION", 1)
    monkeypatch.setattr(Ledger, "portions", interrupted)
    before_the_flush()
    flush()
    assert rebuild()
    check_afterwards(redis_store, drain)


def test_a_rebuild_that_is_overtaken_by_a_flush_does_not_call_the_store_complete(
    flush: Flush, redis_store: RedisStore, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    portions = Ledger.portions

    def interrupted(self: Ledger) -> Iterator[Sequence[CounterState]]:
        yield from portions(self)
        valkey.flushall()

    before_the_flush()
    flush()
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "portions", interrupted)
        assert not rebuild()
    assert redis_store.is_cold()
    assert not failure(**CLIENTS["b"])
    assert rebuild()
    assert not failure(**CLIENTS["d"])


def test_a_drain_of_a_cold_store_keeps_logins_waiting_for_a_few_events_at_a_time(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "BATCH_WHILE_COLD", 2)
    for number in range(6):
        failure(address=f"192.0.2.{number}")
    redis_store.cool()
    assert [drain_batch(redis_store), drain_batch(redis_store)] == [2, 2]
    rebuild()
    assert drain_batch(redis_store) == 2
    for number in range(6):
        failure(address=f"192.0.2.{number}")
    assert drain_batch(redis_store) == 6


def test_a_rebuild_of_a_warm_store_changes_nothing(drain: Drain, redis_store: RedisStore) -> None:
    before_the_flush()
    drain()
    before = in_store_and_rows(redis_store)
    assert rebuild()
    assert in_store_and_rows(redis_store) == before
    assert before[0] == before[1]


def test_a_login_that_no_drain_has_written_yet_has_cleared_for_good_when_the_store_is_rebuilt(
    drain: Drain, redis_store: RedisStore, settings: Any
) -> None:
    settings.AXES_RESET_ON_SUCCESS = True
    failure()
    failure()
    drain()
    assert success()
    assert rebuild()
    drain()
    assert in_store_and_rows(redis_store) == ({}, {})
    assert [failure() for _ in range(4)] == [True, True, True, False]


def test_failures_that_no_drain_has_written_yet_survive_a_rebuild(drain: Drain, redis_store: RedisStore) -> None:
    failure()
    drain()
    failure()
    failure()
    assert rebuild()
    assert not failure()
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert list(stored.values()) == list(rows.values()) == [3]


@pytest.mark.parametrize("seen", [True, False], ids=["seen since the flush", "not seen since"])
@pytest.mark.parametrize("who", [{}, {"ip": "192.0.2.1"}], ids=str)
def test_a_reset_in_the_cold_time_lifts_for_good(flush: Flush, drain: Drain, who: dict[str, str], seen: bool) -> None:
    for _ in range(3):
        failure()
    flush()
    if seen:
        assert not failure()
    assert reset(**who) == 1
    assert success()
    assert rebuild()
    assert success()
    drain()
    assert not AccessAttempt.objects.exists()


def test_a_reset_reaches_a_client_whose_lock_was_flushed_and_taken_from_the_rows(flush: Flush) -> None:
    for _ in range(3):
        failure()
    flush()
    assert not success()
    flush()
    reset(username="alice")
    flush()
    assert success()


@pytest.mark.parametrize("warmth", ["warm:another", "warm:", "warm", "cold:"])
def test_a_store_that_is_complete_for_another_database_is_cold_for_this_one(
    flush: Flush, drain: Drain, valkey: redis.Redis, redis_store: RedisStore, warmth: str
) -> None:
    for _ in range(3):
        failure()
    flush()
    valkey.set(WARMTH, warmth)
    assert redis_store.is_cold()
    assert not success()
    drain()
    assert is_warm(valkey)


class NoRows:
    """A database that has counted nothing."""

    def states(self, digests: Sequence[str]) -> dict[str, CounterState] | None:
        """Return nothing."""
        return None

    def is_empty(self) -> bool:
        """Say so."""
        return True


def test_a_site_with_an_empty_database_does_not_make_the_store_warm_for_one_with_rows(
    flush: Flush, redis_store: RedisStore
) -> None:
    for _ in range(3):
        failure()
    flush()
    other = RedisStore(redis_store.client, database="other", rows=NoRows())
    counters = counters_for([Rule(parameters=("ip_address",), limit=3, cooloff=None)], {"ip_address": "198.51.100.1"})
    assert other.reserve("0" * 16, counters, None, now=1, lease=1, extend=False).verdict is Verdict.ALLOWED
    assert not other.is_cold()
    assert redis_store.is_cold()
    assert not success()


def test_what_was_written_before_a_flush_is_not_written_again(flush: Flush, drain: Drain) -> None:
    for _ in range(3):
        failure()
    flush()
    failure("bob", "192.0.2.2")
    drain()
    drain()
    assert AccessFailureLog.objects.count() == 4
    assert sorted(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == [1, 3]


@pytest.mark.parametrize("reset_on_success", [False, "account", True])
@pytest.mark.parametrize("seed", [*range(8), 131])
def test_counters_and_rows_agree_after_any_mix_of_attempts_flushes_and_rebuilds(
    drain: Drain, flush: Flush, redis_store: RedisStore, settings: Any, seed: int, reset_on_success: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username", ["username", "ip_address"]]
    settings.AXES_FAILURE_LIMIT = 4
    settings.AXES_RESET_ON_SUCCESS = reset_on_success
    random = Random(seed)
    everybody = [{"username": name, "address": f"192.0.2.{n}"} for name in ("alice", "bob") for n in range(3)]

    def locked() -> list[dict[str, str]]:
        rules = [Rule(parameters=rule, limit=4, cooloff=None) for rule in settings_rules]
        found = []
        for who in everybody:
            counters = counters_for(rules, {"username": who["username"], "ip_address": who["address"]})
            if get_failover().peek(counters, now=1).verdict is Verdict.LOCKED:
                found.append(who)
        return found

    settings_rules: list[Any] = [("ip_address",), ("username",), ("ip_address", "username")]
    for _ in range(150):
        action, who = random.random(), random.choice(everybody)
        if action < 0.55:
            failure(**who)
        elif action < 0.75:
            success(**who)
        elif action < 0.82:
            drain()
        elif action < 0.92:
            before = locked()
            flush()
            if seed != 131:  # The moment is over in which it is left alone.
                redis_store.client.set(WARMTH, "cold:00000000")
            assert [one for one in before if random.random() < 0.7 and (failure(**one) or success(**one))] == []
        elif action < 0.95:
            rebuild()
        elif action < 0.97:
            reset(ip=who["address"])
        elif action < 0.985:
            reset(username=who["username"].upper())
        elif keys := list(AccessAttempt.objects.values_list("ip_address", "username")):
            ip, username = random.choice(keys)
            reset(ip=ip, username=username)
    drain()
    rebuild()
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    reset()
    assert in_store_and_rows(redis_store) == ({}, {})
    assert not AttemptCounter.objects.filter(failures__gt=0, lifted=0).exists()


def test_a_warm_store_can_be_made_cold(redis_store: RedisStore) -> None:
    assert not redis_store.is_cold()
    redis_store.cool()
    assert redis_store.is_cold()
