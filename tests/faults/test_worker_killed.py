"""A worker is killed, wherever it is: no event is lost, none is written twice, and they stay in their order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from axes_async.models import AccessAttempt, AccessFailureLog, AttemptCounter
from axes_async.stores.redis.store import RedisStore
from tests.faults.actor import STEPS
from tests.faults.conftest import Actor
from tests.faults.machines import until
from tests.faults.sending import address, fail_all

pytestmark = pytest.mark.django_db(transaction=True)

StartActor = Callable[..., Actor]


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
    assert store.client.xlen(store.outbox_key) == 0
    assert store.client.xlen(store.dead_letters_key) == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_a_step_of_its_second_batch_loses_and_doubles_nothing(
    own_store: RedisStore, start_actor: StartActor, drain: Callable[[], int], step: str
) -> None:
    send(own_store, 2500)
    worker = start_actor()
    worker.ask("die_at", step=step, nth=2)
    worker.send("drain")
    assert worker.answer() is None
    assert worker.process.wait(10) == -signal.SIGKILL
    written = AccessFailureLog.objects.count()
    assert written == (2000 if step in {"between commit and trim", "after the trim"} else 1000)
    until(lambda: drain() == 0 and own_store.client.xlen(own_store.outbox_key) == 0, what="the next drain goes on")
    check(own_store, 2500)


def kill_at_random(store: RedisStore, start_actor: StartActor, events: int, *, kills: int, seed: int) -> None:
    """Have workers drain ``events`` while they come in, killing each of the first ``kills`` at some moment."""
    random, sent = Random(seed), 0
    portion = events // (kills + 1)
    for _ in range(kills):
        send(store, portion, first=sent)
        sent += portion
        worker = start_actor()
        worker.send("drain_for", seconds=30)
        began = AccessFailureLog.objects.count()
        until(lambda began=began: AccessFailureLog.objects.count() > began, what="the worker writes")
        time.sleep(random.uniform(0, 0.1))
        assert worker.kill() == -signal.SIGKILL
    send(store, events - sent, first=sent)
    left = start_actor()
    until(lambda: left.ask("drain") == 0 and store.client.xlen(store.outbox_key) == 0, seconds=120)
    check(store, events)


def test_workers_killed_at_random_write_every_event_once(own_store: RedisStore, start_actor: StartActor) -> None:
    kill_at_random(own_store, start_actor, 6000, kills=2, seed=1)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_of_100_000_events_through_killed_workers_every_one_is_written_once(
    own_store: RedisStore, start_actor: StartActor
) -> None:
    kill_at_random(own_store, start_actor, 100_000, kills=24, seed=2)


def test_two_workers_at_once_with_a_kill_among_them_write_every_event_once(
    own_store: RedisStore, start_actor: StartActor
) -> None:
    workers = [start_actor(), start_actor(), start_actor()]
    send(own_store, 6000)
    workers[0].ask("die_at", step="after the writes", nth=1)
    for worker in workers:
        worker.send("drain_for", seconds=1.5)
    assert workers[0].answer() is None
    assert sum(worker.answer() for worker in workers[1:]) >= 4000
    until(lambda: workers[1].ask("drain") == 0)
    check(own_store, 6000)


def test_beat_firing_twice_writes_once(own_store: RedisStore, start_actor: StartActor) -> None:
    send(own_store, 1500)
    workers = [start_actor(), start_actor()]
    for worker in workers:
        worker.send("drain")
    assert sum(worker.answer() for worker in workers) == 1500
    check(own_store, 1500)


def test_a_frozen_worker_that_wakes_up_after_another_has_done_its_work_repeats_nothing(
    own_store: RedisStore, start_actor: StartActor
) -> None:
    """Its transaction holds the cursor while it sleeps; the database ends that, and its successor goes on."""
    send(own_store, 3000)
    frozen, other = start_actor(), start_actor()
    frozen.send("drain")
    until(AccessFailureLog.objects.exists)
    frozen.process.send_signal(signal.SIGSTOP)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"
            " AND (state LIKE 'idle in transaction%%' OR state = 'active')"
        )
    until(lambda: other.ask("drain") == 0 and own_store.client.xlen(own_store.outbox_key) == 0)
    frozen.process.send_signal(signal.SIGCONT)
    frozen.answer()
    frozen.ask("drain")
    check(own_store, 3000)


def test_without_a_worker_everything_waits_in_the_outbox(own_store: RedisStore, drain: Any) -> None:
    send(own_store, 1200)
    assert AccessFailureLog.objects.count() == 0
    assert own_store.outbox().events == 1200
    assert drain() == 1200
    check(own_store, 1200)
