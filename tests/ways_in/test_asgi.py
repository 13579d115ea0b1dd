"""Async views with ``aauthenticate`` and ``alogin``, behind a real ASGI server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import uvicorn
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.test import override_settings

from tests import servers
from tests.conftest import PASSWORD
from tests.site import CountingBackend
from tests.waiting import PATIENCE, until
from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def url() -> Iterator[str]:
    """Return the address of the test site, served by uvicorn in a thread."""
    with servers.bound() as listener:
        config = uvicorn.Config(get_asgi_application(), lifespan="off", ws="none", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: server.started, what="uvicorn is up")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=PATIENCE)
        assert not thread.is_alive()


def guess(url: str, password: str) -> Any:
    answer = requests.post(f"{url}/async-sign-in/", data={"username": "alice", "password": password}, timeout=PATIENCE)
    return Answer(answer)


class Answer:
    """A response of requests, read as Django's are."""

    def __init__(self, answer: requests.Response) -> None:
        """Keep the answer."""
        self.status_code, self.headers = answer.status_code, answer.headers

    def __getitem__(self, name: str) -> str:
        """Return a header."""
        return self.headers[name]


@back_by
def test_an_async_view(alice: User, url: str, back: str) -> None:
    def given_a_session(response: Any) -> None:
        assert "sessionid" in response["Set-Cookie"]

    def enter(password: str) -> Any:
        return guess(url, password)

    follow(enter, back, right=204, wrong=401, path="/async-sign-in/", entered=given_a_session)


@override_settings(AXES_FAILURE_LIMIT=5)
def test_of_40_wrong_passwords_at_once_5_are_looked_at(alice: User, url: str) -> None:
    with ThreadPoolExecutor(40) as pool:
        statuses = Counter(pool.map(lambda number: guess(url, f"wrong {number}").status_code, range(40)))
    assert statuses == {401: 4, 429: 36}
    assert CountingBackend.checks == 5


@override_settings(AXES_FAILURE_LIMIT=3, AXES_RESERVE_WAIT=PATIENCE)
def test_of_20_right_passwords_at_once_every_one_is_let_in(alice: User, url: str) -> None:
    with ThreadPoolExecutor(20) as pool:
        statuses = Counter(pool.map(lambda number: guess(url, PASSWORD).status_code, range(20)))
    assert statuses == {204: 20}
