"""What a counter and an event cost in the store, in bytes, with the values that real clients send.

Twice: by what the server's ``used_memory`` grows by over many of them (hash tables, expiry and allocator included), and
by ``MEMORY USAGE`` of single keys.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.settings")
django.setup()

from axes_async.counters.events import Kind  # noqa: E402
from axes_async.counters.rules import Parameter  # noqa: E402
from axes_async.stores.redis.server import build_client  # noqa: E402
from axes_async.stores.redis.store import RedisStore  # noqa: E402
from axes_async.stores.step import Step, StepKind  # noqa: E402
from benchmarks import load, servers  # noqa: E402
from benchmarks.figures import heading, row, verdict  # noqa: E402

COUNTER_TARGET, EVENT_TARGET = 300, 500
LEASE = 30_000
SETTLED, SLACK = 6, 2_000
"""The memory in use has settled when so many readings in a row, 0.2 s apart, differ by no more bytes than that."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of load."""

    name: str
    rules: tuple[tuple[Parameter, ...], ...] = load.BY_ADDRESS
    address: Callable[[int], str] = load.address
    cooloff: float | None = load.HOUR
    reserved: bool = False
    """Whether each counter holds an open reservation beside its failure."""


CASES = (
    Case(name="one rule, IPv4"),
    Case(name="one rule, IPv4, reserved", reserved=True),
    Case(name="one rule, IPv4, no cool-off", cooloff=None),
    Case(name="one rule, IPv6", address=load.address6),
    Case(name="two rules, IPv4", rules=load.BY_ADDRESS_AND_PAIR),
    Case(name="two rules, IPv6", rules=load.BY_ADDRESS_AND_PAIR, address=load.address6),
)
WIDTHS = (30, 11, 14, 11, 14)


def measure(store: RedisStore, case: Case, number: int) -> dict[str, float]:
    """Count ``number`` failures, each of another client; return bytes per counter and per event, in both ways."""
    valkey = store.client
    valkey.flushall(asynchronous=False)
    store.invalidate(1)
    store.complete(1, 0)
    before = used(valkey)
    for index in range(number):
        address, username = case.address(index), load.username(index)
        counters = load.counters(address, username, rules=case.rules, cooloff=case.cooloff)
        event = load.event(Kind.FAILED, address, username)
        store.do(Step(StepKind.FAIL, event.id[-16:], counters, event=event))
        if case.reserved:
            store.do(Step(StepKind.RESERVE, event.id[:16], counters, event=event, lease=LEASE))
    full = used(valkey)
    stream = valkey.memory_usage(store.outbox_key, samples=0)
    store.trim(store.key().last)
    counters_alone = used(valkey)
    keys = list(valkey.scan_iter(match="*:c:*", count=1000))
    (state, *_) = store.states(counters)
    if state.failures != 1 or len(keys) != number * len(case.rules):
        raise AssertionError(f"{len(keys)} counters, the last one with {state.failures} failures: not what was sent.")
    return {
        "counter": (counters_alone - before) / len(keys),
        "counter key": median(valkey.memory_usage(key) for key in keys[:1000]),
        "event": (full - counters_alone) / number,
        "event key": stream / number,
    }


def used(valkey: Any) -> int:
    """Return the bytes in use, without clients' buffers, once the server has freed what it frees in its own time."""
    readings: list[int] = []
    while len(readings) < SETTLED or max(readings[-SETTLED:]) - min(readings[-SETTLED:]) > SLACK:
        time.sleep(0.2)
        info = valkey.info("memory")
        readings.append(int(info["used_memory"] - info["mem_clients_normal"]))
    return readings[-1]


def main() -> None:
    """Print bytes per counter and per event."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000, help="clients, of one failure each (default 10,000)")
    number = parser.parse_args().number
    heading("benchmarks.memory", f"Bytes in the store, over {number:,} clients with one failure each")
    store = RedisStore(build_client(servers.redis_url(), {}, timeout=5))
    measure(store, CASES[0], 100)
    row("", "a counter", "MEMORY USAGE", "an event", "MEMORY USAGE", widths=WIDTHS)
    for case in CASES:
        found = measure(store, case, number)
        row(
            case.name,
            *(f"{found[name]:,.0f}" for name in ("counter", "counter key", "event", "event key")),
            f"counter {verdict(found['counter'], at_most=COUNTER_TARGET)}; "
            f"event {verdict(found['event'], at_most=EVENT_TARGET)}",
            widths=WIDTHS,
        )
    body = load.event(Kind.FAILED, load.address(0), load.username(0)).body()
    print(
        f"\nan event's text: {len(body)} bytes; {len(load.CHROME)} are the user agent, {len(load.CHROME_ACCEPT)} Accept"
    )


if __name__ == "__main__":
    main()
