"""The sync: whatever happened to the store, afterwards it knows what the rows know."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
import time_machine
from django.db import connection

from axes_async import guard
from axes_async.errors import StoreUnavailable
from axes_async.models import AttemptCounter, StoreState
from axes_async.stores.contract import Position
from axes_async.stores.factory import get_store
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import sync as sync_module
from axes_async.tasks.drain import drain_batch
from axes_async.tasks.reset import reset
from axes_async.tasks.sync import needs_sync, sync, sync_store
from tests.actions import failure, request_from, success
from tests.tasks.agreement import in_store_and_rows
from tests.waiting import PATIENCE

Drain = Callable[[], int]

pytestmark = [pytest.mark.django_db, pytest.mark.database]

ADDRESSES = [f"192.0.2.{number}" for number in range(10)]


def fail_everywhere(times: int = 2) -> None:
    for address in ADDRESSES:
        for _ in range(times):
            failure("alice", address)


def take_out_of_use(store: RedisStore) -> None:
    """Have the database decide, as after an outage: the store has lost nothing."""
    store.invalidate(store.key().generation + 1)
    failure("somebody", "198.51.100.1")
    assert StoreState.objects.get().mode == StoreState.DATABASE


def check_agreement(store: RedisStore) -> dict[str, int]:
    """Check that store and rows say the same; return what they say."""
    while drain_batch(store):
        pass
    stored, rows = in_store_and_rows(store)
    assert stored == rows
    state, key = StoreState.objects.get(), store.key()
    assert (key.status, state.mode) == ("ok", StoreState.STORE)
    assert key.generation >= state.generation
    assert not AttemptCounter.objects.filter(dirty=True).exists()
    return rows


def test_store_that_is_complete_needs_no_sync(redis_store: RedisStore, drain: Drain) -> None:
    failure()
    drain()
    assert not needs_sync(redis_store)
    generation = redis_store.key().generation
    assert sync()
    assert redis_store.key().generation == generation


def test_lockouts_hold_after_a_flush_and_in_the_synced_store(
    redis_store: RedisStore, valkey: redis.Redis, drain: Drain
) -> None:
    fail_everywhere(3)
    drain()
    valkey.flushdb()
    assert needs_sync(redis_store)
    assert not success("alice", ADDRESSES[0]), "by the database"
    drain()
    assert not needs_sync(redis_store)
    assert not success("alice", ADDRESSES[1]), "by the store"
    assert set(check_agreement(redis_store).values()) == {3}


def test_events_that_no_drain_has_written_are_written_before_the_store_is_complete(redis_store: RedisStore) -> None:
    fail_everywhere(3)
    redis_store.invalidate(redis_store.key().generation + 1)
    assert sync()
    assert list(check_agreement(redis_store).values()) == [3] * 10


def test_what_the_database_decided_counts_in_the_store(redis_store: RedisStore, drain: Drain) -> None:
    fail_everywhere(1)
    drain()
    take_out_of_use(redis_store)
    fail_everywhere(1)
    drain()
    assert sorted(check_agreement(redis_store).values()) == [1] + [2] * 10
    assert failure("alice", ADDRESSES[0])
    assert not failure("alice", ADDRESSES[0])


class Killed(BaseException):
    """What ends a process."""


def kill(*args: Any, **options: Any) -> Any:
    raise Killed


def test_generation_of_a_push_that_was_not_committed_is_noted_before_the_next_one(
    redis_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure()
    drain()
    AttemptCounter.objects.update(dirty=True)
    before = redis_store.key().generation
    monkeypatch.setattr(sync_module, "_clean", kill)
    for pushed in (1, 2):
        with pytest.raises(Killed):
            sync()
        assert redis_store.key().generation == before + pushed
    assert StoreState.objects.get().generation == before + 1


def test_sync_that_comes_second_leaves_a_complete_store_alone(redis_store: RedisStore) -> None:
    key = redis_store.key()
    with pytest.raises(sync_module._Overtaken):
        sync_module._Sync(redis_store, "default")._complete_anew()
    assert redis_store.key() == key


def test_sync_leaves_out_a_generation_that_a_push_may_have_given_out(redis_store: RedisStore) -> None:
    take_out_of_use(redis_store)
    latest = max(redis_store.key().generation, StoreState.objects.get().generation)
    assert sync()
    assert redis_store.key().generation == StoreState.objects.get().generation == latest + 2


def test_counters_of_a_lost_store_that_no_row_knows_are_void(redis_store: RedisStore, valkey: redis.Redis) -> None:
    """A server that came back with an old snapshot has counters that a reset has taken back since."""
    fail_everywhere(3)
    while drain_batch(redis_store):
        pass
    (digest,) = AttemptCounter.objects.filter(ip_address=ADDRESSES[0]).values_list("digest", flat=True)
    old = {key: valkey.hgetall(key) for key in valkey.keys(f"{redis_store.counter_prefix}*")}
    reset(ip=ADDRESSES[0])
    valkey.flushdb()
    for key, fields in old.items():
        valkey.hset(key, mapping=fields)
    assert sync()
    rows = check_agreement(redis_store)
    assert len(rows) == 9
    assert digest not in rows
    assert success("alice", ADDRESSES[0])


def test_dirty_counters_are_pushed_into_a_store_that_stays_in_use(redis_store: RedisStore, drain: Drain) -> None:
    fail_everywhere(2)
    drain()
    AttemptCounter.objects.filter(ip_address__in=ADDRESSES[:5]).update(failures=3, dirty=True)
    before = redis_store.key()
    assert sync()
    assert redis_store.key().generation == before.generation + 1 == StoreState.objects.get().generation
    assert sorted(check_agreement(redis_store).values()) == [2] * 5 + [3] * 5


def test_many_dirty_counters_are_pushed_in_portions(
    redis_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_module, "SENT", 3)
    fail_everywhere(2)
    drain()
    AttemptCounter.objects.update(failures=1, dirty=True)
    before = redis_store.key().generation
    assert sync()
    assert redis_store.key().generation == before + 4
    assert list(check_agreement(redis_store).values()) == [1] * 10


def test_event_that_comes_before_a_push_is_written_first(
    redis_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure()
    drain()
    AttemptCounter.objects.update(dirty=True)
    push, replies = RedisStore.push, []

    def after_one_more(self: RedisStore, *args: Any, **options: Any) -> str:
        if not replies:
            failure()
        replies.append(push(self, *args, **options))
        return replies[-1]

    monkeypatch.setattr(RedisStore, "push", after_one_more)
    assert sync()
    assert replies == ["conflict", "ok"]
    assert list(check_agreement(redis_store).values()) == [2]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "stale"])
@pytest.mark.parametrize("portion", [1, 3, 500])
def test_logins_go_on_while_the_store_is_synced(
    redis_store: RedisStore,
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
    valkey: redis.Redis,
    lost: bool,
    portion: int,
) -> None:
    """The database decides them, and what they change is written into the store before it is complete."""
    monkeypatch.setattr(sync_module, "PORTION", portion)
    fail_everywhere(1)
    drain()
    if lost:
        valkey.flushdb()
    else:
        take_out_of_use(redis_store)
    load_dirty, addresses = sync_module._Sync._load_dirty, iter(ADDRESSES[:6])

    def after_logins(self: Any, *, last: bool = False) -> bool:
        for _, address in zip(range(3 * last), addresses, strict=False):
            failure("alice", address)
        return load_dirty(self, last=last)

    monkeypatch.setattr(sync_module._Sync, "_load_dirty", after_logins)
    assert sync()
    assert list(check_agreement(redis_store).values()).count(2) == 6 - len([*addresses]) >= 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "stale"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("command", ["invalidate", "read", "load", "complete"])
def test_sync_that_is_killed_anywhere_is_done_by_the_next(
    redis_store: RedisStore,
    drain: Drain,
    valkey: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    moment: str,
    lost: bool,
) -> None:
    monkeypatch.setattr(sync_module, "LEASE", 600_000)
    fail_everywhere(3)
    drain()
    if lost:
        valkey.flushdb()
    else:
        take_out_of_use(redis_store)
    whole = getattr(RedisStore, command)

    def killed(self: RedisStore, *args: Any, **options: Any) -> Any:
        if moment == "after":
            whole(self, *args, **options)
        raise Killed

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(RedisStore, command, killed)
        with pytest.raises(Killed):
            sync()
    assert not success("alice", ADDRESSES[0])
    assert not sync(), "the lease of the killed one is still in force"
    with time_machine.travel(timedelta(seconds=601)):
        assert sync()
        assert not success("alice", ADDRESSES[0])
        assert list(check_agreement(redis_store).values()).count(3) == 10


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_push_that_is_killed_is_done_by_the_next(redis_store: RedisStore, drain: Drain, moment: str) -> None:
    fail_everywhere(3)
    drain()
    AttemptCounter.objects.update(failures=2, dirty=True)
    push = RedisStore.push

    def killed(self: RedisStore, *args: Any, **options: Any) -> str:
        if moment == "after":
            push(self, *args, **options)
        raise Killed

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(RedisStore, "push", killed)
        with pytest.raises(Killed):
            sync()
    assert failure("alice", ADDRESSES[0]) is (moment == "after")
    assert sync()
    rows = check_agreement(redis_store)
    assert sorted(rows.values()) == [2] * 9 + [3 if moment == "after" else 2]


def test_store_that_is_flushed_again_meanwhile_is_not_called_complete(
    redis_store: RedisStore, drain: Drain, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_everywhere(3)
    drain()
    valkey.flushdb()
    load = RedisStore.load

    def flushed(self: RedisStore, *args: Any) -> bool:
        done = load(self, *args)
        valkey.flushdb()
        return done

    with monkeypatch.context() as broken:
        broken.setattr(RedisStore, "load", flushed)
        assert not sync()
    assert redis_store.key().status != "ok"
    assert not success("alice", ADDRESSES[0])
    with time_machine.travel(timedelta(seconds=3)):
        assert sync()
    assert set(check_agreement(redis_store).values()) == {3}


def test_silent_store_leaves_the_database_deciding(
    redis_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_out_of_use(redis_store)

    def silent(*args: Any) -> bool:
        raise StoreUnavailable("silent")

    with monkeypatch.context() as broken:
        broken.setattr(RedisStore, "load", silent)
        with pytest.raises(StoreUnavailable):
            sync()
        assert StoreState.objects.get().mode == StoreState.DATABASE
    with time_machine.travel(timedelta(seconds=3)):
        drain()
        check_agreement(redis_store)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("command", ["invalidate", "read", "load", "complete"])
def test_one_slow_answer_does_not_end_the_sync(
    redis_store: RedisStore,
    drain: Drain,
    valkey: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    moment: str,
) -> None:
    fail_everywhere(3)
    drain()
    valkey.flushdb()
    whole, calls = getattr(RedisStore, command), []

    def slow_once(self: RedisStore, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1 and moment == "before":
            raise StoreUnavailable("slow")
        done = whole(self, *args)
        if len(calls) == 1:
            raise StoreUnavailable("slow")
        return done

    monkeypatch.setattr(RedisStore, command, slow_once)
    unsure = (command, moment) == ("complete", "after")
    assert sync() is not unsure
    assert len(calls) >= 2 or unsure
    if unsure:  # The store decides again, and the database cannot know that it does.
        with time_machine.travel(timedelta(seconds=3)):
            assert sync()
    assert set(check_agreement(redis_store).values()) == {3}


@pytest.mark.django_db(transaction=True)
def test_drain_goes_on_while_counters_are_loaded(
    redis_store: RedisStore, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one lock, and threads of a test share one connection.")
    fail_everywhere(1)
    drain()
    take_out_of_use(redis_store)
    load, drained = RedisStore.load, []

    def while_another_drains(self: RedisStore, *args: Any) -> bool:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(PATIENCE)
        return load(self, *args)

    def other() -> None:
        try:
            drained.append(drain_batch(get_store()))  # type: ignore[arg-type]
        finally:
            connection.close()

    monkeypatch.setattr(RedisStore, "load", while_another_drains)
    assert sync()
    assert len(drained) >= 1
    check_agreement(redis_store)


def test_counters_of_a_cache_are_written_over(settings: Any) -> None:
    settings.AXES_CACHE = "memory"
    store = get_store()
    for _ in range(3):
        failure()
    AttemptCounter.objects.all().delete()
    assert not needs_sync(store)
    failure("bob", "192.0.2.9")
    reset(ip="192.0.2.1")
    assert success()
    assert sync_store(store)
    assert not needs_sync(store)


def test_reservations_of_the_rows_are_taken_along(redis_store: RedisStore, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 1
    settings.AXES_RESERVE_WAIT = 0
    take_out_of_use(redis_store)
    request = request_from("192.0.2.77")
    attempt = guard.reserve(request, {"username": "alice"})
    assert attempt is not None
    assert sync()
    assert not failure("alice", "192.0.2.77"), "busy: the one guess is being looked at"
    guard.fail(request, {"username": "alice"})
    assert not success("alice", "192.0.2.77")
    assert check_agreement(redis_store)


def test_position_of_a_new_generation_is_behind_all_of_the_old_one(
    redis_store: RedisStore, drain: Drain, valkey: redis.Redis
) -> None:
    """So a flushed outbox gives no position away again that the cursor has passed."""
    fail_everywhere(1)
    drain()
    valkey.flushdb()
    drain()
    failure("alice", ADDRESSES[0])
    ((position, _),) = redis_store.read(Position(), 10)
    assert position.generation == redis_store.key().generation
    drain()
    assert sorted(check_agreement(redis_store).values()) == [1] * 9 + [2]
