"""Counters that are written into the store: by a sync that has taken it out of use, and between two events."""

from __future__ import annotations

import pytest
import redis

from axes_async.counters.events import AttemptEvent, Kind
from axes_async.counters.rules import Counter, Rule
from axes_async.counters.state import CounterState
from axes_async.stores.contract import Position, SavedCounter, StoreKey
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import PERMANENT, Verdict
from axes_async.stores.step import Step, StepKind
from tests.stores.steps import LEASE, Steps, Time

RULE = Rule(parameters=("ip_address",), limit=3, cooloff=None)


@pytest.fixture
def steps(lone: RedisStore, time: Time) -> Steps:
    return Steps(lone, time)


def saved(counter: Counter, failures: int, *, expires_at: int = 0) -> SavedCounter:
    state = CounterState(failures=failures, since=1 if failures else 0, expires_at=expires_at)
    return SavedCounter(digest=counter.digest, state=state)


def test_load_takes_an_invalidated_key_of_its_generation_alone(steps: Steps, lone: RedisStore) -> None:
    some = [saved(steps.counter(), 2)]
    assert not lone.load(1, some), "the store is in use"
    lone.invalidate(3)
    assert not lone.load(2, some)
    assert not lone.load(4, some)
    assert lone.load(3, some)
    lone.complete(3, 0)
    assert steps.failures() == [2]


def test_load_writes_everything_over_what_is_there(steps: Steps, lone: RedisStore, plain: redis.Redis) -> None:
    for token in "abcd":
        steps.fail(token)
    steps.reserve("e")
    lone.invalidate(2)
    ends = [steps.time.now + 1000, steps.time.now + 2000]
    state = CounterState(failures=2, since=5, expires_at=ends[1], locked_until=ends[0], ends=ends)
    lone.load(2, [SavedCounter(digest=steps.counter().digest, state=state, blocked=7)])
    lone.complete(2, 0)
    rolling = Counter(Rule(parameters=("ip_address",), limit=3, cooloff=2, rolling=True), steps.counter().digest)
    assert lone.states([rolling]) == [state]
    assert plain.hget(lone.counter_prefix + steps.counter().digest, "b") == "7"
    lone.invalidate(3)
    lone.load(3, [saved(steps.counter(), 0)])
    assert plain.hkeys(lone.counter_prefix + steps.counter().digest) == []


def test_load_that_comes_late_undoes_nothing(steps: Steps, lone: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    call = lone.call
    monkeypatch.setattr(lone, "call", lambda command, **options: (sent.append(command), call(command))[1])
    lone.invalidate(3)
    sent.clear()
    for failures in (2, 1):
        lone.load(3, [saved(steps.counter(), failures)])
    assert call(sent[0]) == 0
    lone.complete(3, 0)
    assert steps.failures() == [1]


def test_load_goes_on_counting_what_a_lockout_turns_away(steps: Steps, lone: RedisStore) -> None:
    lone.invalidate(2)
    state = CounterState(failures=3, since=5)
    lone.load(2, [SavedCounter(digest=steps.counter().digest, state=state, blocked=4)])
    lone.complete(2, 0)
    assert steps.reserve("a").repeats == 5


def test_load_keeps_open_reservations_and_adds_those_of_the_rows(steps: Steps, lone: RedisStore) -> None:
    steps.reserve("in the store")
    lone.invalidate(2)
    ends = steps.time.now + LEASE
    state = CounterState(failures=1, since=5)
    lone.load(2, [SavedCounter(digest=steps.counter().digest, state=state, reservations={"in-a-row": ends})])
    lone.complete(2, 0)
    assert steps.reserve("c").verdict is Verdict.BUSY
    steps.store.release("in-a-row", [steps.counter()])
    assert steps.reserve("c").verdict is Verdict.ALLOWED


def test_load_drops_what_was_settled_since_the_load_before(steps: Steps, lone: RedisStore) -> None:
    steps.reserve("in the store")
    lone.invalidate(2)
    ends, state = steps.time.now + LEASE, CounterState()
    for reservations in ({"one": ends, "two": ends}, {"two": ends}):
        lone.load(2, [SavedCounter(digest=steps.counter().digest, state=state, reservations=reservations)])
    lone.complete(2, 0)
    assert steps.reserve("c").verdict is Verdict.ALLOWED, "of three, one was settled"
    assert steps.reserve("d").verdict is Verdict.BUSY


def test_push_brings_back_no_reservation_that_was_settled_in_the_store(steps: Steps, lone: RedisStore) -> None:
    lone.invalidate(2)
    ends = dict.fromkeys(("one", "two", "three"), steps.time.now + LEASE)
    counter = SavedCounter(digest=steps.counter().digest, state=CounterState(), reservations=ends)
    lone.load(2, [counter])
    lone.complete(2, 0)
    lone.generation = 2
    for token in ends:
        steps.store.release(token, [steps.counter()])
    assert lone.push(2, lone.key().last, [counter]) == "ok"
    assert steps.reserve("c").verdict is Verdict.ALLOWED


def test_loaded_counter_lives_as_long_as_it_counts(steps: Steps, lone: RedisStore, plain: redis.Redis) -> None:
    lone.invalidate(2)
    now, counters = steps.time.now, [steps.counter(f"192.0.2.{number}") for number in range(4)]
    lone.load(
        2,
        [
            saved(counters[0], 1),
            saved(counters[1], 1, expires_at=now + 60_000),
            SavedCounter(digest=counters[2].digest, state=CounterState(), reservations={"a": now + 5000}),
            SavedCounter(
                digest=counters[3].digest,
                state=CounterState(failures=1, since=1, expires_at=now + 1000),
                reservations={"a": now + 5000},
            ),
        ],
    )
    lives = [plain.pttl(lone.counter_prefix + counter.digest) for counter in counters]
    assert lives[0] == -1
    assert 50_000 < lives[1] <= 60_000
    assert 3_000 < lives[2] <= 5_000
    assert 3_000 < lives[3] <= 5_000


def test_lost_store_forgets_what_was_not_loaded(steps: Steps, unknown: RedisStore, time: Time) -> None:
    old, dirty = steps.counter("192.0.2.1"), steps.counter("192.0.2.2")
    steps.fail("a", old, dirty)
    unknown.client.delete(unknown.state_key)
    assert unknown.invalidate(2).status == "lost"
    assert unknown.load(2, [saved(dirty, 2)])
    assert unknown.complete(2, 0)
    assert steps.failures(old, dirty) == [0, 2]
    assert unknown.key().void == 1
    steps.fail("b", old, dirty)
    assert steps.failures(old, dirty) == [1, 3]


def test_stale_store_keeps_what_was_not_loaded(steps: Steps, lone: RedisStore) -> None:
    kept, dirty = steps.counter("192.0.2.1"), steps.counter("192.0.2.2")
    steps.fail("a", kept, dirty)
    lone.invalidate(2)
    lone.load(2, [saved(dirty, 2)])
    lone.complete(2, 0)
    assert steps.failures(kept, dirty) == [1, 2]


def test_void_generations_count_nothing_and_keep_their_reservations(steps: Steps, lone: RedisStore) -> None:
    for token in "abc":
        steps.fail(token)
        steps.reserve(token, steps.counter("192.0.2.2"))
    lone.invalidate(2)
    lone.complete(2, 1)
    assert steps.failures() == [0]
    assert steps.reserve("d", steps.counter("192.0.2.2")).verdict is Verdict.BUSY
    assert [steps.fail(token).newly_locked for token in "def"] == [False, False, True]


def test_void_lockout_that_is_counted_anew_counts_its_blocked_attempts_anew(steps: Steps, lone: RedisStore) -> None:
    for token in "abc":
        steps.fail(token)
    assert [steps.reserve("d").repeats for _ in range(3)] == [1, 2, 3]
    lone.push(1, lone.key().last, [], void=1)
    for token in "abc":
        steps.fail(token)
    assert steps.reserve("d").repeats == 1


def test_push_writes_counters_and_begins_a_generation(steps: Steps, lone: RedisStore) -> None:
    for token in "abc":
        result = steps.fail(token)
    assert result.locked_until == PERMANENT
    steps.reserve("open", steps.counter("192.0.2.2"))
    forgiven = [saved(steps.counter(), 1), saved(steps.counter("192.0.2.2"), 2)]
    assert lone.push(1, lone.key().last, forgiven) == "ok"
    assert lone.key() == StoreKey("ok", 2, 0, Position(1, 2))
    assert steps.failures(steps.counter(), steps.counter("192.0.2.2")) == [1, 2]
    assert steps.reserve("d", steps.counter("192.0.2.2")).verdict is Verdict.BUSY, "its reservation stays"


def test_push_is_refused_unless_complete_and_of_its_generation(steps: Steps, lone: RedisStore) -> None:
    some = [saved(steps.counter(), 2)]
    assert lone.push(2, Position(), some) == "refused"
    assert lone.push(0, Position(), some) == "refused"
    lone.invalidate(2)
    assert lone.push(2, Position(), some) == "refused"
    lone.complete(2, 0)
    assert steps.failures() == [0]


def test_push_conflicts_with_an_event_of_its_counters_alone(steps: Steps, lone: RedisStore) -> None:
    steps.fail("a", steps.counter("192.0.2.1"))
    position = lone.key().last
    steps.fail("b", steps.counter("192.0.2.2"), steps.counter("192.0.2.3"))
    some = [saved(steps.counter("192.0.2.1"), 0), saved(steps.counter("192.0.2.3"), 0)]
    assert lone.push(1, position, some) == "conflict"
    assert lone.key() == StoreKey("ok", 1, 0, Position(1, 1))
    assert lone.push(1, position, some[:1]) == "ok"
    assert lone.push(2, lone.key().last, some) == "ok"


def test_push_conflicts_with_more_events_than_it_looks_at(steps: Steps, lone: RedisStore) -> None:
    for _ in range(1001):
        lone.do(Step(StepKind.RECORD, event=steps.event(Kind.LOGGED_OUT)))
    assert lone.push(1, Position(), [saved(steps.counter(), 1)]) == "conflict"
    assert lone.push(1, Position(1, 0), [saved(steps.counter(), 1)]) == "ok"


def test_push_that_arrives_after_its_events_were_trimmed_conflicts(steps: Steps, lone: RedisStore) -> None:
    steps.fail("a")
    position = lone.key().last
    steps.fail("b")
    lone.trim(lone.key().last)
    some = [saved(steps.counter(), 0)]
    assert lone.push(1, position, some) == "conflict"
    assert steps.failures() == [2]
    assert lone.push(1, lone.key().last, some) == "ok"


def test_push_of_a_void_generation_conflicts_with_nothing(steps: Steps, lone: RedisStore) -> None:
    for token in "abc":
        steps.fail(token)
    assert lone.push(1, Position(), [], void=1) == "ok"
    assert lone.key() == StoreKey("ok", 2, 1, Position(1, 2))
    assert steps.failures() == [0]
    assert lone.push(2, lone.key().last, []) == "ok"
    assert lone.key().void == 1


def test_digest_in_a_name_is_no_conflict(steps: Steps, lone: RedisStore) -> None:
    named = f"|{steps.counter().digest}:1:1:3:0"
    lone.do(
        Step(
            StepKind.RECORD,
            event=AttemptEvent(kind=Kind.LOGGED_OUT, id=steps.event(Kind.LOGGED_OUT).id, username=named),
        )
    )
    assert lone.push(1, Position(), [saved(steps.counter(), 1)]) == "ok"


def test_counters_are_loaded_in_large_portions(steps: Steps, lone: RedisStore) -> None:
    lone.invalidate(2)
    digests = [f"{number:022}" for number in range(500)]
    ends = {f"token{number}": steps.time.now + LEASE for number in range(10)}
    portion = [
        SavedCounter(digest=digest, state=CounterState(failures=2, since=1), reservations=ends) for digest in digests
    ]
    assert lone.load(2, portion)
    assert lone.complete(2, 0)
    assert {state.failures for state in lone.states([Counter(RULE, digest) for digest in digests])} == {2}
