"""One measured site in a process of its own: reads one JSON command a line, answers with one line.

A command names a function below and its arguments. Nothing else is in this process, so sites do not disturb each other.
"""

from __future__ import annotations

import gc
import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from urllib.parse import urlencode
from wsgiref.util import setup_testing_defaults

import django
import redis
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections  # noqa: E402

from benchmarks import load, servers  # noqa: E402
from benchmarks.settings import LIMIT, SITE  # noqa: E402
from benchmarks.site import PASSWORD, KnownPassword  # noqa: E402

Celery("benchmarks", set_as_current=True).config_from_object("django.conf:settings", namespace="CELERY")
application = get_wsgi_application()
numbers: Iterator[int] = count()
valkey = redis.Redis.from_url(servers.redis_url())


def prepare() -> None:
    """Make the tables and the user."""
    call_command("migrate", verbosity=0)
    KnownPassword.user = User.objects.create_user("alice")
    valkey.set("bench:get", "1")
    complete()
    gc.collect()
    gc.freeze()


def complete() -> None:
    """Have our store decide, as on any site with a worker; a store that was emptied leaves it to the database."""
    if SITE == "axes_async":
        from axes_async.stores.factory import get_store
        from axes_async.tasks.sync import sync_store

        if not sync_store(get_store()):
            raise RuntimeError("The store is not complete.")


def requests(kind: str, number: int, *, quiet: bool = False) -> dict[str, Any]:
    """Send ``number`` requests, one after another; return the nanoseconds of each and the statuses seen.

    ``times`` are by the clock, ``cpu`` is what this process has worked, all of its threads together.

    ``failed``: a wrong password, each for another username from another address. ``successful``: the right one.
    ``denied``: wrong ones from one address that is locked out, or on a site without a package, just wrong ones.

    :param quiet: whether the outbox is to be quiet before each request, so that it has to nudge the worker.
    """
    password = PASSWORD if kind == "successful" else "wrong"
    clients = [next(numbers) for _ in range(number)]
    if kind == "denied":
        clients = clients[:1] * number
        for _ in range(LIMIT + 1):
            _request(_environ(clients[0], password))
    environs = [_environ(client, password) for client in clients]
    nudged = _nudged_key() if quiet and SITE == "axes_async" else ""
    gc.collect()
    times, cpu, statuses = [], [], set()
    for environ in environs:
        if nudged:
            valkey.delete(nudged)
        worked, started = time.process_time_ns(), time.perf_counter_ns()
        status = _request(environ)
        times.append(time.perf_counter_ns() - started)
        cpu.append(time.process_time_ns() - worked)
        statuses.add(status)
    return {"times": times, "cpu": cpu, "statuses": sorted(statuses)}


def round_trips(number: int) -> dict[str, Any]:
    """Send ``number`` bare ``GET`` through redis-py's default client; return the nanoseconds of each."""
    gc.collect()
    times = []
    for _ in range(number):
        started = time.perf_counter_ns()
        valkey.get("bench:get")
        times.append(time.perf_counter_ns() - started)
    return {"times": times}


def empty() -> None:
    """Empty the store, but for what ``round_trips`` asks for."""
    valkey.flushdb()
    valkey.set("bench:get", "1")


def sequence(guesses: int) -> int:
    """Post wrong passwords for one username from one address, one after another; return how many were checked."""
    KnownPassword.checks, client = 0, next(numbers)
    for _ in range(guesses):
        _request(_environ(client, "wrong"))
    return KnownPassword.checks


def race(threads: int, seconds: float) -> int:
    """Post as many wrong passwords at once, each in a thread; return how many were checked.

    :param seconds: how long one password check takes.
    """
    KnownPassword.checks, KnownPassword.seconds, client = 0, seconds, next(numbers)
    together = threading.Barrier(threads)

    def guess() -> None:
        try:
            together.wait()
            _request(_environ(client, "wrong"))
        finally:
            connections.close_all()

    running = [threading.Thread(target=guess) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    KnownPassword.seconds = 0.0
    return KnownPassword.checks


def _nudged_key() -> str:
    """Return the key without which the next event finds the outbox quiet."""
    from axes_async.stores.factory import get_store
    from axes_async.stores.redis.store import RedisStore

    store = get_store()
    return store.nudged_key if isinstance(store, RedisStore) else ""


def _environ(client: int, password: str) -> dict[str, Any]:
    body = urlencode({"username": load.username(client), "password": password}).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/sign-in/",
        "REMOTE_ADDR": load.address(client),
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_USER_AGENT": load.CHROME,
        "HTTP_ACCEPT": load.CHROME_ACCEPT,
        "wsgi.input": io.BytesIO(body),
    }
    setup_testing_defaults(environ)
    return environ


def _request(environ: dict[str, Any]) -> str:
    seen = ""

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
        nonlocal seen
        seen = status
        return lambda data: None

    response = application(environ, start_response)
    b"".join(response)
    response.close()
    return seen


COMMANDS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (prepare, complete, requests, round_trips, empty, sequence, race)
}


def main() -> None:
    """Answer commands until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(COMMANDS[name](**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
