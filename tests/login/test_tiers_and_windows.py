"""Lockouts that grow longer, and failures that expire alone, as a site sees them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import redis
import time_machine
from django.test import Client

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.counters.rules import LockoutTier, counters_for
from axes_async.counters.state import CounterState
from axes_async.login.rules_in_force import rules_for
from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.signals import user_locked_out
from axes_async.stores.contract import OutboxStore
from axes_async.stores.database.rows import saved_of
from axes_async.stores.factory import get_store
from axes_async.tasks.expire import expire
from axes_async.utils import reset
from tests.actions import failure, success
from tests.site import CountingBackend
from tests.stores.test_concurrency import at_once

Drain = Callable[[], int]
TIERS = (LockoutTier(3, timedelta(minutes=5)), LockoutTier(6, timedelta(hours=1)), LockoutTier(8, timedelta(hours=24)))

pytestmark = [pytest.mark.django_db]


SETTINGS: dict[str, dict[str, Any]] = {
    "tiers": {"AXES_LOCKOUT_TIERS": TIERS},
    "tiers of a rule": {
        "AXES_LOCKOUT_RULES": [{"parameters": "ip_address", "tiers": [(3, timedelta(minutes=5)), (6, 1)]}]
    },
    "window": {"AXES_USE_ATTEMPT_EXPIRATION": True, "AXES_COOLOFF_TIME": timedelta(minutes=10)},
}


@pytest.fixture(params=SETTINGS)
def how(request: pytest.FixtureRequest, settings: Any) -> str:
    """Have tiers or a window in the settings; return which."""
    for name, value in SETTINGS[request.param].items():
        setattr(settings, name, value)
    return str(request.param)


@pytest.fixture
def clock() -> Iterator[time_machine.Coordinates]:
    """Stand still until told to move."""
    with time_machine.travel("2026-01-01T00:00:00+00:00", tick=False) as clock:
        yield clock


def guesses(times: int) -> int:
    """Return how many of so many guesses were looked at."""
    return sum(failure() for _ in range(times))


def test_through_the_site_a_lockout_grows_and_a_window_moves(
    any_store: str, how: str, clock: time_machine.Coordinates
) -> None:
    if how == "window":
        assert guesses(2) == 2
        clock.shift(300)
        assert guesses(3) == 1
        clock.shift(299)
        assert guesses(1) == 0
        clock.shift(2)
        assert guesses(5) == 2
    else:
        assert guesses(5) == 3
        clock.shift(301)
        assert guesses(5) == 3
        clock.shift(3599)
        assert guesses(5) == 0
        clock.shift(2)
        assert guesses(5) >= 1


def test_each_lockout_is_told_once(any_store: str, how: str, clock: time_machine.Coordinates) -> None:
    told: list[Any] = []

    def hear(sender: Any, **kwargs: Any) -> None:
        told.append(kwargs["username"])

    user_locked_out.connect(hear)
    try:
        guesses(5)
        clock.shift(601)
        guesses(5)
    finally:
        user_locked_out.disconnect(hear)
    assert told == ["alice", "alice"]


@pytest.mark.parametrize(
    ("who", "shift"), [({}, 0), ({}, 330), ({"ip": "192.0.2.1"}, 330), ({"username": "alice"}, 330)], ids=str
)
def test_a_reset_unlocks_and_forgets_the_level(
    any_store: str, how: str, who: dict[str, str], shift: int, clock: time_machine.Coordinates
) -> None:
    guesses(2)
    clock.shift(shift)
    guesses(2)
    clock.shift(shift)
    assert guesses(3) < 3 or shift
    assert reset(**who) == 1
    assert guesses(5) == 3
    clock.shift(299)
    assert guesses(1) == 0


def test_a_reset_of_some_of_the_failures_leaves_the_others(how: str, settings: Any, drain: Drain) -> None:
    failure("alice")
    failure("alice")
    failure("bob")
    assert not failure("bob")
    assert reset(username="alice") == 1
    assert [failure("bob") for _ in range(3)] == [True, True, False]


def test_a_login_clears_the_level_of_ones_own_account(
    any_store: str, how: str, settings: Any, clock: time_machine.Coordinates
) -> None:
    settings.AXES_RESET_ON_SUCCESS = True
    assert guesses(2) == 2
    assert success()
    assert guesses(5) == 3
    assert not success()


@pytest.mark.parametrize("drained", [True, False])
@pytest.mark.parametrize("worker", [True, False])
def test_a_flushed_store_keeps_level_lockout_and_window(
    how: str, drained: bool, worker: bool, drain: Drain, valkey: redis.Redis, clock: time_machine.Coordinates
) -> None:
    guesses(2)
    clock.shift(240)
    guesses(2)

    def flush() -> None:
        drain()
        valkey.flushdb()
        if worker:
            drain()

    flush()
    assert guesses(1) == 0
    clock.shift(301)
    flush()
    if how == "window":
        assert guesses(1) == 0
        clock.shift(60)
        flush()
        assert guesses(5) == 2
        return
    assert guesses(2) == 2
    flush()
    assert guesses(3) == 1
    clock.shift(3500)
    flush()
    assert guesses(1) == 0


def live_rows() -> dict[str, tuple[Any, ...]]:
    """Return the state of each counter row that counts now."""
    now = now_ms()
    found = {row.digest: saved_of(row, now) for row in AttemptCounter.objects.all()}
    return {digest: state_in(saved.state) for digest, saved in found.items() if saved.state.failures}


def state_in(state: CounterState) -> tuple[Any, ...]:
    return state.failures, state.expires_at, state.locked_until if state.locked_until > now_ms() else 0, state.ends


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 5))])
def test_store_and_rows_agree_after_any_mix_of_attempts_resets_and_flushes(
    how: str, seed: int, settings: Any, drain: Drain, valkey: redis.Redis, clock: Any
) -> None:
    settings.AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = seed % 2 == 1
    settings.AXES_RESET_ON_SUCCESS = [False, "account", True][seed % 3]
    if how != "tiers of a rule":
        settings.AXES_LOCKOUT_PARAMETERS = ["ip_address", "username", ["username", "ip_address"]]
    random = Random(f"{how} {seed}")
    everybody = [{"username": name, "address": f"192.0.2.{n}"} for name in ("alice", "bob") for n in range(2)]
    made = rules_for(get_settings(), None, None)
    counters = {
        counter.digest: counter
        for who in everybody
        for counter in counters_for(made, {"username": who["username"], "ip_address": who["address"]})
    }
    for _ in range(120):
        action, who = random.random(), random.choice(everybody)
        clock.shift(random.choice([0, 1, 10, 60, 200]))
        if action < 0.6:
            failure(**who)
        elif action < 0.7:
            success(**who)
        elif action < 0.8:
            drain()
        elif action < 0.92:
            drain()
            if action < 0.86:
                valkey.flushdb()
        elif action < 0.96:
            reset(ip=who["address"])
        else:
            reset(username=who["username"])
    drain()
    states = dict(zip(counters, get_store().states([*counters.values()]), strict=True))
    assert {digest: state_in(state) for digest, state in states.items() if state.failures} == live_rows()


@pytest.mark.django_db(transaction=True)
def test_in_a_burst_each_tier_lets_exactly_its_failures_through(settings: Any) -> None:
    settings.AXES_LOCKOUT_TIERS = [(3, timedelta(seconds=1)), (7, timedelta(seconds=1)), (9, timedelta(hours=1))]
    CountingBackend.seconds = 0.02

    def guess(number: int) -> int:
        return Client().post("/nobody/", {"username": "alice", "password": "wrong"}).status_code

    looked_at = []
    with time_machine.travel("2026-01-01T00:00:00+00:00", tick=False) as clock:
        for _ in range(4):
            before = CountingBackend.checks
            statuses = Tally(at_once(40, guess))
            looked_at.append(CountingBackend.checks - before)
            assert statuses.get(401, 0) == max(0, looked_at[-1] - 1)
            clock.shift(1.001)
    assert looked_at == [3, 4, 2, 0]


@pytest.mark.django_db(transaction=True)
def test_in_a_burst_a_window_lets_exactly_what_has_ended_through(settings: Any) -> None:
    settings.AXES_USE_ATTEMPT_EXPIRATION, settings.AXES_FAILURE_LIMIT = True, 5
    settings.AXES_COOLOFF_TIME = timedelta(seconds=100)
    CountingBackend.seconds = 0.02

    def guess(number: int) -> int:
        return Client().post("/nobody/", {"username": "alice", "password": "wrong"}).status_code

    with time_machine.travel("2026-01-01T00:00:00+00:00", tick=False) as clock:
        for number in range(2):
            assert guess(number) == 401
        clock.shift(50)
        at_once(40, guess)
        assert CountingBackend.checks == 5
        clock.shift(51)
        at_once(40, guess)
        assert CountingBackend.checks == 7
        clock.shift(50)
        at_once(40, guess)
        assert CountingBackend.checks == 10


def test_rows_go_when_level_and_window_are_forgotten_and_not_before(
    how: str, drain: Drain, clock: time_machine.Coordinates
) -> None:
    guesses(3)
    drain()
    lasts = {"tiers": 300 + 24 * 3600, "tiers of a rule": 300 + 3600, "window": 600}[how]
    clock.shift(lasts - 1)
    assert expire() == {"attempts": 0, "counters": 0}
    clock.shift(2)
    assert expire() == {"attempts": 1, "counters": 1}
    assert AccessAttempt.objects.count() == AttemptCounter.objects.count() == 0


def test_a_level_and_a_window_go_on_while_the_database_decides_and_after(
    how: str, drain: Drain, redis_store: OutboxStore, clock: time_machine.Coordinates
) -> None:
    assert guesses(4) == 3
    drain()
    redis_store.invalidate(2)
    assert guesses(2) == 0
    clock.shift(298)
    assert guesses(1) == 0
    clock.shift(303)
    assert guesses(5) == 3
    clock.shift(302)
    assert guesses(1) == 0
    drain()
    assert redis_store.key().status == "ok"
    assert guesses(1) == 0
    clock.shift(3700)
    assert guesses(5) >= 1


def test_the_tiers_of_a_site_come_from_its_settings_module() -> None:
    """A settings module may import them before Django has any settings."""
    code = (
        "from datetime import timedelta; from axes_async.conf import LockoutTier;"
        "from django.conf import settings; assert not settings.configured;"
        "settings.configure(AXES_LOCKOUT_TIERS=[LockoutTier(failures=3, cooloff=timedelta(minutes=15))]);"
        "from axes_async.conf import get_settings; print(get_settings().lockout_tiers[0].failures)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("3\n", "")
