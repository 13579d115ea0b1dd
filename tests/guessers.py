"""A process of password guessers: ``python -m tests.guessers THREADS`` waits for a line, then all guess at once.

A second argument is the address of a Memcached that holds the counters; or AXES_TEST_COUNTERS is the ``DATABASES``
entry, as JSON, of a database that does.
Prints how many passwords were looked at, as JSON, with the status of each answer.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import django


def main(threads: int, memcached: str = "") -> None:
    """Guess."""
    from django.conf import settings

    database = os.environ.get("AXES_TEST_COUNTERS")
    if database:
        settings.DATABASES = {"default": json.loads(database)}
    django.setup()
    from django.core.management import call_command
    from django.test import Client, override_settings

    from axes_async.stores.factory import get_store
    from tests.conftest import complete
    from tests.site import CountingBackend

    options: dict[str, Any] = {"AXES_FAILURE_LIMIT": 5}
    if database:
        from tests.stores.patience import take_all_the_time

        take_all_the_time()
        options["AXES_STORE"] = "database"
    else:
        call_command("migrate", verbosity=0)
    if memcached:
        backend = "django.core.cache.backends.memcached.PyMemcacheCache"
        options["CACHES"] = {"default": {"BACKEND": backend, "LOCATION": memcached}}
    elif not database:
        complete(get_store())
    CountingBackend.seconds = 0.05
    start = Barrier(threads)

    def guess(number: int) -> int:
        start.wait()
        return Client().post("/nobody/", {"username": "alice", "password": f"guess {number}"}).status_code

    with override_settings(**options), ThreadPoolExecutor(threads) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        statuses = Counter(pool.map(guess, range(threads)))
    print(json.dumps({"checks": CountingBackend.checks, "statuses": statuses}))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
