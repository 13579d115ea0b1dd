"""An office at nine o'clock: many names log in at once from one address, with right passwords, and all are let in.

No more passwords are looked at together than the address has guesses left: each of them may yet turn out wrong.
"""

# ruff: noqa: F811  (a fixture is imported, and is an argument)

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User

from tests.actions import failures_stored, reservations_held
from tests.attacks.standing import LIMIT, Web, start_web  # noqa: F401  (a fixture)
from tests.conftest import PASSWORD
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.django_db(transaction=True)]

PEOPLE = 40


@pytest.mark.parametrize(("server", "path"), [("threads", "/sync/"), ("uvicorn", "/async/")])
def test_an_office_is_let_in_and_no_more_passwords_are_open_than_the_limit(
    start_web: Callable[..., Web], valkey: redis.Redis, server: str, path: str
) -> None:
    hashed = make_password(PASSWORD)
    User.objects.bulk_create([User(username=f"person{number}", password=hashed) for number in range(PEOPLE)])
    backends = ["axes_async.backends.AxesStandaloneBackend", "tests.attacks.standing_site.AsyncBackend"]
    own = {"AUTHENTICATION_BACKENDS": backends} if server == "uvicorn" else {}
    web = start_web(server, AXES_RESERVE_WAIT=PATIENCE, **own)
    with ThreadPoolExecutor(PEOPLE) as pool:
        logins = [pool.submit(web.post, path, PASSWORD, f"person{number}") for number in range(PEOPLE)]
        for ended in range(PEOPLE):
            until(lambda: web.looked_at() >= min(ended + LIMIT, PEOPLE))  # noqa: B023
            assert web.looked_at() <= ended + LIMIT
            web.let_go(ended + 1)
        assert Counter(login.result() for login in logins) == {204: PEOPLE}
        assert reservations_held(valkey) == 0

        guesses = [pool.submit(web.post, path, f"guess-{number}", f"person{number}") for number in range(PEOPLE)]
        until(lambda: web.looked_at() == PEOPLE + LIMIT)
        web.let_go()
        assert Counter(guess.result() for guess in guesses) == {401: LIMIT - 1, 429: PEOPLE - LIMIT + 1}
    assert web.looked_at() == PEOPLE + LIMIT
    assert failures_stored(valkey) == [LIMIT]
