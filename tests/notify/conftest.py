"""The servers that people are told by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.notify.sinks import MailServer, Receiver, Silent, running


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
