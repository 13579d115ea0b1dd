"""Web servers that serve the test site, and logins that are sent to them all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests import servers
from tests.faults.conftest import environment
from tests.nursery import Process
from tests.waiting import PATIENCE

LIMIT = 5
DENIED = 429
PATIENT = PATIENCE / 2
"""Seconds to wait for an answer of the store where its silence is not the point: a busy machine is slow."""

SETTINGS: dict[str, Any] = {
    "AUTHENTICATION_BACKENDS": ["axes_async.backends.AxesStandaloneBackend", "tests.attacks.web.NotingBackend"],
    "AXES_FAILURE_LIMIT": LIMIT,
    "AXES_TRUSTED_PROXIES": ["127.0.0.1"],
    "AXES_STORE_TIMEOUT": PATIENT,
    "AXES_STORE_RETRY_INTERVAL": 1.0,
    "HASHER_SECONDS": 0.05,
}

GUNICORN = ("gunicorn", "django.core.wsgi:get_wsgi_application()", "--no-control-socket", "--bind", "fd://{fd}")
COMMANDS = {
    "one": (*GUNICORN, "--worker-class", "gthread", "--workers", "1", "--threads", "4"),
    "threads": (*GUNICORN, "--worker-class", "gthread", "--workers", "3", "--threads", "40"),
    "gevent": (*GUNICORN, "--worker-class", "gevent", "--workers", "2"),
    "uvicorn": ("uvicorn", "--factory", "django.core.asgi:get_asgi_application", "--lifespan", "off", "--fd", "{fd}"),
}
"""How each kind of web server is started: one process or several of threads, or of greenlets, or with an event loop."""

PATHS = {"one": "/sign-in/", "threads": "/sign-in/", "gevent": "/sign-in/", "uvicorn": "/async-sign-in/"}

Answer = tuple[int, bytes]
"""The status of a response, and all of it."""


class Site:
    """Web processes of one kind on the test's database and on the Valkey that is given."""

    def __init__(
        self, kind: str, folder: Path, database: dict[str, Any], valkey: str, *, path: str = "", **settings: Any
    ) -> None:
        """Start it. The port is the test's own; requests wait there until the processes are up."""
        self.path = path or PATHS[kind]
        self.socket = servers.bound()
        self.socket.listen(4096)
        self.log = (folder / f"{kind}.log").open("wb")
        known = environment(folder, database, valkey, f"{valkey}/1", {**SETTINGS, **settings})
        self.process = Process(
            *COMMANDS[kind],
            environment=known,
            listener=self.socket,
            log=self.log,
            loaded=kind != "gevent",  # gevent replaces what modules would have imported by then.
        )

    def guess(
        self, clients: Iterable[tuple[str, str]], *, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> list[Answer]:
        """Try a wrong password for each username and address, all at once; return the answers in that order.

        :param meanwhile: runs from when all have been sent until all are answered.
        """
        return asyncio.run(self._guess(list(clients), meanwhile))

    async def _guess(
        self, clients: list[tuple[str, str]], meanwhile: Callable[[], Awaitable[None]] | None
    ) -> list[Answer]:
        opened = [await asyncio.open_connection(*self.socket.getsockname()) for _ in clients]
        for (_, writer), (username, address) in zip(opened, clients, strict=True):
            writer.write(self._request(username, address))
        other = None if meanwhile is None else asyncio.ensure_future(meanwhile())
        answers = await asyncio.wait_for(asyncio.gather(*(_answer(*streams) for streams in opened)), PATIENCE)
        if other is not None and not other.cancel():
            await other
        return answers

    def _request(self, username: str, address: str) -> bytes:
        body = urlencode({"username": username, "password": "wrong"})
        lines = [
            f"POST {self.path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: close",
            "Content-Type: application/x-www-form-urlencoded",
            f"Content-Length: {len(body)}",
            f"X-Forwarded-For: {address}",
            "User-Agent: tests",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def printed(self) -> str:
        """Return what its processes have printed so far."""
        return Path(self.log.name).read_text(errors="replace")

    @property
    def pids(self) -> list[int]:
        """The processes that serve requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children] or [self.process.pid]

    def stop(self) -> None:
        self.process.kill()
        self.socket.close()
        self.log.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    try:
        answer = await reader.read(-1)
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]), answer
