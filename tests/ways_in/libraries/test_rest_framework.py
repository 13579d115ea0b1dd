"""Django REST framework: session, basic and token authentication, and what a locked client is told."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.authtoken.models import Token

from axes_async.models import AccessAttempt
from axes_async.tasks.drain import drain
from tests.conftest import PASSWORD
from tests.ways_in.libraries import urls
from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db]


def told_in_json(response: Any) -> None:
    assert response["Content-Type"] == "application/json"
    assert response.json()["detail"] == "Too many failed login attempts. Please try again later."
    assert "WWW-Authenticate" not in response


def basic(password: str) -> Any:
    credentials = b64encode(f"alice:{password}".encode()).decode()
    return Client().get("/rest/me/", headers={"Authorization": f"Basic {credentials}"})


@back_by
def test_basic_authentication(alice: User, back: str) -> None:
    def shown(response: Any) -> None:
        assert response.json() == {"username": "alice"}

    follow(basic, back, right=200, wrong=401, path="/rest/me/", logins=(), locked=told_in_json, entered=shown)


def test_basic_authentication_gives_its_place_back(alice: User) -> None:
    """Nobody is logged in by it, so no signal tells that the password was right."""
    assert [basic(PASSWORD).status_code for _ in range(5)] == [200] * 5
    drain()
    assert AccessAttempt.objects.count() == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@back_by
def test_a_token_is_given_for_a_password(alice: User, client: Client, back: str, content_type: str) -> None:
    def enter(password: str) -> Any:
        if content_type == "application/json":
            return client.post("/rest/token/", {"username": "alice", "password": password}, content_type)
        return client.post("/rest/token/", f"username=alice&password={password}", content_type)

    def given_a_token(response: Any) -> None:
        authorization = {"Authorization": f"Token {response.json()['token']}"}
        assert client.get("/rest/me/", headers=authorization).json() == {"username": "alice"}

    follow(
        enter,
        back,
        right=200,
        wrong=400,
        path="/rest/token/",
        logins=(),
        locked=told_in_json,
        entered=given_a_token,
    )


def test_a_token_is_good_during_a_lockout(alice: User, client: Client) -> None:
    """It is no password, and its owner need not be the one who guesses."""
    token = Token.objects.create(user=alice)
    assert [basic("wrong").status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/rest/me/", headers={"Authorization": f"Token {token.key}"}).status_code == 200


@back_by
def test_session_authentication(alice: User, back: str) -> None:
    def enter(password: str) -> Any:
        form = {"username": "alice", "password": password}
        return Client().post("/rest/session/login/?next=/rest/me/", form)

    def in_session(response: Any) -> None:
        assert response.client.get("/rest/me/").json() == {"username": "alice"}

    follow(enter, back, right=302, wrong=200, path="/rest/session/login/", entered=in_session)


def test_the_lock_shows_on_the_wrapped_request_and_on_the_one_inside(alice: User, client: Client) -> None:
    urls.SEEN.clear()
    for _ in range(4):
        client.post("/rest/guess/", {"username": "alice", "password": "wrong"}, "application/json")
    assert urls.SEEN == [(False, False), (False, False), (True, True), (True, True)]


def test_a_refusal_that_a_view_lets_through_is_a_lockout_and_not_a_403(client: Client) -> None:
    responses = [client.post("/rest/guarded/", {"username": "alice"}, "application/json") for _ in range(4)]
    assert [response.status_code for response in responses] == [401, 401, 429, 429]
    assert all(response.json()["detail"].startswith("Too many") for response in responses[2:])


def test_who_asks_for_html_gets_the_page(alice: User, client: Client) -> None:
    credentials = b64encode(b"alice:wrong").decode()
    headers = {"Authorization": f"Basic {credentials}", "Accept": "text/html"}
    response = [client.get("/rest/me/", headers=headers) for _ in range(3)][-1]
    assert (response.status_code, response["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert "<h1" in response.content.decode()
