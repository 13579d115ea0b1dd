"""Many attempts, sent through the store as the guard sends them, without a web around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

import redis

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Parameter, Rule, counters_for
from axes_async.stores.redis.server import STEPS, script
from axes_async.stores.redis.store import RedisStore

LEASE = 30_000
BY_ADDRESS: Rule = Rule(parameters=("ip_address",), limit=3, cooloff=3600.0)


def address(number: int) -> str:
    """Return the address number ``number``."""
    return str(IPv4Address(int(IPv4Address("100.64.0.0")) + number))


def counters(ip_address: str, username: str, rules: Iterable[Rule] = (BY_ADDRESS,)) -> tuple[Counter, ...]:
    """Return the counters of an attempt."""
    values: dict[Parameter, str | None] = {"ip_address": ip_address, "username": username, "user_agent": "tests"}
    return counters_for(rules, values)


def event(kind: Kind, username: str, ip_address: str) -> AttemptEvent:
    """Return an event of now."""
    return AttemptEvent(
        kind=kind, id=new_id(now_ms()), username=username, ip_address=ip_address, user_agent="tests", path_info="/"
    )


class Piped:
    """A client that sends steps in portions and waits for no answer in between; what they answer is not looked at."""

    def __init__(self, client: Any, size: int = 2000) -> None:
        """Send to the server of ``client``, with more patience than a login has."""
        known = client.connection_pool.connection_kwargs
        patient = redis.Redis(host=known["host"], port=known["port"], db=known.get("db", 0), socket_timeout=60)
        self.pipe, self.size = patient.pipeline(transaction=False), size
        for name in STEPS:
            patient.script_load(script(name)[0])

    def evalsha(self, *args: Any) -> bytes:
        """Send later."""
        self.pipe.evalsha(*args)
        if len(self.pipe) >= self.size:
            self.flush()
        return b"0|0|0|0"

    def flush(self) -> None:
        """Send what has gathered; raises what any step met."""
        self.pipe.execute()

    def close(self) -> None:
        """Close the connection."""
        self.pipe.connection_pool.disconnect()


@contextmanager
def piped(store: RedisStore) -> Iterator[None]:
    """Have the steps of ``store`` sent in portions."""
    patient, line = store.client, getattr(store, "line", None)
    hurried = Piped(patient)
    store.client = hurried
    if line is not None:
        store.line = None
    try:
        yield
        hurried.flush()
    finally:
        hurried.close()
        store.client = patient
        if line is not None:
            store.line = line


def fail_all(store: RedisStore, clients: Iterable[tuple[str, str]], rules: Sequence[Rule] = (BY_ADDRESS,)) -> int:
    """Count a failure for each username and address, in order; return how many."""
    sent = 0
    with piped(store):
        for username, ip_address in clients:
            failed = event(Kind.FAILED, username, ip_address)
            of_it = counters(ip_address, username, rules)
            store.fail(failed.id[-16:], of_it, (), failed, now=now_ms(), lease=LEASE, extend=False)
            sent += 1
    return sent


def turn_away(store: RedisStore, username: str, ip_address: str, times: int) -> None:
    """Have a client that is locked try ``times`` times more."""
    of_it = counters(ip_address, username)
    with piped(store):
        for _ in range(times):
            blocked = event(Kind.BLOCKED, username, ip_address)
            store.reserve(blocked.id[-16:], of_it, blocked, now=now_ms(), lease=LEASE, extend=False)
