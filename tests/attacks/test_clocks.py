"""A host whose clock is wrong ends no lockout: those that keep the counters say what time it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from axes_async.models import AttemptCounter
from tests.faults.conftest import Actor, Notes, database_of_test, environment
from tests.faults.machines import Valkey
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

COOLOFF = timedelta(minutes=15)
ALICE, BOB = ("alice", "192.0.2.1"), ("bob", "192.0.2.2")
LIMIT = 3


@pytest.fixture
def start(own_valkey: Valkey, own_store: object, notes: Notes, tmp_path: Path) -> Iterator[Callable[..., Actor]]:
    """Return a function that starts a process of the site, on a host whose clock is ahead if that is wanted."""
    started: list[Actor] = []

    def start(*, ahead: bool = False, store: str = "cache") -> Actor:
        settings = {
            "AXES_FAILURE_LIMIT": LIMIT,
            "AXES_COOLOFF_TIME": COOLOFF.total_seconds() / 3600,
            "AXES_STORE": store,
        }
        known = environment(tmp_path, database_of_test(), own_valkey.url, f"{own_valkey.url}/1", settings)
        if ahead:
            known["DJANGO_SETTINGS_MODULE"] = "tests.attacks.ahead"
        started.append(Actor(known))
        return started[-1]

    yield start
    for actor in started:
        actor.kill()


def see_lockout_hold(right: Actor, ahead: Actor) -> None:
    """Have the process with the wrong clock do all that it may do, and see that the lockout is still there."""
    assert right.ask("fail", clients=[ALICE] * (LIMIT + 1)) == [True] * LIMIT + [False]
    assert ahead.ask("fail", clients=[ALICE]) == [False]
    assert ahead.ask("fail", clients=[BOB] * (LIMIT + 1)) == [True] * LIMIT + [False]
    ahead.ask("drain")
    ahead.ask("expire")
    assert AttemptCounter.objects.filter(failures=LIMIT).count() == 2
    for actor in (ahead, right, ahead):
        assert actor.ask("fail", clients=[ALICE, BOB]) == [False, False]


def test_lockout_in_the_store_outlasts_a_clock_ahead(start: Callable[..., Actor]) -> None:
    right, ahead = start().ready(), start(ahead=True).ready()
    see_lockout_hold(right, ahead)


def test_lockout_outlasts_a_clock_ahead_and_the_loss_of_the_store(
    start: Callable[..., Actor], own_valkey: Valkey
) -> None:
    right, ahead = start().ready(), start(ahead=True).ready()
    see_lockout_hold(right, ahead)
    own_valkey.client.flushall()
    assert ahead.ask("fail", clients=[ALICE, BOB]) == [False, False]
    until(lambda: ahead.ask("settled"), what="the store is complete again")
    for actor in (ahead, right):
        assert actor.ask("fail", clients=[ALICE, BOB]) == [False, False]


def test_lockout_in_the_database_outlasts_a_clock_ahead(start: Callable[..., Actor]) -> None:
    right, ahead = start(store="database").ready(), start(ahead=True, store="database").ready()
    see_lockout_hold(right, ahead)
