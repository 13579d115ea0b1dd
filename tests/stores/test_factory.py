"""The store that the settings ask for, and the one that takes its place in a site's tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings

from axes_async.errors import StoreUnavailable
from axes_async.models import AccessAttempt
from axes_async.stores import factory
from axes_async.stores.cache import CacheStore
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import database_name, get_failover, get_store
from axes_async.stores.redis.store import RedisStore
from tests import servers
from tests.actions import failure
from tests.conftest import PASSWORD, complete

Post = Callable[..., Any]
Drain = Callable[[], int]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, RedisStore),
        ({"AXES_CACHE": "memory"}, CacheStore),
        ({"AXES_CACHE": "table"}, CacheStore),
        ({"AXES_STORE": "database"}, DatabaseStore),
        ({"AXES_STORE": "database", "AXES_CACHE": "nowhere"}, DatabaseStore),
        ({"AXES_TEST_STORE": "database"}, DatabaseStore),
    ],
    ids=str,
)
def test_the_settings_name_the_store(changes: dict[str, Any], kind: type) -> None:
    with override_settings(**changes):
        assert type(get_store()) is kind
        assert get_failover().primary is get_store() is get_store()
    assert type(get_store()) is RedisStore


@pytest.mark.parametrize(
    ("changes", "fallback"),
    [
        ({}, True),
        ({"AXES_CACHE": "memory"}, True),
        ({"AXES_STORE": "database"}, False),
        ({"AXES_ON_STORE_FAILURE": "deny"}, False),
        ({"AXES_ON_STORE_FAILURE": "allow"}, False),
    ],
    ids=str,
)
def test_the_database_stands_behind_every_other_store_if_it_may_decide(changes: dict[str, Any], fallback: bool) -> None:
    with override_settings(**changes):
        failover = get_failover()
        assert (failover.fallback is not None) is fallback
        if fallback and failover.fallback is not None:
            assert failover.fallback.replaces is (failover.primary if not changes else None)


def test_a_cache_that_there_is_not_is_named() -> None:
    with override_settings(AXES_CACHE="nowhere"), pytest.raises(ImproperlyConfigured, match="AXES_CACHE is 'nowhere'"):
        get_store()


@pytest.mark.parametrize("prefix", ["", "site"])
def test_keys_carry_the_name_of_the_database(prefix: str, settings: Any, valkey: redis.Redis) -> None:
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "KEY_PREFIX": prefix}}
    valkey.flushall()
    complete(get_store())
    tag = f"axes:{prefix}:{database_name()}" if prefix else f"axes:{database_name()}"
    assert valkey.keys("*") == [f"{{{tag}}}:key"]
    assert len(database_name()) == 12


def test_another_name_of_the_database_is_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store, name = get_store(), database_name()
    monkeypatch.setitem(connections.settings["default"], "NAME", "another")
    assert get_store() is not store
    assert database_name() != name
    assert isinstance(get_store(), RedisStore)


def test_in_a_sites_tests_the_database_counts_by_default(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.AXES_TEST_STORE = "database"  # As it is if it is not set.
    assert factory.is_eager()
    store = get_store()
    assert isinstance(store, DatabaseStore)
    assert (store.standalone, store.nudge_always) == (True, True)
    monkeypatch.setattr(factory, "_tests_are_set_up", lambda: False)
    factory.note_databases()  # As where a test changes INSTALLED_APPS.
    assert factory.is_eager(), "the database is not the one that the apps were made ready with"
    monkeypatch.setitem(connections.settings["default"], "NAME", factory._names["default"])
    assert not factory.is_eager()
    assert isinstance(get_store(), RedisStore)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # It has threads, which the child does without.
def test_a_forked_process_builds_a_store_of_its_own() -> None:
    store = get_store()
    child = os.fork()
    if not child:
        os._exit(0 if get_store() is not store else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert get_store() is store


@pytest.mark.django_db
@pytest.mark.parametrize(
    "returned",
    [None, "redis://127.0.0.1/0", redis.Redis, redis.asyncio.Redis()],
    ids=["nothing", "a URL", "a class", "an async client"],
)
def test_what_is_no_client_is_refused_by_name_and_value(settings: Any, returned: Any) -> None:
    settings.AXES_REDIS_CLIENT = lambda: returned
    with pytest.raises(ImproperlyConfigured, match=r"AXES_REDIS_CLIENT returned .*it takes a callable"):
        failure()
    assert [error.id for error in run_checks(tags=["axes_async"])] == ["axes_async.E001"]


@pytest.mark.django_db
@pytest.mark.parametrize("decodes", [True, False])
def test_a_client_of_the_sites_own_counts_and_locks(
    alice: User, settings: Any, post: Post, drain: Drain, decodes: bool
) -> None:
    with redis.Redis.from_url(servers.valkey_url(), decode_responses=decodes) as own:
        settings.AXES_REDIS_CLIENT = lambda: own
        assert post(password=PASSWORD).status_code == 204
        assert [post().status_code for _ in range(4)] == [401, 401, 429, 429]
        assert drain() == 5
        assert AccessAttempt.objects.get().failures_since_start == 3


@pytest.mark.parametrize("within", ["", "CONNECTION_POOL_KWARGS"])
def test_options_of_the_cache_reach_the_server(settings: Any, valkey: redis.Redis, within: str) -> None:
    options: dict[str, Any] = {"username": "somebody", "password": "secret"}
    entry = {**settings.CACHES["default"], "OPTIONS": {within: options} if within else options}
    settings.CACHES = {**settings.CACHES, "default": entry}
    with pytest.raises(StoreUnavailable, match="Authentication"):
        get_store().probe()
    valkey.execute_command("ACL", "SETUSER", "somebody", "on", ">secret", "~*", "+@all")
    get_store().probe()
    valkey.execute_command("ACL", "DELUSER", "somebody")


def test_a_client_that_cannot_connect_yet_is_a_store_that_is_away(settings: Any) -> None:
    def connect() -> Any:
        raise redis.ConnectionError("refused")

    settings.AXES_REDIS_CLIENT = connect
    with pytest.raises(StoreUnavailable):
        get_store().probe()
