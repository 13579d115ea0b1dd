"""The broker is away: a login waits for it once, a fraction of a second, and the events are written all the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_app
from django.db import InterfaceError, OperationalError

from axes_async.delivery import publisher as outbox
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.actions import failure, success
from tests.faults.machines import Listener, Valkey, until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]


@pytest.fixture
def broker_at() -> Iterator[Callable[[str], None]]:
    """Return a function that has the site's app use another broker."""
    conf = current_app.conf
    # As they are set: what an attribute tells of the two others is the first one, where they are not.
    before = {name: conf.get(name) for name in ("broker_url", "broker_read_url", "broker_write_url")}

    def use(url: str) -> None:
        conf.update(dict.fromkeys(before, url))
        outbox._producers.cache_clear()

    yield use
    conf.update(before)
    outbox._producers.cache_clear()


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


def log_in_while_away(own_store: RedisStore, *, logins: int = 20) -> tuple[float, float]:
    """Fail once, and log in often after that, each of which is to nudge; return the seconds of both."""
    started = time.monotonic()
    assert failure("alice", "192.0.2.1")
    first = time.monotonic() - started
    started = time.monotonic()
    for number in range(logins):
        own_store.client.delete(own_store.nudged_key)
        assert success("bob", f"198.51.100.{number}")
    return first, time.monotonic() - started


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_broker_that_is_away_holds_one_login_up_for_a_moment_and_no_other(
    own_store: RedisStore,
    drain: Drain,
    broker_at: Callable[[str], None],
    listener: Listener,
    how: str,
    scheme: str,
) -> None:
    port = listener.port if how == "silent" else servers.free_port()
    broker_at(f"{scheme}://127.0.0.1:{port}//" if scheme == "amqp" else f"redis://127.0.0.1:{port}/0")
    first, others = log_in_while_away(own_store)
    assert first < 1
    assert others < 1, "20 logins of a few milliseconds each"
    assert outbox._broker.is_open
    assert len(listener.taken) <= 2
    assert drain() == 21
    assert AccessFailureLog.objects.count() == 1


def test_a_frozen_broker_gets_its_message_when_it_goes_on(
    own_store: RedisStore, drain: Drain, broker: Valkey, broker_at: Callable[[str], None], monkeypatch: Any
) -> None:
    broker_at(f"{broker.url}/0")
    assert failure("alice", "192.0.2.1")
    assert broker.client.llen("celery") == 1
    broker.freeze()
    own_store.client.delete(own_store.nudged_key)
    first, others = log_in_while_away(own_store)
    assert first < 1
    assert others < 1
    broker.thaw()
    monkeypatch.setattr(outbox._broker, "_closed_again_at", time.monotonic() - 1)
    own_store.client.delete(own_store.nudged_key)
    sent = broker.client.llen("celery")
    assert failure("alice", "192.0.2.1")
    assert broker.client.llen("celery") > sent
    assert not outbox._broker.is_open
    assert drain() == 23


def test_a_full_broker_is_one_that_does_not_take_the_nudge(
    own_store: RedisStore, drain: Drain, broker: Valkey, broker_at: Callable[[str], None]
) -> None:
    broker.fill()
    broker_at(f"{broker.url}/0")
    first, others = log_in_while_away(own_store)
    assert first < 1
    assert others < 1
    assert outbox._broker.is_open
    assert drain() == 21


def test_a_broker_that_dies_between_two_nudges_costs_no_event(
    own_store: RedisStore, drain: Drain, broker: Valkey, broker_at: Callable[[str], None]
) -> None:
    broker_at(f"{broker.url}/0")
    assert failure("alice", "192.0.2.1")
    assert broker.client.llen("celery") == 1
    broker.kill()
    own_store.client.delete(own_store.nudged_key)
    assert failure("alice", "192.0.2.1")
    assert outbox._broker.is_open
    assert drain() == 2
    assert AccessAttempt.objects.get().failures_since_start == 2


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_without_an_outbox_the_event_is_written_here_when_the_broker_is_away(
    settings: Any, broker_at: Callable[[str], None], listener: Listener, how: str
) -> None:
    settings.AXES_CACHE = "memory"
    broker_at(f"redis://127.0.0.1:{listener.port if how == 'silent' else servers.free_port()}/0")
    started = time.monotonic()
    for _ in range(3):
        assert failure("alice", "192.0.2.1")
    assert time.monotonic() - started < 2
    assert AccessFailureLog.objects.count() == 3
    assert AccessAttempt.objects.get().failures_since_start == 3


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_without_broker_and_database_the_log_has_the_event(
    settings: Any,
    broker_at: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    settings.AXES_CACHE = "memory"
    broker_at(f"redis://127.0.0.1:{servers.free_port()}/0")

    def away(*args: Any, **options: Any) -> None:
        raise error("the database is away")

    monkeypatch.setattr("axes_async.tasks.write.held_cursor", away)
    with caplog.at_level(logging.ERROR, "axes_async"):
        assert failure("alice", "192.0.2.1")
    lines = [record.getMessage() for record in caplog.records if "not written" in record.getMessage()]
    assert len(lines) == 1
    assert '"failed"' in lines[0]
    assert '"alice"' in lines[0]


def test_the_events_are_written_when_a_worker_returns_though_no_nudge_went_out(
    own_valkey: Valkey, own_store: RedisStore, broker_at: Callable[[str], None], start_actor: Callable[..., Any]
) -> None:
    broker_at(f"redis://127.0.0.1:{servers.free_port()}/0")
    for number in range(50):
        assert failure("alice", f"192.0.2.{number}")
    worker = start_actor()
    assert worker.ask("drain") == 50
    assert AccessFailureLog.objects.count() == 50
    until(lambda: own_store.client.xlen(own_store.outbox_key) == 0)
