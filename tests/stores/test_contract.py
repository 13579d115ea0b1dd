"""One contract, every store: what each step of a store does, wherever the counters are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import caches

from axes_async.counters.events import AttemptEvent, Kind
from axes_async.stores.contract import Store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.results import PERMANENT, SeenCounter, Verdict
from axes_async.stores.step import Step, StepKind
from tests.stores.places import PLACES, Place
from tests.stores.steps import LEASE, Steps, Time


def test_reservations_are_given_up_to_the_limit_and_no_further(steps: Steps) -> None:
    assert [steps.reserve(token).verdict for token in "abcd"] == [Verdict.ALLOWED] * 3 + [Verdict.BUSY]


def test_failures_and_open_reservations_count_together(steps: Steps) -> None:
    steps.fail("a")
    assert [steps.reserve(token).verdict for token in "bcd"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_busy_takes_no_reservation_on_any_counter(steps: Steps) -> None:
    full, other = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, full)
    assert steps.reserve("d", other, full).verdict is Verdict.BUSY
    assert [steps.reserve(token, other).verdict for token in "efg"] == [Verdict.ALLOWED] * 3


def test_locked_anywhere_wins_over_busy_anywhere(steps: Steps) -> None:
    full, locked = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, full)
        steps.fail(token, locked)
    assert steps.reserve("d", full, locked).verdict is Verdict.LOCKED


def test_reserving_again_takes_no_second_place(steps: Steps) -> None:
    for _ in range(5):
        assert steps.reserve("a").verdict is Verdict.ALLOWED
    assert [steps.reserve(token).verdict for token in "bcd"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_reserving_again_renews_the_lease(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.pass_(LEASE // 2)
    steps.reserve("a")
    steps.pass_(LEASE - LEASE // 2)
    assert [steps.reserve(token).verdict for token in "def"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_a_lease_of_zero_looks_and_takes_no_place(steps: Steps) -> None:
    for _ in range(5):
        assert steps.reserve("looks", lease=0).verdict is Verdict.ALLOWED
    assert [steps.reserve(token).verdict for token in "abc"] == [Verdict.ALLOWED] * 3
    assert steps.reserve("looks", lease=0).verdict is Verdict.BUSY


def test_a_released_reservation_makes_room_and_counts_nothing(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.store.release("a", [steps.counter()])
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert steps.failures() == [0]
    assert steps.events() == []


def test_a_reservation_ends_with_its_lease(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.pass_(LEASE - 1)
    assert steps.reserve("d").verdict is Verdict.BUSY
    steps.pass_(1)
    assert steps.reserve("d").verdict is Verdict.ALLOWED


def test_the_failure_that_reaches_the_limit_locks_and_says_so_once(steps: Steps) -> None:
    results = [steps.fail(token) for token in "abcd"]
    assert [result.newly_locked for result in results] == [False, False, True, False]
    assert [result.verdict for result in results] == [Verdict.ALLOWED] * 2 + [Verdict.LOCKED] * 2
    assert [result.locked_until for result in results] == [0, 0, PERMANENT, PERMANENT]
    assert [result.limit for result in results] == [0, 0, 3, 3]


def test_a_locked_counter_denies_and_records_in_the_same_step(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    assert steps.reserve("d").verdict is Verdict.LOCKED
    assert [event.kind for event in steps.events()] == [Kind.FAILED] * 3 + [Kind.BLOCKED]


def test_a_failure_turns_its_reservation_into_a_count(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    for token in "abc":
        steps.fail(token)
    assert steps.failures() == [3]
    assert steps.reserve("d").verdict is Verdict.LOCKED


def test_a_failure_without_a_reservation_counts(steps: Steps) -> None:
    steps.fail("never reserved")
    assert steps.failures() == [1]


def test_a_failure_gives_back_what_was_reserved_under_other_values(steps: Steps) -> None:
    first, then = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, first)
    assert steps.fail("a", then, release=[first]).failures == (1,)
    assert steps.failures(first, then) == [0, 1]
    assert steps.reserve("d", first).verdict is Verdict.ALLOWED


def test_failures_on_a_locked_counter_leave_it_at_its_limit(steps: Steps) -> None:
    for token in "abcdef":
        steps.fail(token)
    assert steps.failures() == [3]
    assert len(steps.events()) == 6


def test_an_event_tells_what_the_step_did_to_each_counter(steps: Steps) -> None:
    for token in "abcd":
        steps.fail(token)
    seen = [(change.counted, change.locked, change.limit) for event in steps.events() for change in event.changes]
    assert seen == [(True, False, 3), (True, False, 3), (True, True, 3), (False, True, 3)]
    assert {change.digest for event in steps.events() for change in event.changes} == {steps.counter().digest}
    assert [event.locked for event in steps.events()] == [False, False, True, True]


def test_an_event_has_the_time_of_the_step(steps: Steps) -> None:
    steps.fail("a")
    steps.pass_(1234)
    steps.fail("b")
    first, second = steps.events()
    assert (first.at, second.at) == (steps.time.now - 1234, steps.time.now)
    assert (first.username, first.ip_address) == ("alice", "192.0.2.1")


def test_the_failures_of_each_counter_are_told_in_the_order_of_the_call(steps: Steps) -> None:
    one, two = steps.counter(), steps.counter("192.0.2.2")
    steps.fail("a", two)
    assert steps.fail("b", one, two).failures == (1, 2)
    assert steps.reserve("c", two, one).failures == (2, 1)
    assert steps.store.peek([one, two]).failures == (1, 2)
    assert steps.succeed("c", two, one, clear=[one]).failures == (2, 1)
    assert steps.store.peek([one, two]).failures == (0, 2)


def test_a_success_gives_the_reservation_back_and_keeps_the_failures(steps: Steps) -> None:
    steps.fail("a")
    for token in "bc":
        steps.reserve(token)
    steps.succeed("b")
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert steps.failures() == [1]


def test_a_success_clears_what_it_is_told_to_and_tells_which(steps: Steps) -> None:
    kept, cleared = steps.counter("192.0.2.2"), steps.counter()
    steps.fail("a", kept, cleared)
    steps.reserve("b", kept, cleared)
    steps.succeed("b", kept, cleared, clear=[cleared])
    assert steps.failures(kept, cleared) == [1, 0]
    (change,) = steps.events()[-1].changes
    assert (change.cleared, change.counted, change.digest) == (True, False, cleared.digest)


def test_a_success_never_clears_a_locked_counter(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    steps.succeed("d", clear=[steps.counter()])
    assert steps.reserve("e").verdict is Verdict.LOCKED


def test_a_success_that_need_not_be_recorded_is_only_if_it_cleared(steps: Steps) -> None:
    steps.succeed("a", clear=[steps.counter()], always=False)
    assert steps.events() == []
    steps.fail("b")
    steps.succeed("c", clear=[steps.counter()], always=False)
    assert [event.kind for event in steps.events()] == [Kind.FAILED, Kind.LOGGED_IN]


def test_clearing_keeps_the_reservations_of_others(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.fail("a")
    steps.succeed("b", clear=[steps.counter()])
    steps.reserve("d")
    steps.reserve("e")
    assert steps.reserve("f").verdict is Verdict.BUSY


def test_looking_changes_nothing(steps: Steps) -> None:
    assert steps.store.peek([steps.counter()]).verdict is Verdict.ALLOWED
    for token in "abc":
        steps.fail(token)
    for _ in range(3):
        result = steps.store.peek([steps.counter()])
        assert (result.verdict, result.locked_until, result.limit) == (Verdict.LOCKED, PERMANENT, 3)
    assert len(steps.events()) == 3


def test_all_that_there_is_to_see_of_a_counter(steps: Steps) -> None:
    steps.reserve("open")
    steps.fail("a")
    steps.fail("b")
    (seen,) = steps.store.look([steps.counter()])
    assert (seen.state.failures, seen.blocked, seen.reservations) == (2, 0, 1)
    steps.fail("open")
    for token in "cd":
        steps.reserve(token)
    (seen, other) = steps.store.look([steps.counter(), steps.counter("192.0.2.2")])
    assert (seen.state.failures, seen.blocked, seen.reservations) == (3, 2, 0)
    assert other == SeenCounter()


def test_no_counters_are_no_obstacle(steps: Steps) -> None:
    event = steps.event(Kind.FAILED)
    assert steps.store.do(Step(StepKind.RESERVE, "a", [], event=event, lease=LEASE)).verdict is Verdict.ALLOWED
    assert steps.store.do(Step(StepKind.FAIL, "a", [], event=event)).failures == ()
    assert steps.store.peek([]).verdict is Verdict.ALLOWED
    assert steps.store.states([]) == []
    steps.store.release("a", [])


def test_a_recorded_event_is_kept_or_handed_back(steps: Steps) -> None:
    event = AttemptEvent(kind=Kind.LOGGED_OUT, id=steps.event(Kind.LOGGED_OUT).id, username="älice\u2028")
    result = steps.store.do(Step(StepKind.RECORD, event=event))
    (kept,) = steps.events() if result.event is None else [result.event]
    assert kept == event.applied((), at=steps.time.now)


def test_a_store_answers_a_probe(contract_store: Store) -> None:
    if not isinstance(contract_store, FailoverStore):  # It probes its primary, which may be away.
        contract_store.probe()
        contract_store.close()
        contract_store.probe()


SHARED_BY_THREADS = [place for place in PLACES if not place.marks]


@pytest.mark.parametrize("place", SHARED_BY_THREADS, ids=lambda place: place.name)
def test_of_a_hundred_threads_exactly_five_get_through(
    place: Place, request: pytest.FixtureRequest, time: Time
) -> None:
    def reserve(token: int) -> Verdict:
        try:
            return tries.reserve(f"{token}").verdict
        finally:
            caches.close_all()

    with place.open(request) as store, ThreadPoolExecutor(100) as pool:
        tries = Steps(store, time, limit=5)
        verdicts = list(pool.map(reserve, range(100)))
    assert verdicts.count(Verdict.ALLOWED) == 5
    assert verdicts.count(Verdict.BUSY) == 95
