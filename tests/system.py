"""Servers from the system's packages, for tests that run only where those are installed: a MariaDB of our own."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers import free_port

NO_MARIADB = "No MariaDB server here; on Debian and Ubuntu: apt-get install mariadb-server"


def find(name: str) -> str | None:
    """Return the path of a server's program, which the path of an ordinary user may not lead to."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def run_until(command: list[str], *, user: str, is_up: Any, seconds: float = 30) -> None:
    """Start a server that is stopped at exit, and wait until it answers; as root, it runs as ``user``."""
    process = subprocess.Popen([*command, *as_user(user)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop() -> None:
        process.terminate()
        process.wait(timeout=30)

    atexit.register(stop)
    give_up = time.monotonic() + seconds
    while not is_up():
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"{command[0]} does not come up")
        time.sleep(0.05)


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
    options = ["--no-defaults", f"--datadir={data}"]
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
            f"--port={free_port()}",
            "--bind-address=127.0.0.1",
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
