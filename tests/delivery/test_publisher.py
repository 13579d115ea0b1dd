"""How events leave the web process: bounded nudges, and the way without an outbox."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
import redis
from celery import current_app
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from axes_async.counters.events import AttemptEvent
from axes_async.delivery import circuit_breaker, publisher
from axes_async.delivery.circuit_breaker import CircuitBreaker
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.tasks.write_one import write
from tests import servers
from tests.actions import failure, success
from tests.celery import app
from tests.conftest import PASSWORD

Post = Callable[..., Any]
Drain = Callable[[], int]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _fresh_broker() -> Iterator[None]:
    """Have each test find the broker as it is."""
    publisher._broker.succeeded()
    publisher._producers.cache_clear()
    yield
    publisher._broker.succeeded()
    publisher._producers.cache_clear()


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
    """Have the counters on a local cache, which has no publisher."""
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
    broker_at: Callable[[str], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "monotonic", lambda: 100.0)
    broker_at("redis://127.0.0.1:1/0")
    assert failure()
    assert not publisher.publish(publisher.DRAIN)
    told = [record for record in caplog.records if record.name == "axes_async.delivery.publisher"]
    assert len(told) == 1, "the second publish did not try"


def test_a_broker_that_accepts_and_stays_silent_is_given_up(
    broker_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "PUBLISH_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker_at(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert not publisher.publish(publisher.DRAIN)


def test_more_publishes_at_once_than_connections_are_no_fault_of_the_broker(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = publisher._producers(os.getpid())
    with ExitStack() as busy, monkeypatch.context() as impatient:
        for _ in range(publisher.PUBLISHERS):
            busy.enter_context(pool.acquire())
        impatient.setattr(publisher, "PUBLISH_TIMEOUT", 0.1)
        assert not publisher.publish(publisher.DRAIN)
    assert publisher.publish(publisher.DRAIN)
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
    assert not publisher.has_broker()
    failure()
    assert AccessAttempt.objects.get().failures_since_start == 1


@pytest.mark.usefixtures("memory")
def test_an_event_that_nobody_can_write_is_an_error_in_the_log(
    broker_at: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker_at(None)

    def refuse(wire: str) -> None:
        raise OperationalError("the database is down")

    monkeypatch.setattr(write, "run", refuse)
    assert failure("mallory")
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR and "not written" in record.msg]
    assert "mallory" in told.getMessage()


@pytest.mark.usefixtures("memory")
def test_a_message_that_comes_twice_is_written_once(broker_at: Callable[[Any], None], monkeypatch: Any) -> None:
    events: list[AttemptEvent] = []
    monkeypatch.setattr(publisher, "deliver", events.append)
    failure()
    for _ in range(2):
        write(events[0].wire())
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
    assert publisher.publish("test.parent")
    mine = publisher._producers(os.getpid())
    child = os.fork()
    if not child:
        sent = publisher.publish("test.child") and publisher._producers(os.getpid()).connections is not mine.connections
        os._exit(0 if sent else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert publisher.publish("test.parent")
    assert [message["headers"]["task"] for message in messages(broker)] == ["test.parent", "test.child", "test.parent"]


@pytest.mark.parametrize("cache", ["default", "memory"])
@pytest.mark.parametrize("url", ["foo://nowhere", "redis://127.0.0.1:notaport/0", "sqs://"])
def test_a_broker_url_that_cannot_be_used_stops_no_login_and_loses_no_event(
    alice: User, settings: Any, post: Post, drain: Drain, monkeypatch: pytest.MonkeyPatch, url: str, cache: str
) -> None:
    settings.AXES_CACHE = cache
    monkeypatch.setitem(current_app.conf, "broker_url", url)
    assert post().status_code == 401
    publisher._broker.succeeded()
    assert post(password=PASSWORD).status_code == 204
    drain()
    assert AccessFailureLog.objects.count() == 1
    assert success()


def test_a_store_that_cannot_decide_is_told_of_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    monkeypatch.setattr(publisher, "publish", lambda name, *args, **kwargs: published.append(name))
    now = [100.0]
    monkeypatch.setattr(circuit_breaker, "monotonic", lambda: now[0])
    for _ in range(3):
        publisher.nudge_for_sync()
    now[0] += 1.01
    publisher.nudge_for_sync()
    assert published == ["axes_async.drain"] * 2


def test_without_a_broker_a_nudge_drains_here(broker_at: Callable[[Any], None]) -> None:
    broker_at(None)
    failure()
    assert AccessAttempt.objects.get().failures_since_start == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_atomic", [False, True])
def test_what_runs_here_leaves_no_setting_in_a_session_that_a_pooler_gives_to_others(
    broker_at: Callable[[Any], None], is_atomic: bool
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("It sets up what only PostgreSQL has.")
    broker_at(None)
    with CaptureQueriesContext(connection) as queries, transaction.atomic() if is_atomic else nullcontext():
        failure()
        assert AccessAttempt.objects.count() == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            assert cursor.fetchone() == ("0",)
    told = {query["sql"] for query in queries if "lock_timeout" in query["sql"] and query["sql"].startswith("SET")}
    assert told
    assert all(sql.startswith("SET LOCAL") for sql in told)


def test_in_the_tests_of_a_site_a_nudge_drains_here(settings: Any, broker: redis.Redis) -> None:
    settings.AXES_TEST_STORE = "database"
    for count in range(1, 3):
        failure()
        assert AccessAttempt.objects.get().failures_since_start == count
    assert messages(broker) == []


def test_after_a_failure_one_caller_tries_and_the_others_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(circuit_breaker, "monotonic", lambda: now[0])
    breaker = CircuitBreaker(1.0, longest=3.0)
    assert (breaker.allows(), breaker.is_open) == (True, False)
    for interval in (1.0, 2.0, 3.0, 3.0):
        breaker.failed()
        assert (breaker.allows(), breaker.is_open) == (False, True)
        now[0] += interval
        assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.succeeded()
    assert breaker.allows()
