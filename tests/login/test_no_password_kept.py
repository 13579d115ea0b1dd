"""No password is kept or told anywhere."""

from __future__ import annotations

import json
import logging
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django_celery_results.models import TaskResult

from axes_async.client import exemptions
from axes_async.delivery import publisher
from axes_async.models import AccessFailureLog, AccessLog
from tests import servers
from tests.conftest import PASSWORD
from tests.conftest import REFUSED as NOBODY_THERE

Post = Callable[..., Any]
Drain = Callable[[], int]
GUESS = "hunter2-and-more"
EXEMPT, REFUSED = "192.0.2.1", "192.0.2.2"

pytestmark = [pytest.mark.django_db]


def kept_in(server: redis.Redis) -> Iterator[bytes]:
    """Return everything a server holds, with the bodies of Celery's messages decoded."""
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": server.get,
        b"hash": server.hgetall,
        b"list": lambda key: server.lrange(key, 0, -1),
        b"set": server.smembers,
        b"zset": lambda key: server.zrange(key, 0, -1, withscores=True),
        b"stream": server.xrange,
    }
    for key in server.keys("*"):
        kind = server.type(key)
        yield repr(read[kind](key)).encode()
        if kind == b"list":
            for message in server.lrange(key, 0, -1):
                yield b64decode(json.loads(message)["body"])


def rows() -> Iterator[bytes]:
    """Return every row of ours, and of Celery's results."""
    for model in (*apps.get_app_config("axes_async").get_models(), TaskResult):
        yield repr([*model._default_manager.values()]).encode()


def said(caplog: pytest.LogCaptureFixture) -> Iterator[bytes]:
    """Return every log record of ours, with what is attached to it."""
    for record in caplog.records:
        if record.name.startswith("axes_async"):
            yield f"{record.getMessage()} {record.__dict__!r}".encode("utf-8", "backslashreplace")


@pytest.fixture
def _in_full(settings: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Have as much told as can be."""
    caplog.set_level(logging.DEBUG)
    settings.AXES_IP_BLACKLIST = [REFUSED]
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_IP_WHITELIST = True, [EXEMPT]
    exemptions._refusals.clear()
    publisher._broker.succeeded()
    yield
    exemptions._refusals.clear()


def come_and_go(post: Post, client: Client) -> None:
    """Do all that can be done with a password."""
    for address in ("203.0.113.7", EXEMPT, REFUSED):
        for _ in range(5):
            post(password=GUESS, REMOTE_ADDR=address)
    body = {"username": "alice", "password": GUESS}
    client.post("/login/", json.dumps(body), content_type="application/json")
    post(password=PASSWORD, url="/login/", REMOTE_ADDR="203.0.113.8")
    client.post("/logout/")


@pytest.mark.usefixtures("_in_full")
def test_no_password_is_in_any_row_log_line_event_or_task(
    alice: User, post: Post, client: Client, drain: Drain, caplog: pytest.LogCaptureFixture
) -> None:
    come_and_go(post, client)
    call_command("axes_reset", "--queue", username="alice")
    with redis.Redis.from_url(servers.valkey_url()) as store, redis.Redis.from_url(servers.valkey_url(1)) as broker:
        waiting = [*kept_in(store), *kept_in(broker)]
    drain()
    found = [*waiting, *rows(), *said(caplog)]
    assert AccessLog.objects.exists()
    assert AccessFailureLog.objects.filter(ip_address=REFUSED).exists()
    for place in (waiting, [*rows()], [*said(caplog)]):
        assert any(b"alice" in text for text in place), "what is looked for would be found there"
    assert [text for text in found if GUESS.encode() in text or PASSWORD.encode() in text] == []


@pytest.mark.usefixtures("_in_full")
def test_no_password_is_in_what_is_logged_for_want_of_a_store(
    alice: User, post: Post, client: Client, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": NOBODY_THERE}}
    settings.AXES_ON_STORE_FAILURE = "allow"
    come_and_go(post, client)
    lines = [*said(caplog)]
    assert any(b'"failed"' in line and b"alice" in line for line in lines)
    assert [line for line in lines if GUESS.encode() in line or PASSWORD.encode() in line] == []
