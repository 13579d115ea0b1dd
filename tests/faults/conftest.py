"""Servers to break, processes to kill, and breakers that know nothing of the test before."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from axes_async.delivery import publisher as outbox
from axes_async.delivery.circuit_breaker import Breaker
from axes_async.ledger import database_name
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks import drain as drain_module
from tests.conftest import WARMTH
from tests.faults.machines import Postgres, Valkey

REST = 0.2
"""Seconds between two looks at a store that is away, in these tests."""

TIMEOUT = 0.3
"""Seconds to wait for an answer of the store: more than a machine that is busy with something else takes for one."""


class Actor:
    """A process of ``tests.faults.actor``."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.actor"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def send(self, name: str, **arguments: Any) -> None:
        """Give it a command, and do not wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Return its answer; ``None`` if it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def ask(self, name: str, **arguments: Any) -> Any:
        """Give it a command, and return the answer."""
        self.send(name, **arguments)
        return self.answer()

    def kill(self) -> int:
        """End it, wherever it is; return how it ended."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        return self.process.wait(10)


@pytest.fixture
def own_valkey(settings: Any) -> Iterator[Valkey]:
    """Return a Valkey that holds the counters of this test, complete for an empty table."""
    server = Valkey()
    server.client.set(WARMTH, f"warm:{database_name()}")
    settings.AXES_STORE_REST, settings.AXES_STORE_TIMEOUT = REST, TIMEOUT
    settings.CACHES = {
        **settings.CACHES,
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{server.url}/0"},
    }
    yield server
    get_failover().is_away = False  # So that its watcher ends.
    get_store().client.close()  # type: ignore[attr-defined]
    server.stop()


@pytest.fixture
def own_store(own_valkey: Valkey) -> RedisStore:
    """Return the store on it."""
    store = get_store()
    assert isinstance(store, RedisStore)
    return store


@pytest.fixture
def failover(own_store: RedisStore) -> FailoverStore:
    """Return what logins go through."""
    return get_failover()


@pytest.fixture(autouse=True)
def _breakers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test with every breaker closed."""
    monkeypatch.setattr(outbox, "_broker", Breaker(rest=5.0))
    monkeypatch.setattr(drain_module, "_database", Breaker(rest=0.01, longest=0.05))


def environment(database: dict[str, Any], valkey: str, broker: str, **settings: Any) -> dict[str, str]:
    """Return the environment of a process of the site on the servers named."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "AXES_TEST_DATABASE": "sqlite",
        "AXES_TEST_REDIS_URL": valkey,
        "AXES_FAULTS_DATABASE": json.dumps(database),
        "AXES_FAULTS_VALKEY": f"{valkey}/0",
        "AXES_FAULTS_BROKER": broker,
        "AXES_FAULTS_SETTINGS": json.dumps(settings),
    }


@pytest.fixture
def start_actor(own_valkey: Valkey, transactional_db: None) -> Iterator[Callable[..., Actor]]:
    """Return a function that starts a process on the test's own Valkey and the test's database."""
    started: list[Actor] = []

    def start(database: dict[str, Any] | None = None, broker: str = "", **settings: Any) -> Actor:
        if database is None:
            known = connection.settings_dict
            database = {name: known[name] for name in ("ENGINE", "NAME", "USER", "HOST", "PORT")}
        actor = Actor(environment(database, own_valkey.url, broker or f"{own_valkey.url}/1", **settings))
        started.append(actor)
        return actor

    yield start
    for actor in started:
        actor.kill()


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def own_postgres(_postgres: Postgres) -> Iterator[Postgres]:
    """Return a PostgreSQL that no other test needs, with empty tables."""
    yield _postgres
    _postgres.thaw()
