"""Two users, who fail and get in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.conftest import PASSWORD

Post = Callable[..., Any]


@pytest.fixture
def users(alice: User) -> None:
    """Let alice and bob have the same password."""
    User.objects.create_user("bob", password=PASSWORD)


@pytest.fixture
def fail(post: Post) -> Callable[..., list[int]]:
    """Return a function that tries wrong passwords."""

    def fail(username: str, address: str, times: int = 3) -> list[int]:
        return [post(username, "wrong", REMOTE_ADDR=address).status_code for _ in range(times)]

    return fail


@pytest.fixture
def gets_in(users: None, post: Post) -> Callable[[str, str], bool]:
    """Return a function that tells whether the right password opens the door."""

    def gets_in(username: str, address: str) -> bool:
        status = post(username, PASSWORD, REMOTE_ADDR=address).status_code
        assert status in {204, 429}
        return bool(status == 204)

    return gets_in
