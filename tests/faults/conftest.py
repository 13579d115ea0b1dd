"""Servers to break, processes to kill, and what became of the passwords that they were given."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from axes_async.stores.factory import forget, get_failover, get_store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.store import RedisStore
from tests.conftest import complete
from tests.faults.machines import Postgres, Valkey
from tests.nursery import Process

RETRY = 0.05
"""Seconds between two probes of a store that is away, in these tests."""

TIMEOUT = 0.5
"""Seconds to wait for an answer of the store: more than a machine that is busy with something else takes for one."""

PATIENT = 3.0
"""The same where a store that is only slow would be taken for a loss more than a test has counted."""


class Actor:
    """A process of ``tests.faults.actor``."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Start it; ``ready`` waits until it listens."""
        self.process = Process("tests.faults.actor", environment=environment)

    def ready(self) -> Actor:
        assert self.answer() == "ready"
        return self

    def send(self, name: str, **arguments: Any) -> None:
        """Give it a command, and do not wait."""
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Return its answer; ``None`` if it has ended."""
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            return None
        told = json.loads(line)
        assert "error" not in told, told["error"]
        return told["answer"]

    def ask(self, name: str, **arguments: Any) -> Any:
        """Give it a command, and return the answer."""
        self.send(name, **arguments)
        return self.answer()

    def kill(self) -> int:
        """End it, wherever it is; return how it ended."""
        return self.process.kill()


class Notes:
    """What the hashers of all processes of a test have noted."""

    def __init__(self, folder: Path) -> None:
        """Read the notes in ``folder``."""
        self.folder = folder

    def seen(self) -> list[tuple[str, str, str]]:
        """Return each password that a hasher was given: "wrong" or "right", the address, the username."""
        lines = [line for file in self.folder.glob("seen-*") for line in file.read_text().splitlines()]
        return [(kind, address, username) for kind, address, username in map(str.split, lines)]

    def guesses(self) -> Counter[str]:
        """Return how many wrong passwords were looked at, by address."""
        return Counter(address for kind, address, _ in self.seen() if kind == "wrong")

    def stop(self) -> None:
        """End the loops of all processes."""
        (self.folder / "stop").touch()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """Return what the processes of this test note."""
    return Notes(tmp_path)


@pytest.fixture
def own_valkey(settings: Any) -> Iterator[Valkey]:
    """Return a Valkey that holds the counters of this test; they are not complete before a sync."""
    server = Valkey()
    settings.AXES_STORE_RETRY_INTERVAL, settings.AXES_STORE_TIMEOUT = RETRY, TIMEOUT
    settings.CACHES = {
        **settings.CACHES,
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{server.url}/0"},
    }
    yield server
    forget()
    server.stop()


@pytest.fixture
def own_store(own_valkey: Valkey, transactional_db: None) -> RedisStore:
    """Return the store on it, complete for empty tables."""
    store = get_store()
    assert isinstance(store, RedisStore)
    complete(store)
    return store


@pytest.fixture
def failover(own_store: RedisStore) -> FailoverStore:
    """Return what logins go through."""
    return get_failover()


def environment(
    folder: Path, database: dict[str, Any], valkey: str, broker: str, settings: dict[str, Any]
) -> dict[str, str]:
    """Return the environment of a process of the site on the servers named."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
        "AXES_TEST_DATABASE": "sqlite",
        "AXES_TEST_REDIS_URL": valkey,
        "AXES_FAULTS_FOLDER": str(folder),
        "AXES_FAULTS_DATABASE": json.dumps(database),
        "AXES_FAULTS_VALKEY": f"{valkey}/0",
        "AXES_FAULTS_BROKER": broker,
        "AXES_FAULTS_SETTINGS": json.dumps(
            {"AXES_STORE_RETRY_INTERVAL": RETRY, "AXES_STORE_TIMEOUT": TIMEOUT, **settings}
        ),
    }


def database_of_test() -> dict[str, Any]:
    """Return a ``DATABASES`` entry for the database of this very test."""
    known = connection.settings_dict
    return {name: known[name] for name in ("ENGINE", "NAME", "USER", "HOST", "PORT")}


@pytest.fixture
def start_actor(own_valkey: Valkey, transactional_db: None, tmp_path: Path) -> Iterator[Callable[..., Actor]]:
    """Return a function that starts a process on the test's own Valkey and the test's database."""
    started: list[Actor] = []

    def start(database: dict[str, Any] | None = None, broker: str = "", **settings: Any) -> Actor:
        known = database or database_of_test()
        actor = Actor(environment(tmp_path, known, own_valkey.url, broker or f"{own_valkey.url}/1", settings))
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
    """Return a PostgreSQL that no other test needs."""
    yield _postgres
    _postgres.thaw()


@pytest.fixture
def own_database(own_postgres: Postgres, start_actor: Callable[..., Actor]) -> dict[str, Any]:
    """Return a ``DATABASES`` entry for a new database on it, with empty tables."""
    made, name = own_postgres.databases, f"faults{len(own_postgres.databases)}"
    if not made:
        own_postgres.create_database("migrated")
        first = start_actor({**own_postgres.options, "NAME": "migrated"}).ready()
        first.ask("migrate")
        first.kill()
        made.append("migrated")
        own_postgres.wait_until_unused("migrated")
        name = "faults1"
    own_postgres.create_database(name, template="migrated")
    made.append(name)
    return {**own_postgres.options, "NAME": name}
