"""The store on counter rows: who decides, what is applied once, what is kept in the rows, and what never waits."""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from axes_async import clock
from axes_async.clock import as_datetime
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, LockoutTier, Parameter, Rule, counters_for
from axes_async.counters.state import CounterState
from axes_async.errors import StoreBusy, StoreReturned, StoreUnavailable
from axes_async.models import AccessFailureLog, AttemptCounter, OutboxEvent, StoreState
from axes_async.stores import autonomous
from axes_async.stores.database import mode
from axes_async.stores.database.rows import reservations_of, saved_of
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.results import PERMANENT, StepResult, Verdict
from axes_async.stores.step import Step, StepKind
from tests.stores.patience import take_all_the_time
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database]

NOW = 1_800_000_000_000
LEASE = 30_000
SQLITE = connection.vendor == "sqlite"


def counter_of(address: str = "192.0.2.1", *, limit: int = 3, cooloff: float | None = 60, **more: Any) -> Counter:
    rule = Rule(parameters=("ip_address",), limit=limit, cooloff=cooloff, **more)
    (counter,) = counters_for([rule], {"ip_address": address})
    return counter


def named(username: str, *, limit: int = 3) -> Counter:
    rule = Rule(parameters=("username",), limit=limit, cooloff=60)
    values: dict[Parameter, str | None] = {"username": username}
    (counter,) = counters_for([rule], values)
    return counter


class Steps:
    """A store with what a test does not care about filled in."""

    def __init__(self, store: DatabaseStore, counter: Counter | None = None) -> None:
        self.store, self.counter, self.now = store, counter or counter_of(), NOW

    def event(self, kind: Kind) -> AttemptEvent:
        return AttemptEvent(kind=kind, id=new_id(self.now), username="alice", ip_address="192.0.2.1")

    def reserve(self, token: str, *counters: Counter, lease: int = LEASE, **options: Any) -> StepResult:
        event = self.event(Kind.BLOCKED)
        options = {"extend": False, **options}
        return self.store.do(
            Step(StepKind.RESERVE, token, counters or [self.counter], event=event, lease=lease, **options)
        )

    def fail(self, token: str, *counters: Counter, event: AttemptEvent | None = None, **options: Any) -> StepResult:
        event = event or self.event(Kind.FAILED)
        options = {"release": [], "extend": False, **options}
        return self.store.do(Step(StepKind.FAIL, token, counters or [self.counter], event=event, **options))

    def succeed(self, token: str, *, clear: bool = False, always: bool = True) -> StepResult:
        cleared, event = [self.counter] if clear else [], self.event(Kind.LOGGED_IN)
        return self.store.do(Step(StepKind.SUCCEED, token, [self.counter], event=event, clear=cleared, always=always))

    def failures(self) -> list[int]:
        return [state.failures for state in self.store.states([self.counter])]

    def row(self) -> AttemptCounter:
        return AttemptCounter.objects.get(digest=self.counter.digest)


@pytest.fixture
def store_key() -> SimpleNamespace:
    """Return what stands for the store that is away: the generation that this process knows."""
    return SimpleNamespace(generation=3, sent_in=0)


@pytest.fixture
def steps(store_key: Any, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Return the steps of a process whose store is away, at a set time."""
    StoreState.objects.update_or_create(pk=1, defaults={"generation": 3})
    steps = Steps(DatabaseStore(replaces=store_key))
    monkeypatch.setattr(clock, "fixed_ms", lambda: steps.now)
    return steps


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Return the steps of a site whose only store is the database, at a set time."""
    steps = Steps(DatabaseStore(standalone=True))
    monkeypatch.setattr(clock, "fixed_ms", lambda: steps.now)
    return steps


def state() -> StoreState:
    return StoreState.objects.get(pk=1)


def events() -> list[AttemptEvent]:
    return [AttemptEvent.parse(row.wire) for row in OutboxEvent.objects.order_by("id")]


# Who decides


def test_first_step_lets_the_database_decide(steps: Steps) -> None:
    assert steps.reserve("a").verdict is Verdict.ALLOWED
    assert (state().mode, state().generation) == (StoreState.DATABASE, 3)


def test_unanswered_failure_goes_to_the_store_again_only_after_a_sync(steps: Steps) -> None:
    StoreState.objects.update(generation=4, synced=3)
    steps.fail("a", again=True)
    assert state().mode == StoreState.DATABASE, "a push drains nothing, so the store may have counted it"
    StoreState.objects.update(generation=4, synced=4, mode=StoreState.STORE)
    with pytest.raises(StoreReturned):
        steps.fail("b", again=True)


def test_newer_generation_sends_the_caller_back_to_the_store(steps: Steps, store_key: Any) -> None:
    StoreState.objects.update(generation=4)
    calls: list[Callable[[], Any]] = [
        lambda: steps.reserve("a"),
        lambda: steps.fail("a"),
        lambda: steps.succeed("a"),
        lambda: steps.store.release("a", [steps.counter]),
        lambda: steps.store.peek([steps.counter]),
    ]
    for call in calls:
        with pytest.raises(StoreReturned) as caught:
            call()
        assert caught.value.generation == 4
    assert state().mode == StoreState.STORE
    assert not AttemptCounter.objects.exists()
    store_key.generation = 4
    assert steps.fail("a").failures == (1,)
    assert state().mode == StoreState.DATABASE


def test_database_decides_whatever_generation_is_known(steps: Steps) -> None:
    StoreState.objects.update(generation=9, mode=StoreState.DATABASE)
    assert steps.reserve("a").verdict is Verdict.ALLOWED


def test_looking_and_releasing_change_no_mode(steps: Steps) -> None:
    assert steps.store.peek([steps.counter]) == StepResult(failures=(0,))
    steps.store.release("a", [steps.counter])
    steps.store.do(Step(StepKind.RECORD, event=steps.event(Kind.LOGGED_OUT)))
    assert state().mode == StoreState.STORE


def test_state_row_made_by_the_first_step() -> None:
    StoreState.objects.all().delete()
    Steps(DatabaseStore(standalone=True)).reserve("a")
    assert state().generation == 0


def test_only_store_of_a_site_looks_at_no_mode_and_marks_nothing_dirty(alone: Steps) -> None:
    StoreState.objects.update_or_create(pk=1, defaults={"generation": 7})
    alone.fail("a")
    assert state().mode == StoreState.STORE
    assert not alone.row().dirty


def test_stand_in_for_a_cache_marks_rows_dirty_and_knows_no_generation(steps: Steps) -> None:
    StoreState.objects.update(generation=9)
    store = DatabaseStore()
    Steps(store).fail("a")
    assert state().mode == StoreState.STORE
    assert AttemptCounter.objects.get().dirty


# Applied once


def test_failure_applied_before_ends_its_reservation_only(steps: Steps) -> None:
    event = steps.event(Kind.FAILED)
    steps.reserve("a")
    assert steps.fail("a", event=event).failures == (1,)
    steps.reserve("a")
    assert steps.fail("a", event=event).failures == (1,)
    assert reservations_of(steps.row(), NOW) == {}
    assert OutboxEvent.objects.count() == 1


def test_failure_that_has_a_log_row_is_applied_whoever_decides(steps: Steps) -> None:
    event = steps.event(Kind.FAILED)
    AccessFailureLog.objects.create(event_id=event.id, attempt_time=as_datetime(NOW))
    StoreState.objects.update(generation=4)
    assert steps.fail("a", event=event).failures == (0,)
    assert state().mode == StoreState.STORE
    assert not OutboxEvent.objects.exists()


def test_reservation_of_the_lost_store_is_none_here_and_the_failure_counts(steps: Steps) -> None:
    assert steps.fail("held in the store", again=True).failures == (1,)


def test_again_on_the_only_store_counts_once(alone: Steps) -> None:
    event = alone.event(Kind.FAILED)
    alone.reserve("a")
    assert [alone.fail("a", event=event, again=True).failures for _ in range(2)] == [(1,), (1,)]
    alone.fail("never reserved", again=True)
    assert alone.failures() == [1]


def test_event_of_a_logout_is_recorded_once(steps: Steps) -> None:
    event = steps.event(Kind.LOGGED_OUT)
    assert [steps.store.do(Step(StepKind.RECORD, event=event)).event for _ in range(2)] == [None, None]
    assert [(one.id, one.at) for one in events()] == [(event.id, NOW)]


# Rows


def test_events_go_to_the_outbox_table_with_their_changes(steps: Steps) -> None:
    results = [steps.fail(token) for token in "abc"]
    assert [result.newly_locked for result in results] == [False, False, True]
    assert all(result.event is None for result in results)
    changes = [change for event in events() for change in event.changes]
    assert [(change.counted, change.locked, change.limit) for change in changes] == [
        (True, False, 3),
        (True, False, 3),
        (True, True, 3),
    ]
    assert {change.expires_at for change in changes} == {NOW + 60_000}


def test_row_names_its_client_and_replays_to_the_same_state(steps: Steps) -> None:
    steps.fail("a")
    steps.now += 1000
    steps.fail("b")
    row, replayed = steps.row(), CounterState()
    assert (row.ip_address, row.username, row.limit, row.generation, row.dirty) == ("192.0.2.1", None, 3, 3, True)
    assert row.changed_at == as_datetime(NOW + 1000)
    for event in events():
        replayed.replay(event.changes[0], event.at)
    assert saved_of(row, steps.now).state == replayed == steps.store.states([steps.counter])[0]


@pytest.mark.parametrize(
    "rule",
    [
        {"rolling": True},
        {"tiers": (LockoutTier(2, timedelta(seconds=5)), LockoutTier(3, timedelta(seconds=60)))},
        {"cooloff": None},
    ],
    ids=["rolling", "tiers", "until a reset"],
)
def test_every_kind_of_rule_survives_its_row(steps: Steps, rule: dict[str, Any]) -> None:
    steps.counter = counter_of(**rule)
    replayed = CounterState()
    for token in "abcd":
        steps.fail(token)
        steps.now += 4000
    for event in events():
        replayed.replay(event.changes[0], event.at)
    (kept,) = steps.store.states([steps.counter])
    replayed.expire(steps.now, steps.counter.rule)
    assert kept == replayed
    assert kept.failures >= 3


def test_failure_elsewhere_gives_back_without_making_a_row(steps: Steps) -> None:
    other = counter_of("192.0.2.2")
    steps.reserve("a")
    steps.fail("a", other, release=[steps.counter, counter_of("192.0.2.3")])
    assert reservations_of(steps.row(), NOW) == {}
    assert AttemptCounter.objects.count() == 2


def test_reservation_ends_with_its_lease(steps: Steps) -> None:
    assert [steps.reserve(token).verdict for token in "abcd"] == [Verdict.ALLOWED] * 3 + [Verdict.BUSY]
    assert reservations_of(steps.row(), NOW) == dict.fromkeys("abc", NOW + LEASE)
    steps.now += LEASE - 1
    assert steps.reserve("d").verdict is Verdict.BUSY
    steps.now += 1
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert list(reservations_of(steps.row(), steps.now)) == ["d"]


def test_token_may_be_any_text(steps: Steps) -> None:
    for token in ["a b=c", "100 %", "~", "é"]:
        steps.counter = counter_of(token)
        steps.reserve(token)
        steps.fail("another")
        assert reservations_of(steps.row(), NOW) == {token: NOW + LEASE}


def test_reserving_again_renews_the_lease(steps: Steps) -> None:
    steps.reserve("a")
    steps.now += 1000
    steps.reserve("a")
    assert reservations_of(steps.row(), steps.now) == {"a": NOW + 1000 + LEASE}


def test_reserving_and_releasing_mark_the_row_dirty(steps: Steps) -> None:
    steps.reserve("a")
    assert steps.row().dirty
    AttemptCounter.objects.update(dirty=False)
    steps.store.release("a", [steps.counter])
    assert steps.row().dirty


def test_checking_without_a_lease_leaves_no_row(steps: Steps) -> None:
    assert steps.reserve("a", lease=0).verdict is Verdict.ALLOWED
    assert not AttemptCounter.objects.exists()


def test_login_clears_and_leaves_locked_counters_alone(steps: Steps) -> None:
    steps.fail("a")
    assert steps.succeed("b", clear=True).failures == (1,)
    assert steps.failures() == [0]
    assert events()[-1].changes[0].cleared
    for token in "abc":
        steps.fail(token)
    steps.succeed("d", clear=True, always=False)
    assert steps.reserve("e").verdict is Verdict.LOCKED


def test_prolonged_lockout_told_once_a_second_by_all_processes(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    other = DatabaseStore(replaces=steps.store.replaces)
    for store in [steps.store, other] * 15:
        steps.now += 100
        steps.store = store
        assert steps.reserve("x", extend=True).locked_until == steps.now + 60_000
    assert [event.at - NOW for event in events() if event.changes and event.kind is Kind.BLOCKED] == [100, 1100, 2100]
    assert reservations_of(steps.row(), steps.now) == saved_of(steps.row(), steps.now).reservations == {}


def test_blocked_attempts_are_counted_across_steps(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    assert [steps.reserve("x").repeats for _ in range(21)] == [*range(1, 11), *[0] * 9, 20, 0]
    assert steps.row().blocked == 21
    steps.now += 60_000
    steps.fail("a")
    assert steps.row().blocked == 0


def test_lockout_until_a_reset_is_told_as_permanent(steps: Steps) -> None:
    steps.counter = counter_of(limit=1, cooloff=None)
    assert steps.fail("a").locked_until == PERMANENT


# Generations


def test_counter_gets_the_generation_in_which_it_begins_to_count(steps: Steps) -> None:
    steps.reserve("a")
    assert steps.row().generation == 0
    steps.fail("a")
    StoreState.objects.update(generation=5)
    steps.fail("b")
    assert steps.row().generation == 3
    steps.now += 60_000
    steps.fail("c")
    assert steps.row().generation == 5


def test_counter_of_a_voided_generation_counts_nothing_and_keeps_its_reservations(steps: Steps) -> None:
    for token in "ab":
        steps.fail(token)
    steps.reserve("c")
    StoreState.objects.update(generation=4, void_generation=3)
    assert steps.failures() == [0]
    assert steps.fail("d").failures == (1,)
    row = steps.row()
    assert (row.failures, row.generation, list(reservations_of(row, NOW))) == (1, 4, ["c"])


# What was heard of a store that was lost


def heard(steps: Steps, failures: int, *, at: int = NOW) -> StepResult:
    return steps.reserve("x", known={steps.counter.digest: (failures, at)})


def test_larger_of_row_and_known_failures_decides(steps: Steps) -> None:
    steps.fail("a")
    assert heard(steps, 2).failures == (2,)
    assert heard(steps, 3).verdict is Verdict.LOCKED
    assert heard(steps, 3).locked_until == NOW + 60_000
    assert steps.failures() == [1]
    for token in "bc":
        steps.fail(token)
    assert heard(steps, 2).failures == (3,)


def test_known_failures_leave_room_for_the_rest_alone(steps: Steps) -> None:
    known = {steps.counter.digest: (2, NOW)}
    verdicts = [steps.reserve(token, known=known).verdict for token in "ab"]
    assert verdicts == [Verdict.ALLOWED, Verdict.BUSY]


def test_known_failures_expire(steps: Steps) -> None:
    steps.now += 59_999
    assert heard(steps, 3).verdict is Verdict.LOCKED
    steps.now += 1
    assert heard(steps, 3).verdict is Verdict.ALLOWED


def test_failures_that_expired_in_the_row_are_not_known_again(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    steps.now += 60_000
    assert heard(steps, 3, at=NOW + 30_000).verdict is Verdict.ALLOWED
    assert heard(steps, 3, at=NOW + 60_000).verdict is Verdict.LOCKED


@pytest.mark.parametrize("reset", ["some", "all"])
def test_reset_forgives_what_was_known_before_it(steps: Steps, reset: str) -> None:
    steps.reserve("a")
    moment = as_datetime(NOW + 1)
    if reset == "some":
        AttemptCounter.objects.update(forgiven_at=moment)
    else:
        StoreState.objects.update(voided_at=moment)
    steps.now += 10
    assert heard(steps, 3, at=NOW).verdict is Verdict.ALLOWED
    assert heard(steps, 3, at=NOW + 5).verdict is Verdict.LOCKED


@pytest.mark.parametrize(
    ("rule", "failures", "until"),
    [
        ({"rolling": True}, 3, NOW + 60_000),
        ({"tiers": (LockoutTier(2, timedelta(seconds=5)), LockoutTier(4, timedelta(seconds=50)))}, 2, NOW + 5000),
        ({"tiers": (LockoutTier(2, timedelta(seconds=5)), LockoutTier(4, timedelta(seconds=50)))}, 5, NOW + 50_000),
        ({"cooloff": None}, 3, PERMANENT),
    ],
    ids=["rolling", "first tier", "beyond the last tier", "until a reset"],
)
def test_known_failures_lock_by_every_kind_of_rule(
    steps: Steps, rule: dict[str, Any], failures: int, until: int
) -> None:
    steps.counter = counter_of(**rule)
    assert heard(steps, failures).locked_until == until


def test_known_failures_between_two_tiers_lock_nothing(steps: Steps) -> None:
    steps.counter = counter_of(tiers=(LockoutTier(2, timedelta(seconds=5)), LockoutTier(4, timedelta(seconds=50))))
    assert heard(steps, 3).verdict is Verdict.ALLOWED


def test_known_failures_lock_where_the_row_is_of_a_rolling_window_that_the_rule_had(steps: Steps) -> None:
    steps.counter, plain = counter_of(rolling=True), steps.counter
    steps.fail("a")
    steps.counter = plain
    assert heard(steps, 3).locked_until == NOW + 60_000


# Nudges


def test_nudge_at_most_once_a_second(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [steps.fail(token).nudge for token in "ab"] == [True, False]
    steps.store._nudged_at -= 1
    assert steps.fail("c").nudge
    assert not steps.reserve("d", lease=0).nudge


def test_nudge_with_every_event_where_it_is_asked_for() -> None:
    steps = Steps(DatabaseStore(standalone=True, nudge_always=True))
    assert [steps.fail(token).nudge for token in "ab"] == [True, True]


# Transactions of the caller


def test_failure_counted_in_a_request_that_is_rolled_back(steps: Steps) -> None:
    if SQLITE:
        pytest.skip("A step shares the transaction of its caller on SQLite.")
    with transaction.atomic():
        steps.reserve("a")
        steps.fail("a")
        transaction.set_rollback(True)
    assert steps.failures() == [1]
    assert OutboxEvent.objects.count() == 1


def test_step_in_a_request_that_the_database_has_given_up_on(steps: Steps) -> None:
    if SQLITE:
        pytest.skip("A step shares the transaction of its caller on SQLite.")
    with transaction.atomic():
        transaction.set_rollback(True)
        assert steps.fail("a").failures == (1,)


@pytest.mark.usefixtures("_patient")
def test_40_requests_in_transactions_at_once_are_all_done(alone: Steps) -> None:
    if SQLITE:
        pytest.skip("A step shares the transaction of its caller on SQLite.")

    def request(number: int) -> int:
        with transaction.atomic():
            connection.cursor().execute("SELECT 1")
            return alone.fail(f"{number}", counter_of(f"192.0.2.{number}")).failures[0]

    assert at_once(40, request) == [1] * 40


@pytest.mark.django_db(transaction=False)
def test_step_in_a_test_case_is_part_of_it(alone: Steps) -> None:
    alone.fail("a")
    with transaction.atomic():
        assert alone.fail("b", alone.counter, counter_of("192.0.2.9")).failures == (2, 1)
        transaction.set_rollback(True)
    assert alone.failures() == [1]


def test_pool_that_is_busy_refuses_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autonomous, "THREADS", 1)
    monkeypatch.setattr(autonomous, "PATIENCE", 0.01)
    monkeypatch.setattr(autonomous, "WAIT", 0.01)
    end, pool = threading.Event(), autonomous._Pool()
    with pytest.raises(StoreUnavailable, match="has not answered"):
        pool.run(lambda: end.wait(PATIENCE))
    with pytest.raises(StoreBusy):
        pool.run(lambda: None)
    end.set()
    monkeypatch.setattr(autonomous, "PATIENCE", PATIENCE)
    monkeypatch.setattr(autonomous, "WAIT", PATIENCE)
    assert pool.run(lambda: "done") == "done"


def test_pool_that_may_start_no_thread_refuses_and_goes_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = autonomous._Pool()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StoreBusy):
            pool.run(lambda: None)
    assert pool.run(lambda: "done") == "done"


def test_thread_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autonomous, "IDLE", 0.01)
    pool = autonomous._Pool()
    for _ in range(2):
        thread = pool.run(threading.current_thread)
        thread.join(PATIENCE)
        assert (pool.threads, pool.idle) == (0, 0)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL")
def test_caller_at_repeatable_read_sees_what_others_have_counted(alone: Steps) -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM axes_async_attemptcounter")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(in_thread(lambda: alone.fail("other"))).result()
        assert alone.fail("a").failures == (2,)
        assert alone.store.peek([alone.counter]).failures == (2,)


@pytest.mark.usefixtures("_patient")
@pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL")
def test_default_isolation_of_the_site_makes_no_step_fail(alone: Steps) -> None:
    def fail(number: int) -> StepResult:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_isolation = 'repeatable read'")
        return alone.fail(f"{number}", counter_of(limit=0))

    assert sorted(result.failures[0] for result in at_once(10, fail)) == list(range(1, 11))


# Waiting


def at_once(threads: int, call: Callable[[int], Any]) -> list[Any]:
    start = Barrier(threads)

    def run(number: int) -> Any:
        start.wait()
        return in_thread(lambda: call(number))()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        try:
            return call()
        finally:
            connections.close_all()

    return run


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all threads get their turn."""
    take_all_the_time(monkeypatch.setattr)


needs_row_locks = pytest.mark.skipif(SQLITE, reason="SQLite has one lock")


@pytest.fixture
def hold() -> Iterator[Callable[[Counter], None]]:
    """Return a function that holds the row of a counter from another connection, until the end of the test."""
    end, threads = threading.Event(), []

    def hold(counter: Counter) -> None:
        held = threading.Event()

        def keep() -> None:
            with transaction.atomic():
                list(AttemptCounter.objects.select_for_update().filter(digest=counter.digest))
                held.set()
                end.wait(PATIENCE)

        thread = threading.Thread(target=in_thread(keep))
        thread.start()
        threads.append(thread)
        assert held.wait(PATIENCE)

    yield hold
    end.set()
    for thread in threads:
        thread.join()


@needs_row_locks
def test_strangers_do_not_wait_for_each_other(steps: Steps, hold: Callable[[Counter], None]) -> None:
    steps.fail("a")
    stranger = counter_of("198.51.100.1")
    hold(steps.counter)  # To the end of the test.
    assert steps.reserve("b", stranger).verdict is Verdict.ALLOWED
    assert steps.fail("b", stranger).failures == (1,)


@needs_row_locks
def test_lock_that_cannot_be_had_in_time_is_a_store_that_is_away(steps: Steps, hold: Callable[[Counter], None]) -> None:
    steps.fail("a")
    hold(steps.counter)
    with pytest.raises(StoreUnavailable):
        steps.fail("b")


@needs_row_locks
def test_sync_that_holds_the_state_is_waited_for_in_bounds(steps: Steps) -> None:
    with transaction.atomic():
        mode.exclusive_state("default")
        with ThreadPoolExecutor(1) as pool, pytest.raises(StoreUnavailable):
            pool.submit(in_thread(lambda: steps.fail("a"))).result()


@pytest.mark.usefixtures("_patient")
@needs_row_locks
@pytest.mark.parametrize("threads", [20])
def test_one_counter_is_exact_with_20_threads(alone: Steps, threads: int) -> None:
    counter = counter_of(limit=5)

    def guess(number: int) -> Verdict:
        result = alone.reserve(f"{number}", counter)
        if result.verdict is Verdict.ALLOWED:
            alone.fail(f"{number}", counter)
        return result.verdict

    verdicts = Tally(at_once(threads, guess))
    assert verdicts[Verdict.ALLOWED] == 5
    assert alone.store.states([counter])[0].failures == 5


@pytest.mark.usefixtures("_patient")
@needs_row_locks
def test_all_failures_of_20_threads_are_counted_on_crossing_counters(alone: Steps) -> None:
    address, names = counter_of(limit=0), [named(f"user{number}", limit=0) for number in range(4)]

    def fail(number: int) -> StepResult:
        counters = [address, names[number % 4], names[(number + 1) % 4]]
        return alone.fail(f"{number}", *(counters if number % 2 else counters[::-1]))

    at_once(20, fail)
    assert [one.failures for one in alone.store.states([address, *names])] == [20, 10, 10, 10, 10]
    assert OutboxEvent.objects.count() == 20


@pytest.mark.usefixtures("_patient")
@needs_row_locks
def test_one_event_sent_twice_at_once_counts_once(alone: Steps) -> None:
    event = alone.event(Kind.FAILED)
    at_once(8, lambda number: alone.fail("a", event=event))
    assert alone.failures() == [1]
    assert OutboxEvent.objects.count() == 1


# Trouble


@pytest.mark.usefixtures("_patient")
@needs_row_locks
def test_mode_is_changed_though_a_sync_holds_the_state_for_a_moment(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = threading.Event(), mode.state_and_clock

    def asking(*args: Any) -> Any:
        asked.set()
        return read(*args)

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            mode.exclusive_state("default")
            monkeypatch.setattr(mode, "state_and_clock", asking)
            step = pool.submit(in_thread(lambda: steps.fail("a")))
            assert asked.wait(PATIENCE)
        assert step.result().failures == (1,)


def test_lost_connection_gets_another_try(alone: Steps) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("of PostgreSQL")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]

    def kill() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])

    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_thread(kill)).result()
    assert alone.fail("a").failures == (1,)


def test_database_error_is_a_store_that_is_away(alone: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(using: str) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(mode, "shared_state_and_clock", broken)
    with pytest.raises(StoreUnavailable, match="disk full"):
        alone.fail("a")


def test_probe_takes_the_lock_of_a_step(alone: Steps) -> None:
    alone.store.probe()


def test_time_is_that_of_the_database(alone: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "fixed_ms", None)
    host = clock.now_ms()
    assert abs(mode.database_now("default") - host) < 5000
    alone.fail("a")
    assert abs(events()[0].at - host) < 5000


# Statements


def statements(call: Callable[[], Any]) -> int:
    with CaptureQueriesContext(connection) as context:
        call()
    return len([one for one in context.captured_queries if not one["sql"].startswith(("BEGIN", "COMMIT"))])


@pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL")
def test_statements_of_a_step(steps: Steps) -> None:
    steps.reserve("to make the rows")
    assert statements(lambda: steps.reserve("a")) == 4  # bounds, state, counter, update
    assert statements(lambda: steps.fail("a")) == 6  # and: applied, outbox
    assert statements(lambda: steps.succeed("a", always=False)) == 4  # bounds, state, counter, applied
    assert statements(lambda: steps.store.release("a", [steps.counter])) == 3
    assert statements(lambda: steps.store.peek([steps.counter])) == 3  # bounds, state, counter
    assert statements(lambda: steps.store.do(Step(StepKind.RECORD, event=steps.event(Kind.LOGGED_OUT)))) == 2
    assert statements(lambda: steps.reserve("a", counter_of("192.0.2.9"))) == 6  # and: insert, counter
