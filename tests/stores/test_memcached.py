"""Counters in a real Memcached: exact across threads and processes, kept to the end, and decided in rows without it."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache

from axes_async import clock
from axes_async.clock import now_ms
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Rule, counters_for
from axes_async.models import AccessAttempt, AccessFailureLog
from axes_async.stores.cache import CacheStore
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.results import Verdict
from axes_async.stores.step import Step, StepKind
from axes_async.utils import reset
from tests import system
from tests.actions import failure, success
from tests.celery import app
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.stores.test_concurrency import at_once, in_4_processes, sign_in
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def cache(memcached: BaseCache, settings: Any, monkeypatch: pytest.MonkeyPatch) -> BaseCache:
    """Have the counters in Memcached, and the events written in the request."""
    settings.AXES_CACHE = "memcached"
    monkeypatch.setattr(app.conf, "broker_url", None)
    assert isinstance(get_store(), CacheStore)
    return memcached


def fail(store: CacheStore, address: str, *, cooloff: float) -> tuple[int, Any]:
    """Count a failure on the one rule that locks ``address`` at once; return when it ends, and the counter."""
    (counter,) = counters_for([Rule(parameters=("ip_address",), limit=1, cooloff=cooloff)], {"ip_address": address})
    event = AttemptEvent(kind=Kind.FAILED, id=new_id(now_ms()))
    return store.do(Step(StepKind.FAIL, "token", [counter], event=event)).locked_until, counter


def test_of_100_wrong_passwords_at_once_5_are_looked_at(cache: BaseCache, alice: User, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 5
    CountingBackend.seconds = 0.05
    assert Counter(at_once(100, lambda number: sign_in("wrong"))) == {401: 4, 429: 96}
    assert CountingBackend.checks == 5


def test_of_20_right_passwords_at_once_every_one_is_let_in(cache: BaseCache, alice: User, settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 5
    settings.AXES_RESERVE_WAIT = PATIENCE
    assert set(at_once(20, lambda number: sign_in(PASSWORD))) == {204}


def test_across_4_processes_5_of_40_wrong_passwords_are_looked_at(memcached: BaseCache) -> None:
    assert in_4_processes("10", caches.settings["memcached"]["LOCATION"]) == (5, {"401": 4, "429": 36})


def test_a_reset_lifts_a_lockout(cache: BaseCache) -> None:
    assert [failure() for _ in range(4)] == [True, True, True, False]
    assert AccessAttempt.objects.get().failures_since_start == 3
    assert reset() == 1
    assert success()


@pytest.mark.parametrize("cooloff", [timedelta(days=29), timedelta(days=31), timedelta(days=4000), None], ids=str)
def test_a_long_lockout_is_not_taken_for_a_time_that_is_over(cache: BaseCache, settings: Any, cooloff: Any) -> None:
    """Beyond thirty days, Memcached takes a timeout for a point in time."""
    settings.AXES_COOLOFF_TIME = cooloff
    assert [failure() for _ in range(4)] == [True, True, True, False]


def test_a_lockout_lasts_to_its_end_wherever_in_a_second_it_began(
    cache: BaseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memcached's clock cannot be set, and ticks once a second. A look that came too late says nothing."""
    store, numbers = CacheStore(lambda: caches["memcached"], shared=True), count()

    def begin(eighth: int) -> tuple[int, Any]:
        until(lambda: now_ms() % 1000 // 125 == eighth, what="that part of a second")
        return fail(store, f"192.0.2.{next(numbers) % 256}", cooloff=1.5)

    def all_were_seen_in_time() -> bool:
        monkeypatch.setattr(clock, "fixed_ms", now_ms)
        for end, counter in [begin(eighth) for eighth in range(8)]:
            until(lambda end=end: now_ms() >= end - 50, what="the last moments of the lockout")
            monkeypatch.setattr(clock, "fixed_ms", partial(int, end - 1))
            verdict = store.peek([counter]).verdict
            if now_ms() >= end:
                return False
            assert verdict is Verdict.LOCKED
            monkeypatch.setattr(clock, "fixed_ms", partial(int, end))
            assert store.peek([counter]).verdict is Verdict.ALLOWED
        return True

    until(all_were_seen_in_time, what="eight looks in time")


def test_reservations_of_a_crashed_process_end(cache: BaseCache, settings: Any) -> None:
    settings.AXES_RESERVE_WAIT = PATIENCE
    settings.AXES_FAILURE_LIMIT = 1
    counters = counters_for([Rule(parameters=("ip_address",), limit=1, cooloff=None)], {"ip_address": "192.0.2.1"})
    get_store().do(Step(StepKind.RESERVE, "crashed", counters, lease=200))
    assert failure(address="192.0.2.1")


@pytest.mark.parametrize("hides", [False, True], ids=["raises", "hides errors"])
def test_without_the_server_logins_are_decided_in_rows(
    alice: User, settings: Any, hides: bool, closed_port: int, drain: Callable[[], int]
) -> None:
    """A client that hides its errors (``ignore_exc``) looks like a cache that forgets at once."""
    location = f"127.0.0.1:{closed_port}"
    backend = "django.core.cache.backends.memcached.PyMemcacheCache"
    entry = {"BACKEND": backend, "LOCATION": location, "OPTIONS": {"ignore_exc": hides}}
    settings.CACHES = {**settings.CACHES, "memcached": entry}
    settings.AXES_CACHE = "memcached"
    guesses = [sign_in("wrong") for _ in range(5)]
    assert guesses == [401, 401, 429, 429, 429]
    assert get_failover().is_away
    drain()
    assert AccessFailureLog.objects.filter(locked_out=False).count() == 2


def test_a_server_that_is_silent_holds_nobody_up_for_long(
    cache: BaseCache, alice: User, settings: Any, freeze: Callable[[], None]
) -> None:
    assert sign_in("wrong") == 401
    freeze()
    options = {"connect_timeout": 0.1, "timeout": 0.1}
    settings.CACHES = {**settings.CACHES, "memcached": {**settings.CACHES["memcached"], "OPTIONS": options}}
    assert [sign_in("wrong") for _ in range(3)] == [401, 429, 429]
    assert get_failover().is_away


@pytest.fixture
def freeze() -> Iterator[Callable[[], None]]:
    """Return a function that stops the server where it is; afterwards it goes on."""
    server = system.find("memcached")
    assert server is not None
    _, process = system.memcached_process(server)
    yield lambda: process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGCONT)
