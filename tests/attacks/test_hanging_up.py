"""Clients that hang up while their password is being looked at: it counts all the same."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
import redis
from django.contrib.auth.models import User

from axes_async.models import AccessFailureLog, AccessLog
from tests.actions import failures_stored, reservations_held
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.conftest import PASSWORD
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True)]


def by(backend: str) -> dict[str, list[str]]:
    """Return the settings of a site that has a backend of its own."""
    return {
        "AUTHENTICATION_BACKENDS": [
            "axes_async.backends.AxesStandaloneBackend",
            f"tests.attacks.standing_site.{backend}",
        ]
    }


ways = pytest.mark.parametrize(
    ("path", "settings"),
    [("/async/", by("AsyncBackend")), ("/async/", by("SyncBackend")), ("/sync/", {}), ("/own/", {})],
    ids=["async backend", "sync backend", "sync view", "own check"],
)


def hang_up(web: Web, path: str, password: str) -> None:
    """Send a password, and leave as soon as it is being looked at."""
    before = web.looked_at()
    with web.send(path, password) as connection:
        connection.setblocking(False)
        until(lambda: web.looked_at() > before or answered(connection), what="the password is looked at")
        assert web.looked_at() > before, "there is no answer yet"


def answered(connection: socket.socket) -> bytes:
    """Return what the site has answered so far."""
    with contextlib.suppress(BlockingIOError):
        return connection.recv(200)
    return b""


@ways
def test_wrong_passwords_of_clients_that_hang_up_are_failures(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, drain: Callable[[], int],
    path: str, settings: dict[str, object],
) -> None:  # fmt: skip
    web = start_web(**settings)
    for number in range(LIMIT):
        hang_up(web, path, f"guess-{number}")
    assert web.post(path, PASSWORD) == 429, "each of the five may yet turn out wrong"
    assert reservations_held(valkey) == LIMIT
    web.let_go()
    until(lambda: failures_stored(valkey) == [LIMIT], what="the failures are counted")
    until(lambda: reservations_held(valkey) == 0)
    assert web.post(path, PASSWORD) == 429
    assert web.looked_at() == LIMIT
    drain()
    assert AccessFailureLog.objects.filter(repeats=0).count() == LIMIT


@ways
def test_a_right_password_of_a_client_that_hangs_up_is_a_login(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, drain: Callable[[], int],
    path: str, settings: dict[str, object],
) -> None:  # fmt: skip
    web = start_web(**settings)
    hang_up(web, path, PASSWORD)
    web.let_go()
    until(lambda: drain() or AccessLog.objects.exists(), what="the login is recorded")
    until(lambda: reservations_held(valkey) == 0)
    assert AccessLog.objects.get().username == "alice"
    assert failures_stored(valkey) in ([], [0])
