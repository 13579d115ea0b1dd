"""The servers that people are told by, and a clock that stands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from tests.notify.sinks import MailServer, Receiver, Silent, running

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Return the clock, standing at noon."""
    with time_machine.travel(NOON, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """Return a running mail server."""
    server = MailServer()
    with running(server):
        yield server


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Return a server that takes connections and never answers."""
    server = Silent()
    with running(server):
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a running receiver of webhooks."""
    server = Receiver()
    with running(server):
        yield server
