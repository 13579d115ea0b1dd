"""A process of password guessers: ``python -m tests.guessers THREADS`` waits for a line, then all guess at once.

Prints how many passwords were looked at, as JSON, with the status of each answer.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import django


def main(threads: int) -> None:
    """Guess."""
    django.setup()
    from django.core.management import call_command
    from django.test import Client, override_settings

    from axes_async.store import get_store
    from axes_async.stores.redis import RedisStore
    from tests.site import CountingBackend

    call_command("migrate", verbosity=0)
    store = get_store()
    assert isinstance(store, RedisStore)
    store.client.set(store.warmth_key, f"warm:{store.database}")
    CountingBackend.seconds = 0.05
    start = Barrier(threads)

    def guess(number: int) -> int:
        start.wait()
        return Client().post("/nobody/", {"username": "alice", "password": f"guess {number}"}).status_code

    with override_settings(AXES_FAILURE_LIMIT=5), ThreadPoolExecutor(threads) as pool:
        print("ready", flush=True)
        sys.stdin.readline()
        statuses = Counter(pool.map(guess, range(threads)))
    print(json.dumps({"checks": CountingBackend.checks, "statuses": statuses}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
