"""Resets: what they take back, in the rows and in every store, and what they record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from axes_async import guard, signals
from axes_async.errors import StoreUnavailable
from axes_async.models import AccessAttempt, AccessFailureLog, AccessReset, AttemptCounter, StoreState
from axes_async.stores.contract import Position
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import reset as reset_module
from axes_async.tasks.drain import drain_batch
from axes_async.tasks.expire import expire
from axes_async.tasks.reset import check_arguments, count, reset
from axes_async.tasks.sync import needs_sync, sync_store
from tests.actions import failure, request_from, success
from tests.tasks.agreement import in_store_and_rows

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def lock(username: str = "alice", address: str = "192.0.2.1", *, times: int = 3) -> None:
    for _ in range(times):
        failure(username, address)


def out_of_reach(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store answer nothing that a worker asks of it."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise StoreUnavailable("away")

    for name in ("read", "key", "push", "invalidate", "_told"):
        monkeypatch.setattr(RedisStore, name, refuse)


@pytest.fixture
def unlocked() -> Iterator[list[tuple[list[str], str | None, str | None]]]:
    """Return the lockouts that ``user_unlocked`` has told of."""
    told: list[tuple[list[str], str | None, str | None]] = []

    def note(parameters: list[str], username: str | None, ip_address: str | None, **rest: Any) -> None:
        told.append((parameters, username, ip_address))

    signals.user_unlocked.connect(note)
    yield told
    signals.user_unlocked.disconnect(note)


@pytest.fixture(autouse=True)
def _commits(request: pytest.FixtureRequest) -> None:
    """Have what waits for a commit done at once, as the transaction around a test has none."""
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(transaction, "on_commit", lambda call, using=None, robust=False: call())


@pytest.mark.parametrize(
    "arguments", [{"ip": "192.0.2.1"}, {"username": "ALICE"}, {"username": "alice", "ip": "192.0.2.1"}, {}], ids=str
)
@pytest.mark.parametrize("parameters", [["ip_address"], ["username"], [["username", "ip_address"]]], ids=str)
def test_reset_lifts_the_lockout(any_store: str, settings: Any, parameters: Any, arguments: dict[str, str]) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = parameters
    lock()
    assert not success()
    assert reset(**arguments) == 1
    assert success()
    assert [failure() for _ in range(4)] == [True, True, True, False]


def test_reset_takes_its_share_from_a_counter_that_others_count_in(drain: Drain, redis_store: RedisStore) -> None:
    failure("alice")
    failure("alice")
    failure("bob")
    assert reset(username="alice") == 1
    stored, rows = in_store_and_rows(redis_store)
    assert list(stored.values()) == list(rows.values()) == [1]
    assert AccessAttempt.objects.get().username == "bob"


def test_reset_of_a_row_takes_its_failures_from_every_counter(
    drain: Drain, redis_store: RedisStore, settings: Any
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
    failure("alice", "192.0.2.1")
    failure("alice", "192.0.2.2")
    failure("bob", "192.0.2.1")
    drain()
    key = AccessAttempt.objects.get(username="alice", ip_address="192.0.2.1").key
    assert reset(rows=[key]) == 1
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert sorted(rows.values()) == [1, 1, 1, 1]


def test_reset_tells_once_of_each_lockout_it_lifts(settings: Any, unlocked: list[Any]) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username"]
    lock("alice", "192.0.2.1")
    failure("bob", "192.0.2.2")
    reset(username="alice")
    assert sorted(unlocked) == [(["ip_address"], None, "192.0.2.1"), (["username"], "alice", None)]
    reset(username="alice")
    reset()
    assert len(unlocked) == 2


def test_reset_of_everything_tells_of_each_lockout(unlocked: list[Any]) -> None:
    lock("alice", "192.0.2.1")
    lock("bob", "192.0.2.2")
    failure("carol", "192.0.2.3")
    assert reset() == 3
    assert sorted(address for _, _, address in unlocked) == ["192.0.2.1", "192.0.2.2"]


def test_reset_is_recorded() -> None:
    lock()
    lock("bob", "192.0.2.2", times=1)
    reset(ip="192.0.2.1", reason="a call", by="root")
    reset(reason="all over")
    some, everything = AccessReset.objects.order_by("id").values_list(
        "scope", "username", "ip_address", "attempts", "counters", "by", "reason"
    )
    assert some == ("both", None, "192.0.2.1", 1, 1, "root", "a call")
    assert everything == ("all", None, None, 1, 1, "", "all over")


def test_count_tells_what_a_reset_would_remove() -> None:
    lock()
    failure("alice", "192.0.2.2")
    assert count(ip="192.0.2.1") == 1
    assert count(username="alice") == count() == 2
    assert count(username="bob", ip="192.0.2.1") == 0
    assert count(username="bob", ip="192.0.2.1", ip_or_username=True) == 1


@pytest.mark.parametrize("arguments", [{"ip": ""}, {"ip": "somewhere"}, {"username": ""}, {"username": " "}], ids=str)
def test_arguments_that_name_nobody_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"IP address|empty"):
        check_arguments(**arguments)
    with pytest.raises(ValueError, match=r"IP address|empty"):
        reset(**arguments)


def test_failures_after_a_reset_count(drain: Drain, redis_store: RedisStore) -> None:
    lock()
    reset(ip="192.0.2.1")
    failure()
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert list(stored.values()) == list(rows.values()) == [1]
    assert AccessAttempt.objects.get().failures_since_start == 1


# A reset of everything.


def test_reset_of_everything_walks_no_keys(redis_store: RedisStore, valkey: redis.Redis) -> None:
    asked = []
    for number in (5, 60):
        for address in range(number):
            failure(address=f"192.0.2.{address}")
        while drain_batch(redis_store):
            pass
        before = valkey.info("stats")["total_commands_processed"]
        reset()
        asked.append(valkey.info("stats")["total_commands_processed"] - before)
    assert asked[0] == asked[1]


def test_reset_of_everything_leaves_reservations(redis_store: RedisStore) -> None:
    failure()
    request = request_from("192.0.2.1")
    assert guard.reserve(request, {"username": "alice"}) is not None
    generation = redis_store.key().generation
    assert reset() == 1
    assert redis_store.key().void == generation
    guard.fail(request, {"username": "alice"})
    drain_batch(redis_store)
    stored, rows = in_store_and_rows(redis_store)
    assert list(stored.values()) == list(rows.values()) == [1]


def test_events_before_a_reset_of_everything_are_logged_and_count_nothing(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where they came between the last look at the outbox and the reset."""
    late: list[bool] = []
    push = RedisStore.push

    def after_one_more(self: RedisStore, *args: Any, **options: Any) -> str:
        late.append(failure("late", "192.0.2.9"))
        return push(self, *args, **options)

    monkeypatch.setattr(RedisStore, "push", after_one_more)
    lock()
    assert reset() == 1
    while drain_batch(redis_store):
        pass
    assert late == [True]
    assert AccessFailureLog.objects.filter(username="late").count() == 1
    assert not AccessAttempt.objects.exists()
    assert in_store_and_rows(redis_store) == ({}, {})


def test_reset_of_everything_asks_the_database_as_often_for_many_counters_as_for_few(drain: Drain) -> None:
    asked = []
    for number in (20, 120):
        for address in range(number):
            failure(address=f"198.51.100.{address}")
        drain()
        with CaptureQueriesContext(connection) as queries:
            assert reset() == number
        asked.append(len(queries))
    assert asked[0] == asked[1]


def test_many_rows_are_left_to_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(reset_module, "AT_ONCE", 0)
    monkeypatch.setattr(reset_module.publisher, "publish", lambda name, **options: told.append(name) or True)
    lock()
    assert reset() == 1
    assert told[-1] == "axes_async.expire"
    assert success()
    assert count() == 0, "what is yet to be deleted is there no more"
    assert reset() == 0


# A store that is away.


@pytest.mark.parametrize("setting", ["deny", "allow"])
def test_store_away_is_told_unless_the_database_may_decide(
    redis_store: RedisStore, settings: Any, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    settings.AXES_ON_STORE_FAILURE = setting
    lock()
    out_of_reach(redis_store, monkeypatch)
    with pytest.raises(StoreUnavailable):
        reset()
    assert not AccessReset.objects.exists()


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [("ip_address", {"ip": "192.0.2.1"}), ("username", {"username": "alice"}), ("username", {})],
    ids=str,
)
@pytest.mark.parametrize("written", [True, False], ids=["written", "in the outbox"])
def test_reset_without_the_store_holds_when_it_is_back(
    redis_store: RedisStore, settings: Any, parameter: str, arguments: dict[str, str], written: bool
) -> None:
    settings.AXES_LOCKOUT_PARAMETERS = [parameter]
    lock()
    failure("bob", "192.0.2.2")
    if written:
        drain_batch(redis_store)
    with pytest.MonkeyPatch.context() as away:
        out_of_reach(redis_store, away)
        reset(**arguments)
        assert StoreState.objects.get().mode == StoreState.DATABASE
        assert success()
    assert needs_sync(redis_store)
    assert sync_store(redis_store)
    assert success()
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert AccessFailureLog.objects.count() == 4
    assert list(rows.values()) == ([1] if arguments else []), "bob's"


def test_reset_while_the_database_decides(redis_store: RedisStore, drain: Drain) -> None:
    redis_store.invalidate(redis_store.key().generation + 1)
    lock()
    assert StoreState.objects.get().mode == StoreState.DATABASE
    assert reset(ip="192.0.2.1") == 1
    assert redis_store.key().status == "ok", "a reset ends with a sync"
    assert success()
    lock()
    drain()
    stored, rows = in_store_and_rows(redis_store)
    assert list(stored.values()) == list(rows.values()) == [3]


def test_reset_whose_store_falls_silent_before_the_sync_is_carried_out_by_the_next(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch, drain: Drain
) -> None:
    lock()
    with monkeypatch.context() as broken:

        def silent(*args: Any, **options: Any) -> str:
            raise StoreUnavailable("silent")

        broken.setattr(RedisStore, "push", silent)
        with pytest.raises(StoreUnavailable, match="The next sync does it"):
            reset(ip="192.0.2.1")
    assert AttemptCounter.objects.get().dirty
    drain()
    assert not AttemptCounter.objects.filter(dirty=True).exists()
    assert success()


def test_reset_goes_through_though_events_keep_coming(redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each push finds one more event of the counter behind it, until that is locked."""
    push, comes = RedisStore.push, iter(range(1000))

    def after_one_more(self: RedisStore, generation: int, position: Position, counters: Any, **options: Any) -> str:
        failure(f"other{next(comes)}", "192.0.2.1")
        return push(self, generation, position, counters, **options)

    monkeypatch.setattr(RedisStore, "push", after_one_more)
    failure("alice")
    failure("alice")
    reset(username="alice")
    while drain_batch(redis_store):
        pass
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert not AttemptCounter.objects.filter(dirty=True).exists()


def test_reset_finds_a_lockout_that_was_prolonged(settings: Any, unlocked: list[Any]) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(minutes=10)
    settings.AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = True
    lock(times=5)
    assert reset(ip="192.0.2.1") == 1
    assert len(unlocked) == 1
    assert success()


@pytest.mark.parametrize("finish", ["drain", "expire"])
def test_reset_of_all_that_dies_between_store_and_rows_is_finished(
    redis_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch, finish: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*args: Any, **options: Any) -> Any:
        raise Killed

    lock()
    drain()
    with monkeypatch.context() as broken:
        broken.setattr(reset_module, "void_all", kill)
        with pytest.raises(Killed):
            reset()
    assert AccessAttempt.objects.exists()
    drain() if finish == "drain" else expire()
    assert not AccessAttempt.objects.exists()
    stored, rows = in_store_and_rows(redis_store)
    assert stored == rows
    assert not any(rows.values())
    assert AccessReset.objects.get().reason


def test_reset_of_all_that_is_only_on_its_way_is_not_done_again(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain saw the mark, and has the writer lock only after the reset."""
    drained = reset_module._drained

    def late(store: Any, work: Any) -> int:
        StoreState.objects.update(reset_all_pending=False)
        return drained(store, work)

    monkeypatch.setattr(reset_module, "_drained", late)
    lock()
    StoreState.objects.update(reset_all_pending=True)
    reset_module.mend(redis_store)
    assert AccessAttempt.objects.exists()
    assert not AccessReset.objects.exists()
    assert not success()
