"""A store that may go away: what each AXES_ON_STORE_FAILURE does instead, and how the store is taken back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from axes_async import guard
from axes_async.counters.events import AttemptEvent, Kind, new_id
from axes_async.counters.rules import Counter, Rule, counters_for
from axes_async.decorators import axes_dispatch
from axes_async.errors import AttemptDenied, StoreBusy, StoreIncomplete, StoreUnavailable
from axes_async.handlers.proxy import AxesProxyHandler
from axes_async.login import reservation, settlement
from axes_async.models import AttemptCounter, OutboxEvent, StoreState
from axes_async.stores import recent
from axes_async.stores.database.store import DatabaseStore
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.recent import RecentAnswers
from axes_async.stores.redis.server import build_client
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import StepResult, Verdict
from axes_async.stores.step import Step, StepKind
from axes_async.tasks.sync import sync_store
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, failures_stored, request_from, reservations_held, success
from tests.conftest import PASSWORD, REFUSED
from tests.site import CountingBackend
from tests.stores.conftest import NAMESPACE, Time, completed
from tests.urls import urlpatterns as site_urls
from tests.waiting import PATIENCE, until

Post = Callable[..., Any]
Drain = Callable[[], int]
LEASE = 30_000
TOKEN = "t" * 16

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@axes_dispatch
def guarded_page(request: HttpRequest) -> HttpResponse:
    """Show a page to whoever is not locked out."""
    return HttpResponse("page")


urlpatterns = [*site_urls, path("page/", guarded_page)]


class Faulty(RedisStore):
    """A store on Valkey that can be told to fail."""

    def __init__(self) -> None:
        super().__init__(build_client(servers.valkey_url(), {}, timeout=10), namespace=NAMESPACE)
        self.faults: list[StoreUnavailable] = []
        """What the next calls raise, one each."""
        self.does_it_first = False
        """Whether they have done the step by then."""
        self.is_there = True
        self.calls: list[tuple[str, bool]] = []
        """The steps that were asked for, and whether they may have been done before."""
        self.probes = 0

    def _told(self, name: str, step: Step, flags: str = "") -> bytes:
        self.calls.append((name, step.again))
        if not self.faults:
            return super()._told(name, step, flags)
        if self.does_it_first:
            super()._told(name, step, flags)
        raise self.faults.pop(0)

    def probe(self) -> None:
        self.probes += 1
        if not self.is_there:
            raise StoreUnavailable("It does not answer.")


@pytest.fixture
def faulty(time: Time, plain: redis.Redis) -> Iterator[Faulty]:
    with closing(Faulty()) as store:
        completed(store).generation = 1
        yield store


@pytest.fixture
def both(faulty: Faulty) -> Iterator[FailoverStore]:
    """Return a store on Valkey in front of the database."""
    fallback = DatabaseStore(replaces=faulty)
    with closing(FailoverStore(faulty, fallback, retry_interval=0.01)) as store:
        yield store


@pytest.fixture
def counters() -> tuple[Counter, ...]:
    return counters_for([Rule(parameters=("username",), limit=3, cooloff=None)], {"username": "alice"})


def failed(time: Time) -> AttemptEvent:
    return AttemptEvent(kind=Kind.FAILED, id=new_id(time.now), username="alice")


def fail(store: FailoverStore, counters: tuple[Counter, ...], time: Time, *, held: bool = False) -> StepResult:
    held_in = store.generation if held else None
    return store.do(Step(StepKind.FAIL, TOKEN, counters, event=failed(time), held_in=held_in))


def reserve(store: FailoverStore, counters: tuple[Counter, ...], token: str = TOKEN) -> StepResult:
    return store.do(Step(StepKind.RESERVE, token, counters, lease=LEASE))


def rows() -> list[int]:
    """Return the failures of each counter row that has any."""
    return sorted(AttemptCounter.objects.filter(failures__gt=0).values_list("failures", flat=True))


class TestIncomplete:
    """A store that answers, and does not have all counters."""

    def test_the_database_decides_at_once_and_the_store_is_asked_again_by_the_next_step(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        faulty.faults = [StoreIncomplete("lost")]
        fail(both, counters, time)
        assert (rows(), faulty.probes, both.is_away) == ([1], 0, False)
        reserve(both, counters)
        assert [name for name, _ in faulty.calls] == ["fail", "reserve"]

    def test_a_generation_that_the_database_names_sends_the_step_to_the_store(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        """Another process has had the store synced between the two looks."""
        StoreState.objects.update(generation=2)
        faulty.invalidate(2)
        faulty.complete(2, 0)
        faulty.faults = [StoreIncomplete("lost")]
        fail(both, counters, time, held=True)
        assert faulty.calls == [("fail", False), ("fail", False)]
        assert (faulty.generation, rows()) == (2, [])
        assert faulty.states(counters)[0].failures == 1

    def test_a_store_that_decides_again_and_not_for_us_leaves_the_step_to_the_database(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        StoreState.objects.update(generation=2)
        faulty.faults = [StoreIncomplete("lost"), StoreIncomplete("lost")]
        fail(both, counters, time)
        assert rows() == [1]
        assert StoreState.objects.get().mode == StoreState.DATABASE


class TestBrokenConnection:
    """A store that answers a probe: what was lost is a connection, or an answer."""

    @pytest.mark.parametrize("held", [True, False])
    def test_the_step_is_sent_again(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time, held: bool
    ) -> None:
        reserve(both, counters)
        faulty.faults = [StoreUnavailable("reset by peer")]
        assert not fail(both, counters, time, held=held).newly_locked
        assert faulty.calls[1:] == [("fail", False), ("fail", held)]
        assert faulty.states(counters)[0].failures == 1
        assert (rows(), both.is_away) == ([], False)

    def test_a_step_that_was_done_already_is_done_once_where_a_reservation_tells(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        reserve(both, counters)
        faulty.faults, faulty.does_it_first = [StoreUnavailable("timed out")], True
        fail(both, counters, time, held=True)
        assert faulty.states(counters)[0].failures == 1

    def test_a_reservation_that_was_lost_with_the_store_does_not_tell(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        reserve(both, counters)
        held_in = both.generation
        faulty.client.flushdb()
        StoreState.objects.update(generation=2)
        faulty.invalidate(2)
        faulty.complete(2, 0)
        both.peek(counters)
        faulty.faults = [StoreUnavailable("reset by peer")]
        both.do(Step(StepKind.FAIL, TOKEN, counters, event=failed(time), held_in=held_in))
        assert faulty.states(counters)[0].failures == 1

    def test_a_store_that_answers_nothing_but_probes_is_waited_for_twice_and_left_to_the_database(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        faulty.faults = [StoreUnavailable("slow")] * 9
        fail(both, counters, time)
        assert (len(faulty.calls), rows(), both.is_away) == (2, [1], False)


class TestBusy:
    """A process that has no connection to spare."""

    def test_what_decides_is_turned_away(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...]
    ) -> None:
        for ask in (lambda: reserve(both, counters), lambda: both.peek(counters), lambda: both.states(counters)):
            faulty.faults = [StoreBusy("busy")]
            with pytest.raises(StoreBusy):
                ask()

    def test_a_failure_is_counted_in_the_database(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        faulty.faults = [StoreBusy("busy")]
        fail(both, counters, time)
        assert rows() == [1]


class TestAway:
    """A store that does not answer."""

    @pytest.fixture
    def away(self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...]) -> FailoverStore:
        """Return the two, with the first away since a look at it."""
        both.watch.retry_interval = 60
        faulty.is_there, faulty.faults = False, [StoreUnavailable("refused")]
        both.peek(counters)
        faulty.calls.clear()
        return both

    def test_no_step_waits_for_it_any_more(
        self, away: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        assert away.is_away
        assert reserve(away, counters).verdict is Verdict.ALLOWED
        fail(away, counters, time, held=True)
        away.release(TOKEN, counters)
        away.do(Step(StepKind.RECORD, event=AttemptEvent(kind=Kind.LOGGED_OUT, id=new_id(time.now))))
        assert [state.failures for state in away.states(counters)] == [1]
        assert (faulty.calls, faulty.probes) == ([], 1)
        assert OutboxEvent.objects.count() == 2

    def test_one_probe_serves_all_threads_that_suspect_it(self, faulty: Faulty) -> None:
        begun, go_on, probes = threading.Event(), threading.Event(), [0]

        def slow() -> None:
            probes[0] += 1
            begun.set()
            go_on.wait(PATIENCE)
            raise StoreUnavailable("no answer")

        faulty.probe = slow  # type: ignore[method-assign]
        with closing(FailoverStore(faulty, on_failure="deny", retry_interval=60)) as store:
            answers: list[bool] = []
            suspicion = StoreUnavailable("timed out")
            threads = [
                threading.Thread(target=lambda: answers.append(store.watch.answers(suspicion))) for _ in range(9)
            ]
            threads[0].start()
            assert begun.wait(PATIENCE)
            probe = store.watch._probe
            assert probe is not None
            for thread in threads[1:]:
                thread.start()
            until(lambda: len(probe._condition._waiters) == 8, what="the others wait for its answer")
            go_on.set()
            for thread in threads:
                thread.join(PATIENCE)
            assert (answers, probes) == ([False] * 9, [1])
            assert store.is_away

    def test_when_it_is_back_the_database_is_asked_first_until_it_says_so(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        faulty.is_there, faulty.faults = False, [StoreUnavailable("refused")]
        for _ in range(3):
            fail(both, counters, time)
        faulty.is_there = True
        until(lambda: not both.is_away)
        faulty.calls.clear()
        assert reserve(both, counters).verdict is Verdict.LOCKED, "the store does not know of the lockout yet"
        assert faulty.calls == []
        assert sync_store(faulty)
        assert reserve(both, counters).verdict is Verdict.LOCKED
        assert [name for name, _ in faulty.calls] == ["reserve"]

    def test_a_closed_store_is_watched_no_longer(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...]
    ) -> None:
        faulty.is_there, faulty.faults = False, [StoreUnavailable("refused")]
        both.peek(counters)
        both.close()
        until(lambda: not any(thread.name == "axes-async-store" for thread in threading.enumerate()))

    def test_what_this_process_has_heard_counts_in_the_database(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        """Two failures that no drain has written: one guess is left, and not three."""
        fail(both, counters, time)
        fail(both, counters, time)
        faulty.is_there, faulty.faults = False, [StoreUnavailable("refused")]
        assert reserve(both, counters).verdict is Verdict.ALLOWED
        fail(both, counters, time, held=True)
        assert reserve(both, counters).verdict is Verdict.LOCKED

    def test_what_a_login_has_cleared_is_not_heard_of_any_more(
        self, both: FailoverStore, faulty: Faulty, counters: tuple[Counter, ...], time: Time
    ) -> None:
        fail(both, counters, time)
        fail(both, counters, time)
        both.do(Step(StepKind.SUCCEED, TOKEN, counters, event=failed(time), clear=counters))
        faulty.is_there, faulty.faults = False, [StoreUnavailable("refused")]
        for token in "abc":
            assert reserve(both, counters, token).verdict is Verdict.ALLOWED
        assert reserve(both, counters, "d").verdict is Verdict.BUSY


class TestRecentAnswers:
    """What a process has heard last."""

    def answer(self, answers: RecentAnswers, counter: Counter) -> int:
        return answers.known([counter]).get(counter.digest, (0, 0))[0]

    def test_the_latest_answer_counts(self, counters: tuple[Counter, ...]) -> None:
        (counter,) = counters
        answers = RecentAnswers()
        for failures in (2, 1, 0):
            answers.note([counter], [failures])
            assert self.answer(answers, counter) == failures

    def test_a_failure_that_was_counted_elsewhere_is_added(self, counters: tuple[Counter, ...]) -> None:
        (counter,) = counters
        answers = RecentAnswers()
        answers.count_up([counter])
        assert self.answer(answers, counter) == 0
        answers.note([counter], [2])
        answers.count_up([counter])
        assert self.answer(answers, counter) == 3

    @pytest.mark.parametrize(("cooloff", "lasts"), [(None, 60_000), (3600.0, 60_000), (5.0, 5_000)])
    def test_an_answer_is_used_for_a_minute_or_a_cool_off(
        self, cooloff: float | None, lasts: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1_000_000]
        monkeypatch.setattr(recent, "now_ms", lambda: now[0])
        rule = Rule(parameters=("username",), limit=3, cooloff=cooloff)
        (counter,) = counters_for([rule], {"username": "alice"})
        answers = RecentAnswers()
        answers.note([counter], [2])
        now[0] += lasts - 1
        assert self.answer(answers, counter) == 2
        now[0] += 1
        assert self.answer(answers, counter) == 0

    def test_the_oldest_answers_are_forgotten_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recent, "SIZE", 3)
        rule = Rule(parameters=("username",), limit=3, cooloff=None)
        many = [counters_for([rule], {"username": name})[0] for name in "abcd"]
        answers = RecentAnswers()
        for counter in (*many[:3], many[0], many[3]):
            answers.note([counter], [1])
        assert [self.answer(answers, counter) for counter in many] == [1, 0, 1, 1]


@pytest.fixture
def no_store(settings: Any) -> None:
    """Have the store where nobody listens."""
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": REFUSED}}


@pytest.mark.usefixtures("no_store")
class TestDatabase:
    """The database decides."""

    def test_wrong_passwords_lock_exactly_at_the_limit(self, alice: User, post: Post) -> None:
        assert [post().status_code for _ in range(5)] == [401, 401, 429, 429, 429]
        assert post(password=PASSWORD).status_code == 429
        assert (CountingBackend.checks, rows()) == (3, [3])

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_locked_client_does_not_reach_a_guarded_page(self, client: Client, method: str) -> None:
        ask = getattr(client, method)
        assert ask("/page/").status_code == 200
        for _ in range(3):
            failure(address="127.0.0.1")
        assert ask("/page/").status_code == 429

    @pytest.mark.parametrize("bare", [False, True])
    def test_a_block_holds_a_reservation_until_its_end(self, settings: Any, bare: bool) -> None:
        settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESERVE_WAIT = ["username"], 0
        for _ in range(4):
            with guard.attempt(None if bare else request_from("192.0.2.1"), {"username": "alice"}):
                assert len(AttemptCounter.objects.get().reservations.split()) == 1
            assert AttemptCounter.objects.get().reservations == ""
        for _ in range(3):
            with guard.attempt(None, {"username": "alice"}) as attempt:
                attempt.failed()
        with pytest.raises(AttemptDenied):
            guard.attempt(None, {"username": "alice"}).__enter__()

    @pytest.mark.parametrize("how", [True, "account"])
    def test_a_login_clears_what_it_is_to_clear(self, settings: Any, how: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], how
        for _ in range(4):
            assert [failure(), failure(), success()] == [True, True, True]
        assert rows() == []

    def test_a_reset_lifts_what_counts_in_the_rows(self) -> None:
        for _ in range(3):
            failure()
        assert not failure()
        assert reset() == 1
        assert failure()


class TestFlushed:
    """A store that has lost its counters frees nobody, with no worker at hand."""

    def test_a_locked_client_stays_locked(self, alice: User, post: Post, drain: Drain, valkey: redis.Redis) -> None:
        for _ in range(3):
            post()
        drain()
        valkey.flushall()
        assert post(password=PASSWORD).status_code == 429
        assert CountingBackend.checks == 3

    @pytest.mark.parametrize("touched", [1, 2])
    def test_a_count_survives_being_flushed_again_and_again(
        self, drain: Drain, valkey: redis.Redis, touched: int
    ) -> None:
        for _ in range(touched):
            failure()
            drain()
            valkey.flushall()
            valkey.flushall()
        assert [failure() for _ in range(4 - touched)] == [True] * (3 - touched) + [False]

    def test_a_drain_brings_the_store_back(self, drain: Drain, valkey: redis.Redis, redis_store: RedisStore) -> None:
        failure()
        drain()
        valkey.flushall()
        assert failure()
        drain()
        assert redis_store.key().status == "ok"
        assert failures_stored(valkey) == [2]
        assert [failure(), failure()] == [True, False]
        assert not AttemptCounter.objects.filter(dirty=True).exists()

    def test_cleared_failures_do_not_come_back(self, settings: Any, valkey: redis.Redis) -> None:
        settings.AXES_LOCKOUT_PARAMETERS, settings.AXES_RESET_ON_SUCCESS = ["username"], True
        assert [failure(), failure(), success()] == [True, True, True]
        valkey.flushall()
        assert [failure() for _ in range(4)] == [True, True, True, False]


@pytest.mark.usefixtures("no_store")
class TestDeny:
    """Nobody gets in, and nothing breaks."""

    @pytest.fixture(autouse=True)
    def _deny(self, settings: Any) -> Iterator[None]:
        settings.AXES_ON_STORE_FAILURE = "deny"
        yield
        assert not AttemptCounter.objects.exists()

    @pytest.mark.parametrize("password", ["wrong", PASSWORD])
    def test_every_login_is_turned_away_before_the_password_is_looked_at(
        self, alice: User, post: Post, password: str
    ) -> None:
        response = post(password=password)
        assert (response.status_code, response["Retry-After"]) == (503, "1")
        assert CountingBackend.checks == 0

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_guarded_page_is_not_shown(self, client: Client, method: str) -> None:
        assert getattr(client, method)("/page/").status_code == 503

    def test_a_block_is_not_entered(self, settings: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS = ["username"]
        with pytest.raises(AttemptDenied):
            guard.attempt(None, {"username": "alice"}).__enter__()

    def test_signals_without_a_reservation_raise_nothing_and_are_told_in_the_log(
        self, alice: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        request = request_from("192.0.2.1")
        user_login_failed.send(sender=__name__, credentials={"username": "bob"}, request=request)
        user_logged_in.send(sender=User, user=alice, request=request)
        settlement.log_out(request, "alice")
        for told in ("Failure not counted", "Login not recorded", "Logout not recorded"):
            assert caplog.text.count(told) == 1

    def test_a_reset_says_that_it_cannot_be_done(self) -> None:
        with pytest.raises(StoreUnavailable):
            reset()


def test_a_store_that_lacks_counters_is_synced_soon_where_nobody_may_decide_instead(
    settings: Any, valkey: redis.Redis, alice: User, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr("axes_async.delivery.publisher.publish", lambda name, *args, **kwargs: sent.append(name))
    monkeypatch.setattr("axes_async.delivery.circuit_breaker.monotonic", lambda: 100.0)  # Else once a second.
    settings.AXES_ON_STORE_FAILURE = "deny"
    valkey.flushall()
    assert [post().status_code for _ in range(3)] == [503] * 3
    assert sent == ["axes_async.drain"]


@pytest.mark.usefixtures("no_store")
class TestAllow:
    """Everybody gets in, unguarded, and the events are errors in the log."""

    @pytest.fixture(autouse=True)
    def _allow(self, settings: Any) -> Iterator[None]:
        settings.AXES_ON_STORE_FAILURE = "allow"
        yield
        assert not AttemptCounter.objects.exists()

    def test_every_password_is_looked_at_and_told_in_the_log_alone(
        self, alice: User, post: Post, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert [post().status_code for _ in range(5)] == [401] * 5
        assert post(password=PASSWORD).status_code == 204
        assert CountingBackend.checks == 6
        errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert sum('["failed"' in text for text in errors) == 5
        assert sum('["logged_in"' in text for text in errors) == 1
        assert PASSWORD not in caplog.text

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_a_guarded_page_is_shown(self, client: Client, method: str) -> None:
        assert getattr(client, method)("/page/").status_code == 200

    def test_blocks_are_entered(self, settings: Any) -> None:
        settings.AXES_LOCKOUT_PARAMETERS = ["username"]
        for _ in range(5):
            with guard.attempt(None, {"username": "alice"}) as attempt:
                attempt.failed()

    def test_a_login_and_its_logout_go_through(self, alice: User, client: Client) -> None:
        assert client.post("/login/", {"username": "alice", "password": PASSWORD}).status_code == 302
        assert client.post("/logout/").status_code == 302


@pytest.mark.usefixtures("no_store")
@pytest.mark.parametrize("what", ["allow", "deny", "database"])
def test_the_handler_answers_while_the_store_is_away(settings: Any, what: str) -> None:
    settings.AXES_ON_STORE_FAILURE = what
    request = request_from("192.0.2.1")
    for ask in (AxesProxyHandler.get_failures, AxesProxyHandler.is_locked, AxesProxyHandler.is_allowed):
        try:
            answer = ask(request, {"username": "alice"})
        except StoreUnavailable:
            assert what == "deny"
        else:
            assert answer in {0, 1}


def test_a_store_that_fails_between_two_attempts_of_a_request_keeps_no_reservation(
    settings: Any, valkey: redis.Redis
) -> None:
    settings.AXES_ON_STORE_FAILURE, settings.AXES_LOCKOUT_PARAMETERS = "deny", ["username"]
    request = request_from("192.0.2.1")
    reservation.reserve(request, {"username": "alice"})
    get_failover().watch.is_away = True
    denied = reservation.reserve(request, {"username": "bob"})
    assert denied is not None
    assert denied.denied
    get_failover().watch.is_away = False
    reservation.reserve(request, {"username": "carol"})
    settlement.fail(request, {"username": "carol"})
    reservation.release(request.axes.attempts)  # type: ignore[attr-defined]
    assert reservations_held(valkey) == 0


def test_a_database_that_fails_is_no_store_to_look_after(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.AXES_STORE = "database"

    def away(*args: Any) -> None:
        raise StoreUnavailable("The database: OperationalError")

    monkeypatch.setattr(DatabaseStore, "_run", away)
    denied = reservation.reserve(request_from("192.0.2.1"), {"username": "alice"})
    assert denied is not None
    assert denied.denied
    assert not get_failover().is_away
    assert isinstance(get_store(), DatabaseStore)
