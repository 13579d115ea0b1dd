"""The store is away: logins go on as AXES_ON_STORE_FAILURE says, wait for nothing, and nothing of them is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from axes_async import guard
from axes_async.errors import StoreBusy
from axes_async.models import AccessAttempt, AccessFailureLog, AccessLog, AttemptCounter
from axes_async.stores.factory import get_failover
from axes_async.stores.failover import FailoverStore
from axes_async.stores.redis.store import RedisStore
from tests.actions import failure, request_from, success
from tests.conftest import PASSWORD
from tests.faults.machines import Valkey, until
from tests.faults.sending import fail_all

pytestmark = pytest.mark.django_db(transaction=True)

Drain = Callable[[], int]

FAULTS: dict[str, tuple[Callable[[Valkey], None], Callable[[Valkey], None]]] = {
    "refused": (Valkey.kill, Valkey.replace),
    "silent": (Valkey.silence, Valkey.replace),
    "frozen": (Valkey.freeze, Valkey.thaw),
    "full": (Valkey.fill, Valkey.make_room),
    "read-only": (Valkey.follow, Valkey.lead),
}
"""How to break a store, and how to mend it; one that was ended comes back empty."""

KEEPS = {"frozen", "full", "read-only"}
"""Faults that the store's memory survives."""

every_fault = pytest.mark.parametrize("fault", FAULTS)


class Asked:
    """How often the store was asked, by logins and not by the thread that looks after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Begin to count."""
        self.times = 0
        ask = RedisStore.call

        def counted(command: Callable[[], Any]) -> Any:
            if threading.current_thread().name != "axes-async-store":
                self.times += 1
            return ask(command)

        monkeypatch.setattr(RedisStore, "call", staticmethod(counted))


def failed_rows() -> int:
    return AccessFailureLog.objects.filter(repeats=0).count()


@every_fault
def test_without_the_store_the_rows_decide_and_go_on_where_it_stood(
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
    assert failed_rows() == 4
    assert list(AccessLog.objects.values_list("username", flat=True)) == ["carol"]
    assert AccessAttempt.objects.get(username="alice").failures_since_start == 3

    mended(own_valkey)
    until(failover.is_there, what="the store is used again")
    assert own_store.is_cold(), "what it holds is not what the rows say"
    assert not failure("alice", "192.0.2.1")
    assert [failure("bob", "192.0.2.2"), failure("bob", "192.0.2.2")] == [True, True]
    assert not failure("bob", "192.0.2.2")
    drain()
    assert not own_store.is_cold(), "one drain is enough"
    assert not failure("alice", "192.0.2.1")
    assert not failure("bob", "192.0.2.2")
    drain()
    assert failed_rows() == 6
    assert own_store.client.xlen(own_store.dead_letters_key) == 0
    assert {row.failures - row.lifted for row in AttemptCounter.objects.all()} == {3}
    attempts = AccessAttempt.objects.values_list("username", "failures_since_start")
    assert dict(attempts) == {"alice": 3, "bob": 3}


@every_fault
def test_one_login_waits_a_moment_and_the_next_ones_do_not_ask_the_store_at_all(
    own_valkey: Valkey, failover: FailoverStore, monkeypatch: pytest.MonkeyPatch, settings: Any, fault: str
) -> None:
    assert failure("alice", "192.0.2.1")
    FAULTS[fault][0](own_valkey)
    asked = Asked(monkeypatch)
    started = time.monotonic()
    request = request_from("192.0.2.9")
    guard.reserve(request, {"username": "bob"})
    first = time.monotonic() - started
    assert first < 1, "0.1 s to connect or to be answered, and what the database takes"
    assert asked.times == 2, "the step, and a look whether it was only slow"
    guard.fail(request, {"username": "bob"})
    for number in range(20):
        assert failure("bob", f"198.51.100.{number}")
    assert asked.times == 2
    assert failed_rows() == 21


def test_a_silent_store_gets_no_connection_but_the_watchers(
    own_valkey: Valkey, failover: FailoverStore, settings: Any
) -> None:
    failover.rest = 30.0
    own_valkey.silence()
    assert own_valkey.listener is not None
    for number in range(30):
        assert failure("bob", f"198.51.100.{number}")
    assert len(own_valkey.listener.taken) <= 2, "the step, and a look whether it was only slow"
    failover.rest = 0.05


@every_fault
def test_of_40_guesses_at_once_while_the_store_breaks_the_limit_is_looked_at(
    own_valkey: Valkey, failover: FailoverStore, drain: Drain, settings: Any, fault: str
) -> None:
    settings.AXES_RESERVE_WAIT = 10  # For 40 threads that notice the fault, and wait out the moment after it.
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
    assert failed_rows() == 3


@every_fault
def test_deny_answers_503_and_says_when_to_come_again(
    own_valkey: Valkey, alice: User, client: Client, settings: Any, fault: str
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
    own_valkey: Valkey, alice: User, client: Client, settings: Any, caplog: pytest.LogCaptureFixture, fault: str
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


def test_deny_and_allow_do_as_ever_once_the_store_is_back(own_valkey: Valkey, settings: Any, drain: Drain) -> None:
    for mode in ("deny", "allow"):
        settings.AXES_ON_STORE_FAILURE = mode
        own_valkey.freeze()
        assert failure("alice", f"{mode}.invalid") is (mode == "allow")
        own_valkey.thaw()
        until(get_failover().is_there)
        address = f"192.0.2.{len(mode)}"
        assert [failure("alice", address) for _ in range(4)] == [True, True, True, False]


def test_a_server_that_has_forgotten_the_scripts_goes_on_counting_exactly(
    own_valkey: Valkey, failover: FailoverStore, drain: Drain
) -> None:
    looked_at = []
    for _ in range(4):
        own_valkey.client.script_flush()
        request = request_from("192.0.2.1")
        attempt = guard.reserve(request, {"username": "alice"})
        own_valkey.client.script_flush()
        guard.fail(request, {"username": "alice"})
        looked_at.append(attempt is not None and not attempt.denied)
    assert looked_at == [True, True, True, False]
    assert not failover.is_away
    drain()
    assert failed_rows() == 3


def test_a_failure_that_was_on_its_way_when_the_store_froze_is_counted_once(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain
) -> None:
    """The frozen server has the step in its socket, and carries it out when it goes on; the rows have it by then."""
    assert failure("bob", "192.0.2.2"), "the server knows the scripts"
    drain()
    request = request_from("192.0.2.1")
    attempt = guard.reserve(request, {"username": "alice"})
    assert attempt is not None
    assert not attempt.denied
    own_valkey.freeze()
    guard.fail(request, {"username": "alice"})
    assert failed_rows() == 2
    own_valkey.thaw()
    until(failover.is_there)
    assert own_store.client.xlen(own_store.outbox_key) == 1, "the step was carried out late"
    drain()
    drain()
    assert failed_rows() == 2
    assert AccessAttempt.objects.get(username="alice").failures_since_start == 1
    assert own_store.client.xlen(own_store.dead_letters_key) == 0, "nothing is wrong with the event"
    row = AttemptCounter.objects.get(ip_address="192.0.2.1")
    assert row.failures - row.lifted == 1
    assert [failure("alice", "192.0.2.1") for _ in range(3)] == [True, True, False]


def test_a_login_that_was_on_its_way_when_the_store_froze_is_recorded_once(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain
) -> None:
    assert success("bob", "192.0.2.2"), "the server knows the scripts"
    drain()
    request = request_from("192.0.2.1")
    guard.reserve(request, {"username": "alice"})
    own_valkey.freeze()
    guard.succeed(request, "alice")
    own_valkey.thaw()
    until(failover.is_there)
    assert own_store.client.xlen(own_store.outbox_key) == 1, "the step was carried out late"
    drain()
    assert AccessLog.objects.filter(username="alice").count() == 1
    assert own_store.client.xlen(own_store.dead_letters_key) == 0


def test_a_full_store_is_drained_so_that_it_has_room_again(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain
) -> None:
    """What fills it is the outbox, so the drain must not need room in it."""
    assert failure("bob", "192.0.2.2"), "the server knows the scripts"
    fail_all(own_store, ((f"u{number}", "198.51.100.1") for number in range(3000)))
    used = int(own_valkey.client.info("memory")["used_memory"])
    own_valkey.client.config_set("maxmemory", str(used - 50_000))
    assert failure("alice", "192.0.2.1")
    assert failover.is_away, "the store is full"
    assert drain() == 3001
    assert own_store.client.xlen(own_store.outbox_key) == 0
    until(failover.is_there, what="what was drained has made room")
    drain()
    assert failed_rows() == 3002


def test_all_connections_in_use_are_no_second_limit_for_a_locked_client(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is there, and the rows may be behind it: they are not to decide in its place."""
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]

    def busy(*args: Any, **options: Any) -> Any:
        raise StoreBusy("All connections are in use.")

    monkeypatch.setattr(own_store, "reserve", busy)
    assert not failure("alice", "192.0.2.1")
    assert not failover.is_away


def test_the_count_of_a_cool_off_that_began_without_the_store_ends_with_it(
    own_valkey: Valkey, own_store: RedisStore, failover: FailoverStore, drain: Drain, settings: Any
) -> None:
    settings.AXES_COOLOFF_TIME = timedelta(seconds=2)
    own_valkey.freeze()
    assert [failure("alice", "192.0.2.1") for _ in range(4)] == [True, True, True, False]
    own_valkey.thaw()
    until(get_failover().is_there)
    drain()
    assert not failure("alice", "192.0.2.1")
    until(lambda: failure("alice", "192.0.2.1"), seconds=10, what="the cool-off is over")
