"""Views that do not pass the request to ``authenticate()``: the address counts all the same."""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from axes_async.models import AccessFailureLog
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.conftest import PASSWORD

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    ("server", "path"), [("threads", "/bare/"), ("uvicorn", "/bare/"), ("uvicorn", "/async-bare/")]
)
def test_guesses_from_one_address_are_counted_where_no_request_is_passed_on(
    alice: User,
    start_web: Callable[..., Web],
    drain: Callable[[], int],
    server: str,
    path: str,
) -> None:
    web = start_web(server)
    web.let_go()
    answers = [web.post(path, f"guess-{number}") for number in range(2 * LIMIT)]
    assert web.looked_at() == LIMIT
    assert answers == [401] * (LIMIT - 1) + [429] * (LIMIT + 1)
    assert web.post(path, PASSWORD) == 429
    drain()
    assert set(AccessFailureLog.objects.values_list("ip_address", "path_info")) == {("127.0.0.1", path)}
