"""One contract, every store: what each step of a store does, wherever the counters are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.core.management import call_command

from axes_async.counters.events import AttemptEvent, Kind
from axes_async.counters.rules import Counter, LockoutTier, Rule
from axes_async.stores.cache import CacheStore
from axes_async.stores.contract import Store
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import PERMANENT, Verdict
from tests import servers
from tests.stores.conftest import NAMESPACE, Time, completed
from tests.stores.steps import LEASE, Steps

Request = pytest.FixtureRequest
AnyStore = Store | FailoverStore


@contextmanager
def on_valkey(request: Request) -> Iterator[RedisStore]:
    request.getfixturevalue("plain")
    client = build_client(servers.valkey_url(), {}, timeout=1)
    with closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@contextmanager
def on_valkey_by_a_client_of_the_site(request: Request) -> Iterator[RedisStore]:
    request.getfixturevalue("plain")
    client = redis.Redis.from_url(servers.valkey_url(), decode_responses=True, max_connections=200)
    with closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@contextmanager
def on_a_cluster(request: Request) -> Iterator[RedisStore]:
    cluster = request.getfixturevalue("cluster")
    cluster.empty()
    with closing(cluster.client()) as client, closing(completed(RedisStore(client, namespace=NAMESPACE))) as store:
        yield store


@contextmanager
def in_a_cache(request: Request, alias: str) -> Iterator[CacheStore]:
    if alias == "memcached":
        request.getfixturevalue("memcached")
    if alias == "table":
        call_command("createcachetable", verbosity=0)
    caches[alias].clear()
    yield CacheStore(lambda: caches[alias], shared=alias != "memory")


@contextmanager
def in_the_database(request: Request) -> Iterator[DatabaseStore]:
    yield DatabaseStore(standalone=True)


@contextmanager
def behind_failover(request: Request, what: str) -> Iterator[FailoverStore]:
    request.getfixturevalue("plain")
    port = servers.Port()
    url = f"redis://{servers.HOST}:{port.number}" if what == "away" else servers.valkey_url()
    primary = RedisStore(build_client(url, {}, timeout=1), namespace=NAMESPACE)
    if what == "there":
        completed(primary)
    with closing(FailoverStore(primary, DatabaseStore(replaces=primary), retry_interval=60)) as store:
        yield store
    port.close()


@dataclass(frozen=True)
class Place:
    """Where counters may be."""

    name: str
    open: Callable[[Request], Any]
    marks: tuple[pytest.MarkDecorator, ...] = ()


ROWS = (pytest.mark.django_db, pytest.mark.database)

PLACES = (
    Place("Valkey", on_valkey),
    Place("Valkey, by a client of the site's", on_valkey_by_a_client_of_the_site),
    Place("a cluster", on_a_cluster),
    Place("memory", lambda request: in_a_cache(request, "memory")),
    Place("a cache table", lambda request: in_a_cache(request, "table"), marks=(pytest.mark.django_db,)),
    Place("Memcached", lambda request: in_a_cache(request, "memcached")),
    Place("the database", in_the_database, marks=ROWS),
    Place("failover", lambda request: behind_failover(request, "there"), marks=ROWS),
    Place("failover, store away", lambda request: behind_failover(request, "away"), marks=ROWS),
    Place("failover, store incomplete", lambda request: behind_failover(request, "incomplete"), marks=ROWS),
)


@pytest.fixture(params=[pytest.param(place, id=place.name, marks=place.marks) for place in PLACES])
def contract_store(request: Request, time: Time) -> Iterator[AnyStore]:
    """Return each store in turn, empty."""
    place: Place = request.param
    with place.open(request) as store:
        yield store


@pytest.fixture
def steps(contract_store: AnyStore, time: Time) -> Steps:
    """Return the steps of one rule: the address, limit 3, until a reset."""
    return Steps(contract_store, time)


@pytest.fixture
def minute(contract_store: AnyStore, time: Time) -> Steps:
    """Return the steps of one rule: the address, limit 3, a cool-off of a minute."""
    return Steps(contract_store, time, cooloff=60)


def test_reservations_are_given_up_to_the_limit_and_no_further(steps: Steps) -> None:
    assert [steps.reserve(token).verdict for token in "abcd"] == [Verdict.ALLOWED] * 3 + [Verdict.BUSY]


def test_failures_and_open_reservations_count_together(steps: Steps) -> None:
    steps.fail("a")
    assert [steps.reserve(token).verdict for token in "bcd"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_busy_takes_no_reservation_on_any_counter(steps: Steps) -> None:
    full, other = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, full)
    assert steps.reserve("d", other, full).verdict is Verdict.BUSY
    assert [steps.reserve(token, other).verdict for token in "efg"] == [Verdict.ALLOWED] * 3


def test_locked_anywhere_wins_over_busy_anywhere(steps: Steps) -> None:
    full, locked = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, full)
        steps.fail(token, locked)
    assert steps.reserve("d", full, locked).verdict is Verdict.LOCKED


def test_reserving_again_takes_no_second_place(steps: Steps) -> None:
    for _ in range(5):
        assert steps.reserve("a").verdict is Verdict.ALLOWED
    assert [steps.reserve(token).verdict for token in "bcd"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_reserving_again_renews_the_lease(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.pass_(LEASE // 2)
    steps.reserve("a")
    steps.pass_(LEASE - LEASE // 2)
    assert [steps.reserve(token).verdict for token in "def"] == [Verdict.ALLOWED] * 2 + [Verdict.BUSY]


def test_a_lease_of_zero_looks_and_takes_no_place(steps: Steps) -> None:
    for _ in range(5):
        assert steps.reserve("looks", lease=0).verdict is Verdict.ALLOWED
    assert [steps.reserve(token).verdict for token in "abc"] == [Verdict.ALLOWED] * 3
    assert steps.reserve("looks", lease=0).verdict is Verdict.BUSY


def test_a_released_reservation_makes_room_and_counts_nothing(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.store.release("a", [steps.counter()])
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert steps.failures() == [0]
    assert steps.events() == []


def test_a_reservation_ends_with_its_lease(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.pass_(LEASE - 1)
    assert steps.reserve("d").verdict is Verdict.BUSY
    steps.pass_(1)
    assert steps.reserve("d").verdict is Verdict.ALLOWED


def test_the_failure_that_reaches_the_limit_locks_and_says_so_once(steps: Steps) -> None:
    results = [steps.fail(token) for token in "abcd"]
    assert [result.newly_locked for result in results] == [False, False, True, False]
    assert [result.verdict for result in results] == [Verdict.ALLOWED] * 2 + [Verdict.LOCKED] * 2
    assert [result.locked_until for result in results] == [0, 0, PERMANENT, PERMANENT]
    assert [result.limit for result in results] == [0, 0, 3, 3]


def test_a_locked_counter_denies_and_records_in_the_same_step(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    assert steps.reserve("d").verdict is Verdict.LOCKED
    assert [event.kind for event in steps.events()] == [Kind.FAILED] * 3 + [Kind.BLOCKED]


def test_a_failure_turns_its_reservation_into_a_count(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    for token in "abc":
        steps.fail(token)
    assert steps.failures() == [3]
    assert steps.reserve("d").verdict is Verdict.LOCKED


def test_a_failure_without_a_reservation_counts(steps: Steps) -> None:
    steps.fail("never reserved")
    assert steps.failures() == [1]


def test_a_failure_gives_back_what_was_reserved_under_other_values(steps: Steps) -> None:
    first, then = steps.counter(), steps.counter("192.0.2.2")
    for token in "abc":
        steps.reserve(token, first)
    assert steps.fail("a", then, release=[first]).failures == (1,)
    assert steps.failures(first, then) == [0, 1]
    assert steps.reserve("d", first).verdict is Verdict.ALLOWED


def test_failures_on_a_locked_counter_leave_it_at_its_limit(steps: Steps) -> None:
    for token in "abcdef":
        steps.fail(token)
    assert steps.failures() == [3]
    assert len(steps.events()) == 6


def test_an_event_tells_what_the_step_did_to_each_counter(steps: Steps) -> None:
    for token in "abcd":
        steps.fail(token)
    seen = [(change.counted, change.locked, change.limit) for event in steps.events() for change in event.changes]
    assert seen == [(True, False, 3), (True, False, 3), (True, True, 3), (False, True, 3)]
    assert {change.digest for event in steps.events() for change in event.changes} == {steps.counter().digest}
    assert [event.locked for event in steps.events()] == [False, False, True, True]


def test_an_event_has_the_time_of_the_step(steps: Steps) -> None:
    steps.fail("a")
    steps.pass_(1234)
    steps.fail("b")
    first, second = steps.events()
    assert (first.at, second.at) == (steps.time.now - 1234, steps.time.now)
    assert (first.username, first.ip_address) == ("alice", "192.0.2.1")


def test_the_failures_of_each_counter_are_told_in_the_order_of_the_call(steps: Steps) -> None:
    one, two = steps.counter(), steps.counter("192.0.2.2")
    steps.fail("a", two)
    assert steps.fail("b", one, two).failures == (1, 2)
    assert steps.reserve("c", two, one).failures == (2, 1)
    assert steps.store.peek([one, two]).failures == (1, 2)
    assert steps.succeed("c", two, one, clear=[one]).failures == (2, 1)
    assert steps.store.peek([one, two]).failures == (0, 2)


def test_a_cool_off_runs_from_the_last_failure(minute: Steps) -> None:
    minute.fail("a")
    minute.pass_(50_000)
    minute.fail("b")
    minute.pass_(59_999)
    assert minute.failures() == [2]
    minute.pass_(1)
    assert minute.failures() == [0]


def test_a_lockout_ends_to_the_millisecond_and_counting_starts_over(minute: Steps) -> None:
    for token in "abc":
        result = minute.fail(token)
    assert result.locked_until == minute.time.now + 60_000
    minute.pass_(59_999)
    assert minute.reserve("d").verdict is Verdict.LOCKED
    minute.pass_(1)
    assert minute.reserve("d").verdict is Verdict.ALLOWED
    minute.fail("d")
    assert minute.failures() == [1]


def test_a_denied_attempt_extends_the_cool_off_only_if_told_to(minute: Steps) -> None:
    start = minute.time.now
    for token in "abc":
        minute.fail(token)
    minute.pass_(30_000)
    assert minute.reserve("d").locked_until == start + 60_000
    assert minute.reserve("d", extend=True).locked_until == start + 90_000
    minute.pass_(59_999)
    assert minute.reserve("d").verdict is Verdict.LOCKED
    (change,) = minute.events()[-2].changes
    assert (change.prolonged, change.counted, change.expires_at) == (True, False, start + 90_000)


def test_a_failure_on_a_locked_counter_extends_the_cool_off_only_if_told_to(minute: Steps) -> None:
    start = minute.time.now
    for token in "abc":
        minute.fail(token)
    minute.pass_(30_000)
    assert minute.fail("d").locked_until == start + 60_000
    result = minute.fail("e", extend=True)
    assert (result.locked_until, result.newly_locked) == (start + 90_000, False)
    (change,) = minute.events()[-1].changes
    assert (change.prolonged, change.locked, change.expires_at) == (True, True, start + 90_000)


def test_a_limit_of_zero_counts_and_never_locks(contract_store: AnyStore, time: Time) -> None:
    steps = Steps(contract_store, time, limit=0)
    for token in "abcdefgh":
        assert steps.reserve(token).verdict is Verdict.ALLOWED
        assert steps.fail(token).locked_until == 0
    assert steps.failures() == [8]


def test_the_longest_lockout_and_the_lowest_limit_are_told(contract_store: AnyStore, time: Time) -> None:
    short, long = Steps(contract_store, time, cooloff=60), Steps(contract_store, time, limit=4, cooloff=600)
    one, two = short.counter("192.0.2.1"), long.counter("192.0.2.2")
    for token in "abcd":
        short.fail(token, one)
        long.fail(token, two)
    result = short.reserve("e", one, two)
    assert (result.locked_until, result.limit) == (time.now + 600_000, 3)
    assert short.reserve("e", short.counter("192.0.2.3"), one).locked_until == time.now + 60_000


def test_tiers_lock_longer_each_time(contract_store: AnyStore, time: Time) -> None:
    steps = Steps(contract_store, time)
    tiers = (LockoutTier(2, timedelta(seconds=10)), LockoutTier(3, timedelta(seconds=60)))
    counter = Counter(Rule(parameters=("ip_address",), limit=2, cooloff=60, tiers=tiers), steps.counter().digest)
    start = time.now
    assert [steps.fail(token, counter).locked_until for token in "ab"] == [0, start + 10_000]
    assert steps.reserve("c", counter).limit == 2
    steps.pass_(10_000)
    assert steps.reserve("c", counter).verdict is Verdict.ALLOWED
    result = steps.fail("c", counter)
    assert (result.locked_until, result.limit, result.newly_locked) == (start + 70_000, 3, True)
    (change,) = steps.events()[-1].changes
    assert (change.locked_until, change.expires_at) == (start + 70_000, start + 130_000)
    steps.pass_(60_000 + 59_999)
    assert steps.failures(counter) == [3]
    steps.pass_(1)
    assert steps.failures(counter) == [0]


def test_in_a_rolling_window_each_failure_expires_alone(contract_store: AnyStore, time: Time) -> None:
    steps = Steps(contract_store, time)
    counter = Counter(Rule(parameters=("ip_address",), limit=3, cooloff=60, rolling=True), steps.counter().digest)
    start = time.now
    for token in "abc":
        result = steps.fail(token, counter)
        steps.pass_(10_000)
    assert result.locked_until == start + 60_000
    assert [change.end for change in steps.events()[-1].changes] == [start + 80_000]
    steps.pass_(30_000)
    assert steps.failures(counter) == [2]
    assert steps.reserve("d", counter).verdict is Verdict.ALLOWED
    assert steps.fail("d", counter).locked_until == start + 70_000


def test_blocked_attempts_are_recorded_one_to_ten_and_then_at_each_doubling(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    told = [steps.reserve("x").repeats for _ in range(41)]
    recorded = [event.repeats for event in steps.events() if event.kind is Kind.BLOCKED]
    assert recorded == [*range(1, 11), 20, 40]
    assert [repeats for repeats in told if repeats] == recorded


def test_attempts_that_are_turned_away_unrecorded_are_counted(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    results = [steps.store.reserve("late", [steps.counter()], None, lease=LEASE, extend=False) for _ in range(2)]
    assert [(result.repeats, result.event) for result in results] == [(1, None), (2, None)]
    assert len(steps.events()) == 3


def test_the_next_lockout_counts_its_blocked_attempts_from_one(minute: Steps) -> None:
    for _ in range(2):
        for token in "abc":
            minute.fail(token)
        assert [minute.reserve("d").repeats for _ in range(2)] == [1, 2]
        minute.pass_(60_000)


def test_a_success_gives_the_reservation_back_and_keeps_the_failures(steps: Steps) -> None:
    steps.fail("a")
    for token in "bc":
        steps.reserve(token)
    steps.succeed("b")
    assert steps.reserve("d").verdict is Verdict.ALLOWED
    assert steps.failures() == [1]


def test_a_success_clears_what_it_is_told_to_and_tells_which(steps: Steps) -> None:
    kept, cleared = steps.counter("192.0.2.2"), steps.counter()
    steps.fail("a", kept, cleared)
    steps.reserve("b", kept, cleared)
    steps.succeed("b", kept, cleared, clear=[cleared])
    assert steps.failures(kept, cleared) == [1, 0]
    (change,) = steps.events()[-1].changes
    assert (change.cleared, change.counted, change.digest) == (True, False, cleared.digest)


def test_a_success_never_clears_a_locked_counter(steps: Steps) -> None:
    for token in "abc":
        steps.fail(token)
    steps.succeed("d", clear=[steps.counter()])
    assert steps.reserve("e").verdict is Verdict.LOCKED


def test_a_success_that_need_not_be_recorded_is_only_if_it_cleared(steps: Steps) -> None:
    steps.succeed("a", clear=[steps.counter()], always=False)
    assert steps.events() == []
    steps.fail("b")
    steps.succeed("c", clear=[steps.counter()], always=False)
    assert [event.kind for event in steps.events()] == [Kind.FAILED, Kind.LOGGED_IN]


def test_clearing_keeps_the_reservations_of_others(steps: Steps) -> None:
    for token in "abc":
        steps.reserve(token)
    steps.fail("a")
    steps.succeed("b", clear=[steps.counter()])
    steps.reserve("d")
    steps.reserve("e")
    assert steps.reserve("f").verdict is Verdict.BUSY


def test_looking_changes_nothing(steps: Steps) -> None:
    assert steps.store.peek([steps.counter()]).verdict is Verdict.ALLOWED
    for token in "abc":
        steps.fail(token)
    for _ in range(3):
        result = steps.store.peek([steps.counter()])
        assert (result.verdict, result.locked_until, result.limit) == (Verdict.LOCKED, PERMANENT, 3)
    assert len(steps.events()) == 3


def test_no_counters_are_no_obstacle(steps: Steps) -> None:
    event = steps.event(Kind.FAILED)
    assert steps.store.reserve("a", [], event, lease=LEASE, extend=False).verdict is Verdict.ALLOWED
    assert steps.store.fail("a", [], [], event, lease=LEASE, extend=False).failures == ()
    assert steps.store.peek([]).verdict is Verdict.ALLOWED
    assert steps.store.states([]) == []
    steps.store.release("a", [])


def test_a_recorded_event_is_kept_or_handed_back(steps: Steps) -> None:
    event = AttemptEvent(kind=Kind.LOGGED_OUT, id=steps.event(Kind.LOGGED_OUT).id, username="älice\u2028")
    result = steps.store.record(event)
    (kept,) = steps.events() if result.event is None else [result.event]
    assert kept == event.applied((), at=steps.time.now)


def test_a_store_answers_a_probe(contract_store: AnyStore) -> None:
    if isinstance(contract_store, Store):
        contract_store.probe()
        contract_store.close()
        contract_store.probe()


SHARED_BY_THREADS = [place for place in PLACES if not place.marks]


@pytest.mark.parametrize("place", SHARED_BY_THREADS, ids=lambda place: place.name)
def test_of_a_hundred_threads_exactly_five_get_through(place: Place, request: Request, time: Time) -> None:
    def reserve(token: int) -> Verdict:
        try:
            return tries.reserve(f"{token}").verdict
        finally:
            caches.close_all()

    with place.open(request) as store, ThreadPoolExecutor(100) as pool:
        tries = Steps(store, time, limit=5)
        verdicts = list(pool.map(reserve, range(100)))
    assert verdicts.count(Verdict.ALLOWED) == 5
    assert verdicts.count(Verdict.BUSY) == 95
