"""The projector: events of the store are replayed onto rows, events of the database's steps are logged, each once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from axes_async.clock import as_datetime
from axes_async.counters.events import AttemptEvent, CounterChange, Kind, new_id
from axes_async.counters.rules import Rule, counters_for
from axes_async.counters.state import CounterState
from axes_async.models import (
    AccessAttempt,
    AccessFailureLog,
    AccessLog,
    AttemptCounter,
    OutboxEvent,
    StoreState,
)
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from axes_async.tasks.drain import drain_batch
from axes_async.tasks.projection.bulk import Columns
from axes_async.tasks.projection.counters import Entry
from axes_async.tasks.projection.projector import Projector
from axes_async.tasks.sync import sync
from axes_async.tasks.write_one import write
from tests.actions import failure, success
from tests.tasks.agreement import in_store_and_rows

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOON = 1_777_636_800_000
HOUR = 3_600_000
BY_ADDRESS = "A" * 22


def event(kind: Kind = Kind.FAILED, *, at: int = NOON, repeats: int = 0, **change: Any) -> AttemptEvent:
    """Return an event of alice's, with what it did to the counter of her address."""
    changes = (CounterChange(digest=BY_ADDRESS, parameters=("ip_address",), limit=3, **change),) if change else ()
    body = AttemptEvent(kind=kind, id=new_id(at), username="alice", ip_address="192.0.2.1", user_agent="tests")
    return body.applied(changes, at=at, repeats=repeats)


def project(*events: AttemptEvent, generation: int | None = 1) -> None:
    Projector("default").write([Entry(one, generation) for one in events])


def counter() -> tuple[int, int, int | None]:
    """Return the failures, the generation and the end of the one counter there is, in milliseconds behind noon."""
    row = AttemptCounter.objects.get()
    end = None if row.expires_at is None else round(row.expires_at.timestamp() * 1000) - NOON
    return row.failures, row.generation, end


def failures_shown() -> list[int]:
    return sorted(AccessAttempt.objects.values_list("failures_since_start", flat=True))


def test_what_the_store_did_is_done_to_the_row() -> None:
    project(
        event(counted=True, expires_at=NOON + HOUR),
        event(counted=True, expires_at=NOON + HOUR + 5, at=NOON + 5),
        event(counted=True, expires_at=NOON + HOUR + 9, at=NOON + 9, locked=True),
    )
    assert counter() == (3, 1, HOUR + 9)
    row = AttemptCounter.objects.get()
    assert (row.limit, row.ip_address, row.username, row.since) == (3, "192.0.2.1", None, as_datetime(NOON))


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3]], [[0], [1], [2], [3]], [[0, 1], [2, 3]], [[0, 2], [1, 3]]], ids=str)
def test_batches_make_no_difference(batches: list[list[int]]) -> None:
    """Nor does their order, but for a failure that a login has cleared meanwhile."""
    told = [event(counted=True, expires_at=NOON + HOUR + number, at=NOON + number) for number in range(4)]
    for batch in batches:
        project(*[told[number] for number in batch])
    assert counter() == (4, 1, HOUR + 3)
    assert failures_shown() == [4]


def test_expired_counter_starts_anew() -> None:
    project(event(counted=True, expires_at=NOON + 10))
    project(event(counted=True, expires_at=NOON + 30, at=NOON + 10), generation=2)
    assert counter() == (1, 2, 30)
    assert failures_shown() == [1]


def test_late_event_adds_its_failure_and_ends_nothing_sooner() -> None:
    project(event(counted=True, expires_at=NOON + HOUR + 9, at=NOON + 9))
    project(event(counted=True, expires_at=NOON + HOUR))
    assert counter() == (2, 1, HOUR + 9)
    assert AccessAttempt.objects.get().attempt_time == as_datetime(NOON + 9)


def test_events_of_a_voided_generation_are_logged_and_count_nothing() -> None:
    StoreState.objects.filter(pk=1).update(void_generation=4, generation=5)
    project(event(counted=True, expires_at=0), generation=4)
    assert not AttemptCounter.objects.filter(failures__gt=0).exists()
    assert not AccessAttempt.objects.exists()
    assert AccessFailureLog.objects.count() == 1
    project(event(counted=True, expires_at=0), generation=5)
    assert counter()[:2] == (1, 5)
    assert failures_shown() == [1]


def test_counter_of_a_voided_generation_starts_anew() -> None:
    project(event(counted=True, expires_at=0), event(counted=True, expires_at=0), generation=4)
    StoreState.objects.filter(pk=1).update(void_generation=4, generation=5)
    project(event(counted=True, expires_at=0), generation=5)
    assert counter()[:2] == (1, 5)


def test_events_of_a_generation_that_is_void_for_their_counter_count_nothing_there() -> None:
    project(event(counted=True, expires_at=0), generation=1)
    AttemptCounter.objects.update(failures=0, void_generation=4)
    AccessAttempt.objects.all().delete()
    project(event(counted=True, expires_at=0), generation=4)
    assert counter()[0] == 0
    assert not AccessAttempt.objects.exists()
    project(event(counted=True, expires_at=0), generation=5)
    assert counter()[:2] == (1, 5)
    assert AccessFailureLog.objects.count() == 3


@pytest.mark.parametrize("later", [1, 2])
def test_event_that_has_a_row_is_skipped_whole(later: int) -> None:
    one = event(counted=True, expires_at=0)
    project(one)
    project(*[one] * later)
    assert counter()[0] == 1
    assert failures_shown() == [1]
    assert AccessFailureLog.objects.count() == 1


def test_event_that_store_and_database_have_both_done_counts_once(redis_store: RedisStore, drain: Drain) -> None:
    """A step whose answer got lost was done again in the database."""
    counters = counters_for([Rule(parameters=("ip_address",), limit=9, cooloff=None)], {"ip_address": "192.0.2.1"})
    one = AttemptEvent(kind=Kind.FAILED, id=new_id(NOON), username="alice", ip_address="192.0.2.1")
    redis_store.do(Step(StepKind.FAIL, "t" * 16, counters, event=one))
    redis_store.invalidate(redis_store.key().generation + 1)
    DatabaseStore(replaces=redis_store).do(Step(StepKind.FAIL, "t" * 16, counters, event=one))
    assert OutboxEvent.objects.count() == 1
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert list(stored.values()) == list(rows.values()) == [1]
    assert AccessFailureLog.objects.count() == 1
    assert failures_shown() == [1]


def test_login_that_cleared_takes_its_counter_and_its_attempts() -> None:
    project(event(counted=True, expires_at=0), event(counted=True, expires_at=0, at=NOON + 1))
    project(event(Kind.LOGGED_IN, at=NOON + 2, cleared=True))
    assert not AttemptCounter.objects.exists()
    assert not AccessAttempt.objects.exists()
    assert (AccessLog.objects.count(), AccessFailureLog.objects.count()) == (1, 2)


def test_failures_after_a_login_that_cleared_are_a_new_attempt() -> None:
    project(
        event(counted=True, expires_at=0),
        event(Kind.LOGGED_IN, at=NOON + 1, cleared=True),
        event(counted=True, expires_at=0, at=NOON + 2),
        event(counted=True, expires_at=0, at=NOON + 3),
        event(Kind.LOGGED_IN, at=NOON + 4, cleared=True),
        event(counted=True, expires_at=0, at=NOON + 5),
    )
    assert counter()[0] == 1
    assert failures_shown() == [1]


def test_attempt_that_counts_elsewhere_stays_after_a_login(drain: Drain, settings: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
    settings.AXES_RESET_ON_SUCCESS = "account"
    failure("alice", "192.0.2.1")
    success("alice", "192.0.2.2")
    drain()
    assert AttemptCounter.objects.filter(failures__gt=0).get().ip_address == "192.0.2.1"
    assert failures_shown() == [1]


def test_prolonged_lockout_keeps_its_attempts() -> None:
    project(event(counted=True, expires_at=NOON + HOUR))
    AttemptCounter.objects.update(failures=3)
    project(event(Kind.BLOCKED, at=NOON + 9, repeats=11, prolonged=True, locked=True, expires_at=NOON + HOUR + 9))
    assert counter() == (3, 1, HOUR + 9)
    assert AccessAttempt.objects.get().expires_at == as_datetime(NOON + HOUR + 9)
    assert AttemptCounter.objects.get().blocked == 11
    assert AccessFailureLog.objects.count() == 1, "the eleventh has no row"


def test_blocked_attempts_have_a_row_each_then_at_doublings() -> None:
    project(*[event(Kind.BLOCKED, repeats=number) for number in range(1, 45)])
    assert sorted(AccessFailureLog.objects.values_list("repeats", flat=True)) == [*range(1, 11), 20, 40]
    assert not AccessAttempt.objects.exists()


def test_steps_of_the_database_are_logged_and_change_no_counter() -> None:
    project(event(counted=True, expires_at=0), generation=None)
    assert not AttemptCounter.objects.exists()
    assert failures_shown() == [1]
    assert AccessFailureLog.objects.count() == 1


@pytest.mark.parametrize("seed", range(6))
def test_steps_of_store_and_database_mix_in_any_order(redis_store: RedisStore, drain: Drain, seed: int) -> None:
    """What a step changed in a row is in it at once; what the store did is replayed onto it, whenever that comes."""
    random, sent = Random(seed), 0
    counters = counters_for([Rule(parameters=("ip_address",), limit=999, cooloff=9999)], {"ip_address": "192.0.2.1"})
    database = DatabaseStore(standalone=True)
    for number in range(60):
        one = AttemptEvent(kind=Kind.FAILED, id=new_id(NOON + number), username="alice", ip_address="192.0.2.1")
        action = random.random()
        if action < 0.8:
            store = database if action < 0.4 else redis_store
            store.do(Step(StepKind.FAIL, "", counters, event=one))
            sent += 1
        else:
            drain_batch(redis_store if action < 0.9 else None)
    drain_batch(redis_store)
    assert AttemptCounter.objects.get().failures == sent
    assert failures_shown() == [sent]
    assert AccessFailureLog.objects.count() == sent
    assert not OutboxEvent.objects.exists()


@pytest.mark.parametrize("seed", range(4))
def test_logins_that_clear_agree_with_the_store_across_losses(
    redis_store: RedisStore, drain: Drain, settings: Any, seed: int
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", ["username", "ip_address"]]
    settings.AXES_RESET_ON_SUCCESS = True
    settings.AXES_FAILURE_LIMIT = 4
    random = Random(seed)
    start = datetime(2026, 5, 1, 12, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        for _ in range(120):
            who = random.choice(["alice", "bob"]), f"192.0.2.{random.randint(1, 3)}"
            action = random.random()
            clock.shift(timedelta(milliseconds=random.randint(0, 5)))
            if action < 0.55:
                failure(*who)
            elif action < 0.75:
                success(*who)
            elif action < 0.9:
                drain()
            elif action < 0.95:
                redis_store.invalidate(redis_store.key().generation + 1)
            else:
                clock.shift(3)
                sync()
        clock.shift(3)
        drain()
        drain()
        stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert sum(rows.values()) >= 1
    assert all(number > 0 for number in failures_shown())


@pytest.mark.parametrize("seed", range(6))
def test_row_of_a_rolling_window_is_the_replay_of_its_events(seed: int) -> None:
    """Each step is done to a ``CounterState`` as a store does it, then the row must say the same."""
    random, rule = Random(seed), Rule(parameters=("ip_address",), limit=3, cooloff=1.0, rolling=True)
    state, now = CounterState(), NOON
    for _ in range(40):
        now += random.randint(0, 700)
        state.expire(now, rule)
        if state.is_locked(rule, now):
            continue
        locked = state.count(rule, now)
        change = {"counted": True, "expires_at": state.expires_at, "end": now + 1000, "locked": locked}
        project(event(at=now, **change))
        row = AttemptCounter.objects.get()
        assert row.ends == ",".join(map(str, state.ends))
        assert row.failures == state.failures


def test_event_that_cannot_be_read_in_the_table_is_set_aside(redis_store: RedisStore, drain: Drain) -> None:
    OutboxEvent.objects.create(event_id=UUID(new_id(NOON)), wire="no event")
    failure()
    drain()
    assert not OutboxEvent.objects.exists()
    (letter,) = redis_store.dead_letters("0-0", 10)
    assert letter.entry == b"no event"
    assert failures_shown() == [1]


def test_event_that_cannot_be_read_in_the_table_is_logged_where_there_are_no_dead_letters(
    settings: Any, drain: Drain, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AXES_STORE = "database"
    OutboxEvent.objects.create(event_id=UUID(new_id(NOON)), wire="no \x1b[2J event")
    assert drain() == 1
    assert not OutboxEvent.objects.exists()
    assert r"no \x1b[2J event" in caplog.text


def test_message_of_a_cache_is_written_once() -> None:
    one = event(counted=True, expires_at=0)
    write(one.wire())
    write(one.wire())
    assert counter()[0] == 1
    assert AccessFailureLog.objects.count() == 1


def test_message_of_a_cache_from_before_a_reset_of_everything_counts_nothing() -> None:
    StoreState.objects.filter(pk=1).update(void_generation=1, generation=2, voided_at=as_datetime(NOON + 5))
    write(event(counted=True, expires_at=0).wire())
    assert not AccessAttempt.objects.exists()
    write(event(counted=True, expires_at=0, at=NOON + 6).wire())
    assert failures_shown() == [1]


def test_message_that_holds_no_event_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    write("nothing of the kind")
    assert "nothing of the kind" in caplog.text


@time_machine.travel(NOON / 1000, tick=False)  # Each minute has a row of its own.
def test_a_batch_asks_the_database_as_often_for_many_events_as_for_few(redis_store: RedisStore) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("Others take so many rows a statement.")
    drain_batch(redis_store)
    asked = []
    for number in (2, 40, 200):
        for address in range(number):
            failure("alice", f"198.51.{number}.{address}")
        with CaptureQueriesContext(connection) as queries:
            assert drain_batch(redis_store) == number
        asked.append(len(queries))
    assert asked[0] < asked[1] == asked[2] < 30


@pytest.mark.parametrize(("dirty", "left"), [(False, 0), (True, 1)])
def test_login_clears_the_row_unless_it_may_be_ahead_of_the_store(dirty: bool, left: int) -> None:
    project(event(counted=True, expires_at=NOON + HOUR))
    AttemptCounter.objects.update(dirty=dirty)
    project(event(Kind.LOGGED_IN, at=NOON + 1, cleared=True))
    assert sum(AttemptCounter.objects.values_list("failures", flat=True)) == left


def test_no_rows_are_no_statement(django_assert_num_queries: Any) -> None:
    columns = Columns(AttemptCounter, ["digest"], "default")
    with django_assert_num_queries(0):
        columns.upsert([], key=["digest"], fields=["failures"])
        if columns.takes_copies:
            assert columns.insert_or_lock([], "digest") == set()
