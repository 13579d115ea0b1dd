"""What has gone wrong in other packages, where no other file of these tests tells it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django_celery_results.models import TaskResult

from axes_async.client import exemptions
from axes_async.delivery import publisher as outbox
from axes_async.models import AccessFailureLog, AccessLog
from axes_async.stores.factory import get_failover
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.conftest import PASSWORD, WARMTH
from tests.site import CountingBackend
from tests.test_docs import ROOT

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
    settings.AXES_SENSITIVE_PARAMETERS, settings.AXES_IP_BLACKLIST = [], [REFUSED]
    settings.AXES_NEVER_LOCKOUT_WHITELIST, settings.AXES_IP_WHITELIST = True, [EXEMPT]
    exemptions._refusals.clear()
    outbox._broker.succeeded()
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
    location = f"redis://127.0.0.1:{servers.free_port()}/0"
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": location}}
    settings.AXES_ON_STORE_FAILURE, settings.AXES_STORE_REST = "allow", 0.02
    come_and_go(post, client)
    failover = get_failover()
    failover.is_away = False
    assert failover._watcher is not None
    failover._watcher.join()
    lines = [*said(caplog)]
    assert any(b'"failed"' in line and b"alice" in line for line in lines)
    assert [line for line in lines if GUESS.encode() in line or PASSWORD.encode() in line] == []


SITE = """
from tests.settings import *
def named(request, credentials):
    return "alice"
AXES_USERNAME_CALLABLE = named
AXES_TRUSTED_PROXIES = ["10.0.0.0/8"]
"""
TELL = """
import django
django.setup()
from types import SimpleNamespace
from celery import Celery
from celery.worker.control import conf
from kombu.serialization import dumps
from axes_async import guard
from axes_async.conf import get_settings
guard.reserve(None, {"username": "alice"})
assert get_settings().trusted_proxies
for options in ({"namespace": "CELERY"}, {}):
    app = Celery("site", set_as_current=False)
    app.config_from_object("django.conf:settings", **options)
    print(dumps(conf(SimpleNamespace(app=app)), "json")[2])
"""


def test_a_worker_can_tell_its_settings_after_ours_were_read(tmp_path: Path) -> None:
    """As it answers ``inspect conf``: Celery tells all of Django's settings, with a namespace and without."""
    (tmp_path / "told_settings.py").write_text(SITE)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "DJANGO_SETTINGS_MODULE": "told_settings",
        "AXES_TEST_DATABASE": "sqlite",
        "AXES_TEST_REDIS_URL": servers.valkey_url().rpartition("/")[0],
    }
    done = subprocess.run([sys.executable, "-c", TELL], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 2
    for answer in answers:
        assert answer["AXES_TRUSTED_PROXIES"] == ["10.0.0.0/8"]
        assert {name for name in answer if name[:5] == "AXES_"} == {"AXES_TRUSTED_PROXIES", "AXES_USERNAME_CALLABLE"}


@pytest.mark.parametrize("url", ["/login/", "/admin/login/"])
@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_looking_at_a_login_page_is_no_attempt(
    client: Client, drain: Drain, valkey: redis.Redis, method: str, url: str
) -> None:
    for _ in range(5):
        answer = getattr(client, method)(f"{url}?username=alice&password={GUESS}")
        assert answer.status_code == 200
    assert valkey.keys("*") == [WARMTH]
    assert (drain(), CountingBackend.checks) == (0, 0)


def test_a_locked_client_can_look_at_the_login_page(post: Post, client: Client, redis_store: RedisStore) -> None:
    assert [post().status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/login/").status_code == 200
