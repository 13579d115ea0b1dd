"""Lockouts that grow longer, and failures that end alone: one contract for every store, and what a store loses."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import redis
import time_machine
from django.core.cache import caches
from django.test import Client

from axes_async.clock import now_ms
from axes_async.conf import get_settings
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, LockoutTier, Rule, counters_for
from axes_async.errors import StoreUnavailable
from axes_async.login.rules import rules_for
from axes_async.models import AccessAttempt, AttemptCounter
from axes_async.signals import user_locked_out
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import Store
from axes_async.stores.factory import get_failover
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import PERMANENT, Outcome, Verdict
from axes_async.tasks.direct import DirectStore
from axes_async.tasks.expire import expire
from axes_async.tasks.rebuild import rebuild
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, success
from tests.site import CountingBackend
from tests.stores.test_concurrency import at_once

Drain = Callable[[], int]
NOW, LEASE = 1_800_000_000_000, 30_000
MINUTE, HOUR = 60_000, 3_600_000
TIERS = (LockoutTier(3, timedelta(minutes=5)), LockoutTier(6, timedelta(hours=1)), LockoutTier(8, timedelta(hours=24)))
MEMORY = 24 * HOUR

pytestmark = [pytest.mark.django_db]


@pytest.fixture(params=["redis", "memory", "rows"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Return each store in turn, empty."""
    if request.param == "redis":
        client = build_client(servers.valkey_url(), {}, timeout=1)
        yield RedisStore(client)
        client.close()
    elif request.param == "memory":
        yield CacheStore(lambda: caches["memory"], shared=False)
    else:
        yield DirectStore()


class Steps:
    """One counter in a store, at a time that is set."""

    def __init__(self, store: Store, rule: Rule) -> None:
        """Start at ``NOW``."""
        self.store, self.now = store, NOW
        (self.counter,) = counters_for([rule], {"username": "alice"})

    def reserve(self, token: str, *, extend: bool = False) -> Outcome:
        event = AttemptEvent(kind=Kind.BLOCKED, id=new_id(self.now), username="alice")
        return self.store.reserve(token, [self.counter], event, now=self.now, lease=LEASE, extend=extend)

    def fail(self, token: str = "direct", *, extend: bool = False) -> Outcome:
        event = AttemptEvent(kind=Kind.FAILED, id=new_id(self.now), username="alice")
        return self.store.fail(token, [self.counter], [], event, now=self.now, lease=LEASE, extend=extend)

    def succeed(self, token: str) -> None:
        event = AttemptEvent(kind=Kind.LOGGED_IN, id=new_id(self.now), username="alice")
        self.store.succeed(token, [], [self.counter], event, now=self.now, lease=LEASE, always=True)

    def release(self, token: str) -> None:
        self.store.release(token, [self.counter], now=self.now)

    def lift(self, amount: int) -> None:
        (state,) = self.store.states([self.counter], now=self.now)
        total = state.failures - state.standing + min(amount, state.standing)
        self.store.adjust([replace(state, lifted=total)], now=self.now, lease=LEASE)

    def until(self) -> int:
        return self.store.peek([self.counter], now=self.now).locked_until

    def standing(self) -> int:
        return self.store.states([self.counter], now=self.now)[0].standing

    def try_wrong(self, times: int) -> list[bool]:
        """Guess, each time with a place of its own; return which were looked at."""
        looked_at = []
        for _ in range(times):
            looked_at.append(self.reserve("guess").verdict is Verdict.ALLOWED)
            if looked_at[-1]:
                self.fail("guess")
        return looked_at


def tiered(limits: tuple[LockoutTier, ...] = TIERS) -> Rule:
    longest = max(tier.cooloff for tier in limits).total_seconds()
    return Rule(parameters=("username",), limit=limits[0].failures, cooloff=longest, tiers=limits)


def rolling(limit: int = 3, cooloff: float = 600) -> Rule:
    return Rule(parameters=("username",), limit=limit, cooloff=cooloff, rolling=True)


class TestTiers:
    """Each tier locks for longer, and the count outlives the lockouts."""

    @pytest.fixture
    def steps(self, store: Store) -> Steps:
        return Steps(store, tiered())

    def test_each_tier_locks_for_its_own_time_and_counting_goes_on_behind_it(self, steps: Steps) -> None:
        for allowed, lasts in [(3, 5 * MINUTE), (3, HOUR), (2, 24 * HOUR)]:
            assert steps.try_wrong(5) == [True] * allowed + [False] * (5 - allowed)
            assert steps.until() == steps.now + lasts
            steps.now += lasts - 1
            assert steps.reserve("early").verdict is Verdict.LOCKED
            steps.now += 1
        assert steps.standing() == 8

    def test_beyond_the_last_tier_each_failure_locks_for_as_long_as_that(self, steps: Steps) -> None:
        for _ in range(3):
            while not steps.until():
                steps.fail()
            steps.now = steps.until()
        for count in range(9, 13):
            assert steps.try_wrong(2) == [True, False]
            assert (steps.standing(), steps.until()) == (count, steps.now + 24 * HOUR)
            steps.now = steps.until()

    def test_the_level_is_forgotten_the_longest_cool_off_after_the_last_lockout(self, steps: Steps) -> None:
        steps.try_wrong(3)
        ended = steps.until()
        steps.now = ended + MEMORY - 1
        assert steps.standing() == 3
        steps.now = ended + MEMORY
        assert steps.standing() == 0
        assert steps.try_wrong(4) == [True, True, True, False]
        assert steps.until() == steps.now + 5 * MINUTE

    def test_places_and_failures_never_exceed_the_next_tier(self, steps: Steps) -> None:
        steps.try_wrong(3)
        steps.now = steps.until()
        assert [steps.reserve(token).verdict for token in "abcd"] == [Verdict.ALLOWED] * 3 + [Verdict.BUSY]
        assert [steps.fail(token).newly_locked for token in "abc"] == [False, False, True]
        assert steps.until() == steps.now + HOUR

    def test_a_failure_during_a_lockout_does_not_count(self, steps: Steps) -> None:
        for _ in range(7):
            steps.fail()
        assert (steps.standing(), steps.until()) == (3, NOW + 5 * MINUTE)

    @pytest.mark.parametrize("how", ["reserve", "fail"])
    def test_an_attempt_during_a_lockout_can_start_it_anew(self, steps: Steps, how: str) -> None:
        steps.try_wrong(3)
        steps.now += MINUTE
        getattr(steps, how)("x", extend=True)
        assert steps.until() == steps.now + 5 * MINUTE
        steps.now = steps.until() + MEMORY - 1
        assert steps.standing() == 3

    def test_a_login_forgets_the_level_but_not_a_lockout(self, steps: Steps) -> None:
        steps.try_wrong(3)
        steps.succeed("a")
        assert steps.standing() == 3
        steps.now = steps.until()
        steps.succeed("b")
        assert steps.try_wrong(4) == [True] * 3 + [False]

    def test_blocked_attempts_are_told_anew_with_each_lockout(self, steps: Steps, drain: Drain) -> None:
        told: list[int] = []
        for _ in range(2):
            for _ in range(5):
                outcome = steps.reserve("x")
                if outcome.verdict is Verdict.LOCKED:
                    told += [outcome.event.repeats] if outcome.event else []
                else:
                    steps.fail("x")
            steps.now = steps.until()
        if told:
            assert told == [1, 2, 1, 2]
        if isinstance(steps.store, RedisStore):
            events = [event for _, event in steps.store.read("0-0", 100) if isinstance(event, AttemptEvent)]
            assert [event.repeats for event in events if event.kind is Kind.BLOCKED] == [1, 2, 1, 2]


class TestWindows:
    """Each failure ends alone."""

    @pytest.fixture
    def steps(self, store: Store) -> Steps:
        return Steps(store, rolling())

    def test_each_failure_ends_a_cool_off_after_it_was_made(self, steps: Steps) -> None:
        for _ in range(2):
            steps.fail()
            steps.now += 4 * MINUTE
        assert steps.standing() == 2
        steps.now = NOW + 10 * MINUTE - 1
        assert steps.standing() == 2
        steps.now += 1
        assert steps.standing() == 1
        steps.now = NOW + 14 * MINUTE
        assert steps.standing() == 0

    def test_a_lockout_ends_when_the_first_failure_does_and_one_guess_is_free(self, steps: Steps) -> None:
        for _ in range(3):
            steps.fail()
            steps.now += 2 * MINUTE
        assert steps.until() == NOW + 10 * MINUTE
        steps.now = NOW + 10 * MINUTE
        assert steps.try_wrong(2) == [True, False]
        assert steps.until() == NOW + 12 * MINUTE

    def test_failures_further_apart_than_the_window_never_lock(self, steps: Steps) -> None:
        for _ in range(12):
            assert not steps.fail().locked_until
            steps.now += 5 * MINUTE

    def test_no_more_failures_are_kept_than_lock(self, steps: Steps) -> None:
        for _ in range(40):
            steps.fail()
            steps.now += 3 * MINUTE
        (state,) = steps.store.states([steps.counter], now=steps.now)
        assert len(state.ends) <= 3
        if isinstance(steps.store, RedisStore):
            kept = steps.store.client.hget(f"{steps.store.counter_prefix}{steps.counter.digest}", "w")
            assert len(kept.split(b",")) <= 3
        if isinstance(steps.store, DirectStore):
            assert len(AttemptCounter.objects.get().ends.split(",")) <= 3

    @pytest.mark.parametrize("how", ["reserve", "fail"])
    def test_an_attempt_during_a_lockout_can_start_the_cool_off_anew(self, steps: Steps, how: str) -> None:
        for _ in range(3):
            steps.fail()
            steps.now += MINUTE
        getattr(steps, how)("x", extend=True)
        assert steps.until() == steps.now + 10 * MINUTE

    def test_what_was_counted_before_failures_ended_alone_ends_as_it_would_have(self, store: Store) -> None:
        before = Steps(store, Rule(parameters=("username",), limit=3, cooloff=600))
        before.fail()
        before.fail()
        steps = Steps(store, rolling())
        steps.now = NOW + MINUTE
        assert steps.try_wrong(2) == [True, False]
        assert steps.until() == NOW + 10 * MINUTE
        back = Steps(store, Rule(parameters=("username",), limit=4, cooloff=600))
        back.now = NOW + 2 * MINUTE
        assert back.fail().locked_until == back.now + 10 * MINUTE
        back.now += 9 * MINUTE
        assert back.standing() == 4


class Model:
    """What tiers and windows come to, worked out the plain way: from the list of all failures."""

    def __init__(self, rule: Rule) -> None:
        """Begin without failures."""
        self.rule = rule
        self.places: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        self.made: list[int] = []
        self.end = self.lock = 0

    def look(self, now: int) -> None:
        self.places = {token: end for token, end in self.places.items() if end > now}
        if self.end and now >= self.end:
            self.forget()
        if self.rule.rolling:
            self.made = [time for time in self.made if time + self.rule.window_ms > now]

    def thresholds(self) -> list[int]:
        fixed = [tier.failures for tier in self.rule.tiers]
        return fixed + list(range(fixed[-1] + 1, fixed[-1] + 100)) if fixed else [self.rule.limit]

    def until(self, now: int) -> int:
        self.look(now)
        if self.rule.tiers:
            return self.lock if self.lock > now else 0
        if len(self.made) < self.rule.limit:
            return 0
        return self.made[-self.rule.limit] + self.rule.window_ms if self.rule.rolling else self.end or PERMANENT

    def reserve(self, token: str, now: int, extend: bool) -> Verdict:
        if self.until(now):
            if extend:
                self.prolong(now)
            return Verdict.LOCKED
        room = min(t for t in self.thresholds() if t > len(self.made)) - len(self.made)
        if len(self.places.keys() - {token}) >= room:
            return Verdict.BUSY
        self.places[token] = now + LEASE
        return Verdict.ALLOWED

    def prolong(self, now: int) -> None:
        if self.rule.tiers:
            self.set_lock(now)
        elif self.rule.window_ms:
            self.end = now + self.rule.window_ms
            self.made = [now] * len(self.made)

    def set_lock(self, now: int) -> None:
        reached = [tier for tier in self.rule.tiers if tier.failures <= len(self.made)]
        self.lock = now + reached[-1].lasts_ms
        self.end = self.lock + self.rule.window_ms

    def fail(self, token: str, now: int, extend: bool) -> None:
        locked = self.until(now)
        self.places.pop(token, None)
        if locked:
            if extend:
                self.prolong(now)
            return
        self.made.append(now)
        self.end = now + self.rule.window_ms if self.rule.window_ms else 0
        if self.rule.tiers and len(self.made) in self.thresholds():
            self.set_lock(now)

    def succeed(self, token: str, now: int) -> None:
        self.places.pop(token, None)
        if not self.until(now):
            self.forget()

    def lift(self, amount: int, now: int) -> None:
        if amount and self.made:
            self.look(now)
            self.made = self.made[amount:]
            self.lock = 0
            if not self.made:
                self.forget()


RULES = [
    tiered(),
    tiered((LockoutTier(1, timedelta(minutes=1)), LockoutTier(2, timedelta(minutes=2)))),
    tiered((LockoutTier(2, timedelta(hours=1)), LockoutTier(5, timedelta(minutes=1)))),
    rolling(),
    rolling(limit=1, cooloff=60),
    rolling(limit=5, cooloff=300),
    Rule(parameters=("username",), limit=3, cooloff=600),
    Rule(parameters=("username",), limit=2, cooloff=None),
]


@pytest.mark.parametrize(
    "rule", RULES, ids=["tiers", "1-2", "2-5", "window", "window of 1", "window of 5", "plain", "permanent"]
)
@pytest.mark.parametrize("seed", range(6))
def test_a_store_does_what_the_plain_way_comes_to(store: Store, rule: Rule, seed: int) -> None:
    random, steps, model = Random(f"{seed} {rule}"), Steps(store, rule), Model(rule)
    seen = []
    for _ in range(60 if isinstance(store, DirectStore) else 150):
        steps.now += random.choice([0, 0, 1, 1000, 20_000, MINUTE, 5 * MINUTE, random.choice([HOUR, 25 * HOUR])])
        token, extend = random.choice("abcdefg"), random.random() < 0.1
        step = random.choices(["reserve", "fail", "succeed", "release", "lift"], [8, 8, 1, 2, 1])[0]
        seen.append((step, token, extend, steps.now - NOW))
        if step == "reserve":
            assert steps.reserve(token, extend=extend).verdict is model.reserve(token, steps.now, extend), seen
        elif step == "fail":
            until = steps.fail(token, extend=extend).locked_until
            model.fail(token, steps.now, extend)
            assert until == model.until(steps.now), seen
        elif step == "succeed":
            steps.succeed(token)
            model.succeed(token, steps.now)
        elif step == "release":
            steps.release(token)
            model.places.pop(token, None)
        elif not isinstance(store, DirectStore):
            amount = random.randint(0, 3)
            steps.lift(amount)
            model.lift(amount, steps.now)
        assert steps.until() == model.until(steps.now), seen
        assert steps.standing() == len(model.made), seen


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


@pytest.mark.parametrize("who", [{}, {"ip": "192.0.2.1"}, {"username": "alice"}], ids=str)
@pytest.mark.parametrize("shift", [0, 330])
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
        valkey.flushall()
        if worker:
            drain()
            rebuild()

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


def state_of_all(store: RedisStore, counters: list[Counter], now: int) -> list[tuple[Any, ...]]:
    states = store.states(counters, now=now)
    ends = [store.peek([counter], now=now).locked_until for counter in counters]
    return [
        (s.standing, s.limit, s.locked_until, s.ends, end) for s, end in zip(states, ends, strict=True) if s.standing
    ]


@pytest.mark.parametrize("seed", range(5))
def test_counters_survive_any_mix_of_attempts_resets_and_flushes(
    how: str, seed: int, settings: Any, drain: Drain, redis_store: RedisStore, valkey: redis.Redis, clock: Any
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
    flushes = 0
    for _ in range(120):
        action, who = random.random(), random.choice(everybody)
        clock.shift(random.choice([0, 1, 10, 60, 200]))
        if action < 0.6:
            failure(**who)
        elif action < 0.7:
            success(**who)
        elif action < 0.78:
            drain()
        elif action < 0.92:
            drain()
            before = state_of_all(redis_store, list(counters.values()), now_ms())
            valkey.flushall()
            valkey.set(redis_store.warmth_key, "cold:00000000")  # The moment is over in which it is left alone.
            if random.random() < 0.5:
                rebuild()
            after = state_of_all(redis_store, list(counters.values()), now_ms())
            assert after == before
            flushes += 1
        elif action < 0.96:
            reset(ip=who["address"])
        else:
            reset(username=who["username"])
    assert flushes


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


@pytest.fixture
def lose(clock: time_machine.Coordinates) -> Iterator[Callable[[], None]]:
    """Return a function that has the store be away, and a while pass in which all have noticed."""
    failover = get_failover()
    watch = failover._watch
    failover._watch = lambda: None  # type: ignore[method-assign]

    def lose() -> None:
        failover.heard.lose(now=now_ms(), began=0.0)
        failover._lose(StoreUnavailable("gone"))
        clock.shift(1)

    yield lose
    failover.is_away, failover._watch = False, watch  # type: ignore[method-assign]


Lose = Callable[[], None]


def come_back() -> None:
    """Have the store be in use again."""
    failover = get_failover()
    failover._answers_again = True
    assert failover.is_there()


@pytest.mark.parametrize("drained", [True, False])
def test_what_was_counted_while_the_store_was_away_is_taken_over(
    how: str, drained: bool, lose: Lose, drain: Drain, clock: time_machine.Coordinates
) -> None:
    guesses(2)
    if drained:
        drain()
    lose()
    clock.shift(10)
    assert guesses(2) == 1
    come_back()
    drain()
    assert guesses(2) == 0
    clock.shift(592)
    assert guesses(5) == (2 if how == "window" else 3)
    drain()
    assert guesses(1) == 0


@pytest.mark.parametrize("drained", [True, False])
def test_a_lockout_and_a_level_go_on_while_the_store_is_away(
    how: str, drained: bool, lose: Lose, drain: Drain, clock: time_machine.Coordinates
) -> None:
    assert guesses(4) == 3
    if drained:
        drain()
    lose()
    assert guesses(2) == 0
    clock.shift(298)
    assert guesses(1) == 0
    clock.shift(302)
    assert guesses(5) == 3
    clock.shift(302)
    assert guesses(1) == 0
    come_back()
    assert guesses(1) == 0
    drain()
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
