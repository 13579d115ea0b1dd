"""A whole site (gunicorn, a Celery worker, servers of its own) that can be broken and mended again, and how."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from benchmarks import load

if TYPE_CHECKING:
    from tests.faults.machines import Postgres, Valkey

LIMIT = 5
TIMEOUT, RETRY = 0.07, 1.0
"""``AXES_STORE_TIMEOUT`` and ``AXES_STORE_RETRY_INTERVAL``: their defaults."""

PATIENCE = 300.0
"""Seconds after which something is taken for broken for good."""

FORM = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": load.CHROME, "Accept": load.CHROME_ACCEPT}
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}


@dataclass
class Site:
    """Servers of our own, web processes, a worker, and the environment by which they find each other."""

    valkey: Valkey
    broker: Valkey
    postgres: Postgres
    database: str
    webs: int = 3
    """Gunicorn's processes."""
    threads: int = 2
    """The threads of each."""
    tasks: int = 1
    """Processes of the worker."""
    settings: dict[str, Any] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="axes-benchmark-")))
    socket: socket.socket = field(default_factory=socket.socket)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """Usernames whose events were in the outbox of a store when it was emptied."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the site is started with."""
        from axes_async.tasks.schedule import beat_schedule

        settings = {
            "AXES_FAILURE_LIMIT": LIMIT,
            "AXES_STORE_TIMEOUT": TIMEOUT,
            "AXES_STORE_RETRY_INTERVAL": RETRY,
            "CELERY_BEAT_SCHEDULE": beat_schedule(),
            **self.settings,
        }
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "BENCH_SITE": "axes_async",
            "BENCH_REDIS_URL": self.valkey.url,
            "BENCH_BROKER": f"{self.broker.url}/0",
            "BENCH_DATABASE": json.dumps({**self.postgres.options, "NAME": self.database, "CONN_MAX_AGE": None}),
            "BENCH_SETTINGS": json.dumps(settings),
            "BENCH_NOTES": str(self.folder),
        }

    def run(self, *arguments: str) -> None:
        """Run one of Django's commands to its end."""
        subprocess.run([sys.executable, "-m", "django", *arguments], env=self.environment, check=True, **QUIET)  # noqa: S603

    def start_webs(self) -> None:
        """Start gunicorn on a port that stays ours."""
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(512)
        number = str(self.socket.fileno())
        command = [sys.executable, "-m", "gunicorn", "benchmarks.wsgi", "--bind", f"fd://{number}", "-k", "gthread"]
        command += ["-w", str(self.webs), "--threads", str(self.threads), "--timeout", "300", "--no-control-socket"]
        self.processes.append(
            subprocess.Popen(command, env=self.environment, pass_fds=[int(number)], **QUIET)  # noqa: S603
        )

    def start_worker(self) -> None:
        """Start a Celery worker, with beat in it."""
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.wsgi", "worker", "-B", "-c", str(self.tasks)]
        command += ["-s", str(self.folder / f"beat{len(self.workers)}-{time.time()}"), "--loglevel", "CRITICAL"]
        self.workers.append(subprocess.Popen(command, env=self.environment, **QUIET))  # noqa: S603

    def supervise(self) -> None:
        """Start a worker where none is running: Celery's own ends if its broker dies while it holds a message."""
        if all(worker.poll() is not None for worker in self.workers):
            self.start_worker()

    def kill_workers(self) -> None:
        """Kill them and their children, none of which can tidy anything up."""
        kill(self.workers)

    def stop(self) -> None:
        """End all of it, but for PostgreSQL."""
        kill(self.processes)
        self.kill_workers()
        self.socket.close()
        self.valkey.stop()
        self.broker.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_in(self, username: str, address: str, password: str = "wrong") -> tuple[int, float]:  # noqa: S107
        """Try a password from ``address``; return the status of the answer, and the seconds that it took."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.socket.getsockname()[1], timeout=PATIENCE)
        try:
            body = urlencode({"username": username, "password": password})
            connection.request("POST", "/sign-in/", body, {**FORM, "X-Client": address, "Connection": "close"})
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        return answer.status, time.perf_counter() - started

    def checked(self) -> list[tuple[str, str]]:
        """Return address and username of every password that reached the check, in any process."""
        lines = [line for file in self.folder.glob("checked-*") for line in file.read_text().splitlines()]
        return [(address, username) for address, username in map(str.split, lines)]

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none while PostgreSQL does not answer."""
        return self.postgres.query(self.database, query)

    def is_complete(self) -> bool:
        """Return whether the store decides, with all counters that the rows have."""
        import psycopg
        import redis

        try:
            state = self.sql("SELECT mode, generation FROM axes_async_storestate")
            key = str(self.valkey.client.get(self.name("key")) or "").split()
            run_id = self.valkey.client.info("server")["run_id"]
        except (redis.RedisError, psycopg.Error, OSError):
            return False
        return (
            bool(state and state[0][0] == "store" and key and key[0] == "ok" and int(key[1]) >= state[0][1])
            and key[3] == run_id
        )

    def name(self, of: str) -> str:
        """Return the store's own name of ``key`` or ``outbox``; '' until it has been there once."""
        if of not in self.names:
            found = next(self.valkey.client.scan_iter(f"{{axes:*:{of}", count=10_000), None)
            if found is None:
                return ""
            self.names[of] = found
        return self.names[of]


Step = Callable[[Site], None]


def kill(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill processes and all of their children."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    processes.clear()


def written(site: Site) -> Tally[str]:
    """Return how many rows tell of the failure of each username."""
    return Tally(name for (name,) in site.sql("SELECT username FROM axes_async_accessfailurelog WHERE repeats = 0"))


def usernames(entries: Any) -> set[str]:
    """Return who the entries of an outbox tell of."""
    from axes_async.counters.events import AttemptEvent

    return {AttemptEvent.parse(fields["e"]).username or "" for _, fields in entries}


@contextlib.contextmanager
def running_site(postgres: Postgres, prepare: Step | None = None, **options: Any) -> Iterator[Site]:
    """Run a site with servers of its own, once its store is complete.

    :param prepare: called when the empty tables are there, and nothing runs.
    """
    from tests.faults.machines import Valkey
    from tests.waiting import until

    valkey = Valkey()
    site = Site(valkey, Valkey(), postgres, f"site{valkey.port}_{time.monotonic_ns()}", **options)
    try:
        postgres.create_database(site.database)
        site.run("migrate", "--verbosity", "0")
        if prepare is not None:
            prepare(site)
        site.start_webs()
        site.start_worker()
        for number in range(3 * site.webs):
            site.log_in(f"warm{number}", f"203.0.113.{number}")
        until(site.is_complete, seconds=PATIENCE, what="the store is complete")
        yield site
    finally:
        postgres.thaw()
        site.stop()


# The faults.


def nothing(site: Site) -> None:
    """Do nothing."""


def flush(site: Site) -> None:
    """Empty the store between two commands of anybody else, and note whose events were in it."""
    with site.valkey.client.pipeline(transaction=True) as pipe:
        pipe.xrange(site.name("outbox"))
        pipe.flushall()
        entries, _ = pipe.execute()
    site.held |= usernames(entries)


def kill_store(site: Site) -> None:
    """Kill it, once it takes no more writes, and note whose events are in it."""
    site.valkey.client.client_pause(600_000, all=False)
    site.held |= usernames(site.valkey.client.xrange(site.name("outbox")))
    site.valkey.kill()


def kill_after_snapshot(site: Site) -> None:
    """Have it save what it has now, and kill it a second later."""
    site.valkey.client.save()
    time.sleep(1)
    kill_store(site)


def kill_workers_often(site: Site) -> None:
    """Kill the worker three times, and start another one each time."""
    for _ in range(3):
        site.kill_workers()
        site.start_worker()
        time.sleep(1.5)


def on(server: str, method: str) -> Step:
    """Return the step that calls a method of one of the site's servers."""
    return lambda site: getattr(getattr(site, server), method)()


@dataclass(frozen=True)
class Fault:
    """Something that breaks, and is mended again."""

    begin: Step
    end: Step = nothing
    losses: int = 0
    """How often the store loses counters, or is away, so that a client may guess up to the limit anew."""
    is_away: bool = False
    """Whether the store is away until the fault ends."""


FAULTS: dict[str, Fault] = {
    "none": Fault(nothing),
    "broker: killed, restarted": Fault(on("broker", "kill"), on("broker", "start")),
    "broker: frozen": Fault(on("broker", "freeze"), on("broker", "thaw")),
    "worker: killed three times": Fault(kill_workers_often),
    "database: stopped, started": Fault(on("postgres", "kill"), on("postgres", "start")),
    "store: killed, nothing saved": Fault(kill_store, on("valkey", "start"), 1, is_away=True),
    "store: frozen": Fault(on("valkey", "freeze"), on("valkey", "thaw"), 1, is_away=True),
    "store: full": Fault(on("valkey", "fill"), on("valkey", "make_room"), 1, is_away=True),
    "store: a read-only replica": Fault(on("valkey", "follow"), on("valkey", "lead"), 1, is_away=True),
    "store: flushed": Fault(flush, losses=1),
    "store: restarted, old snapshot": Fault(kill_after_snapshot, on("valkey", "start"), 1, is_away=True),
}
