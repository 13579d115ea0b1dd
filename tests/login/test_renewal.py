"""A check may last for longer than a lease: what it holds is renewed until it has ended."""

from __future__ import annotations

import sys
from threading import Thread
from types import FrameType
from typing import Any

import pytest
import redis
from django.http import HttpRequest

from axes_async import guard
from axes_async.errors import AttemptDenied
from axes_async.login import renewal, reservation, settlement
from axes_async.login.attempt import Attempt
from axes_async.login.backlog import Backlog
from axes_async.login.state import state_of
from axes_async.stores.factory import get_failover
from tests.actions import counter_keys, failure, request_from, reservations_held
from tests.faults.conftest import own_store, own_valkey  # noqa: F401  (fixtures)
from tests.faults.machines import Valkey
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

ALICE = {"username": "alice"}


@pytest.fixture(autouse=True)
def _often(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reservations be renewed long before their leases end."""
    settings.AXES_FAILURE_LIMIT, settings.AXES_RESERVE_WAIT = 1, 0
    monkeypatch.setattr(renewal, "PARTS", 1000)
    # The thread of the other one may be asleep, over an attempt of another test.
    fresh = Backlog("renewal", renewal._is_done, most=renewal.MOST, rests=renewal._part)
    monkeypatch.setattr(renewal, "_backlog", fresh)


def reserve(request: HttpRequest) -> Attempt:
    attempt = reservation.reserve(request, ALICE)
    assert attempt is not None
    return attempt


def lease_ends(valkey: redis.Redis) -> int:
    """Return when the one reservation on the Valkey ends, in epoch milliseconds; 0 if there is none."""
    fields = [field for key in counter_keys(valkey) for field in valkey.hgetall(key).items()]  # type: ignore[union-attr]
    return max((int(end) for name, end in fields if name[0] == "r"), default=0)


def ended() -> FrameType:
    """Return the frame of code that has returned."""
    return sys._getframe()


def is_over() -> bool:
    """Return whether no reservation is looked after."""
    return renewal._backlog._thread is None


def test_a_reservation_is_renewed_while_its_check_is_open(valkey: redis.Redis) -> None:
    request = request_from("192.0.2.1")
    attempt = reserve(request)
    first = lease_ends(valkey)
    until(lambda: lease_ends(valkey) > first, what="the reservation is renewed")
    assert not failure("alice", "192.0.2.1"), "the place is taken"
    settlement.fail(request, ALICE)
    assert not attempt.denied
    until(is_over, what="nothing is looked after")
    assert reservations_held(valkey) == 0


def test_in_the_database_too(settings: Any) -> None:
    settings.AXES_STORE = "database"
    request = request_from("192.0.2.1")
    attempt = reserve(request)
    first = attempt.reserved_at
    until(lambda: attempt.reserved_at > first, what="the reservation is renewed")
    assert get_failover().look(attempt.counters)[0].reservations == 1
    reservation.release([attempt])
    until(is_over, what="nothing is looked after")
    assert get_failover().look(attempt.counters)[0].reservations == 0


def test_a_check_that_hangs_gives_its_place_up_at_last(
    valkey: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_RESERVE_LEASE = 0.05
    monkeypatch.setattr(renewal, "PARTS", 10)
    hanging = request_from("192.0.2.1")
    reserve(hanging)
    until(lambda: failure("alice", "192.0.2.1"), what="the place is free")
    until(is_over, what="nothing is looked after")


def test_a_block_whose_place_was_given_up_asks_again_before_a_password_is_looked_at(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_RESERVE_LEASE = 0.05
    monkeypatch.setattr(renewal, "LEASES", 0)
    request = request_from("192.0.2.1")
    with guard.attempt(request, ALICE):
        until(lambda: failure("alice", "192.0.2.1"), what="the place is free")
        with pytest.raises(AttemptDenied), guard.attempt(request, ALICE):
            pass


def test_what_no_middleware_ends_is_not_renewed_when_its_request_is_gone(valkey: redis.Redis) -> None:
    request = request_from("192.0.2.1")
    reserve(request)
    first = lease_ends(valkey)
    until(lambda: lease_ends(valkey) > first, what="the reservation is renewed")
    del request
    until(is_over, what="nothing is looked after")


def test_a_check_that_outlasts_a_lockout_is_no_attempt_that_was_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    request, renewed, renew = request_from("192.0.2.1"), [], renewal._renew
    attempt = reserve(request)
    settlement.fail(request_from("192.0.2.1"), ALICE)  # On no reservation, as a module without a guard does.
    monkeypatch.setattr(renewal, "_renew", lambda attempt: (renew(attempt), renewed.append(attempt)))
    until(lambda: renewed, what="the thread has come by")
    assert get_failover().look(attempt.counters)[0].blocked == 0
    reservation.release([attempt])


def test_a_store_that_is_full_for_a_moment_ends_no_renewal(
    own_valkey: Valkey,  # noqa: F811
    own_store: Any,  # noqa: F811
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.AXES_ON_STORE_FAILURE = "deny"
    request = request_from("192.0.2.1")
    attempt = reserve(request)
    own_valkey.fill()
    until(lambda: "A reservation is not renewed" in caplog.text, what="the thread has come by")
    own_valkey.make_room()
    first = lease_ends(own_valkey.client)
    until(lambda: lease_ends(own_valkey.client) > first, what="the reservation is renewed")
    reservation.release([attempt])


def test_without_a_thread_to_be_had_a_lease_is_all_there_is(
    valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    request = request_from("192.0.2.1")
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", refuse)
        attempt = reserve(request)
    assert not attempt.denied
    assert reservations_held(valkey) == 1
    settlement.fail(request, ALICE)
    assert reservations_held(valkey) == 0


def test_a_check_that_is_given_up_keeps_its_place_for_a_lease_and_no_longer(valkey: redis.Redis) -> None:
    attempt = reserve(request_from("192.0.2.1"))
    attempt.given_up = True
    reservation.release([attempt])
    renewal._renew(attempt)  # The thread had begun to.
    assert reservations_held(valkey) == 1
    until(is_over, what="nothing is looked after")


def test_a_check_that_has_ended_is_not_renewed_whatever_its_view_does_next(
    valkey: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_RESERVE_LEASE = 0.05
    renewed: list[Attempt] = []
    monkeypatch.setattr(renewal, "_renew", renewed.append)
    request = request_from("192.0.2.1")
    attempt = reservation.reserve(request, ALICE, sys._getframe())
    assert attempt is not None
    until(lambda: renewed, what="the reservation is renewed")
    attempt.caller = ended()
    renewed.clear()
    until(is_over, what="nothing is looked after")
    assert len(renewed) <= 1, "one may have been under way"


def test_a_check_that_has_outlived_its_request_gives_its_place_back_if_nobody_was_logged_in(
    valkey: redis.Redis,
) -> None:
    request = request_from("192.0.2.1")
    attempt = reservation.reserve(request, ALICE, ended())
    assert attempt is not None
    state_of(request).is_over = True
    until(is_over, what="nothing is looked after")
    assert reservations_held(valkey) == 0
