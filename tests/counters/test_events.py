"""Events: their ids, their wire form, and which blocked attempts are worth one."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axes_async.counters.events import (
    AttemptEvent,
    CounterChange,
    Kind,
    new_id,
    parameter_bits,
    parameters_of,
    worth_a_row,
)
from axes_async.counters.rules import PARAMETERS, digest_of

NOW = 1_790_000_000_000
NUMBERS = st.integers(0, 2**53)
ROW_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SUBSETS = st.sets(st.sampled_from(PARAMETERS), min_size=1).map(
    lambda names: tuple(name for name in PARAMETERS if name in names)
)
CHANGES = st.builds(
    CounterChange,
    digest=st.text(max_size=9).map(lambda text: digest_of([("username", text)])),
    parameters=SUBSETS,
    limit=NUMBERS,
    counted=st.booleans(),
    cleared=st.booleans(),
    locked=st.booleans(),
    prolonged=st.booleans(),
    expires_at=NUMBERS,
    locked_until=NUMBERS,
    end=NUMBERS,
)
EVENTS = st.builds(
    AttemptEvent,
    kind=st.sampled_from(Kind),
    id=st.integers(0, 2**48 - 1).map(new_id),
    username=st.none() | ROW_TEXT,
    ip_address=st.none() | st.ip_addresses().map(str),
    user_agent=ROW_TEXT,
    http_accept=ROW_TEXT,
    path_info=ROW_TEXT,
    extra=st.dictionaries(ROW_TEXT, ROW_TEXT, max_size=3),
    repeats=NUMBERS,
    at=NUMBERS,
    changes=st.lists(CHANGES, max_size=4).map(tuple),
)


def change(*, locked: bool = False) -> CounterChange:
    return CounterChange(digest="d" * 22, parameters=("username",), limit=3, counted=True, locked=locked)


@given(EVENTS)
def test_an_event_arrives_as_it_left(event: AttemptEvent) -> None:
    assert AttemptEvent.parse(event.wire()) == event
    assert AttemptEvent.parse(event.wire().encode()) == event


@given(CHANGES)
def test_a_change_arrives_as_it_left(change: CounterChange) -> None:
    assert CounterChange.parse(change.text()) == change


def test_a_change_says_nothing_of_what_most_have_not() -> None:
    assert change().text() == f"{'d' * 22}:2:1:3:0"


@pytest.mark.parametrize(
    "wire",
    ["", "0|0 ", "0|0 {}", "0|0 []", "0|0 null", '0|0 ["failed"]', '0|0 ["x","AZ","",null,"","",""]',
     'x ["failed","i",null,null,"","",""]', '0|0|digest:1 ["failed","i",null,null,"","",""]',
     '0|0 ["failed","AZ",null,null,"","",""]', '0|0 ["failed",1,null,null,"","",""]', "[" * 100_000],
)  # fmt: skip
def test_what_is_no_event_is_refused(wire: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AttemptEvent.parse(wire)


def test_a_part_of_another_type_is_refused() -> None:
    outcome, _, body = AttemptEvent(kind=Kind.FAILED, id=new_id(NOW)).wire().partition(" ")
    parts = json.loads(body)
    for place, wrong in ((2, 7), (3, ["a"]), (4, None), (5, {}), (6, 1)):
        with pytest.raises(ValueError, match="no event"):
            AttemptEvent.parse(f"{outcome} {json.dumps([*parts[:place], wrong, *parts[place + 1 :]])}")


def test_a_line_of_a_log_shows_no_character_of_a_name() -> None:
    line = AttemptEvent(kind=Kind.FAILED, id=new_id(NOW), username="a\u202eb\n").line()
    assert line.isascii()
    assert line.isprintable()


@given(st.integers(0, 2**48 - 1))
def test_an_id_is_a_uuid_of_version_7_that_holds_its_time(now: int) -> None:
    text = new_id(now)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant, parsed.hex) == (7, uuid.RFC_4122, text)
    assert AttemptEvent(kind=Kind.FAILED, id=text).time == now


def test_the_time_of_an_event_is_that_of_the_step_once_it_is_done() -> None:
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(NOW))
    assert event.applied([change()], at=NOW + 7).time == NOW + 7


def test_ids_of_one_millisecond_differ_and_later_ones_sort_behind() -> None:
    ids = {new_id(NOW) for _ in range(1000)}
    assert len(ids) == 1000
    assert max(ids) < new_id(NOW + 1)


@given(SUBSETS)
def test_each_set_of_parameters_has_bits_of_its_own(parameters: tuple[str, ...]) -> None:
    assert parameters_of(parameter_bits(parameters)) == parameters  # type: ignore[arg-type]
    assert [parameter_bits([name]) for name in PARAMETERS] == [1, 2, 4]


@pytest.mark.parametrize(
    ("kind", "locked"), [(Kind.FAILED, True), (Kind.FAILED, False), (Kind.LOGGED_IN, False), (Kind.BLOCKED, True)]
)
def test_an_event_knows_whether_it_met_or_set_a_lockout(kind: Kind, locked: bool) -> None:
    event = AttemptEvent(kind=kind, id=new_id(NOW)).applied([change(locked=locked)], at=NOW)
    assert event.locked is locked
    assert AttemptEvent(kind=kind, id=new_id(NOW)).locked is (kind is Kind.BLOCKED)


def test_blocked_attempts_are_recorded_one_to_ten_and_then_at_each_doubling() -> None:
    recorded = [number for number in range(1, 1000) if worth_a_row(number)]
    assert recorded == [*range(1, 11), 20, 40, 80, 160, 320, 640]


def test_a_flood_of_a_million_has_fewer_than_forty_rows() -> None:
    assert sum(map(worth_a_row, range(1, 1_000_001))) < 40
