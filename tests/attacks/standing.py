"""A login site in a process of its own, whose hasher stands still until the test lets it go on.

So a test says what happens while a password is being looked at. The process is ``standing_process``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import servers
from tests.faults.conftest import database_of_test, environment
from tests.nursery import Process
from tests.waiting import PATIENCE

LIMIT = 5


class Web:
    """The site, as a test sees it."""

    def __init__(self, folder: Path, server: str, settings: dict[str, Any]) -> None:
        """Start it; ``settings`` are those that it has of its own."""
        self.folder = folder
        settings = {
            "ROOT_URLCONF": "tests.attacks.standing_site",
            "AUTHENTICATION_BACKENDS": [
                "axes_async.backends.AxesStandaloneBackend",
                "django.contrib.auth.backends.ModelBackend",
            ],
            "PASSWORD_HASHERS": ["tests.attacks.standing_site.StandingHasher"],
            "AXES_FAILURE_LIMIT": LIMIT,
            "AXES_RESERVE_WAIT": 0.5,
            "AXES_STORE_TIMEOUT": 10,
            **settings,
        }
        known = environment(folder, database_of_test(), servers.valkey().url, servers.valkey_url(1), settings)
        self.process = Process("tests.attacks.standing_process", server, environment=known)
        self.port = int(self.process.stdout.readline())

    def post(self, path: str, password: str, username: str = "alice") -> int:
        """Try a password; return the status of the answer."""
        fields = {"username": username, "password": password}
        return requests.post(f"http://127.0.0.1:{self.port}{path}", data=fields, timeout=PATIENCE / 2).status_code

    def send(self, path: str, password: str, username: str = "alice") -> socket.socket:
        """Send a password, and return the connection on which the answer would come."""
        body = f"username={username}&password={password}"
        head = [
            f"POST {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
        ]
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall("\r\n".join([*head, "", body]).encode())
        return connection

    def looked_at(self) -> int:
        """Return how many passwords the hasher was given."""
        file = self.folder / "looked-at"
        return len(file.read_text()) if file.exists() else 0

    def let_go(self, number: int | None = None) -> None:
        """Let the hasher go on: over the password that it was given as the first, the second ..., or over all."""
        (self.folder / ("go" if number is None else f"go-{number}")).touch()

    def stop(self) -> None:
        self.process.kill()


@pytest.fixture
def start_web(transactional_db: None, tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Return a function that starts the site on a server, with settings of its own."""
    started: list[Web] = []

    def start(server: str = "uvicorn", **settings: Any) -> Web:
        started.append(Web(tmp_path, server, settings))
        return started[-1]

    yield start
    for web in started:
        web.stop()
