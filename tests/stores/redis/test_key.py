"""The key: a store that may lack counters of our database does no step, and one command of a sync completes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from axes_async.counters.events import Kind
from axes_async.errors import StoreIncomplete
from axes_async.stores.contract import Position, StoreKey
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind
from tests import servers
from tests.stores.places import NAMESPACE, completed
from tests.stores.steps import Steps, Time


@pytest.fixture
def steps(lone: RedisStore, time: Time) -> Steps:
    return Steps(lone, time)


def everything() -> dict[str, Any]:
    with redis.Redis.from_url(servers.valkey_url()) as raw:
        return {key.decode(): raw.dump(key) for key in raw.scan_iter()}


def every_step(steps: Steps) -> list[Callable[[], object]]:
    counter, event = steps.counter(), steps.event(Kind.LOGGED_OUT)
    return [
        lambda: steps.reserve("a"),
        lambda: steps.fail("a"),
        lambda: steps.succeed("a"),
        lambda: steps.store.release("a", [counter]),
        lambda: steps.store.peek([counter]),
        lambda: steps.store.states([counter]),
        lambda: steps.store.do(Step(StepKind.RECORD, event=event)),
    ]


def test_unknown_store_does_no_step(unknown: RedisStore, time: Time) -> None:
    for step in every_step(Steps(unknown, time)):
        with pytest.raises(StoreIncomplete):
            step()
    assert everything() == {}


def test_invalidated_store_does_no_step_and_changes_nothing(steps: Steps, lone: RedisStore) -> None:
    steps.fail("a")
    lone.invalidate(2)
    before = everything()
    for step in every_step(steps):
        with pytest.raises(StoreIncomplete):
            step()
    assert everything() == before


def test_key_of_a_flushed_store_is_absent(unknown: RedisStore) -> None:
    assert unknown.key() == StoreKey()


def test_invalidate_loses_what_was_absent_or_lost_and_else_is_stale(unknown: RedisStore) -> None:
    assert unknown.invalidate(1) == StoreKey("lost", 1, -1)
    assert unknown.invalidate(2) == StoreKey("lost", 2, -1)
    assert unknown.complete(2, 0)
    assert unknown.key() == StoreKey("ok", 2, 1)
    assert unknown.invalidate(3) == StoreKey("stale", 3, 1)
    assert unknown.invalidate(4) == StoreKey("stale", 4, 1)


def test_invalidate_leaves_a_key_of_its_generation_or_a_later_one(lone: RedisStore) -> None:
    assert lone.invalidate(1) == StoreKey("ok", 1, 0)
    assert lone.invalidate(0) == StoreKey("ok", 1, 0)
    lone.invalidate(5)
    assert lone.invalidate(4) == StoreKey("stale", 5, 0)


def test_complete_takes_its_own_generation_alone(lone: RedisStore) -> None:
    assert not lone.complete(1, 0), "it is complete already"
    lone.invalidate(3)
    assert not lone.complete(2, 0)
    assert not lone.complete(4, 0)
    assert lone.complete(3, 0)
    assert lone.key() == StoreKey("ok", 3, 0)


def test_process_that_knows_no_generation_is_told(lone: RedisStore, time: Time) -> None:
    other = RedisStore(lone.client, namespace=NAMESPACE)
    assert other.generation == 0
    assert Steps(other, time).fail("a").failures == (1,)
    assert other.generation == 1
    other.close()


def test_step_of_an_older_generation_is_sent_again_and_done_once(steps: Steps, lone: RedisStore) -> None:
    steps.fail("a")
    assert lone.push(1, lone.key().last, []) == "ok"
    assert steps.fail("b").failures == (2,)
    assert lone.generation == 2
    assert [str(position) for position, _ in lone.read(Position(), 10)] == ["1-0", "2-0"]


def test_step_that_may_have_been_done_asks_the_database_in_a_new_generation(steps: Steps, lone: RedisStore) -> None:
    steps.reserve("a")
    lone.push(1, lone.key().last, [])
    event = steps.event(Kind.FAILED)
    with pytest.raises(StoreIncomplete):
        lone.do(Step(StepKind.FAIL, "a", [steps.counter()], event=event, again=True))
    assert lone.generation == 1, "the database compares it with its own"
    with pytest.raises(StoreIncomplete):
        lone.do(Step(StepKind.SUCCEED, "a", [steps.counter()], event=event, again=True))
    assert steps.failures() == [0]


def test_command_of_an_older_generation_that_arrives_late_is_void(
    steps: Steps, lone: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[bytes] = []

    def keep(command: bytes) -> bytes:
        late.append(command)
        return b"0|0|0|0|0|0"

    lone.generation = 1
    with monkeypatch.context() as patch:
        patch.setattr(lone, "call", keep)
        steps.fail("late")
    lone.push(1, lone.key().last, [])
    assert lone.call(late[0]) == b"generation 2"
    lone.invalidate(3)
    assert lone.call(late[0]) == b"incomplete"
    assert lone.read(Position(), 10) == []


def test_failure_is_counted_once_if_it_is_sent_again(steps: Steps, lone: RedisStore) -> None:
    steps.reserve("a")
    event = steps.event(Kind.FAILED)
    for _ in range(3):
        result = lone.do(Step(StepKind.FAIL, "a", [steps.counter()], event=event, again=True))
        assert result.failures == (1,)
    assert len(steps.events()) == 1


def test_failure_that_was_sent_again_still_tells_of_the_lockout(steps: Steps, lone: RedisStore) -> None:
    for token in "ab":
        steps.fail(token)
    steps.reserve("c")
    event = steps.event(Kind.FAILED)
    results = [
        lone.do(Step(StepKind.FAIL, "c", [steps.counter()], event=event, again=again)) for again in (False, True)
    ]
    assert [result.verdict for result in results] == [Verdict.LOCKED] * 2
    assert [result.newly_locked for result in results] == [True, False]


def test_login_is_recorded_once_if_it_is_sent_again(steps: Steps, lone: RedisStore) -> None:
    steps.fail("before")
    steps.reserve("a")
    event = steps.event(Kind.LOGGED_IN)
    for found in ((1,), (0,)):
        counters = [steps.counter()]
        result = lone.do(Step(StepKind.SUCCEED, "a", counters, event=event, clear=counters, again=True))
        assert result.failures == found
    assert [event.kind for event in steps.events()] == [Kind.FAILED, Kind.LOGGED_IN]


def test_stores_of_two_databases_know_nothing_of_each_other(steps: Steps, lone: RedisStore, time: Time) -> None:
    other = completed(RedisStore(lone.client, namespace=f"{NAMESPACE}:other"))
    for token in "abc":
        steps.fail(token)
    assert Steps(other, time).reserve("a").verdict is Verdict.ALLOWED
    other.close()
