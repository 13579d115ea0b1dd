"""Servers that a test may break and mend again, and a listener that never says a word."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from tests import servers
from tests.waiting import until


class Valkey(servers.Valkey):
    """A Valkey of the test's own."""

    listener: Listener | None = None
    replaced = 0

    @cached_property
    def nobody(self) -> servers.Port:
        """A port on which nobody listens."""
        return servers.Port()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def silence(self) -> None:
        """Put something on its port that takes connections and answers nothing."""
        self.kill()
        self.listener = Listener(self.port)

    def start(self) -> None:
        """Start it with what it has saved, in place of a silent listener too."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        super().start()

    def replace(self) -> None:
        """Put another one in its place, which knows nothing."""
        self.kill()
        for saved in ("dump.rdb", "appendonlydir"):
            with contextlib.suppress(FileNotFoundError):
                (self.folder / saved).rename(self.folder / f"{saved}.{self.replaced}")
        self.replaced += 1
        self.start()

    def fill(self) -> None:
        """Have it refuse whatever needs memory."""
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", "1mb")

    def make_room(self) -> None:
        self.client.config_set("maxmemory", "0")

    def follow(self) -> None:
        """Make it a replica, which takes no writes, of a server that does not exist."""
        self.client.replicaof(servers.HOST, self.nobody.number)

    def lead(self) -> None:
        self.client.replicaof("NO", "ONE")

    def stop(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        if "nobody" in self.__dict__:
            self.nobody.close()
        super().stop()


class Listener:
    """Takes connections, keeps them, answers nothing; counts them."""

    def __init__(self, port: int = 0) -> None:
        """Listen on ``port``, or on one that nobody uses."""
        self.socket = servers.bound(port)
        self.socket.listen(512)
        self.port: int = self.socket.getsockname()[1]
        self.taken: list[socket.socket] = []
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.taken.append(self.socket.accept()[0])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()
        for one in self.taken:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # No TIME_WAIT on the port.
            one.close()


class Postgres(servers.Postgres):
    """A PostgreSQL of the test's own; what was committed survives its end."""

    def __init__(self) -> None:
        """Start it, with no database of ours."""
        super().__init__()
        self.databases: list[str] = []

    def query(self, database: str, text: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(host=self.options["HOST"], user="postgres", dbname=database, autocommit=True) as one:
            return one.execute(text.encode()).fetchall()

    def wait_until_unused(self, database: str) -> None:
        """Wait until the server has noticed that the clients of a database are gone."""
        others = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"  # noqa: S608
        until(lambda: not self.query("postgres", others), what=f"nobody is connected to {database}")

    @property
    def pid(self) -> int:
        pid: int = self.server.get_pid()
        return pid

    @property
    def options(self) -> dict[str, Any]:
        return {**super().options, "OPTIONS": {"connect_timeout": 2}}

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Stop it as PostgreSQL's immediate mode does: every connection is cut, and nothing is finished."""
        pid = self.pid
        os.kill(pid, signal.SIGQUIT)
        until(lambda: _state(pid) == "Z", what="PostgreSQL stopped")

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (self.folder / "postmaster.pid").unlink(missing_ok=True)
            self.server.ensure_postgres_running()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        super().stop()

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server, and then its children, which serve the connections: one that is stopped starts no more."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            until(lambda: _state(self.pid) in "TZ", what="PostgreSQL stands still")
        others = [process for process in Path("/proc").iterdir() if process.name.isdigit()]
        for pid in [int(process.name) for process in others if _parent(process) == self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None


def _state(pid: int) -> str:
    """Return the letter that Linux has for what a process does: "T" if it is stopped, "Z" if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
