"""What a login costs the Redis or Valkey server. It does one thing at a time, so this is the ceiling of a site.

Failed logins with two plain counters each (the address; the address with the username): a ``reserve`` and a ``fail``.
Microseconds per call are the server's own (``INFO commandstats``), by the clock: whatever else runs on the machine only
adds to them, so the least of all batches is shown first, then the median. Logins a second are those for which one core
has the time (``INFO cpu``, network and parsing included). All with few counters in the store, and with very many: a
bare ``HGET`` on a counter shows what memory outside the caches of the processor costs by itself. The server's memory
allocator matters: packages of Redis and Valkey for Linux have jemalloc, the one that pip installs has libc's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from statistics import median
from typing import Any

import django
import redis
from django.conf import settings

from axes_async.counters.events import Kind
from axes_async.counters.rules import Counter
from axes_async.stores.redis.connection import packed
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from benchmarks import load, servers
from benchmarks.figures import heading, row, spread, verdict

TARGET = 40
"""Microseconds of the server's that a call may take."""

LEASE, LIMIT = 30_000, 1_000_000
"""So high a limit that every login counts."""

BATCH = 200
"""Logins that are sent before their replies are read."""

WIDTHS = (12, 18, 18, 18, 36)


SHOWN = {"reserve": 1, "fail": 1, "hget": 2}
"""The columns of microseconds, with the digits behind their points."""


class Recorder(RedisStore):
    """Keeps the commands of its steps, and sends none."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.commands: list[bytes] = []

    def call(self, command: bytes) -> Any:
        self.commands.append(command)
        return b"0|0|0|0|0|0"


def counters_of(number: int) -> tuple[Counter, ...]:
    """Return the two counters of a client."""
    return load.counters(load.address(number), load.username(number), rules=load.BY_ADDRESS_AND_PAIR, limit=LIMIT)


def bare(store: RedisStore, numbers: Sequence[int]) -> list[bytes]:
    """Return an ``HGET`` for each counter of the clients ``numbers``."""
    keys = [store.counter_prefix + counter.digest for number in numbers for counter in counters_of(number)]
    return [packed(("HGET", key, "f")) for key in keys]


def commands(recorder: Recorder, numbers: Sequence[int]) -> tuple[list[bytes], list[bytes]]:
    """Return the commands of a failed login of each of the clients ``numbers``: reserving, and failing."""
    recorder.commands = []
    for number in numbers:
        address, username = load.address(number), load.username(number)
        counters = counters_of(number)
        event = load.event(Kind.FAILED, address, username)
        recorder.do(Step(StepKind.RESERVE, event.id[:16], counters, event=event, lease=LEASE))
        recorder.do(Step(StepKind.FAIL, event.id[:16], counters, event=event))
    return recorder.commands[::2], recorder.commands[1::2]


def play(connection: Any, sent: Sequence[bytes]) -> None:
    """Send commands at once and read their replies."""
    connection.send_packed_command((b"".join(sent),), check_health=False)
    for _ in sent:
        connection.read_response()


def microseconds(client: redis.Redis, connection: Any, sent: Sequence[bytes], command: str = "fcall") -> float:
    """Return how long the server worked at each of ``sent``, by its own count."""
    client.config_resetstat()
    play(connection, sent)
    return float(client.info("commandstats")[f"cmdstat_{command}"]["usec_per_call"])


def cpu(client: redis.Redis) -> float:
    """Return the seconds that the server's main thread has worked so far."""
    told = client.info("cpu")
    return float(told["used_cpu_user_main_thread"]) + float(told["used_cpu_sys_main_thread"])


def measure(store: RedisStore, recorder: Recorder, connection: Any, known: int, rounds: int) -> dict[str, list[float]]:
    """Measure logins of clients that have counters already, spread over all of them."""
    figures: dict[str, list[float]] = {"reserve": [], "fail": [], "hget": [], "logins": []}
    for turn in range(rounds):
        numbers = [(turn * 7919 + place * 104729) % known for place in range(BATCH * 3)]
        reserves, fails = commands(recorder, numbers[:BATCH])
        figures["hget"].append(microseconds(store.client, connection, bare(store, numbers[BATCH * 2 :]), "hget"))
        figures["reserve"].append(microseconds(store.client, connection, reserves))
        figures["fail"].append(microseconds(store.client, connection, fails))
        reserves, fails = commands(recorder, numbers[BATCH : BATCH * 2])
        pairs = [part for pair in zip(reserves, fails, strict=True) for part in pair]
        before = cpu(store.client)
        play(connection, pairs)
        figures["logins"].append(BATCH / (cpu(store.client) - before))
        store.trim(store.key().last)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counters", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    # Those of axes_async, and the user model's field of names, are read for the normal forms of addresses and names.
    settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"])
    django.setup()
    heading("benchmarks.server", "The server's part of a failed login with two plain counters")
    print(f"Cores: {servers.on_cores(apart=True)}\n")
    client = build_client(servers.redis_url(), {}, timeout=60)
    client.flushall()
    print(f"Its memory is given out by {client.info('memory')['mem_allocator']}.\n")
    store, recorder = RedisStore(client), Recorder(client)
    store.invalidate(1)
    store.complete(1, 0)
    recorder.generation = 1
    connection = client.connection_pool.make_connection()
    connection.connect()
    store.do(Step(StepKind.RESERVE, "first", load.counters("192.0.2.1", "first"), lease=0))  # Loads the functions.
    row("counters", "reserve, µs", "fail, µs", "bare HGET, µs", "logins/s of one core", widths=WIDTHS)
    made = 0
    for wanted in options.counters:
        while made < wanted // 2:
            portion = range(made, min(made + BATCH, wanted // 2))
            play(connection, commands(recorder, portion)[1])
            made = portion.stop
            store.trim(store.key().last)
        found = measure(store, recorder, connection, made, options.rounds)
        logins = re.sub(r"\.\d+", "", spread(found["logins"]))
        cells = [f"{min(found[name]):.{places}f} ({median(found[name]):.{places}f})" for name, places in SHOWN.items()]
        longest = max(min(found["reserve"]), min(found["fail"]))
        row(f"{wanted:,}", *cells, logins, verdict(longest, at_most=TARGET), widths=WIDTHS)
    connection.disconnect()
    client.close()


if __name__ == "__main__":
    main()
