"""A broken connection is not a lost store: while the store is well, the limit is exact whatever is cut off."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Literal

import pytest

from axes_async.counters.events import Kind
from axes_async.models import StoreState
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.step import Step, StepKind
from tests.attacks.proxies import Proxy
from tests.attacks.sites import DENIED, LIMIT, Site
from tests.faults.conftest import Notes
from tests.faults.machines import Valkey
from tests.faults.sending import BY_ADDRESS, LEASE, counters, event
from tests.waiting import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)

kinds = pytest.mark.parametrize("kind", ["threads", "gevent", "uvicorn"])


@pytest.mark.parametrize("when", ["unasked", "unanswered"])
@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_step_that_is_cut_off_is_done_once_and_by_the_store(
    own_store: RedisStore, proxy: Proxy, times: int, when: Literal["unasked", "unanswered"]
) -> None:
    primary = RedisStore(build_client(proxy.url, {}, timeout=PATIENCE), namespace=own_store.counter_prefix[1:-4])
    of_it, failed = counters("192.0.2.1", "alice", [BY_ADDRESS]), event(Kind.FAILED, "alice", "192.0.2.1")
    with closing(FailoverStore(primary, DatabaseStore(replaces=primary))) as store:
        setattr(proxy, when, times)
        store.do(Step(StepKind.RESERVE, "token", of_it, lease=LEASE))
        setattr(proxy, when, times)
        assert store.do(Step(StepKind.FAIL, "token", of_it, event=failed, held_in=store.generation)).failures == (1,)
        assert not store.is_away
    assert own_store.peek(of_it).failures == (1,)
    assert own_store.size().events == 1
    assert StoreState.objects.get().mode == StoreState.STORE


def see_bursts(site: Site, valkey: Valkey, notes: Notes, bursts: int) -> None:
    """Let one client after the other guess many times at once, while all connections to the store are cut."""
    chance = random.Random(bursts)

    async def cut(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0, 0.1))
            valkey.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    site.guess([("nobody", "198.51.100.1")] * 8)
    for number in range(bursts):
        address = f"192.0.2.{number}"
        guesses = [("alice", address)] * chance.randint(50, 200)
        answers = site.guess(guesses, meanwhile=lambda number=number: cut(number % 3 + 1))
        statuses = Counter(status for status, _ in answers)
        assert notes.guesses()[address] == LIMIT, (number, statuses)
        assert set(statuses) <= {401, DENIED}
    assert StoreState.objects.get().mode == StoreState.STORE


@kinds
def test_limit_is_exact_while_connections_are_cut(
    start_site: Callable[..., Site], own_valkey: Valkey, notes: Notes, kind: str
) -> None:
    see_bursts(start_site(kind), own_valkey, notes, 3)


@pytest.mark.long
@pytest.mark.timeout(1800)
@kinds
def test_limit_is_exact_in_100_bursts(
    start_site: Callable[..., Site], own_valkey: Valkey, notes: Notes, kind: str
) -> None:
    see_bursts(start_site(kind), own_valkey, notes, 100)
