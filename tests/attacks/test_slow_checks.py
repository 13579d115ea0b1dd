"""Checks that last for longer than a lease, on a machine that is flooded, say: none of them makes room for a guess."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import redis
from django.contrib.auth.models import User

from tests.actions import failures_stored, reservations_held
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.attacks.test_slow_bodies import is_past, leases
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    ("server", "path"), [pytest.param("threads", "/sync/", marks=pytest.mark.long), ("uvicorn", "/async/")]
)
def test_no_more_passwords_are_looked_at_than_the_limit_if_a_check_outlasts_its_lease(
    alice: User, start_web: Callable[..., Web], valkey: redis.Redis, server: str, path: str
) -> None:
    backends = [
        "axes_async.backends.AxesStandaloneBackend",
        f"tests.attacks.standing_site.{'AsyncBackend' if server == 'uvicorn' else 'SyncBackend'}",
    ]
    web = start_web(server, AXES_RESERVE_LEASE=6, AUTHENTICATION_BACKENDS=backends)
    with ExitStack() as stack:
        for number in range(LIMIT):
            stack.enter_context(web.send(path, f"guess-{number}"))
        until(lambda: web.looked_at() == LIMIT, what="all are looked at")
        first = max(leases(valkey).values())
        until(lambda: is_past(valkey, first), what="the leases that they had at first have ended")
        assert [web.post(path, f"late-{number}") for number in range(3)] == [429] * 3
        web.let_go()
        until(lambda: failures_stored(valkey) == [LIMIT], what="the failures are counted")
        until(lambda: reservations_held(valkey) == 0)
    assert web.looked_at() == LIMIT
