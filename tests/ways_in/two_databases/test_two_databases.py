"""Rows in a second database, by a router."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings

from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog
from axes_async.stores.cache import CacheStore
from axes_async.stores.factory import get_store
from axes_async.tasks.drain import drain
from axes_async.tasks.expire import expire
from axes_async.utils import reset
from tests.conftest import PASSWORD
from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db(databases=["default", "attempts"])]


def enter(password: str) -> Any:
    return Client().post("/login/", {"username": "alice", "password": password})


@pytest.fixture(autouse=True)
def _user(db: None) -> None:
    User.objects.create_superuser("alice", password=PASSWORD)


@back_by
def test_the_login_view(back: str) -> None:
    follow(enter, back, right=302, wrong=200, path="/login/")


def test_the_tables_are_in_the_second_database_alone() -> None:
    tables = {alias: connections[alias].introspection.table_names() for alias in ("default", "attempts")}
    ours = {alias: [name for name in names if name.startswith("axes_async")] for alias, names in tables.items()}
    assert ours["default"] == []
    models = apps.get_app_config("axes_async").get_models()
    assert set(ours["attempts"]) == {model._meta.db_table for model in models if model._meta.managed}
    enter("wrong")
    drain()
    assert AccessFailureLog.objects.using("attempts").count() == 1


def test_a_flushed_store_is_filled_from_the_second_database(valkey: redis.Redis) -> None:
    for _ in range(3):
        enter("wrong")
    drain()
    valkey.flushall()
    assert enter(PASSWORD).status_code == 429
    assert reset() == 1
    assert enter(PASSWORD).status_code == 302


@override_settings(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}}
)
def test_without_a_store_logins_are_decided_in_the_second_database() -> None:
    assert [enter("wrong").status_code for _ in range(3)] == [200, 200, 429]
    assert enter(PASSWORD).status_code == 429
    drain()
    assert AccessAttempt.objects.using("attempts").get().failures_since_start == 3
    assert reset(username="alice") == 1
    assert enter(PASSWORD).status_code == 302
    drain()
    assert AccessLog.objects.using("attempts").count() == 1


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
def test_without_an_outbox_rows_go_to_the_second_database_all_the_same(settings: Any) -> None:
    assert isinstance(get_store(), CacheStore)
    assert [enter("wrong").status_code for _ in range(3)] == [200, 200, 429]


def test_the_admin_and_the_commands_read_there(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        enter("wrong")
    drain()
    client = Client(REMOTE_ADDR="203.0.113.7")
    client.force_login(User.objects.get())
    assert b"127.0.0.1" in client.get("/admin/axes_async/accessattempt/").content
    call_command("axes_list_attempts")
    assert capsys.readouterr().out == "127.0.0.1\talice\t2\t-\n"
    key = AccessAttempt.objects.get().pk
    client.post(f"/admin/axes_async/accessattempt/{key}/delete/", {"post": "yes"})
    assert AccessAttempt.objects.count() == 0
    assert expire() == {"attempts": 0, "counters": 1}
