"""Every fault on a site under load: what was sent, what was written, and how long a login took.

Processes with threads guess passwords and log in, at the same few clients, while a server or a worker is broken and
mended again. Each attempt has a name of its own, so that every row can be traced to the attempt that it tells of.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.figures import heading, row

if TYPE_CHECKING:
    from tests.faults.machines import Postgres, Valkey

LIMIT = 5
PROCESSES, THREADS = 2, 6
LOAD, BREAK_AT, MEND_AT = 7.0, 2.0, 4.0
"""Seconds that the load lasts, and after which the fault begins and ends."""

SETTLED = 60.0
"""Seconds in which everything must have been written after the load."""

PAUSE = 0.004
WIDTHS = (34, 8, 8, 6, 9, 12, 13)


@dataclass
class Site:
    """Servers of our own, a worker, and the environment by which processes find them."""

    valkey: Valkey
    broker: Valkey
    postgres: Postgres
    database: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    """Names of the attempts whose events went with a flush: a server that is emptied keeps nothing."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the site is started with."""
        from axes_async.tasks.schedule import beat_schedule

        settings = {
            "AXES_FAILURE_LIMIT": LIMIT,
            "AXES_COOLOFF_TIME": 1,
            "AXES_STORE_REST": 0.5,
            "CELERY_BEAT_SCHEDULE": beat_schedule(drain_every=1, expire_every=60),
        }
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
            "AXES_TEST_DATABASE": "sqlite",
            "AXES_TEST_REDIS_URL": self.valkey.url,
            "AXES_FAULTS_DATABASE": json.dumps({**self.postgres.options, "NAME": self.database}),
            "AXES_FAULTS_VALKEY": f"{self.valkey.url}/0",
            "AXES_FAULTS_BROKER": f"{self.broker.url}/0",
            "AXES_FAULTS_SETTINGS": json.dumps(settings),
        }

    def sql(self, query: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        import psycopg

        host = self.postgres.options["HOST"]
        with psycopg.connect(host=host, user="postgres", dbname=database or self.database, autocommit=True) as one:
            cursor = one.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def start_worker(self) -> None:
        """Start a Celery worker, with beat in it."""
        command = [sys.executable, "-m", "celery", "-A", "tests.celery", "worker", "-B", "-c", "1"]
        command += ["-s", f"{self.valkey.server.data_dir}/beat{len(self.workers)}", "--loglevel", "CRITICAL"]
        quiet = subprocess.DEVNULL
        worker = subprocess.Popen(  # noqa: S603
            command, env=self.environment, start_new_session=True, stdout=quiet, stderr=quiet
        )
        self.workers.append(worker)

    def supervise(self) -> None:
        """Start a worker where none is running: Celery's own ends if its broker dies while it holds a message."""
        if all(worker.poll() is not None for worker in self.workers):
            self.start_worker()

    def kill_workers(self) -> None:
        """Kill them and their children, none of which can tidy anything up."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(10)
        self.workers.clear()


def flush(site: Site) -> None:
    """Empty the store, and note which events nobody had written yet."""
    position = site.sql("SELECT position FROM axes_async_draincursor")
    with site.valkey.client.pipeline(transaction=True) as pipe:
        pipe.xrange("{axes}:outbox", min=f"({position[0][0]}" if position else "-")
        pipe.flushall()
        held = pipe.execute()[0]
    site.flushed += [json.loads(fields["v1"])[2] for _, fields in held]


def kill_workers_often(site: Site) -> None:
    """Kill the worker and start another one, twice."""
    for _ in range(2):
        site.kill_workers()
        site.start_worker()
        time.sleep(0.8)


def nothing(site: Site) -> None:
    """Do nothing."""


Step = Callable[[Site], None]


def on(server: str, method: str) -> Step:
    """Return the step that calls a method of one of the site's servers."""
    return lambda site: getattr(getattr(site, server), method)()


FAULTS: dict[str, tuple[Step, Step]] = {
    "none": (nothing, nothing),
    "broker: killed, restarted": (on("broker", "kill"), on("broker", "start")),
    "broker: frozen": (on("broker", "freeze"), on("broker", "thaw")),
    "broker: silent": (on("broker", "silence"), on("broker", "replace")),
    "worker: killed three times": (kill_workers_often, Site.kill_workers),
    "worker: a second one": (Site.start_worker, nothing),
    "worker: away": (Site.kill_workers, nothing),
    "database: stopped, started": (on("postgres", "kill"), on("postgres", "start")),
    "database: frozen": (on("postgres", "freeze"), on("postgres", "thaw")),
    "store: frozen": (on("valkey", "freeze"), on("valkey", "thaw")),
    "store: killed, restarted (AOF)": (on("valkey", "kill"), on("valkey", "start")),
    "store: full": (on("valkey", "fill"), on("valkey", "make_room")),
    "store: a read-only replica": (on("valkey", "follow"), on("valkey", "lead")),
    "store: flushed": (flush, flush),
    "store: scripts flushed": (lambda site: site.valkey.client.script_flush(), nothing),
}
"""What is done when the fault begins, and when it ends."""


@contextlib.contextmanager
def running_site(postgres: Postgres) -> Iterator[Site]:
    """Run a site with empty servers and an empty database."""
    from tests.faults.machines import Valkey

    valkey = Valkey(appendonly="yes", appendfsync="everysec")
    site = Site(valkey, Valkey(), postgres, f"faults{valkey.port}")
    try:
        site.sql(f'CREATE DATABASE "{site.database}"', database="postgres")
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, env=site.environment, check=True)  # noqa: S603
        site.start_worker()
        yield site
    finally:
        postgres.thaw()
        site.kill_workers()
        site.valkey.stop()
        site.broker.stop()


def measure(postgres: Postgres, name: str) -> bool:
    """Run one fault and print its line; return whether nothing was lost, doubled or let through."""
    broken, mended = FAULTS[name]
    with running_site(postgres) as site:
        command = [sys.executable, "-m", "benchmarks.faults", "--guess"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        guessers = [
            subprocess.Popen([*command, str(number)], env=site.environment, **pipes)  # type: ignore[call-overload]  # noqa: S603
            for number in range(PROCESSES)
        ]
        for guesser in guessers:
            guesser.stdout.readline()
        for guesser in guessers:
            guesser.stdin.write("go\n")
            guesser.stdin.flush()
        time.sleep(BREAK_AT)
        broken(site)
        time.sleep(MEND_AT - BREAK_AT)
        mended(site)
        told = [json.loads(guesser.communicate(timeout=LOAD + 60)[0]) for guesser in guessers]
        site.supervise()
        sent = [tuple(one) for part in told for one in part["sent"]]
        return report(name, site, sent, max(part["slowest"] for part in told))


def report(name: str, site: Site, sent: list[tuple[Any, ...]], slowest: float) -> bool:
    """Wait until everything is written, and print what became of what was ``sent``."""
    names = Tally(username for username, _, _ in sent)
    give_up = time.monotonic() + SETTLED
    while True:
        written = Tally(username for (username,) in site.sql(ROWS))
        if (
            set(names) - set(written) <= set(site.flushed) and not site.valkey.client.xlen("{axes}:outbox")
        ) or time.monotonic() > give_up:
            break
        time.sleep(0.2)
    gone = set(site.flushed) - set(written)
    guesses = Tally(address for username, address, kind in sent if kind == "failed" and username not in gone)
    over = sum(max(0, count - LIMIT) for count in guesses.values())
    lost = len(set(names) - set(written) - gone)
    doubled = sum(count - 1 for count in written.values() if count > 1) + site.valkey.client.xlen("{axes}:dead")
    note = f"{len(gone)} went with the flush" if gone else ""
    figures = (f"{sum(names.values()):,}", f"{sum(written.values()):,}", f"{lost}", f"{doubled}", f"{over}")
    row(name, *figures, f"{slowest * 1000:,.0f} ms", note, widths=WIDTHS)
    return not (lost or doubled or over)


ROWS = """
    SELECT username FROM axes_async_accessfailurelog WHERE repeats = 0
    UNION ALL SELECT username FROM axes_async_accesslog
"""


def guess(number: int) -> None:
    """Guess and log in until the time is over; print what was looked at, and the slowest of all."""
    import django

    django.setup()
    from django.db import close_old_connections

    from tests.actions import failure, success

    def attack(thread: int) -> tuple[list[tuple[str, str, str]], float]:
        chance = random.Random(f"{number} {thread}")
        looked_at, slowest, tries = [], 0.0, 0
        while (elapsed := time.monotonic() - began) < LOAD:
            close_old_connections()
            tries += 1
            username = f"p{number}t{thread}n{tries}"
            newest = int(elapsed * 8)
            victim = chance.choice((newest, newest, newest, chance.randint(0, newest)))
            wrong = chance.random() < 0.8
            address = f"192.0.{victim // 200}.{victim % 200}" if wrong else f"198.51.{thread}.{tries % 250}"
            started = time.perf_counter()
            through = (failure if wrong else success)(username, address)
            slowest = max(slowest, time.perf_counter() - started)
            if through:
                looked_at.append((username, address, "failed" if wrong else "logged_in"))
            time.sleep(PAUSE)
        return looked_at, slowest

    with ThreadPoolExecutor(THREADS) as pool:
        failure(f"p{number}warm", f"203.0.113.{number}")
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        done = list(pool.map(attack, range(THREADS)))
    sent = [(f"p{number}warm", f"203.0.113.{number}", "failed"), *(one for part, _ in done for one in part)]
    print(json.dumps({"sent": sent, "slowest": max(slowest for _, slowest in done)}))


def main() -> int:
    """Print a line for each fault; return 1 if anything was lost, doubled, or let through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guess", type=int, metavar="NUMBER", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    options = parser.parse_args()
    if options.guess is not None:
        guess(options.guess)
        return 0
    from tests.faults.machines import Postgres

    heading("benchmarks.faults", f"Faults under load: {PROCESSES} processes of {THREADS} threads, limit {LIMIT}")
    row("fault", "events", "rows", "lost", "doubled", "over limit", "slowest", widths=WIDTHS)
    postgres = Postgres()
    try:
        fine = list(map(partial(measure, postgres), [name for name in FAULTS if options.only in name]))
    finally:
        postgres.stop()
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
