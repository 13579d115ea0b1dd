"""A worker is killed, wherever it is: no event is lost, none is written twice, and they stay in their order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter, StoreState
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.sync import sync_store
from tests.actions import failure
from tests.faults.conftest import Actor
from tests.faults.sending import address, fail_all
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

StartActor = Callable[..., Actor]

PLACES = ("sql", "store", "answer")
"""Where a worker dies: before a statement of the database, before a command of the store, after one."""


def send(store: RedisStore, events: int, first: int = 0) -> None:
    """Count ``events`` failures, each under a name that tells its place; two in a row are of one address."""
    fail_all(store, ((f"u{number}", address(number // 2)) for number in range(first, first + events)))


def check(store: RedisStore, events: int) -> None:
    """See that the rows are those of ``events`` failures, in order, and the outbox is empty."""
    names = list(AccessFailureLog.objects.order_by("id").values_list("username", flat=True))
    assert len(names) == events
    assert names == [f"u{number}" for number in range(events)]
    assert AccessAttempt.objects.aggregate(all=Sum("failures_since_start")) == {"all": events}
    assert AttemptCounter.objects.aggregate(all=Sum("failures")) == {"all": events}
    size = store.size()
    assert (size.events, size.dead_letters) == (0, 0)


def drain_all(drain: Callable[[], int], store: RedisStore) -> None:
    until(lambda: drain() == 0 and not store.size().events, what="everything is written")


@pytest.mark.parametrize("place", PLACES)
def test_drain_killed_at_each_of_its_steps(
    own_store: RedisStore, start_actor: StartActor, drain: Callable[[], int], place: str
) -> None:
    worker, sent = start_actor().ready(), 0
    for nth in count(1):
        send(own_store, 4, first=sent)
        sent += 4
        if not worker.ask("die_in", task="drain", where=place, nth=nth):
            break
    assert nth > 3, "it has died at several steps"
    drain_all(drain, own_store)
    check(own_store, sent)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("lost", [True, False], ids=["lost store", "dirty rows"])
def test_sync_killed_at_each_of_its_steps(
    own_store: RedisStore, start_actor: StartActor, drain: Callable[[], int], place: str, lost: bool
) -> None:
    """What is locked stays locked, whoever decides by then, and the next sync makes the store complete."""
    worker = start_actor().ready()
    for nth in count(1):
        locked = f"192.0.2.{nth}"
        assert [failure("alice", locked) for _ in range(4)] == [True, True, True, False]
        drain_all(drain, own_store)
        if lost:
            own_store.client.flushall()
        else:
            AttemptCounter.objects.update(dirty=True)
        died = worker.ask("die_in", task="sync", where=place, nth=nth)
        assert not failure("alice", locked)
        StoreState.objects.update(sync_until=None)  # Its lease would end by itself.
        until(lambda: sync_store(own_store), what="the next sync goes on")
        assert not failure("alice", locked)
        if not died:
            break
    assert nth > 3, "it has died at several steps"
    drain_all(drain, own_store)
    assert AccessFailureLog.objects.filter(repeats=0).count() == 3 * nth
    assert set(AttemptCounter.objects.values_list("failures", flat=True)) == {3}


def kill_at_random(store: RedisStore, start_actor: StartActor, events: int, *, kills: int, seed: int) -> None:
    """Have workers drain ``events`` while they come in, killing each of the first ``kills`` at some moment."""
    random, sent = Random(seed), 0
    portion = events // (kills + 1)
    following = start_actor()
    for _ in range(kills):
        send(store, portion, first=sent)
        sent += portion
        worker, following = following.ready(), start_actor()
        began = AccessFailureLog.objects.count()
        worker.send("work")
        until(lambda began=began: AccessFailureLog.objects.count() > began, what="the worker writes")
        time.sleep(random.uniform(0, 0.1))
        assert worker.kill() == -signal.SIGKILL
    send(store, events - sent, first=sent)
    last = following.ready()
    until(lambda: last.ask("settled"), what="the last one has written the rest")
    check(store, events)


def test_workers_killed_at_random_write_every_event_once(own_store: RedisStore, start_actor: StartActor) -> None:
    kill_at_random(own_store, start_actor, 6000, kills=2, seed=1)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_of_100_000_events_through_killed_workers_every_one_is_written_once(
    own_store: RedisStore, start_actor: StartActor
) -> None:
    kill_at_random(own_store, start_actor, 100_000, kills=24, seed=2)


def test_several_workers_at_once_with_a_kill_among_them_write_every_event_once(
    own_store: RedisStore, start_actor: StartActor
) -> None:
    workers = [start_actor(), start_actor(), start_actor()]
    send(own_store, 6000)
    for worker in workers:
        worker.ready().send("work")
    until(AccessFailureLog.objects.exists, what="one of them writes")
    workers[0].kill()
    until(lambda: AccessFailureLog.objects.count() == 6000, what="the others write the rest")
    until(lambda: not own_store.size().events, what="the outbox is empty")
    check(own_store, 6000)


def test_beat_firing_twice_writes_once(own_store: RedisStore, start_actor: StartActor) -> None:
    workers = [start_actor(), start_actor()]
    send(own_store, 1500)
    for worker in workers:
        worker.ready().send("drain")
    assert sum(worker.answer() for worker in workers) == 1500
    check(own_store, 1500)


def test_a_frozen_worker_that_wakes_up_after_another_has_done_its_work_repeats_nothing(
    own_store: RedisStore, start_actor: StartActor
) -> None:
    """Its transaction holds the writer lock while it sleeps; the database ends that, and its successor goes on."""
    frozen, other = start_actor(), start_actor()
    send(own_store, 3000)
    frozen.ready().send("drain")
    other.ready()
    until(AccessFailureLog.objects.exists, what="it has begun")
    frozen.process.send_signal(signal.SIGSTOP)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
            " AND (state LIKE 'idle in transaction%%' OR state = 'active')"
        )
    until(lambda: other.ask("settled"), what="the other one has written everything")
    frozen.process.send_signal(signal.SIGCONT)
    frozen.answer()
    frozen.ask("drain")
    check(own_store, 3000)


def test_without_a_worker_everything_waits_in_the_outbox(own_store: RedisStore, drain: Any) -> None:
    send(own_store, 1200)
    assert AccessFailureLog.objects.count() == 0
    assert own_store.size().events == 1200
    drain_all(drain, own_store)
    check(own_store, 1200)
