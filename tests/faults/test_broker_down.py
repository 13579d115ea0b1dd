"""The broker is away: one login waits for it, for a bounded time, and the events are written all the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, current_app
from django.db import InterfaceError, OperationalError

from axes_async.delivery import publisher
from axes_async.delivery.circuit_breaker import CircuitBreaker
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from tests.actions import failure, success
from tests.conftest import PATIENT
from tests.faults.machines import Listener, Valkey

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]


@pytest.fixture(autouse=True)
def _breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start with a closed breaker, which does not close again by itself during a test."""
    monkeypatch.setattr(publisher, "_broker", CircuitBreaker(retry_interval=3600))


@pytest.fixture
def broker_at() -> Iterator[Callable[[str], None]]:
    """Return a function that has the site's app use another broker."""
    conf = current_app.conf
    # As they are set: what an attribute tells of the two others is the first one, where they are not.
    before = {name: conf.get(name) for name in ("broker_url", "broker_read_url", "broker_write_url")}

    def use(url: str) -> None:
        conf.update(dict.fromkeys(before, url))
        publisher._producers.cache_clear()

    yield use
    conf.update(before)
    publisher._producers.cache_clear()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that has logins wait for a silent broker no longer than on a real site."""

    def hurry() -> None:
        monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT", 0.1)
        publisher._producers.cache_clear()

    return hurry


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the tasks that somebody has tried to send."""
    names: list[str] = []
    send = Celery.send_task

    def noted(self: Celery, name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        return send(self, name, *args, **options)

    monkeypatch.setattr(Celery, "send_task", noted)
    return names


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Return something that takes connections and stays silent."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def broker() -> Iterator[Valkey]:
    """Return a Valkey that is a broker and nothing else."""
    server = Valkey()
    yield server
    server.stop()


def rearm(own_store: RedisStore) -> None:
    """Have the next login nudge."""
    own_store.client.delete(own_store.nudged_key)


def log_in_while_away(own_store: RedisStore) -> None:
    """Fail once, and log in often after that, each of which is to nudge."""
    rearm(own_store)
    assert failure("alice", "192.0.2.1")
    for number in range(20):
        rearm(own_store)
        assert success("bob", f"198.51.100.{number}")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("how", ["refused", "silent"])
def test_broker_that_is_away_is_tried_by_one_login_and_no_other(
    own_store: RedisStore,
    drain: Drain,
    broker_at: Callable[[str], None],
    sent: list[str],
    hurry: Callable[[], None],
    listener: Listener,
    closed_port: int,
    how: str,
    scheme: str,
) -> None:
    hurry()
    port = listener.port if how == "silent" else closed_port
    broker_at(f"{scheme}://127.0.0.1:{port}//" if scheme == "amqp" else f"redis://127.0.0.1:{port}/0")
    log_in_while_away(own_store)
    assert sent == [publisher.DRAIN]
    assert publisher._broker.is_open
    assert drain() == 21
    assert AccessFailureLog.objects.count() == 1


def test_frozen_broker_gets_its_message_when_it_goes_on(
    own_store: RedisStore,
    drain: Drain,
    broker: Valkey,
    broker_at: Callable[[str], None],
    hurry: Callable[[], None],
    sent: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker_at(f"{broker.url}/0")
    rearm(own_store)
    assert failure("alice", "192.0.2.1")
    assert broker.client.llen("celery") == len(sent) == 1
    hurry()
    broker.freeze()
    log_in_while_away(own_store)
    assert len(sent) == 2
    broker.thaw()
    monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT", PATIENT)
    publisher._producers.cache_clear()
    publisher._broker._opens_until = 1.0  # The retry interval is over.
    before = broker.client.llen("celery")
    rearm(own_store)
    assert failure("alice", "192.0.2.1")
    assert broker.client.llen("celery") > before
    assert not publisher._broker.is_open
    assert drain() == 23


def test_full_broker_is_one_that_does_not_take_the_nudge(
    own_store: RedisStore, drain: Drain, broker: Valkey, broker_at: Callable[[str], None], sent: list[str]
) -> None:
    broker.fill()
    broker_at(f"{broker.url}/0")
    log_in_while_away(own_store)
    assert len(sent) == 1
    assert publisher._broker.is_open
    assert drain() == 21


def test_broker_that_dies_between_two_nudges_costs_no_event(
    own_store: RedisStore, drain: Drain, broker: Valkey, broker_at: Callable[[str], None]
) -> None:
    broker_at(f"{broker.url}/0")
    rearm(own_store)
    assert failure("alice", "192.0.2.1")
    assert broker.client.llen("celery") == 1
    broker.kill()
    rearm(own_store)
    assert failure("alice", "192.0.2.1")
    assert publisher._broker.is_open
    assert drain() == 2
    assert AccessAttempt.objects.get().failures_since_start == 2


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_without_an_outbox_the_event_is_written_here_when_the_broker_is_away(
    settings: Any,
    broker_at: Callable[[str], None],
    hurry: Callable[[], None],
    sent: list[str],
    listener: Listener,
    closed_port: int,
    how: str,
) -> None:
    hurry()
    settings.AXES_CACHE = "memory"
    broker_at(f"redis://127.0.0.1:{listener.port if how == 'silent' else closed_port}/0")
    for _ in range(3):
        assert failure("alice", "192.0.2.1")
    assert sent == [publisher.WRITE]
    assert AccessFailureLog.objects.count() == 3
    assert AccessAttempt.objects.get().failures_since_start == 3


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_without_broker_and_database_the_log_has_the_event(
    settings: Any,
    broker_at: Callable[[str], None],
    closed_port: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    settings.AXES_CACHE = "memory"
    broker_at(f"redis://127.0.0.1:{closed_port}/0")

    def away(*args: Any, **options: Any) -> None:
        raise error("the database is away")

    monkeypatch.setattr("axes_async.tasks.write_one.writer_lock", away)
    with caplog.at_level(logging.ERROR, "axes_async"):
        assert failure("alice", "192.0.2.1")
    lines = [record.getMessage() for record in caplog.records if "not written" in record.getMessage()]
    assert len(lines) == 1
    assert '"failed"' in lines[0]
    assert '"alice"' in lines[0]


def test_events_are_written_when_a_worker_returns_though_no_nudge_went_out(
    own_store: RedisStore, broker_at: Callable[[str], None], closed_port: int, start_actor: Callable[..., Any]
) -> None:
    broker_at(f"redis://127.0.0.1:{closed_port}/0")
    for number in range(50):
        assert failure("alice", f"192.0.2.{number}")
    assert start_actor().ready().ask("drain") == 50
    assert AccessFailureLog.objects.count() == 50
    assert own_store.size().events == 0
