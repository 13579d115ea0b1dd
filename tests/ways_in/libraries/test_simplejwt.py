"""djangorestframework-simplejwt: a pair of tokens for a password."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db]


@back_by
def test_a_pair_of_tokens_is_given_for_a_password(alice: User, client: Client, back: str) -> None:
    def enter(password: str) -> Any:
        return client.post("/jwt/", {"username": "alice", "password": password}, "application/json")

    def told_in_json(response: Any) -> None:
        assert response["Content-Type"] == "application/json"
        assert response.json()["detail"].startswith("Too many failed login attempts.")

    def given_a_pair(response: Any) -> None:
        assert response.json()["refresh"]
        access = {"Authorization": f"Bearer {response.json()['access']}"}
        assert client.get("/rest/me/", headers=access).json() == {"username": "alice"}

    follow(enter, back, right=200, wrong=401, path="/jwt/", logins=(), locked=told_in_json, entered=given_a_pair)
