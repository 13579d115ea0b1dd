"""`make run`: checks the ports, prepares the database and the demo user, then runs the Procfile until it is stopped.

`python -m example_project.run` listens on `PORT` (8000). It uses the Redis or Valkey that `REDIS_URL` names; without
one it has the Procfile start Valkey on `VALKEY_PORT`, or on a port that is free.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TextIO

import django
import redis
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import Error as DatabaseError
from django.db import connections
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import env
from .paths import REDIS_URL_FILE, ROOT, VAR_DIR
from .processes import HOST, StartError, claim_port, hold_lock, hold_port, port_from, write_holder
from .ready import announce


def main() -> int:
    """Run the site; returns the exit code of the runner."""
    try:
        with hold_lock(VAR_DIR / "run.lock") as lock:
            return start(lock)
    except (StartError, ImproperlyConfigured) as error:
        print(f"The site cannot start. {error}", file=sys.stderr)
        return 1


def start(lock: TextIO) -> int:
    """Prepare everything and run the Procfile. Raises `StartError` or `ImproperlyConfigured`."""
    port = port_from("PORT", default=8000)
    claim_port(port, "PORT")
    os.environ["PORT"] = str(port)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    with choose_store():
        try:
            prepare_database()
            print(f"The site starts at http://{HOST}:{port}/ - stop it with Ctrl-C.", flush=True)
            announce(f"http://{HOST}:{port}/")
            return run_procfile(lock)
        finally:
            REDIS_URL_FILE.unlink(missing_ok=True)


def choose_store() -> AbstractContextManager[object]:
    """Say in the environment which store the site has: the one `REDIS_URL` names, or a Valkey to be started.

    While what is returned is open, no other program gets the port of that Valkey.
    """
    REDIS_URL_FILE.unlink(missing_ok=True)
    if env.text("REDIS_URL", ""):
        os.environ.pop("VALKEY_PORT", None)
        require_answer(env.redis_url("REDIS_URL", default=""))
        return nullcontext()
    if env.text("VALKEY_PORT", ""):
        port, held = port_from("VALKEY_PORT", default=6379), None
        claim_port(port, "VALKEY_PORT")
    else:
        held = hold_port()
        port = held.getsockname()[1]
        if sys.platform != "linux":
            held.close()
    os.environ["VALKEY_PORT"] = str(port)
    os.environ["REDIS_URL"] = f"redis://{HOST}:{port}/0"
    REDIS_URL_FILE.write_text(os.environ["REDIS_URL"] + "\n")
    return held or nullcontext()


def require_answer(url: str) -> None:
    """Raise `StartError` unless the server at `url` answers a PING."""
    client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
    except redis.RedisError as error:
        raise StartError(f"REDIS_URL names {env.without_password(url)}, which does not answer: {error}") from None
    finally:
        client.close()


def prepare_database() -> None:
    """Bring the database up to date and make the demo user. Raises `StartError` when the database does not answer."""
    django.setup()
    try:
        call_command("migrate", verbosity=0)
        if settings.DEBUG:
            call_command("seed_demo")
    except DatabaseError as error:
        raise StartError(f"The database cannot be used: {error}") from None
    finally:
        connections.close_all()


def run_procfile(lock: TextIO) -> int:
    """Run all lines of the Procfile; 0 when this process was told to stop, else the code of the one that ended."""
    # The tools that the lines call stand beside the Python that runs this.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    os.environ["PYTHONUNBUFFERED"] = "1"
    stopped = False
    # Honcho cannot take a signal while it starts its lines, which is a matter of a few dozen milliseconds.
    may_stop_at = time.monotonic() + 1.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        time.sleep(max(0.0, may_stop_at - time.monotonic()))
        honcho.terminate()

    # A session of its own keeps Ctrl-C and a closing terminal to this process, which passes on one clean stop. The lock
    # goes with it, so that the site counts as running for as long as its processes do.
    honcho = subprocess.Popen(
        [sys.executable, "-m", "honcho", "start", "--env", "", "--procfile", "Procfile"],
        cwd=ROOT,
        start_new_session=True,
        pass_fds=[lock.fileno()],
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    write_holder(lock, honcho.pid)
    code = honcho.wait()
    # Honcho's own codes for SIGINT and SIGTERM: it was told to stop by itself, without this process.
    if stopped or code in {130, 143}:
        return 0
    print("One of the processes ended, so the others were stopped; the lines above say why.", file=sys.stderr)
    return code or 1


if __name__ == "__main__":
    sys.exit(main())
