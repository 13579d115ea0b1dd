"""One contract, every store: what each step of a store does, on Valkey, a local cache, a cache table and Memcached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import pytest
from django.core.cache import caches
from django.core.management import call_command

from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Parameter, Rule, counters_for
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import OutboxStore, Store
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import PERMANENT, Outcome, Verdict
from tests import servers

NOW = 1_800_000_000_000
LEASE = 30_000


@pytest.fixture(params=["redis", "redis by a client of the site's", "cluster", "memory", "table", "memcached"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Return each store in turn, empty."""
    if request.param.startswith("redis"):
        client = build_client(servers.valkey_url(), {}, timeout=1)
        with closing(RedisStore(client, ours=request.param == "redis")) as store:
            yield store
        client.close()
        return
    if request.param == "cluster":
        cluster = request.getfixturevalue("cluster")
        cluster.empty()
        with closing(cluster.client()) as client:
            yield RedisStore(client)
        return
    if request.param == "table":
        request.getfixturevalue("db")
        call_command("createcachetable", verbosity=0)
    alias = request.param
    if alias == "memcached":
        request.getfixturevalue("memcached")
    yield CacheStore(lambda: caches[alias], shared=alias != "memory")


class Steps:
    """A store with the arguments that a test does not care about filled in, and the events it made."""

    def __init__(self, store: Store, *, limit: int = 3, cooloff: float | None = None) -> None:
        """Use one rule on the address, with ``limit`` and ``cooloff`` (seconds)."""
        self.store, self.limit, self.cooloff = store, limit, cooloff
        self.delivered: list[AttemptEvent] = []

    def counter(self, address: str = "192.0.2.1", *more: str) -> Counter:
        values: dict[Parameter, str | None] = {"ip_address": address, "username": more[0] if more else None}
        parameters: tuple[Parameter, ...] = ("ip_address", "username") if more else ("ip_address",)
        rule = Rule(parameters=parameters, limit=self.limit, cooloff=self.cooloff)
        (counter,) = counters_for([rule], values)
        return counter

    def reserve(self, token: str, *counters: Counter, now: int = NOW, extend: bool = False) -> Outcome:
        event = AttemptEvent(kind=Kind.BLOCKED, id=new_id(now))
        outcome = self.store.reserve(token, counters or [self.counter()], event, now=now, lease=LEASE, extend=extend)
        return self._noted(outcome)

    def fail(
        self,
        token: str,
        *counters: Counter,
        release: Sequence[Counter] = (),
        now: int = NOW,
        extend: bool = False,
    ) -> Outcome:
        event = AttemptEvent(kind=Kind.FAILED, id=new_id(now))
        outcome = self.store.fail(
            token, counters or [self.counter()], release, event, now=now, lease=LEASE, extend=extend
        )
        return self._noted(outcome)

    def succeed(self, token: str, *, clear: Sequence[Counter] = (), now: int = NOW, always: bool = True) -> Outcome:
        event = AttemptEvent(kind=Kind.LOGGED_IN, id=new_id(now))
        outcome = self.store.succeed(token, [self.counter()], clear, event, now=now, lease=LEASE, always=always)
        return self._noted(outcome)

    def failures(self, *counters: Counter, now: int = NOW) -> list[int]:
        return [state.standing for state in self.store.states(counters or [self.counter()], now=now)]

    def events(self) -> list[AttemptEvent]:
        if isinstance(self.store, OutboxStore):
            entries = self.store.read("0-0", 1000)
            return [event for _, event in entries if isinstance(event, AttemptEvent)]
        return self.delivered

    def _noted(self, outcome: Outcome) -> Outcome:
        if outcome.event is not None:
            self.delivered.append(outcome.event)
        return outcome


@pytest.fixture
def steps(store: Store) -> Steps:
    """Return the steps of one rule: the address, limit 3, until a reset."""
    return Steps(store)


def test_reservations_are_given_up_to_the_limit_and_no_further(steps: Steps) -> None:
    assert [steps.reserve(token).verdict for token in "abcd"] == [Verdict.ALLOWED] * 3 + [Verdict.BUSY]


def test_failures_and_open_reservations_count_together(steps: Steps) -> None:
    steps.fail("a")
    assert [steps.reserve(token).verdict for token in "bcd"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_a_busy_answer_takes_no_reservation_on_any_counter(steps: Steps) -> None:
    full, other = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, full)
    assert steps.reserve("d", other, full).verdict is Verdict.BUSY
    assert [steps.reserve(token, other).verdict for token in "efg"] == [Verdict.ALLOWED] * 3


def test_reserving_again_under_the_same_token_takes_no_second_place(steps: Steps) -> None:
    for _ in range(5):
        assert steps.reserve("a").verdict is Verdict.ALLOWED
    assert steps.reserve("b").verdict is Verdict.ALLOWED
    assert steps.reserve("c").verdict is Verdict.ALLOWED
    assert steps.reserve("d").verdict is Verdict.BUSY


def test_a_released_reservation_makes_room_and_counts_nothing(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.store.release("a", [steps.counter()], now=NOW)
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert steps.failures() == [0]
    assert steps.events() == []


def test_a_reservation_ends_with_its_lease(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    assert steps.reserve("d", now=NOW + LEASE - 1).verdict is Verdict.BUSY
    assert steps.reserve("d", now=NOW + LEASE).verdict is Verdict.ALLOWED


def test_the_failure_that_reaches_the_limit_locks_and_says_so_once(steps: Steps) -> None:
    outcomes = [steps.fail(token) for token in "abcd"]
    assert [outcome.newly_locked for outcome in outcomes] == [False, False, True, False]
    assert [outcome.locked_until for outcome in outcomes] == [0, 0, PERMANENT, PERMANENT]


def test_a_locked_counter_denies_and_records_the_attempt_in_the_same_step(steps: Steps) -> None:
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


def test_a_failure_without_a_reservation_is_counted(steps: Steps) -> None:
    steps.fail("never reserved")
    assert steps.failures() == [1]


def test_a_failure_gives_back_what_was_reserved_under_other_values(steps: Steps) -> None:
    first, then = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, first)
    steps.fail("a", then, release=[first])
    assert steps.failures(first, then) == [0, 1]
    assert steps.reserve("d", first).verdict is Verdict.ALLOWED


def test_failures_on_a_locked_counter_leave_it_at_its_limit(steps: Steps) -> None:
    for token in "abcdef":
        steps.fail(token)
    assert steps.failures() == [3]
    assert len(steps.events()) == 6


def test_an_event_carries_the_counts_as_the_step_saw_them(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    seen = [(state.failures, state.locked) for event in steps.events() for state in event.counters]
    assert seen == [(1, False), (2, False), (3, True)]
    assert steps.events()[0].counters[0].digest == steps.counter().digest


def test_a_cool_off_runs_from_the_last_failure(store: Store) -> None:
    steps = Steps(store, cooloff=60)
    steps.fail("a")
    steps.fail("b", now=NOW + 50_000)
    assert steps.failures(now=NOW + 109_999) == [2]
    assert steps.failures(now=NOW + 110_000) == [0]


def test_a_lockout_ends_to_the_millisecond_and_counting_starts_over(store: Store) -> None:
    steps = Steps(store, cooloff=60)
    for token in "abc":
        outcome = steps.fail(token)
    assert outcome.locked_until == NOW + 60_000
    assert steps.reserve("d", now=NOW + 59_999).verdict is Verdict.LOCKED
    assert steps.reserve("d", now=NOW + 60_000).verdict is Verdict.ALLOWED
    steps.fail("d", now=NOW + 60_000)
    assert steps.failures(now=NOW + 60_000) == [1]


def test_a_denied_attempt_leaves_the_cool_off_alone_unless_told_to_extend_it(store: Store) -> None:
    steps = Steps(store, cooloff=60)
    for token in "abc":
        steps.fail(token)
    assert steps.reserve("d", now=NOW + 30_000).locked_until == NOW + 60_000
    assert steps.reserve("d", now=NOW + 30_000, extend=True).locked_until == NOW + 90_000
    assert steps.reserve("d", now=NOW + 89_999).verdict is Verdict.LOCKED
    assert steps.events()[-2].counters[0].expires_at == NOW + 90_000


def test_a_limit_of_zero_counts_and_never_locks(store: Store) -> None:
    steps = Steps(store, limit=0)
    for token in "abcdefgh":
        assert steps.reserve(token).verdict is Verdict.ALLOWED
        assert steps.fail(token).locked_until == 0
    assert steps.failures() == [8]


def test_one_locked_counter_of_several_is_enough_and_the_longest_lockout_is_told(store: Store) -> None:
    short, long = Steps(store, cooloff=60), Steps(store, cooloff=600)
    one, two = short.counter("192.0.2.1"), long.counter("192.0.2.2")
    for token in "abc":
        short.fail(token, one)
        long.fail(token, two)
    assert short.reserve("d", one, two).locked_until == NOW + 600_000
    assert short.reserve("d", short.counter("192.0.2.3"), one).locked_until == NOW + 60_000


def test_blocked_attempts_are_recorded_one_to_ten_and_then_at_each_doubling(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    for _ in range(100):
        steps.reserve("x")
    repeats = [event.repeats for event in steps.events() if event.kind is Kind.BLOCKED]
    assert repeats == [*range(1, 11), 20, 40, 80]


def test_a_success_gives_the_reservation_back_and_keeps_the_failures(steps: Steps) -> None:
    steps.fail("a")
    for token in "bc":
        steps.reserve(token)
    steps.succeed("b")
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert steps.failures() == [1]


def test_a_success_clears_what_it_is_told_to_and_tells_which(steps: Steps) -> None:
    steps.fail("a")
    steps.reserve("b")
    steps.succeed("b", clear=[steps.counter()])
    assert steps.failures() == [0]
    (state,) = steps.events()[-1].counters
    assert (state.cleared, state.standing) == (True, 0)


def test_a_success_never_clears_a_locked_counter(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    steps.succeed("d", clear=[steps.counter()])
    assert steps.reserve("e").verdict is Verdict.LOCKED


def test_a_success_that_need_not_be_recorded_is_only_where_it_cleared_something(steps: Steps) -> None:
    steps.succeed("a", clear=[steps.counter()], always=False)
    assert steps.events() == []
    steps.fail("b")
    steps.succeed("c", clear=[steps.counter()], always=False)
    assert [event.kind for event in steps.events()] == [Kind.FAILED, Kind.LOGGED_IN]


def test_clearing_keeps_the_places_of_attempts_that_are_being_looked_at(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.fail("a")
    steps.succeed("b", clear=[steps.counter()])
    steps.reserve("d")
    steps.reserve("e")
    assert steps.reserve("f").verdict is Verdict.BUSY


def test_looking_changes_nothing(steps: Steps) -> None:
    assert steps.store.peek([steps.counter()], now=NOW).verdict is Verdict.ALLOWED
    for token in "abc":
        steps.fail(token)
    for _ in range(3):
        outcome = steps.store.peek([steps.counter()], now=NOW)
        assert (outcome.verdict, outcome.locked_until) == (Verdict.LOCKED, PERMANENT)
    assert len(steps.events()) == 3


def test_a_lift_takes_back_what_it_names_and_doing_it_twice_changes_nothing(steps: Steps) -> None:
    for token in "ab":
        steps.fail(token)
    (state,) = steps.store.states([steps.counter()], now=NOW)
    for _ in range(2):
        steps.store.adjust([replace(state, lifted=1)], now=NOW, lease=LEASE)
    assert steps.failures() == [1]


def test_a_lift_of_everything_unlocks(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    (state,) = steps.store.states([steps.counter()], now=NOW)
    steps.store.adjust([replace(state, lifted=state.failures)], now=NOW, lease=LEASE)
    assert steps.reserve("d").verdict is Verdict.ALLOWED


def test_a_lift_of_another_life_of_the_counter_does_nothing(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    (state,) = steps.store.states([steps.counter()], now=NOW)
    steps.store.adjust([replace(state, epoch=state.epoch - 1, lifted=3)], now=NOW, lease=LEASE)
    assert steps.reserve("d").verdict is Verdict.LOCKED


def test_failures_after_a_lift_are_told_with_what_was_taken_back(steps: Steps) -> None:
    for token in "ab":
        steps.fail(token)
    (state,) = steps.store.states([steps.counter()], now=NOW)
    steps.store.adjust([replace(state, lifted=1)], now=NOW, lease=LEASE)
    steps.fail("c")
    (after,) = steps.events()[-1].counters
    assert (after.epoch, after.failures, after.lifted, after.standing) == (state.epoch, 3, 1, 2)


def test_recorded_events_are_kept_or_handed_back(steps: Steps) -> None:
    event = AttemptEvent(kind=Kind.LOGGED_OUT, id=new_id(NOW), username="alice")
    outcome = steps.store.record(event)
    kept = steps.events() if steps.store.has_outbox else [outcome.event]
    assert kept == [event]


def test_an_attempt_that_is_turned_away_is_told_which_it_is_as_often_as_it_gets_a_row(store: Store) -> None:
    steps = Steps(store)
    for number in range(3):
        steps.fail(f"{number}")
    assert [repeats for n in range(41) if (repeats := steps.reserve(f"late {n}").repeats)] == [*range(1, 11), 20, 40]


def test_attempts_are_counted_that_are_turned_away_unrecorded(store: Store) -> None:
    steps = Steps(store)
    for number in range(3):
        steps.fail(f"{number}")
    recorded = len(steps.events())
    answers = [store.reserve("late", [steps.counter()], None, now=NOW, lease=LEASE, extend=False) for _ in range(2)]
    assert [(outcome.repeats, outcome.event) for outcome in answers] == [(1, None), (2, None)]
    assert len(steps.events()) == recorded


def test_a_login_is_told_which_failures_it_found(store: Store) -> None:
    steps = Steps(store)
    assert steps.succeed("first").standing is None
    for number in range(2):
        steps.fail(f"{number}")
    digest = steps.counter().digest
    assert steps.succeed("second").standing == {digest: 2}
    assert steps.succeed("third", clear=[steps.counter()]).standing == {digest: 2}
    assert steps.succeed("fourth", clear=[steps.counter()]).standing is None
