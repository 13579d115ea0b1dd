"""Views that give up a check by themselves, while its thread goes on: no other password gets its place meanwhile."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import redis
from django.contrib.auth.models import User

from tests.actions import failures_stored, reservations_held
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.attacks.test_hanging_up import by, hang_up
from tests.attacks.test_slow_bodies import is_past, leases
from tests.conftest import PASSWORD
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True)]

GIVEN_UP, TURNED_AWAY = 202, 429


@pytest.mark.parametrize(
    ("way", "backend"),
    [
        ("in view", "AsyncBackend"),
        ("own check&thread", "AsyncBackend"),
        ("in its block", "AsyncBackend"),
        ("sync check", "SyncBackend"),
        ("dispatched", "AsyncBackend"),
        ("child task", "AsyncBackend"),
        ("cancelled task", "AsyncBackend"),
        ("cancelled thread", "SyncBackend"),
    ],
)
def test_a_check_that_its_view_gives_up_keeps_its_place(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, way: str, backend: str
) -> None:
    web = start_web(AXES_RESERVE_WAIT=0, **by(backend))
    answers = [web.post(f"/giving-up/?way={way}", f"guess-{number}") for number in range(LIMIT + 3)]
    assert answers == [GIVEN_UP] * LIMIT + [TURNED_AWAY] * 3
    assert web.looked_at() == reservations_held(valkey) == LIMIT
    assert failures_stored(valkey) in ([], [0]), "nobody knows whether they were wrong"


def test_a_backend_of_ours_that_a_site_has_extended_is_no_code_that_asks_backends(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis
) -> None:
    backends = [f"tests.attacks.standing_site.{name}" for name in ("OwnAxesBackend", "AsyncBackend")]
    web = start_web(AXES_RESERVE_WAIT=0, AUTHENTICATION_BACKENDS=backends)
    for number in range(LIMIT + 1):
        web.post("/giving-up/?way=in view", f"guess-{number}")
    assert web.looked_at() == reservations_held(valkey) == LIMIT


def test_a_view_may_count_what_it_gives_up(alice: User, start_web: Callable[..., Web], valkey: redis.Redis) -> None:
    web = start_web(AXES_RESERVE_WAIT=0, **by("AsyncBackend"))
    answers = [web.post("/giving-up/?way=in view&counts", f"guess-{number}") for number in range(LIMIT + 1)]
    assert answers == [GIVEN_UP] * (LIMIT - 1) + [TURNED_AWAY] * 2, "the last guess locks"
    assert (failures_stored(valkey), reservations_held(valkey)) == ([LIMIT], 0)


def test_it_keeps_its_place_for_a_lease(alice: User, start_web: Callable[..., Web], valkey: redis.Redis) -> None:
    web = start_web(AXES_RESERVE_LEASE=1, AXES_FAILURE_LIMIT=1, **by("AsyncBackend"))
    assert web.post("/giving-up/?way=in view", "guess") == GIVEN_UP
    until(lambda: all(is_past(valkey, end) for end in leases(valkey).values()), what="the lease has ended")
    assert web.post("/giving-up/?way=in view", "another") == GIVEN_UP


@pytest.mark.parametrize("way", ["in%20view", "dispatched"])
def test_under_wsgi_too_where_its_request_lasts_as_long_as_the_check(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, way: str
) -> None:
    web = start_web("threads", AXES_RESERVE_WAIT=0, **by("AsyncBackend"))
    with ExitStack() as stack:
        for number in range(LIMIT):
            stack.enter_context(web.send(f"/giving-up/?way={way}", f"guess-{number}"))
            until(lambda: web.looked_at() == number + 1, what="it is looked at")  # noqa: B023  (asked here)
        assert [web.post(f"/giving-up/?way={way}", f"late-{number}") for number in range(3)] == [TURNED_AWAY] * 3
        web.let_go()


@pytest.mark.parametrize("path", ["/in-time/", "/in-time/block/", "/in-time/dispatched/"])
def test_a_check_that_has_ended_in_time_holds_nothing_whatever_else_is_given_up(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, path: str
) -> None:
    web = start_web(AXES_RESERVE_LEASE=600, AXES_RESERVE_WAIT=0, **by("AsyncBackend"))
    web.let_go()
    assert [web.post(path, PASSWORD) for _ in range(LIMIT + 1)] == [204] * (LIMIT + 1)
    assert reservations_held(valkey) == 0


@pytest.mark.parametrize(
    ("server", "path"),
    [
        ("uvicorn", "/async/"),
        ("uvicorn", "/giving-up/?way=errors"),
        ("uvicorn", "/giving-up/?way=errors in a group"),
        ("uvicorn", "/caught/"),
        ("threads", "/async/"),
        ("threads", "/caught/"),
    ],
)
def test_a_check_that_ends_in_an_error_holds_nothing(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, server: str, path: str
) -> None:
    web = start_web(server, AXES_RESERVE_LEASE=600, AXES_RESERVE_WAIT=0, **by("BrokenBackend"))
    assert [web.post(path, PASSWORD) for _ in range(LIMIT + 1)] == [500] * (LIMIT + 1)
    assert reservations_held(valkey) == 0


def test_a_check_whose_error_is_caught_holds_nothing(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis
) -> None:
    web = start_web(AXES_RESERVE_LEASE=600, AXES_RESERVE_WAIT=0, **by("BrokenBackend"))
    answers = [web.post("/giving-up/?way=errors that are caught", PASSWORD) for _ in range(LIMIT + 1)]
    assert (answers, reservations_held(valkey)) == ([GIVEN_UP] * (LIMIT + 1), 0)


def test_a_view_that_gives_up_one_check_after_the_other_needs_a_place_for_each(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis
) -> None:
    web = start_web(AXES_RESERVE_WAIT=0, **by("AsyncBackend"))
    assert web.post(f"/giving-up/?way=in view&times={LIMIT + 3}", "guess") == TURNED_AWAY
    assert web.looked_at() == reservations_held(valkey) == LIMIT


@pytest.mark.parametrize(
    ("server", "way", "backend"),
    [
        ("uvicorn", "left task", "AsyncBackend"),
        ("uvicorn", "own thread", "SyncBackend"),
        ("threads", "own thread", "SyncBackend"),
    ],
)
def test_a_check_that_outlives_its_request_keeps_its_place_until_it_has_ended(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, server: str, way: str, backend: str
) -> None:
    web = start_web(server, AXES_RESERVE_LEASE=600, AXES_RESERVE_WAIT=0, **by(backend))
    answers = [web.post(f"/giving-up/?way={way}", f"guess-{number}") for number in range(LIMIT + 3)]
    assert (answers, web.looked_at()) == ([GIVEN_UP] * LIMIT + [TURNED_AWAY] * 3, LIMIT)
    web.let_go()
    until(lambda: failures_stored(valkey) == [LIMIT], what="the failures are counted")
    until(lambda: reservations_held(valkey) == 0)


def test_a_check_that_was_not_given_up_gives_its_place_back_though_its_client_hangs_up(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis
) -> None:
    web = start_web(AXES_RESERVE_LEASE=600, **by("AsyncBackend"))
    hang_up(web, "/async-bare/", PASSWORD)
    assert reservations_held(valkey) == 1
    web.let_go()
    until(lambda: reservations_held(valkey) == 0)
