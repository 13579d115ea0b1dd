"""The outbox: each event once, in order, within its cap; what cannot be written is set aside and put back."""

from __future__ import annotations

from contextlib import closing

import pytest
import redis

from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.errors import StoreIncomplete
from axes_async.stores.contract import OutboxSize, Position
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests.stores.places import NAMESPACE
from tests.stores.steps import Steps, Time


@pytest.fixture
def steps(lone: RedisStore, time: Time) -> Steps:
    return Steps(lone, time)


def test_events_are_read_behind_a_position(steps: Steps, lone: RedisStore) -> None:
    for token in "abcde":
        steps.fail(token)
    positions = [position for position, _ in lone.read(Position(), 10)]
    assert positions == [Position(1, number) for number in range(5)]
    assert [position for position, _ in lone.read(positions[1], 2)] == positions[2:4]
    assert lone.read(positions[-1], 10) == []


def test_flushed_outbox_gives_no_position_away_again(steps: Steps, lone: RedisStore, plain: redis.Redis) -> None:
    steps.fail("a")
    plain.flushall()
    lone.invalidate(2)
    lone.complete(2, 0)
    steps.fail("a")
    assert [position for position, _ in lone.read(Position(1, 0), 10)] == [Position(2, 0)]


def test_trim_drops_up_to_a_position(steps: Steps, lone: RedisStore) -> None:
    for token in "abc":
        steps.fail(token)
    lone.trim(Position(1, 1))
    assert [position for position, _ in lone.read(Position(), 10)] == [Position(1, 2)]
    lone.trim(Position(1, 2))
    assert lone.read(Position(), 10) == []
    assert lone.key().last == Position(1, 2), "an empty outbox still knows"
    steps.fail("d")
    assert lone.key().last == Position(1, 3)


def test_first_event_asks_for_a_nudge_until_a_drain_rearms(steps: Steps, lone: RedisStore) -> None:
    assert [steps.fail(token).nudge for token in "abc"] == [True, False, False]
    assert not lone.rearm(Position(1, 1)), "an event follows"
    assert not steps.fail("d").nudge
    assert lone.rearm(lone.key().last)
    assert [steps.succeed(token).nudge for token in "ef"] == [True, False]


def test_rearm_may_pause_while_a_drain_is_on_its_way(steps: Steps, lone: RedisStore, plain: redis.Redis) -> None:
    steps.fail("a")
    assert lone.rearm(lone.key().last, pause=30_000)
    assert not steps.fail("b").nudge
    assert 0 < plain.pttl(lone.nudged_key) <= 30_000


def test_nudge_that_brings_no_drain_is_repeated(steps: Steps, lone: RedisStore, plain: redis.Redis) -> None:
    steps.fail("a")
    assert 0 < plain.pttl(lone.nudged_key) <= 5_000


def test_full_outbox_counts_what_it_has_no_room_for(lone: RedisStore, time: Time) -> None:
    with closing(RedisStore(lone.client, namespace=NAMESPACE, outbox_max=2)) as store:
        steps = Steps(store, time)
        assert [steps.fail(token).failures for token in "abc"] == [(1,), (2,), (3,)]
        assert steps.fail("d").locked_until
        assert store.size() == OutboxSize(2, oldest=time.now, overflow=2)
        assert store.forget_overflow() == 2
        assert store.forget_overflow() == 0
        store.trim(store.key().last)
        assert store.size() == OutboxSize(0)


def test_outbox_of_large_events_is_bounded_in_bytes(lone: RedisStore, time: Time, plain: redis.Redis) -> None:
    bound, sent = 1_500_000, 3000
    with closing(RedisStore(lone.client, namespace=NAMESPACE, outbox_max_bytes=bound)) as store:
        for number in range(sent):
            event = AttemptEvent(kind=Kind.LOGGED_OUT, id=new_id(time.now), username=f"{number}", user_agent="a" * 900)
            store.do(Step(StepKind.RECORD, event=event))
        size = store.size()
        assert 1000 < size.events < sent - 1000
        assert size.overflow == sent - size.events
        assert plain.memory_usage(store.outbox_key, samples=0) < 1.1 * bound


def test_size_tells_when_the_first_event_happened(steps: Steps, lone: RedisStore) -> None:
    start = steps.time.now
    for token in "abc":
        steps.fail(token)
        steps.pass_(1000)
    assert lone.size() == OutboxSize(3, oldest=start)
    lone.trim(Position(1, 0))
    assert lone.size() == OutboxSize(2, oldest=start + 1000)


def test_entry_that_is_no_event_is_read_as_it_is(steps: Steps, lone: RedisStore, plain: redis.Redis) -> None:
    plain.xadd(lone.outbox_key, {"e": "0|0 no event"}, id="1-1")
    plain.xadd(lone.outbox_key, {"other": "x"}, id="1-2")
    assert [entry for _, entry in lone.read(Position(), 10)] == [b"0|0 no event", b"[b'other', b'x']"]
    assert lone.size() == OutboxSize(2, oldest=0)


def test_entry_that_is_set_aside_can_be_put_back_once(steps: Steps, lone: RedisStore) -> None:
    steps.fail("a")
    ((_, event),) = lone.read(Position(), 10)
    assert isinstance(event, AttemptEvent)
    lone.set_aside(event.wire().encode(), "disk full")
    lone.trim(lone.key().last)
    (letter,) = lone.dead_letters("0-0", 10)
    assert (letter.entry, letter.error) == (event.wire().encode(), "disk full")
    assert lone.size().dead_letters == 1
    lone.push(1, lone.key().last, [])
    assert lone.put_back(letter)
    assert not lone.put_back(letter)
    assert lone.read(Position(), 10) == [(Position(2, 0), event)]
    assert lone.dead_letters("0-0", 10) == []


def test_entry_stays_aside_while_the_store_is_incomplete(steps: Steps, lone: RedisStore) -> None:
    lone.set_aside(b"entry", "no event")
    (letter,) = lone.dead_letters("0-0", 10)
    lone.invalidate(2)
    with pytest.raises(StoreIncomplete):
        lone.put_back(letter)
    assert lone.dead_letters("0-0", 10) == [letter]


def test_dead_letters_are_read_behind_a_position(lone: RedisStore) -> None:
    for number in range(3):
        lone.set_aside(b"%d" % number, "no event")
    first = lone.dead_letters("0-0", 1)[0]
    assert [letter.entry for letter in lone.dead_letters(first.position, 10)] == [b"1", b"2"]


def test_outbox_is_read_and_trimmed_whatever_the_key_says(steps: Steps, lone: RedisStore) -> None:
    steps.fail("a")
    lone.invalidate(2)
    assert len(lone.read(Position(), 10)) == 1
    lone.trim(lone.key().last)
    assert lone.read(Position(), 10) == []
    assert lone.rearm(lone.key().last)


def test_event_of_the_step_carries_the_kind_that_was_given(steps: Steps, lone: RedisStore) -> None:
    event = steps.event(Kind.LOGGED_OUT)
    lone.do(Step(StepKind.RECORD, event=event))
    ((_, kept),) = lone.read(Position(), 10)
    assert kept == event.applied((), at=steps.time.now)
