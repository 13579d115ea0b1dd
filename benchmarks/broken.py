"""A site whose servers and workers can be broken and mended again, and the list of ways to do it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.machines import Postgres, Valkey

LIMIT = 5


@dataclass
class Site:
    """Servers of our own, a worker, and the environment by which processes find them."""

    valkey: Valkey
    broker: Valkey
    postgres: Postgres
    database: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Besides those that every one of them has."""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    """Names of the attempts whose events went with a flush: a server that is emptied keeps nothing."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the site is started with."""
        from axes_async.tasks.schedule import beat_schedule

        settings = {
            **self.settings,
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
        command += ["-s", f"{self.valkey.folder}/beat{len(self.workers)}", "--loglevel", "CRITICAL"]
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
def running_site(postgres: Postgres, **settings: object) -> Iterator[Site]:
    """Run a site with empty servers and an empty database, and with ``settings`` of its own."""
    from tests.faults.machines import Valkey

    valkey = Valkey(appendonly="yes", appendfsync="everysec")
    site = Site(valkey, Valkey(), postgres, f"faults{valkey.port}", settings)
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
