"""Passwords that are looked at while a response is streamed: their reservations end with the stream."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import redis
from django.contrib.auth.models import User

from tests.actions import reservations_held
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.attacks.test_hanging_up import by
from tests.conftest import PASSWORD
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True)]


def begin(web: Web, path: str, valkey: redis.Redis) -> socket.socket:
    """Have a stream try a password."""
    connection = web.send(path, PASSWORD)
    until(lambda: web.looked_at() == 1)
    web.let_go(1)
    assert reservations_held(valkey) == 1
    return connection


@pytest.mark.parametrize(
    ("server", "path"),
    [("threads", "/stream/"), ("uvicorn", "/stream/"), ("uvicorn", "/async-stream/")],
)
def test_a_stream_that_ends_releases_what_it_has_reserved(
    alice: User,
    start_web: Callable[..., Web],
    valkey: redis.Redis,
    server: str,
    path: str,
) -> None:
    web = start_web(server, AXES_RESERVE_LEASE=600)
    with begin(web, path, valkey):
        web.let_go()
        until(lambda: reservations_held(valkey) == 0)


@pytest.mark.parametrize(("server", "path"), [("threads", "/stream/"), ("uvicorn", "/async-stream/")])
def test_a_stream_whose_client_hangs_up_releases_what_it_has_reserved(
    alice: User,
    start_web: Callable[..., Web],
    valkey: redis.Redis,
    server: str,
    path: str,
) -> None:
    web = start_web(server, AXES_RESERVE_LEASE=600)
    with begin(web, path, valkey) as connection:
        until(lambda: b"checked" in connection.recv(1000))
    until(lambda: reservations_held(valkey) == 0)


def test_a_check_in_a_stream_whose_client_hangs_up_keeps_its_place(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis
) -> None:
    web = start_web(AXES_RESERVE_LEASE=600, AXES_RESERVE_WAIT=0, **by("AsyncBackend"))
    for number in range(LIMIT):
        with web.send("/async-stream/", f"guess-{number}"):
            until(lambda: web.looked_at() == number + 1, what="it is looked at")  # noqa: B023  (asked here)
    assert web.post("/async/", "another") == 429
    assert web.looked_at() == reservations_held(valkey) == LIMIT
