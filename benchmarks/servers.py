"""Where the benchmarks' servers are: those of the tests, started when first asked for and stopped at exit."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import redis

REDIS_URL = "BENCH_REDIS_URL"
DATABASE = "BENCH_DATABASE"


def redis_url(database: int = 0) -> str:
    """Return the URL of a database of the Valkey that ``BENCH_REDIS_URL`` names, or of one started for us."""
    given = os.environ.get(REDIS_URL)
    if given:
        return f"{given.rstrip('/')}/{database}"
    from tests import servers

    return servers.valkey_url(database)


def database() -> dict[str, Any]:
    """Return a ``DATABASES`` entry: what ``BENCH_DATABASE`` holds as JSON, or a PostgreSQL started for us."""
    given = os.environ.get(DATABASE)
    if given:
        return dict(json.loads(given))
    from tests import servers

    return servers.postgres()


def handed_down(database: dict[str, Any]) -> dict[str, str]:
    """Return environment variables by which a process of ours finds the same Valkey, and ``database``."""
    return {REDIS_URL: redis_url().rpartition("/")[0], DATABASE: json.dumps(database)}


@cache
def _cores() -> list[int]:
    """Return the cores that we may use, asked for before we keep to one of them."""
    return sorted(os.sched_getaffinity(0))


def on_cores(*, apart: bool = False) -> str:
    """Keep this process and those it starts on one core, and our Valkey on it or ``apart``; return where they are.

    Else the scheduler moves them together and apart, and a round trip costs 28 µs one moment and 110 the next.
    """
    if os.environ.get(REDIS_URL) or not hasattr(os, "sched_setaffinity"):
        return "where the scheduler puts them"
    with redis.Redis.from_url(redis_url()) as client:
        server = int(client.info("server")["process_id"])
    cores = _cores()
    try:
        for task in Path(f"/proc/{server}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[-1 if apart else 0]})
    except OSError:
        return "where the scheduler puts them"
    os.sched_setaffinity(0, {cores[0]})
    return "on one core each" if apart and len(cores) > 1 else "on one core"
