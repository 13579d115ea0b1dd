"""Servers from the system's packages, a MariaDB and a Memcached: tests that need one run only where it is installed."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers import HOST, Port
from tests.waiting import until

NO_MARIADB = "No MariaDB server here; on Debian and Ubuntu: apt-get install mariadb-server"

NO_MEMCACHED = "No Memcached server here; on Debian and Ubuntu: apt-get install memcached"

NO_CHROMIUM = "No Chromium here; on Debian and Ubuntu: apt-get install chromium"


def find(name: str) -> str | None:
    """Return the path of a server's program, which the path of an ordinary user may not lead to."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def run_until(command: list[str], *, user: str, is_up: Callable[[], bool]) -> subprocess.Popen[bytes]:
    """Start a server that is stopped at exit, wait until it answers, and return it; as root, it runs as ``user``."""
    process = subprocess.Popen([*command, *as_user(user)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop() -> None:
        process.terminate()
        process.wait()

    atexit.register(stop)

    def is_up_or_ended() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} does not come up")
        return is_up()

    until(is_up_or_ended, what=f"{command[0]} is up")
    return process


def as_user(user: str) -> list[str]:
    """Return the option by which a server that root starts becomes ``user``."""
    return [f"--user={user}"] if os.geteuid() == 0 else []


@cache
def mariadb() -> dict[str, Any] | None:
    """Return a ``DATABASES`` entry for a running MariaDB of this test process; ``None`` where none is installed."""
    server, install = find("mariadbd"), find("mariadb-install-db")
    if server is None or install is None:
        return None
    import pymysql

    pymysql.install_as_MySQLdb()
    folder = Path(tempfile.mkdtemp(prefix="axes-mariadb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if os.geteuid() == 0:
        shutil.chown(folder, "mysql")
    data = folder / "data"
    options = ["--no-defaults", f"--datadir={data}", f"--tmpdir={folder}"]  # Several of them share no file.
    made = subprocess.run(
        [install, *options, *as_user("mysql"), "--auth-root-authentication-method=normal", "--skip-test-db"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(made.stdout + made.stderr)
    place = folder / "socket"
    run_until(
        [
            server,
            *options,
            f"--socket={place}",
            "--skip-networking",
            "--max-connections=300",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=64M",
            "--innodb-flush-log-at-trx-commit=0",
        ],
        user="mysql",
        is_up=lambda: _answers(place),
    )
    return {"ENGINE": "django.db.backends.mysql", "NAME": "axes", "USER": "root", "HOST": str(place)}


def _answers(place: Path) -> bool:
    import pymysql

    try:
        pymysql.connect(unix_socket=str(place), user="root").close()
    except pymysql.Error:
        return False
    return True


def memcached() -> dict[str, Any] | None:
    """Return a ``CACHES`` entry for a Memcached of our own; ``None`` where none is installed."""
    server = find("memcached")
    if server is None:
        return None
    port, _ = memcached_process(server)
    return {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": f"{HOST}:{port}"}


@cache
def memcached_process(server: str) -> tuple[int, subprocess.Popen[bytes]]:
    """Return the port of a running Memcached of this test process, and its process."""
    held = Port()
    held.lend()
    atexit.register(held.close)
    command = [server, f"--listen={HOST}", f"--port={held.number}"]
    return held.number, run_until(command, user="nobody", is_up=lambda: _listens(held.number))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
