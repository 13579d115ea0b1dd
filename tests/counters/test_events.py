"""Events: their ids, their wire form, and which blocked attempts are worth one."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes_async.counters.events import AttemptEvent, CounterState, Kind, new_id, parameter_bits, untouched, worth_a_row
from axes_async.counters.rules import PARAMETERS, Counter, Parameter, Rule, counters_for, digest_of
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict

NOW = 1_790_000_000_000
NUMBERS = st.integers(0, 2**53)
ROW_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SUBSETS = st.sets(st.sampled_from(PARAMETERS)).map(lambda names: tuple(name for name in PARAMETERS if name in names))
STATES = st.builds(
    CounterState,
    digest=st.text(max_size=9).map(lambda text: digest_of([("username", text)])),
    parameters=SUBSETS,
    epoch=NUMBERS,
    failures=NUMBERS,
    lifted=NUMBERS,
    expires_at=NUMBERS,
    limit=NUMBERS,
    cleared=st.booleans(),
).filter(lambda state: state.expires_at != state.epoch or not state.epoch)
EVENTS = st.builds(
    AttemptEvent,
    kind=st.sampled_from(Kind),
    id=st.integers(0, 2**48 - 1).map(new_id),
    username=st.none() | ROW_TEXT,
    ip_address=st.none() | st.ip_addresses().map(str),
    user_agent=ROW_TEXT,
    http_accept=ROW_TEXT,
    path_info=ROW_TEXT,
    extra=st.dictionaries(ROW_TEXT, ROW_TEXT | st.lists(ROW_TEXT, max_size=3), max_size=3),
    repeats=st.integers(1, 2**53),
    counters=st.lists(STATES, max_size=4).map(tuple),
)


def state(**changes: Any) -> CounterState:
    plain: dict[str, Any] = {
        "digest": "d" * 22, "parameters": ("username",), "epoch": NOW, "failures": 3, "lifted": 0, "expires_at": 0,
        "limit": 3,
    }  # fmt: skip
    return CounterState(**{**plain, **changes})


@given(EVENTS)
def test_an_event_arrives_as_it_left(event: AttemptEvent) -> None:
    assert AttemptEvent.parse(event.body(), event.outcome()) == event
    assert AttemptEvent.parse(event.body().encode(), event.outcome()) == event


@given(STATES)
def test_the_state_of_a_counter_arrives_as_it_left(state: CounterState) -> None:
    assert CounterState.parse(state.text()) == state


@pytest.mark.parametrize(
    ("body", "outcome"),
    [("", "1"), ("{}", "1"), ("[]", "1"), ("null", "1"), ('["failed"]', "1"), ('["x","AZ","",null,"","",""]', "1"),
     ('["failed","i",null,null,"","",""]', "x"), ('["failed","i",null,null,"","",""]', "1|digest:1")],
)  # fmt: skip
def test_what_is_no_event_is_refused(body: str, outcome: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AttemptEvent.parse(body, outcome)


@given(st.integers(0, 2**48 - 1))
def test_an_id_is_a_uuid_of_version_7_that_holds_its_time(now: int) -> None:
    text = new_id(now)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, parsed.hex) == (7, uuid.RFC_4122, text)
    assert AttemptEvent(kind=Kind.FAILED, id=text).time == now


def test_ids_of_one_millisecond_differ_and_later_ones_sort_behind() -> None:
    ids = {new_id(NOW) for _ in range(1000)}
    assert len(ids) == 1000
    assert max(ids) < new_id(NOW + 1)


def test_each_set_of_parameters_has_bits_of_its_own() -> None:
    assert [parameter_bits([name]) for name in PARAMETERS] == [1, 2, 4]
    assert parameter_bits(PARAMETERS) == 7


@pytest.mark.parametrize(
    ("changes", "standing", "locked"),
    [
        ({}, 3, True),
        ({"failures": 2}, 2, False),
        ({"lifted": 1}, 2, False),
        ({"failures": 5, "lifted": 2}, 3, True),
        ({"lifted": 9}, 0, False),
        ({"cleared": True}, 0, False),
        ({"limit": 0, "failures": 100}, 100, False),
        ({"failures": 0}, 0, False),
    ],
)
def test_what_still_counts_decides_whether_a_counter_is_locked(
    changes: dict[str, Any], standing: int, locked: bool
) -> None:
    assert (state(**changes).standing, state(**changes).locked) == (standing, locked)


@pytest.mark.parametrize(
    ("kind", "failures", "locked"),
    [(Kind.FAILED, 3, True), (Kind.FAILED, 2, False), (Kind.BLOCKED, 0, True), (Kind.LOGGED_IN, 2, False)],
)
def test_an_event_knows_whether_it_met_or_set_a_lockout(kind: Kind, failures: int, locked: bool) -> None:
    event = AttemptEvent(kind=kind, id=new_id(NOW)).seen([state(failures=failures)])
    assert event.locked is locked


def test_a_counter_that_counted_nothing_stands_at_none() -> None:
    (counter,) = counters_for([Rule(parameters=("username",), limit=3, cooloff=None)], {"username": "alice"})
    assert (untouched(counter).digest, untouched(counter).standing, untouched(counter).limit) == (counter.digest, 0, 3)


def test_blocked_attempts_are_recorded_one_to_ten_and_then_at_each_doubling() -> None:
    recorded = [number for number in range(1, 1000) if worth_a_row(number)]
    assert recorded == [*range(1, 11), 20, 40, 80, 160, 320, 640]


def test_a_flood_of_a_million_has_fewer_than_forty_rows() -> None:
    assert sum(map(worth_a_row, range(1, 1_000_001))) < 40


@pytest.mark.parametrize("parameters", [("username",), ("ip_address", "username")])
def test_the_script_records_the_same_blocked_attempts(
    redis_store: RedisStore, parameters: tuple[Parameter, ...]
) -> None:
    rule = Rule(parameters=parameters, limit=1, cooloff=None)
    counters: tuple[Counter, ...] = counters_for([rule], {"username": "alice", "ip_address": "203.0.113.7"})
    failed = AttemptEvent(kind=Kind.FAILED, id=new_id(NOW), username="alice")
    redis_store.fail("t" * 16, counters, (), failed, now=NOW, lease=1000, extend=False)
    for _ in range(200):
        blocked = AttemptEvent(kind=Kind.BLOCKED, id=new_id(NOW), username="alice")
        outcome = redis_store.reserve("u" * 16, counters, blocked, now=NOW, lease=1000, extend=False)
        assert outcome.verdict is Verdict.LOCKED
    events = [event for _, event in redis_store.read("0-0", 1000) if isinstance(event, AttemptEvent)]
    assert [event.kind for event in events[:2]] == [Kind.FAILED, Kind.BLOCKED]
    assert [event.repeats for event in events[1:]] == [number for number in range(1, 201) if worth_a_row(number)]


@given(STATES, st.integers(1, 10**9), st.integers(0, 5), st.booleans())
def test_the_lockout_of_a_tier_and_the_ends_of_a_window_arrive(
    state: CounterState, lasts: int, count: int, alike: bool
) -> None:
    """Of ends that differ, the last one; of ends that are the same, as many as count."""
    state = replace(state, epoch=10**12, expires_at=10**12 + lasts, failures=count, lifted=0, cleared=False)
    locked = replace(state, locked_until=state.epoch + lasts)
    assert CounterState.parse(locked.text()) == locked
    ends = tuple(state.expires_at - (0 if alike else place) for place in reversed(range(count)))
    told = CounterState.parse(replace(state, ends=ends).text())
    assert told.ends == (ends if alike else ends[-1:])
