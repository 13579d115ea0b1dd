"""django-ninja: an operation that takes a JSON body and calls ``authenticate``."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.test import Client

from tests.ways_in.story import back_by, follow

pytestmark = [pytest.mark.django_db]


@back_by
def test_an_operation_that_logs_in(alice: User, back: str) -> None:
    def enter(password: str) -> Any:
        return Client().post("/ninja/login", {"username": "alice", "password": password}, "application/json")

    def told_in_json(response: Any) -> None:
        assert response.json()["detail"].startswith("Too many failed login attempts.")

    def logged_in(response: Any) -> None:
        assert response.json() == {"username": "alice"}
        assert SESSION_KEY in response.client.session

    follow(enter, back, right=200, wrong=401, path="/ninja/login", locked=told_in_json, entered=logged_in)
