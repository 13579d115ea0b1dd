"""Many attempts, sent through the store as the guard sends them, without a web around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address

import redis

from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Parameter, Rule, counters_for
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests.waiting import PATIENCE

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


PORTION = 2000
"""Steps that are sent before the answer to the first of them is read."""


@contextmanager
def piped(store: RedisStore) -> Iterator[None]:
    """Have the steps of ``store`` sent in portions, over a patient connection; see that each of them is done."""
    store.peek(counters("192.0.2.250", "nobody"))  # So that it knows the generation, and the server our functions.
    known = store.client.connection_pool.connection_kwargs
    patient = redis.Redis(host=known["host"], port=known["port"], db=known.get("db", 0), socket_timeout=PATIENCE)
    connection = patient.connection_pool.get_connection()
    waiting: list[bytes] = []

    def flush() -> None:
        connection.send_packed_command([b"".join(waiting)])
        for _ in waiting:
            reply = connection.read_response()
            assert reply[:1].isdigit(), reply
        waiting.clear()

    def call(command: bytes) -> bytes:
        waiting.append(command)
        if len(waiting) >= PORTION:
            flush()
        return b"0|0|0|0|0|0"

    store.call = call  # type: ignore[method-assign]
    try:
        yield
        flush()
    finally:
        del store.call
        patient.connection_pool.release(connection)
        patient.close()


def fail_all(store: RedisStore, clients: Iterable[tuple[str, str]], rules: Sequence[Rule] = (BY_ADDRESS,)) -> None:
    """Count a failure for each username and address, in order."""
    with piped(store):
        for username, ip_address in clients:
            failed = event(Kind.FAILED, username, ip_address)
            of_it = counters(ip_address, username, rules)
            store.do(Step(StepKind.FAIL, failed.id[-16:], of_it, event=failed))


def turn_away(store: RedisStore, username: str, ip_address: str, times: int) -> None:
    """Have a client that is locked try ``times`` times more."""
    of_it = counters(ip_address, username)
    with piped(store):
        for _ in range(times):
            blocked = event(Kind.BLOCKED, username, ip_address)
            store.do(Step(StepKind.RESERVE, blocked.id[-16:], of_it, event=blocked, lease=LEASE))
