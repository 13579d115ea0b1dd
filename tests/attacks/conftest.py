"""A site of each kind on servers of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from axes_async.stores.redis.store import RedisStore
from tests.attacks.proxies import Proxy
from tests.attacks.sites import Site
from tests.faults.conftest import database_of_test, failover, notes, own_store, own_valkey  # noqa: F401  (fixtures)
from tests.faults.machines import Valkey


@pytest.fixture
def start_site(own_valkey: Valkey, own_store: RedisStore, tmp_path: Path) -> Iterator[Callable[..., Site]]:  # noqa: F811
    """Return a function that starts a site of a kind, with settings of its own, on a store that is complete."""
    started: list[Site] = []

    def start(kind: str, *, valkey: str = "", **settings: Any) -> Site:
        started.append(Site(kind, tmp_path, database_of_test(), valkey or own_valkey.url, **settings))
        return started[-1]

    yield start
    for site in started:
        site.stop()


@pytest.fixture
def proxy(own_valkey: Valkey) -> Iterator[Proxy]:  # noqa: F811
    """Return a place between sites and the Valkey."""
    one = Proxy(own_valkey.port)
    yield one
    one.stop()
