"""How events leave the web process: bounded nudges, and the way without an outbox."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from django.db import OperationalError

from axes_async.counters.events import AttemptEvent
from axes_async.delivery import publisher as outbox
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.tasks.write import write
from tests import servers
from tests.actions import failure
from tests.celery import app

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    """Have each test find the broker as it is."""
    outbox._broker.succeeded()
    outbox._producers.cache_clear()
    yield
    outbox._broker.succeeded()
    outbox._producers.cache_clear()


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    """Return a client of the broker's database."""
    with redis.Redis.from_url(servers.valkey_url(1)) as client:
        yield client


@pytest.fixture
def broker_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that moves the project's broker."""

    def move(url: str | None) -> None:
        monkeypatch.setattr(app.conf, "broker_url", url)

    return move


@pytest.fixture
def memory(settings: Any) -> None:
    """Have the counters on a local cache, which has no outbox."""
    settings.AXES_CACHE = "memory"


def messages(broker: redis.Redis, queue: str = "celery") -> list[dict[str, Any]]:
    """Return the messages that wait in a queue."""
    return [json.loads(message) for message in broker.lrange(queue, 0, -1)]


def test_the_first_event_sends_one_nudge_that_expires(broker: redis.Redis) -> None:
    for _ in range(3):
        failure()
    (message,) = messages(broker)
    assert message["headers"]["task"] == "axes_async.drain"
    assert message["headers"]["expires"] is not None


def test_messages_go_to_the_queue_of_the_settings(broker: redis.Redis, settings: Any) -> None:
    settings.AXES_CELERY_QUEUE = "logins"
    failure()
    assert len(messages(broker, "logins")) == 1
    assert messages(broker) == []


def test_a_broker_that_refuses_stops_no_login_and_is_left_alone_for_a_while(
    broker_at: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker_at("redis://127.0.0.1:1/0")
    assert failure()
    assert not outbox.publish(outbox.DRAIN)
    told = [record for record in caplog.records if record.name == "axes_async.delivery.publisher"]
    assert len(told) == 1, "the second publish did not try"


def test_a_broker_that_accepts_and_stays_silent_is_given_up(broker_at: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker_at(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert not outbox.publish(outbox.DRAIN)


def test_more_publishes_at_once_than_connections_are_no_fault_of_the_broker(broker: redis.Redis) -> None:
    pool = outbox._producers(os.getpid())
    with ExitStack() as busy:
        for _ in range(outbox.PUBLISHERS):
            busy.enter_context(pool.acquire())
        assert not outbox.publish(outbox.DRAIN)
    assert outbox.publish(outbox.DRAIN)
    assert len(messages(broker)) == 1


@pytest.mark.usefixtures("memory")
def test_without_an_outbox_each_event_is_a_message_that_a_worker_writes(broker: redis.Redis) -> None:
    failure()
    (message,) = messages(broker)
    assert message["headers"]["task"] == "axes_async.write"
    assert AccessAttempt.objects.count() == 0
    (wire,) = app.backend.decode(_body(message))[0]
    write(wire)
    assert AccessAttempt.objects.get().failures_since_start == 1


def _body(message: dict[str, Any]) -> str:
    from base64 import b64decode

    return b64decode(message["body"]).decode()


@pytest.mark.usefixtures("memory")
def test_without_an_outbox_and_a_broker_that_answers_the_event_is_written_here(
    broker_at: Callable[[str], None],
) -> None:
    broker_at("redis://127.0.0.1:1/0")
    failure()
    assert AccessAttempt.objects.get().failures_since_start == 1


@pytest.mark.usefixtures("memory")
def test_without_an_outbox_or_a_broker_the_event_is_written_here(broker_at: Callable[[Any], None]) -> None:
    broker_at(None)
    assert not outbox.has_broker()
    failure()
    assert AccessAttempt.objects.get().failures_since_start == 1


@pytest.mark.usefixtures("memory")
def test_an_event_that_nobody_can_write_is_an_error_in_the_log(
    broker_at: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker_at(None)

    def refuse(wire: list[str]) -> None:
        raise OperationalError("the database is down")

    monkeypatch.setattr(write, "run", refuse)
    assert failure("mallory")
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR and "not written" in record.msg]
    assert "mallory" in told.getMessage()


@pytest.mark.usefixtures("memory")
def test_a_message_that_comes_twice_is_written_once(broker_at: Callable[[Any], None], monkeypatch: Any) -> None:
    events: list[AttemptEvent] = []
    monkeypatch.setattr(outbox, "deliver", events.append)
    failure()
    for _ in range(2):
        write([events[0].body(), events[0].outcome()])
    assert AccessAttempt.objects.get().failures_since_start == 1
    assert AccessFailureLog.objects.count() == 1


def test_with_eager_tasks_the_rows_are_there_at_once() -> None:
    app.conf.task_always_eager = True
    try:
        failure()
    finally:
        app.conf.task_always_eager = False
    assert AccessAttempt.objects.get().failures_since_start == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # It has threads, which the child does without.
def test_a_forked_process_sends_over_connections_of_its_own(broker: redis.Redis) -> None:
    assert outbox.publish("test.parent")
    mine = outbox._producers(os.getpid())
    child = os.fork()
    if not child:
        sent = outbox.publish("test.child") and outbox._producers(os.getpid()).connections is not mine.connections
        os._exit(0 if sent else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert outbox.publish("test.parent")
    assert [message["headers"]["task"] for message in messages(broker)] == ["test.parent", "test.child", "test.parent"]
