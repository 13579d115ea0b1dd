"""The store is away: logins go on as AXES_ON_STORE_FAILURE says, wait for nothing, and nothing of them is lost."""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from axes_async import guard
from axes_async.errors import AttemptDenied, StoreBusy
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from axes_async.stores.factory import get_failover
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.store import RedisStore
from axes_async.tasks.sync import sync_store
from tests.actions import failure, request_from, success
from tests.conftest import PASSWORD
from tests.faults.machines import Valkey
from tests.faults.sending import fail_all
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]

FAULTS: dict[str, tuple[Callable[[Valkey], None], Callable[[Valkey], None]]] = {
    "refused": (Valkey.kill, Valkey.start),
    "silent": (Valkey.silence, Valkey.start),
    "frozen": (Valkey.freeze, Valkey.thaw),
    "full": (Valkey.fill, Valkey.make_room),
    "read-only": (Valkey.follow, Valkey.lead),
}
"""How to break a store, and how to mend it; one that was ended comes back empty."""

every_fault = pytest.mark.parametrize("fault", FAULTS)


class Asked:
    """How often the store was asked, by logins and not by the thread that looks after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Begin to count."""
        self.times = 0
        guarded = RedisStore._guarded

        def counted(send: Callable[[bytes], Any], command: bytes) -> Any:
            if threading.current_thread().name != "axes-async-store":
                self.times += 1
            return guarded(send, command)

        monkeypatch.setattr(RedisStore, "_guarded", staticmethod(counted))


def failed_rows() -> int:
    return AccessFailureLog.objects.filter(repeats=0).count()


def counted() -> dict[str, int]:
    """Return the active failures by address, as the rows have them."""
    return dict(AttemptCounter.objects.filter(failures__gt=0).values_list("ip_address", "failures"))


def settle(drain: Drain, store: RedisStore) -> None:
    """Have a worker write what there is, and make the store complete."""
    until(lambda: not get_failover().is_away, what="the store answers again")
    until(lambda: drain() == 0 and sync_store(store), what="drained and in step")


@every_fault
def test_rows_decide_and_go_on_where_the_store_stood(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain, fault: str
) -> None:
    broken, mended = FAULTS[fault]
    assert [failure("alice", "192.0.2.1"), failure("alice", "192.0.2.1")] == [True, True]
    assert failure("bob", "192.0.2.2")
    assert drain() == 3

    broken(own_valkey)
    assert failure("alice", "192.0.2.1"), "the third guess is within the limit"
    assert failover.is_away
    assert not failure("alice", "192.0.2.1"), "the fourth is not"
    assert not success("alice", "192.0.2.1")
    assert success("carol", "192.0.2.3")
    assert counted() == {"192.0.2.1": 3, "192.0.2.2": 1}

    mended(own_valkey)
    until(lambda: not failover.is_away, what="the store answers again")
    assert not failure("alice", "192.0.2.1")
    assert failure("bob", "192.0.2.2")
    settle(drain, own_store)
    assert not failure("alice", "192.0.2.1")
    assert failure("bob", "192.0.2.2")
    assert not failure("bob", "192.0.2.2")
    settle(drain, own_store)
    assert failed_rows() == 6
    assert list(AccessLog.objects.values_list("username", flat=True)) == ["carol"]
    assert own_store.size().dead_letters == 0
    assert counted() == {"192.0.2.1": 3, "192.0.2.2": 3}
    attempts = AccessAttempt.objects.values_list("username", "failures_since_start")
    assert dict(attempts) == {"alice": 3, "bob": 3}


@every_fault
def test_one_login_finds_the_store_away_and_the_next_ones_do_not_ask_it(
    own_valkey: Valkey, failover: FailoverStore, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    failover.watch.retry_interval = 3600
    assert failure("alice", "192.0.2.1")
    FAULTS[fault][0](own_valkey)
    asked = Asked(monkeypatch)
    request = request_from("192.0.2.9")
    guard.reserve(request, {"username": "bob"})
    assert asked.times == 2, "the step, and a probe whether it was only slow"
    guard.fail(request, {"username": "bob"})
    for number in range(20):
        assert failure("bob", f"198.51.100.{number}")
    assert asked.times == 2


def test_silent_store_gets_two_connections_and_no_more(own_valkey: Valkey, failover: FailoverStore) -> None:
    failover.watch.retry_interval = 3600
    own_valkey.silence()
    assert own_valkey.listener is not None
    for number in range(30):
        assert failure("bob", f"198.51.100.{number}")
    assert len(own_valkey.listener.taken) <= 2, "the step, and a probe whether it was only slow"


@every_fault
def test_of_40_guesses_at_once_the_limit_is_looked_at(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any, fault: str
) -> None:
    settings.AXES_RESERVE_WAIT = 30  # For 40 threads that notice the fault.
    assert failure("alice", "192.0.2.1")
    drain()
    FAULTS[fault][0](own_valkey)

    def guess(number: int) -> bool:
        try:
            return failure("alice", "192.0.2.1")
        finally:
            connection.close()

    with ThreadPoolExecutor(40) as pool:
        looked_at = Tally(pool.map(guess, range(40)))
    assert looked_at[True] == 2
    drain()
    assert failed_rows() == 3


@every_fault
def test_deny_answers_503_and_says_when_to_come_again(
    own_valkey: Valkey, own_store: RedisStore, alice: User, client: Client, settings: Any, fault: str
) -> None:
    settings.AXES_ON_STORE_FAILURE = "deny"
    FAULTS[fault][0](own_valkey)
    for _ in range(3):
        response = client.post("/sign-in/", {"username": "alice", "password": PASSWORD})
        assert response.status_code == 503
        assert int(response["Retry-After"]) >= 1
    assert "_auth_user_id" not in client.session


@every_fault
def test_allow_lets_everybody_try_and_tells_the_log_what_happened(
    own_valkey: Valkey,
    own_store: RedisStore,
    alice: User,
    client: Client,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    settings.AXES_ON_STORE_FAILURE = "allow"
    FAULTS[fault][0](own_valkey)
    with caplog.at_level(logging.ERROR, "axes_async"):
        statuses = [
            client.post("/sign-in/", {"username": "alice", "password": password}).status_code
            for password in [*["wrong"] * 5, PASSWORD]
        ]
    assert statuses == [401] * 5 + [204]
    told = [record.getMessage() for record in caplog.records if "Let through" in record.getMessage()]
    assert sum('"failed"' in line for line in told) >= 5
    assert sum('"logged_in"' in line for line in told) == 1
    assert not any(PASSWORD in line for line in told)


@pytest.mark.parametrize("mode", ["deny", "allow"])
def test_deny_and_allow_do_as_ever_once_the_store_is_back(
    own_valkey: Valkey, own_store: RedisStore, settings: Any, mode: str
) -> None:
    settings.AXES_ON_STORE_FAILURE = mode
    own_valkey.freeze()
    assert failure("alice", "198.51.100.1") is (mode == "allow")
    own_valkey.thaw()
    until(lambda: not get_failover().is_away, what="the store answers again")
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]


def test_server_that_has_forgotten_our_functions_goes_on_counting_exactly(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain
) -> None:
    looked_at = []
    for _ in range(4):
        own_valkey.client.function_flush()
        try:
            with guard.attempt(request_from("192.0.2.1"), {"username": "alice"}) as attempt:
                own_valkey.client.function_flush()
                attempt.failed()
            looked_at.append(True)
        except AttemptDenied:
            looked_at.append(False)
    assert looked_at == [True, True, True, False]
    assert not failover.is_away
    drain()
    assert failed_rows() == 3


def test_failure_that_was_on_its_way_when_the_store_froze_is_counted_once(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    """The frozen server has the step in its socket, and carries it out when it goes on; the database has it by then."""
    with guard.attempt(request_from("192.0.2.1"), {"username": "alice"}) as attempt:
        own_valkey.freeze()
        attempt.failed()
    assert AttemptCounter.objects.get().failures == 1
    own_valkey.thaw()
    until(lambda: own_store.size().events == 1, what="the step was carried out late")
    settle(drain, own_store)
    assert failed_rows() == 1
    assert AccessAttempt.objects.get().failures_since_start == 1
    assert AttemptCounter.objects.get().failures == 1
    assert own_store.size().dead_letters == 0, "nothing is wrong with the event"
    assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]


def test_login_that_was_on_its_way_when_the_store_froze_is_recorded_once(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain
) -> None:
    with guard.attempt(request_from("192.0.2.1"), {"username": "alice"}) as attempt:
        own_valkey.freeze()
        attempt.logged_in("alice")
    own_valkey.thaw()
    until(lambda: own_store.size().events == 1, what="the step was carried out late")
    settle(drain, own_store)
    assert AccessLog.objects.filter(username="alice").count() == 1
    assert own_store.size().dead_letters == 0


def test_full_store_is_drained_so_that_it_has_room_again(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain
) -> None:
    """What fills it is the outbox, so the drain must not need room in it."""
    assert failure("bob", "192.0.2.2")
    fail_all(own_store, ((f"u{number}", "198.51.100.1") for number in range(3000)))
    used = int(own_valkey.client.info("memory")["used_memory"])
    own_valkey.client.config_set("maxmemory", str(used - 50_000))
    assert failure("alice", "192.0.2.1")
    assert failover.is_away, "the store is full"
    until(lambda: drain() == 0 and not own_store.size().events, what="everything is written")
    settle(drain, own_store)
    assert failed_rows() == 3002


def test_all_connections_in_use_are_no_second_limit_for_a_locked_client(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is there, and the rows may be behind it: they are not to decide in its place."""
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]

    def busy(*args: Any, **options: Any) -> Any:
        raise StoreBusy("All connections are in use.")

    monkeypatch.setattr(own_store, "do", busy)
    assert not failure("alice", "192.0.2.1")
    assert not failover.is_away


def test_cool_off_that_began_without_the_store_ends_with_it(
    own_valkey: Valkey, own_store: RedisStore, drain: Drain, settings: Any
) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(minutes=5)
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        own_valkey.freeze()
        assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]
        own_valkey.thaw()
        settle(drain, own_store)
        clock.shift(timedelta(minutes=4))
        assert not failure("alice", "192.0.2.1")
        clock.shift(timedelta(minutes=6))
        assert failure("alice", "192.0.2.1")
