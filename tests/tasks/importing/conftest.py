"""A site that moves over, at noon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User

from tests import old_tables
from tests.conftest import PASSWORD
from tests.tasks.importing.old_site import COMMITS, NOON, TABLES


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Return the clock, standing at noon."""
    with time_machine.travel(NOON, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def _noon(clock: time_machine.Coordinates) -> None:
    """Have a test start at noon."""


@pytest.fixture
def _tables_go(db: None) -> Iterator[None]:
    """Have no table stay behind where no rolled back transaction takes it along."""
    yield
    if COMMITS:
        old_tables.drop()


@pytest.fixture
def _axes() -> None:
    """Make the tables of django-axes 8.3."""
    old_tables.create(*TABLES, "axes_accessattemptexpiration")


@pytest.fixture
def gets_in(alice: User, post: Callable[..., Any]) -> Callable[..., bool]:
    """Return a function that tells whether alice's password opens the door."""

    def gets_in(address: str, username: str = "alice") -> bool:
        status = post(username, PASSWORD, REMOTE_ADDR=address).status_code
        assert status in {204, 429}
        return bool(status == 204)

    return gets_in
