"""Lockouts that no row speaks of, and events that no database takes: what a reset and a drain make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError

from axes_async.counters.events import AttemptEvent
from axes_async.delivery import circuit_breaker
from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.drain import _database
from axes_async.tasks.projection.logs import LogWriter
from axes_async.tasks.projection.projector import Projector
from axes_async.utils import reset
from tests.actions import failure, success

Drain = Callable[[], int]
Lose = Callable[[], None]
HOME, OFFICE = "192.0.2.1", "192.0.2.2"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]


@pytest.fixture(autouse=True)
def _a_database_untried() -> Iterator[None]:
    """Let the next test find the database as it is."""
    yield
    _database.succeeded()


@pytest.fixture(params=["overflow", "set aside", "deleted"])
def lose(request: pytest.FixtureRequest, settings: Any, drain: Drain, monkeypatch: pytest.MonkeyPatch) -> Lose:
    """Return a function that has three failures of alice counted at home, and no row that speaks of them."""

    def full_outbox() -> None:
        settings.AXES_OUTBOX_MAX = 1
        failure("somebody else", "192.0.2.99")
        lock_alice()
        drain()

    def poisoned_events() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(Projector, "_write", _refuse)
            lock_alice()
            drain()

    def deleted_rows() -> None:
        lock_alice()
        drain()
        AccessAttempt.objects.all().delete()
        AttemptCounter.objects.all().delete()

    def lock_alice() -> None:
        assert [failure("alice", HOME) for _ in range(4)] == [True] * 3 + [False]

    return {"overflow": full_outbox, "set aside": poisoned_events, "deleted": deleted_rows}[request.param]


def _refuse(self: Projector, entries: Any) -> None:
    raise DatabaseError("no event can be written")


@pytest.mark.parametrize("rules", [["ip_address"], ["username"], [["username", "ip_address"]]], ids=str)
def test_a_reset_of_everything_lifts_lockouts_that_no_row_speaks_of(lose: Lose, settings: Any, rules: Any) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = rules
    lose()
    assert not AttemptCounter.objects.filter(failures__gte=3).exists()
    reset()
    assert success("alice", HOME)


@pytest.mark.parametrize(
    ("rules", "who"),
    [
        (["ip_address"], {"ip": HOME}),
        (["username"], {"username": "ALICE"}),
        (["username", "ip_address"], {"username": "alice", "ip": HOME, "ip_or_username": True}),
        ([["username", "ip_address"]], {"username": "alice", "ip": HOME}),
        ([["username", "ip_address"]], {"username": "alice", "ip": HOME, "ip_or_username": True}),
    ],
    ids=str,
)
def test_a_reset_by_name_lifts_the_lockouts_whose_values_it_names_all(
    lose: Lose, settings: Any, rules: Any, who: dict[str, Any]
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = rules
    lose()
    reset(**who)
    assert success("alice", HOME)


@pytest.mark.parametrize(
    "who",
    [{"ip": OFFICE}, {"username": "bob"}, {"username": "alice", "ip": HOME}],
    ids=["other ip", "other name", "both"],
)
def test_a_reset_of_another_lifts_no_lockout_that_no_row_speaks_of(
    lose: Lose, settings: Any, who: dict[str, Any]
) -> None:
    """Name and address together are one client: neither the whole address nor the whole name is reset with it."""
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address"]
    lose()
    reset(**who)
    assert not success("alice", HOME)


@pytest.mark.parametrize("code", [1264, 1366, 1406])
def test_what_mysql_calls_operational_and_is_the_fault_of_one_event_sets_that_one_aside(
    drain: Drain, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    for name in ("one", "\U0001f600", "two"):
        failure(name, OFFICE)
    write = LogWriter._failures

    def refuse(self: LogWriter, events: list[AttemptEvent]) -> None:
        if any(event.username == "\U0001f600" for event in events):
            raise OperationalError(code, "Incorrect string value for column 'username'")
        write(self, events)

    monkeypatch.setattr(LogWriter, "_failures", refuse)
    assert drain() == 3
    assert list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True)) == ["one", "two"]
    ((_, entry),) = redis_store.client.xrange(redis_store.dead_letters_key)
    assert "\U0001f600".encode() in entry[b"entry"]
    assert redis_store.client.xlen(redis_store.outbox_key) == 0


@pytest.mark.parametrize(
    "fault",
    [
        OperationalError("server closed the connection unexpectedly"),
        OperationalError(1205, "Lock wait timeout exceeded; try restarting transaction"),
        OperationalError(),
        InterfaceError("connection already closed"),
    ],
    ids=str,
)
def test_a_fault_of_the_database_sets_nothing_aside_and_the_next_drain_writes_all(
    drain: Drain, redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, fault: DatabaseError
) -> None:
    for name in ("one", "two", "three"):
        failure(name, OFFICE)
    tried: list[int] = []

    def refuse(self: Projector, events: list[AttemptEvent]) -> None:
        tried.append(len(events))
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(Projector, "_attempts", refuse)
        broken.setattr(circuit_breaker, "monotonic", lambda: 100.0)
        assert drain() == 0
        tries = len(tried)
        assert drain() == 0
        assert len(tried) == tries, "the database is left alone for a while"
    assert set(tried) == {3}
    assert redis_store.client.xlen(redis_store.dead_letters_key) == 0
    assert AccessFailureLog.objects.count() == AccessAttempt.objects.count() == AttemptCounter.objects.count() == 0
    _database.succeeded()
    assert drain() == 3
    assert AccessFailureLog.objects.count() == AccessAttempt.objects.count() == 3
